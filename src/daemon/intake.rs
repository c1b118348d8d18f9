//! Importing what clients left in a spool folder while no daemon answered.
//!
//! Each file is read in a bounded pass (see [`super::spool_scan`]), applied once, and unlinked. Its name is recorded in
//! the transaction that applies it and forgotten only after the file is gone, so a crash in between applies nothing
//! twice. Every failure has one of three outcomes, and none of them holds up other requests:
//!
//! - retry: the store cannot take it now (busy, full, disk errors), or it refers to a session that is not known yet.
//!   Later requests of the same session wait with it, so that their order is kept.
//! - ignore: it is not for this daemon to touch (a link, another user's file, another daemon's request).
//! - quarantine: it can never be applied. A copy is kept with the reason.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use uuid::Uuid;

use super::spool_scan::{AllowedUsers, Chosen, Scanner};
use crate::api::ApiSettings;
use crate::clock::Clock;
use crate::discovery::folder_watcher::FolderWatcher;
use crate::domain::text::one_line;
use crate::domain::{Happening, InstanceId, Invalid, MachineName, Timestamp};
use crate::platform::{caller, process};
use crate::shutdown::Shutdown;
use crate::spool::{Entry, Spool, SpoolMonitor, SpooledRequest, Summary, Write};
use crate::store::{
    Caller, Import, Imported, PinnedIdentity, Process, ReceivedReport, SpooledWrite, Store, StoreError,
};

/// How often a folder is scanned whose changes are not notified.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait before what failed is tried again, at first and at most.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_AT_MOST: Duration = Duration::from_secs(60);
/// After a pass the folder rests for so many times as long as the pass took, whatever appears in it.
const REST: u32 = 10;
/// How many requests one job of the writer applies.
const JOB: usize = 32;

#[derive(Clone)]
pub struct Intake {
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

/// Imports from one folder, with what is remembered of it.
pub struct Importer {
    intake: Intake,
    scanner: Option<Scanner>,
    backoff: Duration,
}

/// For so long at most the start of the daemon waits for spooled requests to be imported.
const FEW: Duration = Duration::from_millis(200);

/// What a pass leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Nothing is left that can be imported now.
    Complete,
    /// There are more files than one pass opens.
    More,
    /// Something is to be tried again later.
    Retry,
}

/// What becomes of one request that was not applied.
enum Failure {
    /// Nothing is left to be done for it.
    Done,
    /// It refers to a session that is not known, perhaps not yet; or the daemon has a bug.
    Unresolved(String),
    Permanent(String),
    Transient(String),
    /// Its user has as much in the store as one user may have.
    Limited(String),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let reason = error.to_string();
        match error {
            // It came too late to change anything.
            StoreError::Closed(_) => Self::Done,
            StoreError::NotFound(_) | StoreError::Bug(_) => Self::Unresolved(reason),
            StoreError::UserFull { .. } | StoreError::UserSessions { .. } => Self::Limited(reason),
            error if error.is_transient() => Self::Transient(reason),
            _ => Self::Permanent(reason),
        }
    }
}

/// A request on its way into the store.
struct Pending {
    entry: Entry,
    import: Import,
    content: Vec<u8>,
    /// An agent's report of a session that is not known tells nothing.
    needs_session: bool,
}

