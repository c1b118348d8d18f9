//! A real central: the conformance suite in two time zones, and behaviour of a real server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sessiond::domain::mirror::{Continuation, PullQuery};
use sessiond::domain::{InstanceId, InstanceType, MachineName, Project, Session, SharedColumn, Status, Timestamp};
use sessiond::sync::central::{Batch, Central, CentralError};
use sessiond::sync::postgres::{
    MigrateError, MigrateRequest, MigrationReport, Postgres, PostgresOptions, migrate, migrate_with,
};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use uuid::Uuid;

use super::conformance::{self, Lock, STALE_AFTER, World, host, session, whole};
use super::conformance_leases;
use super::conformance_limits;
use super::conformance_scope;
use super::conformance_work;
use testkit::eventually;
use testkit::postgres::{NULL, Server, Stop};

const MICROS: &str = "(extract(epoch from {}) * 1000000)::bigint";

pub fn options(url: &str) -> PostgresOptions {
    PostgresOptions::parse(url, None).unwrap()
}

/// What `migrate` would do.
pub async fn dry_run(options: &PostgresOptions) -> Result<MigrationReport, MigrateError> {
    let request = MigrateRequest { dry_run: true, ..MigrateRequest::default() };
    migrate_with(options, &request, &mut |_| {}).await
}

/// One migrated database of a server.
pub struct Database<'a> {
    pub server: &'a Server,
    pub name: String,
}

impl<'a> Database<'a> {
    /// A new database with our schema.
    pub async fn migrated(server: &'a Server, name: &str) -> Self {
        server.create(name);
        migrate(&options(&server.url(name)), None).await.unwrap();
        Self { server, name: name.to_owned() }
    }

    pub fn psql(&self, sql: &str) -> String {
        self.server.psql(&self.name, sql)
    }

    fn time(&self, of: &str) -> Timestamp {
        Timestamp::from_micros(self.psql(&format!("SELECT {}", MICROS.replace("{}", of))).parse().unwrap())
    }
}

impl World for Database<'_> {
    type Central = Postgres;

    fn link(&self) -> Postgres {
        Postgres::new(options(&self.server.url(&self.name)))
    }

    fn now(&self) -> Timestamp {
        self.time("clock_timestamp()")
    }

    fn rows(&self) -> Vec<Session> {
        let micros = |column| MICROS.replace("{}", column);
        let rows = self.psql(&format!(
            "SELECT instance_id, project, instance_type, status, context_percent, current_epic, {}, {}, {}, \
                 host_machine, \
             claude_session_uuid, claude_session_path, resumed_from, working_dir FROM supervisor_sessions ORDER BY instance_id",
            micros("last_heartbeat"),
            micros("created_at"),
            micros("closed_at")
        ));
        rows.lines().map(parse).collect()
    }

    fn lock_row<'a>(&'a self, id: &str) -> Box<dyn Lock + 'a> {
        let lock = format!("SELECT 1 FROM supervisor_sessions WHERE instance_id = '{id}' FOR UPDATE");
        Box::new(self.server.open_transaction(&self.name, &lock))
    }

    fn put(&self, session: &Session) {
        let text = |value: &str| format!("'{}'", value.replace('\'', "''"));
        let option = |value: Option<&str>| value.map_or("NULL".into(), text);
        let at = |t: Timestamp| format!("'{t}'");
        self.psql(&format!(
            "DELETE FROM supervisor_sessions WHERE instance_id = {0}; \
             INSERT INTO supervisor_sessions (instance_id, project, instance_type, status, context_percent, \
             current_epic, \
             last_heartbeat, created_at, closed_at, host_machine, claude_session_uuid, claude_session_path, \
             resumed_from, working_dir) \
             VALUES ({0}, '{1}', '{2}', '{3}', {4}, {5}, {6}, {7}, {8}, '{9}', {10}, {11}, {12}, {13})",
            text(session.instance_id.as_str()),
            session.project,
            session.instance_type,
            session.status.as_str(),
            session.context_percent,
            option(session.current_epic.as_deref()),
            at(session.last_heartbeat),
            at(session.created_at),
            session.closed_at.map_or("NULL".into(), at),
            session.host_machine,
            option(session.claude_session_uuid.as_deref()),
            option(session.claude_session_path.as_deref()),
            option(session.resumed_from.as_ref().map(InstanceId::as_str)),
            option(session.working_dir.as_deref()),
        ));
    }

    fn edit(&self, id: &str, column: SharedColumn, value: &str) {
        let column = column.name();
        self.psql(&format!("UPDATE supervisor_sessions SET {column} = '{value}' WHERE instance_id = '{id}'"));
    }

    fn move_to(&self, id: &str, project: &str) {
        self.psql(&format!("UPDATE supervisor_sessions SET project = '{project}' WHERE instance_id = '{id}'"));
    }

    fn delete(&self, id: &str) {
        self.psql(&format!("DELETE FROM supervisor_sessions WHERE instance_id = '{id}'"));
    }

    fn silence(&self, by: Duration) {
        self.psql(&format!(
            "UPDATE sessiond_hosts SET last_seen = last_seen - interval '{0} s'; \
             UPDATE sessiond_sweep SET swept_at = swept_at - interval '{0} s'",
            by.as_secs()
        ));
    }

    fn last_seen(&self, host: Uuid) -> Timestamp {
        self.time(&format!("(SELECT last_seen FROM sessiond_hosts WHERE host_id = '{host}')"))
    }

    fn reject(&self, id: &str) {
        self.psql(&format!("ALTER TABLE supervisor_sessions ADD CONSTRAINT no_such_id CHECK (instance_id <> '{id}')"));
    }
}

