//! Imports the requests that clients left in a spool folder while no daemon answered.
//!
//! Each file is read in a bounded pass (see [`super::spool_scan`]), applied once, and unlinked. Its name is recorded in
//! the transaction that applies it and deleted only after the file is unlinked, so that a crash in between applies
//! nothing twice. Every failure has one of three outcomes, and none of them delays other sessions' requests:
//!
//! - retry: the store cannot apply it now (busy, full, disk errors), or it refers to a session that is not known yet.
//!   Later requests of the same session wait with it, so that their order is kept.
//! - ignore: this daemon must not open or apply it (a link, a user who is not allowed, another daemon's request).
//! - quarantine: it can never be applied. A copy is kept with the reason.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use uuid::Uuid;

use super::spool_scan::{AllowedUsers, Attempts, Chosen, Rejected, SpoolScanner};
use crate::api::ApiSettings;
use crate::clock::Clock;
use crate::discovery::folder_watcher::FolderWatcher;
use crate::domain::Process;
use crate::domain::text::one_line;
use crate::domain::{InstanceId, Invalid, MachineName, NewRecord, Timestamp};
use crate::platform::{caller, process};
use crate::shutdown::Shutdown;
use crate::spool::{ClientWrite, Spool, SpoolEntry, SpoolMonitor, SpoolStatus, SpooledRequest};
use crate::store::{
    Append, Caller, IdSource, Import, Imported, NewSession, OpContext, PinnedIdentity, ReceivedReport, SpooledWrite,
    Store, StoreError,
};

/// How often a folder is scanned if the system reports no changes in it.
const SCAN_INTERVAL: Duration = Duration::from_secs(10);
/// Delay before a failed import is retried: at first, doubled each time without progress, and at most.
const RETRY_DELAY: Duration = Duration::from_secs(1);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);
/// The pause after a pass, as a multiple of the time the pass took: scans take a bounded share of the processor.
const PAUSE_FACTOR: u32 = 10;
/// How many requests are applied in one transaction.
const BATCH: usize = 32;
/// How long the start of the daemon waits for spooled requests of one folder to be imported.
const START_LIMIT: Duration = Duration::from_millis(200);

/// What an importer works with.
#[derive(Clone)]
pub(super) struct ImportContext {
    pub spool: Spool,
    pub store: Store,
    pub identity: Arc<PinnedIdentity>,
    pub settings: watch::Receiver<ApiSettings>,
    pub clock: Clock,
    pub random: fn() -> u64,
    /// Where this daemon listens.
    pub socket: PathBuf,
    pub allowed: AllowedUsers,
    /// The group whose members may use the daemon.
    pub group: Option<u32>,
    pub monitor: SpoolMonitor,
}

/// Imports from one folder.
pub(super) struct SpoolImporter {
    context: ImportContext,
    /// None while a pass uses it.
    scanner: Option<SpoolScanner>,
    retry_delay: Duration,
}

/// What remains in the folder after a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PassResult {
    /// Nothing that can be imported now.
    Complete,
    /// More files than one pass opens.
    More,
    /// A request that is to be retried.
    Retry,
}

/// The outcome of one request that was tried.
enum ImportOutcome {
    /// It is applied, or has nothing to change any more.
    Done,
    /// It refers to a session that is not known, perhaps not yet; or the daemon has a bug.
    Unresolved(String),
    Permanent(String),
    Transient(String),
    /// Its user has reached the limit of what one user may store.
    Limited(String),
}

impl From<StoreError> for ImportOutcome {
    fn from(error: StoreError) -> Self {
        let reason = error.to_string();
        match error {
            // The session was closed before the request was imported.
            StoreError::Closed(_) => Self::Done,
            StoreError::NotFound(_) | StoreError::Bug(_) => Self::Unresolved(reason),
            StoreError::UserFull { .. } | StoreError::UserSessions { .. } => Self::Limited(reason),
            error if error.is_transient() => Self::Transient(reason),
            _ => Self::Permanent(reason),
        }
    }
}

/// A valid request that is to be applied.
struct CheckedRequest {
    entry: SpoolEntry,
    import: Import,
    content: Vec<u8>,
    /// False for an agent's report: one of an unknown session is dropped, as over the socket.
    needs_session: bool,
}

