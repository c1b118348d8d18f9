//! resume and context: continuing a session, and its reconstructed context.

use std::path::Path;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueHint};

use crate::claude::transcript::TranscriptTail;
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::style::{OutputStyle, Tone};
use crate::cli::table::{Cell, FieldList};
use crate::cli::text::age_since;
use crate::cli::verbs::session::AgentArgs;
use crate::client::{Client, Resolved};
use crate::domain::agent::AgentName;
use crate::wire::{ContextBody, Matches, ResumeBody, ResumeRequest, SessionBody};

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond resume 8f4a2b --pid $$ --handoff")]
pub(crate) struct ResumeArgs {
    /// An id, the last 4 to 6 characters of one, an epic or a project [default: the session with the newest heartbeat]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub hint: Option<String>,
    /// Choose this one of the numbered sessions that the same call listed before
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=10), allow_negative_numbers = true)]
    pub choose: Option<i64>,
    /// Continue a closed session too, if the hint is its whole id
    #[arg(long)]
    pub closed: bool,
    #[command(flatten)]
    pub agent: AgentArgs,
    /// Set the folder in which it continues
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub working_dir: Option<String>,
    /// Print the session and its context as JSON
    #[arg(long)]
    pub json: bool,
    /// Print the context as Markdown for another agent; the id goes to stderr
    #[arg(long, conflicts_with = "json")]
    pub handoff: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond context odin-PS-8f4a2b --handoff")]
pub(crate) struct ContextArgs {
    /// The session's id, or a prefix of it
    #[arg(value_name = "ID|PREFIX", value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// Print the context as JSON
    #[arg(long)]
    pub json: bool,
    /// Print it as Markdown for another agent
    #[arg(long, conflicts_with = "json")]
    pub handoff: bool,
}

pub(crate) fn resume(client: &Client, args: ResumeArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let asked = args.hint.clone().unwrap_or_default();
    let request = ResumeRequest {
        hint: args.hint,
        choice: args.choose,
        closed: args.closed.then_some(true),
        pid: args.agent.pid,
        claude_session_uuid: args.agent.claude_session_uuid,
        claude_session_path: args.agent.claude_session_path,
        working_dir: args.working_dir,
    };
    let resumed = match client.resume(&request)? {
        Resolved::One(resumed) => resumed,
        Resolved::Several(Matches { matches }) => {
            let hint = "choose one with --choose N, or give its whole id";
            return Err(CliError { hint: hint.to_owned(), ..CliError::ambiguous(&asked, matches) });
        }
    };
    if args.json {
        return out.print_json(&*resumed);
    }
    if args.handoff {
        out.print_note(&outcome_line(&resumed));
        return out.print_lines(&(resumed.handoff.clone() + &end_of_transcript(&resumed.from)));
    }
    let sheet = sheet(&resumed.context, &out.style).render(&out.style);
    out.print_line(&outcome_line(&resumed))?;
    out.print_rendered(&format!("\n{sheet}"))
}

/// The outcome in one line.
fn outcome_line(resumed: &ResumeBody) -> String {
    let (id, from) = (&resumed.session.instance_id, &resumed.from.instance_id);
    let by = match resumed.found_by.as_str() {
        "newest" => "the session with the newest heartbeat".to_owned(),
        kind => format!("found by its {kind}"),
    };
    match resumed.resumed.as_str() {
        "taken_up" => format!("resumed {id} in place, {by}"),
        _ => format!("registered {id}, which continues {from}, {by}"),
    }
}

pub(crate) fn context(client: &Client, args: &ContextArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let several = |several: Matches| CliError::ambiguous(&args.id, several.matches);
    if args.handoff {
        return match client.handoff(&args.id)? {
            Resolved::Several(matches) => Err(several(matches)),
            Resolved::One(handoff) => {
                let end = match client.show(&args.id) {
                    Ok(Resolved::One(session)) => end_of_transcript(&session),
                    _ => String::new(),
                };
                out.print_lines(&(*handoff + &end))
            }
        };
    }
    match client.context(&args.id)? {
        Resolved::Several(matches) => Err(several(matches)),
        Resolved::One(context) if args.json => out.print_json(&*context),
        Resolved::One(context) => out.print_rendered(&sheet(&context, &out.style).render(&out.style)),
    }
}

/// The end of the session's transcript, if it ran on this machine and is this user's: the daemon may not read it. Other
/// agents than Claude Code write theirs in other formats.
pub(super) fn end_of_transcript(session: &SessionBody) -> String {
    let is_claude = session.agent.as_deref().is_none_or(|agent| agent == AgentName::ClaudeCode.as_str());
    let path = session.claude_session_path.as_deref().filter(|_| session.local && is_claude);
    let tail = path.and_then(|path| TranscriptTail::read(Path::new(path)));
    tail.map(|tail| format!("\n{}", tail.markdown(&session.instance_id))).unwrap_or_default()
}

fn sheet(context: &ContextBody, style: &OutputStyle) -> FieldList {
    let mut sheet = FieldList::default();
    let optional = |text: &Option<String>| text.clone().unwrap_or_else(|| "—".to_owned());
    sheet.row("session", &context.instance_id);
    sheet.row("machine", machine(context, style));
    if !context.machine_synced {
        let warning = format!("not synced: later work may be recorded only on {}", context.host_machine);
        sheet.row("", Cell::new(warning).tone(Tone::Warn));
    }
    sheet.row("folder", optional(&context.working_dir));
    sheet.row("transcript", optional(&context.claude_session_path));
    let work = &context.work_state;
    sheet.row("epic", optional(&work.current_epic));
    sheet.row("completed", optional(&work.last_completed_epic));
    if let Some(tests) = &work.tests_passed {
        sheet.row("tests", tests.as_str().map_or_else(|| format!("{tests} passed"), str::to_owned));
    }
    if let Some(error) = &work.last_error {
        sheet.row("last error", Cell::new(error).tone(Tone::Bad));
    }
    sheet.row("confidence", format!("{}%: {}", context.confidence, context.reason));
    list(
        &mut sheet,
        "recent",
        context.recent_actions.iter().map(|action| {
            let ago = age_since(&action.at, style.now).map_or(String::new(), |age| format!("{age} ago: "));
            format!("{ago}{}", action.what)
        }),
    );
    list(&mut sheet, "next", context.next_steps.iter().cloned());
    if let Some(command) = &context.command {
        sheet.row("continue", command);
    }
    sheet
}

fn machine(context: &ContextBody, style: &OutputStyle) -> String {
    let seen = context.last_seen.as_deref().and_then(|at| age_since(at, style.now));
    let reach = match (context.reachable, seen) {
        (Some(true), _) => "reachable".to_owned(),
        (_, Some(age)) => format!("last seen {age} ago"),
        _ => "no daemon known".to_owned(),
    };
    format!("{}, {reach}", context.host_machine)
}

/// Adds a row for each; only the first has the title.
fn list(sheet: &mut FieldList, title: &'static str, rows: impl Iterator<Item = String>) {
    for (index, row) in rows.enumerate() {
        sheet.row(if index == 0 { title } else { "" }, row);
    }
}
