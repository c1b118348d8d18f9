//! The model: which state each session must have, derived only from acknowledged commands and from changes in central.
//!
//! Every session has the list of its states, and of the changes of its columns with their times. A store must have the
//! newest state (G1, G4); a row of central must have a state of the list, and never an older one than before (G3, G4).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::command::{Command, Key};
use super::setup::{HOSTS, STALE_AFTER, Violation};
use crate::domain::Process;
use crate::domain::{Heartbeat, InstanceId, Session, SharedColumn, Status, Timestamp};
use crate::store::Record;

/// One state of a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SessionState {
    pub status: Status,
    pub percent: u8,
    pub epic: Option<String>,
    pub heartbeat: Timestamp,
    pub closed_at: Option<Timestamp>,
}

impl SessionState {
    /// Whether a column has the same value in both.
    pub(super) fn agrees(&self, column: SharedColumn, other: &Self) -> bool {
        match column {
            SharedColumn::ContextPercent => self.percent == other.percent,
            SharedColumn::CurrentEpic => self.epic == other.epic,
            _ => true,
        }
    }

    pub(super) fn of(session: &Session) -> Self {
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
pub(super) const WRITTEN: [SharedColumn; 2] = [SharedColumn::ContextPercent, SharedColumn::CurrentEpic];

/// A change of one of them: what it made of the column is in the state.
#[derive(Clone, Debug)]
pub(super) struct ColumnWrite {
    column: SharedColumn,
    value: SessionState,
    at: Timestamp,
    foreign: bool,
    /// Its time is wrong, because the host's clock was.
    odd: bool,
}

impl ColumnWrite {
    fn fits(&self, column: SharedColumn, state: &SessionState) -> bool {
        self.column == column && self.value.agrees(column, state)
    }

    /// Whether it must not replace another write.
    fn is_older(&self, than: &Self) -> bool {
        // Writes of one writer are in order, whatever its clock.
        let comparable = !(self.odd || than.odd) || (self.foreign, than.foreign) == (false, false);
        comparable && self.at < than.at
    }
}

#[derive(Clone, Debug)]
pub(super) struct ExpectedSession {
    /// The id that it was registered with, which its client keeps using.
    pub id: InstanceId,
    pub host: usize,
    pub process: Option<Process>,
    /// All its states, newest last.
    pub states: Vec<SessionState>,
    /// The oldest of these that central may still have.
    pub in_central: usize,
    /// How many states there were before the group that is being committed.
    before_group: usize,
    /// The states that clients without a daemon gave its row.
    pub foreign: Vec<SessionState>,
    /// All changes of its columns, by its host and by others.
    pub writes: Vec<ColumnWrite>,
    /// For each column, the change that central has.
    central_has: BTreeMap<SharedColumn, ColumnWrite>,
    pub closed_elsewhere: BTreeSet<Timestamp>,
    /// It had a heartbeat from the future once.
    pub future: bool,
    /// The time of its newest heartbeat is wrong, because the host's clock was.
    pub odd: bool,
    /// An operator dropped it from the parked rows.
    pub dropped: bool,
    /// The numbers of its events that central accepts, in order.
    pub events: Vec<u64>,
}

impl ExpectedSession {
    pub(super) fn now(&self) -> &SessionState {
        self.states.last().expect("a state")
    }

    fn push_state(&mut self, change: impl FnOnce(&mut SessionState)) {
        let mut next = self.now().clone();
        change(&mut next);
        self.states.push(next);
    }

    fn beat(&mut self, When { at, true_now }: When) {
        let before = self.now().heartbeat;
        let set_back = before.since(at) >= STALE_AFTER;
        let heartbeat = if set_back { at } else { before.max(at) };
        self.future |= heartbeat > true_now;
        self.odd = !(at == true_now && heartbeat == at);
        self.push_state(|state| {
            state.status = Status::Active;
            state.heartbeat = heartbeat;
        });
    }

    fn acknowledge_heartbeat(&mut self, beat: &Heartbeat, when: When) {
        self.beat(when);
        let state = self.states.last_mut().expect("a state");
        state.percent = beat.context_percent.unwrap_or(state.percent);
        state.epic = beat.current_epic.clone().unwrap_or_else(|| state.epic.clone());
        let is_written = [beat.context_percent.is_some(), beat.current_epic.is_some()];
        for (column, _) in WRITTEN.into_iter().zip(is_written).filter(|(_, is_written)| *is_written) {
            self.wrote(column, when.at, when.true_now);
        }
    }

    fn acknowledge_close(&mut self, created_at: Timestamp, at: Timestamp, record: Option<&Record>) {
        // Another client may have closed it in central before, and the host imported that in the same commit.
        let kept = record.and_then(|record| record.session.closed_at);
        let before = kept.filter(|at| self.closed_elsewhere.contains(at));
        self.process = None;
        self.push_state(|state| {
            state.status = Status::Closed;
            state.closed_at = Some(before.unwrap_or(at.max(created_at)));
        });
    }

    fn is_silent(&self, at: Timestamp) -> bool {
        let heartbeat = self.now().heartbeat;
        at.since(heartbeat).max(heartbeat.since(at)) >= STALE_AFTER
    }

    fn turn_stale(&mut self) {
        if self.now().status == Status::Active {
            self.push_state(|state| state.status = Status::Stale);
        }
    }

    /// A client wrote a column; the newest state has its value.
    fn wrote(&mut self, column: SharedColumn, at: Timestamp, true_now: Timestamp) {
        let own = self.writes.iter().filter(|write| write.column == column && !write.foreign);
        let after_the_last = own.map(|write| write.at.plus(Duration::from_micros(1))).max();
        let at = after_the_last.map_or(at, |last| last.max(at));
        let odd = at.since(true_now).max(true_now.since(at)) > Duration::from_millis(1);
        let value = self.now().clone();
        self.writes.push(ColumnWrite { column, value, at, foreign: false, odd });
    }

    /// Another client changed columns in central.
    pub(super) fn edited(&mut self, before: &Session, after: &Session, at: Timestamp) {
        let value = SessionState::of(after);
        for column in WRITTEN.into_iter().filter(|column| column.differs(before, after)) {
            self.writes.push(ColumnWrite { column, value: value.clone(), at, foreign: true, odd: false });
        }
        self.foreign.push(value);
    }

    /// G4: central's column has a value that it had, and no earlier change replaced a later one.
    fn check_column(
        &mut self,
        column: SharedColumn,
        had: &SessionState,
        before: Option<&SessionState>,
    ) -> Result<(), Violation> {
        if before.is_some_and(|before| before.agrees(column, had)) && self.central_has.contains_key(&column) {
            return Ok(());
        }
        let last = self.central_has.get(&column).filter(|_| before.is_some());
        let fitting: Vec<_> = self.writes.iter().filter(|write| write.fits(column, had)).collect();
        // After a restore the earliest that fits; else the latest.
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
    pub(super) fn latest(&self, column: SharedColumn) -> Option<&SessionState> {
        let writes = self.writes.iter().filter(|write| write.column == column);
        let latest = writes.clone().max_by_key(|write| write.at)?;
        let certain = !writes.clone().any(|write| write.odd) || writes.clone().all(|write| !write.foreign);
        certain.then_some(&latest.value)
    }

    /// Whether central may have this status, heartbeat and time of closing at the end of a run.
    pub(super) fn fits(&self, has: &SessionState) -> bool {
        let is_closed_there = has.closed_at.is_some_and(|at| self.closed_elsewhere.contains(&at));
        let closed_at_fits =
            has.closed_at == self.now().closed_at || is_closed_there || self.now().closed_at > has.closed_at;
        let is_newest = has.heartbeat == self.now().heartbeat;
        let is_foreign = self.foreign.iter().any(|foreign| foreign.heartbeat == has.heartbeat);
        // Changes by others are not adopted while the session is silent here.
        let status_fits =
            has.status == self.now().status || is_closed_there || ((is_foreign || self.odd) && self.is_open());
        status_fits && closed_at_fits && (is_newest || is_foreign || self.odd)
    }

    pub(super) fn is_open(&self) -> bool {
        self.now().status != Status::Closed
    }
}

/// When a command was performed, by the host's clock and truly.
#[derive(Clone, Copy)]
pub(super) struct When {
    pub at: Timestamp,
    pub true_now: Timestamp,
}

#[derive(Default)]
pub(super) struct Model {
    pub sessions: BTreeMap<Key, ExpectedSession>,
    /// Each host may have pruned what was closed before this.
    pub pruned: [Option<Timestamp>; HOSTS],
}

impl Model {
    pub(super) fn begin_group(&mut self) {
        self.sessions.values_mut().for_each(|expected| expected.before_group = expected.states.len());
    }

    /// Applies a command that a host acknowledged.
    pub(super) fn acknowledge(&mut self, host: usize, command: &Command, when: When, record: Option<&Record>) {
        match command {
            Command::Register { process, .. } => {
                self.register(host, *process, when, &record.expect("the session").session);
            }
            Command::Heartbeat { key, beat, .. } => {
                if let Some(expected) = self.sessions.get_mut(key) {
                    expected.acknowledge_heartbeat(beat, when);
                }
            }
            Command::Close { key, .. } => {
                if let Some(expected) = self.sessions.get_mut(key).filter(|expected| expected.is_open()) {
                    expected.acknowledge_close(*key, when.at, record);
                }
            }
            Command::Append { key, number, odd, .. } => {
                if let Some(expected) = self.sessions.get_mut(key).filter(|_| !odd) {
                    expected.events.push(*number);
                }
            }
            Command::SeenAlive { sessions } => {
                for (key, _) in sessions {
                    let is_watched = |expected: &&mut ExpectedSession| expected.is_open() && expected.process.is_some();
                    if let Some(expected) = self.sessions.get_mut(key).filter(is_watched) {
                        expected.beat(when);
                    }
                }
            }
            Command::Died { key, process, .. } => {
                if let Some(expected) = self.sessions.get_mut(key).filter(|s| s.process == Some(*process)) {
                    expected.process = None;
                    expected.turn_stale();
                }
            }
            Command::Sweep => self.of_host(host).filter(|s| s.is_silent(when.at)).for_each(ExpectedSession::turn_stale),
            Command::Prune { before } => self.pruned[host] = self.pruned[host].max(Some(*before)),
            Command::DropParked => self.of_host(host).for_each(|expected| expected.dropped = true),
            // What it made of the work is compared at the end.
            Command::Work { .. } => {}
            Command::FileUnder { .. } | Command::RetryParked | Command::FailCommit => {}
        }
    }

    fn of_host(&mut self, host: usize) -> impl Iterator<Item = &mut ExpectedSession> {
        self.sessions.values_mut().filter(move |expected| expected.host == host)
    }

    fn register(&mut self, host: usize, process: Option<Process>, when: When, session: &Session) {
        let state = SessionState::of(session);
        let expected = ExpectedSession {
            id: session.instance_id.clone(),
            host,
            process,
            in_central: 0,
            before_group: 1,
            foreign: Vec::new(),
            writes: Vec::new(),
            central_has: BTreeMap::new(),
            closed_elsewhere: BTreeSet::new(),
            future: state.heartbeat > when.true_now,
            odd: when.at != when.true_now,
            dropped: false,
            events: Vec::new(),
            states: vec![state],
        };
        let expected = self.sessions.entry(session.created_at).insert_entry(expected).into_mut();
        WRITTEN.into_iter().for_each(|column| expected.wrote(column, when.at, when.true_now));
    }

    /// G1, G4: a host's store holds exactly what it acknowledged.
    pub(super) fn check_store(
        &mut self,
        host: usize,
        get: impl Fn(&InstanceId) -> Option<Record>,
    ) -> Result<(), Violation> {
        let pruned = self.pruned[host];
        for (key, expected) in self.sessions.iter_mut().filter(|(_, expected)| expected.host == host) {
            // A mirrored row has central's state.
            let Some(record) = get(&expected.id).filter(|record| !record.mirrored) else {
                if expected.now().closed_at.is_some_and(|at| Some(at) < pruned) {
                    continue;
                }
                return Err(violation("G1", expected, "is missing"));
            };
            if record.session.created_at != *key {
                return Err(violation("G4", expected, "resolves to another session"));
            }
            if expected.is_open() && record.session.status == Status::Closed {
                expected.closed_there(&SessionState::of(&record.session))?;
            }
            let kept = SessionState::of(&record.session);
            if kept != *expected.now() && !expected.adopts(&kept) {
                return Err(violation("G1", expected, &format!("is kept as {:?}", record.session)));
            }
        }
        Ok(())
    }

    /// G3, G4: a row of central has a state that its session had, and not an older one than before.
    pub(super) fn check_row(
        &mut self,
        row: &Session,
        before: Option<&Session>,
        now: Timestamp,
    ) -> Result<(), Violation> {
        let Some(expected) = self.sessions.get_mut(&row.created_at) else {
            return Err(Violation { guarantee: "G4", what: format!("no client registered {row:?}") });
        };
        if let Some(before) = before {
            if row.last_heartbeat < before.last_heartbeat && before.last_heartbeat <= now {
                return Err(violation("G4", expected, &format!("had its heartbeat moved back: {before:?} to {row:?}")));
            }
            if before.status == Status::Closed && (row.status, row.closed_at) != (Status::Closed, before.closed_at) {
                return Err(violation("G4", expected, &format!("did not stay closed: {before:?} to {row:?}")));
            }
        }
        let had = SessionState::of(row);
        let before = before.map(SessionState::of);
        for column in WRITTEN {
            expected.check_column(column, &had, before.as_ref())?;
        }
        if expected.foreign.iter().any(|foreign| foreign.heartbeat == had.heartbeat) {
            return Ok(());
        }
        let matches = |state: &SessionState| {
            let cut = expected.future && state.heartbeat > had.heartbeat && had.heartbeat <= now;
            (state.heartbeat == had.heartbeat || cut) && (state.status == had.status || had.status != Status::Active)
        };
        match (expected.in_central..expected.states.len()).find(|i| matches(&expected.states[*i])) {
            Some(index) => expected.in_central = index,
            None if expected.states.iter().any(matches) => {
                return Err(violation("G4", expected, &format!("went back to {row:?}")));
            }
            None => return Err(violation("G3", expected, &format!("never was {row:?}"))),
        }
        Ok(())
    }
}

impl ExpectedSession {
    /// Whether changes by clients without a daemon, which the host adopted, explain the state that the store has. They may
    /// have come before or after the host's own changes of the same commit, so either may have set each field.
    fn adopts(&mut self, kept: &SessionState) -> bool {
        let group = self.before_group.saturating_sub(1);
        let own = &self.states[group..];
        let Some(before) = own.first() else { return false };
        let written = |column| {
            own.iter().any(|state| state.agrees(column, kept))
                || self.writes.iter().any(|write| write.foreign && write.fits(column, kept))
        };
        let of = |field: &dyn Fn(&SessionState) -> bool| own.iter().chain(&self.foreign).any(field);
        let adopted = !self.foreign.is_empty()
            && WRITTEN.into_iter().all(written)
            && of(&|state| state.heartbeat == kept.heartbeat)
            && (of(&|state| (state.status, state.closed_at) == (kept.status, kept.closed_at)))
            && kept.heartbeat >= before.heartbeat;
        if adopted {
            self.states.push(kept.clone());
        }
        adopted
    }

    /// Another client closed it in central, and its host has imported that.
    fn closed_there(&mut self, kept: &SessionState) -> Result<(), Violation> {
        if !kept.closed_at.is_some_and(|at| self.closed_elsewhere.contains(&at)) {
            return Err(violation("G4", self, &format!("was closed without a command: {kept:?}")));
        }
        // Removes states that the daemon would have added in the same commit if it had been open.
        while self.states.len() > self.before_group && self.now().heartbeat != kept.heartbeat {
            self.states.pop();
        }
        self.process = None;
        let (status, closed_at) = (kept.status, kept.closed_at);
        self.push_state(|state| (state.status, state.closed_at) = (status, closed_at));
        Ok(())
    }
}

pub(super) fn violation(guarantee: &'static str, expected: &ExpectedSession, what: &str) -> Violation {
    let last = &expected.states[expected.states.len().saturating_sub(4)..];
    let what = format!("{} of host {} {what}; it was {last:?}", expected.id, expected.host);
    Violation { guarantee, what: what.replace(&"e".repeat(256), "e..") }
}
