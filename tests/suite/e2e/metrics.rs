//! `/metrics`, read by the parser of Prometheus's own Python client, and the dashboard that shows it, whose expressions
//! are parsed by Prometheus's own grammar.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use testkit::daemon::Host;
use testkit::eventually;
use testkit::postgres::Server;
use testkit::python;
use testkit::skip::skip;

const CLIENT: &str = "prometheus-client==0.26.0";
const PARSE: &str = "import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
families = list(parse(sys.stdin.read()))
print(json.dumps([{'name': s.name, 'labels': s.labels, 'value': s.value if s.value == s.value else None} for f in families for s in f.samples]))";

#[derive(Debug, Deserialize)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    /// None: not a number, which is what a gauge without a value is.
    value: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Selector {
    metric: String,
    labels: BTreeSet<String>,
}

/// What a program prints that is given `input`.
fn filter(command: &mut Command, input: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn samples(host: &Host, python: &Path) -> Vec<Sample> {
    let (status, text) = host.ask("GET", "/metrics", None);
    assert_eq!(status, 200);
    serde_json::from_str(&filter(Command::new(python).args(["-c", PARSE]), text.as_str().unwrap())).unwrap()
}

/// The sum of the samples with this name whose labels include `labels`.
fn sum(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let fits =
        |sample: &&Sample| labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|is| is == value));
    let values: Vec<_> =
        samples.iter().filter(|sample| sample.name == name).filter(fits).filter_map(|s| s.value).collect();
    assert!(!values.is_empty(), "{name} {labels:?} is missing");
    values.iter().sum()
}

fn set(host: &Host, id: &str, body: &Value) {
    assert_eq!(host.ask("POST", &format!("/v1/sessions/{id}/heartbeat"), Some(body)).0, 200);
}

fn client(test: &str) -> Option<PathBuf> {
    // Once, because the tests of this file run at the same time.
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    let install = || {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prometheus-client");
        python::with_package(&folder, CLIENT, "prometheus_client.openmetrics.parser")
    };
    let python = PYTHON.get_or_init(install).clone();
    if python.is_none() {
        skip(test, format_args!("python3 and {CLIENT}"));
    }
    python
}

#[test]
fn metrics_count_activity_waits_and_durations() {
    let Some(python) = client("metrics_count_activity_waits_and_durations") else { return };
    let server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    let host = Host::new("odin3");
    host.configure(&format!("[central]\nurl = \"{url}\"\nheartbeat_interval = \"1s\"\n"));
    host.ok(&["migrate", "--central-url", &url]);
    let host = host.started();
    let ids: Vec<_> = (0..4).map(|_| host.ok(&["register", "--project", "odin", "--id-only"])).collect();
    for (id, activity) in ids.iter().zip(["waiting", "waiting", "idle"]) {
        set(&host, id, &json!({ "activity": activity }));
    }
    let now = samples(&host, &python);
    let active = |samples: &[Sample], activity| sum(samples, "sessiond_active_sessions", &[("activity", activity)]);
    let states = ["working", "waiting", "idle", "failed", "unknown"];
    assert_eq!(states.map(|state| active(&now, state)), [0.0, 2.0, 1.0, 0.0, 1.0]);
    assert_eq!(sum(&now, "sessiond_wait_duration_seconds_count", &[]), 0.0);

    // One is answered, by its next question first; the other is closed, which answers nothing.
    set(&host, &ids[0], &json!({"activity": "waiting", "waiting_for": "question"}));
    set(&host, &ids[0], &json!({"activity": "working"}));
    host.ok(&["close", ids[1].trim()]);
    let now = samples(&host, &python);
    assert_eq!(states.map(|state| active(&now, state)), [1.0, 0.0, 1.0, 0.0, 1.0]);
    assert_eq!(sum(&now, "sessiond_wait_duration_seconds_count", &[]), 1.0);
    assert_eq!(sum(&samples(&host, &python), "sessiond_wait_duration_seconds_count", &[]), 1.0, "it is counted once");

    let posts = [("method", "POST")];
    let requests = sum(&now, "sessiond_http_requests_total", &posts);
    assert_eq!(sum(&now, "sessiond_http_request_duration_seconds_count", &posts), requests);
    let pushed = || (sum(&samples(&host, &python), "sessiond_push_duration_seconds_count", &[]) > 0.0).then_some(());
    eventually("a push is counted", Duration::from_secs(30), pushed);
}

/// The one block of JSON in the handbook.
fn dashboard() -> Value {
    let handbook = include_str!("../../../docs/operations.md");
    let (_, behind) = handbook.split_once("```json\n").unwrap();
    serde_json::from_str(behind.split_once("\n```\n").unwrap().0).unwrap()
}

#[test]
fn dashboard_in_the_handbook_shows_metrics_that_exist() {
    let test = "dashboard_in_the_handbook_shows_metrics_that_exist";
    let Some(python) = client(test) else { return };
    let grammar = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/promql");
    if !grammar.join("node_modules/@prometheus-io/lezer-promql").is_dir() {
        return skip(test, "node, and what tests/run installs by npm");
    }
    let host = Host::new("odin3").started();
    host.ok(&["register", "--project", "odin"]);
    let known = samples(&host, &python);
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    // Grafana fills these in.
    let filled = |expr: &str| expr.replace("$__rate_interval", "5m").replace("$host", ".*");
    let expressions: Vec<_> = targets.map(|target| filled(target["expr"].as_str().unwrap())).collect();
    assert!(expressions.len() >= panels.len());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/e2e/promql.mjs");
    let parsed = filter(Command::new("node").arg(script).arg(grammar), &json!(expressions).to_string());
    let parsed: Vec<Vec<Selector>> = serde_json::from_str(&parsed).unwrap();
    for (expression, selectors) in expressions.iter().zip(parsed) {
        assert!(!selectors.is_empty(), "{expression} selects nothing");
        for Selector { metric, labels } in selectors {
            let of_metric: Vec<_> = known.iter().filter(|sample| sample.name == metric).collect();
            assert!(!of_metric.is_empty(), "{expression}: there is no {metric}");
            // Prometheus adds `instance` itself.
            for label in labels.iter().filter(|label| *label != "instance") {
                assert!(of_metric.iter().all(|sample| sample.labels.contains_key(label)), "{metric} has no {label}");
            }
        }
    }
}
