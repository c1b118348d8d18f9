//! The words of the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{NonEmptyStringValueParser, StyledStr};
use clap::{Args, Parser, Subcommand, ValueHint};

use super::error::CliError;
use super::history_args::{CheckpointArgs, CommandArgs, EventArgs, HistoryArgs};

/// Keeps the record of AI coding sessions, with or without the network.
#[derive(Debug, Parser)]
// No words at all are wrong usage like any other, told in one line and not by a page of help.
#[command(name = "sessiond", version, arg_required_else_help = false)]
#[command(after_help = "Example: sessiond register --project odin --epic 003")]
pub struct Cli {
    /// The daemon's socket [env: SESSIOND_SOCKET] [default: the user's, else the system's]
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::FilePath, display_order = 100)]
    pub socket: Option<PathBuf>,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
// Of thirty verbs one is asked for: only its words are described.
#[command(defer = true)]
pub enum Verb {
    /// Run the daemon in the foreground
    Run(RunArgs),
    /// Register a session and print its id
    Register(RegisterArgs),
    /// Give a sign of life for a session
    Heartbeat(HeartbeatArgs),
    /// End a session
    Close(CloseArgs),
    /// List sessions on all machines
    List(ListArgs),
    /// Show one session in full
    Show(ShowArgs),
    /// Print the line that says which session this is
    Footer(FooterArgs),
    /// Go on from a session: take it up, or begin one that inherits from it
    Resume(ResumeArgs),
    /// Tell what a session was at, and how to go on
    Context(ContextArgs),
    /// Take down what happened in a session
    Event(EventArgs),
    /// Take down a command that was run in a session
    Command(CommandArgs),
    /// Take down where a session stands, to go on from
    Checkpoint(CheckpointArgs),
    /// List what happened in a session, newest first
    Events(HistoryArgs),
    /// List the commands that were run in a session, newest first
    Commands(HistoryArgs),
    /// List the checkpoints of a session, newest first
    Checkpoints(HistoryArgs),
    /// List the machines and what runs on them
    Machines(MachinesArgs),
    /// Show how the daemon, its link to central and its backlog stand
    Status(StatusArgs),
    /// Push to central now
    Sync(SyncArgs),
    /// Tend to sessions and records that central will never take as they are
    #[command(subcommand, arg_required_else_help = false)]
    Parked(ParkedVerb),
    /// Show or mend the name under which this machine is known
    #[command(subcommand, after_help = "Example: sessiond identity rename laptop", arg_required_else_help = false)]
    Identity(IdentityVerb),
    /// Bring central's schema up to date
    Migrate(MigrateArgs),
    /// Run a program as a session
    Exec(ExecArgs),
    /// Report the running agents of this user to the daemon, as one that cannot read this home needs it
    Discover(DiscoverArgs),
    /// Take note of what happens in Claude Code: its hooks run this, with JSON on stdin
    Hook(HookArgs),
    /// Serve MCP on stdin and stdout, for an agent that starts it
    Mcp,
    /// Print the line under Claude Code's prompt, which runs this, with JSON on stdin
    Statusline,
    /// Look at everything, and say what to do about what is wrong
    Doctor(DoctorArgs),
    /// Gather what whoever mends a bug wants to see, without secrets, into one file
    Bugreport(BugreportArgs),
    /// Install the daemon as a service, or bring what is installed up to date
    Install(InstallArgs),
    /// Remove the service, and leave the data
    Uninstall(UninstallArgs),
    /// Print what completes these verbs in a shell
    Completions(CompletionsArgs),
}

