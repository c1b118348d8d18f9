//! Gives the columns of one table a zone, within a transaction that the caller begins and commits. It already holds the
//! locks of the table and its views.
//!
//! Postgres refuses this while views use the table, so each view is dropped and created again with its options, owner,
//! grants, grants on columns, comments, defaults, rules, triggers and indexes. What belongs to the columns themselves
//! stays, because the columns stay. If all rows are in UTC the server need not rewrite the table, only build the indexes
//! on the columns again; those can be left to [`super::online`], which builds them without blocking others.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Executor, Row};

use super::super::zone;
use super::columns::NaiveColumn;
use super::error::{MigrateError, MigrateFailure};
use crate::sync::central::{CentralError, Rejection};

/// Each view that depends on the table, directly or not, outermost first: the statements that drop and create it.
const VIEWS: &str = r"
    WITH RECURSIVE dependent (oid, depth) AS (
        SELECT $1::regclass::oid, 0
        UNION
        SELECT r.ev_class, dependent.depth + 1
        FROM dependent
        JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = dependent.oid
            AND d.classid = 'pg_rewrite'::regclass
        JOIN pg_rewrite r ON r.oid = d.objid AND r.ev_class <> dependent.oid),
    views AS (
        SELECT c.*, c.oid::regclass::text AS name, d.depth,
            CASE c.relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'VIEW' END AS kind
        FROM pg_class c JOIN (SELECT oid, max(depth) AS depth FROM dependent GROUP BY oid) d ON d.oid = c.oid
        WHERE c.relkind IN ('v', 'm'))
    SELECT format('DROP %s %s', v.kind, v.name),
        ARRAY[format('CREATE %s %s%s AS %s%s', v.kind, v.name,
            ' WITH (' || array_to_string(v.reloptions, ', ') || ')',
            rtrim(pg_get_viewdef(v.oid), ';'),
            CASE WHEN v.relispopulated THEN '' ELSE ' WITH NO DATA' END)
        ] || ARRAY(
            SELECT DISTINCT format('REVOKE ALL ON %s FROM %s', v.name,
                CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END)
            FROM pg_default_acl a, aclexplode(a.defaclacl) g
            WHERE a.defaclobjtype = 'r' AND a.defaclnamespace IN (0, v.relnamespace)
                AND a.defaclrole = (SELECT oid FROM pg_roles WHERE rolname = current_user) AND g.grantee <> a.defaclrole
        ) || ARRAY(
            SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = v.oid
        ) || ARRAY(
            SELECT pg_get_ruledef(oid) FROM pg_rewrite WHERE ev_class = v.oid AND rulename <> '_RETURN'
        ) || ARRAY(
            SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = v.oid AND NOT tgisinternal
        ) || ARRAY(
            SELECT format('ALTER VIEW %s ALTER COLUMN %I SET DEFAULT %s', v.name, a.attname,
                pg_get_expr(f.adbin, f.adrelid))
            FROM pg_attrdef f JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum
            WHERE f.adrelid = v.oid
        ) || ARRAY(
            SELECT CASE t.objsubid
                WHEN 0 THEN format('COMMENT ON %s %s IS %L', v.kind, v.name, t.description)
                ELSE format('COMMENT ON COLUMN %s.%I IS %L', v.name, a.attname, t.description) END
            FROM pg_description t LEFT JOIN pg_attribute a ON a.attrelid = t.objoid AND a.attnum = t.objsubid
            WHERE t.classoid = 'pg_class'::regclass AND t.objoid = v.oid
        ) || ARRAY(
            SELECT format('GRANT %s%s ON %s TO %s%s', g.privilege_type, g.of_column, v.name,
                CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
                CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
            FROM (
                SELECT (aclexplode(v.relacl)).*, '' AS of_column
                UNION ALL
                SELECT (aclexplode(attacl)).*, format(' (%I)', attname) FROM pg_attribute WHERE attrelid = v.oid
            ) g
            WHERE g.grantee <> v.relowner
        ) || ARRAY[format('ALTER %s %s OWNER TO %I', v.kind, v.name, pg_get_userbyid(v.relowner))]
    FROM views v ORDER BY v.depth DESC, v.name";

/// The columns of views with times that have a zone, which they must keep.
const ZONED: &str = r"
    WITH RECURSIVE dependent (oid) AS (
        SELECT $1::regclass::oid
        UNION
        SELECT r.ev_class
        FROM dependent
        JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = dependent.oid
            AND d.classid = 'pg_rewrite'::regclass
        JOIN pg_rewrite r ON r.oid = d.objid)
    SELECT format('%s.%I', c.oid::regclass, a.attname)
    FROM dependent JOIN pg_class c USING (oid) JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    WHERE c.relkind IN ('v', 'm') AND NOT a.attisdropped AND a.atttypid = $2::regtype ORDER BY 1";

/// The table of the indexes that were dropped and have to be built again.
pub(super) const REBUILDS: &str = "\
    CREATE TABLE IF NOT EXISTS sessiond_index_rebuilds (name TEXT PRIMARY KEY, definition TEXT NOT NULL, comment TEXT)";

/// The indexes that may be missing for a while: they enforce no constraint and identify no rows.
const INDEXES: &str = r"
    SELECT DISTINCT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid),
        obj_description(i.indexrelid, 'pg_class')
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid AND c.reltablespace = 0
    JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
        AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = d.refobjsubid AND a.attname = ANY ($2)
    WHERE i.indrelid = $1::regclass AND i.indisvalid AND NOT i.indisunique AND NOT i.indisexclusion
        AND NOT i.indisreplident AND NOT i.indisclustered
        AND NOT EXISTS (SELECT FROM pg_attribute s WHERE s.attrelid = i.indexrelid AND s.attstattarget > 0)";

