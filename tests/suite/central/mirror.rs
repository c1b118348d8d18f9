//! Pulls from a real central: after restores, with unreadable rows, and with a large history.

use std::time::Duration;

use sessiond::domain::mirror::{ChangePage, Continuation, HostSeen, PageSize, PullQuery, Transactions};
use sessiond::domain::{MirrorScope, Project};
use sessiond::sync::central::{Central, Notification};
use sessiond::sync::postgres::{Postgres, migrate};

use super::conformance::{World, host, session};
use super::history::migrated;
use super::postgres::{Database, options};
use testkit::eventually;
use testkit::postgres::Server;

/// All pages of a reading.
async fn pages(link: &mut Postgres, mut reading: PullQuery) -> (Vec<ChangePage>, u64) {
    let mut pages = Vec::new();
    loop {
        let changes = link.pull(&reading).await.unwrap();
        let rest = changes.rest.clone();
        pages.push(changes);
        match rest {
            Continuation::More(position) => reading.after = Some(position),
            Continuation::Complete { next_since } => return (pages, next_since),
            Continuation::Restart => panic!("central numbers its transactions as before"),
        }
    }
}

fn rows(pages: &[ChangePage]) -> usize {
    pages.iter().map(|page| page.sessions.len() + page.gone.len() + page.history.len()).sum()
}

fn ids(pages: &[ChangePage]) -> Vec<&str> {
    pages.iter().flat_map(|page| &page.sessions).map(|session| session.instance_id.as_str()).collect()
}

/// Uses up numbers of transactions.
fn burn(server: &Server, transactions: u32) {
    server.psql(
        "postgres",
        &format!("DO $$ BEGIN FOR i IN 1..{transactions} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"),
    );
}

/// A central with a deleted session that was brought back, and its dump.
async fn lived_in(server: &Server) -> String {
    let db = Database::migrated(server, "x").await;
    let row = session("odin-PS-back00", "odin4", db.now());
    db.put(&row);
    db.delete("odin-PS-back00");
    db.put(&row);
    db.put(&session("odin-PS-0other", "odin4", db.now()));
    db.psql(
        "INSERT INTO sessiond_history (instance_id, changed_xid) \
         SELECT 'odin-PS-' || lpad(n::text, 6, '0'), pg_current_xact_id() FROM generate_series(1, 3000) n",
    );
    server.dump("x")
}

/// The timeline of the old central, and of the new one; and a link to the new one.
async fn restored(old: &Server, new: &Server, dump: &str) -> (String, String, Postgres) {
    new.create("x");
    let file = new.folder().join("dump.sql");
    std::fs::write(&file, dump).unwrap();
    new.psql_file("x", &file);
    let laptop = host("laptop", 1);
    let before = Postgres::new(options(&old.url("x"))).handshake(&laptop).await.unwrap().timeline;
    let mut link = Postgres::new(options(&new.url("x")));
    let after = link.handshake(&laptop).await.unwrap().timeline;
    (before, after, link)
}

#[tokio::test]
async fn restored_into_a_cluster_with_lower_numbers_nothing_is_read_twice() {
    let old = Server::start(&[]);
    burn(&old, 5000);
    let dump = lived_in(&old).await;
    let new = Server::start(&[]);
    let (before, after, mut link) = restored(&old, &new, &dump).await;
    assert_ne!(before, after, "another timeline");
    let mut old_link = Postgres::new(options(&old.url("x")));
    old_link.handshake(&host("laptop", 1)).await.unwrap();
    let (_, since_in_old) = pages(&mut old_link, PullQuery::since(0)).await;

    let (all, since) = pages(&mut link, PullQuery::since(0)).await;
    assert_eq!(ids(&all), ["odin-PS-0other", "odin-PS-back00"]);
    for _ in 0..2 {
        let (again, _) = pages(&mut link, PullQuery::since(since)).await;
        assert_eq!((rows(&again), again.len()), (0, 1), "one page, nothing in it");
    }
    // A position of the old cluster is found out without the timeline, too.
    assert_eq!(link.pull(&PullQuery::since(since_in_old)).await.unwrap().rest, Continuation::Restart);

    new.psql("x", "UPDATE supervisor_sessions SET current_epic = 'new' WHERE instance_id = 'odin-PS-back00'");
    assert_eq!(ids(&pages(&mut link, PullQuery::since(since)).await.0), ["odin-PS-back00"]);
    // Once the new cluster's numbers pass the old ones, the session is still there.
    burn(&new, 6000);
    let (later, since) = pages(&mut link, PullQuery::since(since)).await;
    assert!(later.iter().all(|page| page.gone.is_empty()), "{later:?}");
    assert_eq!(rows(&pages(&mut link, PullQuery::since(since)).await.0), 0);
}