// The settings a daemon starts with, and what works on its files without it. No description that clap reads: it
// would take the place of the verb's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Settings")]
pub struct Settings {
    /// The configuration file [env: SESSIOND_CONFIG]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Where the store and the identity lie [env: SESSIOND_STATE_DIR]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    /// The name of this machine [env: HOST_MACHINE]
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
    /// The central database; leave a password to the config's password_file, `ps` shows this line
    /// [env: SESSIOND_CENTRAL_URL, DATABASE_URL]
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub central_url: Option<String>,
    /// What to log: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", value_parser = ["error", "warn", "info", "debug", "trace"])]
    pub log_level: Option<String>,
    /// The global --socket, put here for those who only see the settings.
    #[arg(skip)]
    pub socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond run --machine laptop --log-level debug")]
pub struct RunArgs {
    /// Use the system service's file locations, whichever user runs it
    #[arg(long)]
    pub system: bool,
    /// Write the log to FILE; at 8 MiB it is renamed to FILE.1 and begun anew
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub log_file: Option<PathBuf>,
    // launchd cannot tell exit codes apart: it restarts after every failure, or after none.
    /// End with 0 where a restart cannot help: not allowed, configuration, identity
    #[arg(long, hide = true)]
    pub launchd: bool,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: id=$(sessiond register --project odin --epic 003 --pid $$ --id-only)")]
pub struct RegisterArgs {
    /// Lower-case letters, digits and dashes, at most 22
    #[arg(long)]
    pub project: String,
    /// PS, a project supervisor, or MS, a meta supervisor
    #[arg(long = "type", value_name = "TYPE", value_parser = ["PS", "MS"], default_value = "PS")]
    pub instance_type: String,
    /// The machine it runs on [default: this one]
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
    /// What it works on
    #[arg(long)]
    pub epic: Option<String>,
    /// How much of its context window is used, in percent
    #[arg(long, value_name = "PERCENT", value_parser = percent(), allow_negative_numbers = true)]
    pub context: Option<i64>,
    /// Its process on this host: when that ends, the session turns stale at once
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..), allow_negative_numbers = true)]
    pub pid: Option<i32>,
    /// Claude Code's own id of the session
    #[arg(long, value_name = "UUID")]
    pub claude_session_uuid: Option<String>,
    /// Claude Code's transcript of the session
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub claude_session_path: Option<String>,
    /// The folder in which it runs [default: this one]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub working_dir: Option<String>,
    /// Print the session as JSON
    #[arg(long)]
    pub json: bool,
    /// Print the id and nothing else
    #[arg(long, conflicts_with = "json")]
    pub id_only: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond heartbeat odin-PS-8f4a2b --context 42")]
pub struct HeartbeatArgs {
    /// The session's id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// How much of its context window is used, in percent
    #[arg(long, value_name = "PERCENT", value_parser = percent(), allow_negative_numbers = true)]
    pub context: Option<i64>,
    /// What it works on now; left out, that stays as it was
    #[arg(long)]
    pub epic: Option<String>,
    /// It works on nothing in particular any more
    #[arg(long, conflicts_with = "epic")]
    pub clear_epic: bool,
    /// Print the session as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond close odin-PS-8f4a2b")]
pub struct CloseArgs {
    /// The session's id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// Print the session as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "Example: sessiond list --project odin --active")]
pub struct ListArgs {
    /// Only those of this project
    #[arg(long)]
    pub project: Option<String>,
    /// Only those on this machine
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
    /// Only those in this state
    #[arg(long, value_parser = ["active", "stale", "closed"])]
    pub status: Option<String>,
    /// Only active ones
    #[arg(long)]
    pub active: bool,
    /// Only those of this host
    #[arg(long)]
    pub local: bool,
    /// Also those that were closed long ago
    #[arg(long)]
    pub all: bool,
    /// Go on with a line for each change, until interrupted
    #[arg(long)]
    pub watch: bool,
    /// Print the list as JSON; with --watch, each change is a document on a line of its own
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond show odin-PS")]
pub struct ShowArgs {
    /// The session's id, or the beginning of it
    #[arg(value_name = "ID|PREFIX", value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// Print the session as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond footer odin-PS-8f4a2b --separator")]
pub struct FooterArgs {
    /// The session's id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// Begin with a line `---`
    #[arg(long)]
    pub separator: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond resume 8f4a2b --pid $$ --handoff")]
pub struct ResumeArgs {
    /// An id, 4 to 6 characters of its end, an epic or a project [default: the session that was alive last]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub hint: Option<String>,
    /// Which of several candidates, as they are numbered
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=10), allow_negative_numbers = true)]
    pub choose: Option<i64>,
    /// Go on from a closed session, too, if the hint is its whole id
    #[arg(long)]
    pub closed: bool,
    /// The process that goes on, on this host: when that ends, the session turns stale at once
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..), allow_negative_numbers = true)]
    pub pid: Option<i32>,
    /// Claude Code's own id of the session that goes on
    #[arg(long, value_name = "UUID")]
    pub claude_session_uuid: Option<String>,
    /// Claude Code's transcript of the session that goes on
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub claude_session_path: Option<String>,
    /// The folder in which it goes on
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub working_dir: Option<String>,
    /// Print all of it as JSON
    #[arg(long)]
    pub json: bool,
    /// Print what there is to know, as Markdown; the new id goes to stderr
    #[arg(long, conflicts_with = "json")]
    pub handoff: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond context odin-PS-8f4a2b --handoff")]
