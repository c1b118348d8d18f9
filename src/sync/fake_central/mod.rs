//! A central database in memory, for the simulation and for tests. It passes the same conformance suite as Postgres.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "only tests use it")]

mod activity;
mod calls;
mod history;
mod link;
mod reading;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::clock::Clock;
use crate::domain::limits::AccountLimit;
use crate::domain::link::Conflict;
use crate::domain::mirror::{
    ChangePage, Continuation, DeletedSession, HostSeen, PullPart, PullPosition, PullQuery, Transactions,
};
use crate::domain::on_demand::{Found, Question};
use crate::domain::{
    ColumnTimes, HistoryTables, InstanceId, MachineName, Session, SessionWork, SharedColumn, Status, TableState,
    TimedSession, Timestamp,
};
use crate::sync::central::{Accepted, Batch, CentralError, HostRegistration, Rejection, RowOutcome, SweepResult};
use uuid::Uuid;

use activity::FakeActivity;
pub use history::{FakeHistory, FakeRow};
pub use link::FakeLink;
use link::RegisteredHost;

/// What goes wrong with the next call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The call fails before anything is applied.
    Fail(CentralError),
    /// The call is applied, and its answer is lost.
    LoseAnswer,
}

/// A row of `sessiond_hosts`.
#[derive(Clone, Debug)]
struct Entry {
    name: MachineName,
    claim: Uuid,
    batch: i64,
    last_seen: Timestamp,
    retired: bool,
    replaced_by: Option<Uuid>,
    stale_after: Option<Duration>,
    /// The claim under which it stated that it judges sessions by the last contact of their hosts.
    vouching_claim: Option<Uuid>,
}

/// Which transaction changed a session last, and for which host.
#[derive(Clone, Copy, Debug)]
struct Changed {
    transaction: u64,
    by: Option<Uuid>,
    /// The newest transaction of another host.
    others: u64,
}

#[derive(Clone, Debug, Default)]
struct Tables {
    sessions: BTreeMap<String, Session>,
    /// When each session's columns were changed.
    times: BTreeMap<String, ColumnTimes>,
    changed: BTreeMap<String, Changed>,
    /// The rows that the running transaction wrote, perhaps with the values that they had.
    written: BTreeSet<String>,
    work: BTreeMap<String, SessionWork>,
    activity: FakeActivity,
    /// The sessions whose project or machine another client changed at some time.
    moved: BTreeSet<String>,
    /// The rate limits that each host shares.
    limits: BTreeMap<Uuid, Vec<AccountLimit>>,
    /// Who has each lease, and until when.
    leases: BTreeMap<String, (Uuid, Timestamp)>,
    /// Which transaction changed the work of a session last, and for which host.
    work_changed: BTreeMap<String, (u64, Option<Uuid>)>,
    tombstones: Vec<(u64, DeletedSession)>,
    /// The number of the newest transaction.
    transaction: u64,
    /// The number of a transaction that is still running.
    held: Option<u64>,
    hosts: BTreeMap<Uuid, Entry>,
    swept_at: Option<Timestamp>,
    history: FakeHistory,
}

impl Tables {
    /// Marks what a transaction of `by` changed since `before`, as the triggers of Postgres do. `marks_heartbeats`: also where
    /// only the heartbeat changed of a row that the same host wrote last.
    fn mark(&mut self, before: &Self, by: Option<Uuid>, marks_heartbeats: bool) {
        self.transaction += 1;
        let now = self.transaction;
        let written = std::mem::take(&mut self.written);
        for (id, session) in &self.sessions {
            let is_by_another = || self.changed.get(id).is_none_or(|last| last.by.is_none() || last.by != by);
            let known = before.sessions.get(id);
            let is_written =
                written.contains(id) || known != Some(session) || before.times.get(id) != self.times.get(id);
            let beaten = known.map(|known| Session { last_heartbeat: session.last_heartbeat, ..known.clone() });
            if is_written && (marks_heartbeats || is_by_another() || beaten.as_ref() != Some(session)) {
                let others = match self.changed.get(id) {
                    Some(last) if last.by == by => last.others,
                    Some(last) => last.transaction,
                    None => 0,
                };
                self.changed.insert(id.clone(), Changed { transaction: now, by, others });
            }
            let place = |session: &Session| (session.project.clone(), session.host_machine.clone());
            if by.is_none() && known.is_some_and(|known| place(known) != place(session)) {
                self.moved.insert(id.clone());
            }
        }
        for (id, work) in self.work.iter().filter(|(id, work)| before.work.get(*id) != Some(work)) {
            debug_assert_eq!(work.instance_id.as_str(), id);
            self.work_changed.insert(id.clone(), (now, by));
        }
        for (id, session) in before.sessions.iter().filter(|(id, _)| !self.sessions.contains_key(*id)) {
            self.changed.remove(id);
            self.times.remove(id);
            self.moved.remove(id);
            self.work.remove(id);
            self.activity.remove(id);
            self.work_changed.remove(id);
            self.tombstones.push((now, DeletedSession { instance_id: id.clone(), created_at: session.created_at }));
        }
    }
}

