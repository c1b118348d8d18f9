//! Determines the time zone in which earlier clients wrote times without a zone.
//!
//! They wrote in the zone of their session: that of their role, else of the database, else of the server. sqlx sets UTC
//! when it connects, and the server then shows that as its default; so the settings are read from the catalog, and from
//! the server's files where this login may read them. A client library that sets a zone itself leaves no trace; the
//! operator gives it by `--time-zone`.

use std::collections::BTreeMap;

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::migrate::MigrateError;

/// The server's built-in default.
const BUILT_IN: &str = "GMT";

/// The names of the zone that never has an offset.
const UTC: [&str; 18] = [
    "utc",
    "etc/utc",
    "gmt",
    "etc/gmt",
    "uct",
    "etc/uct",
    "zulu",
    "etc/zulu",
    "universal",
    "etc/universal",
    "greenwich",
    "etc/greenwich",
    "gmt0",
    "etc/gmt0",
    "gmt+0",
    "etc/gmt+0",
    "gmt-0",
    "etc/gmt-0",
];

const KNOWN: &str = "SELECT EXISTS (SELECT FROM pg_timezone_names WHERE lower(name) = lower($1))";

/// The setting for `$role` in this database, else for the role, else for the database, else for all.
macro_rules! setting {
    ($role:literal) => {
        concat!(
            "(SELECT substr(entry, strpos(entry, '=') + 1) FROM pg_db_role_setting, unnest(setconfig) AS entry \
             WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) AND setrole IN (0, ",
            $role,
            ") AND lower(split_part(entry, '=', 1)) = 'timezone' ORDER BY setrole <> 0 DESC, setdatabase <> 0 DESC LIMIT 1)"
        )
    };
}

const OF_ROLE_OR_DATABASE: &str =
    concat!("SELECT ", setting!("(SELECT oid FROM pg_roles WHERE rolname = session_user)"));

/// The roles that can log in and write sessions, with the zone that is set for each.
const WRITERS: &str = concat!(
    "SELECT r.rolname::text, ",
    setting!("r.oid"),
    " FROM pg_roles r WHERE r.rolcanlogin AND (has_any_column_privilege(r.oid, 'supervisor_sessions', 'INSERT') \
         OR has_any_column_privilege(r.oid, 'supervisor_sessions', 'UPDATE')) ORDER BY 1"
);

const MAY_READ: &str = "\
    SELECT has_function_privilege('pg_read_file(text, bigint, bigint, boolean)', 'execute') \
        AND has_table_privilege('pg_file_settings', 'select') \
        AND has_function_privilege('pg_show_all_file_settings()', 'execute')";

const OPTIONS: &str = "SELECT pg_read_file('postmaster.opts', 0, 65536, true)";

const OF_FILES: &str =
    "SELECT setting FROM pg_file_settings WHERE lower(name) = 'timezone' AND applied ORDER BY seqno DESC LIMIT 1";

/// Whether times in this zone are those of UTC.
pub(super) fn is_utc(zone: &str) -> bool {
    UTC.contains(&zone.to_ascii_lowercase().as_str())
}

pub(super) fn is_same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || is_utc(a) && is_utc(b)
}

pub(super) async fn is_known(connection: &mut PgConnection, zone: &str) -> Result<bool, sqlx::Error> {
    is(connection, sqlx::query(KNOWN).bind(zone.to_owned())).await
}

/// The zone of the roles that write sessions. An error if they differ, or if it cannot be determined.
pub(super) async fn of_writers(connection: &mut PgConnection) -> Result<Result<String, MigrateError>, sqlx::Error> {
    let mut zones: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut own = None;
    for row in &sqlx::query(WRITERS).fetch_all(&mut *connection).await? {
        let (role, set): (String, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
        let zone = match set {
            Some(zone) => zone,
            None => {
                if own.is_none() {
                    own = of_server(connection).await?;
                }
                match &own {
                    Some(zone) => zone.clone(),
                    None => return Ok(Err(MigrateError::ZoneUnknown)),
                }
            }
        };
        let same = zones.keys().find(|known| is_same(known, &zone)).cloned();
        zones.entry(same.unwrap_or(zone)).or_default().push(role);
    }
    if zones.len() > 1 {
        let each = zones.iter().map(|(zone, roles)| format!("{}: {zone}", roles.join(", "))).collect::<Vec<_>>();
        return Ok(Err(MigrateError::ZonesDiffer(each.join("; "))));
    }
    Ok(zones.into_keys().next().ok_or(MigrateError::ZoneUnknown))
}

/// The zone of this role's sessions, if it can be determined.
pub(super) async fn find(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    match text(connection, OF_ROLE_OR_DATABASE).await? {
        Some(zone) => Ok(Some(zone)),
        None => of_server(connection).await,
    }
}

async fn of_server(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    if !is(connection, sqlx::query(MAY_READ)).await? {
        return Ok(None);
    }
    let options = text(connection, OPTIONS).await?.unwrap_or_default();
    if let Some(zone) = on_command_line(&options) {
        return Ok(Some(zone));
    }
    Ok(Some(text(connection, OF_FILES).await?.unwrap_or_else(|| BUILT_IN.to_owned())))
}

type Query = sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments>;

async fn is(connection: &mut PgConnection, query: Query) -> Result<bool, sqlx::Error> {
    query.fetch_one(connection).await?.try_get(0)
}

async fn text(connection: &mut PgConnection, sql: &'static str) -> Result<Option<String>, sqlx::Error> {
    let row = sqlx::query(sql).fetch_optional(connection).await?;
    Ok(row.map(|row: PgRow| row.try_get::<Option<String>, _>(0)).transpose()?.flatten())
}

/// The zone among the options with which the server was started, each of them in double quotes:
/// `"-c" "timezone=UTC"`, `"-cTimeZone=UTC"` or `"--timezone=UTC"`. The last one counts.
fn on_command_line(options: &str) -> Option<String> {
    let words = options.split('"').skip(1).step_by(2);
    let settings = words.map(|word| word.strip_prefix("--").or(word.strip_prefix("-c")).unwrap_or(word).trim());
    let zones = settings.filter_map(|setting| {
        let (name, value) = setting.split_once('=')?;
        name.trim().eq_ignore_ascii_case("timezone").then(|| value.trim().to_owned())
    });
    zones.last()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_zone_in_any_spelling() {
        for (options, zone) in [
            (r#"/bin/postgres "-D" "/data" "-c" "timezone=Asia/Kolkata""#, Some("Asia/Kolkata")),
            (r#"/bin/postgres "-D" "/data" "-cTimeZone=UTC" "-p" "1""#, Some("UTC")),
            (r#"/bin/postgres "--TIMEZONE=America/New_York""#, Some("America/New_York")),
            (r#"/bin/postgres "-c" "timezone=UTC" "--timezone=GMT""#, Some("GMT")),
            (r#"/bin/postgres "-D" "/data" "-c" "log_timezone=UTC""#, None),
            ("", None),
        ] {
            assert_eq!(on_command_line(options).as_deref(), zone, "{options}");
        }
    }
}
