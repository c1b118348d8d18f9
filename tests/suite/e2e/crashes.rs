//! kill -9 under load, again and again: what was acknowledged is there.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::daemon::Host;
use crate::support::{campaign, random::Random};

/// What the clients were told: for each session the newest context that was acknowledged, and the
/// newest that was sent, which may have been taken without an answer.
type Told = Mutex<HashMap<String, (u64, u64)>>;

const CLIENTS: usize = 4;

fn client(host: &Host, told: &Told, stop: &AtomicBool) {
    let mut own: Vec<String> = Vec::new();
    let mut beat = 0;
    while !stop.load(Ordering::Relaxed) {
        if (own.len() < 5 || beat % 50 == 0)
            && let Some((201, session)) = host.try_ask("POST", "/v1/sessions", Some(&json!({"project": "crash"})))
        {
            let id = session["instance_id"].as_str().unwrap().to_owned();
            told.lock().unwrap().insert(id.clone(), (0, 0));
            own.push(id);
        }
        beat += 1;
        let Some(id) = own.get(beat % own.len().max(1)) else { continue };
        // Contexts only grow, and each client has sessions of its own, so the newest can be told.
        let context = (told.lock().unwrap()[id].1 + 1).min(100);
        told.lock().unwrap().get_mut(id).unwrap().1 = context;
        let body = json!({"context_percent": context});
        if let Some((200, _)) = host.try_ask("POST", &format!("/v1/sessions/{id}/heartbeat"), Some(&body)) {
            told.lock().unwrap().get_mut(id).unwrap().0 = context;
        }
    }
}

fn check(host: &Host, told: &Told) {
    let (_, list) = host.ask("GET", "/v1/sessions", None);
    let found: HashMap<&str, &Value> =
        list["instances"].as_array().unwrap().iter().map(|s| (s["instance_id"].as_str().unwrap(), s)).collect();
    for (id, (acknowledged, sent)) in told.lock().unwrap().iter() {
        let session = found.get(id.as_str()).unwrap_or_else(|| panic!("{id} was acknowledged and is gone"));
        let context = session["context_percent"].as_u64().unwrap();
        assert!((*acknowledged..=*sent).contains(&context), "{id}: {context} is not in {acknowledged}..={sent}");
    }
}

#[test]
fn kill_9_under_load_loses_nothing_acknowledged() {
    let kills = campaign(100, 2000);
    let mut random = Random::from_clock("kill -9");
    let mut host = Host::new("odin3").started();
    let told = Told::default();
    for _ in 0..kills {
        let stop = AtomicBool::new(false);
        let killed = thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| client(&host, &told, &stop));
            }
            // Not waiting for luck: the moment of the kill is what is drawn.
            let moment = Instant::now() + Duration::from_micros(random.below(60_000));
            while Instant::now() < moment {
                thread::yield_now();
            }
            let killed = rustix::process::kill_process(host.pid(), rustix::process::Signal::KILL);
            stop.store(true, Ordering::Relaxed);
            killed
        });
        assert!(killed.is_ok(), "the daemon was gone before it was killed: {}", host.log());
        host.kill();
        host.start();
        check(&host, &told);
    }
    let (sessions, beats) = told.lock().unwrap().values().fold((0, 0), |(n, sum), (acked, _)| (n + 1, sum + acked));
    assert!(sessions > 10 && beats > kills, "only {sessions} sessions and {beats} heartbeats in {kills} kills");
    assert!(host.status()["store"]["damage"].is_null(), "a crash is no damage: {}", host.log());
    println!("{kills} kills: {sessions} sessions and {beats} heartbeats acknowledged, none lost");
}
