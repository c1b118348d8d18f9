//! The sessions of all machines as the daemon last reported them, in the order of attention.
//!
//! One row of a few hundred bytes for each open session, at most [`MAX_ROWS`]; a browser is given a window of them. Closed
//! sessions have no row: their page is asked of the daemon.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;

use crate::domain::Timestamp;
use crate::domain::attention::{Attention, Need, NeedCounts};
use crate::domain::text::safe_line;
use crate::wire::{MachineBody, SessionBody, StatusBody};

/// The most sessions that are kept; of more, those that need attention first.
const MAX_ROWS: usize = 100_000;
/// The most sessions of one window.
pub(super) const MAX_WINDOW: usize = 500;
/// The longest text of a row, in characters.
const MAX_TEXT: usize = 200;

/// What the page shows of a session in its list.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Row {
    instance_id: String,
    project: String,
    host_machine: String,
    /// By which the page chooses colour and symbol.
    need: &'static str,
    waiting_for: Option<String>,
    activity_detail: Option<String>,
    activity_since: Option<String>,
    title: Option<String>,
    branch: Option<String>,
    current_epic: Option<String>,
    agent: Option<String>,
    context_percent: u8,
    last_heartbeat: String,
    as_of: String,
    local: bool,
    /// False: its own machine may have a later state.
    machine_synced: bool,
    conflicts: usize,
    /// Its texts in lower case, in which the filter's words are searched.
    #[serde(skip)]
    texts: String,
}

impl Row {
    fn new(session: SessionBody, need: Need) -> Self {
        let safe = |text: Option<String>| text.map(|text| safe_line(text, MAX_TEXT));
        let mut row = Self {
            texts: String::new(),
            need: need.as_str(),
            instance_id: session.instance_id,
            project: session.project,
            host_machine: session.host_machine,
            waiting_for: session.waiting_for,
            activity_detail: safe(session.activity_detail),
            activity_since: session.activity_since,
            title: safe(session.title),
            branch: safe(session.branch),
            current_epic: safe(session.current_epic),
            agent: session.agent,
            context_percent: session.context_percent,
            last_heartbeat: session.last_heartbeat,
            as_of: session.as_of,
            local: session.local,
            machine_synced: session.machine_synced,
            conflicts: session.conflicts_with.len(),
        };
        let optional = [&row.title, &row.branch, &row.current_epic, &row.activity_detail];
        let texts =
            [&row.instance_id, &row.project, &row.host_machine].into_iter().chain(optional.into_iter().flatten());
        row.texts = texts.map(|text| text.to_lowercase()).collect::<Vec<_>>().join("\n");
        row
    }
}

/// Which sessions a browser shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    /// Words in lower case, all of which a session must have.
    pub words: Vec<String>,
    pub machine: Option<String>,
    pub need: Option<String>,
    pub offset: usize,
    pub limit: usize,
}

/// The link to the daemon, and the daemon's to central.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Link {
    pub online: bool,
    /// Why not.
    pub error: Option<String>,
    /// The time up to which everything here is known.
    pub as_of: String,
    pub machine: Option<String>,
    pub central: Option<String>,
    pub central_since: Option<String>,
    pub backlog: u64,
}

/// A machine's card.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Machine<'a> {
    host_machine: &'a str,
    is_here: bool,
    /// Null: not known.
    reachable: Option<bool>,
    last_seen: Option<&'a str>,
    headroom_percent: Option<f64>,
    counts: BTreeMap<&'static str, u64>,
}

/// What a browser is given.
#[derive(Debug, Serialize)]
pub(super) struct View<'a> {
    link: Link,
    actions: bool,
    counts: BTreeMap<&'static str, u64>,
    machines: Vec<Machine<'a>>,
    sessions: Vec<&'a Row>,
    /// How many sessions match; the window has some of them.
    matching: usize,
    offset: usize,
    total: usize,
    now: String,
}

/// The open sessions, in order.
#[derive(Debug, Default)]
pub(super) struct Rows {
    by_id: HashMap<String, (Attention, Row)>,
    order: BTreeSet<(Attention, String)>,
}

impl Rows {
    /// A session as it is now; one that is not open any more is removed.
    pub(super) fn apply(&mut self, session: SessionBody) {
        let id = session.instance_id.clone();
        self.remove(&id);
        if session.is_open_work() {
            let attention = session.attention();
            self.insert(id, (attention, Row::new(session, attention.need)));
        }
    }

    fn insert(&mut self, id: String, entry: (Attention, Row)) {
        self.order.insert((entry.0, id.clone()));
        self.by_id.insert(id, entry);
        if self.by_id.len() > MAX_ROWS
            && let Some((_, last)) = self.order.pop_last()
        {
            self.by_id.remove(&last);
        }
    }

