//! hook, which agents run at their events: reports the event, and gives the agent its context at its start.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::agent_reporter::{AgentReporter, DAEMON_RESERVE, ReportedSession};
use super::resume::end_of_transcript;
use crate::agents::{self, Adapter, Translation};
use crate::claude::hook::{self, HookEvent, HookRecord};
use crate::claude::input::Input;
use crate::claude::work;
use crate::cli::error::CliError;
use crate::cli::offline::{self, OfflineWriter, is_unreachable};
use crate::cli::output::Output;
use crate::client::{Client, Resolved};
use crate::domain::agent::AgentName;
use crate::domain::redact;
use crate::domain::text::{data_of, escaped_lines, fenced};
use crate::domain::work::{Recording, Repository, WorkUpdate};
use crate::platform::git::Inspection;
use crate::spool::ClientWrite;
use crate::wire::{AgentReport, CheckpointRequest, EventRequest};

#[derive(Debug, Args)]
#[command(after_help = "Example: echo '{}' | sessiond hook --agent codex SessionStart")]
pub(crate) struct HookArgs {
    /// The agent that runs it: claude-code, codex, opencode, cursor, copilot, gemini or other [default: claude-code]
    // Any text is accepted, and none.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "other", allow_hyphen_values = true)]
    pub agent: Option<String>,
    /// The event, such as SessionStart, Stop or PermissionRequest. Default: the one that stdin names
    // Any text is accepted: the exit code of a usage error would stop the agent.
    #[arg(value_name = "EVENT", trailing_var_arg = true, allow_hyphen_values = true)]
    pub event: Vec<String>,
}

/// The deadline of a hook, without the time for writing a spooled request after it.
const HOOK_TIMEOUT: Duration = Duration::from_millis(80);
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
    let agent = args.agent.as_deref().map_or(Some(AgentName::ClaudeCode), AgentName::parse).unwrap_or_else(|| {
        reporter.log_complaint("hook: the agent is not known by this name; its session is reported as that of `other`");
        AgentName::Other
    });
    if agent != AgentName::ClaudeCode {
        let input = reporter.read_input(&agents::WANTED);
        translated_hook(&mut reporter, Adapter::of(agent), (&name, &input), out);
        return Ok(());
    }
    let input = reporter.read_input(&[&hook::wanted()[..], &agents::WANTED_OF_CURSOR].concat());
    // Broken input does not decide what the event is: fields that identify the session may be lost.
    let sent = input.text("hook_event_name").filter(|_| input.complaint.is_none()).unwrap_or_default();
    let event = HookEvent::parse(if name.is_empty() { sent } else { &name });
    if event.is_none() && name != sent {
        reporter.log_complaint(&format!("hook {name}: there is no such event"));
    }
    if let Some(complaint) = &input.complaint {
        reporter.log_complaint(&format!("hook {name}: {complaint}"));
    }
    match reporter.agent_of(&input) {
        Some(AgentName::ClaudeCode) => {}
        Some(other) => {
            translated_hook(&mut reporter, Adapter::of(other), (&name, &input), out);
            return Ok(());
        }
        None => return Ok(()),
    }
    let Some(event) = event else {
        reporter.report(hook::heartbeat(&input, &reporter.environment()));
        return Ok(());
    };
    let report = event.report(&input, &reporter.environment());
    let context = report_event(&mut reporter, event, &input, report);
    if let Some(context) = context {
        let answer = json!({"hookSpecificOutput": {"hookEventName": event.name(), "additionalContext": context}});
        reporter.print_answer(out, &answer.to_string());
    }
    Ok(())
}

/// Reports an event of another agent than Claude Code, and answers as that agent expects it.
fn translated_hook(
    reporter: &mut AgentReporter<'_>,
    adapter: &Adapter,
    (name, input): (&str, &Input),
    out: &mut Output<'_>,
) {
    if let Some(complaint) = &input.complaint {
        reporter.log_complaint(&format!("hook --agent {} {name}: {complaint}", adapter.name.as_str()));
    }
    // Fields that decide what the event is may be lost in broken input.
    let translation = match &input.complaint {
        Some(_) if name.is_empty() => {
            Translation { event: None, ..adapter.translate(name, input, reporter.offline.env) }
        }
        _ => adapter.translate(name, input, reporter.offline.env),
    };
    reporter.find_process(adapter);
    let report = translation.report(adapter.name, &reporter.environment());
    let context = match translation.event {
        Some(event) => report_event(reporter, event, &translation.input, report),
        None => {
            let work = reporter.allowed(|recording| work::of_title(&translation.input, recording));
            reporter.report(AgentReport { work, ..report });
            None
        }
    };
    let answer = match &context {
        Some(context) => Some(adapter.answer(name, input, context)),
        None => adapter.empty_answer().map(str::to_owned),
    };
    if let Some(answer) = answer {
        reporter.print_answer(out, &answer);
    }
}

/// Reports an event with what it says about the work. Returns the context that the agent is given: at its start, and what
/// is new to it at a prompt.
fn report_event(
    reporter: &mut AgentReporter<'_>,
    event: HookEvent,
    input: &Input,
    report: AgentReport,
) -> Option<String> {
    let work = reporter.allowed(|recording| work::of(event, input, recording));
    // git works while the report is sent.
    let repository = reporter.inspection(event, &report);
    let later =
        AgentReport { sign: "beat".to_owned(), source: None, activity: None, context_percent: None, ..report.clone() };
    let reported = reporter.report(AgentReport { work, ..report })?;
    if let Some(record) = reporter.allowed(|recording| event.record(input, recording)) {
        reporter.record(&reported, record);
    }
    let mut context = Vec::new();
    if event == HookEvent::SessionStart {
        context.push(reporter.start_context(&reported, input.text("source")));
    }
    let mut latest = Some(reported);
    if let Some(repository) = repository {
        let work = WorkUpdate { repository: Some(reporter.finished(repository)), ..WorkUpdate::default() }.sanitized();
        // In the spool it comes after the report that begins the session.
        reporter.now = reporter.now.plus(Duration::from_micros(1));
        latest = reporter.report(AgentReport { work: Some(work), ..later });
    }
    if matches!(event, HookEvent::SessionStart | HookEvent::UserPromptSubmit) {
        context.extend(latest.and_then(|reported| reporter.conflict_notice(&reported)));
    }
    (!context.is_empty()).then(|| context.join("\n\n"))
}

impl AgentReporter<'_> {
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

    /// What the agent is told of sessions at its place, each once. Only where the daemon answered, since the place of a
    /// session is known to it alone.
    fn conflict_notice(&self, reported: &ReportedSession) -> Option<String> {
        let new = self.new_conflicts(&reported.session.as_ref()?.session);
        (!new.is_empty()).then(|| {
            format!(
                "Another agent works at the same place: {} shares the working tree, the branch or the epic of this \
                 session (`sessiond conflicts` says which). Take care that neither undoes the other's changes.",
                new.join(", ")
            )
        })
    }

    /// The end of another session's transcript. An agent that continues its own conversation has it already.
    fn end_of_transcript(&self, id: &str) -> String {
        match self.client.show(id) {
            Ok(Resolved::One(session)) => end_of_transcript(&session),
            _ => String::new(),
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
