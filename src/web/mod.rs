//! The live page in a browser: `sessiond web`.
//!
//! A process of the user's own, which talks to the daemon's socket like any verb; the daemon itself never listens on TCP.
//!
//! - `access` decides who may ask for anything: pure rules on tokens, cookies, `Host` and `Origin`.
//! - `follower` keeps a `fleet::Fleet` current from one list and one watch of the daemon, for any number of browsers.
//! - `server` accepts connections within limits; `routes` answers; the page is embedded in the program.
//!
//! A browser gets an event for each change and then asks for the part that it shows, so that neither it nor this
//! process holds more than a window per browser. If the daemon is away, the last known state is served with its age.

mod access;
mod events;
mod fleet;
mod follower;
mod listen;
mod routes;
mod server;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::access::Access;
use self::follower::Follower;
use crate::client::Client;
use crate::clock::Clock;
use crate::shutdown;
use crate::wire::{ErrorCode, ErrorDetail};

/// How the page is served.
#[derive(Clone, Debug)]
pub struct WebOptions {
    /// The address and port; port 0 is any free one.
    pub listen: SocketAddr,
    /// Open the page in the user's browser.
    pub open: bool,
    /// Let the page close sessions.
    pub allow_actions: bool,
    /// The file with a token that may be used again.
    pub token_file: Option<PathBuf>,
}

/// What the verb prints once it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebAddress {
    /// With a token that is accepted once.
    pub url: String,
    /// What an address that other machines reach means.
    pub warning: Option<String>,
}

/// Serves the page until a signal ends it. `announce` is called once the address is bound.
///
/// # Errors
/// The options contradict each other, the token's file is not private, or the address cannot be bound.
pub fn serve(
    client: Client,
    options: &WebOptions,
    clock: Clock,
    announce: &mut dyn FnMut(&WebAddress) -> Result<(), ErrorDetail>,
) -> Result<(), ErrorDetail> {
    let reusable = listen::reusable_token(options)?;
    let (listener, address) = bind(options.listen)?;
    let access = Arc::new(Access::new(address, reusable));
    let signals =
        Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(|error| failed("no signal can be awaited", &error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .build()
        .map_err(|error| failed("no runtime can be started", &error))?;
    let url = format!("http://{}/?token={}", access.local_address(), access.one_time_token());
    announce(&WebAddress { warning: listen::warning(address), url: url.clone() })?;
    // Removed when this function ends.
    let _link = if options.open { Some(listen::open_in_browser(&url)?) } else { None };
    let (stop, stopped) = shutdown::channel();
    end_with(signals, stop);
    let follower = Follower::start(client.clone(), clock.clone());
    let site = routes::Site::new(access, client, follower.fleet(), options.allow_actions, clock);
    let served = runtime.block_on(server::serve(listener, Arc::new(site), stopped));
    // Does not wait for requests to a daemon that hangs.
    runtime.shutdown_background();
    served.map_err(|error| failed("the page cannot be served", &error))
}

fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ErrorDetail> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    bound.map_err(|error| ErrorDetail {
        code: ErrorCode::Unavailable,
        message: format!("{address} cannot be listened on: {error}"),
        hint: "give another address or port to --listen; port 0 is any free one".to_owned(),
    })
}

/// Ends the server at the first of these signals.
fn end_with(mut signals: Signals, stop: shutdown::Stop) {
    std::thread::spawn(move || {
        signals.forever().next();
        stop.stop();
    });
}

fn failed(what: &str, error: &io::Error) -> ErrorDetail {
    ErrorDetail { code: ErrorCode::Internal, message: format!("{what}: {error}"), hint: "try again".to_owned() }
}
