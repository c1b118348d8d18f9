//! The daemon: puts the parts together, runs them, and takes them apart in order.

mod discovery;
mod failure;
mod housekeeping;
mod identity;
mod in_force;
mod intake;
mod liveness;
mod log_file;
mod log_text;
mod logging;
mod migrate;
mod reload;
mod signals;
mod socket;
mod spool_scan;
mod systemd;

use std::os::unix::net::UnixListener;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use uuid::Uuid;

pub use identity::{Change, offline as identity_offline};
pub use in_force::postgres as central_of;
pub use migrate::migrate;

use crate::api::{self, AccessPolicy, Api, ApiError, DaemonInfo, Metrics, Peer, RequestHandler};
use crate::clock::{self, Clock};
use crate::config::{self, Environment, Loaded, Overrides, Settings, SocketSettings};
use crate::domain::{LinkState, LinkStatus};
use crate::platform;
use crate::platform::default_paths::DefaultPaths;
use crate::shutdown::{self, Stop};
use crate::spool::{Spool, SpoolMonitor};
use crate::store::{FolderLock, IdentityFile, Options, PinnedIdentity, Store, UserLimits};
use crate::sync::postgres::{Postgres, PostgresOptions};
use crate::sync::supervise::supervise;
use crate::sync::watchdog::Watchdog;
use crate::sync::worker::Worker;
use crate::wire::{ErrorCode, ErrorDetail};
use discovery::Discovery;
use in_force::InForce;
use intake::{Importer, Intake};
use liveness::Liveness;
use signals::Signal;
use socket::{Inherited, SocketFile, SocketKeeper};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// Whatever keeps it from starting, in one line, with the exit code that belongs to it.
pub fn run(overrides: &Overrides, environment: &Environment<'_>) -> Result<(), ErrorDetail> {
    platform::limits::limit_malloc_arenas();
    // Whoever starts it: what is made from here on is for its user alone, and what is for others says so.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let loaded = config::load(overrides, environment).map_err(|error| failure::of_config(&error))?;
    let settings = &loaded.settings;
    let log = logging::start(&settings.log).map_err(|error| failure::of_io("the log file cannot be opened", &error))?;
    if let Err(error) = platform::limits::raise_open_files() {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    if let Some(why) = config::unused_database_url(environment) {
        tracing::warn!("{why}; central.url or SESSIOND_CENTRAL_URL names central");
    }
    let clock = clock::system();
    // Signals from here on stop it in order, however early they come.
    let (signals, _listening) = signals::listen().map_err(|e| failure::of_io("signals cannot be handled", &e))?;

    let postgres = in_force::postgres(settings)?;
    let _lock = FolderLock::take(&settings.state_dir).map_err(failure::of_store)?;
    let identity = Arc::new(pin(settings, &clock)?);
    let options = Options { durability: settings.durability, max_size: settings.max_size };
    let (store, writer) = Store::open(&settings.state_dir, options, clock.clone()).map_err(failure::of_store)?;
    let own_uid = rustix::process::geteuid().as_raw();
    let store = store.limiting_users(UserLimits::of_store(settings.max_size, own_uid));
    let (listener, socket_file, door) = open_the_door(settings)?;

    let in_force = InForce::new(&loaded, postgres, log);
    let daemon = Daemon { store, identity, clock, in_force, started: loaded };
    let runtime = runtime()?;
    let ended = runtime.block_on(daemon.serve(listener, socket_file, door, signals, overrides, environment));
    drop(runtime);
    writer.join();
    tracing::info!("stopped");
    ended
}

/// One thread for the socket; what blocks (reads of SQLite) has a few of its own.
fn runtime() -> Result<tokio::runtime::Runtime, ErrorDetail> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .map_err(|e| failure::of_io("the runtime cannot start", &e))
}

/// A uniformly random number.
fn random() -> u64 {
    Uuid::new_v4().as_u64_pair().0 ^ Uuid::new_v4().as_u64_pair().1
}

fn pin(settings: &Settings, clock: &Clock) -> Result<PinnedIdentity, ErrorDetail> {
    let file = IdentityFile::in_folder(&settings.state_dir);
    let explicit = settings.machine.name.as_ref();
    let identity = identity::pin(&file, explicit, Uuid::new_v4(), clock())?;
    file.save(&identity).map_err(failure::of_store)?;
    Ok(PinnedIdentity::new(file, identity))
}

