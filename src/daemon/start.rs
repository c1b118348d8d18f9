//! Starts the parts of the daemon.
//!
//! Order: the store's sessions are filed under the pinned name and this start's claim is saved; sync starts; each spool
//! folder is imported for at most 200 ms; the background tasks and the server start; systemd is notified. A start that
//! fails before the claim is saved is invisible to central.

use std::sync::Arc;

use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::access::SocketAccess;
use super::discovery::AgentRecorder;
use super::live_settings::LiveSettings;
use super::liveness::{CheckTrigger, Liveness};
use super::socket::BoundSocket;
use super::socket_keeper::SocketKeeper;
use super::spool_import::{ImportContext, SpoolImporter};
use super::supervise::RunningDaemon;
use super::sync_thread::SyncThread;
use super::{VERSION, failure, housekeeping, spool_import, systemd};
use crate::api::{self, AccessPolicy, Api, DaemonInfo, Metrics, NotificationPort, RequestHandler, SocketState};
use crate::clock::Clock;
use crate::config::{Environment, Loaded, Settings};
use crate::domain::{LinkState, LinkStatus};
use crate::notifications::{Notifier, NotifierParts, TestRequest};
use crate::platform;
use crate::platform::default_paths::DefaultPaths;
use crate::platform::random::random;
use crate::shutdown::{self, Shutdown};
use crate::spool::{Spool, SpoolMonitor};
use crate::store::{PinnedIdentity, Store};
use crate::sync::leases::{self, LeaseRequests, Leases};
use crate::sync::on_demand::{self, QuestionQueue, Questions};
use crate::sync::postgres::{Postgres, PostgresOptions};
use crate::sync::watchdog::Watchdog;
use crate::sync::worker::Worker;
use crate::wire::{ErrorDetail, NotificationBody};

/// What the parts of the daemon share.
pub(super) struct DaemonContext {
    pub store: Store,
    pub identity: Arc<PinnedIdentity>,
    pub clock: Clock,
    pub settings: LiveSettings,
    /// The configuration that the daemon was started with.
    pub loaded: Loaded,
    pub access: SocketAccess,
    /// Asks sync to push now.
    pub push_now: Arc<Notify>,
}

impl DaemonContext {
    /// Starts all parts; when this returns the daemon serves.
    ///
    /// # Errors
    /// The store cannot be written, the quarantine cannot be opened, or a thread cannot be started.
    pub(super) async fn start(
        self,
        socket: BoundSocket,
        environment: &Environment<'_>,
    ) -> Result<RunningDaemon, ErrorDetail> {
        let name = self.identity.current().name;
        self.store
            .set_machine_name(name.clone(), (self.clock)())
            .await
            .map_err(|error| failure::of_store(error.into()))?;
        self.identity.claim(Uuid::new_v4()).map_err(failure::of_store)?;

        let (link_sender, link) = watch::channel(LinkStatus::new(LinkState::Connecting, (self.clock)()));
        let sync_watchdog = Watchdog::default();
        let (leases, lease_requests) = leases::channel();
        let (questions, question_queue) = on_demand::channel();
        let sync = self.start_sync(link_sender, lease_requests, question_queue, sync_watchdog.clone())?;
        let (stop_serving, serving) = shutdown::channel();
        let monitor = SpoolMonitor::with_quarantine(&self.loaded.settings.state_dir)
            .map_err(|error| failure::of_io("the quarantine in the state folder cannot be opened", &error))?;
        let (imported_sender, imported) = watch::channel(false);
        let mut importers = self.importers(environment, &monitor);
        // Usually only a few requests are spooled, and those are imported before the daemon serves.
        for importer in &mut importers {
            importer.import_briefly().await;
        }
        let mut tasks = self.start_background_tasks(&serving);
        let (notifications, tests) = NotificationPort::new();
        tasks.push(self.start_notifier(&link, leases, notifications.desktop.clone(), tests, &serving));
        tasks.push(tokio::spawn(spool_import::run_all(importers, imported_sender, serving.clone())));

        let liveness =
            Liveness::new(self.store.clone(), self.clock.clone(), self.settings.liveness(), self.push_now.clone());
        let process_checks = liveness.trigger();
        let liveness = tokio::spawn(liveness.run(serving.clone()));
        let keeper = SocketKeeper::new(&self.loaded.settings.socket, self.access.group_id(), socket.file);
        let api = self.api(ApiInputs {
            link: link.clone(),
            questions,
            monitor,
            imported,
            socket: keeper.state(),
            notifications,
            serving: serving.clone(),
        });
        let (server, listeners) = start_server(socket.listener, api, process_checks, self.access.policy(), serving)?;
        let socket_file = keeper.file();
        let socket_keeper = tokio::spawn(keeper.run(listeners));

        tracing::info!(version = VERSION, machine = %name, socket = %self.loaded.settings.socket.path.display(),
            state = %self.loaded.settings.state_dir.display(), "ready");
        systemd::ready();
        let status_reports = tokio::spawn(systemd::report_status(self.store.clone(), link.clone(), sync_watchdog));
        let Self { store, settings, loaded, .. } = self;
        let helpers = [status_reports, socket_keeper];
        Ok(RunningDaemon {
            store,
            settings,
            loaded,
            link,
            server,
            liveness,
            tasks,
            helpers,
            socket_file,
            stop_serving,
            sync,
        })
    }

