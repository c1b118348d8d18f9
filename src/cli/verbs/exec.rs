//! exec: runs any program as a session, for agents without hooks.
//!
//! The session is closed if the program succeeds; otherwise it is reported as gone, turns stale and can be resumed, and its
//! last error is the exit code with the last lines of stderr, where these can be recorded (`stderr_tail`). Without a
//! terminal to read from, the session is headless. Failures to report never affect the program or its exit code.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::thread;

use clap::Args;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::iterator::exfiltrator::origin::Origin;
use signal_hook::low_level::siginfo::Cause;

use super::session::{current_dir, spool_registration};
use super::stderr_tail::StderrTail;
use crate::claude::project;
use crate::cli::error::CliError;
use crate::cli::offline::{OfflineWriter, is_unreachable};
use crate::cli::output::Output;
use crate::client::{Client, register_with_env};
use crate::domain::agent::{AgentKind, AgentName};
use crate::domain::work::{Recording, WorkError, WorkUpdate};
use crate::platform::process::{is_signal_ignored, start_time};
use crate::spool::ClientWrite;
use crate::wire::{AgentReport, ErrorCode, RegisterRequest, SessionBody};

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond exec --project odin -- sh -c 'echo $INSTANCE_ID'")]
pub(crate) struct ExecArgs {
    /// Set the project: lower-case letters, digits and dashes, at most 22 characters [default: from the name of the repository or
    /// folder]
    #[arg(long)]
    pub project: Option<String>,
    /// Set the type: PS, a project supervisor, or MS, a meta supervisor
    #[arg(long = "type", value_name = "TYPE", value_parser = ["PS", "MS"], default_value = "PS")]
    pub instance_type: String,
    /// The program and its arguments; its environment has INSTANCE_ID and HOST_MACHINE
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// The signals that are forwarded to the program. Stops and continuations are left to the shell, which sends them to
/// both processes.
const FORWARDED_SIGNALS: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// The kind of a last error that is a program's exit.
const EXIT_ERROR: &str = "exit";

/// Exit codes as in shells.
const EXIT_NOT_FOUND: u8 = 127;
const EXIT_NOT_EXECUTABLE: u8 = 126;
const EXIT_SIGNAL_BASE: i32 = 128;

/// Runs the program and returns its exit code.
pub(crate) fn exec(
    client: &Client,
    args: &ExecArgs,
    offline: &OfflineWriter<'_>,
    out: &mut Output<'_>,
) -> Result<u8, CliError> {
    let Some((program, arguments)) = args.command.split_first() else {
        return Err(CliError::usage("there is no command", "usage: sessiond exec [--project P] -- COMMAND"));
    };
    let session = register(client, args, offline, out)?;
    let id = &session.instance_id;
    // From here on no signal to this process is lost.
    let signals =
        SignalsInfo::<WithOrigin>::new(FORWARDED_SIGNALS.iter().filter(|signal| !is_signal_ignored(**signal)))
            .map_err(|error| failed("signals cannot be handled", &error))?;
    let mut command = Command::new(program);
    command.args(arguments).env("INSTANCE_ID", id).env("HOST_MACHINE", &session.host_machine);
    let stderr = StderrTail::begin(&mut command);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            close(client, id, offline, out);
            out.print_note(&format!("sessiond: {} cannot be run: {error}", program.to_string_lossy()));
            return Ok(if error.kind() == ErrorKind::NotFound { EXIT_NOT_FOUND } else { EXIT_NOT_EXECUTABLE });
        }
    };
    // It holds the other end of the program's pipe.
    drop(command);
    report_process(client, &session, &child, offline, out);
    let ended =
        wait_and_forward(&mut child, signals).map_err(|error| failed("waiting for the program failed", &error))?;
    let last_lines = stderr.map(StderrTail::end).unwrap_or_default();
    match ended.success() {
        true => close(client, id, offline, out),
        false => {
            let work = failure(ended, &last_lines, offline.local.recording().unwrap_or(Recording::None));
            report(client, AgentReport { work, ..report_of(&session, "gone") }, offline, out);
        }
    }
    let code =
        ended.code().or_else(|| ended.signal().map(|signal| EXIT_SIGNAL_BASE + signal)).unwrap_or(EXIT_SIGNAL_BASE);
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

fn failed(what: &str, error: &io::Error) -> CliError {
    CliError::new(ErrorCode::Internal, format!("{what}: {error}"), "try again")
}

