//! What must be true: the sessions as their clients know them, from acknowledgements alone.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::time::Duration;

use uuid::Uuid;

use super::host::Answer;
use super::{STALE_AFTER, Violation};
use crate::domain::{
    Column, Happening, Heartbeat, InstanceId, InstanceType, MachineName, Project, Registration, Session, Status,
    Timestamp,
};
use crate::store::by_hand::ByHand;
use crate::store::{Caller, Process, Record, Store};

/// A type of event that central rejects.
pub const ODD_EVENT: &str = "odd";

const OWNER: Caller = Caller { uid: 1000 };

/// A session is known by when it was created: the simulation has no two of one moment.
pub type Key = Timestamp;

/// What clients, the daemon's look at its processes, and people ask of a store.
#[derive(Clone, Debug)]
pub enum Command {
    Register {
        epic: Option<String>,
        process: Option<Process>,
        machine: MachineName,
        draws: [u64; 8],
    },
    Heartbeat {
        key: Key,
        id: InstanceId,
        beat: Heartbeat,
    },
    Close {
        key: Key,
        id: InstanceId,
    },
    /// An event; one that central does not like if it is `odd`.
    Append {
        key: Key,
        id: InstanceId,
        number: u64,
        odd: bool,
    },
    SeenAlive {
        sessions: Vec<(Key, InstanceId)>,
    },
    Died {
        key: Key,
        id: InstanceId,
        process: Process,
    },
    Sweep,
    Prune {
        before: Timestamp,
    },
    FileUnder {
        name: MachineName,
    },
    RetryParked,
    DropParked,
    /// A disk that fails at the very commit.
    FailCommit,
}

impl Command {
    /// The call of the store that this is.
    pub fn carry_out(self, store: Store, at: Timestamp) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
        Box::pin(async move {
            match self {
                Self::Register { epic, process, machine, draws } => {
                    store.register(registration(machine, epic), process, OWNER, draws, at).await.map(Some)
                }
                Self::Heartbeat { id, beat, .. } => {
                    store.heartbeat(id.to_string(), beat, OWNER, at, STALE_AFTER).await.map(Some)
                }
                Self::Append { id, number, odd, .. } => {
                    let data = serde_json::Map::from_iter([("number".to_owned(), number.into())]);
                    let event = Happening::event(if odd { ODD_EVENT } else { "tool_use" }, data, None).unwrap();
                    let record_id = Uuid::from_u128(1 << 80 | u128::from(number));
                    store.append(id.to_string(), event, record_id, OWNER, at).await.map(|_| None)
                }
                Self::Close { id, .. } => store.close(id.to_string(), OWNER, at).await.map(Some),
                Self::SeenAlive { sessions } => {
                    let ids = sessions.into_iter().map(|(_, id)| id).collect();
                    store.seen_alive(ids, at, STALE_AFTER).await.map(|()| None)
                }
                Self::Died { id, process, .. } => store.process_died(id, process, at).await.map(|_| None),
                Self::Sweep => store.sweep(at, STALE_AFTER).await.map(|_| None),
                Self::Prune { before } => store.prune(before).await.map(|_| None),
                Self::FileUnder { name } => store.file_under(name, at).await.map(|_| None),
                Self::RetryParked => ByHand::unpark_all(&store, false).await.map(|_| None),
                Self::DropParked => ByHand::unpark_all(&store, true).await.map(|_| None),
                Self::FailCommit => {
                    let dangling = "PRAGMA defer_foreign_keys = ON; INSERT INTO aliases VALUES ('a', 'nothing', 0)";
                    ByHand::execute(&store, dangling).await.map(|()| None)
                }
            }
        })
    }
}

fn registration(host_machine: MachineName, current_epic: Option<String>) -> Registration {
    Registration {
        project: Project::parse("odin").unwrap(),
        instance_type: InstanceType::Ps,
        host_machine,
        context_percent: 0,
        // Some need so much room that the disk matters.
        claude_session_path: current_epic.clone().filter(|epic| epic.len() > 200).map(|epic| epic.repeat(8)),
        current_epic,
        claude_session_uuid: None,
        resumed_from: None,
        working_dir: None,
    }
}

/// One state of a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub status: Status,
    pub percent: u8,
    pub epic: Option<String>,
    pub heartbeat: Timestamp,
    pub closed_at: Option<Timestamp>,
}

impl State {
    /// Whether a column has the same value in both.
    pub fn agrees(&self, column: Column, other: &Self) -> bool {
        match column {
            Column::ContextPercent => self.percent == other.percent,
            Column::CurrentEpic => self.epic == other.epic,
            _ => true,
        }
    }

