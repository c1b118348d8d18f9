//! Central's migrations from every earlier state of a database.

use std::path::{Path, PathBuf};

use sessiond::sync::central::CentralError;
use sessiond::sync::postgres::{MigrateError, migrate};

use super::postgres::{dry_run, options};
use testkit::postgres::{NULL, Server};

/// One of the files.
pub fn file(index: usize) -> PathBuf {
    let names = [
        "1769700000000_session_registry",
        "1769950000000_add_host_machine",
        "1770000000000_sessiond",
        "1780000000000_mirror_and_history",
        "1790000000000_silent_sessions_and_views",
        "1791000000000_merge_by_column",
        "1792000000000_guard_of_column_times",
        "1793000000000_session_work",
        "1794000000000_rate_limits",
        "1795000000000_agents",
        "1796000000000_vouching",
        "1797000000000_activity_history",
        "1798000000000_leases",
        "1799000000000_partitions_and_postgres_13",
    ];
    Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/central").join(format!("{}.sql", names[index]))
}

const COLUMNS: &str = "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attname) \
     FROM pg_attribute WHERE attrelid = 'supervisor_sessions'::regclass AND attnum > 0";

#[tokio::test]
async fn every_state_leads_to_the_same_schema() {
    let server = Server::start(&["timezone=Asia/Kolkata"]);
    let mut schemas = Vec::new();
    for (index, files) in [
        &[][..],
        &[0],
        &[0, 1],
        &[0, 1, 1],
        &[1, 1],
        &[1, 0],
        &[0, 1, 2],
        &[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 4],
        &[0, 1, 2, 3, 4, 5, 5, 3],
        &[0, 1, 2, 3, 4, 5, 6, 6],
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("state_{index}");
        server.create(&name);
        files.iter().for_each(|f| server.psql_file(&name, &file(*f)));
        let report = migrate(&options(&server.url(&name)), None).await.unwrap();
        assert_eq!(report.steps.len(), 14);
        assert_eq!(migrate(&options(&server.url(&name)), None).await.unwrap().steps, []);
        schemas.push(server.psql(&name, COLUMNS));
        let indexes = "SELECT count(*) FROM pg_indexes WHERE indexname LIKE 'idx_supervisor_sessions_%'";
        assert_eq!(server.psql(&name, indexes), "9");
        assert_eq!(server.psql(&name, "SELECT * FROM sessions_with_machine, active_sessions_by_machine"), "");
        // All of it can follow itself by psql as well.
        [0, 1, 2, 3, 4, 1].iter().for_each(|f| server.psql_file(&name, &file(*f)));
    }
    schemas.dedup();
    assert_eq!(schemas.len(), 1, "{schemas:#?}");
    assert!(schemas[0].contains("last_heartbeat timestamp with time zone"));
}

const OLD_ROWS: &str = "INSERT INTO supervisor_sessions (instance_id, project, instance_type, last_heartbeat, \
     created_at) \
     VALUES ('odin-PS-000001', 'odin', 'PS', '2026-07-01 12:00', '2026-01-01 12:00')";

const IN_UTC: &str = "SELECT last_heartbeat AT TIME ZONE 'UTC', created_at AT TIME ZONE 'UTC', closed_at, host_machine \
     FROM supervisor_sessions";

/// A database from before there were zones, with a row in it.
pub fn old(server: &Server, name: &str) {
    server.create(name);
    server.psql_file(name, &file(0));
    server.psql(name, OLD_ROWS);
    server.psql_file(name, &file(1));
}

#[tokio::test]
async fn old_rows_are_converted_by_the_zone_they_were_written_in() {
    let new_york = format!("2026-07-01 16:00:00|2026-01-01 17:00:00|{NULL}|odin3");
    let kolkata = format!("2026-07-01 06:30:00|2026-01-01 06:30:00|{NULL}|odin3");

    let server = Server::start(&["timezone=America/New_York"]);
    old(&server, "by_option");
    let report = dry_run(&options(&server.url("by_option"))).await.unwrap();
    assert_eq!(report.steps.len(), 14);
    assert!(report.steps[2].sql.contains("sessiond_hosts"));
    assert!(
        server.psql("by_option", COLUMNS).contains("last_heartbeat timestamp without"),
        "a dry run changes nothing"
    );
    let report = migrate(&options(&server.url("by_option")), None).await.unwrap();
    assert_eq!(report.time_zone.as_deref(), Some("America/New_York"));
    assert_eq!(server.psql("by_option", IN_UTC), new_york);

    old(&server, "by_hand");
    migrate(&options(&server.url("by_hand")), Some("Asia/Kolkata".into())).await.unwrap();
    assert_eq!(server.psql("by_hand", IN_UTC), kolkata);

    old(&server, "by_psql");
    server.psql_file("by_psql", &file(2));
    assert_eq!(server.psql("by_psql", IN_UTC), new_york);

    old(&server, "by_database");
    server.psql("by_database", "ALTER DATABASE by_database SET timezone = 'Asia/Kolkata'");
    migrate(&options(&server.url("by_database")), None).await.unwrap();
    assert_eq!(server.psql("by_database", IN_UTC), kolkata);
    let age = "SELECT abs(age_seconds - extract(epoch FROM now() - timestamptz '2026-07-01 06:30Z')) < 5 FROM \
         sessions_with_machine";
    assert_eq!(server.psql("by_database", age), "t");
}

