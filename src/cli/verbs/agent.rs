//! hook and statusline: what Claude Code runs by itself. They never fail and never take long: what cannot be told
//! in time waits in the spool, and what goes wrong is a line in a log.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write as _};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, getppid};
use serde_json::json;

use crate::claude::hook::{self, Event, Note};
use crate::claude::input::Input;
use crate::claude::known::{Known, Notes};
use crate::claude::{other, process, project, statusline};
use crate::cli::args::HookArgs;
use crate::cli::away::{self, Away, met_nobody};
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::client::{Client, Resolved};
use crate::domain::text::{data_of, escaped_lines, fenced, one_line};
use crate::domain::{InstanceType, Timestamp, redact};
use crate::platform::files::{make_private_folder, private_file};
use crate::spool::ClientWrite;
use crate::wire::{AgentBody, AgentReport, CheckpointRequest, ErrorCode, ErrorDetail, EventRequest};

/// What a hook may take, less what it needs to leave a letter after that.
const HOOK: Duration = Duration::from_millis(80);
/// The agent draws its status line while it waits for this.
const STATUSLINE: Duration = Duration::from_millis(60);
/// On a machine where these are too short, this variable counts instead of both, such as `1s`.
const TIMEOUT_VAR: &str = "SESSIOND_HOOK_TIMEOUT";
/// The longest that it may say: an agent waits for it.
const LONGEST: Duration = Duration::from_secs(10);
/// Of that, what is kept for the daemon when stdin is slow.
const DAEMON: Duration = Duration::from_millis(30);
/// What Claude Code takes of additional context, with room to spare.
const CONTEXT: usize = 9000;

pub fn hook(client: &Client, args: &HookArgs, away: &Away<'_>, out: &mut Output<'_>) -> Result<(), CliError> {
    let mut voice = Voice::new(client, away, out.look.now, HOOK);
    let name = args.event.join(" ");
    let Some(event) = Event::parse(&name) else {
        // Read all the same, or the agent's write would fail.
        voice.input(&[]);
        voice.complain(&format!("hook {name}: there is no such event"));
        return Ok(());
    };
    let input = voice.input(&hook::WANTED);
    if let Some(complaint) = &input.complaint {
        voice.complain(&format!("hook {name}: {complaint}"));
    }
    if !voice.is_claude(&input) {
        return Ok(());
    }
    let Some(heard) = voice.tell(event.report(&input, &voice.environment())) else { return Ok(()) };
    if let Some(note) = event.note(&input) {
        voice.note(&heard, note);
    }
    if event == Event::SessionStart {
        let context = voice.introduction(&heard, input.text("source"));
        let answer = json!({"hookSpecificOutput": {"hookEventName": event.name(), "additionalContext": context}});
        voice.answer(out, &answer.to_string());
    }
    Ok(())
}

pub fn statusline(client: &Client, away: &Away<'_>, out: &mut Output<'_>) -> Result<(), CliError> {
    let mut voice = Voice::new(client, away, out.look.now, STATUSLINE);
    let input = voice.input(&statusline::WANTED);
    if let Some(complaint) = &input.complaint {
        voice.complain(&format!("statusline: {complaint}"));
    }
    if !voice.is_claude(&input) {
        return Ok(());
    }
    if let Some(heard) = voice.tell(statusline::report(&input, &voice.environment())) {
        voice.answer(out, &escaped_lines(&heard.footer));
    }
    Ok(())
}

/// One report, and the little time there is for it.
struct Voice<'a> {
    /// It gives up at the deadline.
    client: Client,
    away: &'a Away<'a>,
    now: Timestamp,
    deadline: Instant,
    notes: Option<Notes>,
    /// The agent that runs this, once its input is read.
    agent: Option<process::Agent>,
    /// Whether Claude Code's variables are those of the agent that runs this, not of one around it.
    owns_environment: bool,
}

/// What is known of the agent's session once the report is told, or waits.
struct Heard {
    id: String,
    machine: String,
    footer: String,
    /// Who the daemon said it goes on from; nothing while no daemon was asked.
    session: Option<AgentBody>,
}

impl<'a> Voice<'a> {
    fn new(client: &'a Client, away: &'a Away<'a>, now: Timestamp, time: Duration) -> Self {
        let notes = away.state_dir.as_deref().map(Notes::in_folder);
        let named = (away.env)(TIMEOUT_VAR).and_then(|text| humantime::parse_duration(text.to_str()?).ok());
        let deadline = Instant::now() + named.unwrap_or(time).clamp(DAEMON, LONGEST);
        let client = client.clone().deadline(deadline);
        Self { client, away, now, deadline, notes, agent: None, owns_environment: true }
    }

    /// What stands on stdin; if that does not end in time, what there is of it.
    fn input(&self, wanted: &[&str]) -> Input {
        let wanted = [wanted, &other::WANTED].concat();
        Input::read(Stdin { until: self.deadline - DAEMON }, &wanted)
    }

