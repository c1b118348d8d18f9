//! The metrics that /metrics exports.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet, text::encode};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, counter::Counter, family::Family, gauge::Gauge, info::Info};
use prometheus_client::registry::{Registry, Unit};

use crate::domain::activity::ActivityState;
use crate::domain::durations::{BOUNDS, DurationHistogram};
use crate::domain::{LinkState, LinkStatus, Timestamp};
use crate::store::{ActivityFigures, Backlog, Counts};

/// The buckets of waits for a person, in seconds: from a glance to a night.
const WAIT_BOUNDS: [f64; 12] = [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    method: &'static str,
    status: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabel {
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActivityLabel {
    activity: &'static str,
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

fn request_histogram() -> Histogram {
    Histogram::new(BOUNDS.map(|bound| bound.as_secs_f64()))
}

/// A histogram that another part counts and that is copied for the export.
#[derive(Clone, Debug, Default)]
struct CopiedHistogram(Arc<Mutex<DurationHistogram>>);

impl CopiedHistogram {
    fn set(&self, histogram: &DurationHistogram) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone_from(histogram);
    }
}

impl EncodeMetric for CopiedHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let histogram = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = histogram.sum().as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, histogram.count(), &histogram.buckets(), None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// What the daemon's parts report when `/metrics` is asked for.
pub(crate) struct Figures<'a> {
    pub counts: Counts,
    pub activity: ActivityFigures,
    pub backlog: &'a Backlog,
    pub link: &'a LinkStatus,
    /// The store's size on disk.
    pub store_bytes: u64,
}

/// What is counted all the time, and the gauges, which are set when they are exported.
pub struct Metrics {
    registry: Mutex<Registry>,
    /// How far the activity history was read for waits. Held while it is read, so that each wait is counted once.
    waits_read_to: tokio::sync::Mutex<Option<i64>>,
    responses: Family<ResponseLabels, Counter>,
    request_durations: Family<MethodLabel, Histogram>,
    push_durations: CopiedHistogram,
    sessions: Family<StatusLabel, Gauge>,
    active_sessions: Family<ActivityLabel, Gauge>,
    waits: Histogram,
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
            waits_read_to: tokio::sync::Mutex::new(None),
            responses: Family::default(),
            request_durations: Family::new_with_constructor(request_histogram),
            push_durations: CopiedHistogram::default(),
            sessions: Family::default(),
            active_sessions: Family::default(),
            waits: Histogram::new(WAIT_BOUNDS),
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
        r.register_with_unit(
            "http_request_duration",
            "Time until the head of an HTTP response, by method",
            Unit::Seconds,
            self.request_durations.clone(),
        );
        r.register("sessions", "Sessions of this host by current status", self.sessions.clone());
        r.register(
            "active_sessions",
            "Active sessions of this host by what their agents do",
            self.active_sessions.clone(),
        );
        r.register_with_unit(
            "wait_duration",
            "How long an agent of this host waited for a person, once it was answered",
            Unit::Seconds,
            self.waits.clone(),
        );
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
        r.register_with_unit("push_duration", "Duration of pushes", Unit::Seconds, self.push_durations.clone());
        r.register_with_unit("store", "Size of the store on disk", Unit::Bytes, self.store_bytes.clone());
    }

    pub(crate) fn count_response(&self, method: &'static str, status: u16, took: Duration) {
        self.responses.get_or_create(&ResponseLabels { method, status: u32::from(status) }).inc();
        self.request_durations.get_or_create(&MethodLabel { method }).observe(took.as_secs_f64());
    }

    /// How far the activity history was read for waits, to read on from there.
    pub(crate) async fn waits_read_to(&self) -> tokio::sync::MutexGuard<'_, Option<i64>> {
        self.waits_read_to.lock().await
    }

    /// All metrics in the OpenMetrics text format.
    pub(crate) fn export(&self, figures: &Figures<'_>, now: Timestamp) -> String {
        let Figures { counts, activity, backlog, link, store_bytes } = figures;
        for (status, count) in [("active", counts.active), ("stale", counts.stale), ("closed", counts.closed)] {
            self.sessions.get_or_create(&StatusLabel { status }).set(signed(count));
        }
        for (state, count) in &activity.active {
            let label = ActivityLabel { activity: state.map_or("unknown", ActivityState::as_str) };
            self.active_sessions.get_or_create(&label).set(signed(*count));
        }
        for wait in &activity.waits {
            self.waits.observe(wait.as_secs_f64());
        }
        self.push_durations.set(&link.push_durations);
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
        self.store_bytes.set(signed(*store_bytes));
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner));
        text
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
