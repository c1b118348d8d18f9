//! Reads the hosts that central knows: when each was last in contact, and the rate limits that it shares.
//!
//! All hosts come in one row, because every host reads them once in each heartbeat interval. Rate limits change rarely, so
//! only those are read that changed since this connection read them. Of hosts that have just joined, only their own entries
//! are read.

use std::collections::HashMap;

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::link::{Access, Link, column};
use super::parameters::{OptionalColumn, ServerTime};
use super::registered_host::RegisteredHost;
use super::sql;
use crate::domain::limits::{AccountLimit, from_foreign_json};
use crate::domain::mirror::HostSeen;
use crate::domain::{MachineName, TableState, Timestamp};
use crate::sync::central::CentralError;

/// The rate limits that hosts share, as this connection read them last, and when they changed.
pub(super) type KnownLimits = HashMap<Uuid, (Timestamp, Vec<AccountLimit>)>;

/// The hosts that central knows; `only`: those with these ids. One whose name no daemon can have is skipped.
pub(super) async fn hosts(
    link: &mut Link,
    host: &mut RegisteredHost,
    only: Option<&[Uuid]>,
) -> Result<Vec<HostSeen>, CentralError> {
    let has_limits = host.shapes.tables.limits == TableState::Usable;
    link.begin_reading(Access::Read).await?;
    let sql = if has_limits { sql::HOSTS_WITH_LIMITS } else { sql::HOSTS };
    let sql = OptionalColumn::VOUCHING_CLAIM.insert(sql, host.marks_changes_only);
    let rows = link.rows(sqlx::query(AssertSqlSafe(sql)).bind(only)).await?;
    let Some(row) = rows.first() else { return Err(CentralError::retry("central did not list its hosts")) };
    let ids: Vec<Uuid> = column(row, 0)?;
    let names: Vec<String> = column(row, 1)?;
    let seen: Vec<ServerTime> = column(row, 2)?;
    let all_judge_by_hosts: bool = column(row, 3)?;
    if has_limits {
        let (sharing, changed): (Vec<Uuid>, Vec<ServerTime>) = (column(row, 4)?, column(row, 5)?);
        let changed: HashMap<_, _> = sharing.into_iter().zip(changed.iter().map(|changed| changed.0)).collect();
        let is_unasked = |id: &Uuid| only.is_some_and(|only| !only.contains(id));
        host.known_limits.retain(|id, _| changed.contains_key(id) || is_unasked(id));
        read_limits(link, &mut host.known_limits, changed).await?;
    }
    link.commit().await?;
    // One host that has just joined can only show that not all do.
    link.heartbeats_unmarked =
        host.marks_changes_only && all_judge_by_hosts && (only.is_none() || link.heartbeats_unmarked);
    let known = |id: &Uuid| host.known_limits.get(id).map(|(_, limits)| limits.clone()).unwrap_or_default();
    let hosts = ids.iter().zip(&names).zip(&seen).filter_map(|((id, name), seen)| {
        let invalid = |why: &_| tracing::debug!(%why, "a host in central cannot be read and is skipped");
        let machine = MachineName::parse(name).inspect_err(invalid).ok()?;
        Some(HostSeen { host_id: *id, machine, last_seen: seen.0, limits: known(id) })
    });
    Ok(hosts.collect())
}

/// Reads the rate limits that changed since they were read. `changed`: when each host's changed.
async fn read_limits(
    link: &mut Link,
    known: &mut KnownLimits,
    changed: HashMap<Uuid, Timestamp>,
) -> Result<(), CentralError> {
    let is_unread = |(id, at): &(&Uuid, &Timestamp)| known.get(*id).is_none_or(|(read, _)| read != *at);
    let unread: Vec<Uuid> = changed.iter().filter(is_unread).map(|(id, _)| *id).collect();
    if unread.is_empty() {
        return Ok(());
    }
    for row in &link.rows(sqlx::query(sql::LIMITS_OF_HOSTS).bind(&unread)).await? {
        let id: Uuid = column(row, 0)?;
        let limits: Option<String> = column(row, 1)?;
        let limits = limits.as_deref().map(from_foreign_json).unwrap_or_default();
        if let Some(at) = changed.get(&id) {
            known.insert(id, (*at, limits));
        }
    }
    Ok(())
}