/// When indexes on a changed column are built again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IndexRebuild {
    /// In the transaction that changes the column.
    AtOnce,
    /// After it.
    Later,
}

/// Gives the times in these columns a zone. The views on the table are dropped and created again.
pub(super) async fn convert(
    connection: &mut PgConnection,
    table: &str,
    columns: &[&NaiveColumn],
    indexes: IndexRebuild,
) -> Result<(), MigrateFailure> {
    let row = sqlx::query("SELECT current_setting('search_path'), $1::regclass::oid, current_schema()")
        .bind(table)
        .fetch_one(&mut *connection)
        .await?;
    let (path, schema): (String, String) = (row.try_get(0)?, row.try_get(2)?);
    if indexes == IndexRebuild::Later {
        run(connection, REBUILDS.into()).await?;
    }
    // With an empty search_path every name in a definition is qualified, and resolves to the same object later.
    let oid: sqlx::postgres::types::Oid = row.try_get(1)?;
    set(connection, "search_path", "").await?;
    let name: String =
        sqlx::query("SELECT $1::regclass::text").bind(oid).fetch_one(&mut *connection).await?.try_get(0)?;
    let views = sqlx::query(VIEWS).bind(oid).fetch_all(&mut *connection).await?;
    let zoned = names(connection, oid, "timestamptz").await?;
    for view in &views {
        run(connection, view.try_get(0)?).await?;
    }
    if indexes == IndexRebuild::Later {
        defer_indexes(connection, oid, columns, &schema).await?;
    }
    for sql in statements(&name, columns) {
        run(connection, sql).await?;
    }
    // In the reverse order of dropping.
    for view in views.iter().rev() {
        for sql in view.try_get::<Vec<String>, _>(1)? {
            run(connection, sql).await?;
        }
    }
    let naive = names(connection, oid, "timestamp").await?;
    if let Some(lost) = zoned.iter().find(|name| naive.contains(name)) {
        return Err(MigrateError::Central(CentralError::Reject(Rejection::without_code(format!(
            "view column {lost} would lose its time zone, because the view names a zone itself (AT TIME ZONE); drop the \
             view, run `sessiond migrate`, and create it again without that"
        ))))
        .into());
    }
    set(connection, "search_path", &path).await?;
    Ok(())
}

/// The changes of the table. Postgres converts a default with its column, by the naive time, so it is set again.
fn statements(table: &str, columns: &[&NaiveColumn]) -> Vec<String> {
    let in_utc = columns.iter().all(|column| zone::is_utc(&column.zone));
    let each = |of: &dyn Fn(&NaiveColumn) -> Option<String>| {
        let parts: Vec<String> = columns.iter().filter_map(|column| of(column)).collect();
        (!parts.is_empty()).then(|| format!("ALTER TABLE {table} {}", parts.join(", ")))
    };
    let quoted = |column: &NaiveColumn| column.name.clone();
    let no_default = each(&|c| c.default.as_ref().map(|_| format!("ALTER {} DROP DEFAULT", quoted(c))));
    let change = each(&|c| {
        let using = format!(" USING {} AT TIME ZONE '{}'", quoted(c), c.zone.replace('\'', "''"));
        Some(format!("ALTER {} TYPE TIMESTAMPTZ{}", quoted(c), if in_utc { "" } else { &using }))
    });
    let new_default = each(&|c| c.default.as_ref().map(|text| format!("ALTER {} SET DEFAULT {text}", quoted(c))));
    // The cast uses the session's zone; with UTC it changes no row.
    let session = in_utc.then(|| "SET LOCAL TIME ZONE 'UTC'".to_owned());
    [session, no_default, change, new_default].into_iter().flatten().collect()
}

/// Drops the indexes on the columns, and records them.
async fn defer_indexes(
    connection: &mut PgConnection,
    table: sqlx::postgres::types::Oid,
    columns: &[&NaiveColumn],
    schema: &str,
) -> Result<(), MigrateFailure> {
    let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    let indexes = sqlx::query(INDEXES).bind(table).bind(names).fetch_all(&mut *connection).await?;
    for index in &indexes {
        let name: String = index.try_get(0)?;
        let insert = format!(
            "INSERT INTO \"{}\".sessiond_index_rebuilds VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING",
            schema.replace('"', "\"\"")
        );
        sqlx::query(AssertSqlSafe(insert))
            .bind(&name)
            .bind(index.try_get::<String, _>(1)?)
            .bind(index.try_get::<Option<String>, _>(2)?)
            .execute(&mut *connection)
            .await?;
        run(connection, format!("DROP INDEX {name}")).await?;
    }
    Ok(())
}

async fn names(
    connection: &mut PgConnection,
    table: sqlx::postgres::types::Oid,
    of_type: &str,
) -> Result<Vec<String>, sqlx::Error> {
    let rows = sqlx::query(ZONED).bind(table).bind(of_type).fetch_all(connection).await?;
    rows.iter().map(|row: &PgRow| row.try_get(0)).collect()
}

async fn set(connection: &mut PgConnection, name: &'static str, value: &str) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT set_config($1, $2, true)").bind(name).bind(value).execute(connection).await.map(|_| ())
}

pub(super) async fn run(connection: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.map(|_| ())
}
