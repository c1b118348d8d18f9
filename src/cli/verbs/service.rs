//! install, uninstall and completions.

use clap::Args;

use crate::cli::command_line::command;
use crate::cli::error::CliError;
use crate::cli::output::Output;

// Which service is installed or removed. Not a doc comment, as in `DaemonOptions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct ScopeArgs {
    /// Use the service of this user [default, except for root]
    #[arg(long, conflicts_with = "system")]
    pub user: bool,
    /// Use the service of this machine, for members of the group sessiond [default for root]
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
    /// Only add hooks and the status line to this user's settings of Claude Code
    #[arg(long, conflicts_with_all = ["user", "system", "machine", "central_url"])]
    pub claude: bool,
    /// Print every file and command, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Set this machine's name in a new configuration
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
    /// Set the central database in a new configuration; a password is written to a separate file
    /// [env: SESSIOND_CENTRAL_URL]
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub central_url: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sudo sessiond uninstall --system")]
pub struct UninstallArgs {
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Only remove hooks and the status line from this user's settings of Claude Code
    #[arg(long, conflicts_with_all = ["user", "system"])]
    pub claude: bool,
    /// Print every file and command, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond completions bash >~/.local/share/bash-completion/completions/sessiond")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Prints a line, or lines, for each change.
pub(crate) fn print_done(done: &[String], out: &mut Output<'_>) -> Result<(), CliError> {
    out.print_lines(&done.iter().map(|line| format!("{line}\n")).collect::<String>())
}

pub(crate) fn completions(shell: clap_complete::Shell, out: &mut Output<'_>) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "sessiond", &mut script);
    out.print_rendered(&String::from_utf8_lossy(&script))
}
