//! Finds agents that run here, also those without hooks, and how they end.
//!
//! A process that ends in order removes its file, and then its session is closed; a killed one leaves it, and its
//! session stays stale, to be resumed. Where a hook said how the agent ends, that counts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::folder::Folder;
use crate::api::ApiSettings;
use crate::claude::running::{self, Running};
use crate::clock::Clock;
use crate::config::ClaudeSettings;
use crate::domain::Project;
use crate::domain::agent::{Kind, Report, Sign, type_by};
use crate::platform::process;
use crate::shutdown::Shutdown;
use crate::store::{Caller, PinnedIdentity, Process, Sighting, Store, StoreError};

/// How often it is looked even if nothing is heard of changes.
const PATIENCE: Duration = Duration::from_secs(15);

/// The state of a job is written after its process ended: it is checked so often, and this many times, before it is
/// checked with the files.
const AGAIN: Duration = Duration::from_millis(500);
const JOB_CHECKS: u8 = 20;
/// Of how many background jobs it is awaited whether they are stopped.
const MAX_JOBS: usize = 200;

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
        let mut known = Known::default();
        loop {
            for (running, project) in look(home.clone()).await {
                if known.is_new(&running) && self.report(&running, Sign::Found, project).await {
                    known.add(running);
                }
            }
            // A process that was killed leaves its file, which the next start of an agent may remove: what counts is
            // whether it is there right after the process ended.
            let ended = tokio::select! {
                () = folder.changed() => None,
                Some(ended) = known.exits.join_next(), if !known.exits.is_empty() => ended.ok(),
                () = tokio::time::sleep(AGAIN), if known.job_checks > 0 => None,
            };
            known.job_checks = known.job_checks.saturating_sub(1);
            if let Some(process) = ended {
                self.ended(&mut known, process, &home).await;
            }
            self.settle_jobs(&mut known, &home).await;
        }
    }

    /// Closes the session of a process that ended in order. One whose hooks said how it ended stays as they said.
    async fn ended(&self, known: &mut Known, process: Process, home: &Path) {
        let Some(running) = known.remove(process) else { return };
        if running.kind == Some(Kind::Background) {
            known.jobs.push(running);
            known.job_checks = JOB_CHECKS;
        } else if !running::has_file(home, process.pid) {
            let project = Project::unnamed();
            self.report(&running, Sign::Exited, project).await;
        }
    }

    /// Closes the sessions of background jobs that were stopped: the job is marked so after its process ended, and one
    /// that crashed continues in another process.
    async fn settle_jobs(&self, known: &mut Known, home: &Path) {
        for running in std::mem::take(&mut known.jobs) {
            let (home, job) = (home.to_owned(), running.clone());
            let continues = tokio::task::spawn_blocking(move || job.job_continues(&home)).await.ok().flatten();
            match continues {
                Some(false) => {
                    self.report(&running, Sign::End, Project::unnamed()).await;
                }
                Some(true) if known.jobs.len() < MAX_JOBS => known.jobs.push(running),
                _ => {}
            }
        }
    }

    /// Says whether the store took it.
    async fn report(&self, running: &Running, sign: Sign, project: Project) -> bool {
        let started = match sign {
            // A file left by a dead process is no session, nor is one whose pid another process has now.
            Sign::Found => match process::start_time(running.pid) {
                Some(started) if running.started.is_none_or(|told| told == started) => started,
                _ => return false,
            },
            _ => running.started.unwrap_or_default(),
        };
        let (rules, stale_after) = {
            let settings = self.settings.borrow();
            (settings.type_rules.clone(), settings.stale_after)
        };
        let report = Report {
            sign,
            claude_session_uuid: Some(running.session_id.clone()),
            claude_session_path: running.transcript.clone(),
            working_dir: running.cwd.clone(),
            instance_type: type_by(&rules, &project, running.cwd.as_deref()),
            project,
            kind: running.kind,
            context_percent: None,
            promised_id: None,
            outer_id: None,
        };
        let sighting = Sighting {
            report,
            process: Some(Process { pid: running.pid, started }),
            host_machine: self.identity.current().name,
            lives: process::is_running,
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
            Err(StoreError::NotFound(_)) => true,
            Err(error) => {
                tracing::warn!(%error, pid = running.pid, "an agent that was found cannot be recorded; trying again");
                false
            }
        }
    }
}

/// The agents that were reported. Once one is, its hooks and the watch over its process see to it: its file changes
/// all the time.
#[derive(Default)]
struct Known {
    agents: HashMap<Process, Running>,
    exits: JoinSet<Process>,
    /// Background sessions whose process ended, and whose job was not stopped so far.
    jobs: Vec<Running>,
    /// How often they are still to be checked in quick succession.
    job_checks: u8,
}

impl Known {
    fn is_new(&self, running: &Running) -> bool {
        !self.agents.values().any(|known| Running { started: running.started, ..known.clone() } == *running)
    }

    fn add(&mut self, running: Running) {
        let Some(started) = process::start_time(running.pid) else { return };
        let process = Process { pid: running.pid, started };
        // The job goes on in this process.
        self.jobs.retain(|ended| ended.session_id != running.session_id);
        if self.agents.insert(process, Running { started: Some(started), ..running }).is_none() {
            self.exits.spawn(async move {
                process::wait_for_exit(process).await;
                process
            });
        }
    }

    fn remove(&mut self, process: Process) -> Option<Running> {
        self.agents.remove(&process)
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
