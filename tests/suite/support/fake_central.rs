//! A central database in memory, for the simulation and for tests. It passes the same conformance suite as Postgres.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sessiond::clock::Clock;
use sessiond::domain::link::Conflict;
use sessiond::domain::mirror::{Changes, Gone, HostSeen, Part, Position, Reading, Rest};
use sessiond::domain::{
    Column, ColumnTimes, HistoryTables, InstanceId, MachineName, Session, Status, TimedSession, Timestamp,
};
use sessiond::sync::central::{
    Accepted, Batch, Central, CentralError, HostRegistration, Notification, Rejection, RowOutcome, SweepResult,
};
use uuid::Uuid;

use super::fake_history::{FakeHistory, FakeRow};

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
    tombstones: Vec<(u64, Gone)>,
    /// The number of the newest transaction.
    transaction: u64,
    /// The number of a transaction that is still running.
    held: Option<u64>,
    hosts: BTreeMap<Uuid, Entry>,
    swept_at: Option<Timestamp>,
    history: FakeHistory,
}

impl Tables {
    /// Marks what a transaction of `by` changed since `before`, as the triggers of Postgres do.
    fn mark(&mut self, before: &Self, by: Option<Uuid>) {
        self.transaction += 1;
        let now = self.transaction;
        for (id, session) in &self.sessions {
            if before.sessions.get(id) != Some(session) || before.times.get(id) != self.times.get(id) {
                let others = match self.changed.get(id) {
                    Some(last) if last.by == by => last.others,
                    Some(last) => last.transaction,
                    None => 0,
                };
                self.changed.insert(id.clone(), Changed { transaction: now, by, others });
            }
        }
        for (id, session) in before.sessions.iter().filter(|(id, _)| !self.sessions.contains_key(*id)) {
            self.changed.remove(id);
            self.times.remove(id);
            self.tombstones.push((now, Gone { instance_id: id.clone(), created_at: session.created_at }));
        }
    }
}

struct State {
    clock: Clock,
    tables: Tables,
    faults: VecDeque<Fault>,
    rejected: BTreeSet<String>,
    /// Sessions whose rows another transaction has locked.
    locked: BTreeSet<String>,
    /// Why the table of sessions accepts no row: a new column, a trigger.
    broken: Option<Rejection>,
    read_only: bool,
    pushes: usize,
    /// How often a backup was restored.
    restored: u64,
}

/// The database. Clones share it.
#[derive(Clone)]
pub struct FakeCentral(Arc<Mutex<State>>);

/// A backup.
pub struct Snapshot(Tables);

impl FakeCentral {
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Mutex::new(State {
            clock,
            tables: Tables::default(),
            faults: VecDeque::new(),
            rejected: BTreeSet::new(),
            locked: BTreeSet::new(),
            broken: None,
            read_only: false,
            pushes: 0,
            restored: 0,
        })))
    }

    /// A connection of one host.
    pub fn connect(&self) -> FakeLink {
        FakeLink { central: self.clone(), me: None }
    }

    pub fn now(&self) -> Timestamp {
        (self.lock().clock)()
    }

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
            let changed = Column::ALL.iter().filter(|column| column.differs(&before, session));
            changed.for_each(|column| times.entry(id.to_owned()).or_default().set(*column, now));
        });
    }

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

    /// Reads or changes the records as another client or an operator would.
    pub fn with_history<T>(&self, change: impl FnOnce(&mut FakeHistory) -> T) -> T {
        change(&mut self.lock().tables.history)
    }

    /// Another client changes something.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let before = state.tables.clone();
        let result = change(&mut state);
        state.tables.mark(&before, None);
        result
    }

    /// Makes the next call fail; several faults queue.
    pub fn fail_next(&self, fault: Fault) {
        self.lock().faults.push_back(fault);
    }

    pub fn reject(&self, id: &str) {
        self.lock().rejected.insert(id.to_owned());
    }

    pub fn accept(&self, id: &str) {
        self.lock().rejected.remove(id);
    }

    /// Another transaction locks a row and is idle.
    pub fn lock_row(&self, id: &str) {
        self.lock().locked.insert(id.to_owned());
    }

    pub fn unlock_rows(&self) {
        self.lock().locked.clear();
    }

    /// Makes the table of sessions accept no row, or accept rows again.
    pub fn break_sessions(&self, why: Option<Rejection>) {
        self.lock().broken = why;
    }

    pub fn set_read_only(&self, read_only: bool) {
        self.lock().read_only = read_only;
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.lock().tables.clone())
    }

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

    pub fn transaction(&self) -> u64 {
        self.lock().tables.transaction
    }

    /// All deletions, with their transactions.
    pub fn tombstones(&self) -> Vec<(u64, Gone)> {
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
        };
        state.tables.hosts.insert(host_id, rival);
    }

    /// Moves all heartbeats of hosts and the last sweep into the past.
    pub fn silence(&self, by: Duration) {
        let mut state = self.lock();
        state.tables.hosts.values_mut().for_each(|host| host.last_seen = host.last_seen.minus(by));
        state.tables.swept_at = state.tables.swept_at.map(|at| at.minus(by));
    }

    pub fn batch_of(&self, host_id: Uuid) -> Option<i64> {
        self.lock().tables.hosts.get(&host_id).map(|host| host.batch)
    }

    pub fn last_seen(&self, host_id: Uuid) -> Option<Timestamp> {
        self.lock().tables.hosts.get(&host_id).map(|host| host.last_seen)
    }

    /// How many batches were applied.
    pub fn pushes(&self) -> usize {
        self.lock().pushes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panicked while it held the lock")
    }

    /// Runs one call as a transaction: it is applied whole or not at all.
    fn transact<T>(
        &self,
        by: Uuid,
        call: impl FnOnce(&mut State) -> Result<T, CentralError>,
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
            state.tables.mark(&before, Some(by));
        }
        match fault {
            Some(Fault::LoseAnswer) => Err(CentralError::Retry("the connection broke".into())),
            _ => answer,
        }
    }
}

