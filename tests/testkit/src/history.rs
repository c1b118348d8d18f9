//! What clients asked, when, and what they were answered; and whether the final states can have come of it.
//!
//! A session has one client, which sends one request after the other. What was acknowledged has happened between
//! its two times; what was never answered has happened then or never.

use std::collections::{BTreeMap, BTreeSet};

/// Microseconds since 1970.
pub type Time = i64;

pub fn now() -> Time {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as Time
}

/// One request.
#[derive(Clone, Debug)]
pub struct Operation {
    pub machine: String,
    /// Each client has a project of its own.
    pub project: String,
    /// Unknown for a registration without an answer.
    pub session: Option<String>,
    pub change: Change,
    pub sent: Time,
    pub ended: Time,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Register {
        watched: bool,
    },
    /// `None` leaves the epic, `Some(None)` clears it.
    Beat {
        context: u64,
        epic: Option<Option<String>>,
    },
    Close,
    /// The session's process ended; that is no request, but it has its time all the same.
    Death,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Told that the session is closed.
    Refused,
    Unknown,
}

/// A session as a host or central has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub session: String,
    pub machine: String,
    pub project: String,
    pub context: u64,
    pub epic: Option<String>,
    pub status: String,
    pub heartbeat: Time,
    pub created: Time,
    pub closed: Option<Time>,
}

/// Everything as it is once all is well again and nothing waits.
#[derive(Clone, Debug, Default)]
pub struct End {
    pub central: Vec<Row>,
    /// The machines with a daemon, and what each keeps.
    pub hosts: BTreeMap<String, Vec<Row>>,
    /// When this was read.
    pub read: Time,
}

/// A possible state of a session. A time is an interval, from the earliest to the latest that it can have been.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    context: u64,
    epic: Option<String>,
    heartbeat: (Time, Time),
    created: (Time, Time),
    closed: Option<(Time, Time)>,
    /// The daemon refreshes it, since its process runs.
    watched: bool,
    dead: bool,
}

impl State {
    fn registered(operation: &Operation) -> Self {
        let at = (operation.sent, operation.ended);
        let watched = operation.change == Change::Register { watched: true };
        Self { context: 0, epic: None, heartbeat: at, created: at, closed: None, watched, dead: false }
    }

    fn after(&self, operation: &Operation) -> Self {
        let at = (operation.sent, operation.ended);
        let mut state = self.clone();
        match &operation.change {
            Change::Register { .. } => {}
            Change::Beat { context, epic } => {
                state.context = *context;
                state.heartbeat = at;
                if let Some(epic) = epic {
                    state.epic.clone_from(epic);
                }
            }
            Change::Close => {
                state.silence(at.1);
                state.closed = state.closed.or(Some(at));
            }
            Change::Death => {
                state.silence(at.1);
                state.dead = true;
            }
        }
        state
    }

    /// Until then the daemon may have spoken for the process.
    fn silence(&mut self, at: Time) {
        if std::mem::take(&mut self.watched) {
            self.heartbeat.1 = at;
        }
    }

    fn status(&self) -> &'static str {
        match (self.closed, self.dead) {
            (Some(_), _) => "closed",
            (None, true) => "stale",
            (None, false) => "active",
        }
    }

    fn fits(&self, row: &Row, read: Time) -> bool {
        let within = |(from, to): (Time, Time), at: Time| (from..=to).contains(&at);
        let latest = if self.watched { read } else { self.heartbeat.1 };
        self.context == row.context
            && self.epic == row.epic
            && self.status() == row.status
            && within((self.heartbeat.0, latest), row.heartbeat)
            && within(self.created, row.created)
            && match (self.closed, row.closed) {
                (Some(interval), Some(at)) => within(interval, at),
                (None, None) => true,
                _ => false,
            }
    }
}