    pub fn of(session: &Session) -> Self {
        Self {
            status: session.status,
            percent: session.context_percent,
            epic: session.current_epic.clone(),
            heartbeat: session.last_heartbeat,
            closed_at: session.closed_at,
        }
    }
}

/// The columns that clients change in the simulation.
pub const WRITTEN: [Column; 2] = [Column::ContextPercent, Column::CurrentEpic];

/// A change of one of them: what it made of the column is in the state.
#[derive(Clone, Debug)]
pub struct Write {
    column: Column,
    value: State,
    at: Timestamp,
    foreign: bool,
    /// It bears a time at which it did not happen.
    odd: bool,
}

impl Write {
    fn fits(&self, column: Column, state: &State) -> bool {
        self.column == column && self.value.agrees(column, state)
    }

    /// Whether it must not take the place of another.
    fn is_older(&self, than: &Self) -> bool {
        // Writes of one writer are in order whatever its clock says.
        let comparable = !(self.odd || than.odd) || (self.foreign, than.foreign) == (false, false);
        comparable && self.at < than.at
    }
}

#[derive(Clone, Debug)]
pub struct Told {
    /// The id it was registered under, by which its client goes on calling it.
    pub id: InstanceId,
    pub host: usize,
    pub process: Option<Process>,
    /// Everything it ever was, newest last.
    pub states: Vec<State>,
    /// The oldest of these that central may still have.
    pub in_central: usize,
    /// How many states there were before the group that is being committed.
    before_group: usize,
    /// What clients without a daemon made of its row.
    pub foreign: Vec<State>,
    /// All changes of its columns, its host's and others'.
    pub writes: Vec<Write>,
    /// Which of these central has of each of the columns.
    central_has: BTreeMap<Column, Write>,
    pub closed_elsewhere: BTreeSet<Timestamp>,
    /// It had a heartbeat from the future once.
    pub future: bool,
    /// Its newest heartbeat bears a time at which it did not happen, its host's clock being wrong.
    pub odd: bool,
    /// A person gave up pushing it as it was then.
    pub dropped: bool,
    /// The numbers of its events, in order; those that central likes.
    pub events: Vec<u64>,
}

impl Told {
    pub fn now(&self) -> &State {
        self.states.last().expect("a state")
    }

    fn become_(&mut self, change: impl FnOnce(&mut State)) {
        let mut next = self.now().clone();
        change(&mut next);
        self.states.push(next);
    }

    fn beat(&mut self, at: Timestamp, true_now: Timestamp, clock_right: bool) {
        let before = self.now().heartbeat;
        let set_back = before.since(at) >= STALE_AFTER;
        let heartbeat = if set_back { at } else { before.max(at) };
        self.future |= heartbeat > true_now;
        self.odd = !(clock_right && heartbeat == at);
        self.become_(|state| {
            state.status = Status::Active;
            state.heartbeat = heartbeat;
        });
    }

    /// A client states a column; the newest state has its value.
    fn wrote(&mut self, column: Column, at: Timestamp, true_now: Timestamp) {
        let own = self.writes.iter().filter(|write| write.column == column && !write.foreign);
        let after_the_last = own.map(|write| write.at.plus(Duration::from_micros(1))).max();
        let at = after_the_last.map_or(at, |last| last.max(at));
        let odd = at.since(true_now).max(true_now.since(at)) > Duration::from_millis(1);
        let value = self.now().clone();
        self.writes.push(Write { column, value, at, foreign: false, odd });
    }

    /// Another client changed columns in central.
    pub fn edited(&mut self, before: &Session, after: &Session, at: Timestamp) {
        let value = State::of(after);
        for column in WRITTEN.into_iter().filter(|column| column.differs(before, after)) {
            self.writes.push(Write { column, value: value.clone(), at, foreign: true, odd: false });
        }
        self.foreign.push(value);
    }

    /// G4: central's column is something that it was, and no earlier change has taken the place of a later one.
    fn check_column(&mut self, column: Column, had: &State, before: Option<&State>) -> Result<(), Violation> {
        if before.is_some_and(|before| before.agrees(column, had)) && self.central_has.contains_key(&column) {
            return Ok(());
        }
        let last = self.central_has.get(&column).filter(|_| before.is_some());
        let fitting: Vec<_> = self.writes.iter().filter(|write| write.fits(column, had)).collect();
        // After a restore the earliest that it may be; else the latest.
        let write = match last {
            None => fitting.first().copied(),
            Some(last) => fitting.iter().rev().copied().find(|write| !write.is_older(last)),
        };
        match write.cloned() {
            Some(write) => self.central_has.insert(column, write),
            None if fitting.is_empty() => return Err(violation("G3", self, &format!("never was {had:?}"))),
            None => {
                let undone = format!("had {} undone: {last:?} became {had:?}", column.name());
                return Err(violation("G4", self, &undone));
            }
        };
        Ok(())
    }