fn parse(line: &str) -> Session {
    let fields = line.split('|').collect::<Vec<_>>();
    let option = |i: usize| (fields[i] != NULL).then(|| fields[i].to_owned());
    let at = |i: usize| Timestamp::from_micros(fields[i].parse().unwrap());
    Session {
        instance_id: InstanceId::parse(fields[0]).unwrap(),
        project: Project::parse(fields[1]).unwrap(),
        instance_type: InstanceType::parse(fields[2]).unwrap(),
        status: Status::parse(fields[3]).unwrap(),
        context_percent: fields[4].parse().unwrap(),
        current_epic: option(5),
        last_heartbeat: at(6),
        created_at: at(7),
        closed_at: option(8).map(|_| at(8)),
        host_machine: MachineName::parse(fields[9]).unwrap(),
        claude_session_uuid: option(10),
        claude_session_path: option(11),
        resumed_from: option(12).map(|id| InstanceId::parse(&id).unwrap()),
        working_dir: option(13),
    }
}

/// A new database for each case, as a copy of the database `template`.
pub fn copies<'a>(server: &'a Server) -> impl Fn() -> Database<'a> {
    let count = AtomicUsize::new(0);
    move || {
        let name = format!("case_{}", count.fetch_add(1, Ordering::Relaxed));
        server.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template"));
        Database { server, name }
    }
}

/// Runs every case that needs no tables of the earlier services.
pub async fn conforms<'a>(fresh: impl Fn() -> Database<'a>) {
    conformance::all(&fresh).await;
    conformance_work::all(&fresh).await;
    conformance_limits::all(&fresh).await;
    conformance_leases::all(&fresh).await;
    conformance_scope::all(&fresh).await;
}

async fn conforms_under(zone: &str) {
    let server = Server::start(&[&format!("timezone={zone}")]);
    Database::migrated(&server, "template").await;
    conforms(copies(&server)).await;
}

#[tokio::test]
async fn postgres_conforms_half_an_hour_off_utc() {
    conforms_under("Asia/Kolkata").await;
}

#[tokio::test]
async fn postgres_conforms_in_a_zone_with_summer_time() {
    conforms_under("America/New_York").await;
}

