//! What must be true: the sessions as their clients know them, from acknowledgements alone.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;

use uuid::Uuid;

use super::host::Answer;
use super::{STALE_AFTER, Violation};
use crate::domain::{
    Happening, Heartbeat, InstanceId, InstanceType, MachineName, Project, Registration, Session, Status, Timestamp,
};
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
                Self::RetryParked => store.retry_parked(Vec::new()).await.map(|_| None),
                Self::DropParked => store.drop_parked(Vec::new()).await.map(|_| None),
                Self::FailCommit => {
                    let dangling = "PRAGMA defer_foreign_keys = ON; INSERT INTO aliases VALUES ('a', 'nothing', 0)";
                    crate::store::by_hand::ByHand::execute(&store, dangling).await.map(|()| None)
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
        current_epic,
        claude_session_uuid: None,
        claude_session_path: None,
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
                    closed_elsewhere: BTreeSet::new(),
                    future: state.heartbeat > true_now,
                    odd: at != true_now,
                    dropped: false,
                    events: Vec::new(),
                    states: vec![state],
                };
                self.told.insert(session.created_at, told);
            }
            Command::Heartbeat { key, beat, .. } => {
                let Some(told) = self.told.get_mut(key) else { return };
                told.beat(at, true_now, at == true_now);
                let state = told.states.last_mut().expect("a state");
                state.percent = beat.context_percent.unwrap_or(state.percent);
                state.epic = beat.current_epic.clone().unwrap_or_else(|| state.epic.clone());
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
        if told.foreign.iter().any(|foreign| same_but_status(foreign, &had)) {
            return Ok(());
        }
        let matches = |state: &State| {
            let cut = told.future && state.heartbeat > had.heartbeat && had.heartbeat <= now;
            (state.percent, &state.epic) == (had.percent, &had.epic)
                && (state.heartbeat == had.heartbeat || cut)
                && (state.status == had.status || had.status != Status::Active)
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
    /// A client without a daemon spoke for it in central, and its host has learned of it: before or after what
    /// the host did itself in the same commit, so that either may have had the last word of each field.
    fn spoken_for(&mut self, kept: &State) -> bool {
        let group = self.before_group.saturating_sub(1);
        let own = &self.states[group..];
        let Some(before) = own.first() else { return false };
        let of = |field: &dyn Fn(&State) -> bool| own.iter().chain(&self.foreign).any(field);
        let learned = self.foreign.iter().any(|state| state.heartbeat > before.heartbeat)
            && of(&|state| state.percent == kept.percent)
            && of(&|state| state.epic == kept.epic)
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

fn same_but_status(a: &State, b: &State) -> bool {
    (a.percent, &a.epic, a.heartbeat) == (b.percent, &b.epic, b.heartbeat)
}

pub fn violation(guarantee: &'static str, told: &Told, what: &str) -> Violation {
    let last = &told.states[told.states.len().saturating_sub(4)..];
    let what = format!("{} of host {} {what}; it was {last:?}", told.id, told.host);
    Violation { guarantee, what: what.replace(&"e".repeat(256), "e..") }
}
