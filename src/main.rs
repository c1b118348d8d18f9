use std::process::ExitCode;

use sessiond::cli::{self, CliError, IdentityVerb, Local, MigrateArgs, RunArgs};
use sessiond::wire::{ErrorCode, MachineIdentity};

fn main() -> ExitCode {
    cli::main(std::env::args_os(), &NotBuilt)
}

/// Stands where the daemon will.
struct NotBuilt;

impl Local for NotBuilt {
    fn run(&self, _: &RunArgs) -> Result<(), CliError> {
        Err(not_built())
    }

    fn migrate(&self, _: &MigrateArgs) -> Result<String, CliError> {
        Err(not_built())
    }

    fn identity(&self, _: &IdentityVerb) -> Result<MachineIdentity, CliError> {
        Err(not_built())
    }
}

fn not_built() -> CliError {
    CliError::new(ErrorCode::Internal, "the daemon is not built yet", "wait for it")
}