const OLD_ID: &str = "odin-PS-000001";

#[tokio::test]
async fn an_old_clients_heartbeat_stamps_itself_and_revives() {
    let server = Server::start(&["timezone=Asia/Kolkata"]);
    let db = Database::migrated(&server, "x").await;
    let mut row = session(OLD_ID, "odin3", db.now().minus(STALE_AFTER * 30));
    row.status = Status::Stale;

    for heartbeat in ["context_percent = 55", "last_heartbeat = CURRENT_TIMESTAMP"] {
        db.put(&row);
        let before = db.now();
        db.psql(&format!("UPDATE supervisor_sessions SET {heartbeat}"));
        let [beaten] = db.rows().try_into().unwrap();
        assert!(beaten.last_heartbeat >= before, "{heartbeat}");
        assert_eq!(beaten.status, Status::Active, "{heartbeat}");
        assert_eq!(db.psql("SELECT age_seconds < 5 FROM sessions_with_machine"), "t");
        assert_eq!(db.psql("SELECT NOW() - last_heartbeat < interval '5 s' FROM supervisor_sessions"), "t");
    }
    // Closing or renaming is no heartbeat.
    db.put(&row);
    db.psql("UPDATE supervisor_sessions SET host_machine = 'odin4'");
    assert_eq!(db.rows()[0].status, Status::Stale);
}

#[tokio::test]
async fn times_stay_true_when_the_old_trigger_comes_back() {
    let server = Server::start(&["timezone=America/New_York"]);
    let db = Database::migrated(&server, "x").await;
    server.psql_file("x", &super::migrations::file(0));
    assert!(!db.psql("SELECT prosrc FROM pg_proc WHERE proname = 'update_last_heartbeat'").contains("sessiond.replay"));

    let mut link = db.link();
    link.handshake(&host("odin3", 1)).await.unwrap();
    let mut row = session(OLD_ID, "odin3", db.now().minus(STALE_AFTER * 30));
    link.push(Batch { after: 0, number: 1, sessions: &[whole(&row)], records: &[] }).await.unwrap();
    row.context_percent = 91;
    row.current_epic = None;
    row.last_heartbeat = row.last_heartbeat.plus(STALE_AFTER);
    link.push(Batch { after: 1, number: 2, sessions: &[whole(&row)], records: &[] }).await.unwrap();
    assert_eq!(db.rows(), [row]);
}

async fn handshake_with(url: &str) -> Result<sessiond::sync::central::Accepted, CentralError> {
    let mut options = options(url);
    options.connect_timeout = Duration::from_secs(2);
    Postgres::new(options).handshake(&host("odin3", 1)).await
}

#[tokio::test]
async fn failures_that_need_an_operator_are_recognised() {
    let mut server = Server::start(&[]);
    let missing_schema = handshake_with(&server.url("postgres")).await.unwrap_err();
    assert!(
        matches!(&missing_schema, CentralError::SchemaMissing(m) if m.contains("sessiond migrate")),
        "{missing_schema:?}"
    );
    let missing_database = handshake_with(&server.url("nothing")).await.unwrap_err();
    assert!(matches!(&missing_database, CentralError::Refused(m) if m.contains("nothing")), "{missing_database:?}");
    // On a Unix socket sslmode is without effect, as psql has it.
    let socket = handshake_with(&format!("{}&sslmode=require", server.url("postgres"))).await.unwrap_err();
    assert!(matches!(&socket, CentralError::SchemaMissing(_)), "{socket:?}");

    // Naive columns are an old schema.
    server.create("old");
    server.psql_file("old", &super::migrations::file(0));
    server.psql_file("old", &super::migrations::file(1));
    assert!(matches!(handshake_with(&server.url("old")).await, Err(CentralError::SchemaMissing(_))));

    let db = Database::migrated(&server, "x").await;
    db.psql("CREATE ROLE stranger LOGIN");
    let no_rights = handshake_with(&server.url_as("stranger", "x")).await.unwrap_err();
    assert!(matches!(&no_rights, CentralError::Refused(m) if m.contains("grant")), "{no_rights:?}");

    db.psql("CREATE ROLE guarded LOGIN PASSWORD 'right'");
    server.stop(Stop::Fast);
    let stopped = handshake_with(&server.url("x")).await.unwrap_err();
    assert!(matches!(stopped, CentralError::Retry(_)), "{stopped:?}");
    server.admit("local all guarded scram-sha-256\nlocal all all trust\n");
    server.resume();
    let url = server.url_as("guarded", "x").replace("guarded@", "guarded:s3cr3t@");
    let wrong_password = handshake_with(&url).await.unwrap_err();
    assert!(matches!(&wrong_password, CentralError::Refused(m) if !m.contains("s3cr3t")), "{wrong_password:?}");
}

