//! The table `claude_ids`: each conversation that led to a session, the process that uses it, and whether the agent left
//! it. Its column `uuid` is a key of [`conversation_key`](crate::domain::agent::conversation_key).

use rusqlite::{Connection, OptionalExtension, params};

use crate::domain::InstanceId;
use crate::domain::Process;
use crate::store::error::StoreError;

/// Where one of the agent's own ids led.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::store) struct Use {
    /// The process that uses the conversation.
    pub(in crate::store) process: Option<Process>,
    pub(in crate::store) is_left: bool,
}

pub(in crate::store) fn use_of(
    db: &Connection,
    conversation: Option<&str>,
    id: &InstanceId,
) -> Result<Option<Use>, StoreError> {
    Ok(db
        .prepare_cached("SELECT pid, pid_started, is_left FROM claude_ids WHERE uuid = ?1 AND instance_id = ?2")?
        .query_row(params![conversation, id.as_str()], |row| {
            let process = row.get::<_, Option<i32>>(0)?.zip(row.get(1)?);
            Ok(Use { process: process.map(|(pid, started)| Process { pid, started }), is_left: row.get(2)? })
        })
        .optional()?)
}

pub(in crate::store) fn mark_left(
    db: &Connection,
    conversation: Option<&str>,
    id: &InstanceId,
) -> Result<(), StoreError> {
    db.prepare_cached("UPDATE claude_ids SET is_left = 1 WHERE uuid = ?1 AND instance_id = ?2 AND is_left = 0")?
        .execute(params![conversation, id.as_str()])?;
    Ok(())
}
