//! The words of the verbs that take down what happens in a session, and of those that ask for it.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond event odin-PS-8f4a2b epic_completed --data '{\"epic\": \"003\"}'")]
pub struct EventArgs {
    /// The session's id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// What kind of event, such as epic_completed
    #[arg(value_name = "TYPE")]
    pub event_type: String,
    /// What there is to say of it, a JSON object; secrets in it are blanked
    #[arg(long, value_name = "JSON")]
    pub data: Option<String>,
    /// The event that it came of
    #[arg(long, value_name = "UUID")]
    pub parent: Option<String>,
    /// Print the event as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond command odin-PS-8f4a2b build --took 1200 --tag release")]
pub struct CommandArgs {
    /// The session's id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// What was done
    pub action: String,
    /// mcp_tool or explicit [default: mcp_tool with --tool, else explicit]
    #[arg(long = "type", value_name = "TYPE", value_parser = ["mcp_tool", "explicit"])]
    pub command_type: Option<String>,
    /// The tool that did it
    #[arg(long, value_name = "NAME")]
    pub tool: Option<String>,
    /// What it was given, a JSON object; secrets in it are blanked
    #[arg(long, value_name = "JSON")]
    pub parameters: Option<String>,
    /// What came of it, any JSON; secrets in it are blanked
    #[arg(long, value_name = "JSON")]
    pub result: Option<String>,
    /// It failed, and why
    #[arg(long, value_name = "MESSAGE")]
    pub failed: Option<String>,
    /// How many milliseconds it took
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(i64).range(0..), allow_negative_numbers = true)]
    pub took: Option<i64>,
    /// A word to find it by; may be given more than once
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Print the command as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example: sessiond checkpoint odin-PS-8f4a2b --type manual --work-state '{\"next\": \"tests\"}'"
)]
pub struct CheckpointArgs {
    /// The session's id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// What for
    #[arg(long = "type", value_name = "TYPE", value_parser = ["context_window", "epic_completion", "manual"])]
    pub checkpoint_type: String,
    /// Where the work stands, a JSON object; secrets in it are blanked
    #[arg(long, value_name = "JSON")]
    pub work_state: String,
    /// Print the checkpoint as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond events odin-PS-8f4a2b --type error --since 2026-01-30T12:00:00Z")]
pub struct HistoryArgs {
    /// The session's id, or the beginning of it
    #[arg(value_name = "ID|PREFIX", value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// Only those of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub record_type: Option<String>,
    /// From this moment on, such as 2026-01-30T12:00:00Z
    #[arg(long, value_name = "MOMENT")]
    pub since: Option<String>,
    /// Before this moment
    #[arg(long, value_name = "MOMENT")]
    pub until: Option<String>,
    /// Only those with this text somewhere
    #[arg(long, value_name = "TEXT")]
    pub contains: Option<String>,
    /// At most so many [default: 50]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), allow_negative_numbers = true)]
    pub limit: Option<u32>,
    /// Without so many of the newest
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub offset: Option<u32>,
    /// Print them as JSON
    #[arg(long)]
    pub json: bool,
}
