//! exec: any program as a session, for agents that have no hooks.

use std::io::{self, ErrorKind};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::thread;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::iterator::exfiltrator::origin::Origin;
use signal_hook::low_level::siginfo::Cause;

use super::session::{current_dir, leave_registration};
use crate::claude::project;
use crate::cli::args::ExecArgs;
use crate::cli::away::{Away, met_nobody};
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::client::{Client, register_with_env};
use crate::platform::process::{is_signal_ignored, start_time};
use crate::spool::ClientWrite;
use crate::wire::{AgentReport, RegisterRequest, SessionBody};

/// What is passed on to the program. Stops and continuations are left to the terminal and its shell, which know
/// both processes.
const PASSED_ON: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// Exit codes as shells have them.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;
const SIGNALLED: i32 = 128;

/// Runs the program and gives its exit code. A program that ends well has closed its session; one that failed or
/// was killed leaves it stale, to be resumed.
pub fn exec(client: &Client, args: &ExecArgs, away: &Away<'_>, out: &mut Output<'_>) -> Result<u8, CliError> {
    let Some((program, words)) = args.command.split_first() else {
        return Err(CliError::usage("there is no command", "usage: sessiond exec [--project P] -- COMMAND"));
    };
    let session = register(client, args, away, out)?;
    let id = &session.instance_id;
    // From here on nothing that is sent to us is lost on the way to the program.
    let signals = SignalsInfo::<WithOrigin>::new(PASSED_ON.iter().filter(|signal| !is_signal_ignored(**signal)))
        .map_err(|error| failed("signals cannot be handled", &error))?;
    let mut command = Command::new(program);
    command.args(words).env("INSTANCE_ID", id).env("HOST_MACHINE", &session.host_machine);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            close(client, id, away, out);
            out.note(&format!("sessiond: {} cannot be run: {error}", program.to_string_lossy()));
            return Ok(if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE });
        }
    };
    watch(client, &session, &child, away, out);
    let ended = wait(&mut child, signals).map_err(|error| failed("the program cannot be waited for", &error))?;
    match ended.success() {
        true => close(client, id, away, out),
        false => report(client, about(&session, "gone"), away, out),
    }
    let code = ended.code().or_else(|| ended.signal().map(|signal| SIGNALLED + signal)).unwrap_or(SIGNALLED);
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

fn failed(what: &str, error: &io::Error) -> CliError {
    CliError::new(crate::wire::ErrorCode::Internal, format!("{what}: {error}"), "try again")
}

fn register(client: &Client, args: &ExecArgs, away: &Away<'_>, out: &mut Output<'_>) -> Result<SessionBody, CliError> {
    let here = std::env::current_dir().unwrap_or_default();
    let mut request = RegisterRequest {
        project: args.project.clone().unwrap_or_else(|| project::of(&here).to_string()),
        instance_type: Some(args.instance_type.clone()),
        working_dir: current_dir(),
        ..RegisterRequest::default()
    };
    match register_with_env(client, &mut request, away.env) {
        Err(error) if met_nobody(&error) => leave_registration(request, away, error, out),
        answer => Ok(answer?),
    }
}

/// Tells the daemon which process it is, so that it speaks for it while it lives.
fn watch(client: &Client, session: &SessionBody, child: &Child, away: &Away<'_>, out: &mut Output<'_>) {
    let pid = i32::try_from(child.id()).ok();
    let pid_started = pid.and_then(start_time);
    // A program that has ended already needs nobody to watch it.
    if pid_started.is_some() {
        report(client, AgentReport { pid, pid_started, ..about(session, "beat") }, away, out);
    }
}

fn about(session: &SessionBody, sign: &str) -> AgentReport {
    AgentReport {
        sign: sign.to_owned(),
        promised_id: Some(session.instance_id.clone()),
        project: Some(session.project.clone()),
        ..AgentReport::default()
    }
}

/// What cannot be told is no reason for the program not to run.
fn report(client: &Client, report: AgentReport, away: &Away<'_>, out: &mut Output<'_>) {
    let told = match client.report_agent(&report) {
        Err(error) if met_nobody(&error) => away.leave(ClientWrite::Agent { report }, away.now(), error),
        answer => answer.map(drop).map_err(CliError::from),
    };
    if let Err(error) = told {
        out.note(&error.line());
    }
}

fn close(client: &Client, id: &str, away: &Away<'_>, out: &mut Output<'_>) {
    let closed = match client.close(id) {
        Err(error) if met_nobody(&error) => away.leave(ClientWrite::Close { id: id.to_owned() }, away.now(), error),
        answer => answer.map(drop).map_err(CliError::from),
    };
    // The program's own end is what counts for whoever waits for it.
    if let Err(error) = closed {
        out.note(&error.line());
    }
}

/// Waits for the program's end, and passes signals on until then.
fn wait(child: &mut Child, mut signals: SignalsInfo<WithOrigin>) -> io::Result<ExitStatus> {
    let pid = Pid::from_child(child);
    let handle = signals.handle();
    let passing = thread::Builder::new().spawn(move || {
        for origin in signals.forever() {
            if let Some(signal) = Signal::from_named_raw(origin.signal).filter(|_| is_for_us(&origin)) {
                let _ = kill_process(pid, signal);
            }
        }
    });
    // Not reaped yet: until nothing is passed on any more the pid must not come to mean another process.
    let _ = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT));
    handle.close();
    if let Ok(passing) = passing {
        let _ = passing.join();
    }
    child.wait()
}

/// What the terminal sends (Ctrl-C) goes to all processes in the foreground: the program has it already.
fn is_for_us(origin: &Origin) -> bool {
    match origin.cause {
        Cause::Sent(_) => true,
        Cause::Kernel => false,
        _ => !in_foreground(),
    }
}

/// Where the system does not tell who sent a signal, it was the terminal, if there is one.
fn in_foreground() -> bool {
    let group = rustix::termios::tcgetpgrp(io::stdin());
    group.is_ok_and(|group| group == rustix::process::getpgrp())
}