#[derive(Clone)]
struct RegisteredHost {
    host_id: Uuid,
    claim: Uuid,
    own_claims: Vec<Uuid>,
    name: MachineName,
    former_names: Vec<MachineName>,
    /// How often central had been restored at the handshake.
    restored: u64,
}

pub struct FakeLink {
    central: FakeCentral,
    me: Option<RegisteredHost>,
}

impl FakeLink {
    fn me(&self) -> Result<RegisteredHost, CentralError> {
        self.me.clone().ok_or_else(|| CentralError::Retry("not connected to central".into()))
    }

    /// Closes the connection after an error that breaks it.
    fn finish_call<T>(&mut self, answer: Result<T, CentralError>) -> Result<T, CentralError> {
        if matches!(answer, Err(CentralError::Retry(_) | CentralError::Conflict(_))) {
            self.me = None;
        }
        answer
    }
}

impl Central for FakeLink {
    async fn handshake(&mut self, host: &HostRegistration) -> Result<Accepted, CentralError> {
        self.me = None;
        let accepted = self.central.transact(host.host_id, |state| handshake(state, host))?;
        self.me = Some(RegisteredHost {
            host_id: host.host_id,
            claim: host.claim,
            own_claims: host.own_claims.clone(),
            name: host.machine.clone(),
            former_names: accepted.former_names.clone(),
            restored: self.central.lock().restored,
        });
        Ok(accepted)
    }

    async fn push(&mut self, batch: Batch<'_>) -> Result<Vec<RowOutcome>, CentralError> {
        let me = self.me()?;
        let answer = self.central.transact(me.host_id, |state| push(state, &me, batch));
        self.finish_call(answer)
    }

    async fn locked_rows(&mut self, ids: &[InstanceId]) -> Result<Vec<InstanceId>, CentralError> {
        let me = self.me()?;
        let locked = |state: &mut State| {
            let rows = &state.tables.sessions;
            let is_locked = |id: &&InstanceId| state.locked.contains(id.as_str()) && rows.contains_key(id.as_str());
            Ok(ids.iter().filter(is_locked).cloned().collect())
        };
        let answer = self.central.transact(me.host_id, locked);
        self.finish_call(answer)
    }

    async fn history_tables(&mut self) -> Result<HistoryTables, CentralError> {
        let me = self.me()?;
        let answer = self.central.transact(me.host_id, |state| Ok(state.tables.history.tables.clone()));
        self.finish_call(answer)
    }

    fn last_clock(&self) -> Option<Timestamp> {
        self.me.as_ref().map(|_| self.central.now())
    }

    async fn sweep(&mut self, stale_after: Duration, interval: Duration) -> Result<SweepResult, CentralError> {
        let me = self.me()?;
        let answer = self.central.transact(me.host_id, |state| Ok(sweep(state, stale_after, interval)));
        self.finish_call(answer)
    }