#[tokio::test]
async fn the_right_to_write_sessions_suffices_for_a_daemon() {
    let server = Server::start(&[]);
    server.create("x");
    server.psql_file("x", &super::migrations::file(0));
    server.psql(
        "x",
        "CREATE ROLE agent LOGIN; CREATE ROLE reader LOGIN; GRANT SELECT ON supervisor_sessions TO reader; \
         GRANT SELECT, INSERT, UPDATE ON supervisor_sessions TO agent",
    );
    migrate(&options(&server.url("x")), None).await.unwrap();
    let mut link = Postgres::new(options(&server.url_as("agent", "x")));
    link.handshake(&host("odin3", 1)).await.unwrap();
    let row = session(OLD_ID, "odin3", Timestamp::from_micros(1_769_774_400_000_000));
    link.push(Batch { after: 0, number: 1, sessions: &[whole(&row)], records: &[] }).await.unwrap();
    link.sweep(STALE_AFTER, STALE_AFTER).await.unwrap();
    link.hosts(None).await.unwrap();
    link.pull(&PullQuery::since(1)).await.unwrap();
    assert!(matches!(handshake_with(&server.url_as("reader", "x")).await, Err(CentralError::Refused(_))));
}

/// A call that is given up half way takes its connection with it, and with that its transaction.
#[tokio::test]
async fn an_abandoned_call_leaves_nothing_behind() {
    let server = Server::start(&[]);
    let db = Database::migrated(&server, "x").await;
    let mut link = db.link();
    link.handshake(&host("odin3", 1)).await.unwrap();
    server.freeze();
    let empty = Batch { after: 0, number: 1, sessions: &[], records: &[] };
    assert!(tokio::time::timeout(Duration::from_millis(50), link.push(empty)).await.is_err());
    server.thaw();
    assert!(matches!(link.push(empty).await, Err(CentralError::Retry(_))));
    assert!(link.handshake(&host("odin3", 1)).await.unwrap().batch <= 1);
}

#[tokio::test]
async fn an_unknown_host_is_worth_another_try() {
    let error = handshake_with("postgres://me@no-such-host.invalid/x").await.unwrap_err();
    assert!(matches!(&error, CentralError::Retry(m) if m.contains("no-such-host.invalid")), "{error:?}");
}

#[tokio::test]
async fn default_transaction_read_only_is_named() {
    let server = Server::start(&[]);
    let db = Database::migrated(&server, "x").await;
    let mut link = db.link();
    link.handshake(&host("odin3", 1)).await.unwrap();
    db.psql("ALTER DATABASE x SET default_transaction_read_only = on");
    let refused = db.link().handshake(&host("odin3", 1)).await;
    assert!(
        matches!(&refused, Err(CentralError::Refused(why)) if why.contains("ALTER DATABASE x RESET")
            && why.contains("default_transaction_read_only is on")),
        "{refused:?}"
    );
    db.psql("BEGIN READ WRITE; ALTER DATABASE x RESET default_transaction_read_only; COMMIT");
    db.psql("ALTER ROLE postgres SET default_transaction_read_only = on");
    let refused = db.link().handshake(&host("odin3", 1)).await;
    assert!(
        matches!(&refused, Err(CentralError::Refused(why)) if why.contains("ALTER ROLE postgres RESET")),
        "{refused:?}"
    );
    // A connection from before goes on; a failover would have cut it.
    link.push(Batch { after: 0, number: 1, sessions: &[], records: &[] }).await.unwrap();
}

