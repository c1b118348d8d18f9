//! What the verbs that an agent runs (hook, statusline) have in common: reading the agent's JSON and reporting to the
//! daemon before a deadline.
//!
//! Invariants: such a verb always exits with 0, and ends within its deadline, since the agent waits for it. A report that
//! does not reach the daemon by then is left in the spool, and the answer is made from the session cache. Failures are
//! lines in `hooks.log`, which `sessiond doctor` shows.

use std::cell::{Cell, OnceCell};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write as _};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, getppid};

use crate::agents::Adapter;
use crate::claude::input::Input;
use crate::claude::session_cache::{CachedSession, SessionCache};
use crate::claude::{agent_process, other_agents, project};
use crate::cli::offline::OfflineWriter;
use crate::cli::output::Output;
use crate::client::Client;
use crate::domain::agent::{AgentName, conversation_key};
use crate::domain::text::one_line;
use crate::domain::work::Recording;
use crate::domain::{InstanceType, Timestamp, redact};
use crate::platform::files::{make_private_folder, private_file};
use crate::spool::ClientWrite;
use crate::wire::{AgentBody, AgentReport, ErrorCode, ErrorDetail, SessionBody};

/// Replaces the deadline of each verb on a slow machine, such as `1s`.
const TIMEOUT_VAR: &str = "SESSIOND_HOOK_TIMEOUT";
/// The longest deadline that the variable may set.
const MAX_TIMEOUT: Duration = Duration::from_secs(10);
/// The part of the deadline that is reserved for the daemon if stdin is slow.
pub(super) const DAEMON_RESERVE: Duration = Duration::from_millis(30);

/// Reports one event to the daemon before a deadline.
pub(super) struct AgentReporter<'a> {
    /// Its requests time out at the deadline.
    pub(super) client: Client,
    pub(super) offline: &'a OfflineWriter<'a>,
    pub(super) now: Timestamp,
    pub(super) deadline: Instant,
    cache: Option<SessionCache>,
    /// The agent that runs this, once its input is read.
    agent: Option<agent_process::AgentProcess>,
    name: AgentName,
    /// Whether Claude Code's variables were set by the agent that runs this, not inherited from an outer one.
    owns_environment: bool,
    /// How much of the work may be recorded, once that is known.
    recording: OnceCell<Recording>,
    /// Identifies the rate limits that the status line shows.
    shown_limits: Cell<Option<u64>>,
}

/// The agent's session after a report was sent or spooled.
pub(super) struct ReportedSession {
    pub(super) id: String,
    pub(super) machine: String,
    pub(super) footer: String,
    /// The daemon's answer; `None` if the report was spooled.
    pub(super) session: Option<AgentBody>,
}

impl<'a> AgentReporter<'a> {
    pub(super) fn new(client: &'a Client, offline: &'a OfflineWriter<'a>, now: Timestamp, time: Duration) -> Self {
        let cache = offline.state_dir.as_deref().map(SessionCache::in_folder);
        let named = (offline.env)(TIMEOUT_VAR).and_then(|text| humantime::parse_duration(text.to_str()?).ok());
        let deadline = Instant::now() + named.unwrap_or(time).clamp(DAEMON_RESERVE, MAX_TIMEOUT);
        let client = client.clone().deadline(deadline);
        Self {
            client,
            offline,
            now,
            deadline,
            cache,
            agent: None,
            name: AgentName::ClaudeCode,
            owns_environment: true,
            recording: OnceCell::new(),
            shown_limits: Cell::default(),
        }
    }

    /// What the user's configuration allows to record of the work. The configuration is read only if there is something.
    pub(super) fn allowed<T>(&self, of: impl Fn(Recording) -> Option<T>) -> Option<T> {
        let everything = of(Recording::Full)?;
        match self.recording() {
            Recording::Full => Some(everything),
            less => of(less),
        }
    }

    pub(super) fn recording(&self) -> Recording {
        *self.recording.get_or_init(|| self.read_recording())
    }

    /// Whether these rate limits were shown by the last status line of this conversation already.
    pub(super) fn are_shown_again(&self, uuid: Option<&str>, shown: Option<u64>) -> bool {
        self.shown_limits.set(shown);
        let cached = self.cache.as_ref().zip(uuid).and_then(|(cache, uuid)| cache.get(uuid));
        shown.is_some() && cached.and_then(|session| session.shown_limits) == shown
    }

    /// A configuration that cannot be read may forbid everything.
    fn read_recording(&self) -> Recording {
        self.offline.local.recording().unwrap_or_else(|error| {
            self.log_complaint(&format!("nothing of the work is recorded: {}", error.message));
            Recording::None
        })
    }

    /// Reads stdin; if it does not end in time, the part that arrived.
    pub(super) fn read_input(&self, wanted: &[&str]) -> Input {
        let wanted = [wanted, &other_agents::WANTED].concat();
        Input::read(StdinUntil { until: self.deadline - DAEMON_RESERVE }, &wanted)
    }

