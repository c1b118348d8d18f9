//! The cost of a registration beside many watched processes.

use std::time::{Duration, Instant};

use serde_json::json;

use testkit::campaign;
use testkit::daemon::Host;

/// How many registrations are measured at a time.
const MEASURED: u64 = 100;

#[test]
fn registration_cost_is_independent_of_watched_processes() {
    let host = Host::new("odin3").started();
    // One process runs as long as the test and has all sessions: each is watched separately.
    let body = json!({ "project": "odin", "instance_type": "PS", "pid": std::process::id() });
    let mut registered = 0;
    let mut register = |count: u64| {
        let began = Instant::now();
        for _ in 0..count {
            let (status, answer) = host.ask("POST", "/v1/sessions", Some(&body));
            assert_eq!(status, 201, "{answer}");
        }
        registered += count;
        began.elapsed()
    };
    let stages = [0, campaign(200, 1_000), campaign(1_000, 5_000)];
    let mut took = Vec::new();
    for stage in stages {
        register(stage.saturating_sub(took.len() as u64 * MEASURED));
        took.push(register(MEASURED));
        println!("{MEASURED} registrations beside {stage} watched processes: {:?}", took.last().unwrap());
    }
    assert!(registered >= stages[2]);
    // Reading all watched processes for each registration would make this ratio grow with their number.
    let least = took[0].max(Duration::from_millis(10));
    let ratio = took[2].as_secs_f64() / least.as_secs_f64();
    println!("ratio {ratio:.2}");
    assert!(ratio < 10.0, "{took:?}");
}