    async fn pull(&mut self, reading: &Reading) -> Result<Changes, CentralError> {
        let me = self.me()?;
        let answer = self.central.transact(me.host_id, |state| match state.restored == me.restored {
            true => Ok(pull(&state.tables, &me, reading)),
            // A restore closes all connections.
            false => Err(CentralError::Retry("the connection broke".into())),
        });
        self.finish_call(answer)
    }

    async fn hosts(&mut self) -> Result<Vec<HostSeen>, CentralError> {
        let me = self.me()?;
        let answer = self.central.transact(me.host_id, |state| Ok(hosts(&state.tables)));
        self.finish_call(answer)
    }

    async fn listen(&mut self) -> bool {
        false
    }

    async fn next_notification(&mut self) -> Notification {
        std::future::pending().await
    }
}

fn handshake(state: &mut State, host: &HostRegistration) -> Result<Accepted, CentralError> {
    let now = (state.clock)();
    let hosts = &mut state.tables.hosts;
    for id in host.former_host_ids.iter().filter(|id| **id != host.host_id) {
        if let Some(former) = hosts.get_mut(id)
            && host.own_claims.contains(&former.claim)
            && (!former.retired || former.replaced_by.is_some_and(|by| host.former_host_ids.contains(&by)))
        {
            former.retired = true;
            former.replaced_by = Some(host.host_id);
        }
    }
    for (id, rival) in hosts.iter_mut() {
        let namesake = *id != host.host_id && rival.name == host.machine && !rival.retired;
        let usurped = *id == host.host_id
            && (rival.retired || rival.batch >= host.acked_batch && !host.own_claims.contains(&rival.claim));
        if host.replace && namesake {
            rival.retired = true;
            rival.replaced_by = Some(host.host_id);
        } else if !host.replace && (namesake || usurped) {
            return Err(conflict(rival.replaced_by.unwrap_or(*id), rival));
        }
    }
    let batch = hosts.get(&host.host_id).map_or(0, |own| own.batch);
    let own = Entry {
        name: host.machine.clone(),
        claim: host.claim,
        batch,
        last_seen: now,
        retired: false,
        replaced_by: None,
        stale_after: Some(host.stale_after),
    };
    hosts.insert(host.host_id, own);
    let mine = |(id, entry): (&Uuid, &Entry)| {
        let was_mine = entry.replaced_by == Some(host.host_id) || host.own_claims.contains(&entry.claim);
        (*id != host.host_id && host.former_host_ids.contains(id) && was_mine).then(|| entry.name.clone())
    };
    let former_names = hosts.iter().filter_map(mine).collect::<BTreeSet<_>>().into_iter().collect();
    let tables = state.tables.history.tables.clone();
    Ok(Accepted { batch, former_names, tables, timeline: state.restored.to_string() })
}

fn conflict(by: Uuid, entry: &Entry) -> CentralError {
    CentralError::Conflict(Conflict {
        host_id: by.to_string(),
        machine_name: entry.name.to_string(),
        last_seen: Some(entry.last_seen),
        message: format!(
            "another host ({by}) goes by the name {}; run `sessiond identity rename NAME` or `sessiond identity \
                 replace`",
            entry.name
        ),
    })
}

