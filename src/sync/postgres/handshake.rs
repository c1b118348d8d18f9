//! Announcing this host and claiming its name.

use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::link::{Link, column};
use super::listen::HOST_JOINED;
use super::{interval, micros, micros_of, push, records};
use crate::domain::link::Conflict;
use crate::domain::{MachineName, Timestamp};
use crate::sync::central::{Accepted, CentralError, HostRegistration};

const SCHEMA_IS_THERE: &str = "\
    SELECT to_regclass('sessiond_hosts') IS NOT NULL AND to_regclass('sessiond_sweep') IS NOT NULL \
        AND to_regclass('sessiond_history') IS NOT NULL AND 11 = ( \
        SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass('supervisor_sessions') AND NOT attisdropped \
            AND (attname IN ('host_machine', 'claude_session_uuid', 'claude_session_path', \
                'resumed_from', 'working_dir', 'changed_xid', 'column_times', 'others_xid') \
            OR attname IN ('last_heartbeat', 'created_at', 'closed_at') AND atttypid = 'timestamptz'::regtype))";

/// A central that was migrated by an older sessiond works without this column.
const STATE_STALE_AFTER: &str = concat!(
    "UPDATE sessiond_hosts SET stale_after = ",
    interval!("$2::bigint"),
    " WHERE host_id = $1 AND stale_after IS DISTINCT FROM ",
    interval!("$2::bigint"),
);

const HAS_STALE_AFTER: &str = "\
    SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('sessiond_hosts') AND attname = 'stale_after' \
        AND NOT attisdropped)";

const RETIRE_FORMER: &str = "\
    UPDATE sessiond_hosts SET retired_at = coalesce(retired_at, now()), replaced_by = $1 \
    WHERE host_id = ANY($2) AND host_id <> $1 AND claim = ANY($3) \
        AND (retired_at IS NULL OR replaced_by = ANY($2))";

const RETIRE_NAMESAKES: &str = "\
    UPDATE sessiond_hosts SET retired_at = now(), replaced_by = $1 \
    WHERE machine_name = $2 AND host_id <> $1 AND retired_at IS NULL";

/// This host's own row and whichever live one has its name, locked.
const RIVALS: &str = concat!(
    "SELECT host_id, machine_name, claim, retired_at IS NOT NULL, replaced_by, ",
    micros!("last_seen"),
    ", batch FROM sessiond_hosts WHERE host_id = $1 OR (machine_name = $2 AND retired_at IS NULL) ORDER BY host_id FOR UPDATE"
);

const ENTER: &str = "\
    INSERT INTO sessiond_hosts AS h (host_id, machine_name, claim, version) VALUES ($1, $2, $3, $4) \
    ON CONFLICT (host_id) DO UPDATE SET machine_name = excluded.machine_name, claim = excluded.claim, \
        version = excluded.version, last_seen = now(), retired_at = NULL, replaced_by = NULL \
    RETURNING batch";

/// A name that another host took over while this one still had it is one it went by, too.
const FORMER_NAMES: &str = "\
    SELECT DISTINCT machine_name FROM sessiond_hosts \
    WHERE host_id = ANY($2) AND host_id <> $1 AND (replaced_by = $1 OR claim = ANY($3)) ORDER BY 1";

/// Lets the other daemons know that this host is there.
const ANNOUNCE: &str = "SELECT pg_notify('sessiond', $1)";

/// The transaction that wrote the first migration here: another one where a dump was restored, although all else be equal.
const FIRST_WRITTEN: &str = "SELECT xmin::text FROM sessiond_migrations ORDER BY version LIMIT 1";

/// The cluster, its history (which forks where a backup is restored or a standby promoted), the database, the table; and
/// whether there are migrations to read.
const TIMELINE: &str = "\
    SELECT concat_ws('-', \
        CASE WHEN has_function_privilege('pg_control_system()', 'execute') \
            THEN (SELECT system_identifier FROM pg_control_system()) END, \
        CASE WHEN has_function_privilege('pg_control_checkpoint()', 'execute') \
            THEN (SELECT timeline_id FROM pg_control_checkpoint()) END, \
        (SELECT oid FROM pg_database WHERE datname = current_database()), 'supervisor_sessions'::regclass::oid), \
        coalesce(has_table_privilege(to_regclass('sessiond_migrations'), 'SELECT'), false)";

pub(super) async fn handshake(
    link: &mut Link,
    host: &HostRegistration,
) -> Result<(Accepted, records::Shapes), CentralError> {
    link.begin().await?;
    match announce(link, host).await {
        // All that central can reject here is a name that somebody took since it was looked up: the
        // second look finds them.
        Err(CentralError::Reject(_)) => {
            link.rollback().await?;
            link.begin().await?;
            announce(link, host).await.map_err(|error| match error {
                CentralError::Reject(why) => {
                    CentralError::Retry(format!("central does not enter this host: {}", why.message))
                }
                other => other,
            })
        }
        answer => answer,
    }
}