#[tokio::test]
async fn restored_into_a_cluster_with_higher_numbers_every_later_change_is_read() {
    let old = Server::start(&[]);
    let dump = lived_in(&old).await;
    let new = Server::start(&[]);
    burn(&new, 9000);
    let (before, after, mut link) = restored(&old, &new, &dump).await;
    assert_ne!(before, after, "another timeline");
    let (all, since) = pages(&mut link, PullQuery::since(0)).await;
    assert_eq!(ids(&all), ["odin-PS-0other", "odin-PS-back00"]);
    assert_eq!(rows(&pages(&mut link, PullQuery::since(since)).await.0), 0);
    new.psql("x", "DELETE FROM supervisor_sessions WHERE instance_id = 'odin-PS-back00'");
    let (next, _) = pages(&mut link, PullQuery::since(since)).await;
    assert_eq!(next[0].gone[0].instance_id, "odin-PS-back00");
}

/// Rows as other clients, or a looser schema, may hold them.
#[tokio::test]
async fn rows_that_cannot_be_read_are_counted_and_the_others_are_read() {
    let server = Server::start(&[]);
    let db = migrated(&server, "x").await;
    db.put(&session("odin-PS-000001", "odin4", db.now()));
    db.psql(
        "ALTER TABLE supervisor_sessions ALTER last_heartbeat DROP NOT NULL, ALTER project DROP NOT NULL; \
         INSERT INTO supervisor_sessions (instance_id, project, instance_type, last_heartbeat) \
             VALUES ('odin-PS-00null', 'odin', 'PS', NULL), ('odin-PS-0null2', NULL, 'PS', now()); \
         ALTER TABLE event_store ALTER timestamp DROP NOT NULL; \
         INSERT INTO event_store (event_id, instance_id, event_type, sequence_num, timestamp, event_data, metadata) \
             VALUES (gen_random_uuid(), 'odin-PS-000001', 'epic_started', 1, NULL, '{}', '{}'), \
                 (gen_random_uuid(), 'odin-PS-000001', 'epic_started', 2, 'infinity', '[1e999]', '{}'), \
                 (gen_random_uuid(), 'odin-PS-000001', 'epic_started', 3, now(), '{\"a\": 1}', '{}'); \
         INSERT INTO command_log (instance_id, command_type, action, context_data) VALUES \
             ('odin-PS-000001', 'explicit', 'odd', jsonb_build_object('record_id', repeat('-', 36))), \
             ('odin-PS-000001', 'explicit', 'odder', jsonb_build_object('record_id', 'no-uuid')), \
             ('odin-PS-000001', 'explicit', 'scalar', '7'); \
         ALTER TABLE sessiond_hosts DROP CONSTRAINT sessiond_hosts_machine_name_check; \
         INSERT INTO sessiond_hosts (host_id, machine_name, claim, version) \
             VALUES (gen_random_uuid(), 'Ödd One', gen_random_uuid(), '?')",
    );
    let mut link = db.link();
    link.handshake(&host("laptop", 1)).await.unwrap();
    for since in [0, 1] {
        let (all, _) = pages(&mut link, PullQuery::since(since)).await;
        assert_eq!(ids(&all), ["odin-PS-000001"]);
        assert_eq!(all.iter().map(|page| page.unreadable).sum::<u64>(), 4, "two sessions, two events");
        let history: Vec<_> = all.iter().flat_map(|page| &page.history).collect();
        assert_eq!(history.len(), 1 + 3, "{history:?}");
    }
    let hosts = |hosts: Vec<HostSeen>| hosts.iter().map(|host| host.last_seen.to_string()).collect::<Vec<_>>();
    db.psql("UPDATE sessiond_hosts SET last_seen = '2026-11-25T08:00:00.000001Z'");
    assert_eq!(hosts(link.hosts(None).await.unwrap()), ["2026-11-25T08:00:00.000001Z"]);
    db.psql("UPDATE sessiond_hosts SET last_seen = 'infinity'");
    assert_eq!(hosts(link.hosts(None).await.unwrap()), ["9999-12-31T00:00:00.000000Z"]);
}

