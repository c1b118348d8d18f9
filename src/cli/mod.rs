//! The command line: parses the arguments, sends requests to the daemon and prints the answers.
//!
//! Every verb prints its answer to stdout and everything else to stderr. A failure is one line on stderr, an exit code
//! and, with `--json`, a document on stdout ([`CliError`]). Verbs that write (register, heartbeat, close, hook, exec)
//! leave a spooled request if no daemon answers (`offline`). All text is escaped before it reaches a terminal
//! (`output`).

#[allow(missing_docs, reason = "clap shows a doc comment of arguments as the description of their verb")]
mod command_line;
mod error;
mod freshness;
mod line_diff;
mod offline;
mod output;
mod style;
mod table;
mod text;
#[allow(missing_docs, reason = "as of command_line")]
mod verbs;

use std::env;
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use crate::client::{Client, Endpoint, machine_from_env};
use crate::clock;
use crate::domain::Finding;
use crate::domain::work::Recording;
use crate::mcp;
use crate::wire::MachineIdentity;
use command_line::{Cli, ParsedLine, Verb};
pub use command_line::{DaemonOptions, command};
pub use error::CliError;
use offline::OfflineWriter;
use output::Output;
use style::OutputStyle;
use verbs::agent_settings::SettingsChange;
pub use verbs::daemon::{MigrateArgs, RunArgs};
pub use verbs::identity::{IdentityOptions, IdentityVerb};
pub use verbs::service::{InstallArgs, ScopeArgs, UninstallArgs};

/// Operations of this process that need no running daemon. The binary implements them, and tests fake them.
pub trait LocalOperations {
    /// Runs the daemon until a signal stops it.
    fn run(&self, args: &RunArgs) -> Result<(), CliError>;
    /// Upgrades central's schema; returns a report of the changes.
    fn migrate(&self, args: &MigrateArgs) -> Result<String, CliError>;
    /// Reads or changes the identity in the state folder while no daemon runs on it.
    fn identity(&self, verb: &IdentityVerb) -> Result<MachineIdentity, CliError>;
    /// How much of the agents' work the configuration allows to record.
    fn recording(&self) -> Result<Recording, CliError>;
    /// Installs the service; returns a line for each change.
    fn install(&self, args: &InstallArgs) -> Result<Vec<String>, CliError>;
    /// Removes the service; returns a line for each change and the paths of the data that is kept.
    fn uninstall(&self, args: &UninstallArgs) -> Result<Vec<String>, CliError>;
    /// Checks this installation.
    fn doctor(&self, settings: &DaemonOptions, client: &Client) -> Result<Vec<Finding>, CliError>;
    /// Collects the diagnostics for a bug report.
    fn bugreport(&self, settings: &DaemonOptions, client: &Client) -> Result<String, CliError>;
}

/// Runs the program with these arguments.
pub fn main(args: impl Iterator<Item = OsString>, local: &dyn LocalOperations) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    let style = OutputStyle::detect(|name| env::var_os(name), clock::system()());
    // Not locked: a verb prints in one write, and `run` needs stderr for the daemon's log.
    let (mut stdout, mut stderr) = (io::stdout(), io::stderr());
    let mut out = Output::new(&mut stdout, &mut stderr, style);
    ExitCode::from(execute(&args, &|name| env::var_os(name), local, &mut out))
}

/// Runs one command line and returns the exit code.
fn execute(
    args: &[OsString],
    env: &dyn Fn(&str) -> Option<OsString>,
    local: &dyn LocalOperations,
    out: &mut Output<'_>,
) -> u8 {
    let done = match Cli::parse_args(args) {
        Ok(ParsedLine::Verb(cli)) => dispatch(*cli, env, local, out),
        Ok(ParsedLine::Text(text)) if out.style.colour => out.print_rendered(&text.ansi().to_string()).map(|()| 0),
        Ok(ParsedLine::Text(text)) => out.print_rendered(&text.to_string()).map(|()| 0),
        Err(error) => Err(error),
    };
    match done {
        Ok(code) => code,
        Err(error) => out.report_failure(&error, command_line::wants_json(args)),
    }
}

