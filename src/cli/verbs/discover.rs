//! discover: finds the running agents of this user and reports them to a daemon that cannot read this user's home, as
//! the system's service cannot (ProtectHome=, and Claude Code's folder has mode 0700).

use std::sync::Mutex;

use clap::Args;

use super::agent_settings::claude_home;
use crate::claude::running_agent::{AgentStatus, RunningAgent};
use crate::claude::work;
use crate::cli::LocalOperations;
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::client::Client;
use crate::discovery::{self, Recorder, start_of};
use crate::domain::Project;
use crate::domain::agent::AgentSignal;
use crate::domain::work::Recording;
use crate::platform::default_paths::Env;
use crate::wire::{AgentReport, ErrorCode};

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond discover --watch")]
pub(crate) struct DiscoverArgs {
    /// Keep running, and report each agent when it starts and ends
    #[arg(long)]
    pub watch: bool,
}

pub(crate) fn discover(
    client: &Client,
    args: &DiscoverArgs,
    env: Env<'_>,
    local: &dyn LocalOperations,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    // A configuration that cannot be read may forbid everything.
    let recording = local.recording().unwrap_or_else(|error| {
        out.print_note(&format!("{}; titles are not recorded", error.line()));
        Recording::None
    });
    let home = claude_home(env)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::new(ErrorCode::Internal, format!("no runtime: {error}"), "try again"))?;
    if args.watch {
        let reports = Reports { client: client.clone(), recording, complaint: Mutex::default() };
        runtime.block_on(discovery::watch(&reports, home));
        return Ok(());
    }
    let found = runtime.block_on(discovery::scan(home));
    report_once(client, found, recording, out)
}

/// Reports the agents that run now, and prints their sessions.
fn report_once(
    client: &Client,
    found: Vec<(RunningAgent, Project)>,
    recording: Recording,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let reports =
        found.iter().filter_map(|(running, project)| report_of(running, AgentSignal::Found, project, recording));
    let mut count = 0;
    for report in reports {
        let answer = client.report_agent(&report)?;
        let session = answer.session;
        out.print_line(&format!("{} {}", session.instance_id, if answer.created { "registered" } else { "known" }))?;
        count += 1;
    }
    if count == 0 {
        out.print_line("no running agent of this user is described in Claude Code's folder")
    } else {
        Ok(())
    }
}

/// The report of an agent; `None` if its process does not run.
fn report_of(
    running: &RunningAgent,
    sign: AgentSignal,
    project: &Project,
    recording: Recording,
) -> Option<AgentReport> {
    let (sign, started) = match sign {
        AgentSignal::Found => ("found", Some(start_of(running)?)),
        AgentSignal::Heartbeat => ("beat", Some(start_of(running)?)),
        AgentSignal::Exited => ("exited", running.started),
        _ => ("end", running.started),
    };
    let described = sign == "found";
    let lives = described || sign == "beat";
    let status = running.state.status.as_ref().filter(|_| lives);
    Some(AgentReport {
        sign: sign.to_owned(),
        claude_session_uuid: Some(running.session_id.clone()),
        claude_session_path: running.transcript.clone().filter(|_| described),
        working_dir: running.cwd.clone().filter(|_| described),
        project: described.then(|| project.to_string()),
        pid: Some(running.pid),
        pid_started: started,
        kind: running.kind.filter(|_| described).map(|kind| kind.as_str().to_owned()),
        at: status.map(|status| status.at.to_string()),
        activity: status.and_then(AgentStatus::activity),
        work: work::of_status_file(running.state.title.as_deref(), recording).filter(|_| lives),
        ..AgentReport::default()
    })
}

/// Reports to the daemon; while no daemon answers, discovery retries each report.
struct Reports {
    client: Client,
    recording: Recording,
    /// The last failure that was printed, so that each is printed once.
    complaint: Mutex<Option<String>>,
}

impl Reports {
    /// Prints a failure once, until another one or a success follows.
    fn print_failure_once(&self, failure: Option<String>) {
        let Ok(mut last) = self.complaint.lock() else { return };
        if let Some(failure) = failure.as_ref().filter(|failure| last.as_ref() != Some(failure)) {
            use std::io::Write as _;
            _ = writeln!(std::io::stderr(), "sessiond: {}; trying again", crate::domain::text::one_line(failure));
        }
        *last = failure;
    }
}

impl Recorder for Reports {
    async fn record(&self, running: &RunningAgent, sign: AgentSignal, project: Project) -> bool {
        let Some(report) = report_of(running, sign, &project, self.recording) else { return false };
        let client = self.client.clone();
        let answer = tokio::task::spawn_blocking(move || client.report_agent(&report)).await;
        match answer {
            Ok(Ok(_)) => self.print_failure_once(None),
            // The end of a session that is not known.
            Ok(Err(error)) if error.code == ErrorCode::NotFound => self.print_failure_once(None),
            Ok(Err(error)) => {
                self.print_failure_once(Some(error.message));
                return false;
            }
            Err(_) => return false,
        }
        true
    }
}
