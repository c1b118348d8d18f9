//! Finds agents that run here, those too of which no hook tells.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::folder::Folder;
use crate::api::ApiSettings;
use crate::claude::running::{self, Running};
use crate::clock::Clock;
use crate::config::ClaudeSettings;
use crate::domain::Project;
use crate::domain::agent::{Report, Sign, type_by};
use crate::platform::process;
use crate::shutdown::Shutdown;
use crate::store::{Caller, PinnedIdentity, Process, Sighting, Store};

/// How often it is looked even if nothing is heard of changes.
const PATIENCE: Duration = Duration::from_secs(15);

pub struct Discovery {
    pub store: Store,
    pub identity: Arc<PinnedIdentity>,
    pub settings: watch::Receiver<ApiSettings>,
    pub claude: watch::Receiver<ClaudeSettings>,
    pub clock: Clock,
    pub random: fn() -> u64,
}

impl Discovery {
    pub async fn run(self, mut shutdown: Shutdown) {
        let mut claude = self.claude.clone();
        loop {
            let settings = claude.borrow_and_update().clone();
            let watching = async {
                match settings.home.filter(|_| settings.watch) {
                    Some(home) => self.watch(home).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = watching => {}
                Ok(()) = claude.changed() => {}
                () = shutdown.requested() => return,
            }
        }
    }

    async fn watch(&self, home: PathBuf) {
        let mut folder = Folder::new(running::folder(&home), PATIENCE);
        // Once told, the hooks and the watch over its process see to an agent; its file changes all the time.
        let mut told = HashSet::new();
        loop {
            let found = look(home.clone()).await;
            told.retain(|known| found.iter().any(|(running, _)| running == known));
            for (running, project) in found {
                if !told.contains(&running) && self.tell(&running, project).await {
                    told.insert(running);
                }
            }
            folder.changed().await;
        }
    }

    /// Says whether the store took it.
    async fn tell(&self, running: &Running, project: Project) -> bool {
        // A file left by a dead process is no session, nor is one whose pid another process has now.
        let Some(started) = process::started(running.pid) else { return false };
        if running.started.is_some_and(|told| told != started) {
            return false;
        }
        let (rules, stale_after) = {
            let settings = self.settings.borrow();
            (settings.type_rules.clone(), settings.stale_after)
        };
        let report = Report {
            sign: Sign::Found,
            claude_session_uuid: Some(running.session_id.clone()),
            claude_session_path: running.transcript.clone(),
            working_dir: running.cwd.clone(),
            instance_type: type_by(&rules, &project, running.cwd.as_deref()),
            project,
            context_percent: None,
            promised_id: None,
        };
        let sighting = Sighting {
            report,
            process: Some(Process { pid: running.pid, started }),
            host_machine: self.identity.current().name,
            lives: process::lives,
        };
        let draws = std::array::from_fn(|_| (self.random)());
        let caller = Caller { uid: running.uid };
        match self.store.sight(sighting, caller, draws, (self.clock)(), stale_after).await {
            Ok(sighted) => {
                if sighted.created {
                    tracing::info!(session = %sighted.record.session.instance_id, pid = running.pid, "found an agent");
                }
                true
            }
            Err(error) => {
                tracing::warn!(%error, pid = running.pid, "an agent that was found cannot be recorded; trying again");
                false
            }
        }
    }
}

/// Reads the files beside the runtime: a home folder may lie on a slow disk.
async fn look(home: PathBuf) -> Vec<(Running, Project)> {
    let read = move || {
        let with_project = |running: Running| {
            let project = running.project();
            (running, project)
        };
        running::all(&home).into_iter().map(with_project).collect()
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}
