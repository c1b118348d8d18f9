//! The handshake: registers this host in `sessiond_hosts` and claims its machine name, in one transaction.
//!
//! **Invariant**: at most one live host has a machine name (a unique index). A row under this host's id with a claim that
//! is not its own was made by a copy of its state folder; a row of another host with its name is a rival. Either is a
//! conflict that an operator resolves, unless this host has to replace the other.
//!
//! Hosts under whose ids this host was registered before a rename are retired first. A ledger before what this host
//! knows to be applied belongs to a restored backup, whose claim says nothing.

use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::conflict::{copied, replaced, taken};
use super::errors::own_row_locked;
use super::link::{Link, column, micros_of};
use super::listen::HOST_JOINED;
use super::{capabilities, records, sql};
use crate::domain::link::Conflict;
use crate::domain::{MachineName, Timestamp};
use crate::sync::central::{Accepted, CentralError, HostRegistration};

/// What the handshake found out.
pub(super) struct Handshake {
    pub accepted: Accepted,
    pub shapes: records::Shapes,
    /// Hosts state their stale_after in central.
    pub has_stale_after: bool,
}

pub(super) async fn handshake(link: &mut Link, host: &HostRegistration) -> Result<Handshake, CentralError> {
    link.begin().await?;
    match register(link, host).await {
        // The only row that central can reject here is one whose name another host claimed after it was looked up:
        // the second attempt finds that host.
        Err(CentralError::Reject(_)) => {
            link.rollback().await?;
            link.begin().await?;
            register(link, host).await.map_err(|error| match error {
                CentralError::Reject(why) => {
                    CentralError::retry(format!("central does not enter this host: {}", why.message))
                }
                other => other,
            })
        }
        answer => answer,
    }
}

async fn register(link: &mut Link, host: &HostRegistration) -> Result<Handshake, CentralError> {
    check_schema(link).await?;
    link.rows(
        sqlx::query(sql::RETIRE_FORMER_HOSTS).bind(host.host_id).bind(&host.former_host_ids).bind(&host.own_claims),
    )
    .await?;
    if host.replace {
        link.rows(sqlx::query(sql::RETIRE_NAMESAKES).bind(host.host_id).bind(host.machine.as_str())).await?;
    } else {
        let rivals = link.rows(sqlx::query(sql::FIND_RIVALS).bind(host.host_id).bind(host.machine.as_str())).await;
        let rivals = rivals.map_err(own_row_locked)?;
        for rival in rivals {
            if let Some(conflict) = HostRow::read(&rival)?.conflict_with(host) {
                return Err(CentralError::Conflict(conflict));
            }
        }
    }
    let entered = sqlx::query(sql::REGISTER_HOST)
        .bind(host.host_id)
        .bind(host.machine.as_str())
        .bind(host.claim)
        .bind(host.version);
    let batch = match link.rows(entered).await?.first() {
        Some(row) => column(row, 0)?,
        None => return Err(CentralError::Retry("central did not enter this host".into())),
    };
    let columns = link.rows(sqlx::query(sql::HOST_COLUMNS)).await?;
    let has = |index| columns.first().map_or(Ok(false), |row| column(row, index));
    let (has_stale_after, marks_changes_only) = (has(0)?, has(1)?);
    if has_stale_after {
        link.rows(sqlx::query(sql::SET_STALE_AFTER).bind(host.host_id).bind(micros_of(host.stale_after))).await?;
    }
    if marks_changes_only {
        link.rows(sqlx::query(sql::SET_VOUCHING_CLAIM).bind(host.host_id).bind(host.claim)).await?;
    }
    let former = sqlx::query(sql::FORMER_NAMES).bind(host.host_id).bind(&host.former_host_ids).bind(&host.own_claims);
    let former = link.rows(former).await?;
    let former_names = former.iter().map(name).collect::<Result<_, _>>()?;
    let timeline = timeline(link).await?;
    link.rows(sqlx::query(sql::NOTIFY_HOST_JOINED).bind(format!("{HOST_JOINED}{}", host.host_id))).await?;
    let shapes = records::shapes(link).await?;
    let missing_triggers = capabilities::missing_triggers(link).await?;
    link.commit().await?;
    let tables = shapes.tables.clone();
    let accepted = Accepted { batch, former_names, tables, timeline, marks_changes_only, missing_triggers };
    Ok(Handshake { accepted, shapes, has_stale_after })
}

/// Names the numbering of central's transactions.
async fn timeline(link: &mut Link) -> Result<String, CentralError> {
    let rows = link.rows(sqlx::query(sql::TIMELINE)).await?;
    let Some(row) = rows.first() else { return Ok(String::new()) };
    let mut timeline: String = column(row, 0)?;
    if column(row, 1)?
        && let Some(first) = link.rows(sqlx::query(sql::FIRST_MIGRATION)).await?.first()
    {
        timeline = format!("{timeline}-{}", column::<String>(first, 0)?);
    }
    Ok(timeline)
}

async fn check_schema(link: &mut Link) -> Result<(), CentralError> {
    match link.rows(sqlx::query(sql::SCHEMA_CHECK)).await?.first() {
        Some(row) if column(row, 0)? => {
            if column(row, 1)? {
                capabilities::check_distribution(link).await?;
            }
            capabilities::check_key(link).await
        }
        _ => {
            capabilities::check_engine(link).await?;
            Err(CentralError::schema_missing("central has no tables for sessiond, or old ones; run `sessiond migrate`"))
        }
    }
}

fn name(row: &PgRow) -> Result<MachineName, CentralError> {
    MachineName::parse(column(row, 0)?)
        .map_err(|error| CentralError::retry(format!("central: {error}")).caused_by(error))
}

/// A row of `sessiond_hosts`.
struct HostRow {
    host_id: Uuid,
    machine_name: String,
    claim: Uuid,
    retired: bool,
    replaced_by: Option<Uuid>,
    last_seen: Timestamp,
    batch: i64,
}

impl HostRow {
    fn read(row: &PgRow) -> Result<Self, CentralError> {
        Ok(Self {
            host_id: column(row, 0)?,
            machine_name: column(row, 1)?,
            claim: column(row, 2)?,
            retired: column(row, 3)?,
            replaced_by: column(row, 4)?,
            last_seen: Timestamp::from_micros(column(row, 5)?),
            batch: column(row, 6)?,
        })
    }

    fn conflict_with(&self, host: &HostRegistration) -> Option<Conflict> {
        if self.host_id != host.host_id {
            return Some(self.conflict(self.host_id, taken(&host.machine, self.host_id, self.last_seen)));
        }
        // If the claim is that of a copy of this folder all the same, the copy finds the conflict: it meets this host's
        // claim next.
        let restored = self.batch < host.acked_batch;
        if !restored && !host.own_claims.contains(&self.claim) {
            return Some(self.conflict(self.host_id, copied(host.host_id, &self.machine_name, self.last_seen)));
        }
        if self.retired {
            let by = self.replaced_by.unwrap_or(self.host_id);
            return Some(self.conflict(by, replaced(host.machine.as_str(), by)));
        }
        None
    }

    fn conflict(&self, by: Uuid, message: String) -> Conflict {
        Conflict {
            host_id: by.to_string(),
            machine_name: self.machine_name.clone(),
            last_seen: Some(self.last_seen),
            message,
        }
    }
}