    /// Finds the agent that runs this, by Claude Code's settings, which other agents read too. `None`: one that is not
    /// known well enough to be reported.
    pub(super) fn agent_of(&mut self, input: &Input) -> Option<AgentName> {
        let found = agent_process::find_agent(self.offline.env, Pid::as_raw(getppid()), input.text("session_id"));
        (self.agent, self.owns_environment) = (found.agent, found.owns_environment);
        let program = self.agent.as_ref().map(|agent| agent.name.as_str());
        match other_agents::other_agent(input, program, self.offline.env) {
            None => Some(AgentName::ClaudeCode),
            // It has no hooks of its own in Claude Code's settings, and is told apart with certainty.
            Some(other_agents::CURSOR) => Some(AgentName::Cursor),
            Some(_) => None,
        }
    }

    /// Finds the process of another agent that runs this, if it is that of one session.
    pub(super) fn find_process(&mut self, adapter: &Adapter) {
        let environment = |name: &str| (self.offline.env)(name).filter(|_| !name.starts_with("CLAUDE"));
        let found = agent_process::find_agent(&environment, Pid::as_raw(getppid()), None);
        self.agent = found.agent.filter(|process| adapter.owns_process(process));
        self.owns_environment = false;
        self.name = adapter.name;
    }

    /// The environment, without Claude Code's variables if another agent set them.
    pub(super) fn environment(&self) -> impl Fn(&str) -> Option<OsString> + use<'_> {
        |name| (self.offline.env)(name).filter(|_| self.owns_environment || !name.starts_with("CLAUDE"))
    }

    /// Prints the answer. A failure to print is only logged: an exit code would stop the agent.
    pub(super) fn print_answer(&self, out: &mut Output<'_>, text: &str) {
        if let Err(error) = out.print_rendered(&format!("{text}\n")) {
            self.log_complaint(&error.line());
        }
    }

    /// Sends a report to the daemon, or spools it. `None`: there is no session to show.
    pub(super) fn report(&self, report: AgentReport) -> Option<ReportedSession> {
        let report = self.completed(report);
        let process = report.pid.zip(report.pid_started);
        match self.client.report_agent(&report) {
            Ok(answer) => {
                let told_conflicts = self.told_conflicts(&answer.session);
                let known = CachedSession { told_conflicts, ..CachedSession::from_body(&answer.session, process) };
                self.update_cache(&report, known);
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
            let by_uuid = self.conversation(report).and_then(|conversation| cache.get(&conversation));
            // A fork is another session in the same process.
            let same = report.source.as_deref() != Some("fork") && !self.name.shares_process();
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
                told_conflicts: Vec::new(),
                shown_limits: None,
            }
        })
    }

    /// The sessions at the same place of which the agent was told, and that still are there.
    fn told_conflicts(&self, session: &SessionBody) -> Vec<String> {
        if session.conflicts_with.is_empty() {
            return Vec::new();
        }
        let mut told = self.cached(session).map(|known| known.told_conflicts).unwrap_or_default();
        told.retain(|id| session.conflicts_with.contains(id));
        told
    }

    /// The sessions at the same place of which the agent was not told yet. From now on it was.
    pub(super) fn new_conflicts(&self, session: &SessionBody) -> Vec<String> {
        let told = self.told_conflicts(session);
        let new: Vec<_> = session.conflicts_with.iter().filter(|id| !told.contains(id)).cloned().collect();
        if let (false, Some(known)) = (new.is_empty(), self.cached(session)) {
            let told_conflicts = session.conflicts_with.clone();
            let id = session.claude_session_uuid.as_deref().unwrap_or_default();
            self.store_in_cache(&conversation_key(self.name, id), &CachedSession { told_conflicts, ..known });
        }
        new
    }

    fn cached(&self, session: &SessionBody) -> Option<CachedSession> {
        let id = session.claude_session_uuid.as_deref()?;
        self.cache.as_ref()?.get(&conversation_key(self.name, id))
    }

    fn store_in_cache(&self, conversation: &str, known: &CachedSession) {
        if let Some(Err(error)) = self.cache.as_ref().map(|cache| cache.store(conversation, known)) {
            self.log_complaint(&format!("the state of {} cannot be cached: {error}", known.instance_id));
        }
    }

    /// The conversation that a report names, as a key among those of all agents.
    fn conversation(&self, report: &AgentReport) -> Option<String> {
        report.claude_session_uuid.as_deref().map(|id| conversation_key(self.name, id))
    }

    fn update_cache(&self, report: &AgentReport, known: CachedSession) {
        let (Some(cache), Some(conversation)) = (&self.cache, self.conversation(report)) else { return };
        if report.sign == "end" {
            cache.remove(&conversation);
        } else {
            let shown = self.shown_limits.get().or_else(|| cache.get(&conversation)?.shown_limits);
            let known = CachedSession { shown_limits: shown, ..known };
            self.store_in_cache(&conversation, &known);
        }
        if report.sign == "start" {
            cache.remove_expired(SystemTime::now());
        }
    }

    /// Appends a line to the log of hooks.
    pub(super) fn log_complaint(&self, what: &str) {
        if let Some(dir) = &self.offline.state_dir {
            // A complaint quotes input, which may hold secrets.
            let what = redact::text(what).unwrap_or_else(|| what.to_owned());
            let _ = append_to_log(dir, &format!("{} {}\n", self.now, one_line(&what)));
        }
    }
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