#[tokio::test]
async fn a_hanging_server_is_not_waited_for() {
    let server = Server::start(&[]);
    Database::migrated(&server, "x").await;
    let mut options = options(&server.url("x"));
    options.connect_timeout = Duration::from_millis(300);
    options.statement_timeout = Duration::from_millis(500);
    let mut link = Postgres::new(options);
    let me = host("odin3", 1);
    link.handshake(&me).await.unwrap();

    server.freeze();
    let began = Instant::now();
    let push = link.push(Batch { after: 0, number: 1, sessions: &[], records: &[] }).await;
    assert!(matches!(push, Err(CentralError::Retry(_))), "{push:?}");
    assert!(began.elapsed() >= Duration::from_millis(500) && began.elapsed() < Duration::from_secs(3));
    let began = Instant::now();
    assert!(matches!(link.handshake(&me).await, Err(CentralError::Retry(_))));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    server.thaw();
    link.handshake(&me).await.unwrap();
}

#[tokio::test]
async fn a_row_locked_by_others_is_not_waited_for_long() {
    let server = Server::start(&[]);
    let db = Database::migrated(&server, "x").await;
    let mut options = options(&server.url("x"));
    options.statement_timeout = Duration::from_millis(400);
    let mut link = Postgres::new(options);
    link.handshake(&host("odin3", 1)).await.unwrap();
    let row = session(OLD_ID, "odin3", db.now());
    link.push(Batch { after: 0, number: 1, sessions: &[whole(&row)], records: &[] }).await.unwrap();

    let _holder =
        server.psql_behind("x", "BEGIN; UPDATE supervisor_sessions SET project = project; SELECT pg_sleep(60)");
    eventually("the row is locked", Duration::from_secs(10), || {
        (db.psql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "1").then_some(())
    });
    let pushed = link.push(Batch { after: 1, number: 2, sessions: &[whole(&row)], records: &[] }).await;
    assert!(matches!(&pushed, Err(CentralError::Locked(m)) if m.contains("55P03")), "{pushed:?}");
}

#[tokio::test]
async fn a_crashed_server_loses_neither_ledger_nor_rows() {
    let mut server = Server::start(&["fsync=on"]);
    Database::migrated(&server, "x").await;
    let mut link = Postgres::new(options(&server.url("x")));
    let row = session(OLD_ID, "odin3", Timestamp::from_micros(1_769_774_400_000_000));
    for (how, number) in [(Stop::Immediate, 1), (Stop::Kill, 2)] {
        assert_eq!(link.handshake(&host("odin3", 1)).await.unwrap().batch, number - 1);
        link.push(Batch { after: number - 1, number, sessions: &[whole(&row)], records: &[] }).await.unwrap();
        server.stop(how);
        assert!(matches!(
            link.push(Batch { after: number, number: number + 1, sessions: &[], records: &[] }).await,
            Err(CentralError::Retry(_))
        ));
        server.resume();
    }
    assert_eq!(link.handshake(&host("odin3", 1)).await.unwrap().batch, 2);
}

