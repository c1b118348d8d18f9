//! install, uninstall and completions.

use clap::Args;

use super::agent_settings::ChosenAgents;
use crate::cli::command_line::command;
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::domain::agent::AgentName;

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

// Whose settings are changed instead of a service. Not a doc comment, as in `DaemonOptions`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct AgentsArgs {
    /// Only change this user's settings of an agent; may be given several times
    #[arg(long = "agent", value_name = "NAME", value_parser = installable(), conflicts_with_all = SERVICE)]
    pub agent: Vec<String>,
    /// Only change this user's settings of all agents that are found
    #[arg(long, conflicts_with_all = SERVICE, conflicts_with = "agent")]
    pub all_agents: bool,
    /// Only change this user's settings of Claude Code, as `--agent claude-code`
    #[arg(long, conflicts_with_all = SERVICE)]
    pub claude: bool,
}

const SERVICE: [&str; 2] = ["user", "system"];

/// The names of the agents whose settings are known.
fn installable() -> Vec<&'static str> {
    AgentName::ALL.into_iter().filter(|name| *name != AgentName::Other).map(AgentName::as_str).collect()
}

impl AgentsArgs {
    pub(crate) const fn is_any(&self) -> bool {
        self.claude || self.all_agents || !self.agent.is_empty()
    }

    /// The agents that are chosen, each once.
    pub(crate) fn chosen(&self) -> ChosenAgents {
        if self.all_agents {
            return ChosenAgents::Present;
        }
        let named = self.agent.iter().filter_map(|name| AgentName::parse(name));
        let mut chosen: Vec<_> = self.claude.then_some(AgentName::ClaudeCode).into_iter().chain(named).collect();
        let mut seen = Vec::new();
        chosen.retain(|name| {
            !seen.contains(name) && {
                seen.push(*name);
                true
            }
        });
        ChosenAgents::Named(chosen)
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example: sudo sessiond install --central-url postgres://supervisor@odin3:5435/supervisor_service"
)]
pub struct InstallArgs {
    #[command(flatten)]
    pub scope: ScopeArgs,
    #[command(flatten)]
    pub agents: AgentsArgs,
    /// Print every file and command, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Set this machine's name in a new configuration
    #[arg(long, value_name = "NAME", conflicts_with_all = ["agent", "all_agents", "claude"])]
    pub machine: Option<String>,
    /// Set the central database in a new configuration; a password is written to a separate file
    /// [env: SESSIOND_CENTRAL_URL]
    #[arg(long, value_name = "URL", hide_env_values = true, conflicts_with_all = ["agent", "all_agents", "claude"])]
    pub central_url: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sudo sessiond uninstall --system")]
pub struct UninstallArgs {
    #[command(flatten)]
    pub scope: ScopeArgs,
    #[command(flatten)]
    pub agents: AgentsArgs,
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