/// What a pass has done so far.
#[derive(Default)]
struct PassState {
    applied: Vec<SpoolEntry>,
    rejected: Vec<Rejected>,
    /// The first reason for which a request is to be retried.
    transient: Option<String>,
    /// The first reason for which a request waits because of its user's limits.
    limited: Option<String>,
}

/// Imports what is spooled in all folders, then sets `imported`, and imports new requests until shutdown.
pub(super) async fn run_all(mut importers: Vec<SpoolImporter>, imported: watch::Sender<bool>, mut shutdown: Shutdown) {
    for importer in &mut importers {
        tokio::select! {
            () = importer.import_pending() => {}
            () = shutdown.requested() => return,
        }
    }
    imported.send_replace(true);
    let tasks: Vec<_> = importers.into_iter().map(|importer| tokio::spawn(importer.run(shutdown.clone()))).collect();
    for task in tasks {
        let _ = task.await;
    }
}

impl SpoolImporter {
    pub(super) fn new(context: ImportContext) -> Self {
        Self { context, scanner: Some(SpoolScanner::default()), retry_delay: RETRY_DELAY }
    }

    /// Imports each request that is added to the folder, until shutdown.
    pub(super) async fn run(mut self, mut shutdown: Shutdown) {
        let mut folder = FolderWatcher::new(self.context.spool.dir().to_owned(), SCAN_INTERVAL);
        loop {
            let began = Instant::now();
            let result = self.pass().await;
            let pause = began.elapsed() * PAUSE_FACTOR;
            let delay = match result {
                PassResult::Retry => Some(self.retry_delay.max(pause)),
                PassResult::More => Some(pause),
                PassResult::Complete => None,
            };
            tokio::select! {
                () = async { tokio::time::sleep(pause).await; folder.changed().await } => {}
                () = tokio::time::sleep(delay.unwrap_or_default()), if delay.is_some() => {}
                () = shutdown.requested() => return,
            }
        }
    }

    /// Imports what is in the folder for at most about [`START_LIMIT`].
    pub(super) async fn import_briefly(&mut self) {
        let began = Instant::now();
        while self.pass().await == PassResult::More && began.elapsed() < START_LIMIT {}
    }

    /// Imports what is in the folder now, in as many passes as that takes. It pauses after each for as long as the pass
    /// took, so that clients have half of the writer's time.
    async fn import_pending(&mut self) {
        loop {
            let began = Instant::now();
            if self.pass().await != PassResult::More {
                return;
            }
            tokio::time::sleep(began.elapsed()).await;
        }
    }

    /// Imports a bounded number of requests.
    pub(super) async fn pass(&mut self) -> PassResult {
        let Some(mut scanner) = self.scanner.take() else { return PassResult::Complete };
        let ImportContext { spool, socket, allowed, group, clock, .. } = self.context.clone();
        let chosen = tokio::task::spawn_blocking(move || {
            let chosen = scanner.choose(&spool, &socket, (&allowed, group), clock());
            (scanner, chosen)
        });
        let Ok((mut scanner, chosen)) = chosen.await else {
            self.scanner = Some(SpoolScanner::default());
            return PassResult::Retry;
        };
        let result = match chosen {
            Ok(chosen) => self.import(chosen, &mut scanner).await,
            Err(error) => {
                let why = format!("the folder cannot be read: {error}");
                self.report(SpoolStatus { reason: Some(why), ..SpoolStatus::default() });
                PassResult::Complete
            }
        };
        self.scanner = Some(scanner);
        result
    }

