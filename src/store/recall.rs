//! What is left of a session: its newest checkpoint, and the last of its events and commands.

use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::StoreError;
use super::sessions::parsed;
use crate::domain::{HistoryRecord, InstanceId, Kind, MachineName, Recollection, Timestamp};

/// No body of a record that is larger, in bytes, is read: a mirrored one may have any size.
const LARGEST: i64 = 256 << 10;

/// What is left of a session, and what is known of the machine that it ran on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recalled {
    pub left: Recollection,
    /// When the machine's daemon last spoke to central.
    pub last_seen: Option<Timestamp>,
    /// When the mirror was last as central is.
    pub as_of: Option<Timestamp>,
}

pub(super) fn recall(db: &Connection, session: &InstanceId, machine: &MachineName) -> Result<Recalled, StoreError> {
    let left = Recollection {
        checkpoint: newest(db, session, Kind::Checkpoint, 1)?.pop(),
        events: newest(db, session, Kind::Event, Recollection::EVENTS)?,
        commands: newest(db, session, Kind::Command, Recollection::COMMANDS)?,
    };
    Ok(Recalled {
        left,
        last_seen: moment(db, "SELECT last_seen FROM hosts WHERE host_machine = ?1", machine.as_str())?,
        as_of: moment(db, "SELECT value FROM facts WHERE name = ?1", "mirror_as_of")?,
    })
}

fn moment(db: &Connection, sql: &str, of: &str) -> Result<Option<Timestamp>, StoreError> {
    Ok(db.prepare_cached(sql)?.query_row([of], |row| row.get(0)).optional()?.map(Timestamp::from_micros))
}

pub(super) const NEWEST: &str = "SELECT record_id, instance_id, kind, type, at, \
     iif(octet_length(body) <= ?4, body, '{}') FROM records WHERE instance_id = ?1 AND kind = ?2 \
     ORDER BY at DESC, seq DESC LIMIT ?3";

/// The newest records of one kind, newest first.
fn newest(db: &Connection, session: &InstanceId, kind: Kind, most: usize) -> Result<Vec<HistoryRecord>, StoreError> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    Ok(db
        .prepare_cached(NEWEST)?
        .query_map(params![session.as_str(), kind.as_str(), most, LARGEST], record)?
        .collect::<Result<Vec<_>, _>>()?)
}

fn record(row: &Row<'_>) -> rusqlite::Result<HistoryRecord> {
    Ok(HistoryRecord {
        record_id: Uuid::from_slice(row.get_ref(0)?.as_blob()?).unwrap_or_default(),
        instance_id: parsed(row, 1, InstanceId::parse)?,
        kind: Kind::parse(row.get_ref(2)?.as_str()?).unwrap_or(Kind::Event),
        record_type: row.get(3)?,
        at: Timestamp::from_micros(row.get(4)?),
        // A body that cannot be read tells nothing; the record is still a sign that something happened.
        body: serde_json::from_str(row.get_ref(5)?.as_str()?).unwrap_or_default(),
    })
}
