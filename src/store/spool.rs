//! Writes that clients left in the spool: each is applied, and noted as applied, in one transaction.

use std::time::Duration;

use rusqlite::{Connection, params};
use uuid::Uuid;

use super::StoreError;
use super::agents::{self, Sighting};
use super::history;
use super::sessions::{self, Caller, Process, Record, free_id, get, insert};
use crate::domain::{Happening, Heartbeat, InstanceId, Registration, Session, Timestamp};

/// A write that was made while no daemon answered.
#[derive(Clone, Debug)]
pub enum Deferred {
    /// Under an id that the client drew, and told.
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
    Sighting(Box<Sighting>),
    Append {
        id: String,
        what: Box<Happening>,
        record_id: Uuid,
    },
}

impl Deferred {
    /// Whether a session may get a process by it.
    pub(super) fn brings_process(&self) -> bool {
        match self {
            Self::Register { process, .. } => process.is_some(),
            Self::Sighting(sighting) => sighting.process.is_some(),
            Self::Heartbeat { .. } | Self::Close { .. } | Self::Append { .. } => false,
        }
    }
}

/// Applies the write of the spool file `name`, unless that was done before. Says whether it was news.
pub(super) fn take_in(
    db: &Connection,
    name: &str,
    deferred: Deferred,
    caller: Caller,
    draws: &[u64],
    at: Timestamp,
    stale_after: Duration,
) -> Result<bool, StoreError> {
    let news = db.prepare_cached("INSERT OR IGNORE INTO taken_in (name) VALUES (?1)")?.execute([name])?;
    if news == 0 {
        return Ok(false);
    }
    match deferred {
        Deferred::Register { id, what, process } => register(db, &id, *what, process, caller, draws, at)?,
        Deferred::Heartbeat { id, beat } => {
            sessions::heartbeat(db, &id, &beat, caller, at, stale_after)?;
        }
        Deferred::Close { id } => {
            sessions::close(db, &id, caller, at)?;
        }
        Deferred::Append { id, what, record_id } => {
            history::append(db, &id, *what, record_id, caller, at)?;
        }
        Deferred::Sighting(sighting) => {
            agents::sight(db, *sighting, caller, draws, at, stale_after)?;
        }
    }
    Ok(true)
}

fn register(
    db: &Connection,
    drawn: &InstanceId,
    what: Registration,
    process: Option<Process>,
    caller: Caller,
    draws: &[u64],
    at: Timestamp,
) -> Result<(), StoreError> {
    let instance_id = match get(db, drawn.as_str())? {
        None => drawn.clone(),
        Some(_) => {
            let id = free_id(db, &what.project, what.instance_type, draws)?;
            tracing::warn!(drawn = %drawn, new = %id, "another session has the id that was drawn while no daemon ran");
            id
        }
    };
    let session = Session::register(instance_id, what, at);
    insert(db, &Record::begun(session, process, caller, at))
}

/// Forgets the notes of files that are gone, and stay gone after a power cut.
pub(super) fn forget(db: &Connection, names: &[String]) -> Result<(), StoreError> {
    let mut delete = db.prepare_cached("DELETE FROM taken_in WHERE name = ?1")?;
    for name in names {
        delete.execute(params![name])?;
    }
    Ok(())
}