    /// What the latest change made of a column, if that is certain.
    pub fn latest(&self, column: Column) -> Option<&State> {
        let writes = self.writes.iter().filter(|write| write.column == column);
        let latest = writes.clone().max_by_key(|write| write.at)?;
        let certain = !writes.clone().any(|write| write.odd) || writes.clone().all(|write| !write.foreign);
        certain.then_some(&latest.value)
    }

    pub fn is_open(&self) -> bool {
        self.now().status != Status::Closed
    }
}

/// By what clock, and how true it is, an answer came about.
#[derive(Clone, Copy)]
pub struct When {
    pub at: Timestamp,
    pub true_now: Timestamp,
}

#[derive(Default)]
pub struct Model {
    pub told: BTreeMap<Key, Told>,
    /// Up to when each host may have forgotten what was closed.
    pub pruned: [Option<Timestamp>; super::HOSTS],
}

impl Model {
    pub fn group_begins(&mut self) {
        self.told.values_mut().for_each(|told| told.before_group = told.states.len());
    }

    /// Takes in what a host said "done" to.
    pub fn acknowledge(&mut self, host: usize, command: &Command, when: When, record: Option<&Record>) {
        let When { at, true_now } = when;
        match command {
            Command::Register { process, .. } => {
                let session = &record.expect("the session").session;
                let state = State::of(session);
                let told = Told {
                    id: session.instance_id.clone(),
                    host,
                    process: *process,
                    in_central: 0,
                    before_group: 1,
                    foreign: Vec::new(),
                    writes: Vec::new(),
                    central_has: BTreeMap::new(),
                    closed_elsewhere: BTreeSet::new(),
                    future: state.heartbeat > true_now,
                    odd: at != true_now,
                    dropped: false,
                    events: Vec::new(),
                    states: vec![state],
                };
                let told = self.told.entry(session.created_at).insert_entry(told).into_mut();
                WRITTEN.into_iter().for_each(|column| told.wrote(column, at, true_now));
            }
            Command::Heartbeat { key, beat, .. } => {
                let Some(told) = self.told.get_mut(key) else { return };
                told.beat(at, true_now, at == true_now);
                let state = told.states.last_mut().expect("a state");
                state.percent = beat.context_percent.unwrap_or(state.percent);
                state.epic = beat.current_epic.clone().unwrap_or_else(|| state.epic.clone());
                let stated = [beat.context_percent.is_some(), beat.current_epic.is_some()];
                for (column, _) in WRITTEN.into_iter().zip(stated).filter(|(_, stated)| *stated) {
                    told.wrote(column, at, true_now);
                }
            }
            Command::Close { key, .. } => {
                let Some(told) = self.told.get_mut(key).filter(|told| told.is_open()) else { return };
                // Somebody may have closed it in central before, and the host learned of it just now.
                let kept = record.and_then(|record| record.session.closed_at);
                let before = kept.filter(|at| told.closed_elsewhere.contains(at));
                told.process = None;
                told.become_(|state| {
                    state.status = Status::Closed;
                    state.closed_at = Some(before.unwrap_or(at.max(*key)));
                });
            }
            Command::Append { key, number, odd, .. } => {
                if let Some(told) = self.told.get_mut(key).filter(|_| !odd) {
                    told.events.push(*number);
                }
            }
            Command::SeenAlive { sessions } => {
                for (key, _) in sessions {
                    if let Some(told) = self.told.get_mut(key).filter(|told| told.is_open() && told.process.is_some()) {
                        told.beat(at, true_now, at == true_now);
                    }
                }
            }
            Command::Died { key, process, .. } => {
                let Some(told) = self.told.get_mut(key).filter(|told| told.process == Some(*process)) else { return };
                told.process = None;
                if told.now().status == Status::Active {
                    told.become_(|state| state.status = Status::Stale);
                }
            }
            Command::Sweep => {
                for told in self.told.values_mut().filter(|told| told.host == host) {
                    let state = told.now();
                    let silent = at.since(state.heartbeat).max(state.heartbeat.since(at)) >= STALE_AFTER;
                    if state.status == Status::Active && silent {
                        told.become_(|state| state.status = Status::Stale);
                    }
                }
            }
            Command::Prune { before } => self.pruned[host] = self.pruned[host].max(Some(*before)),
            Command::DropParked => {
                self.told.values_mut().filter(|told| told.host == host).for_each(|told| told.dropped = true);
            }
            Command::FileUnder { .. } | Command::RetryParked | Command::FailCommit => {}
        }
    }

