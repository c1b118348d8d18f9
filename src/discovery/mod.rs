//! Finds running agents, also those without hooks, and reports how they end. The daemon does so for its own user
//! (`daemon/discovery.rs`), and `sessiond discover` for a user whose home the daemon cannot read.
//!
//! A process that exits normally removes its file, and its session is closed; a killed one leaves the file, and its session
//! stays stale and can be resumed. If a hook has reported the end, that report is final. An end that cannot be recorded is
//! retried until it is.

pub mod folder_watcher;

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::claude::running_agent::{self, RunningAgent};
use crate::domain::Process;
use crate::domain::Project;
use crate::domain::agent::{AgentKind, AgentSignal};
use crate::platform::process;
use folder_watcher::FolderWatcher;

/// How often the folder is read even if no change in it is reported.
const RESCAN_INTERVAL: Duration = Duration::from_secs(15);

/// The state of a job is written after its process ended: it is read at this interval, this many times; later with each scan.
const JOB_CHECK_INTERVAL: Duration = Duration::from_millis(500);
const JOB_CHECKS: u8 = 20;
/// The largest number of ended background sessions whose jobs are checked, and of ends that are retried.
const MAX_JOBS: usize = 200;

/// Records discovered agents: in the daemon's store, or through its socket.
pub trait Recorder: Sync {
    /// Records that an agent was found, what it does now (a heartbeat), or how it ended. `false`: retry later.
    fn record(&self, running: &RunningAgent, sign: AgentSignal, project: Project) -> impl Future<Output = bool> + Send;
}

/// Watches Claude Code's folder `home` and records its agents; never returns.
pub async fn watch(recorder: &impl Recorder, home: PathBuf) {
    let mut folder = FolderWatcher::new(running_agent::folder(&home), RESCAN_INTERVAL);
    let mut known = ReportedAgents::default();
    loop {
        for (running, project) in scan(home.clone()).await {
            let sign = known.sign_of(&running);
            if let Some(sign) = sign
                && recorder.record(&running, sign, project).await
            {
                known.add(running);
            }
        }
        // A killed process leaves its file, which the next start of an agent may remove: so the file is checked right
        // after the process ended.
        let ended = tokio::select! {
            () = folder.changed() => None,
            Some(ended) = known.exits.join_next(), if !known.exits.is_empty() => ended.ok(),
            () = tokio::time::sleep(JOB_CHECK_INTERVAL), if known.job_checks > 0 => None,
        };
        known.job_checks = known.job_checks.saturating_sub(1);
        if let Some(process) = ended {
            queue_end(&mut known, process, &home);
        }
        record_ends(recorder, &mut known).await;
        close_stopped_jobs(recorder, &mut known, &home).await;
    }
}

/// When the process of a file started, if it still runs. The file of a dead process, or of one whose pid was reused, is not
/// a session.
pub fn start_of(running: &RunningAgent) -> Option<i64> {
    process::start_time(running.pid).filter(|started| running.started.is_none_or(|recorded| recorded == *started))
}

/// Queues the end of a session whose process exited normally, or the check of its background job.
fn queue_end(known: &mut ReportedAgents, process: Process, home: &Path) {
    let Some(running) = known.remove(process) else { return };
    if running.kind == Some(AgentKind::Background) {
        known.jobs.push(running);
        known.job_checks = JOB_CHECKS;
    } else if !running_agent::has_file(home, process.pid) {
        known.ends.push(running);
    }
}

/// Records the queued ends, including those that could not be recorded before.
async fn record_ends(recorder: &impl Recorder, known: &mut ReportedAgents) {
    for running in std::mem::take(&mut known.ends) {
        let recorded = recorder.record(&running, AgentSignal::Exited, Project::unnamed()).await;
        if !recorded && known.ends.len() < MAX_JOBS {
            known.ends.push(running);
        }
    }
}

/// Closes the sessions of background jobs that were stopped: a job is marked as stopped after its process ended, and one that
/// crashed continues in another process.
async fn close_stopped_jobs(recorder: &impl Recorder, known: &mut ReportedAgents, home: &Path) {
    for running in std::mem::take(&mut known.jobs) {
        let (home, job) = (home.to_owned(), running.clone());
        let continues = tokio::task::spawn_blocking(move || job.job_continues(&home)).await.ok().flatten();
        match continues {
            Some(false) => {
                recorder.record(&running, AgentSignal::End, Project::unnamed()).await;
            }
            Some(true) if known.jobs.len() < MAX_JOBS => known.jobs.push(running),
            _ => {}
        }
    }
}

