//! identity: this machine's name and host id.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use crate::cli::LocalOperations;
use crate::cli::command_line::DaemonOptions;
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::style::Tone;
use crate::cli::table::{Cell, FieldList};
use crate::cli::text::time_with_age;
use crate::client::Client;
use crate::wire::{ErrorCode, MachineIdentity};

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum IdentityVerb {
    /// Show this machine's name and host id
    #[command(after_help = "Example: sessiond identity show")]
    Show(IdentityOptions),
    /// Rename this machine
    #[command(after_help = "Example: sessiond identity rename laptop")]
    Rename {
        /// The new name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        #[command(flatten)]
        options: IdentityOptions,
    },
    /// Take over this machine's name from the host that holds it in central
    #[command(after_help = "Example: sessiond identity replace")]
    Replace(IdentityOptions),
}

#[derive(Clone, Debug, Default, Args)]
pub struct IdentityOptions {
    /// Print the identity as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub settings: DaemonOptions,
}

impl IdentityVerb {
    pub const fn options(&self) -> &IdentityOptions {
        match self {
            Self::Show(options) | Self::Rename { options, .. } | Self::Replace(options) => options,
        }
    }

    pub(in crate::cli) const fn options_mut(&mut self) -> &mut IdentityOptions {
        match self {
            Self::Show(options) | Self::Rename { options, .. } | Self::Replace(options) => options,
        }
    }
}

/// Asks the daemon; if none listens, reads or changes the state folder directly.
pub(crate) fn identity(
    client: &Client,
    named: bool,
    local: &dyn LocalOperations,
    verb: &IdentityVerb,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let options = verb.options();
    let identity = if named || !names_files(&options.settings) {
        match ask(client, verb) {
            Err(error) if error.code == ErrorCode::Unreachable => local.identity(verb),
            answer => answer,
        }
    } else {
        local.identity(verb)
    }?;
    if options.json { out.print_json(&identity) } else { out.print_rendered(&text(verb, &identity, out)) }
}

/// Whether the options name files. They may be those of another daemon than the one on the default socket, which must not
/// be renamed in its place.
const fn names_files(settings: &DaemonOptions) -> bool {
    settings.state_dir.is_some() || settings.config.is_some()
}

fn ask(client: &Client, verb: &IdentityVerb) -> Result<MachineIdentity, CliError> {
    let answer = match verb {
        IdentityVerb::Show(_) => client.identity(),
        IdentityVerb::Rename { name, .. } => client.identity_rename(name),
        IdentityVerb::Replace(_) => client.identity_replace(),
    };
    Ok(answer?)
}

fn text(verb: &IdentityVerb, identity: &MachineIdentity, out: &Output<'_>) -> String {
    let mut sheet = FieldList::default();
    sheet.row(if matches!(verb, IdentityVerb::Show(_)) { "machine" } else { "machine now" }, &identity.name);
    sheet.row("host id", &identity.host_id);
    sheet.row("pinned", time_with_age(&identity.pinned_at, out.style.now));
    if let Some(conflict) = &identity.conflict {
        sheet.row("conflict", Cell::new(&conflict.message).tone(Tone::Bad));
    }
    sheet.render(&out.style)
}
