//! `sessiond migrate` on a central in use: obstacles, questions, and what stays unchanged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sessiond::sync::postgres::{MigrateError, MigrateRequest, MigrationReport, migrate, migrate_with};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::migrations::{file, old};
use super::postgres::{dry_run, options};
use testkit::postgres::Server;
use testkit::{campaign, eventually, legacy_history};

/// How `migrate` is called.
#[derive(PartialEq)]
enum Mode {
    Online,
    Offline,
}

async fn ask(
    server: &Server,
    name: &str,
    zones: &[&str],
    mode: Mode,
) -> (Result<MigrationReport, MigrateError>, Vec<String>) {
    let request = MigrateRequest {
        time_zones: zones.iter().map(ToString::to_string).collect(),
        dry_run: false,
        offline: mode == Mode::Offline,
    };
    let mut said = Vec::new();
    let result = migrate_with(&options(&server.url(name)), &request, &mut |line| said.push(line.to_owned())).await;
    (result, said)
}

const NAIVE: &str = "SELECT count(*) FROM pg_attribute WHERE atttypid = 'timestamp'::regtype AND attrelid IN \
     ('supervisor_sessions'::regclass, to_regclass('command_log'))";

/// What forbids the change of a column's type, and how the error names it.
const OBSTACLES: &[(&str, &str)] = &[
    (
        "CREATE FUNCTION f8() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN new; END$$; \
         CREATE TRIGGER t8 AFTER UPDATE OF last_heartbeat ON supervisor_sessions FOR EACH ROW EXECUTE FUNCTION f8()",
        "trigger t8 on supervisor_sessions",
    ),
    (
        "CREATE FUNCTION f8() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN new; END$$; \
         CREATE TRIGGER \"T 9\" BEFORE UPDATE ON supervisor_sessions FOR EACH ROW \
         WHEN (OLD.closed_at IS NULL AND NEW.closed_at IS NOT NULL) EXECUTE FUNCTION f8()",
        "trigger \"T 9\" on supervisor_sessions",
    ),
    (
        "CREATE POLICY p8 ON supervisor_sessions AS RESTRICTIVE FOR UPDATE TO postgres, PUBLIC \
         USING (created_at > '2020-01-01') WITH CHECK (closed_at IS NULL)",
        "policy p8 on supervisor_sessions",
    ),
    (
        "ALTER TABLE supervisor_sessions ADD COLUMN day date GENERATED ALWAYS AS (created_at::date) STORED",
        "generated column day of supervisor_sessions",
    ),
    (
        "CREATE FUNCTION newest() RETURNS bigint LANGUAGE sql BEGIN ATOMIC \
         SELECT count(*) FROM supervisor_sessions WHERE closed_at IS NULL; END",
        "function newest()",
    ),
    (
        "CREATE PUBLICATION pub FOR TABLE supervisor_sessions WHERE (created_at > '2020-01-01')",
        "publication pub with supervisor_sessions",
    ),
    (
        "CREATE PUBLICATION pub FOR TABLE supervisor_sessions (instance_id, created_at)",
        "publication pub with supervisor_sessions",
    ),
    (
        "CREATE TABLE log (at timestamp); CREATE RULE r8 AS ON UPDATE TO supervisor_sessions \
         DO ALSO INSERT INTO log VALUES (NEW.last_heartbeat)",
        "rule r8 on supervisor_sessions",
    ),
    (
        "CREATE FUNCTION shown() RETURNS SETOF sessions_with_machine LANGUAGE sql AS 'SELECT * FROM sessions_with_machine'",
        "function shown()",
    ),
    ("CREATE TABLE copies (of_row supervisor_sessions)", "column of_row of copies"),
    (
        "CREATE FUNCTION f8() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN new; END$$; \
         CREATE TRIGGER t8 AFTER UPDATE OF created_at ON command_log FOR EACH ROW EXECUTE FUNCTION f8()",
        "trigger t8 on command_log",
    ),
];

