//! The columns with times without a zone: their tables and sizes, the zone of their rows, and their defaults.

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::super::zone;
use super::error::{MigrateError, MigrateFailure};

/// A table at most this large is converted at once: readers wait less than a second.
const SMALL: i64 = 16 << 20;

/// How many bytes of a table and its indexes a server with a slow disk rewrites per second.
const REWRITTEN: i64 = 40 << 20;

/// A column with times without a zone.
#[derive(Clone, Debug)]
pub(super) struct NaiveColumn {
    pub table: String,
    pub name: String,
    /// The zone of its rows.
    pub zone: String,
    /// Its default once the column has a zone.
    pub default: Option<String>,
}

/// A table of central before the migration.
#[derive(Clone, Debug)]
pub(super) struct CentralTable {
    pub name: String,
    pub rows: i64,
    pub bytes: i64,
    pub partitioned: bool,
}

impl CentralTable {
    /// Whether rewriting it would block readers for more than a second.
    pub(super) fn is_large(&self) -> bool {
        self.bytes > SMALL
    }

    /// A rough estimate of how long reading and writing all of it takes, in seconds.
    pub(super) fn seconds(&self) -> i64 {
        (self.bytes / REWRITTEN).max(1)
    }

    /// Its size as text.
    pub(super) fn size(&self) -> String {
        format!("{}: about {} rows, {}", self.name, self.rows, bytesize::ByteSize(self.bytes.unsigned_abs()))
    }
}

/// The tables with the server's estimate of rows, -1 if it has none yet.
const TABLES: &str = "\
    WITH found AS (SELECT name, c.oid, c.relkind, \
            (SELECT coalesce(sum(pg_total_relation_size(p)), 0)::bigint FROM (SELECT c.oid::regclass AS p UNION \
                SELECT relid FROM pg_partition_tree(c.oid)) AS parts) AS bytes, \
            (SELECT sum(reltuples)::bigint FROM pg_class WHERE reltuples >= 0 AND (oid = c.oid OR oid IN \
                (SELECT relid FROM pg_partition_tree(c.oid) WHERE isleaf))) AS rows \
        FROM unnest(ARRAY['supervisor_sessions', 'command_log', 'checkpoints']) AS name \
        JOIN pg_class c ON c.oid = to_regclass(name)) \
    SELECT name, coalesce(rows, -1), bytes, relkind = 'p' FROM found";

pub(super) async fn tables(connection: &mut PgConnection) -> Result<Vec<CentralTable>, sqlx::Error> {
    let rows = sqlx::query(TABLES).fetch_all(connection).await?;
    let table = |row: &PgRow| {
        let partitioned = row.try_get(3)?;
        Ok(CentralTable { name: row.try_get(0)?, rows: row.try_get(1)?, bytes: row.try_get(2)?, partitioned }.guessed())
    };
    rows.iter().map(table).collect()
}

impl CentralTable {
    /// Estimates the rows if the server has no statistics: a row with its index entries takes half a kilobyte.
    fn guessed(self) -> Self {
        Self { rows: if self.rows < 0 { self.bytes / 512 } else { self.rows }, ..self }
    }
}

/// Each naive column, its default, whether that is the current time in the session's zone, and the zone that it names.
const NAIVE: &str = r"
    SELECT t.name, a.attname::text, d.text,
        d.text ~* '^\(?(CURRENT_TIMESTAMP|LOCALTIMESTAMP|now\(\)|(transaction|statement|clock)_timestamp\(\))(\(\d\))?\)?(::timestamp(\(\d\))? without time zone|::timestamp(\(\d\))?)?$',
        CASE WHEN d.text ~* 'CURRENT_TIMESTAMP|now\(\)|(transaction|statement|clock)_timestamp\(\)'
            THEN substring(d.text FROM '(?i)(?:timezone\(|AT TIME ZONE )\(?''([^'']+)''') END
    FROM (VALUES ('supervisor_sessions', '{last_heartbeat, created_at, closed_at}'::text[]),
        ('command_log', '{created_at}')) AS t (name, columns)
    JOIN pg_attribute a ON a.attrelid = to_regclass(t.name) AND a.attname = ANY (t.columns)
        AND a.atttypid = 'timestamp'::regtype AND NOT a.attisdropped
    LEFT JOIN LATERAL (SELECT pg_get_expr(adbin, adrelid) AS text FROM pg_attrdef
        WHERE adrelid = a.attrelid AND adnum = a.attnum) AS d ON true
    ORDER BY t.name DESC, a.attnum";