    async fn import(&mut self, chosen: Chosen, scanner: &mut SpoolScanner) -> PassResult {
        let Chosen { requests, invalid, mut status } = chosen;
        let mut state = PassState { rejected: invalid, ..PassState::default() };
        let mut pending = VecDeque::new();
        for (entry, request) in requests {
            match self.context.check(&entry, request) {
                Ok(checked) => pending.push_back(checked),
                Err(rejected) => state.rejected.push(*rejected),
            }
        }
        while !pending.is_empty() {
            let held = scanner.held();
            let is_next = |request: &CheckedRequest| match request.import.key.as_ref().and_then(|key| held.get(key)) {
                Some(holder) => *holder == request.entry.version,
                None => true,
            };
            let count = pending.len().min(BATCH);
            let batch: Vec<_> = pending.drain(..count).filter(is_next).collect();
            let imports = batch.iter().map(|request| request.import.clone()).collect();
            match self.context.store.import(imports).await {
                Ok(results) => batch.into_iter().zip(results).for_each(|(request, result)| {
                    state.record(request, result, scanner);
                }),
                Err(error) => {
                    state.transient = Some(error.to_string());
                    break;
                }
            }
        }
        let PassState { applied, rejected, mut transient, limited } = state;
        let progress = !applied.is_empty();
        scanner.imported += applied.len() as u64;
        status.waiting = status.waiting.saturating_sub((applied.len() + rejected.len()) as u64);
        for entry in applied.iter().chain(rejected.iter().map(|rejected| &rejected.entry)) {
            scanner.forget(entry);
        }
        if let Some(reason) = self.remove(applied, rejected).await {
            transient.get_or_insert(reason);
        }
        // A request that waits because of its user's limits is retried later, without delaying other users' requests.
        let others_wait = status.more || progress;
        status.reason = limited.clone().or(status.reason);
        self.conclude(status, transient.or(limited.filter(|_| !others_wait)), progress, scanner)
    }

    /// Reports the folder's status, and decides when the next pass is due.
    fn conclude(
        &mut self,
        mut status: SpoolStatus,
        transient: Option<String>,
        progress: bool,
        scanner: &SpoolScanner,
    ) -> PassResult {
        let more = status.more;
        if transient.is_some() {
            status.reason.clone_from(&transient);
        }
        self.report(status);
        match transient {
            Some(reason) => {
                tracing::warn!(reason, spool = %self.context.spool.dir().display(), "spooled requests cannot be imported now");
                self.retry_delay = if progress { RETRY_DELAY } else { (self.retry_delay * 2).min(MAX_RETRY_DELAY) };
                PassResult::Retry
            }
            None => {
                self.retry_delay = RETRY_DELAY;
                match (more || (progress && scanner.has_failed()), scanner.has_failed()) {
                    (true, _) => PassResult::More,
                    (false, true) => PassResult::Retry,
                    (false, false) => PassResult::Complete,
                }
            }
        }
    }

    /// Copies the rejected requests to the quarantine, and unlinks them together with the applied ones. Returns why that
    /// failed, if it did.
    async fn remove(&self, applied: Vec<SpoolEntry>, rejected: Vec<Rejected>) -> Option<String> {
        if applied.is_empty() && rejected.is_empty() {
            return None;
        }
        let ImportContext { spool, monitor, clock, random, .. } = self.context.clone();
        let removed = tokio::task::spawn_blocking(move || -> std::io::Result<Vec<String>> {
            let mut remove = applied;
            for Rejected { entry, content, reason } in rejected {
                let file = spool.dir().join(&entry.name);
                let shown = one_line(&file.display().to_string());
                tracing::warn!(file = %shown, reason, "a spooled request cannot be imported; it is quarantined");
                monitor.quarantine((entry.uid, file), &content, &reason, clock(), random())?;
                remove.push(entry);
            }
            if let Some(folder) = spool.open(rustix::process::geteuid().as_raw())? {
                folder.remove(remove.iter())?;
            }
            Ok(remove.into_iter().map(|entry| entry.name).collect())
        });
        match removed.await {
            Ok(Ok(names)) => {
                tracing::info!(requests = names.len(), spool = %self.context.spool.dir().display(), "imported spooled requests");
                if let Err(error) = self.context.store.forget_imported(names).await {
                    tracing::debug!(%error, "the names of imported requests could not be deleted");
                }
                None
            }
            // The names stay recorded in the store, so the requests are not applied again.
            Ok(Err(error)) => Some(format!("files in the spool cannot be removed: {error}")),
            Err(error) => Some(error.to_string()),
        }
    }

    fn report(&self, status: SpoolStatus) {
        self.context.monitor.report(self.context.spool.dir(), status);
    }
}

impl PassState {
    /// Records the result of one request.
    fn record(&mut self, request: CheckedRequest, result: Imported, scanner: &mut SpoolScanner) {
        let Some(outcome) = outcome(&request, result) else { return };
        let CheckedRequest { entry, content, import, .. } = request;
        match outcome {
            ImportOutcome::Done => self.applied.push(entry),
            ImportOutcome::Unresolved(reason) => {
                if scanner.record_failure(&entry, &reason, None) == Attempts::Exhausted {
                    self.rejected.push(Rejected { entry, content, reason });
                }
            }
            ImportOutcome::Permanent(reason) => self.rejected.push(Rejected { entry, content, reason }),
            ImportOutcome::Limited(reason) => {
                scanner.record_failure(&entry, &reason, import.key);
                self.limited.get_or_insert(reason);
            }
            ImportOutcome::Transient(reason) => {
                scanner.record_failure(&entry, &reason, import.key);
                self.transient.get_or_insert(reason);
            }
        }
    }
}

