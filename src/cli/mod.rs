//! The command line: reads the words, asks the daemon, prints what it says.

mod args;
mod away;
mod error;
mod history_args;
mod known;
mod line_diff;
mod look;
mod output;
mod table;
mod text;
mod verbs;

use std::env;
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use crate::client::{Client, Endpoint, machine_from_env};
use crate::clock;
use crate::domain::Finding;
use crate::mcp;
use crate::wire::MachineIdentity;
use args::{Asked, Cli, Verb};
pub use args::{
    IdentityOptions, IdentityVerb, InstallArgs, MigrateArgs, RunArgs, ScopeArgs, Settings, UninstallArgs, command,
};
use away::Away;
pub use error::CliError;
use look::Look;
use output::Output;
use verbs::claude::Change;

/// What is done here rather than asked of a running daemon.
pub trait Local {
    /// Runs the daemon until it is told to stop.
    fn run(&self, args: &RunArgs) -> Result<(), CliError>;
    /// Brings central's schema up to date; the text says what was done.
    fn migrate(&self, args: &MigrateArgs) -> Result<String, CliError>;
    /// Reads or mends the identity in the state folder while no daemon runs on it.
    fn identity(&self, verb: &IdentityVerb) -> Result<MachineIdentity, CliError>;
    /// Installs the service; says what was done.
    fn install(&self, args: &InstallArgs) -> Result<Vec<String>, CliError>;
    /// Removes the service; says what was done, and where the data stays.
    fn uninstall(&self, args: &UninstallArgs) -> Result<Vec<String>, CliError>;
    /// Looks at this installation.
    fn doctor(&self, settings: &Settings, client: &Client) -> Result<Vec<Finding>, CliError>;
    /// Everything that whoever mends a bug wants to see.
    fn bugreport(&self, settings: &Settings, client: &Client) -> Result<String, CliError>;
}

/// The whole of the program, but for what `local` does.
pub fn main(args: impl Iterator<Item = OsString>, local: &dyn Local) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    let look = Look::detect(|name| env::var_os(name), clock::system()());
    // Not locked: a verb prints in one write, and a daemon's log must get through while `run` lasts.
    let (mut stdout, mut stderr) = (io::stdout(), io::stderr());
    let mut out = Output::new(&mut stdout, &mut stderr, look);
    ExitCode::from(execute(&args, &|name| env::var_os(name), local, &mut out))
}

/// Carries out one command line and gives the exit code.
fn execute(args: &[OsString], env: &dyn Fn(&str) -> Option<OsString>, local: &dyn Local, out: &mut Output<'_>) -> u8 {
    let done = match Cli::read(args) {
        Ok(Asked::Verb(cli)) => dispatch(*cli, env, local, out),
        Ok(Asked::Text(text)) if out.look.colour => out.print(&text.ansi().to_string()).map(|()| 0),
        Ok(Asked::Text(text)) => out.print(&text.to_string()).map(|()| 0),
        Err(error) => Err(error),
    };
    match done {
        Ok(code) => code,
        Err(error) => out.fail(&error, args::wants_json(args)),
    }
}

fn dispatch(
    cli: Cli,
    env: &dyn Fn(&str) -> Option<OsString>,
    local: &dyn Local,
    out: &mut Output<'_>,
) -> Result<u8, CliError> {
    let endpoint = Endpoint::resolve(cli.socket.as_deref(), env);
    let named = endpoint.is_named();
    let away = &Away::new(env, local, &endpoint, clock::system(), crate::platform::random::random);
    let client = &Client::new(endpoint);
    let done = match cli.verb {
        Verb::Run(args) => local.run(&args),
        Verb::Migrate(args) => out.lines(&local.migrate(&args)?),
        Verb::Identity(verb) => verbs::identity::identity(client, named, local, &verb, out),
        Verb::Register(args) => verbs::session::register(client, args, away, out),
        Verb::Heartbeat(args) => verbs::session::heartbeat(client, args, away, out),
        Verb::Close(args) => verbs::session::close(client, &args, away, out),
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
        Verb::Machines(args) => verbs::machines::machines(client, &args, out),
        Verb::Status(args) => verbs::status::status(client, &args, out),
        Verb::Sync(args) => verbs::sync::sync(client, &args, out),
        Verb::Exec(args) => return verbs::exec::exec(client, &args, away, out),
        Verb::Discover(args) => verbs::discover::discover(client, &args, env, out),
        Verb::Hook(args) => verbs::agent::hook(client, &args, away, out),
        Verb::Mcp => mcp::serve(client.clone(), machine_from_env(env)?).map_err(CliError::from),
        Verb::Statusline => verbs::agent::statusline(client, away, out),
        Verb::Parked(verb) => verbs::parked::parked(client, verb, out),
        Verb::Doctor(args) => verbs::doctor::doctor(client, local, &args, out),
        Verb::Bugreport(args) => verbs::doctor::bugreport(client, local, &args, out),
        Verb::Install(args) if args.claude => verbs::claude::settings(Change::Install, args.dry_run, env, out),
        Verb::Install(args) => verbs::service::say(&local.install(&args)?, out),
        Verb::Uninstall(args) if args.claude => verbs::claude::settings(Change::Uninstall, args.dry_run, env, out),
        Verb::Uninstall(args) => verbs::service::say(&local.uninstall(&args)?, out),
        Verb::Completions(args) => verbs::service::completions(args.shell, out),
    };
    done.map(|()| 0)
}

#[cfg(test)]
mod tests;
