//! Writes that clients left in the spool: each is applied, and noted as applied, in one transaction.

use std::collections::HashSet;

use rusqlite::{Connection, params};

use crate::domain::{Heartbeat, InstanceId, Session};
use crate::store::error::StoreError;
use crate::store::op::{Op, OpContext};
use crate::store::ops::agent_candidates::ReceivedReport;
use crate::store::ops::history::Append;
use crate::store::ops::lifecycle::NewSession;
use crate::store::ops::user_limits::UserLimits;
use crate::store::ops::{agent_reports, history, lifecycle, promised_ids, user_limits};
use crate::store::sqlite::writer;
use crate::store::tables::session_record::Record;
use crate::store::tables::sessions;

/// A write that was made while no daemon answered.
#[derive(Clone, Debug)]
pub enum SpooledWrite {
    /// Under an id that the client generated and printed.
    Register {
        /// The id that was printed.
        id: InstanceId,
        /// The session's fields.
        session: Box<NewSession>,
    },
    /// A heartbeat.
    Heartbeat {
        /// The session.
        id: String,
        /// What it changes.
        beat: Heartbeat,
    },
    /// The close of a session.
    Close {
        /// The session.
        id: String,
    },
    /// An agent's report.
    Report(Box<ReceivedReport>),
    /// A record of the history.
    Append(Box<Append>),
}

impl SpooledWrite {
    /// Whether a session may get a process by it.
    pub(in crate::store) fn brings_process(&self) -> bool {
        match self {
            Self::Register { session, .. } => session.process.is_some(),
            Self::Report(received) => received.process.is_some(),
            Self::Heartbeat { .. } | Self::Close { .. } | Self::Append(_) => false,
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
    pub(crate) deferred: SpooledWrite,
    /// When and by whom it was written; `ids` is used if the id that the client generated is taken.
    pub context: OpContext,
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
    limits: Option<&UserLimits>,
) -> Result<Vec<Imported>, StoreError> {
    let mut held = HashSet::new();
    let mut results = Vec::with_capacity(imports.len());
    for import in imports {
        if import.key.as_ref().is_some_and(|key| held.contains(key)) {
            results.push(None);
            continue;
        }
        let (key, op) = (import.key.clone(), Op::new(db, import.context));
        let apply = |op: &Op<'_>| apply(op, import);
        let result = writer::all_or_nothing(db, || user_limits::limited(limits, &op, apply));
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
fn apply(op: &Op<'_>, import: Import) -> Result<(), StoreError> {
    let Import { name, deferred, .. } = import;
    let is_new =
        op.db.prepare_cached("INSERT OR IGNORE INTO imported_requests (name) VALUES (?1)")?.execute([name])? > 0;
    if !is_new {
        return Ok(());
    }
    match deferred {
        SpooledWrite::Register { id, session } => register(op, &id, *session)?,
        SpooledWrite::Heartbeat { id, beat } => {
            lifecycle::heartbeat(op, &id, &beat)?;
        }
        SpooledWrite::Close { id } => {
            lifecycle::close(op, &id)?;
        }
        SpooledWrite::Append(new) => {
            history::append(op, *new)?;
        }
        SpooledWrite::Report(received) => {
            agent_reports::apply_report(op, *received)?;
        }
    }
    Ok(())
}

fn register(op: &Op<'_>, drawn: &InstanceId, new: NewSession) -> Result<(), StoreError> {
    let NewSession { what, agent, process } = new;
    let instance_id = match promised_ids::may_begin(op.db, drawn)? {
        true => drawn.clone(),
        false => {
            let id = sessions::free_id(op, &what.project, what.instance_type)?;
            tracing::warn!(drawn = %drawn, new = %id, "another session has the id that was drawn while no daemon ran");
            id
        }
    };
    let session = Session::register(instance_id.clone(), what, op.now);
    sessions::insert(op.db, &Record::begun(op, session, process))?;
    lifecycle::note_agent(op, &instance_id, agent).map(drop)
}

/// Forgets the notes of files that are gone, and stay gone after a power cut.
pub(in crate::store) fn forget(db: &Connection, names: &[String]) -> Result<(), StoreError> {
    let mut delete = db.prepare_cached("DELETE FROM imported_requests WHERE name = ?1")?;
    for name in names {
        delete.execute(params![name])?;
    }
    Ok(())
}
