//! A central in memory: the model that the real one is held to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sessiond::clock::Clock;
use sessiond::domain::link::Conflict;
use sessiond::domain::session::fresh;
use sessiond::domain::{MachineName, MachineSummary, Session, Status, Timestamp};
use sessiond::sync::central::{Applied, Batch, Central, CentralError, Host, Welcome};
use uuid::Uuid;

use super::fake_history::{FakeHistory, FakeRow};

/// What shall go wrong with the next call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It fails before anything is applied.
    Fail(CentralError),
    /// It is applied, and the answer is lost.
    LoseAnswer,
}

/// A host as central has it.
#[derive(Clone, Debug)]
struct Entry {
    name: MachineName,
    claim: Uuid,
    batch: i64,
    last_seen: Timestamp,
    retired: bool,
    replaced_by: Option<Uuid>,
}

#[derive(Clone, Debug, Default)]
struct Tables {
    sessions: BTreeMap<String, Session>,
    hosts: BTreeMap<Uuid, Entry>,
    swept_at: Option<Timestamp>,
    history: FakeHistory,
}

struct State {
    clock: Clock,
    tables: Tables,
    faults: VecDeque<Fault>,
    rejected: BTreeSet<String>,
    read_only: bool,
    pushes: usize,
}

/// The database itself, in the hand of a test.
#[derive(Clone)]
pub struct FakeCentral(Arc<Mutex<State>>);

/// A copy of everything in it, like a backup.
pub struct Snapshot(Tables);

impl FakeCentral {
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Mutex::new(State {
            clock,
            tables: Tables::default(),
            faults: VecDeque::new(),
            rejected: BTreeSet::new(),
            read_only: false,
            pushes: 0,
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

    /// Writes a row as another client would.
    pub fn put(&self, session: &Session) {
        self.lock().tables.sessions.insert(session.instance_id.to_string(), session.clone());
    }

    pub fn delete(&self, id: &str) {
        let mut state = self.lock();
        state.tables.sessions.remove(id);
        state.tables.history.forget(id);
    }

    /// What central has of a session's history, by kind and in order.
    pub fn history(&self, id: &str) -> Vec<FakeRow> {
        self.lock().tables.history.of(id)
    }

    /// Reads or changes what central has of history as another client, or a person, would.
    pub fn with_history<T>(&self, change: impl FnOnce(&mut FakeHistory) -> T) -> T {
        change(&mut self.lock().tables.history)
    }

    /// The next call meets this; several wait in line.
    pub fn fail_next(&self, fault: Fault) {
        self.lock().faults.push_back(fault);
    }

    pub fn reject(&self, id: &str) {
        self.lock().rejected.insert(id.to_owned());
    }

    pub fn accept(&self, id: &str) {
        self.lock().rejected.remove(id);
    }

    pub fn set_read_only(&self, read_only: bool) {
        self.lock().read_only = read_only;
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.lock().tables.clone())
    }

    pub fn restore(&self, snapshot: Snapshot) {
        self.lock().tables = snapshot.0;
    }

    /// Another client closes a session.
    pub fn close(&self, id: &str) {
        let mut state = self.lock();
        let now = (state.clock)();
        let session = state.tables.sessions.get_mut(id).expect("a session to close");
        session.close(now);
    }

    /// Another host takes a name for itself.
    pub fn claim_name(&self, name: &str, host_id: Uuid) {
        let mut state = self.lock();
        let last_seen = (state.clock)();
        let name = MachineName::parse(name).expect("a machine name");
        let rival = Entry { name, claim: Uuid::from_u128(7), batch: 0, last_seen, retired: false, replaced_by: None };
        state.tables.hosts.insert(host_id, rival);
    }

    /// As if no daemon had spoken, and no sweep been made, for this long.
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

    /// How many batches have been applied.
    pub fn pushes(&self) -> usize {
        self.lock().pushes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panicked in here")
    }

    /// Runs one call as a transaction: applied whole if it succeeds, not at all if it does not.
    fn transact<T>(&self, call: impl FnOnce(&mut State) -> Result<T, CentralError>) -> Result<T, CentralError> {
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
        }
        match fault {
            Some(Fault::LoseAnswer) => Err(CentralError::Retry("the connection broke".into())),
            _ => answer,
        }
    }
}

