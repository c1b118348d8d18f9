//! HttpRequest targets: paths and queries.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::wire::{ActivityParams, HistoryParams, ListQuery, WatchQuery};

/// All characters but the unreserved ones of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Escapes a string as one segment of a path or one value of a query.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// The target of a session: `rest` follows its id.
pub(super) fn session(id: &str, rest: &str) -> String {
    format!("/v1/sessions/{}{rest}", encode(id))
}

pub(super) fn sessions(query: &ListQuery) -> String {
    let ListQuery { project, machine, status, active_only, activity, local, all, limit, after } = query;
    let flag = |on: &Option<bool>| on.map(|on| on.to_string());
    let pairs = [
        ("project", project.clone()),
        ("machine", machine.clone()),
        ("status", status.clone()),
        ("active_only", flag(active_only)),
        ("activity", activity.clone()),
        ("local", flag(local)),
        ("all", flag(all)),
        ("limit", limit.map(|n| n.to_string())),
        ("after", after.clone()),
    ];
    with_query("/v1/sessions".to_owned(), pairs)
}

/// The target of the `kind` (`events`, `commands`, `checkpoints`) of a session.
pub(super) fn history(id: &str, kind: &str, params: &HistoryParams) -> String {
    let HistoryParams { record_type, since, until, contains, limit, offset, after } = params.clone();
    let pairs = [
        ("type", record_type),
        ("since", since),
        ("until", until),
        ("contains", contains),
        ("limit", limit.map(|n| n.to_string())),
        ("offset", offset.map(|n| n.to_string())),
        ("after", after),
    ];
    with_query(session(id, &format!("/{kind}")), pairs)
}

/// The target of the activity history of a session.
pub(super) fn activity(id: &str, params: &ActivityParams) -> String {
    let pairs = [("since", params.since.clone()), ("limit", params.limit.map(|n| n.to_string()))];
    with_query(session(id, "/activity"), pairs)
}

pub(super) fn watch(query: &WatchQuery) -> String {
    let WatchQuery { project, machine, local, after } = query;
    let pairs = [
        ("project", project.clone()),
        ("machine", machine.clone()),
        ("local", local.map(|local| local.to_string())),
        ("after", after.clone()),
    ];
    with_query("/v1/watch".to_owned(), pairs)
}

/// `target` with the query of those pairs that have a value.
fn with_query(target: String, pairs: impl IntoIterator<Item = (&'static str, Option<String>)>) -> String {
    let pairs: Vec<_> =
        pairs.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(&value?)))).collect();
    if pairs.is_empty() { target } else { format!("{target}?{}", pairs.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_all_but_unreserved_characters() {
        assert_eq!(encode("odin-PS-8f4a2b"), "odin-PS-8f4a2b");
        assert_eq!(encode("a/b?c=d&e f%ä~._"), "a%2Fb%3Fc%3Dd%26e%20f%25%C3%A4~._");
    }

    #[test]
    fn escapes_the_values_of_a_query() {
        let query = ListQuery { project: Some("a&b".into()), active_only: Some(true), ..ListQuery::default() };
        assert_eq!(sessions(&query), "/v1/sessions?project=a%26b&active_only=true");
        assert_eq!(sessions(&ListQuery::default()), "/v1/sessions");
    }
}
