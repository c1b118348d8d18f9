//! The locks of a transaction that changes central: all of them are taken at its start, before anything is changed.
//!
//! A query of a view locks the view first, and then the tables that the view reads. A transaction that holds a table and
//! waits for a view of it is in a deadlock with such a query, and after `deadlock_timeout` Postgres ends the query. No
//! order of locks suits all queries, because a query may name two views or two tables in either order. So all locks are
//! requested by one statement, which the server ends after half of `deadlock_timeout`. A reader that waits for one of
//! them began to wait after that statement, and only looks for a deadlock when the locks are given up already. The
//! transaction is then rolled back and repeated later. Once it has all locks, it waits for no other.
//!
//! Maintenance such as autovacuum gives way only to a process that waits for longer than that. So the tables are locked
//! against maintenance before, which blocks neither reads nor writes.

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::convert::run;
use super::error::MigrateFailure;

/// What a transaction is going to change. What is not there is passed over.
#[derive(Clone, Debug, Default)]
pub(super) struct Locks<'a> {
    pub tables: Vec<&'a str>,
    /// Tables whose views are dropped and created again.
    pub with_views: Vec<&'a str>,
    /// Other views that are changed.
    pub views: Vec<&'a str>,
}

/// Each relation, in the order in which most queries lock them: outer views, inner views, tables. What this role may not
/// lock or change is left out, since it may be that nothing of it has to be changed.
const RELATIONS: &str = "\
    WITH RECURSIVE dependent (oid, depth) AS ( \
        SELECT to_regclass(name)::oid, 1 FROM unnest($2::text[]) AS name \
        UNION \
        SELECT r.ev_class, dependent.depth + 1 \
        FROM dependent \
        JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = dependent.oid \
            AND d.classid = 'pg_rewrite'::regclass \
        JOIN pg_rewrite r ON r.oid = d.objid AND r.ev_type = '1' AND r.ev_class <> dependent.oid), \
    named (oid, depth) AS ( \
        SELECT oid, depth FROM dependent WHERE depth > 1 \
        UNION ALL SELECT to_regclass(name)::oid, 1 FROM unnest($3::text[]) AS name \
        UNION ALL SELECT to_regclass(name)::oid, 0 FROM unnest($1::text[]) AS name) \
    SELECT c.relkind::text, c.oid::regclass::text, quote_ident(pg_get_userbyid(c.relowner)) \
    FROM pg_class c JOIN (SELECT oid, max(depth) AS depth FROM named GROUP BY oid) n ON n.oid = c.oid \
    WHERE CASE WHEN c.relkind IN ('r', 'p') THEN has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE') \
        WHEN c.relkind IN ('v', 'm') THEN pg_has_role(c.relowner, 'USAGE') END \
    ORDER BY n.depth DESC, c.oid::regclass::text";

/// Limits the statement that takes the locks, and each wait for a lock from then on. The setting is in milliseconds.
const LIMIT: &str = "\
    SELECT set_config(name, (SELECT least(greatest(setting::int / 2, 100), 1000)::text FROM pg_settings \
        WHERE name = 'deadlock_timeout'), true) FROM unnest(ARRAY['lock_timeout', 'statement_timeout']) AS name";

impl Locks<'_> {
    /// Takes all locks, or fails with [`MigrateFailure::is_lock_timeout`].
    pub(super) async fn take(&self, connection: &mut PgConnection) -> Result<(), MigrateFailure> {
        let relations = sqlx::query(RELATIONS)
            .bind(&self.tables)
            .bind(&self.with_views)
            .bind(&self.views)
            .fetch_all(&mut *connection)
            .await?;
        let (mut tables, mut statements) = (Vec::new(), String::new());
        for relation in &relations {
            let (kind, name, owner): (String, String, String) = read(relation)?;
            // LOCK TABLE locks the tables of a view as well, before the other views. To give a view the owner that it
            // has changes nothing, and locks the view alone.
            statements += &match kind.as_str() {
                "v" => format!("ALTER VIEW {name} OWNER TO {owner}; "),
                "m" => format!("ALTER MATERIALIZED VIEW {name} OWNER TO {owner}; "),
                _ => format!("LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE; "),
            };
            if !["v", "m"].contains(&kind.as_str()) {
                tables.push(name);
            }
        }
        if statements.is_empty() {
            return Ok(());
        }
        if !tables.is_empty() {
            run(connection, format!("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE", tables.join(", "))).await?;
        }
        sqlx::query(LIMIT).fetch_all(&mut *connection).await?;
        let taken = run(connection, format!("DO $sessiond_locks$ BEGIN {statements}END $sessiond_locks$")).await;
        taken.map_err(MigrateFailure::of_locks)?;
        Ok(run(connection, "SET LOCAL statement_timeout = 0".into()).await?)
    }
}

fn read(relation: &PgRow) -> Result<(String, String, String), sqlx::Error> {
    Ok((relation.try_get(0)?, relation.try_get(1)?, relation.try_get(2)?))
}