/// A database without an encoding may hold bytes that the server cannot send as UTF-8.
#[tokio::test]
async fn rows_that_the_server_cannot_send_are_skipped_and_the_others_are_read() {
    let server = Server::start(&[]);
    server.psql("postgres", "CREATE DATABASE x TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'");
    migrate(&options(&server.url("x")), None).await.unwrap();
    let db = Database { server: &server, name: "x".into() };
    for id in ["odin-PS-000001", "odin-PS-000002", "odin-PS-000003"] {
        db.put(&session(id, "odin4", db.now()));
    }
    db.psql(
        "INSERT INTO session_work (instance_id, snapshot, recorded_at) \
             SELECT instance_id, '{}', now() FROM supervisor_sessions; \
         UPDATE supervisor_sessions SET working_dir = E'/\\xff' WHERE instance_id = 'odin-PS-000001'; \
         UPDATE session_work SET activity_detail = E'\\xff' WHERE instance_id = 'odin-PS-000002'",
    );
    let mut link = db.link();
    link.handshake(&host("laptop", 1)).await.unwrap();
    for since in [0, 1] {
        let (all, _) = pages(&mut link, PullQuery { page: PageSize::SMALLEST, ..PullQuery::since(since) }).await;
        assert_eq!(ids(&all), ["odin-PS-000002", "odin-PS-000003"]);
        let work: Vec<_> = all.iter().flat_map(|page| &page.work).map(|work| work.instance_id.as_str()).collect();
        assert_eq!(work, ["odin-PS-000001", "odin-PS-000003"]);
        assert_eq!(all.iter().map(|page| page.unreadable).sum::<u64>(), 2, "one session, and the work of another");
    }
    db.psql("UPDATE supervisor_sessions SET project = 'web' WHERE instance_id = 'odin-PS-000002'");
    let scope = MirrorScope::of_projects(vec![Project::parse("web").unwrap()]).unwrap();
    let (all, _) = pages(&mut link, PullQuery { page: PageSize::SMALLEST, scope, ..PullQuery::since(1) }).await;
    assert_eq!(ids(&all), ["odin-PS-000002"], "it enters the scope without its work");
    assert!(all.iter().all(|page| page.work.is_empty()));
}

/// A row may change between the page that failed because of it and the one that is to skip it: then another row is read in
/// its place. Here no row fails in the transaction that skips.
#[tokio::test]
async fn a_row_that_can_be_read_after_all_is_not_skipped() {
    let server = Server::start(&[]);
    let db = migrated(&server, "x").await;
    for id in ["odin-PS-000001", "odin-PS-000002"] {
        db.put(&session(id, "odin4", db.now()));
    }
    db.psql(
        "INSERT INTO session_work (instance_id, snapshot, recorded_at) \
             SELECT instance_id, '{}', now() FROM supervisor_sessions; \
         CREATE FUNCTION is_sent() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN \
             IF current_setting('transaction_isolation') = 'read committed' THEN \
                 RAISE character_not_in_repertoire; END IF; RETURN true; END $$; \
         CREATE ROLE reader LOGIN IN ROLE pg_read_all_data, pg_write_all_data; \
         ALTER TABLE supervisor_sessions ENABLE ROW LEVEL SECURITY; \
         ALTER TABLE session_work ENABLE ROW LEVEL SECURITY; \
         CREATE POLICY readable ON supervisor_sessions TO reader USING (is_sent()); \
         CREATE POLICY readable ON session_work TO reader USING (is_sent())",
    );
    let mut link = Postgres::new(options(&server.url_as("reader", "x")));
    link.handshake(&host("laptop", 1)).await.unwrap();
    for since in [0, 1] {
        let (all, _) = pages(&mut link, PullQuery { page: PageSize::SMALLEST, ..PullQuery::since(since) }).await;
        assert_eq!(ids(&all), ["odin-PS-000001", "odin-PS-000002"]);
        assert_eq!(all.iter().flat_map(|page| &page.work).count(), 2);
        assert_eq!(all.iter().map(|page| page.unreadable).sum::<u64>(), 0);
    }
}

/// Fifty sessions of four megabytes each.
#[tokio::test]
async fn pages_of_history_are_bounded_by_bytes_and_bring_everything() {
    let server = Server::start(&[]);
    let db = migrated(&server, "x").await;
    db.psql(
        "INSERT INTO supervisor_sessions (instance_id, project, instance_type) \
             SELECT 'odin-PS-' || lpad(n::text, 6, '0'), 'odin', 'PS' FROM generate_series(1, 4) n; \
         INSERT INTO event_store (event_id, instance_id, event_type, sequence_num, event_data, metadata) \
             SELECT gen_random_uuid(), 'odin-PS-' || lpad(s::text, 6, '0'), 'epic_started', n, \
                 jsonb_build_object('text', repeat('x', CASE s WHEN 1 THEN 60000 ELSE 10 END), 'n', n), '{}' \
             FROM generate_series(1, 4) s, generate_series(1, 55) n",
    );
    let mut link = db.link();
    link.handshake(&host("laptop", 1)).await.unwrap();
    for page in [PageSize::LARGEST, PageSize { bytes: 100_000, ..PageSize::LARGEST }] {
        let (all, _) = pages(&mut link, PullQuery { page, ..PullQuery::since(0) }).await;
        let bytes = |page: &ChangePage| {
            page.history.iter().map(|r| serde_json::Value::Object(r.body.clone()).to_string().len()).sum::<usize>()
        };
        let largest = all.iter().map(bytes).max().unwrap();
        assert!(largest <= page.bytes as usize, "{largest} bytes in a page of {}", page.bytes);
        let mut records: Vec<_> = all.iter().flat_map(|page| &page.history).collect();
        records.sort_by_key(|record| record.record_id);
        records.dedup_by_key(|record| record.record_id);
        assert_eq!(records.len(), 4 * 50, "the newest fifty of each");
        assert!(records.iter().all(|record| record.body["data"]["n"].as_i64() > Some(5)));
    }
}

