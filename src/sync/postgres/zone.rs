//! In which zone earlier clients wrote their naive times.
//!
//! They wrote in the server's own. sqlx asks for UTC when it connects, which is then what the server
//! shows as its default too; so its settings have to be read where they are kept.

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::migrate_error::{Failure, MigrateError};

/// The server's own default where nothing is set.
const BUILT_IN: &str = "GMT";

const HAS_NAIVE_COLUMNS: &str = "\
    SELECT EXISTS (SELECT FROM pg_attribute WHERE atttypid = 'timestamp'::regtype \
        AND (attrelid = to_regclass('supervisor_sessions') AND attname IN ('last_heartbeat', 'created_at', 'closed_at') \
            OR attrelid = to_regclass('command_log') AND attname = 'created_at'))";

/// Whatever else has rows has them of sessions.
const HAS_ROWS: &str = "SELECT EXISTS (SELECT FROM supervisor_sessions)";

const KNOWN: &str = "SELECT EXISTS (SELECT FROM pg_timezone_names WHERE lower(name) = lower($1))";

/// Settings of this role in this database, of the role, of the database, of all, in this order.
const OF_ROLE_OR_DATABASE: &str = "\
    SELECT substr(entry, strpos(entry, '=') + 1) \
    FROM pg_db_role_setting, unnest(setconfig) AS entry \
    WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) \
        AND setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user)) \
        AND lower(split_part(entry, '=', 1)) = 'timezone' \
    ORDER BY setrole <> 0 DESC, setdatabase <> 0 DESC LIMIT 1";

const MAY_READ: &str = "\
    SELECT has_function_privilege('pg_read_file(text, bigint, bigint, boolean)', 'execute') \
        AND has_table_privilege('pg_file_settings', 'select') \
        AND has_function_privilege('pg_show_all_file_settings()', 'execute')";

const OPTIONS: &str = "SELECT pg_read_file('postmaster.opts', 0, 65536, true)";

const OF_FILES: &str =
    "SELECT setting FROM pg_file_settings WHERE lower(name) = 'timezone' AND applied ORDER BY seqno DESC LIMIT 1";

/// The zone by which naive times must be converted; none if there are none.
pub(super) async fn needed(connection: &mut PgConnection, given: Option<&str>) -> Result<Option<String>, Failure> {
    if let Some(zone) = given
        && !is(connection, sqlx::query(KNOWN).bind(zone)).await?
    {
        return Err(MigrateError::NoSuchZone(zone.escape_debug().take(80).collect()).into());
    }
    if !is(connection, sqlx::query(HAS_NAIVE_COLUMNS)).await? || !is(connection, sqlx::query(HAS_ROWS)).await? {
        return Ok(None);
    }
    match given {
        Some(zone) => Ok(Some(zone.to_owned())),
        None => find(connection).await?.map(Some).ok_or_else(|| MigrateError::ZoneUnknown.into()),
    }
}

pub(super) async fn find(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    if let Some(zone) = text(connection, OF_ROLE_OR_DATABASE).await? {
        return Ok(Some(zone));
    }
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