/// All the states in which a session may be after these operations; and what cannot be whatever its state.
fn states(operations: &[&Operation]) -> Result<Vec<State>, String> {
    let mut states: Vec<State> = Vec::new();
    for operation in operations {
        let done = match operation.change {
            Change::Register { .. } => vec![State::registered(operation)],
            _ => states.iter().map(|state| state.after(operation)).collect(),
        };
        match operation.outcome {
            Outcome::Done => states = done,
            Outcome::Unknown => states.extend(done),
            Outcome::Refused => states.retain(|state| state.closed.is_some()),
        }
        states.dedup();
        if states.is_empty() {
            return Err(format!("{operation:?} cannot have ended so"));
        }
    }
    Ok(states)
}

/// Everything that cannot be true.
pub fn violations(history: &[Operation], end: &End) -> Vec<String> {
    let mut violations = Vec::new();
    let mut sessions: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    let mut unanswered: Vec<&Operation> = Vec::new();
    for operation in history {
        match &operation.session {
            Some(session) => sessions.entry(session).or_default().push(operation),
            None => unanswered.push(operation),
        }
    }
    let central = by_session("central", &end.central, &mut violations);
    let hosts: BTreeMap<&str, BTreeMap<&str, &Row>> = end
        .hosts
        .iter()
        .map(|(machine, rows)| (machine.as_str(), by_session(machine, rows, &mut violations)))
        .collect();

    for (session, operations) in &sessions {
        violations.extend(wrong_with_session(session, operations, central.get(session).copied(), end.read));
    }
    for (session, row) in &central {
        if !sessions.contains_key(session) {
            violations.extend(wrong_with_stray(row, &mut unanswered, end.read));
        }
    }
    violations.extend(disagreements(&central, &hosts));
    violations
}

fn by_session<'a>(place: &str, rows: &'a [Row], violations: &mut Vec<String>) -> BTreeMap<&'a str, &'a Row> {
    let mut found = BTreeMap::new();
    for row in rows {
        if found.insert(row.session.as_str(), row).is_some() {
            violations.push(format!("{} is twice in {place}", row.session));
        }
    }
    found
}

fn wrong_with_session(session: &str, operations: &[&Operation], row: Option<&Row>, read: Time) -> Option<String> {
    let states = match states(operations) {
        Ok(states) => states,
        Err(impossible) => return Some(format!("{session}: {impossible}")),
    };
    let Some(row) = row else { return Some(format!("{session} was acknowledged and is not in central")) };
    let first = operations[0];
    if (&row.machine, &row.project) != (&first.machine, &first.project) {
        return Some(format!("{session} is not where it was registered: {row:?}, {first:?}"));
    }
    let fits = states.iter().any(|state| state.fits(row, read));
    (!fits).then(|| format!("{session}: {row:?} is none of {states:?}"))
}

/// A row that no answer named is one that was asked for without an answer.
fn wrong_with_stray(row: &Row, unanswered: &mut Vec<&Operation>, read: Time) -> Option<String> {
    let asked = unanswered.iter().position(|operation| {
        (&operation.machine, &operation.project) == (&row.machine, &row.project)
            && registered_unheard(operation).iter().any(|state| state.fits(row, read))
    });
    match asked {
        Some(asked) => {
            unanswered.remove(asked);
            None
        }
        None => Some(format!("nobody asked for {row:?}")),
    }
}

/// A client that gets no answer ends the process that it wanted watched.
fn registered_unheard(operation: &Operation) -> Vec<State> {
    let state = State::registered(operation);
    let dead = state.watched.then(|| State { dead: true, ..state.clone() });
    std::iter::once(state).chain(dead).collect()
}

/// Central and the host of a session say the same of it.
fn disagreements(central: &BTreeMap<&str, &Row>, hosts: &BTreeMap<&str, BTreeMap<&str, &Row>>) -> Vec<String> {
    let mut violations = Vec::new();
    for (machine, rows) in hosts {
        let there = central.values().filter(|row| row.machine == *machine).map(|row| row.session.as_str());
        let all: BTreeSet<&str> = there.chain(rows.keys().copied()).collect();
        for session in all {
            let (here, there) = (rows.get(session), central.get(session));
            if here != there {
                violations.push(format!("{session}: {machine} says {here:?}, central says {there:?}"));
            }
        }
    }
    violations
}
