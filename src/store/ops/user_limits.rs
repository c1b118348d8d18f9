//! How much of the store one user may take.
//!
//! Users who share a daemon share its store, and one of them must not be able to fill it for all. The table `user_usage`
//! holds how many bytes and open sessions each user has; triggers keep it (migration 0010), so that every deletion of a
//! row gives the room back. A write on behalf of a user that makes these grow beyond a limit is undone and refused.
//! Writes that add nothing, such as a heartbeat or a close, are always possible. Root and the daemon's own user are
//! not limited: each could change the store anyway.

use rusqlite::{Connection, OptionalExtension};

use crate::store::error::StoreError;
use crate::store::op::{Caller, Op};

/// One user may take this part of `store.max_size`.
const SHARE: u64 = 4;

/// A smaller share would not hold one day of work, in bytes. It is a quarter of the smallest `store.max_size`.
const LEAST_SHARE: u64 = 256 << 10;

/// How many sessions of one user may be open, stale ones included.
const OPEN_SESSIONS: u64 = 20_000;

/// What a user other than root and the daemon's own may have in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserLimits {
    pub(crate) own_uid: u32,
    /// As `user_usage` counts them: rows with their share of indexes and pages.
    pub bytes: u64,
    /// Sessions that are not closed.
    pub open_sessions: u64,
}

/// What a user has in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    bytes: u64,
    open_sessions: u64,
}

impl UserLimits {
    /// The limits in a store of at most `max_size` bytes that a daemon of user `own_uid` serves from.
    pub fn of_store(max_size: u64, own_uid: u32) -> Self {
        Self { own_uid, bytes: (max_size / SHARE).max(LEAST_SHARE), open_sessions: OPEN_SESSIONS }
    }

    fn apply_to(&self, caller: Caller) -> bool {
        caller.uid != 0 && caller.uid != self.own_uid
    }

    /// # Errors
    /// What grew is beyond its limit.
    fn check(&self, caller: Caller, before: Usage, after: Usage) -> Result<(), StoreError> {
        let uid = caller.uid;
        if after.bytes > before.bytes && after.bytes > self.bytes {
            return Err(StoreError::UserFull { uid, share: self.bytes });
        }
        if after.open_sessions > before.open_sessions && after.open_sessions > self.open_sessions {
            return Err(StoreError::UserSessions { uid, most: self.open_sessions });
        }
        Ok(())
    }
}

/// Does `work` for a user. The caller undoes what it wrote if this fails.
///
/// # Errors
/// `UserFull` and `UserSessions` if the user would have more than the limits allow; else those of `work`.
pub(in crate::store) fn limited<T>(
    limits: Option<&UserLimits>,
    op: &Op<'_>,
    work: impl FnOnce(&Op<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let Some(limits) = limits.filter(|limits| limits.apply_to(op.caller)) else { return work(op) };
    let before = usage(op.db, op.caller)?;
    let done = work(op)?;
    limits.check(op.caller, before, usage(op.db, op.caller)?)?;
    Ok(done)
}

fn usage(db: &Connection, caller: Caller) -> Result<Usage, StoreError> {
    let read = |row: &rusqlite::Row<'_>| {
        let [bytes, open_sessions] = [row.get::<_, i64>(0)?, row.get(1)?].map(|n| u64::try_from(n).unwrap_or(0));
        Ok(Usage { bytes, open_sessions })
    };
    let found = db
        .prepare_cached("SELECT bytes, open_sessions FROM user_usage WHERE uid = ?1")?
        .query_row([caller.uid], read)
        .optional()?;
    Ok(found.unwrap_or_default())
}