/// The agents that were recorded. Their files change often: an agent is recorded again only if its state changed, which
/// settles what no hook reports, such as an interrupt.
#[derive(Default)]
struct ReportedAgents {
    agents: HashMap<Process, RunningAgent>,
    exits: JoinSet<Process>,
    /// Agents whose end is not recorded yet.
    ends: Vec<RunningAgent>,
    /// Background sessions whose process ended and whose job is not stopped.
    jobs: Vec<RunningAgent>,
    /// The remaining number of checks of jobs at the short interval.
    job_checks: u8,
}

impl ReportedAgents {
    /// What is to be recorded of an agent: that it was found, or that its state changed.
    fn sign_of(&self, running: &RunningAgent) -> Option<AgentSignal> {
        let is_same = |known: &&RunningAgent| {
            RunningAgent { started: running.started, state: running.state.clone(), ..(*known).clone() } == *running
        };
        match self.agents.values().find(is_same) {
            None => Some(AgentSignal::Found),
            Some(known) => (known.state != running.state).then_some(AgentSignal::Heartbeat),
        }
    }

    fn add(&mut self, running: RunningAgent) {
        // A process that ended while it was recorded is known by its file.
        let Some(started) = running.started.or_else(|| process::start_time(running.pid)) else { return };
        let process = Process { pid: running.pid, started };
        // The job continues in this process.
        self.jobs.retain(|ended| ended.session_id != running.session_id);
        if self.agents.insert(process, RunningAgent { started: Some(started), ..running }).is_none() {
            self.exits.spawn(async move {
                process::wait_for_exit(process).await;
                process
            });
        }
    }

    fn remove(&mut self, process: Process) -> Option<RunningAgent> {
        self.agents.remove(&process)
    }
}

/// Reads the files of running agents on a thread for blocking work: a home folder may be on a slow disk.
pub async fn scan(home: PathBuf) -> Vec<(RunningAgent, Project)> {
    let read = move || {
        let with_project = |running: RunningAgent| {
            let project = running.project();
            (running, project)
        };
        running_agent::all(&home).into_iter().map(with_project).collect()
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Mutex;
    use std::time::Instant;

    use super::*;

    /// What was recorded: the signal, and what the agent does.
    #[derive(Default)]
    struct Recorded(Mutex<Vec<(AgentSignal, String)>>);

    impl Recorder for Recorded {
        async fn record(&self, running: &RunningAgent, sign: AgentSignal, _: Project) -> bool {
            let activity = running.state.status.as_ref().and_then(|status| status.activity());
            let activity = activity.map(|activity| activity.activity).unwrap_or_default();
            self.0.lock().unwrap().push((sign, format!("{activity} {}", running.session_id)));
            true
        }
    }

    #[test]
    fn only_a_changed_status_is_recorded() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let folder = running_agent::folder(dir.path());
        fs::create_dir_all(&folder).unwrap();
        let pid = std::process::id();
        let write = |session: &str, status: &str, at: u64, updated: u64| {
            let text = format!(
                r#"{{"pid": {pid}, "sessionId": "{session}", "cwd": "/w", "status": "{status}", "statusUpdatedAt": {at},
                    "updatedAt": {updated}}}"#
            );
            let file = folder.join("new.json.tmp");
            fs::write(&file, text).unwrap();
            fs::rename(file, folder.join("1.json")).unwrap();
        };
        let recorded = Recorded::default();
        let steps = async {
            let until = async |count: usize| {
                let began = Instant::now();
                while recorded.0.lock().unwrap().len() < count {
                    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", recorded.0.lock().unwrap());
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            write("a", "busy", 1, 1);
            until(1).await;
            for updated in 2..30 {
                write("a", "busy", 1, updated);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            write("a", "idle", 30, 30);
            until(2).await;
            write("b", "idle", 30, 31);
            until(3).await;
            write("b", "of a later version", 40, 40);
            until(4).await;
        };
        runtime.block_on(async {
            tokio::select! {
                () = watch(&recorded, dir.path().to_owned()) => {}
                () = steps => {}
            }
        });
        let expected = [
            (AgentSignal::Found, "working a"),
            (AgentSignal::Heartbeat, "idle a"),
            (AgentSignal::Found, "idle b"),
            (AgentSignal::Heartbeat, " b"),
        ];
        assert_eq!(*recorded.0.lock().unwrap(), expected.map(|(sign, text)| (sign, text.to_owned())));
    }
}