/// Imports what waits in all folders, says so through `imported`, and goes on importing what appears.
pub async fn run_all(mut importers: Vec<Importer>, imported: watch::Sender<bool>, mut shutdown: Shutdown) {
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

impl Importer {
    pub fn new(intake: Intake) -> Self {
        Self { intake, scanner: Some(Scanner::default()), backoff: AGAIN }
    }

    /// Imports what appears in the folder, until the daemon stops.
    pub async fn run(mut self, mut shutdown: Shutdown) {
        let mut folder = FolderWatcher::new(self.intake.spool.dir().to_owned(), PATIENCE);
        loop {
            let began = Instant::now();
            let pass = self.pass().await;
            let rest = began.elapsed() * REST;
            let delay = match pass {
                Pass::Retry => Some(self.backoff.max(rest)),
                Pass::More => Some(rest),
                Pass::Complete => None,
            };
            tokio::select! {
                () = async { tokio::time::sleep(rest).await; folder.changed().await } => {}
                () = tokio::time::sleep(delay.unwrap_or_default()), if delay.is_some() => {}
                () = shutdown.requested() => return,
            }
        }
    }

    /// Imports what is there, as far as that is soon done.
    pub async fn import_few(&mut self) {
        let began = Instant::now();
        while self.pass().await == Pass::More && began.elapsed() < FEW {}
    }

    /// Imports what is there now, in as many passes as that takes. It rests after each for as long as that took, so
    /// that clients have half of the writer.
    async fn import_pending(&mut self) {
        loop {
            let began = Instant::now();
            if self.pass().await != Pass::More {
                return;
            }
            tokio::time::sleep(began.elapsed()).await;
        }
    }

    /// Imports a bounded part of what is there.
    pub async fn pass(&mut self) -> Pass {
        let Some(mut scanner) = self.scanner.take() else { return Pass::Complete };
        let Intake { spool, socket, allowed, group, clock, .. } = self.intake.clone();
        let chosen = tokio::task::spawn_blocking(move || {
            let chosen = scanner.choose(&spool, &socket, (&allowed, group), clock());
            (scanner, chosen)
        });
        let Ok((mut scanner, chosen)) = chosen.await else {
            self.scanner = Some(Scanner::default());
            return Pass::Retry;
        };
        let pass = match chosen {
            Ok(chosen) => self.import(chosen, &mut scanner).await,
            Err(error) => {
                let why = format!("the folder is not read: {error}");
                self.report(Summary { reason: Some(why), ..Summary::default() });
                Pass::Complete
            }
        };
        self.scanner = Some(scanner);
        pass
    }

    async fn import(&mut self, chosen: Chosen, scanner: &mut Scanner) -> Pass {
        let Chosen { requests, invalid: mut quarantine, mut summary } = chosen;
        let mut pending = VecDeque::new();
        for (entry, request) in requests {
            match self.intake.checked(&entry, request) {
                Ok(checked) => pending.push_back(checked),
                Err((content, reason)) => quarantine.push((entry, content, reason)),
            }
        }
        let mut gone = Vec::new();
        let (mut transient, mut limited) = (None, None);
        while !pending.is_empty() {
            let held = scanner.held();
            let may_go = |request: &Pending| match request.import.key.as_ref().and_then(|key| held.get(key)) {
                Some(holder) => *holder == request.entry.version,
                None => true,
            };
            let count = pending.len().min(JOB);
            let job: Vec<_> = pending.drain(..count).filter(may_go).collect();
            let stale_after = self.intake.settings.borrow().stale_after;
            let imports = job.iter().map(|request| request.import.clone()).collect();
            let results = match self.intake.store.import(imports, stale_after).await {
                Ok(results) => results,
                Err(error) => {
                    transient = Some(error.to_string());
                    break;
                }
            };
            for (request, result) in job.into_iter().zip(results) {
                let Pending { entry, content, import, .. } = &request;
                match failure(&request, result) {
                    Some(Failure::Done) => gone.push(request.entry),
                    Some(Failure::Unresolved(reason)) if scanner.failed(entry, &reason, None) => {
                        quarantine.push((entry.clone(), content.clone(), reason));
                    }
                    None | Some(Failure::Unresolved(_)) => {}
                    Some(Failure::Permanent(reason)) => quarantine.push((entry.clone(), content.clone(), reason)),
                    Some(Failure::Transient(reason)) => {
                        scanner.failed(entry, &reason, import.key.clone());
                        transient.get_or_insert(reason);
                    }
                    Some(Failure::Limited(reason)) => {
                        scanner.failed(entry, &reason, import.key.clone());
                        limited.get_or_insert(reason);
                    }
                }
            }
        }
        let progress = !gone.is_empty();
        scanner.imported += gone.len() as u64;
        summary.waiting = summary.waiting.saturating_sub((gone.len() + quarantine.len()) as u64);
        for entry in gone.iter().chain(quarantine.iter().map(|(entry, ..)| entry)) {
            scanner.settled(entry);
        }
        if let Some(reason) = self.clear(gone, quarantine).await {
            transient.get_or_insert(reason);
        }
        // What one user's limits hold up is tried again later, but delays no other user.
        let others_wait = summary.more || progress;
        summary.reason = limited.clone().or(summary.reason);
        self.conclude(summary, transient.or(limited.filter(|_| !others_wait)), progress, scanner)
    }

    fn conclude(&mut self, mut summary: Summary, transient: Option<String>, progress: bool, scanner: &Scanner) -> Pass {
        let more = summary.more;
        if transient.is_some() {
            summary.reason.clone_from(&transient);
        }
        self.report(summary);
        match transient {
            Some(reason) => {
                tracing::warn!(reason, spool = %self.intake.spool.dir().display(), "requests wait in the spool");
                self.backoff = if progress { AGAIN } else { (self.backoff * 2).min(AGAIN_AT_MOST) };
                Pass::Retry
            }
            None => {
                self.backoff = AGAIN;
                match (more || (progress && scanner.has_failed()), scanner.has_failed()) {
                    (true, _) => Pass::More,
                    (false, true) => Pass::Retry,
                    (false, false) => Pass::Complete,
                }
            }
        }
    }

    /// Copies what can never be imported to the quarantine, and unlinks it together with what was imported. Returns why
    /// that failed.
    async fn clear(&self, gone: Vec<Entry>, quarantine: Vec<(Entry, Vec<u8>, String)>) -> Option<String> {
        if gone.is_empty() && quarantine.is_empty() {
            return None;
        }
        let Intake { spool, monitor, clock, random, .. } = self.intake.clone();
        let cleared = tokio::task::spawn_blocking(move || -> std::io::Result<Vec<String>> {
            let mut remove = gone;
            for (entry, content, reason) in quarantine {
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
        match cleared.await {
            Ok(Ok(names)) => {
                tracing::info!(requests = names.len(), spool = %self.intake.spool.dir().display(), "imported spooled requests");
                if let Err(error) = self.intake.store.forget_imported(names).await {
                    tracing::debug!(%error, "the names of imported requests stay recorded");
                }
                None
            }
            // The names recorded in the store keep the requests from being applied again.
            Ok(Err(error)) => Some(format!("files in the spool cannot be removed: {error}")),
            Err(error) => Some(error.to_string()),
        }
    }

    fn report(&self, summary: Summary) {
        self.intake.monitor.report(self.intake.spool.dir(), summary);
    }
}

/// How an import failed; `Done` for one that did not, nothing for one that was not tried.
fn failure(request: &Pending, result: Imported) -> Option<Failure> {
    match result? {
        Ok(()) => Some(Failure::Done),
        Err(StoreError::NotFound(_)) if !request.needs_session => Some(Failure::Done),
        Err(error) => Some(error.into()),
    }
}

impl Intake {
    /// Checks a request as one over the socket is checked. One that is refused comes back with its content and the reason.
    fn checked(&self, entry: &Entry, request: SpooledRequest) -> Result<Pending, (Vec<u8>, String)> {
        let content = serde_json::to_vec(&request).unwrap_or_default();
        // Nothing has been written in the future, whatever the writer's clock said.
        let at = Timestamp::from_micros(request.at).min((self.clock)());
        // A user's requests wait for one another, and never for another user's.
        let key = request.write.session_key().map(|key| format!("{} {key}", entry.uid));
        let needs_session = !matches!(request.write, Write::Agent { .. });
        match self.deferred(request, entry.uid) {
            Ok(deferred) => {
                let draws = std::array::from_fn(|_| (self.random)());
                let caller = Caller { uid: entry.uid };
                let import = Import { name: entry.name.clone(), key, deferred, caller, draws, at };
                Ok(Pending { entry: entry.clone(), import, content, needs_session })
            }
            Err(invalid) => Err((content, invalid.to_string())),
        }
    }

    fn deferred(&self, request: SpooledRequest, uid: u32) -> Result<SpooledWrite, Invalid> {
        let this = self.identity.current().name;
        let settings = self.settings.borrow();
        match request.write {
            Write::Register { id, request, pid_started } => {
                let mut what = request.validate(&this)?;
                if !settings.allow_other {
                    what.host_machine = this;
                }
                let id = InstanceId::parse(&id)?;
                if !id.names(&what.project, what.instance_type) {
                    return Err(Invalid::new("instance_id", "it is not one of this project and type"));
                }
                Ok(SpooledWrite::Register { id, what: Box::new(what), process: of(uid, request.pid, pid_started) })
            }
            Write::Heartbeat { id, request } => Ok(SpooledWrite::Heartbeat { id, beat: request.validate()? }),
            Write::Close { id } => Ok(SpooledWrite::Close { id }),
            Write::Event { id, request } => Ok(self.append(id, request.validate()?)),
            Write::Checkpoint { id, request } => Ok(self.append(id, request.validate()?)),
            Write::Agent { report } => Ok(SpooledWrite::Report(Box::new(self.sighting(
                report.validate(&settings.type_rules)?,
                of(uid, report.pid, report.pid_started),
                this,
            )))),
        }
    }

    fn append(&self, id: String, what: Happening) -> SpooledWrite {
        let random = Uuid::from_u64_pair((self.random)(), (self.random)());
        let record_id = uuid::Builder::from_random_bytes(random.into_bytes()).into_uuid();
        SpooledWrite::Append { id, what: Box::new(what), record_id }
    }

    fn sighting(
        &self,
        report: crate::domain::agent::Report,
        process: Option<Process>,
        host_machine: MachineName,
    ) -> ReceivedReport {
        ReceivedReport { report, process, host_machine, lives: process::is_running }
    }
}

/// The process may be dead by now: then its session is stale as soon as the processes are checked.
fn of(uid: u32, pid: Option<i32>, started: Option<i64>) -> Option<Process> {
    let (pid, started) = pid.zip(started)?;
    caller::process_of_user(uid, pid, started)
}