    /// Finds the agent that runs this, and whether it is Claude Code. Other agents run the hooks of its settings too.
    fn is_claude(&mut self, input: &Input) -> bool {
        let found = process::of_agent(self.away.env, Pid::as_raw(getppid()), input.text("session_id"));
        (self.agent, self.owns_environment) = (found.agent, found.owns_environment);
        let program = self.agent.as_ref().map(|agent| agent.name.as_str());
        other::agent(input, program, self.away.env).is_none()
    }

    /// The environment without what another agent says of itself in it.
    fn environment(&self) -> impl Fn(&str) -> Option<OsString> + use<'_> {
        |name| (self.away.env)(name).filter(|_| self.owns_environment || !name.starts_with("CLAUDE"))
    }

    /// Prints the answer. An agent must not be stopped because it cannot be written.
    fn answer(&self, out: &mut Output<'_>, text: &str) {
        if let Err(error) = out.print(&format!("{text}\n")) {
            self.complain(&error.line());
        }
    }

    /// Tells the daemon, or leaves it for the daemon; nothing where there is nothing to tell.
    fn tell(&self, report: AgentReport) -> Option<Heard> {
        let report = self.completed(report);
        let process = report.pid.zip(report.pid_started);
        match self.client.report_agent(&report) {
            Ok(answer) => {
                self.remember(&report, Known::told(&answer.session, process));
                Some(Heard {
                    id: answer.session.instance_id.clone(),
                    machine: answer.session.host_machine.clone(),
                    footer: answer.footer.clone(),
                    session: Some(answer),
                })
            }
            Err(error) if error.code == ErrorCode::NotFound => None,
            Err(error) if may_be_told_later(&error) => self.leave(report, process, error),
            Err(error) => {
                self.complain(&format!("{}; {}", error.message, error.hint));
                None
            }
        }
    }

    fn completed(&self, mut report: AgentReport) -> AgentReport {
        if let (None, Some(folder)) = (&report.project, &report.working_dir) {
            report.project = Some(project::of(Path::new(folder)).to_string());
        }
        if let Some(agent) = &self.agent {
            (report.pid, report.pid_started) = (Some(agent.pid), agent.started);
        }
        report
    }

    /// Leaves the report in the spool, and goes on with what is known.
    fn leave(&self, mut report: AgentReport, process: Option<(i32, i64)>, error: ErrorDetail) -> Option<Heard> {
        let known = self.known(&report, process);
        report.promised_id = Some(known.instance_id.clone());
        let known = Known {
            context_percent: report.context_percent.map_or(known.context_percent, |percent| percent as u8),
            process: process.or(known.process),
            ..known
        };
        self.remember(&report, known.clone());
        if let Err(error) = self.away.leave(ClientWrite::Agent { report }, self.now, error) {
            self.complain(&error.line());
        }
        let footer = known.footer(self.now)?;
        Some(Heard { id: known.instance_id, machine: known.host_machine, footer, session: None })
    }

    /// What was last known of the session, or what can be said of a new one.
    fn known(&self, report: &AgentReport, process: Option<(i32, i64)>) -> Known {
        let of = |notes: &Notes| {
            let by_uuid = report.claude_session_uuid.as_deref().and_then(|uuid| notes.of(uuid));
            // A fork is another session in the same process.
            let same = report.source.as_deref() != Some("fork");
            by_uuid.or_else(|| process.filter(|_| same).and_then(|process| notes.of_process(process)))
        };
        self.notes.as_ref().and_then(of).unwrap_or_else(|| {
            let name = report.project.as_deref().unwrap_or_default();
            let project = crate::domain::agent::project_named(name);
            // The session of the program that runs the agent, unless another agent has it.
            let taken = |id: &String| self.notes.as_ref().is_some_and(|notes| notes.has_instance(id));
            let outer = report.outer_id.clone().filter(|id| !taken(id));
            Known {
                instance_id: outer.unwrap_or_else(|| self.away.draw(&project, InstanceType::Ps).to_string()),
                host_machine: self.away.machine(),
                created_at: self.now.micros(),
                current_epic: None,
                context_percent: 0,
                process,
            }
        })
    }

    fn remember(&self, report: &AgentReport, known: Known) {
        let (Some(notes), Some(uuid)) = (&self.notes, &report.claude_session_uuid) else { return };
        if report.sign == "end" {
            notes.forget(uuid);
        } else if let Err(error) = notes.note(uuid, &known) {
            self.complain(&format!("what is known of {} cannot be noted: {error}", known.instance_id));
        }
        if report.sign == "start" {
            notes.tidy(SystemTime::now());
        }
    }

    /// Adds to the session's history, now or later.
    fn note(&self, heard: &Heard, note: Note) {
        let id = heard.id.clone();
        let write = match note {
            Note::Checkpoint(work_state) => ClientWrite::Checkpoint {
                id,
                request: CheckpointRequest {
                    checkpoint_type: "context_window".to_owned(),
                    work_state,
                    context_window_percent: None,
                },
            },
            Note::ContextWindowUpdated(data) => ClientWrite::Event {
                id,
                request: EventRequest {
                    event_type: "context_window_updated".to_owned(),
                    event_data: Some(data),
                    parent_uuid: None,
                },
            },
        };
        let told = match (&heard.session, write.clone()) {
            // It comes after a report that waits.
            (None, _) => Err(away::nobody()),
            (_, ClientWrite::Checkpoint { id, request }) => self.client.add_checkpoint(&id, &request).map(drop),
            (_, ClientWrite::Event { id, request }) => self.client.add_event(&id, &request).map(drop),
            _ => Ok(()),
        };
        match told {
            Ok(()) => {}
            // Only where it certainly has not arrived: it must not be there twice.
            Err(error) if met_nobody(&error) => {
                if let Err(error) = self.away.leave(write, self.now, error) {
                    self.complain(&error.line());
                }
            }
            Err(error) => self.complain(&format!("the history of {} lacks something: {}", heard.id, error.message)),
        }
    }

    /// What the agent is told at its start.
    fn introduction(&self, heard: &Heard, source: Option<&str>) -> String {
        let Heard { id, machine, footer, session } = heard;
        let mut text = format!(
            "sessiond keeps the record of this session under the instance id {id} on the machine {machine}.\n\
             End each of your answers with the footer that `sessiond footer {id} --separator` prints. {}\n\
             When you begin an epic, say so with `sessiond heartbeat {id} --epic EPIC`.",
            fenced(&data_of(id), &format!("---\n{}", escaped_lines(footer)))
        );
        if let Some(former) = session.as_ref().and_then(|body| body.session.resumed_from.as_deref()) {
            text.push_str(&format!(
                "\n\nThis session continues {former} under the new id {id}: use {id} wherever this conversation names \
                 {former}, in footers and commands too."
            ));
        }
        let resumed = session.as_ref().filter(|body| source == Some("resume") || body.session.resumed_from.is_some());
        if let Some(body) = resumed {
            match self.client.handoff(body.session.resumed_from.as_deref().unwrap_or(id)) {
                Ok(Resolved::Several(_)) => {}
                Ok(Resolved::One(context)) => {
                    text.push_str("\n\n");
                    text.push_str(&shortened(&context, CONTEXT.saturating_sub(text.chars().count())));
                }
                Err(error) => self.complain(&format!("the context of {id} cannot be had: {}", error.message)),
            }
        }
        text
    }

    /// A line in the log of hooks; nobody reads what they print.
    fn complain(&self, what: &str) {
        if let Some(dir) = &self.away.state_dir {
            // A complaint quotes what it is about.
            let what = redact::text(what).unwrap_or_else(|| what.to_owned());
            let _ = log(dir, &format!("{} {}\n", self.now, one_line(&what)));
        }
    }
}