fn push(state: &mut State, me: &RegisteredHost, batch: Batch<'_>) -> Result<Vec<RowOutcome>, CentralError> {
    let now = (state.clock)();
    let own = state.tables.hosts.get_mut(&me.host_id).ok_or(CentralError::OutOfStep)?;
    if own.retired || own.batch >= batch.after && !me.own_claims.contains(&own.claim) {
        return Err(conflict(own.replaced_by.unwrap_or(me.host_id), own));
    }
    if own.claim != me.claim || own.batch != batch.after {
        return Err(CentralError::OutOfStep);
    }
    own.batch = batch.number;
    own.last_seen = now;
    if let Some(why) = state.broken.clone().filter(|_| !batch.sessions.is_empty()) {
        return Err(CentralError::Reject(why));
    }
    // A value that no schema of central takes.
    let rejection =
        |what: String| Rejection { code: "22P05".into(), message: format!("{what} is not to central's taste (22P05)") };
    if let Some(bad) = batch.sessions.iter().find(|s| state.rejected.contains(s.instance_id.as_str())) {
        return Err(CentralError::Reject(rejection(bad.instance_id.to_string())));
    }
    if let Some(bad) = batch.records.iter().find(|r| state.rejected.contains(&r.record_type)) {
        return Err(CentralError::Reject(rejection(bad.record_id.to_string())));
    }
    let about = batch.sessions.iter().map(|s| &s.instance_id).chain(batch.records.iter().map(|r| &r.instance_id));
    if let Some(id) = about.into_iter().find(|id| state.locked.contains(id.as_str())) {
        return Err(CentralError::Locked(format!("the row of {id} is locked (55P03)")));
    }
    state.pushes += 1;
    let Tables { sessions, times, history, .. } = &mut state.tables;
    let mut applied: Vec<_> = batch.sessions.iter().map(|session| apply(sessions, times, me, session, now)).collect();
    let pushed = batch.sessions.iter().zip(&applied);
    let absent: BTreeSet<_> =
        pushed.filter(|(_, a)| a.is_without_session()).map(|(s, _)| s.instance_id.as_str()).collect();
    applied.extend(history.apply(batch.records, |id| !absent.contains(id) && sessions.contains_key(id), now)?);
    Ok(applied)
}

fn apply(
    rows: &mut BTreeMap<String, Session>,
    times: &mut BTreeMap<String, ColumnTimes>,
    me: &RegisteredHost,
    offered: &TimedSession,
    now: Timestamp,
) -> RowOutcome {
    let session = &offered.session;
    let mut pushed = session.clone();
    let changes: ColumnTimes = offered.times.iter().map(|(column, at)| (column, at.min(now))).collect();
    let known = times.entry(session.instance_id.to_string()).or_default();
    pushed.last_heartbeat = pushed.last_heartbeat.min(now);
    pushed.closed_at = pushed.closed_at.map(|at| at.min(now));
    let Some(row) = rows.get_mut(session.instance_id.as_str()) else {
        rows.insert(session.instance_id.to_string(), pushed);
        *known = changes;
        return RowOutcome::Stored;
    };
    if row.created_at != pushed.created_at {
        return RowOutcome::IdCollision;
    }
    if row.host_machine != pushed.host_machine && !me.former_names.contains(&row.host_machine) {
        return RowOutcome::ForeignMachine { machine: row.host_machine.to_string() };
    }
    merge_columns((row, known), &pushed, &changes);
    merge(row, pushed, now);
    match (row.status, session.status) {
        (Status::Closed, Status::Active | Status::Stale) => {
            RowOutcome::ClosedElsewhere { closed_at: row.closed_at.unwrap_or(row.last_heartbeat) }
        }
        _ => RowOutcome::Stored,
    }
}

/// The later change of each column counts.
fn merge_columns((row, known): (&mut Session, &mut ColumnTimes), pushed: &Session, changes: &ColumnTimes) {
    for (column, at) in changes.iter() {
        if known.get(column).is_none_or(|known| at > known) {
            column.copy(pushed, row);
            known.set(column, at);
        }
    }
}

fn merge(row: &mut Session, pushed: Session, now: Timestamp) {
    row.host_machine = pushed.host_machine;
    if row.status != Status::Closed && pushed.status == Status::Closed {
        row.status = Status::Closed;
        row.closed_at = pushed.closed_at;
    }
    if pushed.last_heartbeat < row.last_heartbeat && row.last_heartbeat <= now {
        return;
    }
    row.last_heartbeat = pushed.last_heartbeat;
    if row.status != Status::Closed {
        row.status = pushed.status;
    }
}

fn sweep(state: &mut State, stale_after: Duration, interval: Duration) -> SweepResult {
    let now = (state.clock)();
    let tables = &mut state.tables;
    if tables.swept_at.is_some_and(|at| at > now.minus(interval)) {
        return SweepResult::default();
    }
    tables.swept_at = Some(now);
    let Tables { sessions, changed, hosts, .. } = tables;
    let limit = |host: &Entry| host.stale_after.unwrap_or(stale_after);
    let mut turned = 0;
    for (id, session) in sessions.iter_mut().filter(|(_, session)| session.status == Status::Active) {
        let by = changed.get(id).and_then(|last| last.by);
        let reporter = by.and_then(|by| hosts.get(&by)).filter(|host| !host.retired);
        let namesake = hosts.values().find(|host| !host.retired && host.name == session.host_machine);
        let allowed = reporter.or(namesake).map_or(stale_after, limit);
        let reported = reporter.is_some_and(|host| host.last_seen > now.minus(limit(host)));
        if session.last_heartbeat < now.minus(allowed) && !reported {
            session.status = Status::Stale;
            turned += 1;
        }
    }
    SweepResult { sessions: turned, more: false }
}

