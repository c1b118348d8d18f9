//! Target 7: what things cost as sessions grow, and a plot of it.

use std::path::Path;

use crate::central::central;
use crate::client::{Kept, get, heartbeat};
use crate::report::{Report, Unit, Wanted};
use crate::stats::Samples;
use crate::support::daemon::Host;
use crate::svg::{Curve, Plot};
use crate::{Scale, filling, replay, size};

const SIZES: [u64; 5] = [10, 100, 1_000, 10_000, 100_000];
/// What is to stay flat may cost at most this much more with a thousand times the sessions.
const FLAT: f64 = 2.0;

pub fn measure(scale: &Scale, report: &mut Report, plot: &Path) {
    let sizes = &SIZES[..scale.of(5, 3) as usize];
    let mut curves =
        ["start to ready", "list", "push of all", "heartbeat", "lookup", "lookup by prefix"].map(Curve::new);
    for &sessions in sizes {
        let costs = with(sessions, scale);
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
        report.ratio(7, &what, Unit::Time, large, ("with 10", small), Wanted::AtMost(FLAT));
    }
    for curve in &curves[..3] {
        // Linear at most: the last step, ten times the sessions, costs ten times as much and a little.
        let what = format!("{}, with {} sessions", curve.name, sizes[sizes.len() - 1]);
        let (before, last) = (curve.points[sizes.len() - 2].1, curve.points[sizes.len() - 1].1);
        report.ratio(7, &what, Unit::Time, last, ("with a tenth", before), Wanted::AtMost(13.0));
    }
    let plot_of = Plot { title: "What sessiond's work costs as sessions grow", x: "sessions", y: "seconds" };
    std::fs::write(plot, plot_of.svg(&curves)).expect("the plot can be written");
}

/// In the order of the curves, in seconds.
fn with(sessions: u64, scale: &Scale) -> [f64; 6] {
    let server = central(&["central"], &[]);
    let mut host = Host::new("growing");
    let ids = filling::register(&host.state_dir(), "growing", sessions);
    let ready = size::ready(&mut host);
    let mut kept = Kept::to(&host.socket());
    let (mut beats, mut lists, mut looks, mut prefixes) =
        (Samples::default(), Samples::default(), Samples::default(), Samples::default());
    for number in 0..scale.of(300, 30) {
        let id = &ids[(number * 7919 % sessions) as usize];
        beats.time(|| kept.ask(&heartbeat(id, number)).len());
        looks.time(|| kept.ask(&get(&format!("/v1/sessions/{id}"))).len());
        // All but the last character: one session, or a few.
        prefixes.time(|| try_prefix(&mut kept, &id[..id.len() - 1]));
    }
    for _ in 0..5 {
        lists.time(|| kept.ask(&get("/v1/sessions")).len());
    }
    drop(kept);
    host.stop();
    let push = replay::pushed(&mut host, &server.url("central"));
    [ready, lists.p50(), push, beats.p50(), looks.p50(), prefixes.p50()]
}

/// Several sessions may begin so, which is an answer too.
fn try_prefix(kept: &mut Kept, prefix: &str) -> usize {
    kept.ask(&get(&format!("/v1/sessions/{prefix}/footer"))).len()
}