/// The socket that systemd hands over, or one of our own.
fn open_the_door(settings: &Settings) -> Result<(UnixListener, Option<SocketFile>, Door), ErrorDetail> {
    if let Some(Inherited { listener, group }) = socket::inherited().map_err(failure::of_socket)? {
        // Who made the socket for a group has said who may come in.
        let group = settings.socket.group.clone().or_else(|| group.map(|gid| gid.to_string()));
        return Ok((listener, None, Door::new(group.as_deref())?));
    }
    let door = Door::new(settings.socket.group.as_deref())?;
    let SocketSettings { path, mode, .. } = &settings.socket;
    let (listener, file) = socket::bind(path, *mode, door.group_id()).map_err(failure::of_socket)?;
    Ok((listener, Some(file), door))
}

/// Who may come in.
struct Door {
    owner: u32,
    group: Option<platform::peer::Group>,
}

impl Door {
    fn new(group: Option<&str>) -> Result<Self, ErrorDetail> {
        let group = group.map(platform::peer::Group::resolve).transpose();
        let group = group.map_err(|error| ErrorDetail {
            code: ErrorCode::Configuration,
            message: format!("socket.group: {error}"),
            hint: "make the group, or name another".into(),
        })?;
        Ok(Self { owner: rustix::process::geteuid().as_raw(), group })
    }

    fn group_id(&self) -> Option<u32> {
        self.group.as_ref().map(|group| group.gid)
    }

    /// Whether a user may use this daemon who is not there to show a group.
    fn guest_list(&self) -> Arc<dyn Fn(u32) -> bool + Send + Sync> {
        let (owner, group) = (self.owner, self.group.clone());
        Arc::new(move |uid| {
            let peer = platform::peer::PeerCredentials {
                uid,
                gid: platform::peer::main_group(uid).unwrap_or(u32::MAX),
                pid: None,
            };
            platform::peer::is_allowed(&peer, owner, group.as_ref())
        })
    }

    fn access_policy(self) -> AccessPolicy {
        Arc::new(move |stream| {
            let peer = platform::peer::PeerCredentials::of(stream).map_err(|error| {
                ApiError::new(ErrorCode::Forbidden, format!("the peer cannot be identified: {error}"), "connect again")
            })?;
            let beside = || self.group_id().is_some_and(|gid| platform::peer::has_group(stream, gid));
            if platform::peer::is_allowed(&peer, self.owner, self.group.as_ref()) || beside() {
                return Peer::new(peer).ok_or_else(|| {
                    let message = "the calling process has ended, so its rights cannot be known";
                    ApiError::new(ErrorCode::Forbidden, message, "keep the process that connects until it is answered")
                });
            }
            Err(ApiError::new(
                ErrorCode::Forbidden,
                format!("user {} may not use this daemon", peer.uid),
                "ask its owner to put you into the group that socket.group names",
            ))
        })
    }
}

struct Daemon {
    store: Store,
    identity: Arc<PinnedIdentity>,
    clock: Clock,
    in_force: InForce,
    started: Loaded,
}

