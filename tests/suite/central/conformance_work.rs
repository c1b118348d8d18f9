//! The conformance suite's cases for what sessions do and work on.

use std::time::Duration;

use sessiond::domain::activity::{Activity, ActivitySource, ActivityState, WaitingFor};
use sessiond::domain::activity_history::ActivityChange;
use sessiond::domain::agent::{AgentKind, AgentName};
use sessiond::domain::mirror::{Continuation, PageSize, PullQuery};
use sessiond::domain::work::{WorkSnapshot, WorkUpdate};
use sessiond::domain::{SessionWork, TimedSession, Timestamp};
use sessiond::sync::central::{Batch, Central, RowOutcome};

use super::conformance::{World, host, session, whole};

const HOUR: Duration = Duration::from_secs(3600);
const ID: &str = "odin-PS-aaaaaa";

/// Runs every case, each in a world of its own.
pub async fn all<W: World>(fresh: impl Fn() -> W) {
    work_travels_with_its_session(fresh()).await;
    older_work_never_replaces_newer_work(fresh()).await;
    work_is_deleted_with_its_session(fresh()).await;
    work_of_a_colliding_session_is_not_written(fresh()).await;
    small_pages_bring_all_work(fresh()).await;
    changes_of_activity_travel_with_the_work_and_are_only_added(fresh()).await;
}

/// A session with work that was recorded at `at`, with this prompt.
fn working(id: &str, on: &str, created: Timestamp, (at, prompt): (Timestamp, &str)) -> TimedSession {
    let mut timed = whole(&session(id, on, created));
    let mut snapshot = WorkSnapshot::default();
    snapshot.apply(WorkUpdate { prompt: Some(prompt.to_owned()), cost_usd: Some(0.5), ..WorkUpdate::default() }, at);
    timed.work = Some(Box::new(SessionWork {
        instance_id: timed.session.instance_id.clone(),
        activity: Some(Activity {
            state: ActivityState::Waiting,
            waiting_for: Some(WaitingFor::Permission),
            detail: Some("Bash \"'{}".into()),
            since: at,
            source: ActivitySource::Hook,
        }),
        activity_ended: prompt == "ended",
        kind: Some(AgentKind::Interactive),
        agent: Some(AgentName::Codex),
        snapshot,
        recorded_at: at,
        changes: Vec::new(),
    }));
    timed
}

/// Pushes sessions one after the other as a host, each in a batch of its own.
async fn push<C: Central>(link: &mut C, name: &str, number: u128, sessions: &[TimedSession]) -> Vec<RowOutcome> {
    let mut batch = link.handshake(&host(name, number)).await.unwrap().batch;
    let mut outcomes = Vec::new();
    for session in sessions {
        let sent = Batch { after: batch, number: batch + 1, sessions: std::slice::from_ref(session), records: &[] };
        outcomes.extend(link.push(sent).await.unwrap());
        batch += 1;
    }
    outcomes
}

/// All work that changed since then, as another host reads it, and where its next reading begins.
async fn pulled<C: Central>(link: &mut C, since: u64, page: PageSize) -> (Vec<SessionWork>, u64) {
    link.handshake(&host("laptop", 9)).await.unwrap();
    let mut reading = PullQuery { page, ..PullQuery::since(since) };
    let mut work = Vec::new();
    loop {
        let changes = link.pull(&reading).await.unwrap();
        work.extend(changes.work);
        match changes.rest {
            Continuation::More(position) => reading.after = Some(position),
            Continuation::Complete { next_since } => return (work, next_since),
            Continuation::Restart => panic!("central was not restored"),
        }
    }
}

async fn work_travels_with_its_session<W: World>(world: W) {
    let then = world.now().minus(HOUR);
    let sent = working(ID, "odin3", then, (then, "Fix it\nnow"));
    let mut link = world.link();
    assert_eq!(push(&mut link, "odin3", 1, std::slice::from_ref(&sent)).await, [RowOutcome::Stored]);
    let (read, next) = pulled(&mut world.link(), 0, PageSize::LARGEST).await;
    assert_eq!(read, [*sent.work.clone().unwrap()]);
    let (unchanged, _) = pulled(&mut world.link(), next, PageSize::LARGEST).await;
    assert_eq!(unchanged, []);

    let later = working(ID, "odin3", then, (then.plus(HOUR / 2), "ended"));
    push(&mut link, "odin3", 1, std::slice::from_ref(&later)).await;
    let (changed, _) = pulled(&mut world.link(), next, PageSize::LARGEST).await;
    assert_eq!(changed, [*later.work.clone().unwrap()]);
    link.handshake(&host("odin3", 1)).await.unwrap();
    let own = link.pull(&PullQuery::since(next)).await.unwrap();
    assert_eq!(own.work, [], "a host does not read what it wrote");
}