/// A handoff of at most so many characters, with the fence that ends it.
fn shortened(handoff: &str, longest: usize) -> String {
    if handoff.chars().count() <= longest {
        return handoff.to_owned();
    }
    let end = format!("\n...\n{}\n", handoff.lines().last().unwrap_or_default());
    handoff.chars().take(longest.saturating_sub(end.chars().count())).collect::<String>() + &end
}

/// May the same report be told later without harm? It tells of a moment, and telling it twice changes nothing.
fn may_be_told_later(error: &ErrorDetail) -> bool {
    use ErrorCode::{DiskFull, Internal, Timeout, TooManyRequests, Unavailable, Unreachable};
    matches!(error.code, Unreachable | Timeout | Unavailable | TooManyRequests | DiskFull | Internal)
}

/// Stdin up to a moment: who keeps it open does not keep the agent waiting.
struct Stdin {
    until: Instant,
}

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        let left = self.until.saturating_duration_since(Instant::now());
        let time = Timespec::try_from(left).map_err(io::Error::other)?;
        if left.is_zero() || poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&time))? == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it did not end in time"));
        }
        Ok(rustix::io::read(&stdin, buffer)?)
    }
}

/// The log, and how large it may get, in bytes; the one before it is kept.
const LOG: &str = "hooks.log";
const LOG_MAX: u64 = 1 << 20;

fn log(dir: &Path, line: &str) -> io::Result<()> {
    make_private_folder(dir)?;
    let path = dir.join(LOG);
    if fs::metadata(&path).is_ok_and(|about| about.len() > LOG_MAX) {
        fs::rename(&path, dir.join("hooks.log.old"))?;
    }
    private_file().create(true).append(true).open(path)?.write_all(line.as_bytes())
}
