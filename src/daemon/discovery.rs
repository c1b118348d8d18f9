//! Records the agents that the discovery finds in the store.

use std::sync::Arc;

use tokio::sync::watch;

use crate::api::ApiSettings;
use crate::claude::running_agent::RunningAgent;
use crate::claude::work;
use crate::clock::Clock;
use crate::config::ClaudeSettings;
use crate::discovery::{self, Recorder, start_of};
use crate::domain::Process;
use crate::domain::Project;
use crate::domain::agent::{AgentName, AgentSignal, ValidReport, type_by};
use crate::platform::process;
use crate::shutdown::Shutdown;
use crate::store::{Caller, IdSource, OpContext, PinnedIdentity, ReceivedReport, Store, StoreError};

/// Watches for agents, as `claude.watch` says, and records them.
pub(super) struct AgentRecorder {
    pub store: Store,
    pub identity: Arc<PinnedIdentity>,
    pub settings: watch::Receiver<ApiSettings>,
    pub claude: watch::Receiver<ClaudeSettings>,
    pub clock: Clock,
    pub random: fn() -> u64,
}

impl AgentRecorder {
    /// Runs until shutdown; a change of the settings restarts the watch.
    pub(super) async fn run(self, mut shutdown: Shutdown) {
        let mut claude = self.claude.clone();
        loop {
            let settings = claude.borrow_and_update().clone();
            let watching = async {
                match settings.home.filter(|_| settings.watch) {
                    Some(home) => discovery::watch(&self, home).await,
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
}

impl Recorder for AgentRecorder {
    async fn record(&self, running: &RunningAgent, sign: AgentSignal, project: Project) -> bool {
        let started = match sign {
            AgentSignal::Found => match start_of(running) {
                Some(started) => started,
                None => return false,
            },
            _ => running.started.unwrap_or_default(),
        };
        let (rules, stale_after) = {
            let settings = self.settings.borrow();
            (settings.type_rules.clone(), settings.stale_after)
        };
        let describes = matches!(sign, AgentSignal::Found | AgentSignal::Heartbeat);
        let (title, record) = (running.state.title.as_deref(), self.claude.borrow().record);
        let report = ValidReport {
            sign,
            agent: Some(AgentName::ClaudeCode),
            claude_session_uuid: Some(running.session_id.clone()),
            claude_session_path: running.transcript.clone(),
            working_dir: running.cwd.clone(),
            instance_type: type_by(&rules, &project, running.cwd.as_deref()),
            project,
            kind: running.kind,
            context_percent: None,
            promised_id: None,
            outer_id: None,
            at: (self.clock)(),
            activity: running.activity().filter(|_| describes),
            work: work::of_status_file(title, record).filter(|_| describes),
            limits: None,
        };
        let sighting = ReceivedReport {
            report,
            process: Some(Process { pid: running.pid, started }),
            host_machine: self.identity.current().name,
            lives: process::is_running,
            now: (self.clock)(),
        };
        let context = OpContext {
            now: (self.clock)(),
            caller: Caller { uid: running.uid },
            stale_after,
            ids: IdSource::Random(self.random),
        };
        match self.store.report_agent(sighting, context).await {
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
