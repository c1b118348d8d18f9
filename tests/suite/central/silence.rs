//! The sweep, and deletions that fire no row triggers, in a real central.

use std::time::Duration;

use sessiond::domain::mirror::{Continuation, PullQuery};
use sessiond::sync::central::{Batch, Central, CentralError};
use sessiond::sync::postgres::Postgres;

use super::conformance::{STALE_AFTER, World, host, session};
use super::postgres::{Database, options};
use testkit::postgres::Server;

const ID: &str = "odin-PS-000001";

/// Rows that earlier clients left active.
const LEFT_ACTIVE: &str = "\
    INSERT INTO supervisor_sessions (instance_id, project, instance_type, last_heartbeat, created_at) \
    SELECT 'odin-PS-' || lpad(n::text, 6, '0'), 'odin', 'PS', now() - interval '1 day', now() - interval '1 day' \
    FROM generate_series(1, 3000) AS n";

#[tokio::test]
async fn a_backlog_is_swept_in_bounded_transactions() {
    let server = Server::start(&[]);
    let db = Database::migrated(&server, "x").await;
    db.psql(LEFT_ACTIVE);
    db.psql(
        "INSERT INTO sessiond_history (instance_id, changed_xid, added_at) \
         SELECT 'a-' || n, '1', now() - interval '31 days' FROM generate_series(1, 12000) AS n; \
         INSERT INTO sessiond_history (instance_id, changed_xid) VALUES ('young', '2'); \
         INSERT INTO sessiond_tombstones (instance_id, created_at, changed_xid, deleted_at) \
         SELECT 'a-' || n, now(), n::text::xid8, now() - interval '31 days' FROM generate_series(1, 12000) AS n; \
         INSERT INTO sessiond_tombstones (instance_id, created_at, changed_xid) VALUES ('young', now(), '12001'); \
         UPDATE sessiond_sweep SET swept_at = 'infinity'",
    );
    // The daemon of the same machine is live, and wrote none of these rows.
    let mut link = db.link();
    link.handshake(&host("odin3", 1)).await.unwrap();
    let mut turned = 0;
    loop {
        let swept = link.sweep(STALE_AFTER, Duration::from_secs(60)).await.unwrap();
        turned += swept.sessions;
        if !swept.more {
            break;
        }
    }
    assert_eq!(turned, 3000);
    assert_eq!(db.psql("SELECT DISTINCT status FROM supervisor_sessions"), "stale");
    let largest = "SELECT max(n) FROM (SELECT count(*) AS n FROM supervisor_sessions GROUP BY changed_xid) AS t";
    assert_eq!(db.psql(largest), "500");
    for table in ["sessiond_history", "sessiond_tombstones"] {
        assert_eq!(db.psql(&format!("SELECT string_agg(instance_id, ' ') FROM {table}")), "young", "{table}");
    }
}

#[tokio::test]
async fn a_failed_sweep_leaves_the_link_up() {
    let server = Server::start(&[]);
    let db = Database::migrated(&server, "x").await;
    db.psql("CREATE ROLE poor LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO poor");
    db.psql("REVOKE UPDATE ON sessiond_sweep FROM poor");
    let mut link = Postgres::new(options(&server.url_as("poor", "x")));
    link.handshake(&host("odin3", 1)).await.unwrap();
    let failed = link.sweep(STALE_AFTER, STALE_AFTER).await;
    assert!(matches!(&failed, Err(CentralError::Reject(why)) if why.message.contains("sessiond_sweep")), "{failed:?}");
    link.push(Batch { after: 0, number: 1, sessions: &[], records: &[] }).await.unwrap();
}

#[tokio::test]
async fn a_central_without_stale_after_is_served_as_before() {
    let server = Server::start(&[]);
    let db = Database::migrated(&server, "x").await;
    db.psql("ALTER TABLE sessiond_hosts DROP COLUMN stale_after");
    db.psql(LEFT_ACTIVE);
    let mut link = db.link();
    link.handshake(&host("odin3", 1)).await.unwrap();
    assert!(link.sweep(STALE_AFTER, STALE_AFTER).await.unwrap().sessions >= 500);
}

/// Reads everything that is due, and answers the ids of deleted sessions and the position of the next reading.
pub async fn gone(link: &mut Postgres, since: u64) -> (Vec<String>, u64) {
    let mut reading = PullQuery::since(since);
    let mut gone = Vec::new();
    loop {
        let changes = link.pull(&reading).await.unwrap();
        gone.extend(changes.gone.into_iter().map(|gone| gone.instance_id));
        match changes.rest {
            Continuation::More(position) => reading.after = Some(position),
            Continuation::Restart => panic!("central numbers its transactions as before"),
            Continuation::Complete { next_since } => return (gone, next_since),
        }
    }
}

#[tokio::test]
async fn truncate_is_noticed_by_readers() {
    let server = Server::start(&[]);
    let db = Database::migrated(&server, "x").await;
    let mut link = db.link();
    link.handshake(&host("odin3", 1)).await.unwrap();
    db.put(&session(ID, "gone", db.now()));
    db.put(&session("odin-PS-000002", "gone", db.now()));
    let (none, since) = gone(&mut link, 1).await;
    assert_eq!(none, Vec::<String>::new());
    db.psql("TRUNCATE supervisor_sessions CASCADE");
    let (mut all, _) = gone(&mut link, since).await;
    all.sort();
    assert_eq!(all, [ID, "odin-PS-000002"]);
}
