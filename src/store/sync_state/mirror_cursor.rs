//! Where the next reading of central begins, as it is on disk.
//!
//! The cursor belongs to one timeline of central. Another timeline, a salvaged store, or a mirror that was not confirmed for
//! longer than central remembers deletions has everything read again.

use std::time::Duration;

use rusqlite::Connection;

use crate::domain::Timestamp;
use crate::domain::mirror::HistoryReading;
use crate::store::error::StoreError;
use crate::store::tables::metadata;

/// Notes of which timeline of central this is the mirror; that of another has to be read again.
pub(in crate::store) fn set_timeline(db: &Connection, timeline: &str) -> Result<(), StoreError> {
    let known: Option<String> = metadata::get(db, "mirror_timeline")?;
    if known.as_deref() == Some(timeline) {
        return Ok(());
    }
    metadata::set(db, "mirror_timeline", &timeline)?;
    read_everything(db)
}

/// Notes what the mirror holds; the mirror of another scope has to be read again. A store of before there were scopes holds
/// everything.
pub(in crate::store) fn set_scope(db: &Connection, scope: &str) -> Result<(), StoreError> {
    let known: Option<String> = metadata::get(db, "mirror_scope")?;
    if known.as_deref().unwrap_or("all") == scope {
        return Ok(());
    }
    metadata::set(db, "mirror_scope", &scope)?;
    read_everything(db)
}

/// What is noted of a mirror without the history of its sessions.
const HISTORY_ON_DEMAND: &str = "on demand";

/// Whether the mirror has the history of the sessions in it.
pub(in crate::store) fn history_reading(db: &Connection) -> Result<HistoryReading, StoreError> {
    let noted: Option<String> = metadata::get(db, "mirror_history")?;
    Ok(match noted.as_deref() {
        Some(HISTORY_ON_DEMAND) => HistoryReading::OnDemand,
        _ => HistoryReading::Ahead,
    })
}

/// Notes whether it has. What a mirror without history lacks is not read by this alone.
pub(in crate::store) fn set_history_reading(db: &Connection, reading: HistoryReading) -> Result<(), StoreError> {
    let noted = match reading {
        HistoryReading::Ahead => "ahead",
        HistoryReading::OnDemand => HISTORY_ON_DEMAND,
    };
    metadata::set(db, "mirror_history", &noted)
}

/// For so long central remembers which sessions were deleted; less than it really does.
const REMEMBERED: Duration = Duration::from_secs(29 * 86_400);

/// Where the next reading begins; 0: everything is to be read.
pub(in crate::store) fn since(db: &Connection, now: Timestamp) -> Result<u64, StoreError> {
    let recent = as_of(db)?.is_some_and(|as_of| now.since(as_of) < REMEMBERED);
    Ok(metadata::get_integer(db, "mirror_since")?.filter(|_| recent).map_or(0, i64::unsigned_abs))
}

/// When the mirror was last known to be true.
pub(in crate::store) fn as_of(db: &Connection) -> Result<Option<Timestamp>, StoreError> {
    Ok(metadata::get_integer(db, "mirror_as_of")?.map(Timestamp::from_micros))
}

pub(in crate::store) fn set_as_of(db: &Connection, at: Timestamp) -> Result<(), StoreError> {
    metadata::set_integer(db, "mirror_as_of", at.micros())
}

/// Whether everything has to be read, or is being read.
pub(in crate::store) fn is_everything_unread(db: &Connection) -> Result<bool, StoreError> {
    Ok(metadata::get_integer(db, "mirror_since")? == Some(0))
}

/// Central is another, or was restored: everything is read again.
pub(in crate::store) fn read_everything(db: &Connection) -> Result<(), StoreError> {
    metadata::set_integer(db, "mirror_since", 0)
}
