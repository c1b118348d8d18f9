//! hook and statusline, which Claude Code runs.
//!
//! Invariants: they always exit with 0, and end within their deadline ([`HOOK_TIMEOUT`], [`STATUSLINE_TIMEOUT`]), since
//! the agent waits for them. A report that does not reach the daemon by then is left in the spool, and the answer is made
//! from the session cache. Failures are lines in `hooks.log`, which `sessiond doctor` shows.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write as _};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, getppid};
use serde_json::json;

use crate::claude::hook::{self, HookEvent, HookRecord};
use crate::claude::input::Input;
use crate::claude::session_cache::{CachedSession, SessionCache};
use crate::claude::{agent_process, limits, other_agents, project, statusline, work};
use crate::cli::error::CliError;
use crate::cli::offline::{self, OfflineWriter, is_unreachable};
use crate::cli::output::Output;
use crate::cli::verbs::resume::end_of_transcript;
use crate::client::{Client, Resolved};
use crate::domain::text::{data_of, escaped_lines, fenced, one_line};
use crate::domain::work::{Recording, Repository, WorkUpdate};
use crate::domain::{InstanceType, Timestamp, redact};
use crate::platform::files::{make_private_folder, private_file};
use crate::platform::git::Inspection;
use crate::spool::ClientWrite;
use crate::wire::{AgentBody, AgentReport, CheckpointRequest, ErrorCode, ErrorDetail, EventRequest, LimitsReport};

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond hook SessionStart")]
pub(crate) struct HookArgs {
    /// The event, such as SessionStart, Stop or PermissionRequest. Default: the one that stdin names
    // Any text is accepted: the exit code of a usage error would stop the agent.
    #[arg(value_name = "EVENT", trailing_var_arg = true, allow_hyphen_values = true)]
    pub event: Vec<String>,
}

/// The deadline of a hook, without the time for writing a spooled request after it.
const HOOK_TIMEOUT: Duration = Duration::from_millis(80);
/// The deadline of the status line: the agent waits for it to draw the screen.
const STATUSLINE_TIMEOUT: Duration = Duration::from_millis(60);
/// Replaces both deadlines on a slow machine, such as `1s`.
const TIMEOUT_VAR: &str = "SESSIOND_HOOK_TIMEOUT";
/// The longest deadline that the variable may set.
const MAX_TIMEOUT: Duration = Duration::from_secs(10);
/// The part of the deadline that is reserved for the daemon if stdin is slow.
const DAEMON_RESERVE: Duration = Duration::from_millis(30);
/// Less than the longest additional context that Claude Code accepts, in characters.
const MAX_CONTEXT_CHARS: usize = 9000;

pub(crate) fn hook(
    client: &Client,
    args: &HookArgs,
    offline: &OfflineWriter<'_>,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let mut reporter = AgentReporter::new(client, offline, out.style.now, HOOK_TIMEOUT);
    let name = args.event.join(" ");
    let input = reporter.read_input(&hook::wanted());
    // Broken input does not decide what the event is: fields that identify the session may be lost.
    let sent = input.text("hook_event_name").filter(|_| input.complaint.is_none()).unwrap_or_default();
    let event = HookEvent::parse(if name.is_empty() { sent } else { &name });
    if event.is_none() && name != sent {
        reporter.log_complaint(&format!("hook {name}: there is no such event"));
    }
    if let Some(complaint) = &input.complaint {
        reporter.log_complaint(&format!("hook {name}: {complaint}"));
    }
    if !reporter.is_claude(&input) {
        return Ok(());
    }
    let Some(event) = event else {
        reporter.report(hook::heartbeat(&input, &reporter.environment()));
        return Ok(());
    };
    let report = event.report(&input, &reporter.environment());
    let work = reporter.allowed(|recording| work::of(event, &input, recording));
    // git works while the report is sent.
    let repository = reporter.inspection(event, &report);
    let later =
        AgentReport { sign: "beat".to_owned(), source: None, activity: None, context_percent: None, ..report.clone() };
    let Some(reported) = reporter.report(AgentReport { work, ..report }) else { return Ok(()) };
    if let Some(record) = reporter.allowed(|recording| event.record(&input, recording)) {
        reporter.record(&reported, record);
    }
    if event == HookEvent::SessionStart {
        let context = reporter.start_context(&reported, input.text("source"));
        let answer = json!({"hookSpecificOutput": {"hookEventName": event.name(), "additionalContext": context}});
        reporter.print_answer(out, &answer.to_string());
    }
    if let Some(repository) = repository {
        let work = WorkUpdate { repository: Some(reporter.finished(repository)), ..WorkUpdate::default() }.sanitized();
        // In the spool it comes after the report that begins the session.
        reporter.now = reporter.now.plus(Duration::from_micros(1));
        reporter.report(AgentReport { work: Some(work), ..later });
    }
    Ok(())
}