fn dispatch(
    cli: Cli,
    env: &dyn Fn(&str) -> Option<OsString>,
    local: &dyn LocalOperations,
    out: &mut Output<'_>,
) -> Result<u8, CliError> {
    let endpoint = Endpoint::resolve(cli.socket.as_deref(), env);
    let named = endpoint.is_named();
    let offline = &OfflineWriter::new(env, local, &endpoint, clock::system(), crate::platform::random::random);
    let client = &Client::new(endpoint);
    let done = match cli.verb {
        Verb::Run(args) => local.run(&args),
        Verb::Migrate(args) => out.print_lines(&local.migrate(&args)?),
        Verb::Identity(verb) => verbs::identity::identity(client, named, local, &verb, out),
        Verb::Register(args) => verbs::session::register(client, args, offline, out),
        Verb::Heartbeat(args) => verbs::session::heartbeat(client, args, offline, out),
        Verb::Close(args) => verbs::session::close(client, &args, offline, out),
        Verb::List(args) => verbs::list::list(client, args, out),
        Verb::Show(args) => verbs::list::show(client, &args, out),
        Verb::Footer(args) => verbs::session::footer(client, &args, out),
        Verb::Resume(args) => verbs::resume::resume(client, args, out),
        Verb::Context(args) => verbs::resume::context(client, &args, out),
        Verb::Event(args) => verbs::history::event(client, args, out),
        Verb::Command(args) => verbs::history::command(client, args, out),
        Verb::Checkpoint(args) => verbs::history::checkpoint(client, args, out),
        Verb::Events(args) => verbs::history::events(client, args, out),
        Verb::Commands(args) => verbs::history::commands(client, args, out),
        Verb::Checkpoints(args) => verbs::history::checkpoints(client, args, out),
        Verb::Conflicts(args) => verbs::conflicts::conflicts(client, &args, out),
        Verb::Limits(args) => verbs::limits::limits(client, &args, out),
        Verb::Machines(args) => verbs::machines::machines(client, &args, out),
        Verb::Top(args) => verbs::top::top(client, &args, env, out),
        Verb::Web(args) => verbs::web::web(client, args, out),
        Verb::Status(args) => verbs::status::status(client, &args, out),
        Verb::Sync(args) => verbs::sync::sync(client, &args, out),
        Verb::Exec(args) => return verbs::exec::exec(client, &args, offline, out),
        Verb::Discover(args) => verbs::discover::discover(client, &args, env, local, out),
        Verb::Hook(args) => verbs::hook::hook(client, &args, offline, out),
        Verb::Mcp => mcp::serve(client.clone(), machine_from_env(env)?).map_err(CliError::from),
        Verb::Statusline => verbs::statusline::statusline(client, offline, out),
        Verb::Parked(verb) => verbs::parked::parked(client, verb, out),
        Verb::Doctor(args) => verbs::doctor::doctor(client, local, &args, out),
        Verb::Bugreport(args) => verbs::doctor::bugreport(client, local, &args, out),
        Verb::Install(InstallArgs { agents, dry_run, .. }) if agents.is_any() => {
            verbs::agent_settings::change_settings(SettingsChange::Install, agents.chosen(), dry_run, env, out)
        }
        Verb::Install(args) => verbs::service::print_done(&local.install(&args)?, out),
        Verb::Uninstall(UninstallArgs { agents, dry_run, .. }) if agents.is_any() => {
            verbs::agent_settings::change_settings(SettingsChange::Uninstall, agents.chosen(), dry_run, env, out)
        }
        Verb::Uninstall(args) => verbs::service::print_done(&local.uninstall(&args)?, out),
        Verb::Completions(args) => verbs::service::completions(args.shell, out),
    };
    done.map(|()| 0)
}

#[cfg(test)]
mod tests;