#[derive(Clone)]
struct Me {
    host_id: Uuid,
    claim: Uuid,
    own_claims: Vec<Uuid>,
    former_names: Vec<MachineName>,
}

pub struct FakeLink {
    central: FakeCentral,
    me: Option<Me>,
}

impl FakeLink {
    fn me(&self) -> Result<Me, CentralError> {
        self.me.clone().ok_or_else(|| CentralError::Retry("not connected to central".into()))
    }

    /// After an error the connection is gone, but for the two that leave it whole.
    fn settle<T>(&mut self, answer: Result<T, CentralError>) -> Result<T, CentralError> {
        if !matches!(answer, Ok(_) | Err(CentralError::Reject(_) | CentralError::OutOfStep)) {
            self.me = None;
        }
        answer
    }
}

impl Central for FakeLink {
    async fn hello(&mut self, host: &Host) -> Result<Welcome, CentralError> {
        self.me = None;
        let welcome = self.central.transact(|state| hello(state, host))?;
        self.me = Some(Me {
            host_id: host.host_id,
            claim: host.claim,
            own_claims: host.own_claims.clone(),
            former_names: welcome.former_names.clone(),
        });
        Ok(welcome)
    }

    async fn push(&mut self, batch: Batch<'_>) -> Result<Vec<Applied>, CentralError> {
        let me = self.me()?;
        let answer = self.central.transact(|state| push(state, &me, batch));
        self.settle(answer)
    }

    async fn sweep(&mut self, stale_after: Duration, interval: Duration) -> Result<u64, CentralError> {
        self.me()?;
        let answer = self.central.transact(|state| Ok(sweep(state, stale_after, interval)));
        self.settle(answer)
    }

    async fn machines(&mut self, stale_after: Duration) -> Result<Vec<MachineSummary>, CentralError> {
        self.me()?;
        let answer = self.central.transact(|state| Ok(machines(state, stale_after)));
        self.settle(answer)
    }
}

fn hello(state: &mut State, host: &Host) -> Result<Welcome, CentralError> {
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
        let usurped = *id == host.host_id && (rival.retired || !host.own_claims.contains(&rival.claim));
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
    };
    hosts.insert(host.host_id, own);
    let mine = |(id, entry): (&Uuid, &Entry)| {
        let was_mine = entry.replaced_by == Some(host.host_id) || host.own_claims.contains(&entry.claim);
        (*id != host.host_id && host.former_host_ids.contains(id) && was_mine).then(|| entry.name.clone())
    };
    let former_names = hosts.iter().filter_map(mine).collect::<BTreeSet<_>>().into_iter().collect();
    Ok(Welcome { batch, former_names, tables: state.tables.history.tables.clone() })
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

fn push(state: &mut State, me: &Me, batch: Batch<'_>) -> Result<Vec<Applied>, CentralError> {
    let now = (state.clock)();
    let own = state.tables.hosts.get_mut(&me.host_id).ok_or(CentralError::OutOfStep)?;
    if own.retired || !me.own_claims.contains(&own.claim) {
        return Err(conflict(own.replaced_by.unwrap_or(me.host_id), own));
    }
    if own.claim != me.claim || own.batch != batch.after {
        return Err(CentralError::OutOfStep);
    }
    own.batch = batch.number;
    own.last_seen = now;
    if let Some(bad) = batch.sessions.iter().find(|s| state.rejected.contains(s.instance_id.as_str())) {
        return Err(CentralError::Reject(format!("{} is not to central's taste", bad.instance_id)));
    }
    if let Some(bad) = batch.records.iter().find(|r| state.rejected.contains(&r.record_type)) {
        return Err(CentralError::Reject(format!("{} is not to central's taste", bad.record_id)));
    }
    state.pushes += 1;
    let Tables { sessions, history, .. } = &mut state.tables;
    let mut applied: Vec<_> = batch.sessions.iter().map(|session| apply(sessions, me, session, now)).collect();
    let pushed = batch.sessions.iter().zip(&applied);
    let absent: BTreeSet<_> = pushed.filter(|(_, a)| a.leaves_none()).map(|(s, _)| s.instance_id.as_str()).collect();
    applied.extend(history.apply(batch.records, |id| !absent.contains(id) && sessions.contains_key(id), now)?);
    Ok(applied)
}

