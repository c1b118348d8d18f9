//! Writes that clients left in the spool: each is applied, and noted as applied, in one transaction.

use crate::domain::Process;
use std::collections::HashSet;
use std::time::Duration;

use rusqlite::{Connection, params};
use uuid::Uuid;

use crate::domain::{Heartbeat, InstanceId, NewRecord, Registration, Session, Timestamp};
use crate::store::error::StoreError;
use crate::store::ops::agent_candidates::ReceivedReport;
use crate::store::ops::user_limits::UserLimits;
use crate::store::ops::{agent_reports, history, lifecycle, promised_ids, user_limits};
use crate::store::sqlite::writer;
use crate::store::tables::session_record::{Caller, Record};
use crate::store::tables::sessions;

/// A write that was made while no daemon answered.
#[derive(Clone, Debug)]
pub enum SpooledWrite {
    /// Under an id that the client generated and printed.
    Register {
        id: InstanceId,
        what: Box<Registration>,
        process: Option<Process>,
    },
    Heartbeat {
        id: String,
        beat: Heartbeat,
    },
    Close {
        id: String,
    },
    Report(Box<ReceivedReport>),
    Append {
        id: String,
        what: Box<NewRecord>,
        record_id: Uuid,
    },
}

impl SpooledWrite {
    /// Whether a session may get a process by it.
    pub(in crate::store) fn brings_process(&self) -> bool {
        match self {
            Self::Register { process, .. } => process.is_some(),
            Self::Report(received) => received.process.is_some(),
            Self::Heartbeat { .. } | Self::Close { .. } | Self::Append { .. } => false,
        }
    }
}

/// A spooled request, checked, as it is to be applied.
#[derive(Clone, Debug)]
pub struct Import {
    /// The file's name, by which the request is applied once.
    pub name: String,
    /// Requests with the same key are applied in order: after one that has to be tried again, none of them.
    pub key: Option<String>,
    pub deferred: SpooledWrite,
    pub caller: Caller,
    /// Random numbers for an id, in case the drawn one is taken.
    pub draws: [u64; 8],
    pub at: Timestamp,
}

/// What became of an [`Import`]: applied, failed, or not tried because an earlier request with its key has to be tried
/// again.
pub type Imported = Option<Result<(), StoreError>>;

/// Applies spooled requests in this order. One that fails leaves nothing behind, and the others are applied.
///
/// # Errors
/// What took the transaction with it: then none of them is applied.
pub(in crate::store) fn import(
    db: &Connection,
    imports: Vec<Import>,
    stale_after: Duration,
    limits: Option<&UserLimits>,
) -> Result<Vec<Imported>, StoreError> {
    let mut held = HashSet::new();
    let mut results = Vec::with_capacity(imports.len());
    for import in imports {
        if import.key.as_ref().is_some_and(|key| held.contains(key)) {
            results.push(None);
            continue;
        }
        let (key, caller) = (import.key.clone(), import.caller);
        let apply = |db: &Connection| apply(db, import, stale_after);
        let result = writer::all_or_nothing(db, || user_limits::limited(limits, db, caller, apply));
        if let Err(error) = &result {
            if db.is_autocommit() || matches!(error, StoreError::Damaged(_)) {
                return Err(error.clone());
            }
            if error.is_transient() {
                held.extend(key);
            }
        }
        results.push(Some(result));
    }
    Ok(results)
}

/// Applies one request, unless that was done before.
fn apply(db: &Connection, import: Import, stale_after: Duration) -> Result<(), StoreError> {
    let Import { name, deferred, caller, draws, at, .. } = import;
    let is_new = db.prepare_cached("INSERT OR IGNORE INTO taken_in (name) VALUES (?1)")?.execute([name])? > 0;
    if !is_new {
        return Ok(());
    }
    match deferred {
        SpooledWrite::Register { id, what, process } => register(db, &id, *what, process, caller, &draws, at)?,
        SpooledWrite::Heartbeat { id, beat } => {
            lifecycle::heartbeat(db, &id, &beat, caller, at, stale_after)?;
        }
        SpooledWrite::Close { id } => {
            lifecycle::close(db, &id, caller, at)?;
        }
        SpooledWrite::Append { id, what, record_id } => {
            history::append(db, &id, *what, record_id, caller, at)?;
        }
        SpooledWrite::Report(received) => {
            agent_reports::apply_report(db, *received, caller, &draws, at, stale_after)?;
        }
    }
    Ok(())
}

pub(in crate::store) fn register(
    db: &Connection,
    drawn: &InstanceId,
    what: Registration,
    process: Option<Process>,
    caller: Caller,
    draws: &[u64],
    at: Timestamp,
) -> Result<(), StoreError> {
    let instance_id = match promised_ids::may_begin(db, drawn)? {
        true => drawn.clone(),
        false => {
            let id = sessions::free_id(db, &what.project, what.instance_type, draws)?;
            tracing::warn!(drawn = %drawn, new = %id, "another session has the id that was drawn while no daemon ran");
            id
        }
    };
    let session = Session::register(instance_id, what, at);
    sessions::insert(db, &Record::begun(session, process, caller, at))
}

/// Forgets the notes of files that are gone, and stay gone after a power cut.
pub(in crate::store) fn forget(db: &Connection, names: &[String]) -> Result<(), StoreError> {
    let mut delete = db.prepare_cached("DELETE FROM taken_in WHERE name = ?1")?;
    for name in names {
        delete.execute(params![name])?;
    }
    Ok(())
}