#[tokio::test]
async fn the_zone_is_found_in_the_servers_files_or_asked_for() {
    let server = Server::start(&[]);
    server.psql("postgres", "ALTER SYSTEM SET timezone = 'Asia/Kolkata'");
    server.psql("postgres", "SELECT pg_reload_conf()");
    old(&server, "x");
    server.psql(
        "x",
        "CREATE ROLE plain LOGIN; ALTER SCHEMA public OWNER TO plain; ALTER TABLE supervisor_sessions OWNER TO plain; \
        ALTER VIEW active_sessions_by_machine OWNER TO plain; ALTER VIEW sessions_with_machine OWNER TO plain; \
        ALTER FUNCTION update_last_heartbeat OWNER TO plain",
    );

    let plain = options(&server.url_as("plain", "x"));
    let asked = migrate(&plain, None).await.unwrap_err();
    assert_eq!(asked, MigrateError::ZoneUnknown);
    assert!(asked.to_string().contains("--time-zone \"$(psql -Atc 'show timezone')\""), "{asked}");
    let odd = migrate(&plain, Some("Asia/Atlantis'".into())).await.unwrap_err();
    assert!(matches!(&odd, MigrateError::NoSuchZone(zone) if zone.starts_with("Asia/Atlantis")), "{odd}");

    let dry = dry_run(&options(&server.url("x"))).await.unwrap();
    assert_eq!(dry.time_zone.as_deref(), Some("Asia/Kolkata"));
    migrate(&plain, Some("asia/kolkata".into())).await.unwrap();
    assert!(server.psql("x", IN_UTC).starts_with("2026-07-01 06:30:00|"));
}

#[tokio::test]
async fn a_missing_right_to_migrate_is_named() {
    let server = Server::start(&[]);
    server.psql("postgres", "CREATE ROLE stranger LOGIN");
    let error = migrate(&options(&server.url_as("stranger", "postgres")), None).await.unwrap_err();
    assert!(matches!(&error, MigrateError::Central(CentralError::Refused(m)) if m.contains("grant")), "{error}");
}

#[tokio::test]
async fn views_and_grants_of_operators_survive() {
    let server = Server::start(&["timezone=UTC"]);
    old(&server, "x");
    server.psql(
        "x",
        "CREATE ROLE reader; CREATE ROLE keeper; GRANT SELECT ON supervisor_sessions TO keeper; CREATE SCHEMA own \
             AUTHORIZATION keeper; \
         GRANT SELECT ON active_sessions_by_machine TO reader WITH GRANT OPTION; \
         GRANT SELECT (project) ON sessions_with_machine TO PUBLIC; \
         CREATE VIEW own.recent WITH (security_barrier) AS SELECT instance_id, last_heartbeat AS \"At\" FROM \
         supervisor_sessions; \
         CREATE VIEW own.joined AS SELECT r.*, m.projects FROM own.recent r, active_sessions_by_machine m; \
         CREATE MATERIALIZED VIEW own.kept AS SELECT * FROM own.joined; CREATE INDEX kept_id ON own.kept \
         (instance_id); \
         COMMENT ON VIEW own.recent IS 'it''s mine'; COMMENT ON COLUMN own.recent.\"At\" IS 'when'; \
         GRANT SELECT, INSERT ON own.recent TO reader; ALTER VIEW own.recent OWNER TO keeper",
    );
    let what = "SELECT c.oid::regclass, relkind, relowner::regrole, relacl, reloptions, obj_description(c.oid), \
            (SELECT string_agg(format('%s %s %s', attname, attacl, col_description(c.oid, attnum)), ';' ORDER BY \
            attname) \
             FROM pg_attribute WHERE attrelid = c.oid), (SELECT count(*) FROM pg_index WHERE indrelid = c.oid) \
         FROM pg_class c WHERE relkind IN ('v', 'm') AND relnamespace IN ('public'::regnamespace, \
         'own'::regnamespace) ORDER BY c.relname";
    let before = server.psql("x", what);
    migrate(&options(&server.url("x")), None).await.unwrap();
    assert_eq!(server.psql("x", what), before);
    assert_eq!(server.psql("x", "SELECT \"At\" AT TIME ZONE 'UTC' FROM own.kept"), "2026-07-01 12:00:00");
}

#[tokio::test]
async fn a_view_with_other_columns_is_created_again() {
    let server = Server::start(&[]);
    server.create("x");
    server.psql_file("x", &file(0));
    server.psql(
        "x",
        "CREATE ROLE reader; CREATE VIEW sessions_with_machine AS SELECT 1 AS odd; \
         GRANT SELECT ON sessions_with_machine TO reader",
    );
    server.psql_file("x", &file(1));
    server.psql_file("x", &file(1));
    let columns = "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = \
         'sessions_with_machine'::regclass";
    assert_eq!(
        server.psql("x", columns),
        "instance_id project instance_type status context_percent current_epic last_heartbeat created_at closed_at \
         host_machine age_seconds"
    );
    assert_eq!(server.psql("x", "SELECT has_table_privilege('reader', 'sessions_with_machine', 'SELECT')"), "t");
}