fn register(
    client: &Client,
    args: &ExecArgs,
    offline: &OfflineWriter<'_>,
    out: &mut Output<'_>,
) -> Result<SessionBody, CliError> {
    let here = std::env::current_dir().unwrap_or_default();
    let mut request = RegisterRequest {
        project: args.project.clone().unwrap_or_else(|| project::of(&here).to_string()),
        instance_type: Some(args.instance_type.clone()),
        working_dir: current_dir(),
        agent: agent_of(&args.command).map(|agent| agent.as_str().to_owned()),
        ..RegisterRequest::default()
    };
    let mut registered = register_with_env(client, &mut request, offline.env);
    // A daemon of an older version refuses the field.
    if registered.as_ref().is_err_and(|error| error.code == ErrorCode::BadRequest) && request.agent.take().is_some() {
        registered = register_with_env(client, &mut request, offline.env);
    }
    match registered {
        Err(error) if is_unreachable(&error) => spool_registration(request, offline, error, out),
        answer => Ok(answer?),
    }
}

/// The agent by the name of the program that is run. Of any other program it is not known: it may run an agent, whose
/// hooks name it.
fn agent_of(command: &[OsString]) -> Option<AgentName> {
    let program = command.first().and_then(|program| Path::new(program).file_name()).and_then(OsStr::to_str);
    program.map(AgentName::of_program).filter(|agent| *agent != AgentName::Other)
}

/// How the program failed, as far as that may be recorded.
fn failure(ended: ExitStatus, last_lines: &str, recording: Recording) -> Option<WorkUpdate> {
    let how = match (ended.code(), ended.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "it did not exit".to_owned(),
    };
    let message = format!("{how}\n{last_lines}").trim_end().to_owned();
    let error = Some(WorkError { kind: EXIT_ERROR.to_owned(), message });
    let update = WorkUpdate { error, ..WorkUpdate::default() }.limited_to(recording);
    (!update.is_empty()).then_some(update)
}

/// Reports the program's process to the daemon, which sends heartbeats while it runs.
fn report_process(
    client: &Client,
    session: &SessionBody,
    child: &Child,
    offline: &OfflineWriter<'_>,
    out: &mut Output<'_>,
) {
    let pid = i32::try_from(child.id()).ok();
    let pid_started = pid.and_then(start_time);
    // A program that has already ended is not watched.
    let pid = pid.filter(|_| pid_started.is_some());
    // Whether someone sits at a terminal to read from is for the program to say.
    let kind = (!io::stdin().is_terminal()).then(|| AgentKind::Headless.as_str().to_owned());
    if pid.is_some() || kind.is_some() {
        report(client, AgentReport { pid, pid_started, kind, ..report_of(session, "beat") }, offline, out);
    }
}

fn report_of(session: &SessionBody, sign: &str) -> AgentReport {
    AgentReport {
        sign: sign.to_owned(),
        promised_id: Some(session.instance_id.clone()),
        project: Some(session.project.clone()),
        ..AgentReport::default()
    }
}

/// Reports to the daemon; a failure is only noted, and the program runs nevertheless.
fn report(client: &Client, report: AgentReport, offline: &OfflineWriter<'_>, out: &mut Output<'_>) {
    let sent = match client.report_agent(&report) {
        Err(error) if is_unreachable(&error) => {
            offline.write_to_spool(ClientWrite::Agent { report: Box::new(report) }, offline.now(), error)
        }
        answer => answer.map(drop).map_err(CliError::from),
    };
    if let Err(error) = sent {
        out.print_note(&error.line());
    }
}

fn close(client: &Client, id: &str, offline: &OfflineWriter<'_>, out: &mut Output<'_>) {
    let closed = match client.close(id) {
        Err(error) if is_unreachable(&error) => {
            offline.write_to_spool(ClientWrite::Close { id: id.to_owned() }, offline.now(), error)
        }
        answer => answer.map(drop).map_err(CliError::from),
    };
    // A failure must not change the program's exit code.
    if let Err(error) = closed {
        out.print_note(&error.line());
    }
}

/// Waits for the program to end, and forwards signals until then.
fn wait_and_forward(child: &mut Child, mut signals: SignalsInfo<WithOrigin>) -> io::Result<ExitStatus> {
    let pid = Pid::from_child(child);
    let handle = signals.handle();
    let forwarder = thread::Builder::new().spawn(move || {
        for origin in signals.forever() {
            if let Some(signal) = Signal::from_named_raw(origin.signal).filter(|_| must_forward(&origin)) {
                let _ = kill_process(pid, signal);
            }
        }
    });
    // The process is not reaped yet, so that its pid is not reused while signals are still forwarded.
    let _ = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT));
    handle.close();
    if let Ok(forwarder) = forwarder {
        let _ = forwarder.join();
    }
    child.wait()
}

/// Signals of the terminal (Ctrl-C) reach all processes in the foreground, the program too.
fn must_forward(origin: &Origin) -> bool {
    match origin.cause {
        Cause::Sent(_) => true,
        Cause::Kernel => false,
        _ => !in_foreground(),
    }
}

/// Whether this process is in the terminal's foreground. Where the system does not report a signal's origin, the terminal
/// is assumed to have sent it then.
fn in_foreground() -> bool {
    let group = rustix::termios::tcgetpgrp(io::stdin());
    group.is_ok_and(|group| group == rustix::process::getpgrp())
}
