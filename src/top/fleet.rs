//! What is known of all sessions and machines. Pure: the feed reports, the drawing reads.
//!
//! Rows are kept in the chosen order at each change, so that a frame sorts nothing.

use std::collections::{BTreeMap, HashMap};

use super::row::Row;
use crate::domain::Timestamp;
use crate::domain::attention::{Need, SortKey, SortPosition};
use crate::wire::{LimitBody, MachineBody, StatusBody};

/// What is asked for beside the sessions.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub status: StatusBody,
    pub limits: Vec<LimitBody>,
    pub machines: Vec<MachineBody>,
}

impl Facts {
    /// Whether what is known of this machine may be out of date: its daemon is silent, or nothing can be heard of it here.
    pub(super) fn is_away(&self, machine: &MachineBody) -> bool {
        let is_other = machine.host_machine != self.status.machine.name;
        machine.reachable == Some(false) || (is_other && self.has_no_link())
    }

    fn has_no_link(&self) -> bool {
        !matches!(self.status.central.state.as_str(), "connected" | "off")
    }
}

/// Whether the daemon answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DaemonLink {
    Connected,
    UnreachableSince(Timestamp),
}

/// How a change of a session matters beyond its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ChangeEffect {
    /// It began to wait or failed.
    pub is_alarm: bool,
    /// The header's counts may have changed.
    pub changes_counts: bool,
}

#[derive(Debug)]
pub(super) struct Fleet {
    rows: HashMap<String, Row>,
    order: BTreeMap<SortPosition, String>,
    sort: SortKey,
    shows_all: bool,
    pub facts: Option<Facts>,
    pub link: DaemonLink,
    /// Whether the sessions were listed.
    pub is_listed: bool,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            rows: HashMap::new(),
            order: BTreeMap::new(),
            sort: SortKey::default(),
            shows_all: false,
            facts: None,
            link: DaemonLink::Connected,
            is_listed: false,
        }
    }
}

impl Fleet {
    pub(super) fn get(&self, instance_id: &str) -> Option<&Row> {
        self.rows.get(instance_id)
    }

    /// The shown rows in order.
    pub(super) fn shown(&self) -> impl Iterator<Item = &Row> {
        self.order.values().filter_map(|id| self.rows.get(id))
    }

    pub(super) const fn sort(&self) -> SortKey {
        self.sort
    }

    pub(super) const fn shows_all(&self) -> bool {
        self.shows_all
    }

    /// Shows also closed sessions and prompts that ran by themselves, or not.
    pub(super) fn set_shows_all(&mut self, shows_all: bool) {
        self.shows_all = shows_all;
        self.sort_again();
    }

    pub(super) fn set_sort(&mut self, sort: SortKey) {
        self.sort = sort;
        self.sort_again();
    }

    /// Applies a change of one session.
    pub(super) fn apply(&mut self, mut row: Row) -> ChangeEffect {
        let mut effect = ChangeEffect { is_alarm: false, changes_counts: true };
        if let Some(mut before) = self.rows.remove(&row.instance_id) {
            self.order.remove(&before.position(self.sort));
            row.continue_trend(&mut before);
            effect.changes_counts = before.need() != row.need();
        }
        let is_alarming = matches!(row.need(), Need::Waiting | Need::Failed);
        effect.is_alarm = is_alarming && effect.changes_counts && row.is_open_work && self.is_listed;
        self.insert(row);
        effect
    }

    /// Replaces all sessions by those of a list.
    pub(super) fn replace(&mut self, rows: Vec<Row>) {
        let mut former = std::mem::take(&mut self.rows);
        self.order.clear();
        for mut row in rows {
            if let Some(before) = former.get_mut(&row.instance_id) {
                row.continue_trend(before);
            }
            self.insert(row);
        }
        self.is_listed = true;
    }

    fn insert(&mut self, row: Row) {
        if row.is_open_work || self.shows_all {
            self.order.insert(row.position(self.sort), row.instance_id.clone());
        }
        self.rows.insert(row.instance_id.clone(), row);
    }

    fn sort_again(&mut self) {
        let shown = self.rows.values().filter(|row| row.is_open_work || self.shows_all);
        self.order = shown.map(|row| (row.position(self.sort), row.instance_id.clone())).collect();
    }

    /// The machine of that name, if it is known.
    pub(super) fn machine(&self, name: &str) -> Option<&MachineBody> {
        self.facts.as_ref()?.machines.iter().find(|machine| machine.host_machine == name)
    }

    /// Whether the row's state may be older than what its machine has.
    pub(super) fn is_away(&self, row: &Row) -> bool {
        let is_away = |machine| self.facts.as_ref().is_some_and(|facts| facts.is_away(machine));
        !row.is_local && (!row.is_current || self.has_no_link() || self.machine(&row.machine).is_some_and(is_away))
    }

    /// When the session was last known to be alive: its heartbeat, or the newest contact of a daemon that vouches for it,
    /// which is no change of the session.
    pub(super) fn alive_at(&self, row: &Row) -> Option<Timestamp> {
        let contact = || Timestamp::parse(self.machine(&row.machine)?.last_seen.as_deref()?);
        row.heartbeat.max(row.vouched_at.map(|at| contact().map_or(at, |contact| contact.max(at))))
    }

    /// Whether this daemon has lost its link to central, and with it all other machines.
    fn has_no_link(&self) -> bool {
        self.facts.as_ref().is_some_and(Facts::has_no_link)
    }

    /// The other machines of which the daemon counts other active or stale sessions than these rows have: without central
    /// sessions turn stale by their age, which changes no row and is not announced.
    pub(super) fn differing_machines(&self, machines: &[MachineBody]) -> Vec<CountDifference> {
        let mut counts: HashMap<&str, (i64, i64)> = HashMap::new();
        for row in self.rows.values().filter(|row| !row.is_local) {
            let (active, stale) = counts.entry(&row.machine).or_default();
            match row.need() {
                Need::Closed => {}
                Need::Stale => *stale += 1,
                _ => *active += 1,
            }
        }
        let counted =
            machines.iter().filter_map(|m| Some((m.host_machine.as_str(), (m.active_sessions?, m.stale_sessions?))));
        let differs = |(name, counted): &(&str, _)| counts.get(name).is_some_and(|shown| shown != counted);
        counted
            .filter(differs)
            .map(|(name, counted)| CountDifference { machine: name.to_owned(), counted, shown: counts[name] })
            .collect()
    }

    /// Applies a list that was read while the watch runs: the rows of other machines that had no heartbeat since, but
    /// another status by now.
    pub(super) fn update_silent(&mut self, rows: Vec<Row>) {
        for row in rows.into_iter().filter(|row| !row.is_local) {
            let is_silent = self
                .rows
                .get(&row.instance_id)
                .is_some_and(|shown| shown.heartbeat == row.heartbeat && shown.need() != row.need());
            if is_silent {
                self.apply(row);
            }
        }
    }
}

/// A machine whose sessions the daemon counts in another way than the rows: active ones and stale ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CountDifference {
    machine: String,
    counted: (i64, i64),
    shown: (i64, i64),
}