pub(crate) fn statusline(client: &Client, offline: &OfflineWriter<'_>, out: &mut Output<'_>) -> Result<(), CliError> {
    let mut reporter = AgentReporter::new(client, offline, out.style.now, STATUSLINE_TIMEOUT);
    let input = reporter.read_input(&statusline::wanted());
    if let Some(complaint) = &input.complaint {
        reporter.log_complaint(&format!("statusline: {complaint}"));
    }
    if !reporter.is_claude(&input) {
        return Ok(());
    }
    let report = statusline::report(&input, &reporter.environment());
    let work = reporter.allowed(|recording| work::of_status_line(&input, recording));
    let limits = reporter.limits(&input);
    if let Some(reported) = reporter.report(AgentReport { work, limits, ..report }) {
        reporter.print_answer(out, &escaped_lines(&reported.footer));
    }
    Ok(())
}

/// Reports one event to the daemon before a deadline.
struct AgentReporter<'a> {
    /// Its requests time out at the deadline.
    client: Client,
    offline: &'a OfflineWriter<'a>,
    now: Timestamp,
    deadline: Instant,
    cache: Option<SessionCache>,
    /// The agent that runs this, once its input is read.
    agent: Option<agent_process::AgentProcess>,
    /// Whether Claude Code's variables were set by the agent that runs this, not inherited from an outer one.
    owns_environment: bool,
    /// How much of the work may be recorded, once that is known.
    recording: OnceCell<Recording>,
}

/// The agent's session after a report was sent or spooled.
struct ReportedSession {
    id: String,
    machine: String,
    footer: String,
    /// The daemon's answer; `None` if the report was spooled.
    session: Option<AgentBody>,
}

impl<'a> AgentReporter<'a> {
    fn new(client: &'a Client, offline: &'a OfflineWriter<'a>, now: Timestamp, time: Duration) -> Self {
        let cache = offline.state_dir.as_deref().map(SessionCache::in_folder);
        let named = (offline.env)(TIMEOUT_VAR).and_then(|text| humantime::parse_duration(text.to_str()?).ok());
        let deadline = Instant::now() + named.unwrap_or(time).clamp(DAEMON_RESERVE, MAX_TIMEOUT);
        let client = client.clone().deadline(deadline);
        Self { client, offline, now, deadline, cache, agent: None, owns_environment: true, recording: OnceCell::new() }
    }

    /// What the user's configuration allows to record of the work. The configuration is read only if there is something.
    fn allowed<T>(&self, of: impl Fn(Recording) -> Option<T>) -> Option<T> {
        let everything = of(Recording::Full)?;
        match self.recording() {
            Recording::Full => Some(everything),
            less => of(less),
        }
    }

    fn recording(&self) -> Recording {
        *self.recording.get_or_init(|| self.read_recording())
    }

    /// The rate limits that the status line shows. The configuration is read only if there are some.
    fn limits(&self, input: &Input) -> Option<LimitsReport> {
        input.at(&[limits::WANTED])?;
        limits::of(input, self.recording(), &self.environment(), self.now)
    }

    /// The repository that the agent works in, at the begin and the end of a turn's work.
    fn inspection(&self, event: HookEvent, report: &AgentReport) -> Option<Inspection> {
        if !matches!(event, HookEvent::SessionStart | HookEvent::Stop | HookEvent::StopFailure) {
            return None;
        }
        let folder = Path::new(report.working_dir.as_deref()?);
        let path = (self.offline.env)("PATH");
        (self.recording() != Recording::None).then(|| Inspection::begin(folder, path.as_deref())).flatten()
    }

    /// The state of the repository that is known while there is still time to report it.
    fn finished(&self, inspection: Inspection) -> Repository {
        let repository = inspection.finish(self.deadline - DAEMON_RESERVE);
        let name = redact::text(&repository.name).unwrap_or(repository.name);
        Repository { name, ..repository }
    }

    /// A configuration that cannot be read may forbid everything.
    fn read_recording(&self) -> Recording {
        self.offline.local.recording().unwrap_or_else(|error| {
            self.log_complaint(&format!("nothing of the work is recorded: {}", error.message));
            Recording::None
        })
    }

    /// Reads stdin; if it does not end in time, the part that arrived.
    fn read_input(&self, wanted: &[&str]) -> Input {
        let wanted = [wanted, &other_agents::WANTED].concat();
        Input::read(StdinUntil { until: self.deadline - DAEMON_RESERVE }, &wanted)
    }

