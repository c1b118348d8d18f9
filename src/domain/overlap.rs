//! Sessions that may get in each other's way: live ones in one working tree, on one branch or on one epic.
//!
//! Working trees are compared on one machine only, branches of one repository on any. Working trees of one repository on
//! different branches do not overlap. What is shared is said once, by the closest thing: sessions that share a working
//! tree share its branch too.

use std::collections::{BTreeMap, BTreeSet};

use super::{InstanceId, Session, WorkSummary};

/// What sessions share, the closest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SharedPlace {
    /// A working tree on one machine.
    Worktree,
    /// A branch of one repository, on any machine.
    Branch,
    /// An epic of one project.
    Epic,
}

impl SharedPlace {
    /// The name in JSON and in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Worktree => "worktree",
            Self::Branch => "branch",
            Self::Epic => "epic",
        }
    }
}

/// Two or more live sessions that share a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// What they share.
    pub kind: SharedPlace,
    /// Which one, as text: `odin3:/srv/app`, `github.com/team/app main`, `odin 003`.
    pub place: String,
    /// In the order of their ids.
    pub sessions: BTreeSet<InstanceId>,
}

/// The overlaps of sessions that are all active.
pub fn overlaps<'a>(live: impl IntoIterator<Item = (&'a Session, Option<&'a WorkSummary>)>) -> Vec<Overlap> {
    let mut places: BTreeMap<(SharedPlace, String), BTreeSet<InstanceId>> = BTreeMap::new();
    for (session, work) in live {
        for place in shared_places(session, work) {
            places.entry(place).or_default().insert(session.instance_id.clone());
        }
    }
    let mut found: Vec<Overlap> = Vec::new();
    // At most one of each kind for a session, so that the search stays short.
    let mut of_session: BTreeMap<InstanceId, Vec<usize>> = BTreeMap::new();
    for ((kind, place), sessions) in places.into_iter().filter(|(_, sessions)| sessions.len() > 1) {
        let closer = sessions.first().and_then(|id| of_session.get(id)).into_iter().flatten();
        let is_known = closer.map(|index| &found[*index]).any(|c| c.kind < kind && sessions.is_subset(&c.sessions));
        if !is_known {
            sessions.iter().for_each(|id| of_session.entry(id.clone()).or_default().push(found.len()));
            found.push(Overlap { kind, place, sessions });
        }
    }
    found
}

fn shared_places(session: &Session, work: Option<&WorkSummary>) -> impl Iterator<Item = (SharedPlace, String)> {
    let worktree = work.and_then(|work| Some(format!("{}:{}", session.host_machine, work.worktree.as_deref()?)));
    let branch = work.and_then(|work| Some(format!("{} {}", work.repository.as_deref()?, work.branch.as_deref()?)));
    let epic = session.current_epic.as_deref().map(|epic| format!("{} {epic}", session.project));
    let places = [(SharedPlace::Worktree, worktree), (SharedPlace::Branch, branch), (SharedPlace::Epic, epic)];
    places.into_iter().filter_map(|(kind, place)| Some((kind, place?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{InstanceType, MachineName, Project, Registration, Timestamp};

    fn session(id: &str, machine: &str, epic: Option<&str>) -> Session {
        let what = Registration {
            project: Project::parse("odin").unwrap(),
            instance_type: InstanceType::Ps,
            host_machine: MachineName::parse(machine).unwrap(),
            context_percent: 0,
            current_epic: epic.map(str::to_owned),
            claude_session_uuid: None,
            claude_session_path: None,
            resumed_from: None,
            working_dir: None,
        };
        Session::register(InstanceId::parse(&format!("odin-PS-{id}")).unwrap(), what, Timestamp::from_micros(0))
    }

    fn at(worktree: &str, branch: Option<&str>) -> WorkSummary {
        WorkSummary {
            repository: Some("github.com/team/app".into()),
            worktree: Some(worktree.into()),
            branch: branch.map(str::to_owned),
            ..WorkSummary::default()
        }
    }

    fn found(live: &[(Session, Option<WorkSummary>)]) -> Vec<String> {
        let overlaps = overlaps(live.iter().map(|(session, work)| (session, work.as_ref())));
        let ids = |overlap: &Overlap| overlap.sessions.iter().map(|id| id.as_str()[8..].to_owned()).collect::<Vec<_>>();
        overlaps.iter().map(|o| format!("{} {}: {}", o.kind.as_str(), o.place, ids(o).join(" "))).collect()
    }

    #[test]
    fn the_closest_shared_place_is_named_once() {
        let live = [
            (session("aaaaaa", "odin3", Some("003")), Some(at("/srv/app", Some("main")))),
            (session("bbbbbb", "odin3", Some("003")), Some(at("/srv/app", Some("main")))),
            (session("cccccc", "odin4", None), Some(at("/srv/app", Some("main")))),
        ];
        assert_eq!(
            found(&live),
            ["worktree odin3:/srv/app: aaaaaa bbbbbb", "branch github.com/team/app main: aaaaaa bbbbbb cccccc"]
        );
    }

    #[test]
    fn worktrees_on_different_branches_do_not_overlap() {
        let live = [
            (session("aaaaaa", "odin3", None), Some(at("/srv/app", Some("main")))),
            (session("bbbbbb", "odin3", Some("003")), Some(at("/srv/app-2", Some("fix")))),
            (session("cccccc", "odin4", None), Some(at("/srv/app", None))),
            (session("dddddd", "odin4", None), None),
        ];
        assert_eq!(found(&live), Vec::<String>::new());
    }

    #[test]
    fn sessions_on_one_epic_overlap_on_any_machine() {
        let live = [
            (session("aaaaaa", "odin3", Some("003")), None),
            (session("bbbbbb", "odin4", Some("003")), None),
            (session("cccccc", "odin4", Some("004")), None),
        ];
        assert_eq!(found(&live), ["epic odin 003: aaaaaa bbbbbb"]);
    }
}
