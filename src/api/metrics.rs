//! What /metrics tells.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info};
use prometheus_client::registry::{Registry, Unit};

use crate::domain::{LinkState, LinkStatus, Timestamp};
use crate::store::{Backlog, Counts};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    method: &'static str,
    status: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

type Seconds = Gauge<f64, AtomicU64>;

/// The counters that go on, and the gauges that are set whenever somebody looks.
pub struct Metrics {
    registry: Mutex<Registry>,
    answers: Family<Answer, Counter>,
    sessions: Family<StatusLabel, Gauge>,
    backlog: Gauge,
    records: Gauge,
    backlog_age: Seconds,
    parked: Gauge,
    central: Family<StateLabel, Gauge>,
    state_age: Seconds,
    sync_age: Seconds,
    round_trip: Seconds,
    store: Gauge,
}

impl Metrics {
    pub fn new(version: &'static str) -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("sessiond")),
            answers: Family::default(),
            sessions: Family::default(),
            backlog: Gauge::default(),
            records: Gauge::default(),
            backlog_age: Seconds::default(),
            parked: Gauge::default(),
            central: Family::default(),
            state_age: Seconds::default(),
            sync_age: Seconds::default(),
            round_trip: Seconds::default(),
            store: Gauge::default(),
        };
        metrics.register(version);
        metrics
    }

    fn register(&self, version: &'static str) {
        let mut r = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        r.register("build", "The version that runs", Info::new([("version", version)]));
        r.register("http_requests", "Answers by method and status", self.answers.clone());
        r.register("sessions", "Sessions of this host by status, judged now", self.sessions.clone());
        r.register("backlog_sessions", "Sessions that central lacks", self.backlog.clone());
        r.register("backlog_records", "Events, commands and checkpoints that central lacks", self.records.clone());
        r.register_with_unit(
            "backlog_age",
            "Age of the oldest change that waits",
            Unit::Seconds,
            self.backlog_age.clone(),
        );
        r.register(
            "parked_sessions",
            "Sessions and records that central will never take as they are",
            self.parked.clone(),
        );
        r.register("central_state", "1 for the state that the link to central is in", self.central.clone());
        r.register_with_unit("central_state_age", "Time in that state", Unit::Seconds, self.state_age.clone());
        r.register_with_unit(
            "sync_age",
            "Time since central last had everything it was sent",
            Unit::Seconds,
            self.sync_age.clone(),
        );
        r.register_with_unit("central_round_trip", "Duration of the last push", Unit::Seconds, self.round_trip.clone());
        r.register_with_unit("store", "Size of the store on disk", Unit::Bytes, self.store.clone());
    }

    pub fn answered(&self, method: &'static str, status: u16) {
        self.answers.get_or_create(&Answer { method, status: u32::from(status) }).inc();
    }

    pub fn text(&self, counts: Counts, backlog: &Backlog, link: &LinkStatus, bytes: u64, now: Timestamp) -> String {
        for (status, count) in [("active", counts.active), ("stale", counts.stale), ("closed", counts.closed)] {
            self.sessions.get_or_create(&StatusLabel { status }).set(signed(count));
        }
        self.backlog.set(signed(backlog.sessions));
        self.records.set(signed(backlog.records));
        self.backlog_age.set(backlog.oldest_at.map_or(0.0, |at| now.since(at).as_secs_f64()));
        self.parked.set(signed(backlog.parked));
        for state in LinkState::ALL {
            self.central.get_or_create(&StateLabel { state: state.as_str() }).set(i64::from(state == link.state));
        }
        self.state_age.set(now.since(link.since).as_secs_f64());
        self.sync_age.set(link.last_sync_at.map_or(f64::NAN, |at| now.since(at).as_secs_f64()));
        self.round_trip.set(link.round_trip.map_or(f64::NAN, |took| took.as_secs_f64()));
        self.store.set(signed(bytes));
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner));
        text
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