    fn remove(&mut self, id: &str) -> Option<(Attention, Row)> {
        let entry = self.by_id.remove(id)?;
        self.order.remove(&(entry.0, id.to_owned()));
        Some(entry)
    }

    fn in_order(&self) -> impl Iterator<Item = &Row> {
        self.order.iter().filter_map(|(_, id)| self.by_id.get(id).map(|(_, row)| row))
    }
}

/// The sessions, and how current they are.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    rows: Rows,
    /// The sessions that changed since a listing began: what it says of them may be older.
    changed: Option<HashSet<String>>,
    machines: Vec<MachineBody>,
    status: Option<StatusBody>,
    /// The time up to which the state is known; none before the first answer.
    as_of: Option<Timestamp>,
    /// The daemon reports changes.
    is_watched: bool,
    /// Why the daemon does not answer; none while it does.
    error: Option<String>,
}

impl Fleet {
    pub(super) fn len(&self) -> usize {
        self.rows.by_id.len()
    }

    /// A session changed.
    pub(super) fn apply(&mut self, session: SessionBody) {
        if let Some(changed) = &mut self.changed {
            changed.insert(session.instance_id.clone());
        }
        self.rows.apply(session);
    }

    /// All sessions are being listed.
    pub(super) fn begin_listing(&mut self) {
        self.changed = Some(HashSet::new());
    }

    /// Replaces what is known by what was listed, except of sessions that changed meanwhile.
    pub(super) fn finish_listing(&mut self, mut listed: Rows) {
        for id in self.changed.take().unwrap_or_default() {
            listed.remove(&id);
            if let Some(entry) = self.rows.remove(&id) {
                listed.insert(id, entry);
            }
        }
        self.rows = listed;
    }

    /// The state of the daemon and of the machines, read at `now`. Says whether the page shows anything else than before.
    pub(super) fn set_overview(&mut self, status: StatusBody, machines: Vec<MachineBody>, now: Timestamp) -> bool {
        let shown = |fleet: &Self| (fleet.error.clone(), fleet.overview());
        let before = shown(self);
        let machines_changed = machines.iter().map(reach).ne(self.machines.iter().map(reach));
        (self.status, self.machines) = (Some(status), machines);
        if self.is_watched {
            (self.as_of, self.error) = (Some(now), None);
        }
        machines_changed || shown(self) != before
    }

    fn overview(&self) -> Option<(String, String, u64)> {
        let status = self.status.as_ref()?;
        let backlog = status.backlog.sessions + status.backlog.records;
        Some((status.machine.name.clone(), status.central.state.clone(), backlog))
    }

    /// The daemon reports changes, and did so at `now`.
    pub(super) fn set_watched(&mut self, now: Timestamp) {
        (self.is_watched, self.as_of, self.error) = (true, Some(now), None);
    }

    /// The daemon does not answer. `is_watched`: changes may still be reported. Says whether that is new.
    pub(super) fn set_lost(&mut self, error: String, is_watched: bool) -> bool {
        self.is_watched &= is_watched;
        self.error.replace(error).is_none()
    }

    fn link(&self, now: Timestamp) -> Link {
        let online = self.error.is_none() && self.as_of.is_some();
        let as_of = if online { now } else { self.as_of.unwrap_or(now) };
        let status = self.status.as_ref();
        Link {
            online,
            error: self.error.clone(),
            as_of: as_of.to_string(),
            machine: status.map(|status| status.machine.name.clone()),
            central: status.map(|status| status.central.state.clone()),
            central_since: status.map(|status| status.central.since.clone()),
            backlog: status.map_or(0, |status| status.backlog.sessions + status.backlog.records),
        }
    }

