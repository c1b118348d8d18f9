//! Sessions at one place: what the indexes find is what the rule of `domain::overlap` says.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::domain::overlap::overlaps;
use crate::domain::work::{Repository, WorkUpdate};

const EPICS: [Option<&str>; 3] = [None, Some("003"), Some("004")];
const BRANCHES: [Option<&str>; 3] = [None, Some("main"), Some("fix")];
const TREES: [&str; 3] = ["/srv/a", "/srv/b", "/srv/c"];

/// A number below `bound`, of a small generator: the same for each seed.
fn draw(state: &mut u64, bound: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize % bound
}

fn works_at(worktree: &str, branch: Option<&str>) -> WorkUpdate {
    let repository = Repository {
        name: "github.com/team/app".into(),
        worktree: Some(worktree.into()),
        branch: branch.map(str::to_owned),
        ..Repository::default()
    };
    WorkUpdate { repository: Some(repository), ..WorkUpdate::default() }
}

/// What the rule says of all active sessions.
async fn expected(store: &Store, second: i64) -> BTreeMap<InstanceId, BTreeSet<InstanceId>> {
    let filter = Filter { status: Some(Status::Active), ..Filter::default() };
    let live = store.list(filter, by(OWNER, at(second))).await.unwrap();
    let mut others: BTreeMap<InstanceId, BTreeSet<InstanceId>> = BTreeMap::new();
    for overlap in overlaps(live.iter().map(|record| (&record.session, record.work.as_deref()))) {
        for id in &overlap.sessions {
            let rest = overlap.sessions.iter().filter(|other| *other != id).cloned();
            others.entry(id.clone()).or_default().extend(rest);
        }
    }
    others
}

#[tokio::test]
async fn conflicts_are_what_the_rule_finds() {
    for seed in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let (store, _writer) = open(dir.path());
        let mut state = seed;
        let mut ids = Vec::new();
        for second in 0..60 {
            let now = at(second);
            match draw(&mut state, 5) {
                0 | 1 if ids.len() < 9 => {
                    let session = unregistered(EPICS[draw(&mut state, 3)]);
                    let record = store.register(session, seeded(second as u64 * 99 + seed, OWNER, now)).await.unwrap();
                    ids.push(record.session.instance_id);
                }
                _ if ids.is_empty() => {}
                2 => {
                    let id = ids[draw(&mut state, ids.len())].to_string();
                    let update = works_at(TREES[draw(&mut state, 3)], BRANCHES[draw(&mut state, 3)]);
                    _ = store.record_work(id, update, by(OWNER, now)).await;
                }
                3 => {
                    let epic = EPICS[draw(&mut state, 3)].map(str::to_owned);
                    let beat = Heartbeat { current_epic: Some(epic), ..Heartbeat::default() };
                    _ = store.heartbeat(ids[draw(&mut state, ids.len())].to_string(), beat, by(OWNER, now)).await;
                }
                _ if draw(&mut state, 4) == 0 => {
                    _ = store.close(ids[draw(&mut state, ids.len())].to_string(), by(OWNER, now)).await;
                }
                _ => {}
            }
        }
        let expected = expected(&store, 60).await;
        for id in &ids {
            let found = store.conflicts(only(&store, id).await, by(OWNER, at(60))).await.unwrap();
            let rule = expected.get(id).into_iter().flatten().cloned().collect::<Vec<_>>();
            assert_eq!(found, rule, "{id}, seed {seed}");
        }
        // A page names them too, those on other pages as well.
        let mut after = None;
        loop {
            let page = store.page(Filter::default(), 2, after, by(OWNER, at(60))).await.unwrap();
            for record in page.records {
                let rule = expected.get(&record.session.instance_id).into_iter().flatten().cloned().collect::<Vec<_>>();
                assert_eq!(record.conflicts, rule, "seed {seed}");
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
}

#[tokio::test]
async fn heartbeat_names_the_active_sessions_on_its_epic() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let mut ids = Vec::new();
    for seed in 1..=2 * MAX_CONFLICTS as u64 {
        let session = store.register(unregistered(Some("003")), seeded(seed * 7, OWNER, at(0))).await.unwrap();
        ids.push(session.session.instance_id);
    }
    let beat = |epic: Option<&str>, second| {
        let beat = Heartbeat { current_epic: Some(epic.map(str::to_owned)), ..Heartbeat::default() };
        store.heartbeat(ids[0].to_string(), beat, by(OWNER, at(second)))
    };
    assert_eq!(beat(Some("003"), 1).await.unwrap().conflicts.len(), MAX_CONFLICTS);
    assert_eq!(beat(Some("004"), 2).await.unwrap().conflicts, []);
    for id in &ids[2..] {
        store.close(id.to_string(), by(OWNER, at(3))).await.unwrap();
    }
    assert_eq!(beat(Some("003"), 4).await.unwrap().conflicts, [ids[1].clone()]);
    // The other one is silent since its start.
    assert_eq!(beat(Some("003"), 1 + STALE_AFTER.as_secs() as i64).await.unwrap().conflicts, []);
}
