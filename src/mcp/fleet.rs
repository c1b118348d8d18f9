//! The overview of all machines that the tool `mcp_meta_fleet` returns: small enough for an agent's context.

use serde_json::{Map, Value, json};

/// The most sessions of an overview: those that need attention come first.
const MAX_SESSIONS: usize = 50;
/// The fields of a session that an overview has, where they are not null.
const FIELDS: [&str; 14] = [
    "instance_id",
    "host_machine",
    "project",
    "status",
    "activity",
    "waiting_for",
    "activity_detail",
    "activity_since",
    "title",
    "current_epic",
    "branch",
    "context_percent",
    "age_seconds",
    "conflicts_with",
];
/// The fields of a rate limit that an overview has.
const LIMIT_FIELDS: [&str; 7] =
    ["host_machine", "account", "window", "used_percent", "resets_at", "reset_passed", "age_seconds"];

/// The answers of the API that an overview is made of.
pub(super) struct Parts {
    pub machines: Value,
    /// The list of active sessions.
    pub active: Value,
    pub limits: Value,
}

/// The overview, of one machine or of all.
pub(super) fn overview(parts: &Parts, machine: Option<&str>) -> Map<String, Value> {
    let of_machine = |row: &&Value| machine.is_none_or(|machine| row["host_machine"] == machine);
    let mut sessions: Vec<&Value> = rows(&parts.active["instances"]).collect();
    sessions.sort_by_key(|session| urgency(session));
    let count = |activity: &str| sessions.iter().filter(|session| session["activity"] == activity).count();
    let shown: Vec<Value> = sessions.iter().take(MAX_SESSIONS).map(|session| reduced(session, &FIELDS)).collect();
    let limits = rows(&parts.limits).filter(of_machine).map(|limit| reduced(limit, &LIMIT_FIELDS));
    let overview = json!({
        "machines": rows(&parts.machines).filter(of_machine).collect::<Vec<_>>(),
        "active_sessions": sessions.len(),
        "waiting": count("waiting"),
        "failed": count("failed"),
        "sessions": shown,
        "sessions_left_out": sessions.len() - shown.len(),
        "limits": limits.collect::<Vec<_>>(),
    });
    match overview {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn rows(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// What waits for a user comes first, then what failed, is idle, works.
fn urgency(session: &Value) -> u8 {
    match session["activity"].as_str() {
        Some("waiting") => 0,
        Some("failed") => 1,
        Some("idle") => 2,
        Some("working") => 3,
        _ => 4,
    }
}

/// These fields of a row, without null and empty ones.
fn reduced(row: &Value, fields: &[&str]) -> Value {
    let is_known = |value: &Value| !value.is_null() && *value != json!([]);
    let known =
        fields.iter().filter_map(|name| Some(((*name).to_owned(), row.get(*name).filter(|v| is_known(v))?.clone())));
    Value::Object(known.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_attention_comes_first_and_the_rest_is_counted() {
        let session = |n: usize, activity: Value| {
            json!({"instance_id": format!("s{n}"), "host_machine": "a", "activity": activity,
            "conflicts_with": [], "claude_session_path": "/x"})
        };
        let mut instances: Vec<Value> = (0..60).map(|n| session(n, Value::Null)).collect();
        instances.push(session(60, "working".into()));
        instances.push(session(61, "waiting".into()));
        let machines = json!([{"host_machine": "a"}, {"host_machine": "b"}]);
        let limits =
            json!([{"host_machine": "a", "window": "five_hour", "used_percent": 1.0, "uid": 7}, {"host_machine": "b"}]);
        let parts = Parts { machines, active: json!({"instances": instances}), limits };
        let all = overview(&parts, None);
        assert_eq!(all["sessions"][0], json!({"instance_id": "s61", "host_machine": "a", "activity": "waiting"}));
        assert_eq!(all["sessions"][1]["instance_id"], "s60");
        assert_eq!(
            (&all["active_sessions"], &all["waiting"], &all["sessions_left_out"]),
            (&json!(62), &json!(1), &json!(12))
        );
        assert_eq!(all["machines"].as_array().unwrap().len(), 2);
        let one = overview(&parts, Some("a"));
        assert_eq!(one["machines"], json!([{"host_machine": "a"}]));
        assert_eq!(one["limits"], json!([{"host_machine": "a", "window": "five_hour", "used_percent": 1.0}]));
        let odd = Parts { machines: json!(null), active: json!(7), limits: json!({}) };
        assert_eq!(overview(&odd, None)["sessions"], json!([]));
    }
}