struct CentralState {
    clock: Clock,
    tables: Tables,
    faults: VecDeque<Fault>,
    rejected: BTreeSet<String>,
    /// Sessions whose rows another transaction has locked.
    locked: BTreeSet<String>,
    /// Why the table of sessions accepts no row: a new column, a trigger.
    broken: Option<Rejection>,
    read_only: bool,
    /// The rows of one page.
    page: usize,
    pushes: usize,
    /// The queries for pages that were answered.
    pages: Vec<PullQuery>,
    /// How often a backup was restored.
    restored: u64,
}

/// The database. Clones share it.
#[derive(Clone)]
pub struct FakeCentral(Arc<Mutex<CentralState>>);

/// A backup.
pub struct Snapshot(Tables);

impl FakeCentral {
    /// An empty central with all tables, whose time is this clock's.
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Mutex::new(CentralState {
            clock,
            tables: Tables::default(),
            faults: VecDeque::new(),
            rejected: BTreeSet::new(),
            locked: BTreeSet::new(),
            broken: None,
            read_only: false,
            page: calls::PAGE,
            pushes: 0,
            pages: Vec::new(),
            restored: 0,
        })))
    }

    /// A connection of one host.
    pub fn connect(&self) -> FakeLink {
        FakeLink::new(self.clone())
    }

    /// A connection of a daemon of the version before hosts vouched for their sessions.
    pub fn connect_earlier_daemon(&self) -> FakeLink {
        FakeLink::of_earlier_daemon(self.clone())
    }

    /// Central's time.
    pub fn now(&self) -> Timestamp {
        (self.lock().clock)()
    }

    /// All sessions, by id.
    pub fn rows(&self) -> Vec<Session> {
        self.lock().tables.sessions.values().cloned().collect()
    }

    /// Inserts or replaces a row as another client would.
    pub fn put(&self, session: &Session) {
        self.change(|state| {
            let (id, now) = (session.instance_id.to_string(), (state.clock)());
            state.tables.times.insert(id.clone(), ColumnTimes::all(now));
            state.tables.sessions.insert(id, session.clone())
        });
    }

    /// Changes columns of a row as another client would.
    pub fn edit(&self, id: &str, edit: impl FnOnce(&mut Session)) {
        self.change(|state| {
            let now = (state.clock)();
            let Tables { sessions, times, .. } = &mut state.tables;
            let session = sessions.get_mut(id).expect("a session to edit");
            let before = session.clone();
            edit(session);
            let changed = SharedColumn::ALL.iter().filter(|column| column.differs(&before, session));
            changed.for_each(|column| times.entry(id.to_owned()).or_default().set(*column, now));
        });
    }

    /// Deletes a session, as an operator would.
    pub fn delete(&self, id: &str) {
        self.change(|state| {
            state.tables.history.forget(id);
            state.tables.sessions.remove(id)
        });
    }

    /// The records of a session, by kind and in order.
    pub fn history(&self, id: &str) -> Vec<FakeRow> {
        self.lock().tables.history.of(id)
    }

    /// What a session does and works on.
    pub fn work(&self, id: &str) -> Option<SessionWork> {
        self.lock().tables.work.get(id).cloned()
    }

    /// Reads or changes the records as another client or an operator would.
    pub fn with_history<T>(&self, change: impl FnOnce(&mut FakeHistory) -> T) -> T {
        change(&mut self.lock().tables.history)
    }

    /// Another client changes something.
    fn change<T>(&self, change: impl FnOnce(&mut CentralState) -> T) -> T {
        let mut state = self.lock();
        let before = state.tables.clone();
        let result = change(&mut state);
        state.tables.mark(&before, None, true);
        result
    }

    /// Makes the next call fail; several faults queue.
    pub fn fail_next(&self, fault: Fault) {
        self.lock().faults.push_back(fault);
    }

    /// Rejects pushes of this session or record from now on.
    pub fn reject(&self, id: &str) {
        self.lock().rejected.insert(id.to_owned());
    }

    /// Accepts them again.
    pub fn accept(&self, id: &str) {
        self.lock().rejected.remove(id);
    }

    /// Another transaction locks a row and is idle.
    pub fn lock_row(&self, id: &str) {
        self.lock().locked.insert(id.to_owned());
    }

    /// Ends all locks on rows.
    pub fn unlock_rows(&self) {
        self.lock().locked.clear();
    }

    /// Makes the table of sessions accept no row, or accept rows again.
    pub fn break_sessions(&self, why: Option<Rejection>) {
        self.lock().broken = why;
    }

    /// Sets how many rows a page has.
    pub fn set_page(&self, rows: usize) {
        self.lock().page = rows;
    }

    /// Rejects every write, as a standby does.
    pub fn set_read_only(&self, read_only: bool) {
        self.lock().read_only = read_only;
    }

    /// A backup of all tables.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.lock().tables.clone())
    }

    /// Replaces all tables by those of a backup.
    pub fn restore(&self, snapshot: Snapshot) {
        let mut state = self.lock();
        state.tables = Tables { held: None, ..snapshot.0 };
        state.restored += 1;
    }

    /// Restores a backup into a cluster whose next transactions follow `transaction`; the rows keep their numbers.
    pub fn restore_elsewhere(&self, snapshot: Snapshot, transaction: u64) {
        self.restore(snapshot);
        self.lock().tables.transaction = transaction;
    }

    /// Begins a long transaction, or ends it.
    pub fn hold_a_transaction(&self, held: bool) {
        let mut state = self.lock();
        state.tables.held = held.then_some(state.tables.transaction + 1);
        state.tables.transaction += 1;
    }

    /// The number of the next transaction.
    pub fn transaction(&self) -> u64 {
        self.lock().tables.transaction
    }

    /// Forgets all deletions, as the sweep does after a month.
    pub fn forget_deletions(&self) {
        self.lock().tables.tombstones.clear();
    }

    /// All deletions, with their transactions.
    pub fn tombstones(&self) -> Vec<(u64, DeletedSession)> {
        self.lock().tables.tombstones.clone()
    }

    /// Another client closes a session.
    pub fn close(&self, id: &str) {
        self.change(|state| {
            let now = (state.clock)();
            state.tables.sessions.get_mut(id).expect("a session to close").close(now);
        });
    }

    /// Another host takes a machine name.
    pub fn claim_name(&self, name: &str, host_id: Uuid) {
        let mut state = self.lock();
        let last_seen = (state.clock)();
        let name = MachineName::parse(name).expect("a machine name");
        let rival = Entry {
            name,
            claim: Uuid::from_u128(7),
            batch: 0,
            last_seen,
            retired: false,
            replaced_by: None,
            stale_after: None,
            vouching_claim: None,
        };
        state.tables.hosts.insert(host_id, rival);
    }

    /// Moves all heartbeats of hosts and the last sweep into the past.
    pub fn silence(&self, by: Duration) {
        let mut state = self.lock();
        state.tables.hosts.values_mut().for_each(|host| host.last_seen = host.last_seen.minus(by));
        state.tables.swept_at = state.tables.swept_at.map(|at| at.minus(by));
    }

    /// The last batch that this host's row of the ledger names; `None` if it has no row.
    pub fn batch_of(&self, host_id: Uuid) -> Option<i64> {
        self.lock().tables.hosts.get(&host_id).map(|host| host.batch)
    }

    /// When this host last contacted central; `None` if it never did.
    pub fn last_seen(&self, host_id: Uuid) -> Option<Timestamp> {
        self.lock().tables.hosts.get(&host_id).map(|host| host.last_seen)
    }

    /// How many batches were applied.
    pub fn pushes(&self) -> usize {
        self.lock().pushes
    }

    fn lock(&self) -> MutexGuard<'_, CentralState> {
        self.0.lock().expect("no test panicked while it held the lock")
    }

    /// Runs one call as a transaction: it is applied whole or not at all.
    fn transact<T>(
        &self,
        by: Uuid,
        marks_heartbeats: bool,
        call: impl FnOnce(&mut CentralState) -> Result<T, CentralError>,
    ) -> Result<T, CentralError> {
        let mut state = self.lock();
        let fault = state.faults.pop_front();
        if let Some(Fault::Fail(error)) = fault {
            return Err(error);
        }
        if state.read_only {
            return Err(CentralError::Retry("cannot execute UPDATE in a read-only transaction (25006)".into()));
        }
        let before = state.tables.clone();
        let answer = call(&mut state);
        if answer.is_err() {
            state.tables = before;
        } else {
            state.tables.mark(&before, Some(by), marks_heartbeats);
        }
        match fault {
            Some(Fault::LoseAnswer) => Err(CentralError::Retry("the connection broke".into())),
            _ => answer,
        }
    }
}
