//! The metrics that /metrics exports.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info};
use prometheus_client::registry::{Registry, Unit};

use crate::domain::{LinkState, LinkStatus, Timestamp};
use crate::store::{Backlog, Counts};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
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

type SecondsGauge = Gauge<f64, AtomicU64>;

/// The counter of responses, and the gauges, which are set when they are exported.
pub struct Metrics {
    registry: Mutex<Registry>,
    responses: Family<ResponseLabels, Counter>,
    sessions: Family<StatusLabel, Gauge>,
    backlog_sessions: Gauge,
    backlog_records: Gauge,
    backlog_age: SecondsGauge,
    parked: Gauge,
    central_state: Family<StateLabel, Gauge>,
    central_state_age: SecondsGauge,
    sync_age: SecondsGauge,
    round_trip: SecondsGauge,
    store_bytes: Gauge,
}

impl Metrics {
    /// Metrics that are all zero. `version` becomes the label of `sessiond_build_info`.
    pub fn new(version: &'static str) -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("sessiond")),
            responses: Family::default(),
            sessions: Family::default(),
            backlog_sessions: Gauge::default(),
            backlog_records: Gauge::default(),
            backlog_age: SecondsGauge::default(),
            parked: Gauge::default(),
            central_state: Family::default(),
            central_state_age: SecondsGauge::default(),
            sync_age: SecondsGauge::default(),
            round_trip: SecondsGauge::default(),
            store_bytes: Gauge::default(),
        };
        metrics.register(version);
        metrics
    }

    fn register(&self, version: &'static str) {
        let mut r = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        r.register("build", "Version of the daemon", Info::new([("version", version)]));
        r.register("http_requests", "HTTP responses by method and status", self.responses.clone());
        r.register("sessions", "Sessions of this host by current status", self.sessions.clone());
        r.register("backlog_sessions", "Sessions not synced to central yet", self.backlog_sessions.clone());
        r.register(
            "backlog_records",
            "Events, commands and checkpoints not synced to central yet",
            self.backlog_records.clone(),
        );
        r.register_with_unit(
            "backlog_age",
            "Age of the oldest change not synced to central yet",
            Unit::Seconds,
            self.backlog_age.clone(),
        );
        r.register("parked_sessions", "Sessions and records that central refused permanently", self.parked.clone());
        r.register("central_state", "1 for the current state of the link to central", self.central_state.clone());
        r.register_with_unit(
            "central_state_age",
            "Time since the link to central changed its state",
            Unit::Seconds,
            self.central_state_age.clone(),
        );
        r.register_with_unit(
            "sync_age",
            "Time since central last confirmed everything pushed to it",
            Unit::Seconds,
            self.sync_age.clone(),
        );
        r.register_with_unit("central_round_trip", "Duration of the last push", Unit::Seconds, self.round_trip.clone());
        r.register_with_unit("store", "Size of the store on disk", Unit::Bytes, self.store_bytes.clone());
    }

    pub(crate) fn count_response(&self, method: &'static str, status: u16) {
        self.responses.get_or_create(&ResponseLabels { method, status: u32::from(status) }).inc();
    }

    /// All metrics in the OpenMetrics text format. `bytes`: the store's size on disk.
    pub fn export(&self, counts: Counts, backlog: &Backlog, link: &LinkStatus, bytes: u64, now: Timestamp) -> String {
        for (status, count) in [("active", counts.active), ("stale", counts.stale), ("closed", counts.closed)] {
            self.sessions.get_or_create(&StatusLabel { status }).set(signed(count));
        }
        self.backlog_sessions.set(signed(backlog.sessions));
        self.backlog_records.set(signed(backlog.records));
        self.backlog_age.set(backlog.oldest_at.map_or(0.0, |at| now.since(at).as_secs_f64()));
        self.parked.set(signed(backlog.parked));
        for state in LinkState::ALL {
            self.central_state.get_or_create(&StateLabel { state: state.as_str() }).set(i64::from(state == link.state));
        }
        self.central_state_age.set(now.since(link.since).as_secs_f64());
        self.sync_age.set(link.last_sync_at.map_or(f64::NAN, |at| now.since(at).as_secs_f64()));
        self.round_trip.set(link.round_trip.map_or(f64::NAN, |took| took.as_secs_f64()));
        self.store_bytes.set(signed(bytes));
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner));
        text
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