fn apply(rows: &mut BTreeMap<String, Session>, me: &Me, session: &Session, now: Timestamp) -> Applied {
    let mut pushed = session.clone();
    pushed.last_heartbeat = pushed.last_heartbeat.min(now);
    pushed.closed_at = pushed.closed_at.map(|at| at.min(now));
    let Some(row) = rows.get_mut(session.instance_id.as_str()) else {
        rows.insert(session.instance_id.to_string(), pushed);
        return Applied::Taken;
    };
    if row.created_at != pushed.created_at {
        return Applied::Collided;
    }
    if row.host_machine != pushed.host_machine && !me.former_names.contains(&row.host_machine) {
        return Applied::Foreign { machine: row.host_machine.to_string() };
    }
    merge(row, pushed, now);
    match (row.status, session.status) {
        (Status::Closed, Status::Active | Status::Stale) => {
            Applied::ClosedElsewhere { closed_at: row.closed_at.unwrap_or(row.last_heartbeat) }
        }
        _ => Applied::Taken,
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
    row.context_percent = pushed.context_percent;
    row.current_epic = pushed.current_epic;
    row.claude_session_uuid = pushed.claude_session_uuid;
    row.claude_session_path = pushed.claude_session_path;
    row.working_dir = pushed.working_dir;
    if row.status != Status::Closed {
        row.status = pushed.status;
    }
}

fn sweep(state: &mut State, stale_after: Duration, interval: Duration) -> u64 {
    let now = (state.clock)();
    let tables = &mut state.tables;
    if tables.swept_at.is_some_and(|at| at > now.minus(interval)) {
        return 0;
    }
    tables.swept_at = Some(now);
    let speaks = |host: &&Entry| !host.retired && host.last_seen > now.minus(stale_after);
    let living = tables.hosts.values().filter(speaks).map(|host| &host.name).collect::<BTreeSet<_>>();
    let vanished = tables.sessions.values_mut().filter(|s| {
        s.status == Status::Active && s.last_heartbeat < now.minus(stale_after) && !living.contains(&s.host_machine)
    });
    vanished.map(|session| session.status = Status::Stale).count() as u64
}

fn machines(state: &State, stale_after: Duration) -> Vec<MachineSummary> {
    let now = (state.clock)();
    let live = || state.tables.hosts.values().filter(|host| !host.retired);
    let sessions = || state.tables.sessions.values();
    let names = live().map(|host| &host.name).chain(sessions().map(|s| &s.host_machine)).collect::<BTreeSet<_>>();
    let mut machines = names
        .into_iter()
        .map(|name| {
            let here = || sessions().filter(|s| s.host_machine == *name);
            let count = |what: &dyn Fn(&Session) -> bool| here().filter(|s| what(s)).count() as i64;
            let closed = count(&|s| s.status == Status::Closed);
            let active = count(&|s| s.status == Status::Active && fresh(s.last_heartbeat, now, stale_after));
            let projects = here().map(|s| s.project.to_string()).collect::<BTreeSet<_>>();
            MachineSummary {
                host_machine: name.clone(),
                total_sessions: count(&|_| true),
                active_sessions: active,
                stale_sessions: count(&|_| true) - active - closed,
                closed_sessions: closed,
                last_activity: here().map(|s| s.last_heartbeat).max(),
                projects: projects.into_iter().collect::<Vec<_>>().join(", "),
                last_seen: live().find(|host| host.name == *name).map(|host| host.last_seen),
            }
        })
        .collect::<Vec<_>>();
    machines.sort_by_key(|m| (std::cmp::Reverse(m.last_activity), m.host_machine.clone()));
    machines
}
