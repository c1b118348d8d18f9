//! Reads the hosts that central knows: when each was last in contact, and the rate limits that it shares.
//!
//! All hosts come in one row, because every host reads them once in each heartbeat interval. Rate limits change rarely, so
//! only those are read that changed since this connection read them. Of hosts that have just joined, only their own entries
//! are read.

use std::collections::HashMap;

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::link::{Link, column};
use super::parameters::OptionalColumn;
use super::registered_host::RegisteredHost;
use super::sql;
use crate::domain::limits::{AccountLimit, from_foreign_json};
use crate::domain::mirror::HostSeen;
use crate::domain::{MachineName, TableState, Timestamp};
use crate::sync::central::CentralError;

/// The rate limits that hosts share, as this connection read them last, and when they changed.
pub(super) type KnownLimits = HashMap<Uuid, (i64, Vec<AccountLimit>)>;

/// The hosts that central knows; `only`: those with these ids. One whose name no daemon can have is skipped.
pub(super) async fn hosts(
    link: &mut Link,
    host: &mut RegisteredHost,
    only: Option<&[Uuid]>,
) -> Result<Vec<HostSeen>, CentralError> {
    let has_limits = host.shapes.tables.limits == TableState::Usable;
    link.begin().await?;
    let sql = if has_limits { sql::HOSTS_WITH_LIMITS } else { sql::HOSTS };
    let sql = OptionalColumn::VOUCHING_CLAIM.insert(sql, host.marks_changes_only);
    let rows = link.rows(sqlx::query(AssertSqlSafe(sql)).bind(only)).await?;
    let Some(row) = rows.first() else { return Err(CentralError::retry("central did not list its hosts")) };
    let ids: Vec<Uuid> = column(row, 0)?;
    let names: Vec<String> = column(row, 1)?;
    let seen: Vec<i64> = column(row, 2)?;
    let all_judge_by_hosts: bool = column(row, 3)?;
    let limits_changed: Vec<i64> = if has_limits { column(row, 4)? } else { vec![0; ids.len()] };
    read_limits(link, &mut host.known_limits, ids.iter().copied().zip(limits_changed).collect()).await?;
    link.commit().await?;
    if only.is_none() {
        host.known_limits.retain(|id, _| ids.contains(id));
    }
    // One host that has just joined can only show that not all do.
    link.heartbeats_unmarked =
        host.marks_changes_only && all_judge_by_hosts && (only.is_none() || link.heartbeats_unmarked);
    let known = |id: &Uuid| host.known_limits.get(id).map(|(_, limits)| limits.clone()).unwrap_or_default();
    let hosts = ids.iter().zip(&names).zip(&seen).filter_map(|((id, name), seen)| {
        let invalid = |why: &_| tracing::debug!(%why, "a host in central cannot be read and is skipped");
        let machine = MachineName::parse(name).inspect_err(invalid).ok()?;
        Some(HostSeen { host_id: *id, machine, last_seen: Timestamp::from_micros(*seen), limits: known(id) })
    });
    Ok(hosts.collect())
}

/// Reads the rate limits that changed since they were read. `changed`: when each host's changed; 0: it shares none.
async fn read_limits(
    link: &mut Link,
    known: &mut KnownLimits,
    changed: HashMap<Uuid, i64>,
) -> Result<(), CentralError> {
    known.retain(|id, _| changed.get(id) != Some(&0));
    let is_unread = |(id, at): &(&Uuid, &i64)| **at != 0 && known.get(*id).is_none_or(|(read, _)| read != *at);
    let unread: Vec<Uuid> = changed.iter().filter(is_unread).map(|(id, _)| *id).collect();
    if unread.is_empty() {
        return Ok(());
    }
    for row in &link.rows(sqlx::query(sql::LIMITS_OF_HOSTS).bind(&unread)).await? {
        let id: Uuid = column(row, 0)?;
        let limits: Option<String> = column(row, 1)?;
        let limits = limits.as_deref().map(from_foreign_json).unwrap_or_default();
        known.insert(id, (changed.get(&id).copied().unwrap_or(0), limits));
    }
    Ok(())
}