#[tokio::test]
async fn what_forbids_a_change_of_type_is_named_with_the_statements_that_help() {
    let server = Server::start(&["timezone=UTC"]);
    for (index, (sql, named)) in OBSTACLES.iter().enumerate() {
        let name = format!("x{index}");
        old(&server, &name);
        server.psql_file(&name, &legacy_history());
        server.psql(&name, sql);
        for is_dry_run in [true, false] {
            let options = options(&server.url(&name));
            let answer = if is_dry_run { dry_run(&options).await } else { migrate(&options, None).await };
            let error = answer.unwrap_err();
            let MigrateError::Obstacles(obstacles) = &error else { panic!("{sql}: {error}") };
            assert_eq!(obstacles.len(), 1, "{sql}: {error}");
            assert!(obstacles[0].object.starts_with(named), "{sql}: {error}");
            assert!(error.to_string().contains(&obstacles[0].remove) && !error.to_string().contains('\n'), "{error}");
            assert_eq!(server.psql(&name, NAIVE), "4", "{sql}");
            if !is_dry_run {
                server.psql(&name, &obstacles[0].remove);
                migrate(&options, None).await.unwrap();
                server.psql(&name, &obstacles[0].restore);
            }
        }
        assert_eq!(server.psql(&name, NAIVE), "0", "{sql}");
    }
}

#[tokio::test]
async fn the_holder_of_a_lock_is_named_and_waited_for_in_turns() {
    let server = Server::start(&["timezone=UTC"]);
    old(&server, "x");
    let reader = server.psql_behind("x", "BEGIN; SELECT 1 FROM supervisor_sessions; SELECT pg_sleep(600)");
    let holds = "SELECT count(*) FROM pg_locks WHERE relation = 'supervisor_sessions'::regclass AND granted";
    eventually("the reader has its lock", Duration::from_secs(30), || (server.psql("x", holds) != "0").then_some(()));
    let (error, said) = ask(&server, "x", &[], Mode::Online).await;
    let error = error.unwrap_err();
    assert!(matches!(error, MigrateError::Locked { .. }), "{error}");
    for words in ["user postgres", "application psql", "query since 20", "process "] {
        assert!(error.to_string().contains(words), "{error}");
        assert!(said.iter().any(|line| line.contains(words)), "{said:?}");
    }
    assert_eq!(server.psql("x", "SELECT count(*) FROM pg_locks WHERE NOT granted"), "0");
    drop(reader);
    server.psql(
        "x",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)' \
         AND pid <> pg_backend_pid()",
    );
    ask(&server, "x", &[], Mode::Online).await.0.unwrap();
}

#[tokio::test]
async fn limits_of_the_role_do_not_end_a_migration() {
    let server = Server::start(&["timezone=UTC"]);
    old(&server, "x");
    // Made again by the migration, which takes longer than the role's limit.
    server
        .psql("x", "CREATE MATERIALIZED VIEW slow AS SELECT instance_id, pg_sleep(0.7)::text FROM supervisor_sessions");
    server.psql("x", "ALTER ROLE postgres SET statement_timeout = '500ms'");
    ask(&server, "x", &[], Mode::Online).await.0.unwrap();
}

/// Enough sessions and commands that rewriting them would keep readers out.
fn large(server: &Server, name: &str) {
    old(server, name);
    server.psql_file(name, &legacy_history());
    server.psql(
        name,
        "INSERT INTO supervisor_sessions (instance_id, project, instance_type, last_heartbeat, created_at) \
         SELECT 'many-PS-' || lpad(n::text, 6, '0'), 'many', 'PS', '2026-07-01 12:00', '2026-01-01 12:00' \
             FROM generate_series(1, 120000) AS n; \
         INSERT INTO command_log (instance_id, command_type, action, created_at) \
         SELECT 'many-PS-000001', 'explicit', repeat('a', 100), '2026-07-01 12:00' FROM generate_series(1, 100000); \
         CREATE INDEX own ON supervisor_sessions (created_at, project) WITH (fillfactor = 70) WHERE closed_at IS NULL; \
         COMMENT ON INDEX own IS 'it''s mine'; \
         ALTER TABLE supervisor_sessions ALTER created_at SET STATISTICS 500; \
         COMMENT ON COLUMN supervisor_sessions.created_at IS 'begin'; \
         CREATE ROLE reader; GRANT SELECT (created_at) ON supervisor_sessions TO reader",
    );
}