pub struct ContextArgs {
    /// The session's id, or the beginning of it
    #[arg(value_name = "ID|PREFIX", value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
    /// Print it as Markdown, for whoever goes on
    #[arg(long, conflicts_with = "json")]
    pub handoff: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond machines --json")]
pub struct MachinesArgs {
    /// Print the machines as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond status --json")]
pub struct StatusArgs {
    /// Print all of it as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond sync --wait --timeout 10")]
pub struct SyncArgs {
    /// Wait until nothing is left to push
    #[arg(long)]
    pub wait: bool,
    /// Wait at most so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "wait")]
    #[arg(value_parser = clap::value_parser!(u64).range(..=86_400), allow_negative_numbers = true)]
    pub timeout: u64,
    /// Print what is left as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum ParkedVerb {
    /// List them, each with central's reason
    #[command(after_help = "Example: sessiond parked list --json")]
    List {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Offer them to central again
    #[command(after_help = "Example: sessiond parked retry odin-PS-8f4a2b")]
    Retry {
        /// Which; all of them if none is named
        #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
        ids: Vec<String>,
        /// Print how many as JSON
        #[arg(long)]
        json: bool,
    },
    /// Give them up: central will never have them
    #[command(after_help = "Example: sessiond parked drop odin-PS-8f4a2b")]
    Drop {
        /// Which
        #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
        ids: Vec<String>,
        /// All of them
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        /// Print how many as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum IdentityVerb {
    /// Show this machine's name and host id
    #[command(after_help = "Example: sessiond identity show")]
    Show(IdentityOptions),
    /// Give this machine another name
    #[command(after_help = "Example: sessiond identity rename laptop")]
    Rename {
        /// The name it shall have
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        #[command(flatten)]
        options: IdentityOptions,
    },
    /// Take this machine's name over from the host that held it before
    #[command(after_help = "Example: sessiond identity replace")]
    Replace(IdentityOptions),
}

#[derive(Clone, Debug, Default, Args)]
pub struct IdentityOptions {
    /// Print the identity as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub settings: Settings,
}

impl IdentityVerb {
    pub const fn options(&self) -> &IdentityOptions {
        match self {
            Self::Show(options) | Self::Rename { options, .. } | Self::Replace(options) => options,
        }
    }

    const fn options_mut(&mut self) -> &mut IdentityOptions {
        match self {
            Self::Show(options) | Self::Rename { options, .. } | Self::Replace(options) => options,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond migrate --dry-run")]
pub struct MigrateArgs {
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The zone in which earlier clients wrote times [default: the database server's]; TABLE.COLUMN=ZONE for one
    /// column, and repeated for several
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Vec<String>,
    /// Lock large tables for as long as it takes to rewrite them
    #[arg(long)]
    pub offline: bool,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond doctor --json")]
pub struct DoctorArgs {
    /// Print what was found as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond bugreport report.txt")]
pub struct BugreportArgs {
    /// Where to put it
    #[arg(value_name = "FILE", default_value = "sessiond-bugreport.txt", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    #[command(flatten)]
    pub settings: Settings,
}

// Whose service it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct ScopeArgs {
    /// The service of this user [default, but for root]
    #[arg(long, conflicts_with = "system")]
    pub user: bool,
    /// The service of this machine, for all who are in the group sessiond [default for root]
    #[arg(long)]
    pub system: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example: sudo sessiond install --central-url postgres://supervisor@odin3:5435/supervisor_service"
)]
pub struct InstallArgs {
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Put hooks and status line into Claude Code's settings, for this user, and nothing else
    #[arg(long, conflicts_with_all = ["user", "system", "machine", "central_url"])]
    pub claude: bool,
    /// Print every file and command, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Name this machine, in a new configuration
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
    /// The central database, in a new configuration; a password goes into a file of its own
    /// [env: SESSIOND_CENTRAL_URL]
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub central_url: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sudo sessiond uninstall --system")]
pub struct UninstallArgs {
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Take hooks and status line out of Claude Code's settings, and nothing else
    #[arg(long, conflicts_with_all = ["user", "system"])]
    pub claude: bool,
    /// Print every file and command, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond exec --project odin -- my-agent --verbose")]
pub struct ExecArgs {
    /// Lower-case letters, digits and dashes, at most 22 [default: from the repository's or folder's name]
    #[arg(long)]
    pub project: Option<String>,
    /// PS, a project supervisor, or MS, a meta supervisor
    #[arg(long = "type", value_name = "TYPE", value_parser = ["PS", "MS"], default_value = "PS")]
    pub instance_type: String,
    /// The program and its arguments; it finds INSTANCE_ID and HOST_MACHINE in its environment
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond discover --watch")]
pub struct DiscoverArgs {
    /// Continue, and report each agent as it starts and ends
    #[arg(long)]
    pub watch: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond hook SessionStart")]
pub struct HookArgs {
    /// SessionStart, UserPromptSubmit, Stop, Notification, PreCompact, PostCompact or SessionEnd
    // Whatever stands here: wrong usage has an exit code that would stop the agent.
    #[arg(value_name = "EVENT", trailing_var_arg = true, allow_hyphen_values = true)]
    pub event: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond completions bash >~/.local/share/bash-completion/completions/sessiond")]
pub struct CompletionsArgs {
    /// Which shell
    pub shell: clap_complete::Shell,
}

/// The description of the command line, from which manuals are made.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

fn percent() -> clap::builder::RangedI64ValueParser<i64> {
    clap::value_parser!(i64).range(0..=100)
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Asked {
    Verb(Box<Cli>),
    /// Help, or the version.
    Text(StyledStr),
}

impl Cli {
    pub fn read(args: &[OsString]) -> Result<Asked, CliError> {
        match Self::try_parse_from(args) {
            Ok(cli) => Ok(Asked::Verb(Box::new(cli.with_socket_in_settings()))),
            Err(error) if !error.use_stderr() => Ok(Asked::Text(error.render())),
            Err(error) => Err(CliError::from_clap(&error, verb(args))),
        }
    }

    fn with_socket_in_settings(mut self) -> Self {
        let settings = match &mut self.verb {
            Verb::Run(args) => &mut args.settings,
            Verb::Migrate(args) => &mut args.settings,
            Verb::Identity(verb) => &mut verb.options_mut().settings,
            Verb::Doctor(args) => &mut args.settings,
            Verb::Bugreport(args) => &mut args.settings,
            _ => return self,
        };
        settings.socket.clone_from(&self.socket);
        self
    }
}

/// The word that should be the verb.
fn verb(args: &[OsString]) -> Option<&str> {
    args.get(1)?.to_str().filter(|word| !word.starts_with('-'))
}

/// Is a JSON document asked for? Looked up in the words themselves, since an error in them must be told
/// in the form that was asked for.
pub fn wants_json(args: &[OsString]) -> bool {
    args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use std::os::unix::ffi::OsStringExt;

    fn read(line: &str) -> Result<Asked, CliError> {
        let args: Vec<OsString> = ["sessiond"].into_iter().chain(line.split_whitespace()).map(Into::into).collect();
        Cli::read(&args)
    }

    fn verb(line: &str) -> Verb {
        match read(line) {
            Ok(Asked::Verb(cli)) => cli.verb,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_description_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_a_verb_takes_does_not_change_what_is_said_of_it() {
        let (brief, mut whole) = (Cli::command(), Cli::command());
        whole.build();
        for verb in brief.get_subcommands() {
            let built = whole.find_subcommand(verb.get_name()).unwrap();
            let said = verb.get_about().map(ToString::to_string);
            assert!(said.is_some() && said == built.get_about().map(ToString::to_string), "{}", verb.get_name());
        }
    }

    #[test]
    fn every_line_of_the_contract_is_understood() {
        for line in [
            "run",
            "run --config c --state-dir s --machine m --central-url u --log-level debug --socket x",
            "register --project p",
            "register --project p --type MS --machine m --epic e --context 42 --pid 7 --claude-session-uuid u \
             --claude-session-path f --json",
            "register --project p --id-only",
            "heartbeat odin-PS-8f4a2b",
            "heartbeat odin-PS-8f4a2b --context 42 --epic e --json",
            "heartbeat odin-PS-8f4a2b --clear-epic",
            "close odin-PS-8f4a2b",
            "list",
            "list --project p --machine m --status stale --active --local --json",
            "list --all --watch",
            "show odin --json",
            "footer odin-PS-8f4a2b --separator",
            "resume",
            "resume 8f4a2b --choose 2 --closed --json",
            "resume odin --pid 7 --claude-session-uuid u --claude-session-path f --working-dir /d --handoff",
            "context odin-PS-8f4a2b --json",
            "context odin-PS-8f4a2b --handoff",
            "event odin-PS-8f4a2b epic_started",
            "event odin-PS-8f4a2b tool_use --data {} --parent 2f1c8c54-0000-4000-8000-000000000000 --json",
            "command odin-PS-8f4a2b build",
            "command odin-PS-8f4a2b build --type mcp_tool --tool Bash --parameters {} --result 1 --failed no --took 12 \
             --tag a --tag b",
            "checkpoint odin-PS-8f4a2b --type manual --work-state {}",
            "events odin-PS-8f4a2b --type error --since 2026-01-30T12:00:00Z --until 2026-01-31T12:00:00Z --contains x \
             --limit 5 --offset 10 --json",
            "commands odin-PS-8f4a2b",
            "checkpoints odin-PS-8f4a2b",
            "machines --json",
            "status --json --socket /x.sock",
            "--socket /x.sock status",
            "sync",
            "sync --wait",
            "sync --wait --timeout 0",
            "parked list",
            "parked retry",
            "parked retry a b",
            "parked drop a b",
            "parked drop --all",
            "identity show --json",
            "identity rename laptop --state-dir s",
            "identity replace",
            "migrate",
            "migrate --dry-run --time-zone Europe/Berlin",
            "install --claude --dry-run",
            "uninstall --claude",
            "exec --project p -- true --json x",
            "exec true",
            "hook SessionStart",
            "hook",
            "hook --what ever",
            "statusline",
            "mcp",
            "doctor --json",
            "bugreport",
            "install",
            "install --user --dry-run",
            "install --system --machine m --central-url u",
            "uninstall --system --dry-run",
            "completions bash",
        ] {
            verb(line);
        }
    }

    #[test]
    fn defaults() {
        let Verb::Register(args) = verb("register --project p") else { panic!() };
        assert_eq!(args.instance_type, "PS");
        let Verb::Sync(args) = verb("sync --wait") else { panic!() };
        assert_eq!(args.timeout, 60);
        let Verb::Run(args) = verb("run --socket /x") else { panic!() };
        assert_eq!(args.settings.socket, Some(PathBuf::from("/x")));
    }

    #[test]
    fn wrong_usage_is_one_line_that_helps() {
        for (line, message, hint) in [
            ("", "'sessiond' requires a subcommand but one was not provided", "usage: sessiond"),
            ("parked", "requires a subcommand", "usage: sessiond parked"),
            ("identity", "requires a subcommand", "usage: sessiond identity"),
            ("lst", "unrecognized subcommand 'lst'", "did you mean 'list'?"),
            (
                "register",
                "the following required arguments were not provided: --project <PROJECT>",
                "usage: sessiond register",
            ),
            (
                "register --project p --context 101",
                "invalid value '101' for '--context <PERCENT>': 101 is not in 0..=100",
                "--help",
            ),
            (
                "register --project p --context -1",
                "invalid value '-1' for '--context <PERCENT>': -1 is not in 0..=100",
                "--help",
            ),
            ("register --project p --context x", "invalid value 'x' for '--context <PERCENT>'", "--help"),
            ("register --project p --pid 0", "invalid value '0' for '--pid <PID>'", "--help"),
            (
                "register --project p --type XS",
                "invalid value 'XS' for '--type <TYPE>' [possible values: PS, MS]",
                "--help",
            ),
            ("register --project p --json --id-only", "cannot be used with", "usage: sessiond register"),
            ("register --projct p", "unexpected argument '--projct' found", "did you mean '--project'?"),
            ("heartbeat x --epic e --clear-epic", "cannot be used with", "usage: sessiond heartbeat"),
            ("list --status gone", "[possible values: active, stale, closed]", "--help"),
            ("resume --choose 0", "invalid value '0' for '--choose <N>': 0 is not in 1..=10", "--help"),
            ("resume --json --handoff", "cannot be used with", "usage: sessiond resume"),
            ("context", "the following required arguments were not provided: <ID|PREFIX>", "usage: sessiond context"),
            ("sync --timeout 5", "--wait", "usage: sessiond sync"),
            ("sync --wait --timeout -5", "invalid value '-5' for '--timeout <SECONDS>'", "--help"),
            ("parked drop a --all", "cannot be used with", "usage: sessiond parked drop"),
            ("install --user --system", "cannot be used with", "usage: sessiond install"),
            ("show", "the following required arguments were not provided: <ID|PREFIX>", "usage: sessiond show"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.message.contains(message), "{line}: {}", error.message);
            assert!(error.hint.contains(hint), "{line}: {}", error.hint);
            assert!(!error.line().contains('\n'), "{line}: {}", error.line());
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn an_empty_id_does_not_become_the_list() {
        let args: Vec<OsString> = ["sessiond", "show", ""].into_iter().map(Into::into).collect();
        assert!(matches!(Cli::read(&args), Err(error) if error.exit_code() == 2));
    }

    #[test]
    fn what_is_not_utf_8_is_refused_where_it_must_be_text() {
        let args = vec!["sessiond".into(), "show".into(), OsString::from_vec(vec![b'x', 0xff])];
        let error = Cli::read(&args).unwrap_err();
        assert_eq!((error.exit_code(), error.line().contains("UTF-8")), (2, true), "{}", error.line());
        let path = vec!["sessiond".into(), "status".into(), "--socket".into(), OsString::from_vec(vec![b'/', 0xff])];
        assert!(Cli::read(&path).is_ok());
    }

    #[test]
    fn help_is_no_error() {
        for line in ["--help", "--version", "register --help", "parked drop -h"] {
            assert!(matches!(read(line), Ok(Asked::Text(_))), "{line}");
        }
    }

    #[test]
    fn json_is_seen_wherever_it_stands() {
        let wants = |line: &str| wants_json(&line.split(' ').map(Into::into).collect::<Vec<_>>());
        assert!(wants("sessiond lst --json"));
        assert!(!wants("sessiond show -- --json"));
        assert!(!wants("sessiond list"));
    }
}
