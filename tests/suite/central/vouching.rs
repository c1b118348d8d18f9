//! Which heartbeats a real central marks as changes, beside earlier daemons and clients.

use sessiond::domain::mirror::PullQuery;
use sessiond::domain::{Session, TimedSession};
use sessiond::sync::central::{Batch, Central};
use sessiond::sync::postgres::Postgres;
use uuid::Uuid;

use super::conformance::{World, host, session, whole};
use super::postgres::Database;
use testkit::postgres::Server;

const ID: &str = "odin-PS-000001";

const MARK: &str = "SELECT changed_xid || ' ' || coalesce(changed_by::text, 'nobody') FROM supervisor_sessions";

/// A daemon of the version before: it states no vouching_claim. A later start of it has another claim.
const EARLIER_DAEMON: &str = "INSERT INTO sessiond_hosts (host_id, machine_name, claim, version) \
    VALUES ('00000000-0000-0000-0000-000000000007', 'old', gen_random_uuid(), 'before')";

/// A host that pushes one session again and again.
struct Pusher {
    link: Postgres,
    batch: i64,
    session: Session,
}

impl Pusher {
    async fn new(db: &Database<'_>) -> Self {
        let mut link = db.link();
        link.handshake(&host("odin3", 1)).await.unwrap();
        let session = session(ID, "odin3", db.now());
        let batch = Batch { after: 0, number: 1, sessions: &[whole(&session)], records: &[] };
        link.push(batch).await.unwrap();
        Self { link, batch: 1, session }
    }

    /// Pushes a heartbeat alone. Returns whether it moved the mark.
    async fn moves_the_mark(&mut self, db: &Database<'_>) -> bool {
        self.link.hosts(None).await.unwrap();
        let before = db.psql(MARK);
        self.session.last_heartbeat = db.now();
        let sessions = [TimedSession::untimed(self.session.clone())];
        let batch = Batch { after: self.batch, number: self.batch + 1, sessions: &sessions, records: &[] };
        self.link.push(batch).await.unwrap();
        self.batch += 1;
        assert_eq!(db.rows()[0].last_heartbeat, self.session.last_heartbeat);
        db.psql(MARK) != before
    }
}

#[tokio::test]
async fn heartbeats_are_marked_while_an_earlier_daemon_is_live() {
    let server = Server::start(&[]);
    let db = Database::migrated(&server, "x").await;
    let mut pusher = Pusher::new(&db).await;
    assert!(!pusher.moves_the_mark(&db).await);
    db.psql(EARLIER_DAEMON);
    assert!(pusher.moves_the_mark(&db).await, "an earlier daemon judges sessions by the heartbeats that it reads");
    db.psql("UPDATE sessiond_hosts SET vouching_claim = claim");
    assert!(!pusher.moves_the_mark(&db).await);
    db.psql("UPDATE sessiond_hosts SET claim = gen_random_uuid() WHERE machine_name = 'old'");
    assert!(pusher.moves_the_mark(&db).await, "it went back to the version before");
    db.psql("UPDATE sessiond_hosts SET last_seen = now() - interval '25 h' WHERE machine_name = 'old'");
    assert!(!pusher.moves_the_mark(&db).await, "it is gone");
    // One that joins is enough to mark them again.
    db.psql("UPDATE sessiond_hosts SET last_seen = now() WHERE machine_name = 'old'");
    pusher.link.hosts(Some(&[Uuid::from_u128(7)])).await.unwrap();
    let before = db.psql(MARK);
    let sessions = [TimedSession::untimed(pusher.session.clone())];
    let batch = Batch { after: pusher.batch, number: pusher.batch + 1, sessions: &sessions, records: &[] };
    pusher.link.push(batch).await.unwrap();
    assert_ne!(db.psql(MARK), before);
}

/// The statements of a push of the version before, and those of a client without a daemon.
#[tokio::test]
async fn earlier_daemons_and_clients_mark_every_heartbeat() {
    let server = Server::start(&[]);
    let db = Database::migrated(&server, "x").await;
    db.psql(EARLIER_DAEMON);
    db.put(&session(ID, "old", db.now()));
    let beat = "UPDATE supervisor_sessions SET last_heartbeat = clock_timestamp()";
    let as_daemon = format!(
        "BEGIN; SET LOCAL sessiond.replay = 'on'; SET LOCAL sessiond.columns = 'on'; \
         SET LOCAL sessiond.host = '00000000-0000-0000-0000-000000000007'; {beat}; COMMIT"
    );
    let mut laptop = db.link();
    laptop.handshake(&host("laptop", 2)).await.unwrap();
    for (statement, vouched_by) in [
        (as_daemon.as_str(), Some(Uuid::from_u128(7))),
        (&as_daemon, Some(Uuid::from_u128(7))),
        (beat, None),
        (beat, None),
    ] {
        let before = db.psql(MARK);
        db.psql(statement);
        assert_ne!(db.psql(MARK), before, "{statement}");
        let read = laptop.pull(&PullQuery::since(1)).await.unwrap().sessions;
        assert_eq!(read[0].vouched_by, vouched_by, "{statement}");
        assert_eq!(read[0].session.last_heartbeat, db.rows()[0].last_heartbeat);
    }
}

#[tokio::test]
async fn columns_that_others_add_are_compared_whatever_their_type() {
    let server = Server::start(&[]);
    let db = Database::migrated(&server, "x").await;
    let mut pusher = Pusher::new(&db).await;
    db.psql("ALTER TABLE supervisor_sessions ADD COLUMN theirs json, ADD COLUMN place point, DROP COLUMN resumed_from CASCADE");
    db.psql("ALTER TABLE supervisor_sessions ADD COLUMN resumed_from VARCHAR(32)");
    db.psql("UPDATE supervisor_sessions SET theirs = '{\"a\": 1}', place = '(1, 2)'");
    assert!(pusher.moves_the_mark(&db).await, "another client wrote it");
    assert!(!pusher.moves_the_mark(&db).await);
}

#[tokio::test]
async fn central_of_an_earlier_version_marks_every_heartbeat() {
    let server = Server::start(&[]);
    let db = Database::migrated(&server, "x").await;
    db.psql("ALTER TABLE sessiond_hosts DROP COLUMN vouching_claim");
    let mut pusher = Pusher::new(&db).await;
    assert!(!pusher.link.handshake(&host("odin3", 1)).await.unwrap().marks_changes_only);
    assert!(pusher.moves_the_mark(&db).await);
    let hosts = pusher.link.hosts(None).await.unwrap();
    assert_eq!((hosts.len(), hosts[0].host_id), (1, Uuid::from_u128(1)));
}
