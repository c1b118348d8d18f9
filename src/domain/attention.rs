//! Which sessions need their user first.
//!
//! The one order of `list`, `top` and the web page: by what a session needs ([`Need`]), then by how long it has needed it.
//! A session that waited when its process died is stale: nothing waits for an answer any more.

use std::fmt;

use super::{Status, Timestamp, activity::ActivityState};

/// What a session needs of its user, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// It waits for an answer or a permission.
    Waiting,
    /// Its turn ended with an error.
    Failed,
    /// It is done, and may be given the next task.
    Idle,
    /// It works.
    Working,
    /// It is active, but nothing reports what it does.
    Active,
    /// It has no heartbeat any more.
    Stale,
    /// It was closed.
    Closed,
}

impl Need {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 7] =
        [Self::Waiting, Self::Failed, Self::Idle, Self::Working, Self::Active, Self::Stale, Self::Closed];

    /// The need of a session with this status and activity, by their names in JSON. Only an active session has an activity;
    /// a status that is not known counts as stale.
    pub fn of(status: &str, activity: Option<&str>) -> Self {
        match Status::parse(status) {
            Ok(Status::Closed) => Self::Closed,
            Ok(Status::Stale) | Err(_) => Self::Stale,
            Ok(Status::Active) => match activity.map(ActivityState::parse) {
                Some(Ok(ActivityState::Waiting)) => Self::Waiting,
                Some(Ok(ActivityState::Failed)) => Self::Failed,
                Some(Ok(ActivityState::Idle)) => Self::Idle,
                Some(Ok(ActivityState::Working)) => Self::Working,
                Some(Err(_)) | None => Self::Active,
            },
        }
    }

    /// The name in output: that of the activity, or else that of the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Idle => "idle",
            Self::Working => "working",
            Self::Active => "active",
            Self::Stale => "stale",
            Self::Closed => "closed",
        }
    }
}

/// The position of a session in the order of attention: less is earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attention {
    /// What it needs.
    pub need: Need,
    rank: i64,
}

impl Attention {
    /// The position of a session that has needed this `since`. The longest need comes first; of sessions that need nothing
    /// (stale and closed ones) the newest heartbeat. One whose begin is not known comes after the others of its need.
    pub fn new(need: Need, since: Option<Timestamp>, heartbeat: Option<Timestamp>) -> Self {
        let rank = match need {
            // Reverses the order, without an overflow.
            Need::Stale | Need::Closed => !heartbeat.map_or(i64::MIN, Timestamp::micros),
            _ => since.map_or(i64::MAX, Timestamp::micros),
        };
        Self { need, rank }
    }
}

/// The order of a list of sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SortKey {
    /// What needs its user first.
    #[default]
    Attention,
    /// By project, most recent heartbeat first.
    Project,
    /// Most recent heartbeat first.
    Heartbeat,
    /// By machine, what needs its user first.
    Machine,
    /// Fullest context window first.
    Context,
    /// By id.
    Id,
}

/// What decides the position of a session in a list.
#[derive(Clone, Copy, Debug)]
pub struct SortFields<'a> {
    /// Its position in the order of attention.
    pub attention: Attention,
    /// Its newest heartbeat.
    pub heartbeat: Option<Timestamp>,
    /// Its project.
    pub project: &'a str,
    /// Its machine.
    pub machine: &'a str,
    /// How much of its context window is used.
    pub context_percent: u8,
    /// Its id, which decides between sessions that are alike.
    pub instance_id: &'a str,
}

/// The position of a session in a list: less is earlier. Only positions of one [`SortKey`] can be compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SortPosition {
    name: String,
    number: i64,
    attention: Option<Attention>,
    instance_id: String,
}

impl SortKey {
    /// All of them, the default one first.
    pub const ALL: [Self; 6] =
        [Self::Attention, Self::Project, Self::Heartbeat, Self::Machine, Self::Context, Self::Id];

    /// The name in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::Project => "project",
            Self::Heartbeat => "heartbeat",
            Self::Machine => "machine",
            Self::Context => "context",
            Self::Id => "id",
        }
    }

    /// The position of a session in this order.
    pub fn position(self, session: &SortFields<'_>) -> SortPosition {
        let newest_first = !session.heartbeat.map_or(i64::MIN, Timestamp::micros);
        let (name, number, attention) = match self {
            Self::Attention => ("", 0, Some(session.attention)),
            Self::Project => (session.project, newest_first, None),
            Self::Heartbeat => ("", newest_first, None),
            Self::Machine => (session.machine, 0, Some(session.attention)),
            Self::Context => ("", -i64::from(session.context_percent), Some(session.attention)),
            Self::Id => ("", 0, None),
        };
        SortPosition { name: name.to_owned(), number, attention, instance_id: session.instance_id.to_owned() }
    }
}

/// How many sessions have each need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeedCounts([u64; Need::ALL.len()]);

impl NeedCounts {
    /// Counts one more.
    pub const fn add(&mut self, need: Need) {
        self.0[need as usize] += 1;
    }

    /// How many have this need.
    pub const fn get(&self, need: Need) -> u64 {
        self.0[need as usize]
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The needs of at least one session, the most urgent first.
    pub fn present(&self) -> impl Iterator<Item = (Need, u64)> + '_ {
        Need::ALL.into_iter().map(|need| (need, self.get(need))).filter(|(_, n)| *n > 0)
    }
}

