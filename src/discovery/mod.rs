//! Finds agents that run here, also those without hooks, and how they end. The daemon does so for its own user
//! (`daemon/discovery.rs`), and `sessiond discover` for a user whose home the daemon cannot read.
//!
//! A process that ends in order removes its file, and then its session is closed; a killed one leaves it, and its
//! session stays stale, to be resumed. Where a hook said how the agent ends, that counts.

pub mod folder;

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::claude::running::{self, Running};
use crate::domain::Project;
use crate::domain::agent::{AgentKind, AgentSignal};
use crate::platform::process;
use crate::store::Process;
use folder::Folder;

/// How often the folder is read even if no change in it is reported.
const PATIENCE: Duration = Duration::from_secs(15);

/// The state of a job is written after its process ended: it is checked so often, and this many times, before it is
/// checked with the files.
const AGAIN: Duration = Duration::from_millis(500);
const JOB_CHECKS: u8 = 20;
/// Of how many background jobs it is awaited whether they are stopped.
const MAX_JOBS: usize = 200;

/// Where sightings go: the daemon's store, or its socket.
pub trait Recorder: Sync {
    /// Records that an agent was found, or how it ended. `false`: try again later.
    fn record(&self, running: &Running, sign: AgentSignal, project: Project) -> impl Future<Output = bool> + Send;
}

/// Watches Claude Code's folder `home` and records what runs there; it does not end.
pub async fn watch(recorder: &impl Recorder, home: PathBuf) {
    let mut folder = Folder::new(running::folder(&home), PATIENCE);
    let mut known = Known::default();
    loop {
        for (running, project) in scan(home.clone()).await {
            if known.is_new(&running) && recorder.record(&running, AgentSignal::Found, project).await {
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
            note_end(&mut known, process, &home);
        }
        record_ends(recorder, &mut known).await;
        settle_jobs(recorder, &mut known, &home).await;
    }
}

/// When the process of a file started, if it runs: a file left by a dead process is no session, nor is one whose pid
/// another process has now.
pub fn start_of(running: &Running) -> Option<i64> {
    process::start_time(running.pid).filter(|started| running.started.is_none_or(|told| told == *started))
}

/// Notes that the session of a process that ended in order is to be closed. One whose hooks said how it ended stays as they said.
fn note_end(known: &mut Known, process: Process, home: &Path) {
    let Some(running) = known.remove(process) else { return };
    if running.kind == Some(AgentKind::Background) {
        known.jobs.push(running);
        known.job_checks = JOB_CHECKS;
    } else if !running::has_file(home, process.pid) {
        known.ends.push(running);
    }
}

/// Records how agents ended, also of those whose end could not be recorded before.
async fn record_ends(recorder: &impl Recorder, known: &mut Known) {
    for running in std::mem::take(&mut known.ends) {
        let recorded = recorder.record(&running, AgentSignal::Exited, Project::unnamed()).await;
        if !recorded && known.ends.len() < MAX_JOBS {
            known.ends.push(running);
        }
    }
}

/// Closes the sessions of background jobs that were stopped: the job is marked so after its process ended, and one
/// that crashed continues in another process.
async fn settle_jobs(recorder: &impl Recorder, known: &mut Known, home: &Path) {
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

/// The agents that were reported. Once one is, its hooks and the watch over its process see to it: its file changes
/// all the time.
#[derive(Default)]
struct Known {
    agents: HashMap<Process, Running>,
    exits: JoinSet<Process>,
    /// Agents whose end is not recorded yet.
    ends: Vec<Running>,
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
pub async fn scan(home: PathBuf) -> Vec<(Running, Project)> {
    let read = move || {
        let with_project = |running: Running| {
            let project = running.project();
            (running, project)
        };
        running::all(&home).into_iter().map(with_project).collect()
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}