async fn announce(link: &mut Link, host: &HostRegistration) -> Result<(Accepted, records::Shapes), CentralError> {
    check_schema(link).await?;
    link.rows(sqlx::query(RETIRE_FORMER).bind(host.host_id).bind(&host.former_host_ids).bind(&host.own_claims)).await?;
    if host.replace {
        link.rows(sqlx::query(RETIRE_NAMESAKES).bind(host.host_id).bind(host.machine.as_str())).await?;
    } else {
        let rivals = link.rows(sqlx::query(RIVALS).bind(host.host_id).bind(host.machine.as_str())).await;
        let rivals = rivals.map_err(push::own_row_locked)?;
        for rival in rivals {
            if let Some(conflict) = Entry::read(&rival)?.conflict_with(host) {
                return Err(CentralError::Conflict(conflict));
            }
        }
    }
    let entered = sqlx::query(ENTER).bind(host.host_id).bind(host.machine.as_str()).bind(host.claim).bind(host.version);
    let batch = match link.rows(entered).await?.first() {
        Some(row) => column(row, 0)?,
        None => return Err(CentralError::Retry("central did not enter this host".into())),
    };
    if link.rows(sqlx::query(HAS_STALE_AFTER)).await?.first().map_or(Ok(false), |row| column(row, 0))? {
        link.rows(sqlx::query(STATE_STALE_AFTER).bind(host.host_id).bind(micros_of(host.stale_after))).await?;
    }
    let former = sqlx::query(FORMER_NAMES).bind(host.host_id).bind(&host.former_host_ids).bind(&host.own_claims);
    let former = link.rows(former).await?;
    let former_names = former.iter().map(name).collect::<Result<_, _>>()?;
    let timeline = timeline(link).await?;
    link.rows(sqlx::query(ANNOUNCE).bind(format!("{HOST_JOINED}{}", host.host_id))).await?;
    let shapes = records::shapes(link).await?;
    link.commit().await?;
    Ok((Accepted { batch, former_names, tables: shapes.tables.clone(), timeline }, shapes))
}

/// What is another one wherever central's transactions are numbered anew.
async fn timeline(link: &mut Link) -> Result<String, CentralError> {
    let rows = link.rows(sqlx::query(TIMELINE)).await?;
    let Some(row) = rows.first() else { return Ok(String::new()) };
    let mut timeline: String = column(row, 0)?;
    if column(row, 1)?
        && let Some(first) = link.rows(sqlx::query(FIRST_WRITTEN)).await?.first()
    {
        timeline = format!("{timeline}-{}", column::<String>(first, 0)?);
    }
    Ok(timeline)
}

async fn check_schema(link: &mut Link) -> Result<(), CentralError> {
    match link.rows(sqlx::query(SCHEMA_IS_THERE)).await?.first() {
        Some(row) if column(row, 0)? => Ok(()),
        _ => Err(CentralError::SchemaMissing(
            "central has no tables for sessiond, or old ones; run `sessiond migrate`".into(),
        )),
    }
}

fn name(row: &PgRow) -> Result<MachineName, CentralError> {
    MachineName::parse(column(row, 0)?).map_err(|error| CentralError::Retry(format!("central: {error}")))
}

/// A host as central has it.
struct Entry {
    host_id: Uuid,
    machine_name: String,
    claim: Uuid,
    retired: bool,
    replaced_by: Option<Uuid>,
    last_seen: Timestamp,
    batch: i64,
}

impl Entry {
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
        // A ledger before what this host knows to be applied is a restored backup's, and so is its claim. One that a copy
        // of this folder made is found by the copy, which then meets this host's claim.
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

const TWO_WAYS: &str = "run `sessiond identity rename NAME` to give this host another name, or `sessiond identity \
     replace` to take it over";

fn taken(name: &MachineName, by: Uuid, last_seen: Timestamp) -> String {
    format!("another host ({by}, last seen {last_seen}) goes by the name {name} in central; {TWO_WAYS}")
}

/// Push says this and the next too, when it finds that this host may no longer write.
pub(super) fn copied(host_id: Uuid, name: &str, last_seen: Timestamp) -> String {
    format!(
        "a copy of this state folder (host {host_id}, {name}, last seen {last_seen}) runs elsewhere; run `sessiond \
         identity rename NAME` on the copy, or `sessiond identity replace` on the one that shall keep the name"
    )
}

pub(super) fn replaced(name: &str, by: Uuid) -> String {
    format!("host {by} has replaced this one as {name} in central; {TWO_WAYS}")
}