    /// G1, G4: a host's store holds exactly what it acknowledged.
    pub fn check_store(&mut self, host: usize, get: impl Fn(&InstanceId) -> Option<Record>) -> Result<(), Violation> {
        let pruned = self.pruned[host];
        for (key, told) in self.told.iter_mut().filter(|(_, told)| told.host == host) {
            // What is mirrored of it is central's.
            let Some(record) = get(&told.id).filter(|record| !record.mirrored) else {
                if told.now().closed_at.is_some_and(|at| Some(at) < pruned) {
                    continue;
                }
                return Err(violation("G1", told, "is gone"));
            };
            if record.session.created_at != *key {
                return Err(violation("G4", told, "leads to another session"));
            }
            if told.is_open() && record.session.status == Status::Closed {
                told.closed_there(&State::of(&record.session))?;
            }
            let kept = State::of(&record.session);
            if kept != *told.now() && !told.spoken_for(&kept) {
                return Err(violation("G1", told, &format!("is kept as {:?}", record.session)));
            }
        }
        Ok(())
    }

    /// G3, G4: a row of central is something its session was, and nothing older than what was there.
    pub fn check_row(&mut self, row: &Session, before: Option<&Session>, now: Timestamp) -> Result<(), Violation> {
        let Some(told) = self.told.get_mut(&row.created_at) else {
            return Err(Violation { guarantee: "G4", what: format!("nobody registered {row:?}") });
        };
        if let Some(before) = before {
            if row.last_heartbeat < before.last_heartbeat && before.last_heartbeat <= now {
                return Err(violation("G4", told, &format!("had its heartbeat moved back: {before:?} to {row:?}")));
            }
            if before.status == Status::Closed && (row.status, row.closed_at) != (Status::Closed, before.closed_at) {
                return Err(violation("G4", told, &format!("did not stay closed: {before:?} to {row:?}")));
            }
        }
        let had = State::of(row);
        let before = before.map(State::of);
        for column in WRITTEN {
            told.check_column(column, &had, before.as_ref())?;
        }
        if told.foreign.iter().any(|foreign| foreign.heartbeat == had.heartbeat) {
            return Ok(());
        }
        let matches = |state: &State| {
            let cut = told.future && state.heartbeat > had.heartbeat && had.heartbeat <= now;
            (state.heartbeat == had.heartbeat || cut) && (state.status == had.status || had.status != Status::Active)
        };
        match (told.in_central..told.states.len()).find(|i| matches(&told.states[*i])) {
            Some(index) => told.in_central = index,
            None if told.states.iter().any(matches) => {
                return Err(violation("G4", told, &format!("went back to {row:?}")));
            }
            None => return Err(violation("G3", told, &format!("never was {row:?}"))),
        }
        Ok(())
    }
}

impl Told {
    /// Clients without a daemon changed it in central, and its host has adopted that: before or after what
    /// the host did itself in the same commit, so that either may have had the last word of each field.
    fn spoken_for(&mut self, kept: &State) -> bool {
        let group = self.before_group.saturating_sub(1);
        let own = &self.states[group..];
        let Some(before) = own.first() else { return false };
        let written = |column| {
            own.iter().any(|state| state.agrees(column, kept))
                || self.writes.iter().any(|write| write.foreign && write.fits(column, kept))
        };
        let of = |field: &dyn Fn(&State) -> bool| own.iter().chain(&self.foreign).any(field);
        let learned = !self.foreign.is_empty()
            && WRITTEN.into_iter().all(written)
            && of(&|state| state.heartbeat == kept.heartbeat)
            && (of(&|state| (state.status, state.closed_at) == (kept.status, kept.closed_at)))
            && kept.heartbeat >= before.heartbeat;
        if learned {
            self.states.push(kept.clone());
        }
        learned
    }

    /// Somebody else closed it in central, and its host has learned of it.
    fn closed_there(&mut self, kept: &State) -> Result<(), Violation> {
        if !kept.closed_at.is_some_and(|at| self.closed_elsewhere.contains(&at)) {
            return Err(violation("G4", self, &format!("was closed by nobody: {kept:?}")));
        }
        // What the daemon would have noted by itself in the same commit, had it been open.
        while self.states.len() > self.before_group && self.now().heartbeat != kept.heartbeat {
            self.states.pop();
        }
        self.process = None;
        let (status, closed_at) = (kept.status, kept.closed_at);
        self.become_(|state| (state.status, state.closed_at) = (status, closed_at));
        Ok(())
    }
}

pub fn violation(guarantee: &'static str, told: &Told, what: &str) -> Violation {
    let last = &told.states[told.states.len().saturating_sub(4)..];
    let what = format!("{} of host {} {what}; it was {last:?}", told.id, told.host);
    Violation { guarantee, what: what.replace(&"e".repeat(256), "e..") }
}
