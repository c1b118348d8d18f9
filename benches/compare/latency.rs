//! Target 1: the latency of a durable heartbeat on an open connection, compared with a fixed response and a commit, and
//! with central in different states.

use crate::central::central;
use crate::client::{HttpConnection, heartbeat};
use crate::floors::{OneRowDatabase, StaticServer};
use crate::report::{Goal, Report, Unit};
use crate::stats::Samples;
use crate::{Scale, fixtures};
use testkit::daemon::Host;
use testkit::postgres::Stop;

/// A host with one session, and a connection to it.
struct HeartbeatClient {
    host: Host,
    id: String,
    connection: HttpConnection,
    sent: u64,
}

impl HeartbeatClient {
    fn on(host: Host) -> Self {
        let id = host.ok(&["register", "--project", "odin", "--id-only"]);
        let connection = HttpConnection::open(&host.socket());
        Self { host, id, connection, sent: 0 }
    }

    fn beat(&mut self) -> usize {
        self.sent += 1;
        self.connection.send(&heartbeat(&self.id, self.sent)).len()
    }
}

pub fn measure(scale: &Scale, report: &mut Report) {
    let mut alone = HeartbeatClient::on(Host::new("alone").started());
    let runs = scale.of(3000, 200);
    against_its_floors(&mut alone, runs, report);
    with_central_in_any_state(&mut alone, runs / 3, scale, report);
}

fn against_its_floors(alone: &mut HeartbeatClient, runs: u64, report: &mut Report) {
    let answer = vec![b'x'; alone.beat()];
    let echo = StaticServer::of(&answer);
    let mut echoes = HttpConnection::open(&echo.socket());
    let row = OneRowDatabase::beside(alone.host.dir());
    let (mut beats, mut floor, mut commits) = (Samples::default(), Samples::default(), Samples::default());
    for run in 0..runs {
        let question = heartbeat(&alone.id, run);
        beats.time(|| alone.beat());
        floor.time(|| echoes.send(&question).len());
        commits.time(|| row.commit());
    }
    let both = floor.p50() + commits.p50();
    report.ratio(1, "durable heartbeat, p50", Unit::Time, beats.p50(), ("echo + commit", both), Goal::AtMost(1.25));
    report.ratio(1, "durable heartbeat, p99", Unit::Time, beats.p99(), ("its own p50", beats.p50()), Goal::AtMost(5.0));
    report.number(1, "  the echo alone, p50", floor.p50(), Unit::Time, Goal::None);
    report.ratio(1, "  the commit alone, p99", Unit::Time, commits.p99(), ("its own p50", commits.p50()), Goal::None);
}

fn with_central_in_any_state(alone: &mut HeartbeatClient, runs: u64, scale: &Scale, report: &mut Report) {
    let mut server = central(&["central"], &[]);
    let host = Host::with_central("far", &server.url("central"));
    fixtures::register(&host.state_dir(), "far", scale.of(100_000, 3_000));
    let mut far = HeartbeatClient::on(host.started());
    let replays = |far: &HeartbeatClient| far.host.status()["backlog"]["sessions"].as_u64() > Some(1000);
    compare("during a full-speed replay", alone, &mut far, runs, replays, report);
    far.host.await_synced();

    server.freeze();
    far.host.await_central("unreachable");
    compare("with central hanging", alone, &mut far, runs, |_| true, report);
    server.thaw();
    server.stop(Stop::Immediate);
    far.host.await_central("unreachable");
    compare("with central stopped", alone, &mut far, runs, |_| true, report);
}

/// Sends heartbeats to both hosts alternately, so that other load on the machine affects both, while `lasts` is true.
fn compare(
    how: &str,
    alone: &mut HeartbeatClient,
    far: &mut HeartbeatClient,
    runs: u64,
    lasts: impl Fn(&HeartbeatClient) -> bool,
    report: &mut Report,
) {
    const CHECK_INTERVAL: u64 = 50;
    // The daemon closes connections that are idle for long.
    (alone.connection, far.connection) =
        (HttpConnection::open(&alone.host.socket()), HttpConnection::open(&far.host.socket()));
    let (mut near, mut distant) = (Samples::default(), Samples::default());
    for run in 0..runs {
        if run % CHECK_INTERVAL == 0 && run > 0 && !lasts(far) {
            break;
        }
        near.time(|| alone.beat());
        distant.time(|| far.beat());
    }
    let what = format!("durable heartbeat, p50, {how}");
    report.ratio(1, &what, Unit::Time, distant.p50(), ("without central", near.p50()), Goal::AtMost(1.1));
}