/// Queries that lock views and tables in different orders; each answers one row, found by an index.
const READS: [&str; 6] = [
    "SELECT count(*) FROM supervisor_sessions WHERE instance_id = 'many-PS-000001'",
    "SELECT count(*) FROM (SELECT FROM command_log WHERE instance_id = 'many-PS-000001' LIMIT 10) AS found",
    "SELECT count(*) FROM (SELECT age_seconds FROM sessions_with_machine WHERE instance_id = 'many-PS-000002') AS found",
    "SELECT count(*) FROM (SELECT FROM mine WHERE instance_id = 'many-PS-000002' LIMIT 1) AS a, \
         (SELECT FROM active_sessions_by_machine WHERE host_machine = 'none' LIMIT 1) AS b",
    "SELECT count(*) FROM (SELECT FROM active_sessions_by_machine WHERE host_machine = 'none' LIMIT 1) AS b, \
         (SELECT FROM mine WHERE instance_id = 'many-PS-000002' LIMIT 1) AS a",
    "SELECT count(*) FROM (SELECT FROM command_log WHERE instance_id = 'many-PS-000001' LIMIT 10) AS c \
         CROSS JOIN (SELECT FROM mine WHERE instance_id = 'many-PS-000003' LIMIT 1) AS a",
];

/// Reads over and over until the migration has ended. Returns the longest wait, when and by what query, and how many
/// reads there were.
async fn read_until(url: String, first: usize, done: Arc<AtomicBool>) -> ((Duration, Duration, &'static str), usize) {
    let mut client = PgConnection::connect(&url).await.unwrap();
    let started = Instant::now();
    let (mut longest, mut count) = ((Duration::ZERO, Duration::ZERO, ""), 0);
    while !done.load(Ordering::Relaxed) {
        let read = READS[(first + count) % READS.len()];
        let began = Instant::now();
        // As psql sends it: a plan that was prepared before the change of a type would be refused after it.
        let rows = sqlx::raw_sql(read).fetch_all(&mut client).await;
        assert_eq!(rows.unwrap_or_else(|error| panic!("{read}: {error}")).len(), 1);
        longest = longest.max((began.elapsed(), began - started, read));
        count += 1;
    }
    (longest, count)
}

/// Migrates a central of that size while it is read.
async fn migrate_beside_readers(sessions: u64, commands: u64) {
    let server = Server::start(&["timezone=UTC"]);
    old(&server, "x");
    server.psql_file("x", &legacy_history());
    server.psql(
        "x",
        &format!(
            "INSERT INTO supervisor_sessions (instance_id, project, instance_type, last_heartbeat, created_at) \
             SELECT 'many-PS-' || lpad(to_hex(n), 6, '0'), 'many', 'PS', '2026-07-01 12:00', '2026-01-01 12:00' \
                 FROM generate_series(1, {sessions}) AS n; \
             INSERT INTO command_log (instance_id, command_type, action, created_at) \
             SELECT 'many-PS-' || lpad(to_hex(1 + n % {sessions}), 6, '0'), 'explicit', 'build', '2026-07-01 12:00' \
                 FROM generate_series(1, {commands}) AS n; \
             CREATE VIEW mine AS SELECT * FROM sessions_with_machine; ANALYZE"
        ),
    );
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> =
        (0..READS.len()).map(|n| tokio::spawn(read_until(server.url("x"), n, done.clone()))).collect();
    let began = Instant::now();
    let (migrated, said) = ask(&server, "x", &[], Mode::Online).await;
    let took = began.elapsed();
    done.store(true, Ordering::Relaxed);
    migrated.unwrap();
    let (mut longest, mut count) = ((Duration::ZERO, Duration::ZERO, ""), 0);
    for reader in readers {
        let (waited, reads) = reader.await.unwrap();
        (longest, count) = (longest.max(waited), count + reads);
    }
    let attempts = said.iter().filter(|line| line.starts_with("waiting for a lock")).count();
    println!(
        "{sessions} sessions, {commands} commands: migrated in {took:?}, {attempts} attempts repeated; {count} reads, \
         longest {longest:?}"
    );
    assert_eq!(server.psql("x", NAIVE), "0");
    assert!(count > READS.len());
    // A second on an idle machine.
    assert!(longest.0 < Duration::from_secs(10), "a reader waited {longest:?}");
}

#[tokio::test]
async fn readers_neither_fail_nor_wait_long_while_a_central_is_migrated() {
    migrate_beside_readers(20_000, 60_000).await;
}

#[tokio::test]
async fn readers_neither_fail_nor_wait_long_while_a_large_central_is_migrated() {
    migrate_beside_readers(campaign(120_000, 1_000_000), campaign(100_000, 3_000_000)).await;
}

const INDEXES: &str = "SELECT indexrelid::regclass, indisvalid, pg_get_indexdef(indexrelid), obj_description(indexrelid) \
     FROM pg_index WHERE indrelid IN ('supervisor_sessions'::regclass, 'command_log'::regclass) ORDER BY 1";

#[tokio::test]
async fn a_large_central_in_utc_is_migrated_without_a_rewrite() {
    let server = Server::start(&["timezone=UTC"]);
    large(&server, "x");
    let files = "SELECT pg_relation_filenode('supervisor_sessions'), pg_relation_filenode('command_log')";
    let (before, indexes) = (server.psql("x", files), server.psql("x", INDEXES));
    let dry = dry_run(&options(&server.url("x"))).await.unwrap();
    assert!(
        dry.notes.iter().any(|note| note.contains("supervisor_sessions: about ") && note.contains(" s, while others"))
    );
    assert_eq!(server.psql("x", INDEXES), indexes);
    let (result, said) = ask(&server, "x", &[], Mode::Online).await;
    result.unwrap();
    assert!(said[0].contains("rows") && said[0].contains("MiB"), "{said:?}");
    assert_eq!((server.psql("x", files), server.psql("x", NAIVE)), (before, "0".into()));
    let after = server.psql("x", INDEXES);
    for index in indexes.lines() {
        assert!(after.contains(index), "{index} is not among {after}");
    }
    assert!(!after.contains("|f|"), "{after}");
    let kept = "SELECT attstattarget, attacl, col_description(attrelid, attnum) FROM pg_attribute WHERE attrelid = \
         'supervisor_sessions'::regclass AND attname = 'created_at'";
    assert_eq!(server.psql("x", kept), "500|{reader=r/postgres}|begin");
    let moment =
        "SELECT DISTINCT last_heartbeat AT TIME ZONE 'UTC', created_at AT TIME ZONE 'UTC' FROM supervisor_sessions";
    assert_eq!(server.psql("x", moment), "2026-07-01 12:00:00|2026-01-01 12:00:00");
    assert_eq!(server.psql("x", "SELECT to_regclass('sessiond_index_rebuilds') IS NULL"), "t");
    let (again, _) = ask(&server, "x", &[], Mode::Online).await;
    assert_eq!(again.unwrap().steps, []);
}

#[tokio::test]
async fn an_interrupted_migration_is_continued() {
    let server = Server::start(&["timezone=UTC"]);
    large(&server, "x");
    let indexes = server.psql("x", INDEXES);
    ask(&server, "x", &[], Mode::Online).await.0.unwrap();
    // As if it had ended between dropping this index and building it again.
    server.psql(
        "x",
        "CREATE TABLE sessiond_index_rebuilds (name TEXT PRIMARY KEY, definition TEXT NOT NULL, comment TEXT); \
         INSERT INTO sessiond_index_rebuilds SELECT 'public.own', pg_get_indexdef('own'::regclass), 'it''s mine'; \
         DROP INDEX own",
    );
    ask(&server, "x", &[], Mode::Online).await.0.unwrap();
    let after = server.psql("x", INDEXES);
    indexes.lines().for_each(|index| assert!(after.contains(index), "{index} is not among {after}"));
}

#[tokio::test]
async fn a_large_central_in_another_zone_is_rewritten_only_offline() {
    let server = Server::start(&["timezone=America/New_York"]);
    large(&server, "x");
    let (refused, _) = ask(&server, "x", &[], Mode::Online).await;
    let refused = refused.unwrap_err();
    assert!(matches!(&refused, MigrateError::NeedsOffline(why) if why.contains("about ")), "{refused}");
    assert!(refused.to_string().contains("sessiond migrate --offline"), "{refused}");
    assert_eq!(server.psql("x", NAIVE), "4");
    ask(&server, "x", &[], Mode::Offline).await.0.unwrap();
    let moment =
        "SELECT DISTINCT last_heartbeat AT TIME ZONE 'UTC', created_at AT TIME ZONE 'UTC' FROM supervisor_sessions";
    assert_eq!(server.psql("x", moment), "2026-07-01 16:00:00|2026-01-01 17:00:00");
}

#[tokio::test]
async fn a_default_that_names_another_zone_is_asked_about() {
    let server = Server::start(&["timezone=Asia/Kolkata"]);
    let in_utc = "SELECT last_heartbeat AT TIME ZONE 'UTC', created_at AT TIME ZONE 'UTC' FROM supervisor_sessions";
    for (index, default) in
        ["timezone('utc', now())", "now() AT TIME ZONE 'UTC'", "timezone('Etc/UTC', CURRENT_TIMESTAMP)"]
            .into_iter()
            .enumerate()
    {
        let name = format!("x{index}");
        old(&server, &name);
        server.psql(&name, &format!("ALTER TABLE supervisor_sessions ALTER created_at SET DEFAULT {default}"));
        let (asked, _) = ask(&server, &name, &[], Mode::Online).await;
        let asked = asked.unwrap_err();
        assert!(
            matches!(&asked, MigrateError::DefaultZone { column, found, .. }
            if column == "supervisor_sessions.created_at" && found == "Asia/Kolkata"),
            "{asked}"
        );
        let (report, _) = ask(&server, &name, &["supervisor_sessions.created_at=UTC"], Mode::Online).await;
        assert!(report.unwrap().time_zone.unwrap().contains("supervisor_sessions.created_at=UTC"));
        assert_eq!(server.psql(&name, in_utc), "2026-07-01 06:30:00|2026-01-01 12:00:00");
    }
    // Where it names the zone that clients write in, there is nothing to ask.
    old(&server, "same");
    server.psql("same", "ALTER TABLE supervisor_sessions ALTER created_at SET DEFAULT timezone('asia/kolkata', now())");
    ask(&server, "same", &[], Mode::Online).await.0.unwrap();
    // A constant default stays the same point in time.
    old(&server, "constant");
    server.psql("constant", "ALTER TABLE supervisor_sessions ALTER closed_at SET DEFAULT '2026-07-01 12:00'");
    ask(&server, "constant", &[], Mode::Online).await.0.unwrap();
    server.psql(
        "constant",
        "INSERT INTO supervisor_sessions (instance_id, project, instance_type) VALUES ('a-PS-aaaaaa', 'a', 'PS')",
    );
    let closed = "SELECT closed_at AT TIME ZONE 'UTC' FROM supervisor_sessions WHERE closed_at IS NOT NULL";
    assert_eq!(server.psql("constant", closed), "2026-07-01 06:30:00");
    let (unknown, _) = ask(&server, "x0", &["supervisor_sessions.created=UTC"], Mode::Online).await;
    assert!(unknown.is_ok(), "nothing is without a zone there any more");
}

#[tokio::test]
async fn roles_that_write_in_different_zones_are_asked_about() {
    let server = Server::start(&["timezone=UTC"]);
    old(&server, "x");
    server.psql("x", "CREATE ROLE app LOGIN; GRANT SELECT, INSERT, UPDATE ON supervisor_sessions TO app");
    server.psql("x", "ALTER ROLE app SET timezone = 'Europe/Berlin'; CREATE ROLE reader LOGIN; ALTER ROLE reader SET timezone = 'Asia/Tokyo'");
    let (asked, _) = ask(&server, "x", &[], Mode::Online).await;
    let asked = asked.unwrap_err();
    assert!(matches!(&asked, MigrateError::ZonesDiffer(roles) if roles.contains("app: Europe/Berlin")), "{asked}");
    assert!(!asked.to_string().contains("reader"), "{asked}");
    assert_eq!(server.psql("x", NAIVE), "3");
    ask(&server, "x", &["Europe/Berlin"], Mode::Online).await.0.unwrap();
    let in_utc = "SELECT last_heartbeat AT TIME ZONE 'UTC' FROM supervisor_sessions";
    assert_eq!(server.psql("x", in_utc), "2026-07-01 10:00:00");
}

/// The view as the earlier services make it.
const ORIGINAL: &str = "\
    DROP VIEW sessions_with_machine; \
    CREATE VIEW sessions_with_machine WITH (security_barrier = true) AS \
    SELECT instance_id, project, instance_type, status, host_machine, context_percent, current_epic, last_heartbeat, \
        created_at, closed_at, EXTRACT(EPOCH FROM (CURRENT_TIMESTAMP - last_heartbeat))::INTEGER AS age_seconds \
    FROM supervisor_sessions ORDER BY host_machine, last_heartbeat DESC; \
    CREATE ROLE reader; GRANT SELECT (project, age_seconds) ON sessions_with_machine TO reader; \
    GRANT SELECT ON active_sessions_by_machine TO reader; CREATE VIEW mine AS SELECT age_seconds FROM sessions_with_machine; \
    COMMENT ON VIEW sessions_with_machine IS 'all'; COMMENT ON COLUMN sessions_with_machine.age_seconds IS 'rounded'";

const VIEW: &str = "\
    SELECT c.relname, c.reloptions, c.relacl, obj_description(c.oid), a.attname, a.attnum, a.attacl, \
        col_description(c.oid, a.attnum), replace(replace(pg_get_viewdef(c.oid), \
            '(last_heartbeat)::timestamp with time zone', 'last_heartbeat'), \
            '(supervisor_sessions.last_heartbeat)::timestamp with time zone', 'supervisor_sessions.last_heartbeat') \
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relname IN ('sessions_with_machine', \
        'active_sessions_by_machine', 'mine') ORDER BY c.relname, a.attnum";

#[tokio::test]
async fn the_views_of_the_earlier_services_stay_as_they_are() {
    let server = Server::start(&["timezone=UTC"]);
    old(&server, "x");
    server.psql("x", ORIGINAL);
    let before = server.psql("x", VIEW);
    ask(&server, "x", &[], Mode::Online).await.0.unwrap();
    assert_eq!(server.psql("x", VIEW), before);
    // A view that an earlier sessiond migrate changed gets its columns back; what belongs to it stays.
    old(&server, "y");
    server.psql(
        "y",
        "GRANT SELECT (age_seconds) ON sessions_with_machine TO reader; ALTER VIEW sessions_with_machine SET \
         (security_barrier); COMMENT ON COLUMN sessions_with_machine.age_seconds IS 'rounded'",
    );
    ask(&server, "y", &[], Mode::Online).await.0.unwrap();
    let shape = "SELECT attnum, attacl, col_description(attrelid, attnum) FROM pg_attribute WHERE attrelid = \
         'sessions_with_machine'::regclass AND attname IN ('host_machine', 'age_seconds') ORDER BY 1";
    assert_eq!(server.psql("y", shape), "5|\\N|\\N\n11|{reader=r/postgres}|rounded");
    assert_eq!(
        server.psql("y", "SELECT reloptions FROM pg_class WHERE relname = 'sessions_with_machine'"),
        "{security_barrier=true}"
    );
    let rounded = "UPDATE supervisor_sessions SET last_heartbeat = now() - interval '10.6 s'; \
         SELECT age_seconds FROM sessions_with_machine";
    assert_eq!(server.psql("y", &format!("BEGIN; {rounded}; COMMIT")), "11");
}

#[tokio::test]
async fn a_view_that_would_lose_its_zone_is_named() {
    let server = Server::start(&["timezone=Asia/Kolkata"]);
    old(&server, "x");
    server.psql(
        "x",
        "CREATE VIEW own AS SELECT last_heartbeat AT TIME ZONE 'Asia/Kolkata' AS at FROM supervisor_sessions",
    );
    let (refused, _) = ask(&server, "x", &[], Mode::Online).await;
    assert!(refused.unwrap_err().to_string().contains("view column public.own.at would lose its time zone"));
    assert_eq!(server.psql("x", NAIVE), "3");
}

#[tokio::test]
async fn a_database_without_utf8_is_warned_of() {
    let server = Server::start(&["timezone=UTC"]);
    server.psql("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    server.psql_file("latin", &file(0));
    let (report, said) = ask(&server, "latin", &[], Mode::Online).await;
    assert!(report.unwrap().notes.iter().any(|note| note.contains("encoded in LATIN1")));
    assert!(said.iter().any(|line| line.contains("encoded in LATIN1")), "{said:?}");
}
