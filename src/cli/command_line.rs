//! The verbs and global options of the command line, and its parser. The arguments of each verb are beside the verb, in
//! `verbs`.

use std::ffi::OsString;
use std::mem::ManuallyDrop;
use std::path::PathBuf;

use clap::builder::StyledStr;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueHint};

use super::error::CliError;
use super::verbs::conflicts::ConflictsArgs;
use super::verbs::daemon::{MigrateArgs, RunArgs};
use super::verbs::discover::DiscoverArgs;
use super::verbs::doctor::{BugreportArgs, DoctorArgs};
use super::verbs::exec::ExecArgs;
use super::verbs::history::{CheckpointArgs, CommandArgs, EventArgs, HistoryArgs};
use super::verbs::hook::HookArgs;
use super::verbs::identity::IdentityVerb;
use super::verbs::limits::LimitsArgs;
use super::verbs::list::{ListArgs, ShowArgs};
use super::verbs::machines::MachinesArgs;
use super::verbs::notify::{NotifyAgentArgs, NotifyVerb};
use super::verbs::parked::ParkedVerb;
use super::verbs::resume::{ContextArgs, ResumeArgs};
use super::verbs::service::{CompletionsArgs, InstallArgs, UninstallArgs};
use super::verbs::session::{CloseArgs, FooterArgs, HeartbeatArgs, RegisterArgs};
use super::verbs::status::StatusArgs;
use super::verbs::sync::SyncArgs;
use super::verbs::top::TopArgs;
use super::verbs::web::WebArgs;

/// Record AI coding sessions on this machine, and sync them with a central Postgres database ("central") whenever it can be
/// reached
#[derive(Debug, Parser)]
// A command line without a verb is a usage error of one line like any other, not a page of help.
#[command(name = "sessiond", version, arg_required_else_help = false)]
#[command(after_help = "Example: sessiond register --project odin --epic 003")]
pub(super) struct Cli {
    /// The daemon's socket [env: SESSIOND_SOCKET] [default: the user's, else the system's]
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::FilePath, display_order = 100)]
    pub socket: Option<PathBuf>,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