impl Daemon {
    /// Starts the parts, minds signals and changes of the configuration, and stops the parts in order:
    /// first nobody comes in any more, then what there is goes to central, then the store is closed.
    async fn serve(
        self,
        listener: UnixListener,
        socket_file: Option<SocketFile>,
        door: Door,
        mut signals: tokio::sync::mpsc::UnboundedReceiver<Signal>,
        overrides: &Overrides,
        environment: &Environment<'_>,
    ) -> Result<(), ErrorDetail> {
        let Self { store, identity, clock, in_force, started } = self;
        let name = identity.current().name;
        store.file_under(name.clone(), clock()).await.map_err(|error| failure::of_store(error.into()))?;
        // A start that ends before it serves leaves no claim: central never learns of it.
        identity.claim(Uuid::new_v4()).map_err(failure::of_store)?;

        let nudge = Arc::new(Notify::new());
        let (link, link_status) = watch::channel(LinkStatus::new(LinkState::Connecting, clock()));
        let sync_watchdog = Watchdog::default();
        let (stop_serving, serving) = shutdown::channel();
        let (stop_sync, syncing) = shutdown::channel();

        let sync = start_sync(Worker {
            store: store.clone(),
            identity: identity.clone(),
            settings: in_force.sync(),
            make_central: |options: &PostgresOptions| Postgres::new(options.clone()),
            link,
            watchdog: sync_watchdog.clone(),
            nudge: nudge.clone(),
            clock: clock.clone(),
            random,
            shutdown: syncing,
            version: VERSION,
            is_restarted: false,
        })?;
        let liveness = Liveness::new(store.clone(), clock.clone(), in_force.liveness(), nudge.clone());
        let lookout = liveness.lookout();
        let monitor = SpoolMonitor::with_quarantine(&started.settings.state_dir)
            .map_err(|error| failure::of_io("the quarantine in the state folder cannot be used", &error))?;
        let intake = Intake {
            spool: Spool::in_folder(&started.settings.state_dir),
            store: store.clone(),
            identity: identity.clone(),
            settings: in_force.api(),
            clock: clock.clone(),
            random,
            socket: std::path::absolute(&started.settings.socket.path)
                .unwrap_or_else(|_| started.settings.socket.path.clone()),
            allowed: door.guest_list(),
            group: door.group_id(),
            monitor: monitor.clone(),
        };
        let mut importers: Vec<_> = spools(&started.settings, environment, door.group_id())
            .map(|spool| Importer::new(Intake { spool, ..intake.clone() }))
            .collect();
        // The few requests that usually wait are imported before the daemon serves, many beside that.
        for importer in &mut importers {
            importer.import_few().await;
        }
        let (imported, importing) = watch::channel(false);
        let discovery = Discovery {
            store: store.clone(),
            identity: identity.clone(),
            settings: in_force.api(),
            claude: in_force.claude(),
            clock: clock.clone(),
            random,
        };
        let mut tasks = vec![tokio::spawn(intake::run_all(importers, imported, serving.clone()))];
        let mut liveness = tokio::spawn(liveness.run(serving.clone()));

        tasks.push(tokio::spawn(discovery.run(serving.clone())));
        tasks.push(tokio::spawn(housekeeping::run(store.clone(), clock.clone(), in_force.liveness(), serving.clone())));

        let SocketSettings { path, mode, .. } = &started.settings.socket;
        let keeper = SocketKeeper::new(path, *mode, door.group_id(), socket_file);
        let api = Arc::new(Api {
            store: store.clone(),
            identity,
            settings: in_force.api(),
            link: link_status.clone(),
            push_now: nudge,
            clock: clock.clone(),
            random,
            resolve_pid: platform::caller::resolve_pid,
            is_running: platform::process::is_running,
            metrics: Metrics::new(VERSION),
            response_budget: api::ResponseBudget::new(platform::memory::trim),
            spool: monitor,
            imported: importing,
            socket: keeper.state(),
            shutdown: serving.clone(),
            daemon: about(&started.settings, &clock),
        });
        let handler = RequestHandler::new(api);
        let answer = move |request| {
            let (handler, lookout) = (handler.clone(), lookout.clone());
            async move {
                lookout.look_if_overdue().await;
                handler.handle(request).await
            }
        };
        let listener = tokio::net::UnixListener::from_std(listener)
            .map_err(|e| failure::of_io("the socket cannot be served", &e))?;
        let (bound, listeners) = tokio::sync::mpsc::channel(1);
        let mut server = tokio::spawn(api::serve(listener, listeners, answer, door.access_policy(), serving));
        let socket_file = keeper.file();
        let keeping = tokio::spawn(keeper.run(bound));

        tracing::info!(version = VERSION, machine = %name, socket = %started.settings.socket.path.display(),
            state = %started.settings.state_dir.display(), "ready");
        systemd::ready();
        let watchdog = tokio::spawn(tell_systemd(store.clone(), link_status.clone(), sync_watchdog));
        let mut reloads = reload::Reloads::new(started, overrides, environment);
        // A part that ends by itself takes the daemon with it, for the service manager to start it anew:
        // better than one that looks alive and does half of its work.
        let ended = loop {
            tokio::select! {
                signal = signals.recv() => match signal {
                    Some(Signal::Reload) => reloads.reload(&in_force),
                    Some(Signal::Stop) | None => break Ok(()),
                },
                () = reloads.changed() => reloads.reload(&in_force),
                () = store.stopped() => break Err("the store's writer"),
                () = gone(link_status.clone()) => break Err("sync"),
                _ = &mut server => break Err("the socket's server"),
                _ = &mut liveness => break Err("the watch over processes"),
            }
        };
        drop(store);
        tracing::info!("stopping");
        systemd::stopping();
        watchdog.abort();
        keeping.abort();
        // No check that is under way binds it anew: it finds nothing to keep.
        drop(socket_file.lock().unwrap_or_else(PoisonError::into_inner).take());
        stop_serving.stop();
        tasks.extend([server, liveness]);
        for task in tasks {
            if !task.is_finished() {
                let _ = task.await;
            }
        }
        finish_sync(stop_sync, sync).await;
        ended.map_err(failure::of_part)
    }
}

