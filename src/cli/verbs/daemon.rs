//! The arguments of run and migrate, which [`crate::cli::LocalOperations`] executes.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::cli::command_line::DaemonOptions;

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond run --machine laptop --log-level debug")]
pub struct RunArgs {
    /// Use the file locations of the system service for any user
    #[arg(long)]
    pub system: bool,
    /// Write the log to FILE; at 8 MiB it is renamed to FILE.1
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub log_file: Option<PathBuf>,
    // launchd does not distinguish exit codes: it restarts after every failure, or after none.
    /// Exit with 0 where a restart cannot help: missing permission, configuration, identity
    #[arg(long, hide = true)]
    pub launchd: bool,
    #[command(flatten)]
    pub settings: DaemonOptions,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond migrate --dry-run")]
pub struct MigrateArgs {
    /// Print what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Read times of earlier clients in this zone [default: the database server's]; TABLE.COLUMN=ZONE sets it for
    /// one column; may be repeated
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Vec<String>,
    /// Lock large tables while they are rewritten
    #[arg(long)]
    pub offline: bool,
    #[command(flatten)]
    pub settings: DaemonOptions,
}
