//! The table `checkpoints_due`: sessions whose context passed the mark and that made no checkpoint since.

use rusqlite::Connection;

use crate::domain::InstanceId;
use crate::domain::history::CHECKPOINT_ABOVE;
use crate::store::error::StoreError;

/// Is there anything to note or to look up where a session's context was the first of these, and is the second?
pub(in crate::store) fn is_affected((before, after): (u8, u8)) -> bool {
    before.max(after) > CHECKPOINT_ABOVE
}

/// Notes whether a session's context passed the mark, and says whether a checkpoint is due. Below the mark it
/// costs nothing.
pub(in crate::store) fn update(
    db: &Connection,
    id: &InstanceId,
    (before, after): (u8, u8),
) -> Result<bool, StoreError> {
    let (was_above, is_above) = (before > CHECKPOINT_ABOVE, after > CHECKPOINT_ABOVE);
    match (was_above, is_above) {
        (false, false) => Ok(false),
        (false, true) => {
            db.prepare_cached("INSERT OR IGNORE INTO checkpoints_due (instance_id) VALUES (?1)")?
                .execute([id.as_str()])?;
            Ok(true)
        }
        (true, false) => remove(db, id).map(|()| false),
        (true, true) => Ok(db
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM checkpoints_due WHERE instance_id = ?1)")?
            .query_row([id.as_str()], |row| row.get(0))?),
    }
}

pub(in crate::store) fn remove(db: &Connection, id: &InstanceId) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM checkpoints_due WHERE instance_id = ?1")?.execute([id.as_str()])?;
    Ok(())
}