async fn older_work_never_replaces_newer_work<W: World>(world: W) {
    let then = world.now().minus(HOUR);
    let [old, new] = [(then, "old"), (then.plus(HOUR / 2), "new")].map(|work| working(ID, "odin3", then, work));
    push(&mut world.link(), "odin3", 1, &[new.clone(), old]).await;
    assert_eq!(pulled(&mut world.link(), 0, PageSize::LARGEST).await.0, [*new.work.unwrap()]);
    // From a clock that was ahead: the time is cut, so that later work replaces it.
    let future = working(ID, "odin3", then, (world.now().plus(HOUR), "future"));
    let next = working(ID, "odin3", then, (world.now().plus(HOUR), "next"));
    push(&mut world.link(), "odin3", 1, &[future, next]).await;
    let (read, _) = pulled(&mut world.link(), 0, PageSize::LARGEST).await;
    assert_eq!(read[0].snapshot.last_prompt.as_ref().unwrap().value, "next");
    assert!(read[0].recorded_at <= world.now(), "{:?}", read[0]);
}

async fn work_is_deleted_with_its_session<W: World>(world: W) {
    let then = world.now().minus(HOUR);
    push(&mut world.link(), "odin3", 1, &[working(ID, "odin3", then, (then, "old"))]).await;
    world.delete(ID);
    world.put(&session(ID, "odin3", then));
    assert_eq!(pulled(&mut world.link(), 0, PageSize::LARGEST).await.0, []);
}

async fn work_of_a_colliding_session_is_not_written<W: World>(world: W) {
    let then = world.now().minus(HOUR);
    world.put(&session(ID, "odin4", then));
    let mine = working(ID, "odin3", then.plus(HOUR / 2), (then, "mine"));
    assert_eq!(push(&mut world.link(), "odin3", 1, &[mine]).await, [RowOutcome::IdCollision]);
    assert_eq!(pulled(&mut world.link(), 0, PageSize::LARGEST).await.0, []);
}

async fn small_pages_bring_all_work<W: World>(world: W) {
    let then = world.now().minus(HOUR);
    let ids: Vec<_> = (0..5).map(|n| format!("odin-PS-00000{n}")).collect();
    let sent: Vec<_> = ids.iter().map(|id| working(id, "odin3", then, (then, "p"))).collect();
    push(&mut world.link(), "odin3", 1, &sent).await;
    for since in [0, 1] {
        let (mut read, _) = pulled(&mut world.link(), since, PageSize::SMALLEST).await;
        read.sort_by(|a, b| a.instance_id.cmp(&b.instance_id));
        assert_eq!(read.iter().map(|work| work.instance_id.as_str()).collect::<Vec<_>>(), ids);
    }
}

async fn changes_of_activity_travel_with_the_work_and_are_only_added<W: World>(world: W) {
    let then = world.now().minus(HOUR);
    let change = |minute: u32, activity| ActivityChange {
        at: then.plus(HOUR / 60 * minute),
        activity,
        waiting_for: None,
        detail: Some("Bash \"'{}".into()),
        context_percent: 7,
    };
    let with = |minute: u32, changes: Vec<ActivityChange>| {
        let mut timed = working(ID, "odin3", then, (then.plus(HOUR / 60 * minute), "p"));
        timed.work.as_mut().unwrap().changes = changes;
        timed
    };
    let (first, second) = (change(1, Some(ActivityState::Working)), change(2, None));
    let third = change(3, Some(ActivityState::Idle));
    let mut link = world.link();
    push(&mut link, "odin3", 1, &[with(1, vec![second.clone(), first.clone()])]).await;
    let in_order = |mut work: Vec<SessionWork>| {
        let mut changes: Vec<_> = work.drain(..).flat_map(|work| work.changes).collect();
        changes.sort_by_key(|change| change.at);
        changes
    };
    let (read, next) = pulled(&mut world.link(), 0, PageSize::LARGEST).await;
    assert_eq!(in_order(read), [first.clone(), second.clone()]);
    // One that is pushed again, as after a lost answer, is what it was.
    let again = ActivityChange { context_percent: 9, ..second.clone() };
    push(&mut link, "odin3", 1, &[with(3, vec![third.clone(), again])]).await;
    let (read, _) = pulled(&mut world.link(), next, PageSize::LARGEST).await;
    assert_eq!(in_order(read), std::slice::from_ref(&third), "only what is new");
    assert_eq!(in_order(pulled(&mut world.link(), 0, PageSize::LARGEST).await.0), [first, second, third]);
}
