//! Finding the session that a hint means, and going on from it, in one transaction: of two who resume at once only
//! one gets the session.

use crate::domain::Process;
use std::cmp::Reverse;

use rusqlite::{Connection, params};

use crate::domain::hint::{Choice, HintMatches};
use crate::domain::resume::Successor;
use crate::domain::{Heartbeat, Hint, InstanceId, Status};
use crate::store::error::StoreError;
use crate::store::op::Op;
use crate::store::ops::lifecycle;
use crate::store::ops::lookup::CANDIDATES;
use crate::store::tables::columns::{MIRRORED, OURS, is_active, mirrored, ours};
use crate::store::tables::session_record::Record;
use crate::store::tables::sessions;
use crate::store::tables::sessions::COLUMNS;

#[cfg(test)]
mod tests;

/// Which session is wanted.
#[derive(Clone, Debug)]
pub struct ResumeTarget {
    /// What the hint may mean, what counts first first.
    pub meanings: Vec<Hint>,
    /// Which of several candidates, counted from 1.
    pub choice: Option<usize>,
    /// A closed session is wanted too, if it is named by its whole id.
    pub closed: bool,
}

/// The process and user that resume it.
#[derive(Clone, Debug)]
pub struct NewOwner {
    pub(crate) successor: Successor,
    pub(crate) process: Option<Process>,
}

/// The outcome of a request to resume.
#[derive(Clone, Debug, PartialEq)]
pub enum Resumption {
    /// The session is resumed.
    Done(Box<Resumed>),
    /// Up to [`CANDIDATES`], most recent heartbeat first.
    Several(Vec<Record>),
    /// It is active.
    Active(Box<Record>),
    /// It is closed, and that was not asked for.
    Closed(Box<Record>),
    /// The choice is beyond this many candidates.
    Beyond(usize),
    /// No session matches.
    None,
}

/// The outcome of a resume.
#[derive(Clone, Debug, PartialEq)]
pub struct Resumed {
    /// The session as resumed.
    pub session: Record,
    /// The session that was found, as it was.
    pub from: Record,
    /// As what the hint was taken.
    pub found_by: Hint,
}

impl Resumed {
    /// Whether it was resumed in place.
    pub fn is_taken_up(&self) -> bool {
        self.session.session.instance_id == self.from.session.instance_id
    }
}

pub(in crate::store) fn resume(op: &Op<'_>, wanted: &ResumeTarget, owner: NewOwner) -> Result<Resumption, StoreError> {
    for meaning in &wanted.meanings {
        let choice = match closed(op.db, meaning)? {
            Some(record) if wanted.closed => Some(Choice::One(record)),
            Some(record) => return Ok(Resumption::Closed(Box::new(record))),
            None => choose(op, meaning, wanted.choice)?,
        };
        return Ok(match choice {
            None => continue,
            Some(Choice::Several(records)) => Resumption::Several(records),
            Some(Choice::Active(record)) => Resumption::Active(Box::new(record)),
            Some(Choice::Beyond(of)) => Resumption::Beyond(of),
            Some(Choice::One(from)) => {
                let session = resume_or_succeed(op, &from, owner)?;
                Resumption::Done(Box::new(Resumed { session, from, found_by: meaning.clone() }))
            }
        });
    }
    Ok(Resumption::None)
}

/// The closed session that is named in full.
fn closed(db: &Connection, meaning: &Hint) -> Result<Option<Record>, StoreError> {
    match meaning {
        Hint::Id(id) => Ok(sessions::get(db, id.as_str())?.filter(|record| record.session.status == Status::Closed)),
        _ => Ok(None),
    }
}

fn resume_or_succeed(op: &Op<'_>, from: &Record, owner: NewOwner) -> Result<Record, StoreError> {
    let NewOwner { successor, process } = owner;
    if !successor.can_adopt(&from.session, from.mirrored, from.owner_uid) {
        let registration = successor.registration(&from.session);
        return lifecycle::register(op, registration, process);
    }
    let mut record = from.clone();
    successor.apply_to(&mut record.session);
    record.process = process.or(record.process);
    let beaten = record.session.heartbeat(&Heartbeat::default(), op.now, op.stale_after);
    beaten.map_err(|_| StoreError::Closed(record.session.instance_id.to_string()))?;
    record.change_columns_since(&from.session, op.now);
    sessions::save(op, &mut record)?;
    sessions::save_whereabouts(op.db, &record)?;
    Ok(record)
}

/// Of the sessions that a meaning has, which one is meant. An epic, a project or no hint at all means the caller's own
/// sessions, and those of other machines; those of this machine's other users only where there are none of these, and
/// then the caller has to choose, even among one.
fn choose(op: &Op<'_>, meaning: &Hint, choice: Option<usize>) -> Result<Option<Choice<Record>>, StoreError> {
    if matches!(meaning, Hint::Id(_) | Hint::Hash(_)) {
        return Ok(find(op, meaning, Owners::Any)?.choose(choice));
    }
    if let Some(own) = find(op, meaning, Owners::Caller)?.choose(choice) {
        return Ok(Some(own));
    }
    let others = find(op, meaning, Owners::Others)?;
    Ok(match choice {
        None if !others.resumable.is_empty() => Some(Choice::Several(others.resumable)),
        _ => others.choose(choice),
    })
}