#[tokio::test]
async fn unusual_rows_of_other_clients_are_read() {
    let server = Server::start(&[]);
    let db = Database::migrated(&server, "x").await;
    db.psql(
        "INSERT INTO supervisor_sessions (instance_id, project, instance_type, last_heartbeat, host_machine, \
             context_percent) \
         VALUES ('odin-PS-000001', 'Ödin', 'PS', 'infinity', 'a', NULL), ('odin-PS-000002', '', 'PS', '-infinity', \
         'b', 3); \
         UPDATE supervisor_sessions SET status = 'closed'",
    );
    let mut link = db.link();
    link.handshake(&host("a", 1)).await.unwrap();
    // Rows that no type here can hold are skipped; the rest is read.
    assert_eq!(link.pull(&PullQuery::since(0)).await.unwrap().sessions.len(), 0);
    link.sweep(STALE_AFTER, STALE_AFTER).await.unwrap();
    let mine = session(OLD_ID, "a", db.now());
    assert_eq!(
        link.push(Batch { after: 0, number: 1, sessions: &[whole(&mine)], records: &[] }).await.unwrap(),
        [sessiond::sync::central::RowOutcome::IdCollision]
    );
}

/// A transaction that began early and commits late changed rows before what was read in between.
#[tokio::test]
async fn a_late_commit_is_not_missed() {
    let server = Server::start(&[]);
    let db = Database::migrated(&server, "x").await;
    let mut link = db.link();
    link.handshake(&host("laptop", 1)).await.unwrap();

    let mut late = PgConnection::connect(&server.url("x")).await.unwrap();
    late.execute("BEGIN").await.unwrap();
    let insert = |id: &str| {
        format!("INSERT INTO supervisor_sessions (instance_id, project, instance_type) VALUES ('{id}', 'odin', 'PS')")
    };
    late.execute(AssertSqlSafe(insert("odin-PS-00late"))).await.unwrap();
    db.psql(&insert("odin-PS-0earl1"));
    let (read, since) = ids_since(&mut link, 0).await;
    assert_eq!(read, ["odin-PS-0earl1"]);

    late.execute("COMMIT").await.unwrap();
    let (read, since) = ids_since(&mut link, since).await;
    assert!(read.contains(&"odin-PS-00late".to_owned()), "{read:?}");
    assert_eq!(ids_since(&mut link, since).await.0, [] as [&str; 0]);
}

async fn ids_since(link: &mut Postgres, since: u64) -> (Vec<String>, u64) {
    let mut reading = PullQuery::since(since);
    let mut ids = Vec::new();
    loop {
        let changes = link.pull(&reading).await.unwrap();
        ids.extend(changes.sessions.iter().map(|session| session.instance_id.to_string()));
        match changes.rest {
            Continuation::More(position) => reading.after = Some(position),
            Continuation::Complete { next_since } => return (ids, next_since),
            Continuation::Restart => panic!("central numbers its transactions as before"),
        }
    }
}

/// Other hosts' changes are notified at once, except heartbeats; this host's own are not.
#[tokio::test]
async fn changes_are_reported_and_heartbeats_are_not() {
    let server = Server::start(&[]);
    let db = Database::migrated(&server, "x").await;
    let mut link = db.link();
    link.handshake(&host("laptop", 1)).await.unwrap();
    assert!(link.listen().await);
    let told = async |link: &mut Postgres| {
        tokio::time::timeout(Duration::from_secs(5), link.next_notification()).await.is_ok()
    };

    db.put(&session("odin-PS-000001", "odin4", db.now().minus(STALE_AFTER)));
    assert!(told(&mut link).await, "a new session");
    db.psql("UPDATE supervisor_sessions SET last_heartbeat = now()");
    let own = session("odin-PS-000002", "laptop", db.now());
    link.push(Batch { after: 0, number: 1, sessions: &[whole(&own)], records: &[] }).await.unwrap();
    // A notification of those would have come before this one.
    db.psql("NOTIFY sessiond, 'the end'");
    assert!(told(&mut link).await);
    let silent = tokio::time::timeout(Duration::from_millis(200), link.next_notification()).await;
    assert!(silent.is_err(), "neither a heartbeat nor what this host did itself");
    db.psql("UPDATE supervisor_sessions SET status = 'closed' WHERE host_machine = 'odin4'");
    assert!(told(&mut link).await, "a session closed");
}
