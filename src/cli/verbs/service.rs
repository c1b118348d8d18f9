//! install, uninstall and completions: what happens around the daemon, not in it.

use crate::cli::args::command;
use crate::cli::error::CliError;
use crate::cli::output::Output;

/// One paragraph for each thing that was done.
pub fn say(done: &[String], out: &mut Output<'_>) -> Result<(), CliError> {
    out.lines(&done.iter().map(|line| format!("{line}\n")).collect::<String>())
}

pub fn completions(shell: clap_complete::Shell, out: &mut Output<'_>) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "sessiond", &mut script);
    out.print(&String::from_utf8_lossy(&script))
}
