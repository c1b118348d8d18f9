//! doctor and bugreport.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::cli::LocalOperations;
use crate::cli::command_line::DaemonOptions;
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::style::Tone;
use crate::cli::table::{Cell, FieldList};
use crate::cli::text::count_with_verb;
use crate::client::Client;
use crate::domain::{Finding, Verdict};
use crate::wire::{DoctorBody, ErrorCode};

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond doctor --json")]
pub(crate) struct DoctorArgs {
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub settings: DaemonOptions,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond bugreport report.txt")]
pub(crate) struct BugreportArgs {
    /// The file to write; it must not exist
    #[arg(value_name = "FILE", default_value = "sessiond-bugreport.txt", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    #[command(flatten)]
    pub settings: DaemonOptions,
}

pub(crate) fn doctor(
    client: &Client,
    local: &dyn LocalOperations,
    args: &DoctorArgs,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let findings = local.doctor(&args.settings, client)?;
    if args.json {
        out.print_json(&DoctorBody::from(findings.as_slice()))?;
    } else {
        out.print_rendered(&sheet(&findings).render(&out.style))?;
    }
    let wrong = findings.iter().filter(|finding| finding.verdict == Verdict::Wrong).count() as u64;
    if wrong == 0 {
        return Ok(());
    }
    let message = count_with_verb(wrong, "check", "failed", "failed");
    Err(CliError { is_reported: true, ..CliError::new(ErrorCode::Conflict, message, "see the advice beside each") })
}

fn sheet(findings: &[Finding]) -> FieldList {
    let mut sheet = FieldList::default();
    for finding in findings {
        let tone = match finding.verdict {
            Verdict::Good => Tone::Good,
            Verdict::Odd => Tone::Warn,
            Verdict::Wrong => Tone::Bad,
        };
        let verdict = Cell::new(finding.verdict.as_str()).tone(tone);
        sheet.parts(finding.check, [verdict, Cell::new(format!(": {}", finding.found))]);
        if !finding.advice.is_empty() {
            sheet.row("", format!("-> {}", finding.advice));
        }
    }
    sheet
}

pub(crate) fn bugreport(
    client: &Client,
    local: &dyn LocalOperations,
    args: &BugreportArgs,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let report = local.bugreport(&args.settings, client)?;
    let shown = args.file.display();
    write(args, &report).map_err(|error| {
        let code =
            if error.kind() == io::ErrorKind::PermissionDenied { ErrorCode::Forbidden } else { ErrorCode::Conflict };
        CliError::new(code, format!("{shown} cannot be written: {error}"), "name another file")
    })?;
    out.print_line(&format!("wrote {shown}; read it before you share it"))
}

/// Never overwrites a file.
fn write(args: &BugreportArgs, report: &str) -> io::Result<()> {
    File::options().write(true).create_new(true).mode(0o600).open(&args.file)?.write_all(report.as_bytes())
}