    /// Finds the agent that runs this, and whether it is Claude Code. Other agents run the hooks of its settings too.
    fn is_claude(&mut self, input: &Input) -> bool {
        let found = agent_process::find_agent(self.offline.env, Pid::as_raw(getppid()), input.text("session_id"));
        (self.agent, self.owns_environment) = (found.agent, found.owns_environment);
        let program = self.agent.as_ref().map(|agent| agent.name.as_str());
        other_agents::other_agent(input, program, self.offline.env).is_none()
    }

    /// The environment, without Claude Code's variables if another agent set them.
    fn environment(&self) -> impl Fn(&str) -> Option<OsString> + use<'_> {
        |name| (self.offline.env)(name).filter(|_| self.owns_environment || !name.starts_with("CLAUDE"))
    }

    /// Prints the answer. A failure to print is only logged: an exit code would stop the agent.
    fn print_answer(&self, out: &mut Output<'_>, text: &str) {
        if let Err(error) = out.print_rendered(&format!("{text}\n")) {
            self.log_complaint(&error.line());
        }
    }

    /// Sends a report to the daemon, or spools it. `None`: there is no session to show.
    fn report(&self, report: AgentReport) -> Option<ReportedSession> {
        let report = self.completed(report);
        let process = report.pid.zip(report.pid_started);
        match self.client.report_agent(&report) {
            Ok(answer) => {
                self.update_cache(&report, CachedSession::from_body(&answer.session, process));
                Some(ReportedSession {
                    id: answer.session.instance_id.clone(),
                    machine: answer.session.host_machine.clone(),
                    footer: answer.footer.clone(),
                    session: Some(answer),
                })
            }
            Err(error) if error.code == ErrorCode::NotFound => None,
            Err(error) if is_temporary(&error) => self.report_later(report, process, error),
            Err(error) => {
                self.log_complaint(&format!("{}; {}", error.message, error.hint));
                None
            }
        }
    }

    fn completed(&self, mut report: AgentReport) -> AgentReport {
        if let (None, Some(folder)) = (&report.project, &report.working_dir) {
            report.project = Some(project::of(Path::new(folder)).to_string());
        }
        report.at = Some(self.now.to_string());
        if let Some(agent) = &self.agent {
            (report.pid, report.pid_started) = (Some(agent.pid), agent.started);
        }
        report
    }

    /// Leaves the report in the spool, and answers from the cache.
    fn report_later(
        &self,
        mut report: AgentReport,
        process: Option<(i32, i64)>,
        error: ErrorDetail,
    ) -> Option<ReportedSession> {
        let known = self.cached_session(&report, process);
        report.promised_id = Some(known.instance_id.clone());
        let known = CachedSession {
            context_percent: report.context_percent.map_or(known.context_percent, |percent| percent as u8),
            process: process.or(known.process),
            ..known
        };
        self.update_cache(&report, known.clone());
        if let Err(error) =
            self.offline.write_to_spool(ClientWrite::Agent { report: Box::new(report) }, self.now, error)
        {
            self.log_complaint(&error.line());
        }
        let footer = known.footer(self.now)?;
        Some(ReportedSession { id: known.instance_id, machine: known.host_machine, footer, session: None })
    }

    /// The cached state of the session, or the state of a new one.
    fn cached_session(&self, report: &AgentReport, process: Option<(i32, i64)>) -> CachedSession {
        let of = |cache: &SessionCache| {
            let by_uuid = report.claude_session_uuid.as_deref().and_then(|uuid| cache.get(uuid));
            // A fork is another session in the same process.
            let same = report.source.as_deref() != Some("fork");
            by_uuid.or_else(|| process.filter(|_| same).and_then(|process| cache.find_by_process(process)))
        };
        self.cache.as_ref().and_then(of).unwrap_or_else(|| {
            let name = report.project.as_deref().unwrap_or_default();
            let project = crate::domain::agent::project_named(name);
            // The session of the program that runs the agent (`sessiond exec`), unless another agent has it.
            let taken = |id: &String| self.cache.as_ref().is_some_and(|cache| cache.has_instance(id));
            let outer = report.outer_id.clone().filter(|id| !taken(id));
            CachedSession {
                instance_id: outer.unwrap_or_else(|| self.offline.draw_id(&project, InstanceType::Ps).to_string()),
                host_machine: self.offline.machine_name(),
                created_at: self.now.micros(),
                current_epic: None,
                context_percent: 0,
                process,
            }
        })
    }

    fn update_cache(&self, report: &AgentReport, known: CachedSession) {
        let (Some(cache), Some(uuid)) = (&self.cache, &report.claude_session_uuid) else { return };
        if report.sign == "end" {
            cache.remove(uuid);
        } else if let Err(error) = cache.store(uuid, &known) {
            self.log_complaint(&format!("the state of {} cannot be cached: {error}", known.instance_id));
        }
        if report.sign == "start" {
            cache.remove_expired(SystemTime::now());
        }
    }

    /// Adds a record to the session's history, or spools it.
    fn record(&self, reported: &ReportedSession, record: HookRecord) {
        let id = reported.id.clone();
        let write = match record {
            HookRecord::Checkpoint(work_state) => ClientWrite::Checkpoint {
                id,
                request: CheckpointRequest {
                    checkpoint_type: "context_window".to_owned(),
                    work_state,
                    context_window_percent: None,
                },
            },
            HookRecord::ContextWindowUpdated(data) => ClientWrite::Event {
                id,
                request: EventRequest {
                    event_type: "context_window_updated".to_owned(),
                    event_data: Some(data),
                    parent_uuid: None,
                },
            },
        };
        let sent = match (&reported.session, write.clone()) {
            // The report before it was spooled; order is kept.
            (None, _) => Err(offline::no_daemon()),
            (_, ClientWrite::Checkpoint { id, request }) => self.client.add_checkpoint(&id, &request).map(drop),
            (_, ClientWrite::Event { id, request }) => self.client.add_event(&id, &request).map(drop),
            _ => Ok(()),
        };
        match sent {
            Ok(()) => {}
            // Only if it certainly did not arrive: records must not be duplicated.
            Err(error) if is_unreachable(&error) => {
                if let Err(error) = self.offline.write_to_spool(write, self.now, error) {
                    self.log_complaint(&error.line());
                }
            }
            Err(error) => self.log_complaint(&format!("a record of {} is lost: {}", reported.id, error.message)),
        }
    }

    /// The context that is given to the agent at its start.
    fn start_context(&self, reported: &ReportedSession, source: Option<&str>) -> String {
        let ReportedSession { id, machine, footer, session } = reported;
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
            let former = body.session.resumed_from.as_deref();
            match self.client.handoff(former.unwrap_or(id)) {
                Ok(Resolved::Several(_)) => {}
                Ok(Resolved::One(context)) => {
                    text.push_str("\n\n");
                    let end = former.map(|former| self.end_of_transcript(former)).unwrap_or_default();
                    let room = MAX_CONTEXT_CHARS.saturating_sub(text.chars().count() + end.chars().count());
                    text.push_str(&shortened(&context, room));
                    text.push_str(&end);
                }
                Err(error) => self.log_complaint(&format!("the context of {id} cannot be read: {}", error.message)),
            }
        }
        text
    }

    /// The end of another session's transcript. An agent that continues its own conversation has it already.
    fn end_of_transcript(&self, id: &str) -> String {
        match self.client.show(id) {
            Ok(Resolved::One(session)) => end_of_transcript(&session),
            _ => String::new(),
        }
    }

    /// Appends a line to the log of hooks.
    fn log_complaint(&self, what: &str) {
        if let Some(dir) = &self.offline.state_dir {
            // A complaint quotes input, which may hold secrets.
            let what = redact::text(what).unwrap_or_else(|| what.to_owned());
            let _ = append_to_log(dir, &format!("{} {}\n", self.now, one_line(&what)));
        }
    }
}

