//! Target 1: a durable heartbeat on a kept connection, beside an echo and a commit, however central is.

use crate::central::central;
use crate::client::{Kept, heartbeat};
use crate::floors::{Echo, OneRow};
use crate::report::{Report, Unit, Wanted};
use crate::stats::Samples;
use crate::support::daemon::Host;
use crate::support::postgres::Stop;
use crate::{Scale, filling};

/// A host with one session, and a connection to it.
struct Beating {
    host: Host,
    id: String,
    kept: Kept,
    sent: u64,
}

impl Beating {
    fn on(host: Host) -> Self {
        let id = host.ok(&["register", "--project", "odin", "--id-only"]);
        let kept = Kept::to(&host.socket());
        Self { host, id, kept, sent: 0 }
    }

    fn beat(&mut self) -> usize {
        self.sent += 1;
        self.kept.ask(&heartbeat(&self.id, self.sent)).len()
    }
}

pub fn measure(scale: &Scale, report: &mut Report) {
    let mut alone = Beating::on(Host::new("alone").started());
    let runs = scale.of(3000, 200);
    beside_its_floors(&mut alone, runs, report);
    however_central_is(&mut alone, runs / 3, scale, report);
}

fn beside_its_floors(alone: &mut Beating, runs: u64, report: &mut Report) {
    let answer = vec![b'x'; alone.beat()];
    let echo = Echo::of(&answer);
    let mut echoes = Kept::to(&echo.socket());
    let row = OneRow::beside(alone.host.dir());
    let (mut beats, mut floor, mut commits) = (Samples::default(), Samples::default(), Samples::default());
    for run in 0..runs {
        let question = heartbeat(&alone.id, run);
        beats.time(|| alone.beat());
        floor.time(|| echoes.ask(&question).len());
        commits.time(|| row.commit());
    }
    let both = floor.p50() + commits.p50();
    report.ratio(1, "durable heartbeat, p50", Unit::Time, beats.p50(), ("echo + commit", both), Wanted::AtMost(1.25));
    report.ratio(
        1,
        "durable heartbeat, p99",
        Unit::Time,
        beats.p99(),
        ("its own p50", beats.p50()),
        Wanted::AtMost(5.0),
    );
    report.number(1, "  the echo alone, p50", floor.p50(), Unit::Time, Wanted::Nothing);
    report.ratio(
        1,
        "  the commit alone, p99",
        Unit::Time,
        commits.p99(),
        ("its own p50", commits.p50()),
        Wanted::Nothing,
    );
}

fn however_central_is(alone: &mut Beating, runs: u64, scale: &Scale, report: &mut Report) {
    let mut server = central(&["central"], &[]);
    let host = Host::with_central("far", &server.url("central"));
    filling::register(&host.state_dir(), "far", scale.of(100_000, 3_000));
    let mut far = Beating::on(host.started());
    let replays = |far: &Beating| far.host.status()["backlog"]["sessions"].as_u64() > Some(1000);
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

/// Heartbeats of both hosts in turn, so that whatever else the machine does hits both; for as long as `lasts`.
fn compare(
    how: &str,
    alone: &mut Beating,
    far: &mut Beating,
    runs: u64,
    lasts: impl Fn(&Beating) -> bool,
    report: &mut Report,
) {
    const BETWEEN_LOOKS: u64 = 50;
    // A connection that was idle for long has been closed.
    (alone.kept, far.kept) = (Kept::to(&alone.host.socket()), Kept::to(&far.host.socket()));
    let (mut near, mut distant) = (Samples::default(), Samples::default());
    for run in 0..runs {
        if run % BETWEEN_LOOKS == 0 && run > 0 && !lasts(far) {
            break;
        }
        near.time(|| alone.beat());
        distant.time(|| far.beat());
    }
    let what = format!("durable heartbeat, p50, {how}");
    report.ratio(1, &what, Unit::Time, distant.p50(), ("without central", near.p50()), Wanted::AtMost(1.1));
}
