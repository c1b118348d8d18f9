//! Target 7: the cost of operations by the number of sessions, with a plot.

use std::path::Path;

use crate::central::central;
use crate::client::{HttpConnection, get, heartbeat};
use crate::report::{Goal, Report, Unit};
use crate::stats::Samples;
use crate::svg::{Curve, Plot};
use crate::{Scale, fixtures, replay, size};
use testkit::daemon::Host;

const SIZES: [u64; 5] = [10, 100, 1_000, 10_000, 100_000];
/// How much more a constant-cost operation may take with the largest number of sessions.
const CONSTANT: f64 = 2.0;

pub fn measure(scale: &Scale, report: &mut Report, plot: &Path) {
    let sizes = &SIZES[..scale.of(5, 3) as usize];
    let mut curves =
        ["start to ready", "list", "push of all", "heartbeat", "lookup", "lookup by prefix"].map(Curve::new);
    for &sessions in sizes {
        let costs = costs(sessions, scale);
        for (curve, cost) in curves.iter_mut().zip(costs) {
            curve.points.push((sessions as f64, cost));
        }
    }
    for curve in &curves {
        let values = curve.points.iter().map(|(_, cost)| Unit::Time.show(*cost)).collect::<Vec<_>>();
        report.note(format!("{} with {sizes:?} sessions: {}", curve.name, values.join(", ")));
    }
    for curve in &curves[3..] {
        let what = format!("{}, p50, with {} sessions", curve.name, sizes[sizes.len() - 1]);
        let (small, large) = (curve.points[0].1, curve.points[sizes.len() - 1].1);
        report.ratio(7, &what, Unit::Time, large, ("with 10", small), Goal::AtMost(CONSTANT));
    }
    for curve in &curves[..3] {
        // At most linear, with some tolerance: the last step has ten times the sessions.
        let what = format!("{}, with {} sessions", curve.name, sizes[sizes.len() - 1]);
        let (before, last) = (curve.points[sizes.len() - 2].1, curve.points[sizes.len() - 1].1);
        report.ratio(7, &what, Unit::Time, last, ("with a tenth", before), Goal::AtMost(13.0));
    }
    let plot_of = Plot { title: "What sessiond's work costs as sessions grow", x: "sessions", y: "seconds" };
    std::fs::write(plot, plot_of.svg(&curves)).expect("the plot can be written");
}

/// The costs with this many sessions, in the order of the curves, in seconds.
fn costs(sessions: u64, scale: &Scale) -> [f64; 6] {
    let server = central(&["central"], &[]);
    let mut host = Host::new("growing");
    let ids = fixtures::register(&host.state_dir(), "growing", sessions);
    let ready = size::ready(&mut host);
    let mut connection = HttpConnection::open(&host.socket());
    let (mut beats, mut lists, mut lookups, mut prefixes) =
        (Samples::default(), Samples::default(), Samples::default(), Samples::default());
    for number in 0..scale.of(300, 30) {
        let id = &ids[(number * 7919 % sessions) as usize];
        beats.time(|| connection.send(&heartbeat(id, number)).len());
        lookups.time(|| connection.send(&get(&format!("/v1/sessions/{id}"))).len());
        // All but the last character: one session, or a few.
        prefixes.time(|| try_prefix(&mut connection, &id[..id.len() - 1]));
    }
    for _ in 0..5 {
        lists.time(|| connection.send(&get("/v1/sessions")).len());
    }
    drop(connection);
    host.stop();
    let push = replay::pushed(&mut host, &server.url("central"));
    [ready, lists.p50(), push, beats.p50(), lookups.p50(), prefixes.p50()]
}

/// Looks up a prefix, which may match several sessions.
fn try_prefix(connection: &mut HttpConnection, prefix: &str) -> usize {
    connection.send(&get(&format!("/v1/sessions/{prefix}/footer"))).len()
}