/// None for a request that was not tried.
fn outcome(request: &CheckedRequest, result: Imported) -> Option<ImportOutcome> {
    match result? {
        Ok(()) => Some(ImportOutcome::Done),
        Err(StoreError::NotFound(_)) if !request.needs_session => Some(ImportOutcome::Done),
        Err(error) => Some(error.into()),
    }
}

impl ImportContext {
    /// Validates a request as the API does.
    fn check(&self, entry: &SpoolEntry, request: SpooledRequest) -> Result<CheckedRequest, Box<Rejected>> {
        let content = serde_json::to_vec(&request).unwrap_or_default();
        // The clock may have been ahead when the request was written.
        let at = Timestamp::from_micros(request.at).min((self.clock)());
        // A user's requests wait for one another, and never for another user's.
        let key = request.write.session_key().map(|key| format!("{} {key}", entry.uid));
        let needs_session = !matches!(request.write, ClientWrite::Agent { .. });
        match self.validate(request, entry.uid, at) {
            Ok(write) => {
                let context = OpContext {
                    now: at,
                    caller: Caller { uid: entry.uid },
                    stale_after: self.settings.borrow().stale_after,
                    ids: IdSource::Random(self.random),
                };
                let import = Import { name: entry.name.clone(), key, deferred: write, context };
                Ok(CheckedRequest { entry: entry.clone(), import, content, needs_session })
            }
            Err(invalid) => Err(Box::new(Rejected { entry: entry.clone(), content, reason: invalid.to_string() })),
        }
    }

    fn validate(&self, request: SpooledRequest, uid: u32, at: Timestamp) -> Result<SpooledWrite, Invalid> {
        let host = self.identity.current().name;
        let settings = self.settings.borrow();
        match request.write {
            ClientWrite::Register { id, request, pid_started } => {
                let (mut what, agent) = (request.validate(&host)?, request.agent()?);
                if !settings.allow_other {
                    what.host_machine = host;
                }
                let id = InstanceId::parse(&id)?;
                if !id.names(&what.project, what.instance_type) {
                    return Err(Invalid::new("instance_id", "it does not match the project and the type"));
                }
                Ok(SpooledWrite::Register {
                    id,
                    session: Box::new(NewSession { what, agent, process: process_of(uid, request.pid, pid_started) }),
                })
            }
            ClientWrite::Heartbeat { id, request } => Ok(SpooledWrite::Heartbeat { id, beat: request.validate(at)? }),
            ClientWrite::Close { id } => Ok(SpooledWrite::Close { id }),
            ClientWrite::Event { id, request } => Ok(self.append(id, request.validate()?)),
            ClientWrite::Checkpoint { id, request } => Ok(self.append(id, request.validate()?)),
            ClientWrite::Agent { report } => Ok(SpooledWrite::Report(Box::new(self.received(
                report.validate(&settings.type_rules, at)?,
                process_of(uid, report.pid, report.pid_started),
                host,
            )))),
        }
    }

    fn append(&self, id: String, what: NewRecord) -> SpooledWrite {
        let random = Uuid::from_u64_pair((self.random)(), (self.random)());
        let record_id = uuid::Builder::from_random_bytes(random.into_bytes()).into_uuid();
        SpooledWrite::Append(Box::new(Append { id, what, record_id }))
    }

    fn received(
        &self,
        report: crate::domain::agent::ValidReport,
        process: Option<Process>,
        host_machine: MachineName,
    ) -> ReceivedReport {
        ReceivedReport { report, process, host_machine, lives: process::is_running, now: (self.clock)() }
    }
}

/// A process that has ended meanwhile is kept: the next check of the processes marks its session stale.
fn process_of(uid: u32, pid: Option<i32>, started: Option<i64>) -> Option<Process> {
    let (pid, started) = pid.zip(started)?;
    caller::process_of_user(uid, pid, started)
}
