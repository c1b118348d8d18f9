//! Preserves the two views of the earlier services while the files are applied.
//!
//! `1769950000000_add_host_machine.sql` replaces them: with other columns, and without the grants on columns, comments
//! and options of the existing ones. So a view that has all columns is renamed with everything that belongs to it, and
//! replaces that of the file afterwards.

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::convert::run;

const COMPLETE: &str = r"
    SELECT v.name FROM (VALUES
        ('active_sessions_by_machine', '{host_machine, total_sessions, active_sessions, stale_sessions, closed_sessions,
            last_activity, projects}'::name[]),
        ('sessions_with_machine', '{instance_id, project, instance_type, status, context_percent, current_epic,
            last_heartbeat, created_at, closed_at, host_machine, age_seconds}')) AS v (name, columns)
    JOIN pg_class c ON c.oid = to_regclass(v.name) AND c.relkind = 'v'
    WHERE v.columns <@ ARRAY(SELECT attname FROM pg_attribute WHERE attrelid = c.oid AND NOT attisdropped)";

/// Renames the views that are kept, and returns their names.
pub(super) async fn keep(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let rows = sqlx::query(COMPLETE).fetch_all(&mut *connection).await?;
    let kept = rows.iter().map(|row: &PgRow| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
    for name in &kept {
        run(connection, format!("ALTER VIEW {name} RENAME TO sessiond_kept_{name}")).await?;
    }
    Ok(kept)
}

pub(super) async fn put_back(connection: &mut PgConnection, kept: &[String]) -> Result<(), sqlx::Error> {
    for name in kept {
        let sql = format!("DROP VIEW IF EXISTS {name}; ALTER VIEW sessiond_kept_{name} RENAME TO {name}");
        run(connection, sql).await?;
    }
    Ok(())
}
