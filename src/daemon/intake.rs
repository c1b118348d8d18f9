//! Takes in what clients left in the spool while no daemon answered: in order, and once.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use super::folder::Folder;
use crate::api::ApiSettings;
use crate::clock::Clock;
use crate::domain::text::one_line;
use crate::domain::{Happening, InstanceId, Invalid, MachineName, Timestamp};
use crate::platform::process;
use crate::shutdown::Shutdown;
use crate::spool::{Found, Spool, Write};
use crate::store::{Caller, Deferred, PinnedIdentity, Process, Sighting, Store, StoreError};

/// How often a spool is looked at of whose changes nothing is heard.
const PATIENCE: Duration = Duration::from_secs(10);
/// What was refused for a moment's reason is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Intake {
    pub spool: Spool,
    pub store: Store,
    pub identity: Arc<PinnedIdentity>,
    pub settings: watch::Receiver<ApiSettings>,
    pub clock: Clock,
    pub random: fn() -> u64,
    /// Where this daemon listens: what clients told another's socket is not for it.
    pub socket: PathBuf,
    /// Whether a user may use this daemon.
    pub may_enter: Arc<dyn Fn(u32) -> bool + Send + Sync>,
}

/// What becomes of one file.
enum Outcome {
    /// Applied, or nothing is to be done: it can go.
    Done,
    /// It is for another daemon.
    NotOurs,
    /// It tells of a session that is not known, perhaps not yet.
    Early(String),
    /// It will never be taken in, and this is why.
    Refused(String),
    /// The store cannot take it now.
    Later,
}

impl Intake {
    /// Takes in what comes, until told to stop.
    pub async fn run(self, mut shutdown: Shutdown) {
        let mut folder = Folder::new(self.spool.dir().to_owned(), PATIENCE);
        loop {
            let all = self.take_in().await;
            tokio::select! {
                () = folder.changed() => {}
                () = tokio::time::sleep(AGAIN), if !all => {}
                () = shutdown.requested() => return,
            }
        }
    }

    /// Takes in what lies there now. Says whether nothing is left to be tried again.
    pub async fn take_in(&self) -> bool {
        let spool = &self.spool;
        let mut names = match spool.names() {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(%error, spool = %spool.dir().display(), "the spool cannot be read");
                return false;
            }
        };
        // A clock that was set may have turned the order round: what is early is tried again after the others.
        loop {
            let mut early = Vec::new();
            let mut done = Vec::new();
            for name in std::mem::take(&mut names) {
                match self.take(&name).await {
                    Outcome::Done => done.push(name),
                    Outcome::NotOurs => {}
                    Outcome::Early(why) => early.push((name, why)),
                    Outcome::Refused(why) => set_aside(spool, &name, &why),
                    Outcome::Later => {
                        self.clear(done).await;
                        return false;
                    }
                }
            }
            let progress = !done.is_empty();
            self.clear(done).await;
            if !progress {
                early.iter().for_each(|(name, why)| set_aside(spool, name, why));
                return true;
            }
            names = early.into_iter().map(|(name, _)| name).collect();
        }
    }

    async fn take(&self, name: &str) -> Outcome {
        let found = match self.spool.read(name) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Outcome::Done,
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        if !found.letter.sockets.contains(&self.socket) {
            return Outcome::NotOurs;
        }
        if !(self.may_enter)(found.uid) {
            return Outcome::Refused(format!("user {} may not use this daemon", found.uid));
        }
        let stale_after = self.settings.borrow().stale_after;
        let now = (self.clock)();
        // Nothing has been written in the future, whatever the writer's clock said.
        let at = Timestamp::from_micros(found.letter.at).min(now);
        let caller = Caller { uid: found.uid };
        let deferred = match self.deferred(found) {
            Ok(deferred) => deferred,
            Err(invalid) => return Outcome::Refused(invalid.to_string()),
        };
        let draws = std::array::from_fn(|_| (self.random)());
        match self.store.catch_up(name.to_owned(), deferred, caller, draws, at, stale_after).await {
            Ok(_) => Outcome::Done,
            Err(error @ StoreError::NotFound(_)) => Outcome::Early(error.to_string()),
            // It came too late to change anything.
            Err(error @ StoreError::Closed(_)) => {
                tracing::info!(%error, "a sign of life from the spool came after the end");
                Outcome::Done
            }
            Err(error @ StoreError::Forbidden { .. }) => Outcome::Refused(error.to_string()),
            Err(error) => {
                tracing::warn!(%error, "the spool is taken in later");
                Outcome::Later
            }
        }
    }

    /// The write that a letter asks for, checked as a request would be.
    fn deferred(&self, found: Found) -> Result<Deferred, Invalid> {
        let this = self.identity.current().name;
        let settings = self.settings.borrow();
        match found.letter.write {
            Write::Register { id, request, pid_started } => {
                let mut what = request.validate(&this)?;
                if !settings.allow_other {
                    what.host_machine = this;
                }
                let id = InstanceId::parse(&id)?;
                if !id.names(&what.project, what.instance_type) {
                    return Err(Invalid::new("instance_id", "it is not one of this project and type"));
                }
                Ok(Deferred::Register { id, what: Box::new(what), process: of(request.pid, pid_started) })
            }
            Write::Heartbeat { id, request } => Ok(Deferred::Heartbeat { id, beat: request.validate()? }),
            Write::Close { id } => Ok(Deferred::Close { id }),
            Write::Event { id, request } => Ok(self.append(id, request.validate()?)),
            Write::Checkpoint { id, request } => Ok(self.append(id, request.validate()?)),
            Write::Agent { report } => Ok(Deferred::Sighting(Box::new(self.sighting(
                report.validate(&settings.type_rules)?,
                of(report.pid, report.pid_started),
                this,
            )))),
        }
    }

    fn append(&self, id: String, what: Happening) -> Deferred {
        let random = Uuid::from_u64_pair((self.random)(), (self.random)());
        let record_id = uuid::Builder::from_random_bytes(random.into_bytes()).into_uuid();
        Deferred::Append { id, what: Box::new(what), record_id }
    }

    fn sighting(
        &self,
        report: crate::domain::agent::Report,
        process: Option<Process>,
        host_machine: MachineName,
    ) -> Sighting {
        Sighting { report, process, host_machine, lives: process::lives }
    }

    /// Removes what is in the store. Should that fail, the notes in the store keep it from being applied again.
    async fn clear(&self, names: Vec<String>) {
        let spool = &self.spool;
        if names.is_empty() {
            return;
        }
        tracing::info!(writes = names.len(), spool = %spool.dir().display(), "took in what waited in the spool");
        match spool.remove(&names) {
            Ok(()) => {
                if let Err(error) = self.store.forget_taken_in(names).await {
                    tracing::debug!(%error, "the notes of what was taken in stay");
                }
            }
            Err(error) => tracing::warn!(%error, "what was taken in from the spool cannot be removed"),
        }
    }
}

/// The process may be dead by now: then its session is stale as soon as somebody looks.
fn of(pid: Option<i32>, started: Option<i64>) -> Option<Process> {
    pid.zip(started).map(|(pid, started)| Process { pid, started })
}

fn set_aside(spool: &Spool, name: &str, why: &str) {
    let why = one_line(why);
    match spool.set_aside(name) {
        Ok(aside) => {
            tracing::warn!(file = %aside.display(), why, "a write in the spool cannot be taken in; it is set aside")
        }
        Err(error) => {
            tracing::warn!(file = name, why, %error, "a write in the spool can neither be taken in nor set aside")
        }
    }
}