/// If another table has rows, this one has rows too.
const HAS_ROWS: &str = "SELECT EXISTS (SELECT FROM supervisor_sessions)";

/// The zones given by the operator: one for all columns, or one per column.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    all: Option<String>,
    by_column: Vec<(String, String)>,
}

impl Given {
    pub(super) async fn read(connection: &mut PgConnection, given: &[String]) -> Result<Self, MigrateFailure> {
        let mut all = Self::default();
        for text in given {
            let (column, zone) = match text.split_once('=') {
                Some((column, zone)) => (Some(column), zone),
                None => (None, text.as_str()),
            };
            if !zone::is_known(connection, zone).await? {
                return Err(MigrateError::NoSuchZone(zone.escape_debug().take(80).collect()).into());
            }
            match column {
                Some(column) => all.by_column.push((column.to_owned(), zone.to_owned())),
                None => all.all = Some(zone.to_owned()),
            }
        }
        Ok(all)
    }

    fn of(&self, column: &str) -> Option<&String> {
        self.by_column.iter().rev().find(|(name, _)| name == column).map(|(_, zone)| zone)
    }

    fn check(&self, columns: &[String]) -> Result<(), MigrateError> {
        match self.by_column.iter().find(|(name, _)| !columns.contains(name)) {
            Some((name, _)) if !columns.is_empty() => Err(MigrateError::NoSuchColumn(
                name.escape_debug().take(80).collect(),
                format!("there are {}", columns.join(", ")),
            )),
            _ => Ok(()),
        }
    }
}

/// The naive columns, and the zone that was assumed for existing rows, if there are any.
pub(super) async fn naive(
    connection: &mut PgConnection,
    given: &Given,
) -> Result<(Vec<NaiveColumn>, Option<String>), MigrateFailure> {
    let rows = sqlx::query(NAIVE).fetch_all(&mut *connection).await?;
    let named = |row: &PgRow| Ok(format!("{}.{}", row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?));
    let names = rows.iter().map(named).collect::<Result<Vec<_>, sqlx::Error>>()?;
    given.check(&names)?;
    if rows.is_empty() {
        return Ok((Vec::new(), None));
    }
    let has_rows: bool = sqlx::query(HAS_ROWS).fetch_one(&mut *connection).await?.try_get(0)?;
    let answered = names.iter().all(|name| given.of(name).is_some());
    let general = match &given.all {
        Some(zone) => zone.clone(),
        None if !has_rows || answered => "UTC".to_owned(),
        None => zone::of_writers(connection).await??,
    };
    let mut columns = Vec::new();
    for (row, name) in rows.iter().zip(&names) {
        let default: Option<String> = row.try_get(2)?;
        let of_default: Option<String> = row.try_get(4)?;
        let zone = match (given.of(name), &given.all, &of_default) {
            (Some(zone), ..) | (None, Some(zone), _) => zone.clone(),
            (None, None, Some(named)) if has_rows && !zone::is_same(named, &general) => {
                return Err(MigrateError::DefaultZone {
                    column: name.clone(),
                    default: default.unwrap_or_default(),
                    named: named.clone(),
                    found: general,
                }
                .into());
            }
            _ => general.clone(),
        };
        let is_now: Option<bool> = row.try_get(3)?;
        columns.push(NaiveColumn {
            table: row.try_get(0)?,
            name: row.try_get(1)?,
            default: default.map(|text| with_zone(&text, is_now == Some(true) || of_default.is_some(), &zone)),
            zone,
        });
    }
    let mut zones: Vec<&str> = columns.iter().map(|column| column.zone.as_str()).collect();
    zones.dedup();
    let shown = match zones[..] {
        [zone] => zone.to_owned(),
        _ => columns.iter().map(|c| format!("{}.{}={}", c.table, c.name, c.zone)).collect::<Vec<_>>().join(", "),
    };
    Ok((columns, has_rows.then_some(shown)))
}

/// The default that yields the same time once its column has a zone.
fn with_zone(default: &str, is_now: bool, zone: &str) -> String {
    if !is_now {
        format!("(({default})::timestamp AT TIME ZONE '{}')", zone.replace('\'', "''"))
    } else if default.to_ascii_lowercase().contains("clock_timestamp") {
        "clock_timestamp()".into()
    } else {
        "CURRENT_TIMESTAMP".into()
    }
}
