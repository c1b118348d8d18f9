//! The program: the daemon (`sessiond run`) and its client (the other verbs).

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use sessiond::cli::{
    self, CliError, IdentityVerb, InstallArgs, LocalOperations, MigrateArgs, RunArgs, ScopeArgs, UninstallArgs,
};
use sessiond::client::Client;
use sessiond::config::{self, Environment, Overrides, Secret};
use sessiond::daemon;
use sessiond::doctor;
use sessiond::domain::work::Recording;
use sessiond::domain::{Finding, MachineName};
use sessiond::platform::default_paths::Os;
use sessiond::service::{self, InstallTarget, Scope, Setup};
use sessiond::sync::postgres::MigrateRequest;
use sessiond::wire::{ErrorCode, MachineIdentity};

fn main() -> ExitCode {
    // So that a store or a spooled request that reaches the file size limit is an error rather than the process's end.
    let _ = sessiond::platform::disk::report_file_size_limit();
    cli::main(std::env::args_os(), &ThisProcess)
}

/// Prints a line of progress; a closed stderr is ignored.
fn progress(line: &str) {
    _ = writeln!(std::io::stderr(), "{line}");
}

/// What is done in this process rather than asked of a running daemon.
struct ThisProcess;

impl LocalOperations for ThisProcess {
    fn run(&self, args: &RunArgs) -> Result<(), CliError> {
        let overrides = Overrides { log_file: args.log_file.clone(), ..overrides(&args.settings)? };
        let ended = with_environment(|environment| {
            let is_root = environment.is_root || args.system;
            daemon::run(&overrides, &Environment { is_root, ..*environment }).map_err(CliError::from)
        });
        match ended {
            Err(error) if args.launchd && service::PERMANENT_EXIT_CODES.contains(&error.exit_code()) => {
                eprintln!("{}", error.line());
                Ok(())
            }
            ended => ended,
        }
    }

    fn migrate(&self, args: &MigrateArgs) -> Result<String, CliError> {
        let overrides = overrides(&args.settings)?;
        with_environment(|environment| {
            let request =
                MigrateRequest { time_zones: args.time_zone.clone(), dry_run: args.dry_run, offline: args.offline };
            Ok(daemon::migrate(&overrides, environment, &request, &mut progress)?)
        })
    }

    fn identity(&self, verb: &IdentityVerb) -> Result<MachineIdentity, CliError> {
        let overrides = overrides(&verb.options().settings)?;
        let change = match verb {
            IdentityVerb::Show { .. } => None,
            IdentityVerb::Replace { .. } => Some(daemon::IdentityChange::Replace),
            IdentityVerb::Rename { name, .. } => Some(daemon::IdentityChange::Rename(machine_name(name)?)),
        };
        with_environment(|environment| {
            let identity = daemon::identity_offline(&overrides, environment, change)?;
            Ok(MachineIdentity {
                name: identity.name.to_string(),
                host_id: identity.host_id.to_string(),
                pinned_at: identity.pinned_at.to_string(),
                conflict: None,
            })
        })
    }

    fn recording(&self) -> Result<Recording, CliError> {
        with_environment(|environment| {
            config::recording(environment)
                .map_err(|error| CliError::new(ErrorCode::Configuration, error.to_string(), "fix the file"))
        })
    }

    fn install(&self, args: &InstallArgs) -> Result<Vec<String>, CliError> {
        ensure_no_password_argument(args.central_url.as_deref())?;
        let from_environment = || std::env::var("SESSIOND_CENTRAL_URL").ok().filter(|url| !url.is_empty());
        let url = args.central_url.clone().or_else(from_environment);
        if let Some(name) = &args.machine {
            machine_name(name)?;
        }
        let setup = Setup::new(args.machine.clone(), url.as_deref())?;
        Ok(service::install(&install_target(args.scope), &setup, args.dry_run)?)
    }

    fn uninstall(&self, args: &UninstallArgs) -> Result<Vec<String>, CliError> {
        Ok(service::uninstall(&install_target(args.scope), args.dry_run)?)
    }

    fn doctor(&self, settings: &cli::DaemonOptions, client: &Client) -> Result<Vec<Finding>, CliError> {
        let overrides = overrides(settings)?;
        Ok(with_environment(|environment| doctor::examine(&overrides, environment, client)))
    }

    fn bugreport(&self, settings: &cli::DaemonOptions, client: &Client) -> Result<String, CliError> {
        let overrides = overrides(settings)?;
        Ok(with_environment(|environment| doctor::report(&overrides, environment, client)))
    }
}

fn install_target(scope: ScopeArgs) -> InstallTarget {
    let uid = rustix::process::geteuid();
    let system = scope.system || (uid.is_root() && !scope.user);
    let scope = if system { Scope::System } else { Scope::User };
    InstallTarget::detect(scope, uid.as_raw(), &|name| std::env::var_os(name))
}

fn machine_name(name: &str) -> Result<MachineName, CliError> {
    MachineName::parse(name).map_err(|error| CliError::new(ErrorCode::Usage, error.rule, "give another name"))
}

fn with_environment<T>(work: impl FnOnce(&Environment<'_>) -> T) -> T {
    work(&Environment {
        os: Os::here(),
        is_root: rustix::process::geteuid().is_root(),
        variable: &|name| std::env::var_os(name),
    })
}

fn overrides(flags: &cli::DaemonOptions) -> Result<Overrides, CliError> {
    ensure_no_password_argument(flags.central_url.as_deref())?;
    Ok(Overrides {
        config: flags.config.clone(),
        state_dir: flags.state_dir.clone(),
        socket: flags.socket.clone(),
        machine: flags.machine.clone(),
        central_url: flags.central_url.clone().map(Secret::new),
        log_level: flags.log_level.as_deref().and_then(|level| level.parse().ok()),
        log_file: None,
    })
}

fn ensure_no_password_argument(url: Option<&str>) -> Result<(), CliError> {
    match url.filter(|url| config::has_password(url)) {
        Some(url) => Err(exec_without_password(url)),
        None => Ok(()),
    }
}

/// Executes the program again with the URL in the environment instead of the arguments, which all users can read.
/// Returns only if that fails.
fn exec_without_password(url: &str) -> CliError {
    let failed = match std::env::current_exe() {
        Ok(program) => Command::new(program)
            .arg0(std::env::args_os().next().unwrap_or_default())
            .args(arguments_without_flag("--central-url", std::env::args_os().skip(1)))
            .env("SESSIOND_CENTRAL_URL", url)
            .exec(),
        Err(error) => error,
    };
    CliError::new(
        ErrorCode::Usage,
        format!("ps would show the password in --central-url, and executing again without it failed: {failed}"),
        "put the URL into SESSIOND_CENTRAL_URL, or the password into central.password_file",
    )
}

fn arguments_without_flag(flag: &str, arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut value_follows = false;
    for argument in arguments {
        if value_follows {
            value_follows = false;
        } else if argument == flag {
            value_follows = true;
        } else if !argument.to_string_lossy().starts_with(&format!("{flag}=")) {
            kept.push(argument);
        }
    }
    kept
}
