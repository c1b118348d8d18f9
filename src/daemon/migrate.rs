//! `sessiond migrate`: applies the pending migrations to central's schema, or prints them.

use crate::config::{self, Environment, Overrides};
use crate::sync::central::CentralError;
use crate::sync::postgres::{MigrateError, MigrateRequest, MigrationReport, migrate_with as apply};
use crate::wire::{ErrorCode, ErrorDetail};

use super::{failure, live_settings};

/// Applies the pending migrations, or with `dry_run` returns them as SQL. Returns the output; `say` receives each line of
/// progress.
///
/// # Errors
/// No central is configured, it cannot be reached, or a migration cannot be applied.
pub fn migrate(
    overrides: &Overrides,
    environment: &Environment<'_>,
    request: &MigrateRequest,
    say: &mut (dyn FnMut(&str) + Send),
) -> Result<String, ErrorDetail> {
    let loaded = config::load(overrides, environment).map_err(|error| failure::of_config(&error))?;
    let options = live_settings::postgres(&loaded.settings)?.ok_or_else(|| ErrorDetail {
        code: ErrorCode::Configuration,
        message: "no central is configured".into(),
        hint: "give --central-url postgres://USER@HOST/DATABASE, or set central.url".into(),
    })?;
    let runtime = super::runtime()?;
    let report = runtime.block_on(apply(&options, request, say)).map_err(refusal)?;
    Ok(if request.dry_run { as_sql(&report) } else { as_text(&report, options.display()) })
}

fn refusal(error: MigrateError) -> ErrorDetail {
    let (code, hint) = match &error {
        MigrateError::Central(CentralError::Retry(_) | CentralError::Locked(_)) => {
            (ErrorCode::Unavailable, "try again when central can be reached")
        }
        MigrateError::Central(CentralError::Refused(_)) => {
            (ErrorCode::Forbidden, "log in as the owner of central's tables")
        }
        MigrateError::Central(_) => {
            (ErrorCode::Conflict, "nothing was changed; correct that in central and run it again")
        }
        MigrateError::Locked { .. } => (ErrorCode::Unavailable, "end that process or wait for it, and run it again"),
        MigrateError::Obstacles(_) | MigrateError::NeedsOffline(_) | MigrateError::OtherSchema { .. } => {
            (ErrorCode::Conflict, "nothing was changed")
        }
        MigrateError::ZoneUnknown
        | MigrateError::ZonesDiffer(_)
        | MigrateError::DefaultZone { .. }
        | MigrateError::NoSuchColumn(..)
        | MigrateError::NoSuchZone(_) => (ErrorCode::Usage, "nothing was changed"),
        MigrateError::Unsupported(_) | MigrateError::Newer | MigrateError::Changed(_) => {
            (ErrorCode::Configuration, "nothing was changed")
        }
    };
    ErrorDetail { code, message: error.to_string(), hint: hint.into() }
}

fn as_sql(report: &MigrationReport) -> String {
    let notes = report.notes.iter().map(|note| format!("-- {note}\n"));
    // Zones that differ between columns cannot be set for a session.
    let zone = report.time_zone.as_ref().map(|zone| match zone.contains('=') {
        false => format!("SET TIME ZONE '{}';\n\n", zone.replace('\'', "''")),
        true => format!("-- run `sessiond migrate` for this: the times are in different zones, {zone}\n\n"),
    });
    let steps = report.steps.iter().map(|step| format!("-- {}\n\n{}\n", step.name, step.sql));
    notes.chain(zone).chain(steps).collect()
}

fn as_text(report: &MigrationReport, central: &str) -> String {
    if report.steps.is_empty() {
        return format!("{central} is up to date\n");
    }
    let zone =
        report.time_zone.as_ref().map(|zone| format!("timestamps without a time zone were converted from {zone}\n"));
    let steps = report.steps.iter().map(|step| format!("applied {}\n", step.name));
    steps.chain(zone).chain([format!("{central} is up to date\n")]).collect()
}