#[tokio::test]
async fn a_handshake_is_announced() {
    let server = Server::start(&[]);
    let db = Database::migrated(&server, "x").await;
    let mut link = db.link();
    link.handshake(&host("laptop", 1)).await.unwrap();
    assert!(link.listen().await);
    db.link().handshake(&host("odin4", 2)).await.unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(10), link.next_notification()).await;
    assert_eq!(heard, Ok(Notification::HostsJoined(vec![uuid::Uuid::from_u128(2)])));
}

#[tokio::test]
async fn a_listener_of_a_stopped_server_is_lost() {
    let server = Server::start(&[]);
    let db = Database::migrated(&server, "x").await;
    let mut link = db.link();
    link.handshake(&host("laptop", 1)).await.unwrap();
    assert!(link.listen().await);
    let listening = "FROM pg_stat_activity WHERE query ILIKE 'LISTEN%'";
    eventually("it listens", Duration::from_secs(10), || {
        (db.psql(&format!("SELECT count(*) {listening}")) == "1").then_some(())
    });
    db.psql(&format!("SELECT pg_terminate_backend(pid) {listening}"));
    let heard = tokio::time::timeout(Duration::from_secs(10), link.next_notification()).await;
    assert_eq!(heard, Ok(Notification::ConnectionLost));
    assert!(link.listen().await, "another connection is opened");
}

/// What one pull reads, beside what the pull before read; and what that pull has to leave out.
async fn ids_beside(
    link: &mut Postgres,
    since: u64,
    read: Option<Transactions>,
) -> (Vec<String>, u64, Option<Transactions>) {
    let (pages, next) = pages(link, PullQuery { read, ..PullQuery::since(since) }).await;
    (ids(&pages).into_iter().map(str::to_owned).collect(), next, pages[0].snapshot.clone())
}

#[tokio::test]
async fn what_changes_during_a_long_transaction_is_read_once_and_what_it_changed_after_its_commit() {
    let server = Server::start(&[]);
    let db = Database::migrated(&server, "x").await;
    db.put(&session("odin-PS-0later", "odin4", db.now()));
    let mut link = db.link();
    link.handshake(&host("laptop", 1)).await.unwrap();
    // The transaction has written, and waits for this lock before it commits.
    let lock = server.open_transaction("x", "SELECT pg_advisory_lock(18)");
    let client = server.client("x");
    let late = std::thread::spawn(move || {
        client.run("BEGIN; UPDATE supervisor_sessions SET current_epic = 'late'; SELECT pg_advisory_lock(18); COMMIT")
    });
    eventually("it has written", Duration::from_secs(20), || {
        let running =
            "SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND wait_event_type = 'Lock'";
        (db.psql(running) == "1").then_some(())
    });
    let (_, since, read) = ids_beside(&mut link, 0, None).await;
    db.put(&session("odin-PS-during", "odin4", db.now()));
    let (first, next, read) = ids_beside(&mut link, since, read).await;
    assert_eq!((first, next), (vec!["odin-PS-during".to_owned()], since), "the position waits for the transaction");
    let (second, next, again) = ids_beside(&mut link, since, read.clone()).await;
    assert_eq!((second, next), (vec![], since), "nothing is read again");
    // Without what was read, as after a restart, it is.
    assert_eq!(ids_beside(&mut link, since, None).await.0, ["odin-PS-during"]);
    db.psql("UPDATE supervisor_sessions SET current_epic = 'new' WHERE instance_id = 'odin-PS-during'");
    let (third, _, read) = ids_beside(&mut link, since, again).await;
    assert_eq!(third, ["odin-PS-during"], "a later change is");
    assert_eq!(read.clone().unwrap().oldest_running(), Some(since));
    drop(lock);
    assert!(late.join().unwrap());
    let (fourth, next, _) = ids_beside(&mut link, since, read).await;
    assert_eq!(fourth, ["odin-PS-0later"], "and so is what commits late");
    assert!(next > since);
}