    /// The window of a browser. `actions`: whether it may change anything.
    pub(super) fn view(&self, window: &Window, actions: bool, now: Timestamp) -> View<'_> {
        let fits = |row: &&Row| {
            window.machine.as_ref().is_none_or(|machine| row.host_machine == *machine)
                && window.need.as_ref().is_none_or(|need| row.need == need)
                && window.words.iter().all(|word| row.texts.contains(word.as_str()))
        };
        let (mut sessions, mut matching) = (Vec::new(), 0);
        for row in self.rows.in_order().filter(fits) {
            if matching >= window.offset && sessions.len() < window.limit {
                sessions.push(row);
            }
            matching += 1;
        }
        let mut of_machines: BTreeMap<&str, NeedCounts> = BTreeMap::new();
        let mut counts = NeedCounts::default();
        for (attention, row) in self.rows.by_id.values() {
            counts.add(attention.need);
            of_machines.entry(&row.host_machine).or_default().add(attention.need);
        }
        let machines = self.machine_cards(&of_machines);
        let (total, offset) = (self.len(), window.offset);
        let (link, now) = (self.link(now), now.to_string());
        View { link, actions, counts: by_name(counts), machines, sessions, matching, offset, total, now }
    }

    fn machine_cards<'a>(&'a self, counts: &BTreeMap<&'a str, NeedCounts>) -> Vec<Machine<'a>> {
        let here = self.status.as_ref().map(|status| status.machine.name.as_str());
        let known: HashMap<&str, &MachineBody> = self.machines.iter().map(|m| (m.host_machine.as_str(), m)).collect();
        let mut names: Vec<&str> = known.keys().copied().chain(counts.keys().copied()).collect();
        names.sort_unstable_by_key(|name| (Some(*name) != here, *name));
        names.dedup();
        let card = |name: &'a str| {
            let machine = known.get(name).copied();
            let counts = counts.get(name).copied().unwrap_or_default();
            Machine {
                host_machine: name,
                is_here: Some(name) == here,
                reachable: machine.and_then(|machine| machine.reachable),
                last_seen: machine.and_then(|machine| machine.last_seen.as_deref()),
                headroom_percent: machine.and_then(|machine| machine.headroom_percent),
                counts: by_name(counts),
            }
        };
        // A machine without an open session has nothing to show, unless it is this one.
        let is_shown = |machine: &Machine<'_>| machine.is_here || !machine.counts.is_empty();
        names.into_iter().map(card).filter(is_shown).take(MAX_WINDOW).collect()
    }
}

/// What a card shows of a machine beside its sessions.
fn reach(machine: &MachineBody) -> (&str, Option<bool>) {
    (&machine.host_machine, machine.reachable)
}

fn by_name(counts: NeedCounts) -> BTreeMap<&'static str, u64> {
    counts.present().map(|(need, n)| (need.as_str(), n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: &str, activity: &str, title: &str) -> SessionBody {
        let at = "2026-01-30T12:00:00.000000Z";
        let status = if activity == "closed" { "closed" } else { "active" };
        let session = serde_json::json!({"instance_id": id, "project": "odin", "instance_type": "PS", "status": status,
            "context_percent": 3, "current_epic": null, "last_heartbeat": at, "created_at": at, "closed_at": null,
            "host_machine": "odin3", "claude_session_uuid": null, "claude_session_path": null, "age_seconds": 1,
            "local": true, "as_of": at, "synced": true, "activity": activity, "activity_since": at, "title": title});
        serde_json::from_value(session).unwrap()
    }

    fn ids(fleet: &Fleet, window: &Window) -> Vec<String> {
        let view = fleet.view(window, false, Timestamp::from_micros(0));
        view.sessions.iter().map(|row| row.instance_id.clone()).collect()
    }

    #[test]
    fn a_window_is_in_the_order_of_attention_and_has_all_words() {
        let mut fleet = Fleet::default();
        for (id, activity) in [("a", "working"), ("b", "idle"), ("c", "waiting"), ("d", "closed")] {
            fleet.apply(session(id, activity, "Fix the Login"));
        }
        let all = Window { limit: 10, ..Window::default() };
        assert_eq!(ids(&fleet, &all), ["c", "b", "a"]);
        assert_eq!(ids(&fleet, &Window { offset: 1, limit: 1, ..Window::default() }), ["b"]);
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        assert_eq!(ids(&fleet, &Window { words: words(&["login", "odin"]), ..all.clone() }).len(), 3);
        assert_eq!(ids(&fleet, &Window { words: words(&["login", "none"]), ..all.clone() }).len(), 0);
        assert_eq!(ids(&fleet, &Window { need: Some("idle".to_owned()), ..all.clone() }), ["b"]);
        fleet.apply(session("c", "closed", ""));
        assert_eq!(ids(&fleet, &all), ["b", "a"]);
    }

    #[test]
    fn a_change_during_a_listing_is_not_undone_by_it() {
        let mut fleet = Fleet::default();
        fleet.apply(session("a", "working", ""));
        fleet.begin_listing();
        let mut listed = Rows::default();
        for id in ["a", "b", "c"] {
            listed.apply(session(id, "working", ""));
        }
        fleet.apply(session("a", "waiting", ""));
        fleet.apply(session("c", "closed", ""));
        fleet.finish_listing(listed);
        let all = Window { limit: 10, ..Window::default() };
        assert_eq!(ids(&fleet, &all), ["a", "b"]);
        assert_eq!(ids(&fleet, &Window { need: Some("waiting".to_owned()), ..all }), ["a"]);
    }

    #[test]
    fn of_too_many_sessions_those_that_need_attention_stay() {
        let mut fleet = Fleet::default();
        for number in 0..=MAX_ROWS {
            fleet.apply(session(&format!("w{number:06}"), "working", ""));
        }
        fleet.apply(session("q", "waiting", ""));
        assert_eq!(fleet.len(), MAX_ROWS);
        assert_eq!(ids(&fleet, &Window { limit: 1, ..Window::default() }), ["q"]);
    }
}