/// Cuts a handoff to `longest` characters, and keeps the fence that ends it.
fn shortened(handoff: &str, longest: usize) -> String {
    if handoff.chars().count() <= longest {
        return handoff.to_owned();
    }
    let end = format!("\n...\n{}\n", handoff.lines().last().unwrap_or_default());
    handoff.chars().take(longest.saturating_sub(end.chars().count())).collect::<String>() + &end
}

/// Whether the report is spooled after this error. Reports carry their time, and applying one twice changes nothing.
fn is_temporary(error: &ErrorDetail) -> bool {
    use ErrorCode::{DiskFull, Internal, Timeout, TooManyRequests, Unavailable, Unreachable};
    matches!(error.code, Unreachable | Timeout | Unavailable | TooManyRequests | DiskFull | Internal)
}

/// Stdin up to a deadline, since a writer that keeps it open must not delay the agent.
struct StdinUntil {
    until: Instant,
}

impl Read for StdinUntil {
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

/// The log of hooks and its largest size, in bytes; then it is renamed to `hooks.log.old`.
const HOOK_LOG: &str = "hooks.log";
const MAX_HOOK_LOG_BYTES: u64 = 1 << 20;

fn append_to_log(dir: &Path, line: &str) -> io::Result<()> {
    make_private_folder(dir)?;
    let path = dir.join(HOOK_LOG);
    if fs::metadata(&path).is_ok_and(|about| about.len() > MAX_HOOK_LOG_BYTES) {
        fs::rename(&path, dir.join("hooks.log.old"))?;
    }
    private_file().create(true).append(true).open(path)?.write_all(line.as_bytes())
}