    fn start_sync(
        &self,
        link: watch::Sender<LinkStatus>,
        leases: LeaseRequests,
        questions: QuestionQueue,
        watchdog: Watchdog,
    ) -> Result<SyncThread, ErrorDetail> {
        let (stop, shutdown) = shutdown::channel();
        let worker = Worker {
            store: self.store.clone(),
            identity: self.identity.clone(),
            settings: self.settings.sync(),
            make_central: |options: &PostgresOptions| Postgres::new(options.clone()),
            link,
            watchdog,
            leases,
            questions,
            nudge: self.push_now.clone(),
            clock: self.clock.clone(),
            random,
            shutdown,
            version: VERSION,
            is_restarted: false,
        };
        SyncThread::start(worker, stop)
    }

    /// One importer for each spool folder.
    fn importers(&self, environment: &Environment<'_>, monitor: &SpoolMonitor) -> Vec<SpoolImporter> {
        let settings = &self.loaded.settings;
        let context = |spool| ImportContext {
            spool,
            store: self.store.clone(),
            identity: self.identity.clone(),
            settings: self.settings.api(),
            clock: self.clock.clone(),
            random,
            socket: std::path::absolute(&settings.socket.path).unwrap_or_else(|_| settings.socket.path.clone()),
            allowed: self.access.allowed_users(),
            group: self.access.group_id(),
            monitor: monitor.clone(),
        };
        spools(settings, environment, self.access.group_id()).map(|spool| SpoolImporter::new(context(spool))).collect()
    }

    fn start_background_tasks(&self, serving: &Shutdown) -> Vec<JoinHandle<()>> {
        let recorder = AgentRecorder {
            store: self.store.clone(),
            identity: self.identity.clone(),
            settings: self.settings.api(),
            claude: self.settings.claude(),
            clock: self.clock.clone(),
            random,
        };
        let (store, clock) = (self.store.clone(), self.clock.clone());
        vec![
            tokio::spawn(recorder.run(serving.clone())),
            tokio::spawn(housekeeping::run(store, clock, self.settings.liveness(), serving.clone())),
        ]
    }

    fn start_notifier(
        &self,
        link: &watch::Receiver<LinkStatus>,
        leases: Leases,
        desktop: broadcast::Sender<NotificationBody>,
        tests: mpsc::Receiver<TestRequest>,
        serving: &Shutdown,
    ) -> JoinHandle<()> {
        let api_settings = self.settings.api();
        let parts = NotifierParts {
            store: self.store.clone(),
            identity: self.identity.clone(),
            clock: self.clock.clone(),
            settings: self.settings.notify(),
            stale_after: Box::new(move || api_settings.borrow().stale_after),
            link: link.clone(),
            leases,
            desktop,
            tests,
            shutdown: serving.clone(),
        };
        tokio::spawn(Notifier::new(parts).run())
    }