// Only the arguments of the one verb that is used are built.
#[command(defer = true)]
pub(super) enum Verb {
    /// Run the daemon in the foreground
    Run(RunArgs),
    /// Register a session and print its id
    Register(RegisterArgs),
    /// Record a heartbeat of a session
    Heartbeat(HeartbeatArgs),
    /// Close a session permanently
    Close(CloseArgs),
    /// List sessions on all machines
    List(ListArgs),
    /// Show all fields of a session
    Show(ShowArgs),
    /// Print a session's footer, the line that an agent ends its answers with
    Footer(FooterArgs),
    /// Resume a session in place, or register a successor that continues it
    Resume(ResumeArgs),
    /// Show a session's reconstructed context
    Context(ContextArgs),
    /// Record an event of a session
    Event(EventArgs),
    /// Record a command that a session ran
    Command(CommandArgs),
    /// Record a checkpoint
    Checkpoint(CheckpointArgs),
    /// List a session's events, newest first
    #[command(after_help = "Example: sessiond events odin-PS-8f4a2b --type error --since 2026-01-30T12:00:00Z")]
    Events(HistoryArgs),
    /// List a session's commands, newest first
    #[command(after_help = "Example: sessiond commands odin-PS-8f4a2b --contains build --limit 5")]
    Commands(HistoryArgs),
    /// List a session's checkpoints, newest first
    #[command(after_help = "Example: sessiond checkpoints odin-PS-8f4a2b --type manual --json")]
    Checkpoints(HistoryArgs),
    /// List machines and count their sessions
    Machines(MachinesArgs),
    /// List active sessions that share a working tree, a branch or an epic
    Conflicts(ConflictsArgs),
    /// Show how much of the agents' rate limits is used, by machine, account and window
    Limits(LimitsArgs),
    /// Show all sessions live in the terminal, what needs its user first
    Top(TopArgs),
    /// Serve a live page of all sessions for a browser
    Web(WebArgs),
    /// Show the state of the daemon, its link to central and its backlog
    Status(StatusArgs),
    /// Push what central lacks now
    Sync(SyncArgs),
    /// List, retry or drop sessions and records that central rejects
    #[command(subcommand, arg_required_else_help = false)]
    Parked(ParkedVerb),
    /// Test the notifications that the configuration asks for
    #[command(subcommand, arg_required_else_help = false)]
    Notify(NotifyVerb),
    /// Show the daemon's notifications on this user's desktop
    NotifyAgent(NotifyAgentArgs),
    /// Repair or show this machine's identity
    #[command(subcommand, after_help = "Example: sessiond identity rename laptop", arg_required_else_help = false)]
    Identity(IdentityVerb),
    /// Create or upgrade the tables in central
    Migrate(MigrateArgs),
    /// Run a program as a session
    Exec(ExecArgs),
    /// Report this user's running agents to the system's daemon, which cannot read home folders
    Discover(DiscoverArgs),
    /// Report an event of an agent, whose hooks run this with JSON on stdin
    Hook(HookArgs),
    /// Serve tools for agents (MCP) on stdin and stdout
    Mcp,
    /// Print the status line of Claude Code, which runs this with JSON on stdin
    Statusline,
    /// Check the installation, and advise how to fix what is wrong
    Doctor(DoctorArgs),
    /// Write diagnostics for a bug report, without secrets, to a file
    Bugreport(BugreportArgs),
    /// Install the daemon as a service, or update the installed one
    Install(InstallArgs),
    /// Remove the service and keep the data
    Uninstall(UninstallArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

// The options of the daemon and of verbs that read its files. Not a doc comment: clap would show it in place of the
// verb's description.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Settings")]
pub struct DaemonOptions {
    /// Read this configuration file [env: SESSIOND_CONFIG]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Keep the store and the identity in this folder [env: SESSIOND_STATE_DIR]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    /// Name this machine [env: HOST_MACHINE]
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
    /// Sync with this central database; put a password into central.password_file, as `ps` shows this line
    /// [env: SESSIOND_CENTRAL_URL, DATABASE_URL]
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub central_url: Option<String>,
    /// Log at this level: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", value_parser = ["error", "warn", "info", "debug", "trace"])]
    pub log_level: Option<String>,
    /// The global option --socket.
    #[arg(skip)]
    pub socket: Option<PathBuf>,
}

/// The clap definition of the command line, from which man pages and completions are generated.
pub fn command() -> clap::Command {
    Cli::command()
}

/// A parser of percentages.
pub(super) fn percent() -> clap::builder::RangedI64ValueParser<i64> {
    clap::value_parser!(i64).range(0..=100)
}

/// A parsed command line.
#[derive(Debug)]
pub(super) enum ParsedLine {
    Verb(Box<Cli>),
    /// The help or the version, to be printed.
    Text(StyledStr),
}

impl Cli {
    pub(super) fn parse_args(args: &[OsString]) -> Result<ParsedLine, CliError> {
        match Self::try_parse(args) {
            Ok(cli) => Ok(ParsedLine::Verb(Box::new(cli.with_socket_in_settings()))),
            Err(error) if !error.use_stderr() => Ok(ParsedLine::Text(error.render())),
            Err(error) => Err(CliError::from_clap(&error, first_word(args))),
        }
    }

    fn try_parse(args: &[OsString]) -> Result<Self, clap::Error> {
        // Never dropped: a verb's process ends soon, and dropping the definitions of all verbs is a seventh of its work.
        let mut command = ManuallyDrop::new(Self::command());
        let matches = command.try_get_matches_from_mut(args)?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
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

/// The first argument, unless it is an option.
fn first_word(args: &[OsString]) -> Option<&str> {
    args.get(1)?.to_str().filter(|word| !word.starts_with('-'))
}

/// Whether the arguments have `--json`. Also correct for arguments that cannot be parsed: their error is printed as JSON
/// too.
pub(super) fn wants_json(args: &[OsString]) -> bool {
    args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn parse_line(line: &str) -> Result<ParsedLine, CliError> {
        let args: Vec<OsString> = ["sessiond"].into_iter().chain(line.split_whitespace()).map(Into::into).collect();
        Cli::parse_args(&args)
    }

    fn parsed_verb(line: &str) -> Verb {
        match parse_line(line) {
            Ok(ParsedLine::Verb(cli)) => cli.verb,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn clap_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn deferred_arguments_keep_the_description_of_a_verb() {
        let (brief, mut whole) = (Cli::command(), Cli::command());
        whole.build();
        for verb in brief.get_subcommands() {
            let built = whole.find_subcommand(verb.get_name()).unwrap();
            let about = verb.get_about().map(ToString::to_string);
            assert!(about.is_some() && about == built.get_about().map(ToString::to_string), "{}", verb.get_name());
        }
    }

    #[test]
    fn every_line_of_the_contract_is_parsed() {
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
            "limits",
            "limits --json",
            "top",
            "top --once",
            "top --bell",
            "web",
            "web --listen 127.0.0.1:0 --open --allow-actions --token-file f",
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
            parsed_verb(line);
        }
    }

    /// The words of an example after `sessiond`, without what belongs to the shell around it.
    fn words_of_example(example: &str) -> Vec<String> {
        let from = example.find("sessiond ").expect("an example runs sessiond");
        let line = example[from..].split(" >").next().unwrap();
        let line = if example.contains("$(") { line.trim_end_matches(')') } else { line };
        shlex::split(&line.replace("$$", "1")).expect("balanced quotes")
    }

    fn check_examples(command: &clap::Command, path: &[&str]) {
        let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for example in examples.lines().filter_map(|line| line.strip_prefix("Example: ")) {
            let words = words_of_example(example);
            assert!(Cli::parse_args(&words.iter().map(Into::into).collect::<Vec<_>>()).is_ok(), "{example}");
            assert!(words[1..].starts_with(&path.iter().map(ToString::to_string).collect::<Vec<_>>()), "{example}");
        }
        for verb in command.get_subcommands() {
            check_examples(verb, &[path, &[verb.get_name()]].concat());
        }
    }

    #[test]
    fn examples_in_the_help_are_of_their_verb_and_are_parsed() {
        let mut command = Cli::command();
        command.build();
        check_examples(&command, &[]);
    }

    #[test]
    fn defaults() {
        let Verb::Register(args) = parsed_verb("register --project p") else { panic!() };
        assert_eq!(args.instance_type, "PS");
        let Verb::Sync(args) = parsed_verb("sync --wait") else { panic!() };
        assert_eq!(args.timeout, 60);
        let Verb::Run(args) = parsed_verb("run --socket /x") else { panic!() };
        assert_eq!(args.settings.socket, Some(PathBuf::from("/x")));
    }

    #[test]
    fn usage_errors_are_one_line_with_a_hint() {
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
            let error = parse_line(line).unwrap_err();
            assert!(error.message.contains(message), "{line}: {}", error.message);
            assert!(error.hint.contains(hint), "{line}: {}", error.hint);
            assert!(!error.line().contains('\n'), "{line}: {}", error.line());
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn rejects_an_empty_id() {
        let args: Vec<OsString> = ["sessiond", "show", ""].into_iter().map(Into::into).collect();
        assert!(matches!(Cli::parse_args(&args), Err(error) if error.exit_code() == 2));
    }

    #[test]
    fn rejects_text_that_is_not_utf_8_and_accepts_such_paths() {
        let args = vec!["sessiond".into(), "show".into(), OsString::from_vec(vec![b'x', 0xff])];
        let error = Cli::parse_args(&args).unwrap_err();
        assert_eq!((error.exit_code(), error.line().contains("UTF-8")), (2, true), "{}", error.line());
        let path = vec!["sessiond".into(), "status".into(), "--socket".into(), OsString::from_vec(vec![b'/', 0xff])];
        assert!(Cli::parse_args(&path).is_ok());
    }

    #[test]
    fn help_and_version_are_not_errors() {
        for line in ["--help", "--version", "register --help", "parked drop -h"] {
            assert!(matches!(parse_line(line), Ok(ParsedLine::Text(_))), "{line}");
        }
    }

    #[test]
    fn json_flag_is_found_anywhere_before_a_double_dash() {
        let wants = |line: &str| wants_json(&line.split(' ').map(Into::into).collect::<Vec<_>>());
        assert!(wants("sessiond lst --json"));
        assert!(!wants("sessiond show -- --json"));
        assert!(!wants("sessiond list"));
    }
}