impl FromIterator<Need> for NeedCounts {
    fn from_iter<I: IntoIterator<Item = Need>>(needs: I) -> Self {
        let mut counts = Self::default();
        needs.into_iter().for_each(|need| counts.add(need));
        counts
    }
}

/// `2 waiting, 1 working`; empty without sessions.
impl fmt::Display for NeedCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (need, n)) in self.present().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{n} {}", need.as_str())?;
        }
        Ok(())
    }
}

/// Sessions of one machine, or of one project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The machine or the project.
    pub name: String,
    /// The positions of its sessions in what was grouped, in that order.
    pub members: Vec<usize>,
    /// Its sessions by need.
    pub counts: NeedCounts,
}

/// Groups sessions, each given by the name of its group and its need. The group whose session comes first is the first, so
/// the order of the sessions decides that of the groups.
pub fn groups<'a>(sessions: impl IntoIterator<Item = (&'a str, Need)>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut positions = std::collections::HashMap::new();
    for (index, (name, need)) in sessions.into_iter().enumerate() {
        let position = *positions.entry(name).or_insert_with(|| {
            groups.push(Group { name: name.to_owned(), members: Vec::new(), counts: NeedCounts::default() });
            groups.len() - 1
        });
        groups[position].members.push(index);
        groups[position].counts.add(need);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(micros: i64) -> Option<Timestamp> {
        Some(Timestamp::from_micros(micros))
    }

    fn needs() -> impl Strategy<Value = Need> {
        (0..Need::ALL.len()).prop_map(|index| Need::ALL[index])
    }

    #[test]
    fn needs_are_those_of_status_and_activity() {
        for (status, activity, need) in [
            ("active", Some("waiting"), Need::Waiting),
            ("active", Some("failed"), Need::Failed),
            ("active", Some("idle"), Need::Idle),
            ("active", Some("working"), Need::Working),
            ("active", Some("dancing"), Need::Active),
            ("active", None, Need::Active),
            ("stale", Some("waiting"), Need::Stale),
            ("closed", Some("failed"), Need::Closed),
            ("lost", None, Need::Stale),
        ] {
            assert_eq!(Need::of(status, activity), need, "{status} {activity:?}");
        }
    }

    #[test]
    fn longest_wait_is_first_and_newest_heartbeat_of_those_that_need_nothing() {
        let waits = |since| Attention::new(Need::Waiting, since, at(0));
        assert!(waits(at(1)) < waits(at(2)) && waits(at(2)) < waits(None));
        let stale = |heartbeat| Attention::new(Need::Stale, at(0), heartbeat);
        assert!(stale(at(2)) < stale(at(1)) && stale(at(1)) < stale(None));
        assert!(waits(None) < Attention::new(Need::Failed, at(i64::MIN), at(0)));
    }

    #[test]
    fn each_key_sorts_by_what_it_names() {
        let session = |instance_id, project, machine, context_percent, heartbeat, need| SortFields {
            attention: Attention::new(need, None, at(heartbeat)),
            heartbeat: at(heartbeat),
            project,
            machine,
            context_percent,
            instance_id,
        };
        let sessions = [
            session("a", "odin", "x", 10, 3, Need::Working),
            session("b", "atlas", "y", 20, 2, Need::Waiting),
            session("c", "odin", "x", 20, 1, Need::Idle),
        ];
        for (key, order) in [
            (SortKey::Attention, "bca"),
            (SortKey::Project, "bac"),
            (SortKey::Heartbeat, "abc"),
            (SortKey::Machine, "cab"),
            (SortKey::Context, "bca"),
            (SortKey::Id, "abc"),
        ] {
            let mut sorted = sessions.to_vec();
            sorted.sort_by_cached_key(|session| key.position(session));
            assert_eq!(sorted.iter().map(|session| session.instance_id).collect::<String>(), order, "{key:?}");
        }
    }

    #[test]
    fn counts_are_shown_by_need() {
        let counts: NeedCounts = [Need::Working, Need::Waiting, Need::Working, Need::Closed].into_iter().collect();
        assert_eq!(counts.to_string(), "1 waiting, 2 working, 1 closed");
        assert_eq!(NeedCounts::default().to_string(), "");
    }

    proptest! {
        #[test]
        fn need_decides_before_time(a in needs(), b in needs(), times in any::<[Option<i64>; 4]>()) {
            let [sa, sb, ha, hb] = times.map(|micros| micros.map(Timestamp::from_micros));
            let order = Attention::new(a, sa, ha).cmp(&Attention::new(b, sb, hb));
            if a != b {
                prop_assert_eq!(order, a.cmp(&b));
            }
        }

        #[test]
        fn every_session_is_in_one_group_and_counted_once(
            sessions in prop::collection::vec(("[a-c]", needs()), 0..40)
        ) {
            let groups = groups(sessions.iter().map(|(name, need)| (name.as_str(), *need)));
            let mut members: Vec<usize> = groups.iter().flat_map(|group| group.members.clone()).collect();
            members.sort_unstable();
            prop_assert_eq!(members, (0..sessions.len()).collect::<Vec<_>>());
            prop_assert!(groups.iter().map(|group| group.members[0]).is_sorted());
            for group in &groups {
                prop_assert!(group.members.iter().all(|index| sessions[*index].0 == group.name));
                prop_assert!(group.members.is_sorted());
                prop_assert_eq!(group.counts, group.members.iter().map(|index| sessions[*index].1).collect());
                prop_assert_eq!(group.counts.total(), group.members.len() as u64);
            }
        }
    }
}