    fn api(&self, inputs: ApiInputs) -> Api {
        Api {
            store: self.store.clone(),
            identity: self.identity.clone(),
            settings: self.settings.api(),
            link: inputs.link,
            questions: inputs.questions,
            push_now: self.push_now.clone(),
            clock: self.clock.clone(),
            random,
            resolve_pid: platform::caller::resolve_pid,
            is_running: platform::process::is_running,
            metrics: Metrics::new(VERSION),
            response_budget: api::ResponseBudget::new(platform::memory::trim),
            spool: inputs.monitor,
            imported: inputs.imported,
            socket: inputs.socket,
            notifications: inputs.notifications,
            shutdown: inputs.serving,
            daemon: daemon_info(&self.loaded.settings, &self.clock),
        }
    }
}

/// What the API reads from the other parts.
struct ApiInputs {
    link: watch::Receiver<LinkStatus>,
    questions: Questions,
    monitor: SpoolMonitor,
    imported: watch::Receiver<bool>,
    socket: watch::Receiver<SocketState>,
    notifications: NotificationPort,
    serving: Shutdown,
}

/// Serves the API on `listener`. The sender takes the listener of each socket that replaces it.
fn start_server(
    listener: std::os::unix::net::UnixListener,
    api: Api,
    process_checks: CheckTrigger,
    policy: AccessPolicy,
    serving: Shutdown,
) -> Result<(JoinHandle<()>, mpsc::Sender<std::os::unix::net::UnixListener>), ErrorDetail> {
    let handler = RequestHandler::new(Arc::new(api));
    let answer = move |request| {
        let (handler, process_checks) = (handler.clone(), process_checks.clone());
        async move {
            process_checks.check_if_overdue().await;
            handler.handle(request).await
        }
    };
    let listener = tokio::net::UnixListener::from_std(listener)
        .map_err(|error| failure::of_io("the socket cannot be served", &error))?;
    let (sender, listeners) = mpsc::channel(1);
    Ok((tokio::spawn(api::serve(listener, listeners, answer, policy, serving)), sender))
}

/// The spool folders that clients may use for this daemon: the one in its state folder; the one in the default state
/// folder, if this daemon uses another; the shared one, if this is the system service.
fn spools(settings: &Settings, environment: &Environment<'_>, group: Option<u32>) -> impl Iterator<Item = Spool> {
    let default = DefaultPaths::of(environment.os, environment.is_root, environment.variable).state_dir;
    let is_system = environment.is_root && default.as_ref() == Some(&settings.state_dir);
    let shared = is_system.then(|| {
        // Without a group no other user may use this daemon. If it does not run as root, the package makes the folder.
        if let Some(group) = group.filter(|_| rustix::process::geteuid().is_root())
            && let Err(error) = Spool::make_shared(group)
        {
            tracing::warn!(%error, "the shared spool cannot be made; users cannot leave requests while no daemon runs");
        }
        Spool::shared()
    });
    let in_default = default.filter(|default| *default != settings.state_dir).map(|dir| Spool::in_folder(&dir));
    let own = Spool::in_folder(&settings.state_dir);
    // A missing folder would be watched through its parent, in which the store writes at every commit.
    if let Err(error) = own.make() {
        tracing::warn!(%error, "the spool in the state folder cannot be made");
    }
    [Some(own), in_default, shared].into_iter().flatten()
}

fn daemon_info(settings: &Settings, clock: &Clock) -> DaemonInfo {
    DaemonInfo {
        version: VERSION,
        pid: std::process::id(),
        uid: rustix::process::geteuid().as_raw(),
        started_at: clock(),
        store_path: settings.state_dir.display().to_string(),
        durability: settings.durability.as_str(),
    }
}