/// Whose sessions are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Owners {
    Any,
    /// The caller's, and those of other machines, whose users are not known here.
    Caller,
    /// Those of this machine's other users.
    Others,
}

impl Owners {
    const fn condition(self) -> &'static str {
        match self {
            Self::Any => " AND ?4 IS NOT NULL",
            Self::Caller => concat!(" AND (", mirrored!(), " OR owner_uid = ?4)"),
            Self::Others => concat!(" AND ", ours!(), " AND owner_uid <> ?4"),
        }
    }
}

/// The sessions that this one meaning has and that are not closed.
pub(in crate::store) fn find(op: &Op<'_>, meaning: &Hint, owners: Owners) -> Result<HintMatches<Record>, StoreError> {
    let [from, until] = op.active_between();
    let mut records = match meaning {
        Hint::Id(id) => sessions::get(op.db, id.as_str())?.into_iter().collect(),
        _ => Vec::new(),
    };
    for statement in statements(meaning, owners) {
        let mut statement = op.db.prepare_cached(&statement)?;
        let rows = statement.query_map(params![from, until, key(meaning), op.caller.uid], sessions::read_record)?;
        records.extend(rows.collect::<Result<Vec<_>, _>>()?);
    }
    records.sort_by_cached_key(|r| (Reverse(r.session.last_heartbeat), r.session.instance_id.clone()));
    // Part of a hash may stand in it twice.
    records.dedup_by(|a, b| a.session.instance_id == b.session.instance_id);
    let (active, mut resumable): (Vec<_>, Vec<_>) =
        records.into_iter().partition(|r| r.status_now(op) == Status::Active);
    // Who means none in particular is not asked which.
    let newest_alone = *meaning == Hint::Newest && owners != Owners::Others;
    resumable.truncate(if newest_alone { 1 } else { CANDIDATES });
    Ok(HintMatches { resumable, active: active.into_iter().next() })
}

/// The statements that find the candidates of a meaning, and an active session of it.
pub(in crate::store) fn statements(meaning: &Hint, owners: Owners) -> Vec<String> {
    let owned = owners.condition();
    const ACTIVE: &str = is_active!("?1", "?2");
    let newest = |which: &str, limit| {
        format!("SELECT {COLUMNS} FROM sessions s {which} ORDER BY last_heartbeat DESC, instance_id LIMIT {limit}")
    };
    // One prompt of `claude -p` is not what a person left.
    let wanted = if *meaning == Hint::Newest { " AND kind IS NOT 'headless'" } else { "" };
    let both = |which: &String| {
        [
            newest(&format!("{which}{owned}{wanted} AND NOT {ACTIVE}"), CANDIDATES),
            newest(&format!("{which}{owned} AND {ACTIVE}"), 1),
        ]
    };
    searches(meaning).iter().flat_map(both).collect()
}

/// By which indexes to look, in the words of the schema: together they hold all of the meaning's sessions that are
/// not closed.
fn searches(meaning: &Hint) -> Vec<String> {
    let resting = |index: &str, condition: &str| {
        format!("INDEXED BY {index} WHERE ({MIRRORED} OR status = 'stale') AND status <> 'closed'{condition}")
    };
    let running =
        |condition: &str| format!("INDEXED BY sessions_running WHERE {OURS} AND status = 'active'{condition}");
    // What is part of a hash begins one of its ends.
    let ends = |length| {
        let end = format!("substr(instance_id, -{length})");
        format!("INDEXED BY sessions_hash_{length} WHERE status <> 'closed' AND {end} >= ?3 AND {end} < ?3 || '{{'")
    };
    let with = |index, condition| vec![resting(index, condition), running(condition)];
    match meaning {
        // Looked up by its key.
        Hint::Id(_) => Vec::new(),
        Hint::Hash(part) => (part.len()..=InstanceId::HASH).map(ends).collect(),
        Hint::Epic(_) => with("sessions_resting_epic", " AND current_epic = ?3"),
        Hint::Project(_) => with("sessions_resting_project", " AND project = ?3"),
        Hint::Newest => with("sessions_resting", " AND ?3 IS NULL"),
    }
}

/// What the statements of a meaning look for.
fn key(meaning: &Hint) -> Option<&str> {
    match meaning {
        Hint::Id(id) => Some(id.as_str()),
        Hint::Hash(text) | Hint::Epic(text) => Some(text),
        Hint::Project(project) => Some(project.as_str()),
        Hint::Newest => None,
    }
}
