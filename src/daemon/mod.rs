//! The daemon: opens the store and the socket, starts the parts, supervises them, and shuts them down in order.
//!
//! `start` describes the order of a start, `supervise` what ends a daemon and how it shuts down. The socket is
//! served on the main thread; the store's writer and sync have a thread each.

mod access;
mod discovery;
mod failure;
mod housekeeping;
mod identity;
mod live_settings;
mod liveness;
mod log_file;
mod log_text;
mod logging;
mod migrate;
mod reload;
mod signals;
mod socket;
mod socket_keeper;
mod spool_import;
mod spool_scan;
mod start;
mod supervise;
mod sync_thread;
mod systemd;

use std::sync::Arc;

use uuid::Uuid;

pub use identity::{IdentityChange, offline as identity_offline};
pub use live_settings::postgres as central_options;
pub use migrate::migrate;

use crate::clock::{self, Clock};
use crate::config::{self, Environment, Overrides, Settings};
use crate::platform;
use crate::store::{FolderLock, IdentityFile, Options, PinnedIdentity, Store, UserLimits};
use crate::wire::ErrorDetail;
use live_settings::LiveSettings;
use start::DaemonContext;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs the daemon until a signal stops it.
///
/// # Errors
/// Why it cannot start, or which part ended by itself; one line, with the code that determines the exit code.
pub fn run(overrides: &Overrides, environment: &Environment<'_>) -> Result<(), ErrorDetail> {
    platform::limits::limit_malloc_arenas();
    // Files are private unless their mode is set explicitly.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let loaded = config::load(overrides, environment).map_err(|error| failure::of_config(&error))?;
    let log = logging::start(&loaded.settings.log)
        .map_err(|error| failure::of_io("the log file cannot be opened", &error))?;
    if let Err(error) = platform::limits::raise_open_files() {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    if let Some(why) = config::unused_database_url(environment) {
        tracing::warn!("{why}; central.url or SESSIOND_CENTRAL_URL names central");
    }
    let clock = clock::system();
    // Before the store is opened, so that a signal during the start leads to an orderly shutdown.
    let (signals, _listening) =
        signals::listen().map_err(|error| failure::of_io("signals cannot be handled", &error))?;

    let settings = &loaded.settings;
    let postgres = live_settings::postgres(settings)?;
    let _lock = FolderLock::take(&settings.state_dir).map_err(failure::of_store)?;
    let identity = Arc::new(pin_identity(settings, &clock)?);
    let options = Options { durability: settings.durability, max_size: settings.max_size };
    let (store, writer) = Store::open(&settings.state_dir, options, clock.clone()).map_err(failure::of_store)?;
    let own_uid = rustix::process::geteuid().as_raw();
    let store = store.limiting_users(UserLimits::of_store(settings.max_size, own_uid));
    let (socket, access) = socket::open(&settings.socket)?;

    let settings = LiveSettings::new(&loaded, postgres, log);
    let context = DaemonContext { store, identity, clock, settings, loaded, access, push_now: Arc::default() };
    let runtime = runtime()?;
    let ended = runtime
        .block_on(async { context.start(socket, environment).await?.run(signals, overrides, environment).await });
    drop(runtime);
    writer.join();
    tracing::info!("stopped");
    ended
}

/// A runtime of one thread, with up to four more for what blocks (reads of SQLite, files).
fn runtime() -> Result<tokio::runtime::Runtime, ErrorDetail> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .map_err(|error| failure::of_io("the runtime cannot start", &error))
}

fn pin_identity(settings: &Settings, clock: &Clock) -> Result<PinnedIdentity, ErrorDetail> {
    let file = IdentityFile::in_folder(&settings.state_dir);
    let explicit = settings.machine.name.as_ref();
    let identity = identity::pin(&file, explicit, Uuid::new_v4(), clock())?;
    file.save(&identity).map_err(failure::of_store)?;
    Ok(PinnedIdentity::new(file, identity))
}
