//! web: the live page in a browser.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::client::Client;
use crate::clock;
use crate::web::{self, WebOptions};
use crate::wire::{ErrorCode, ErrorDetail};

#[derive(Clone, Debug, Args)]
#[command(after_help = "Example: sessiond web --open")]
pub(crate) struct WebArgs {
    /// Listen on this address; port 0 is any free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Open the page in the browser
    #[arg(long)]
    pub open: bool,
    /// Let the page close sessions
    #[arg(long)]
    pub allow_actions: bool,
    /// Accept the token in this file too, any number of times; required for an address that other machines reach
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub token_file: Option<PathBuf>,
}

pub(crate) fn web(client: &Client, args: WebArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let WebArgs { listen, open, allow_actions, token_file } = args;
    let options = WebOptions { listen, open, allow_actions, token_file };
    let served = web::serve(client.clone(), &options, clock::system(), &mut |address| {
        if let Some(warning) = &address.warning {
            out.print_note(warning);
        }
        out.print_line(&format!("the page is at {} until this ends", address.url)).map_err(|error| ErrorDetail {
            code: ErrorCode::Internal,
            message: error.message,
            hint: error.hint,
        })
    });
    served.map_err(CliError::from)
}
