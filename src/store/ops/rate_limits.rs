//! Rate limits: what this machine's agents observe of their accounts, and what other machines share.

use rusqlite::Connection;

use crate::domain::limits::{
    AccountLimit, KEPT, MAX_ACCOUNTS, MAX_ACCOUNTS_OF_USER, MAX_WINDOWS, MachineLimits, ObservedLimits,
};
use crate::domain::{MachineName, Timestamp};
use crate::store::error::StoreError;
use crate::store::op::Op;
use crate::store::sync_state::mirror_cursor;
use crate::store::tables::{hosts, rate_limits};

/// Records what an agent of the caller observed at `at`. Writes only what replaces what is known.
pub(in crate::store) fn record(
    op: &Op<'_>,
    observed: &ObservedLimits,
    at: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    let uid = op.caller.uid;
    let mut is_new = false;
    for window in &observed.windows {
        let limit = AccountLimit { uid, account: observed.account.clone(), window: window.clone(), observed_at: at };
        let known = rate_limits::get(op.db, &limit)?;
        if known.as_ref().is_none_or(|known| known.is_replaced_by(&limit, now)) {
            rate_limits::upsert(op.db, &limit)?;
        }
        is_new |= known.is_none();
    }
    if is_new {
        rate_limits::keep_windows(op.db, uid, observed.account.as_deref(), MAX_WINDOWS)?;
        rate_limits::keep_accounts(op.db, Some(uid), MAX_ACCOUNTS_OF_USER)?;
        rate_limits::keep_accounts(op.db, None, MAX_ACCOUNTS)?;
    }
    Ok(())
}

/// The limits that this host shares.
pub(in crate::store) fn own(db: &Connection, now: Timestamp) -> Result<Vec<AccountLimit>, StoreError> {
    let all = rate_limits::all(db)?;
    Ok(all.into_iter().filter(|limit| !limit.is_expired(now)).collect())
}

/// The limits of all machines of which any are known, this one first, the others by name.
pub(in crate::store) fn list(op: &Op<'_>, this: &MachineName) -> Result<Vec<MachineLimits>, StoreError> {
    let as_of = mirror_cursor::as_of(op.db)?.unwrap_or(op.now);
    let own = MachineLimits { machine: this.clone(), is_local: true, limits: own(op.db, op.now)?, as_of: op.now };
    let mut others: Vec<_> = hosts::all(op.db)?
        .into_iter()
        .filter(|host| host.machine != *this)
        .map(|host| MachineLimits { machine: host.machine, is_local: false, limits: host.limits, as_of })
        .collect();
    others.iter_mut().for_each(|machine| machine.limits.retain(|limit| !limit.is_expired(op.now)));
    others.sort_by(|a, b| a.machine.cmp(&b.machine));
    Ok([own].into_iter().chain(others).filter(|machine| !machine.limits.is_empty()).collect())
}

/// Whether any limit has not been observed for so long that it is deleted.
pub(in crate::store) fn any_expired(db: &Connection, now: Timestamp) -> Result<bool, StoreError> {
    rate_limits::any_until(db, now.minus(KEPT))
}

pub(in crate::store) fn delete_expired(db: &Connection, now: Timestamp) -> Result<(), StoreError> {
    rate_limits::delete_until(db, now.minus(KEPT))
}