/// Rows of one page.
const PAGE: usize = 2;

fn pull(tables: &Tables, me: &RegisteredHost, reading: &Reading) -> Changes {
    let oldest_running = tables.held.unwrap_or(tables.transaction + 1);
    if reading.after.is_none() && reading.since > oldest_running {
        return Changes { rest: Rest::Everything, ..Changes::default() };
    }
    let next_since = reading.after.as_ref().map_or(oldest_running, |position| position.next_since);
    let (mut part, mut transaction, mut after) = reading.position();
    let mut changes = Changes::default();
    if part == Part::Deletions {
        let mut gone = deletions(tables, (transaction, after));
        gone.truncate(PAGE);
        changes.gone = gone.iter().map(|(_, gone)| gone.clone()).collect();
        if let Some((transaction, gone)) = gone.last().filter(|_| gone.len() == PAGE) {
            return next_page(changes, (part, *transaction, &gone.instance_id), next_since);
        }
        (part, transaction, after) = (Part::Sessions, reading.since, "");
    }
    if part == Part::Sessions {
        let mut found = sessions(tables, me, reading, (transaction, after));
        found.truncate(PAGE);
        changes.sessions = found.iter().map(|(_, id)| timed(tables, me, id)).collect();
        if let Some((transaction, id)) = found.last().filter(|_| found.len() == PAGE) {
            return next_page(changes, (part, *transaction, id), next_since);
        }
    }
    Changes { rest: Rest::Nothing { next_since }, ..changes }
}

fn is_own(tables: &Tables, me: &RegisteredHost, id: &str) -> bool {
    let machine = &tables.sessions[id].host_machine;
    *machine == me.name || me.former_names.contains(machine)
}

fn timed(tables: &Tables, me: &RegisteredHost, id: &str) -> TimedSession {
    let times = tables.times.get(id).filter(|_| is_own(tables, me, id)).copied().unwrap_or_default();
    TimedSession { session: tables.sessions[id].clone(), times }
}

fn next_page(changes: Changes, (part, transaction, after): (Part, u64, &str), next_since: u64) -> Changes {
    let position = Position { instance_id: after.to_owned(), ..Position::start(part, transaction, next_since) };
    Changes { rest: Rest::More(position), ..changes }
}

/// What was deleted after a place, and not brought back.
fn deletions<'a>(tables: &'a Tables, place: (u64, &str)) -> Vec<&'a (u64, Gone)> {
    let is_there =
        |gone: &Gone| tables.sessions.get(&gone.instance_id).is_some_and(|s| s.created_at == gone.created_at);
    let mut gone: Vec<_> = tables.tombstones.iter().collect();
    gone.sort_by_key(|(at, gone)| (*at, gone.instance_id.clone()));
    gone.retain(|(at, gone)| (*at, gone.instance_id.as_str()) > place && *at <= tables.transaction && !is_there(gone));
    gone
}

/// What changed after a place, or everything, by id.
fn sessions<'a>(tables: &'a Tables, me: &RegisteredHost, reading: &Reading, place: (u64, &str)) -> Vec<(u64, &'a str)> {
    if reading.is_whole() {
        return tables.sessions.keys().map(|id| (0, id.as_str())).filter(|(_, id)| *id > place.1).collect();
    }
    let mut changed = tables.changed.iter().map(|(id, last)| (last.transaction, id.as_str(), last)).collect::<Vec<_>>();
    changed.sort_by_key(|(at, id, _)| (*at, *id));
    changed.retain(|(at, id, _)| (*at, *id) > place && *at <= tables.transaction);
    changed.retain(|(_, id, last)| {
        let unread = (reading.since..=tables.transaction).contains(&last.others);
        last.by != Some(me.host_id) || !is_own(tables, me, id) || unread
    });
    changed.into_iter().map(|(at, id, _)| (at, id)).collect()
}

fn hosts(tables: &Tables) -> Vec<HostSeen> {
    let live = tables.hosts.values().filter(|host| !host.retired);
    live.map(|host| HostSeen { machine: host.name.clone(), last_seen: host.last_seen }).collect()
}