/// Where clients may have left requests for this daemon: in its state folder; in the one that clients assume where it
/// was moved; in the system service's shared spool.
fn spools(settings: &Settings, environment: &Environment<'_>, group: Option<u32>) -> impl Iterator<Item = Spool> {
    let usual = DefaultPaths::of(environment.os, environment.is_root, environment.variable).state_dir;
    let is_system = environment.is_root && usual.as_ref() == Some(&settings.state_dir);
    let shared = is_system.then(|| {
        // Without a group nobody else may use this daemon. The package makes the folder for the service's own user.
        if let Some(group) = group.filter(|_| rustix::process::geteuid().is_root())
            && let Err(error) = Spool::make_shared(group)
        {
            tracing::warn!(%error, "the shared spool cannot be made; users cannot leave requests while no daemon runs");
        }
        Spool::shared()
    });
    let moved = usual.filter(|usual| *usual != settings.state_dir).map(|dir| Spool::in_folder(&dir));
    let own = Spool::in_folder(&settings.state_dir);
    // While there is none, it is the folder above that is watched, in which the store writes at every commit.
    if let Err(error) = own.make() {
        tracing::warn!(%error, "the spool in the state folder cannot be made");
    }
    [Some(own), moved, shared].into_iter().flatten()
}

fn about(settings: &Settings, clock: &Clock) -> DaemonInfo {
    DaemonInfo {
        version: VERSION,
        pid: std::process::id(),
        uid: rustix::process::geteuid().as_raw(),
        started_at: clock(),
        store_path: settings.state_dir.display().to_string(),
        durability: settings.durability.as_str(),
    }
}

type SyncWorker<F> = Worker<PostgresOptions, F>;

/// Sync has a thread and a runtime of its own: however busy it is, the socket does not feel it.
fn start_sync<F>(worker: SyncWorker<F>) -> Result<JoinHandle<()>, ErrorDetail>
where
    F: Fn(&PostgresOptions) -> Postgres + Clone + Send + Sync + 'static,
{
    let runtime = runtime()?;
    std::thread::Builder::new()
        .name("sync".into())
        .spawn(move || runtime.block_on(supervise(worker)))
        .map_err(|e| failure::of_io("the sync thread cannot start", &e))
}

/// Returns when nobody is left who could tell how the link to central is.
async fn gone(mut link: watch::Receiver<LinkStatus>) {
    while link.changed().await.is_ok() {}
}

async fn finish_sync(stop: Stop, sync: JoinHandle<()>) {
    stop.stop();
    let joined = tokio::task::spawn_blocking(move || sync.join()).await;
    if !matches!(joined, Ok(Ok(()))) {
        tracing::error!("sync ended by a panic; what central lacks is kept for the next start");
    }
}

/// Feeds the watchdog while the writer gets work done and sync moves on, and says in a line how the daemon is.
async fn tell_systemd(store: Store, mut link: watch::Receiver<LinkStatus>, sync: Watchdog) {
    const UNHURRIED: Duration = Duration::from_secs(3600);
    let interval = systemd::watchdog_interval();
    loop {
        let status = link.borrow_and_update().clone();
        systemd::status(&format!("central: {}", status.state.as_str()));
        if interval.is_some() {
            if sync.is_missed() {
                tracing::error!("sync stands still; the watchdog is not fed");
            } else if store.ping().await.is_ok() {
                systemd::feed_watchdog();
            }
        }
        let _ = tokio::time::timeout(interval.unwrap_or(UNHURRIED), link.changed()).await;
    }
}
