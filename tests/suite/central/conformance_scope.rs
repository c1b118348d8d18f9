//! The conformance suite's cases for scopes: what a host reads ahead, and what it asks for.

use std::time::Duration;

use sessiond::domain::mirror::{ChangePage, Continuation, PageSize, PullQuery};
use sessiond::domain::on_demand::{Found, Question};
use sessiond::domain::work::{WorkSnapshot, WorkUpdate};
use sessiond::domain::{
    Hint, HistoryRecord, InstanceId, MirrorScope, Project, RecordKind, Session, SessionWork, Status, TimedSession,
};
use sessiond::sync::central::{Batch, Central};
use uuid::Uuid;

use super::conformance::{World, host, session, whole};

const HOUR: Duration = Duration::from_secs(3600);

/// Runs every case, each in a world of its own.
pub async fn all<W: World>(fresh: impl Fn() -> W) {
    only_what_is_in_scope_is_read(fresh()).await;
    changes_out_of_scope_are_not_read(fresh()).await;
    session_leaves_the_scope_with_its_project(fresh()).await;
    session_enters_the_scope_with_its_work(fresh()).await;
    deletions_are_read_in_any_scope(fresh()).await;
    sessions_are_found_by_id_project_and_hint(fresh()).await;
    found_sessions_come_with_work(fresh()).await;
}

fn project(name: &str) -> Project {
    Project::parse(name).unwrap()
}

fn of(projects: &[&str]) -> MirrorScope {
    MirrorScope::of_projects(projects.iter().map(|name| project(name)).collect()).unwrap()
}

fn scopes() -> [MirrorScope; 4] {
    [MirrorScope::All, of(&["odin"]), of(&["odin", "web"]), MirrorScope::None]
}

/// Everything there is to read in a scope, page by page, and where the next reading begins.
async fn read<C: Central>(link: &mut C, since: u64, scope: &MirrorScope, page: PageSize) -> (ChangePage, u64) {
    let mut reading = PullQuery { scope: scope.clone(), page, ..PullQuery::since(since) };
    let mut all = ChangePage::default();
    loop {
        let changes = link.pull(&reading).await.unwrap();
        all.sessions.extend(changes.sessions);
        all.gone.extend(changes.gone);
        all.work.extend(changes.work);
        match changes.rest {
            Continuation::More(position) => reading.after = Some(position),
            Continuation::Complete { next_since } => return (all, next_since),
            Continuation::Restart => panic!("central was not restored"),
        }
    }
}

fn ids(page: &ChangePage) -> Vec<&str> {
    let mut ids: Vec<_> = page.sessions.iter().map(|session| session.instance_id.as_str()).collect();
    ids.sort_unstable();
    ids
}

fn gone(page: &ChangePage) -> Vec<&str> {
    let mut ids: Vec<_> = page.gone.iter().map(|gone| gone.instance_id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Sessions of three projects, and one of this host's own machine in a project of its own.
fn put_some<W: World>(world: &W) {
    let then = world.now().minus(HOUR);
    for id in ["odin-PS-00000a", "web-PS-00000b", "web-PS-00000c", "api-PS-00000d"] {
        world.put(&session(id, "odin4", then));
    }
    world.put(&session("own-PS-00000e", "laptop", then));
}

async fn only_what_is_in_scope_is_read<W: World>(world: W) {
    put_some(&world);
    let mut laptop = world.link();
    laptop.handshake(&host("laptop", 9)).await.unwrap();
    for page in [PageSize::LARGEST, PageSize::SMALLEST] {
        for scope in scopes() {
            let (read, _) = read(&mut laptop, 0, &scope, page).await;
            let rows = world.rows();
            let is_wanted = |row: &&Session| scope.includes(&row.project) || row.host_machine.as_str() == "laptop";
            let wanted: Vec<_> = rows.iter().filter(is_wanted).map(|row| row.instance_id.as_str()).collect();
            assert_eq!(ids(&read), wanted, "{scope}");
            assert_eq!(gone(&read), [] as [&str; 0], "{scope}");
        }
    }
}

async fn changes_out_of_scope_are_not_read<W: World>(world: W) {
    put_some(&world);
    let mut laptop = world.link();
    laptop.handshake(&host("laptop", 9)).await.unwrap();
    for scope in scopes() {
        let (_, since) = read(&mut laptop, 0, &scope, PageSize::LARGEST).await;
        for id in ["odin-PS-00000a", "web-PS-00000b", "own-PS-00000e"] {
            world.edit(id, sessiond::domain::SharedColumn::CurrentEpic, &format!("e-{scope}"));
        }
        let (changed, since) = read(&mut laptop, since, &scope, PageSize::SMALLEST).await;
        let mut wanted = vec!["own-PS-00000e"];
        wanted.extend(
            ["odin-PS-00000a", "web-PS-00000b"]
                .into_iter()
                .filter(|id| scope.includes(&project(id.split('-').next().unwrap()))),
        );
        wanted.sort_unstable();
        assert_eq!(ids(&changed), wanted, "{scope}");
        assert_eq!(gone(&changed), [] as [&str; 0], "{scope}: they were never in it");
        let (again, _) = read(&mut laptop, since, &scope, PageSize::LARGEST).await;
        assert!(again.is_empty(), "{scope}: {again:?}");
    }
}

async fn session_leaves_the_scope_with_its_project<W: World>(world: W) {
    put_some(&world);
    let mut laptop = world.link();
    laptop.handshake(&host("laptop", 9)).await.unwrap();
    let scope = of(&["web"]);
    let (_, since) = read(&mut laptop, 0, &scope, PageSize::LARGEST).await;
    world.move_to("web-PS-00000b", "api");
    // The row is replaced.
    let then = world.now().minus(HOUR);
    world.put(&Session { project: project("api"), ..session("web-PS-00000c", "odin4", then) });
    world.move_to("own-PS-00000e", "api");
    for page in [PageSize::LARGEST, PageSize::SMALLEST] {
        let (changed, _) = read(&mut laptop, since, &scope, page).await;
        assert_eq!(ids(&changed), ["own-PS-00000e"], "what is this host's own stays in scope");
        assert_eq!(gone(&changed), ["web-PS-00000b", "web-PS-00000c"]);
        let (all, _) = read(&mut laptop, since, &MirrorScope::All, page).await;
        assert_eq!(ids(&all), ["own-PS-00000e", "web-PS-00000b", "web-PS-00000c"]);
    }
}

fn working(session: &Session, prompt: &str) -> TimedSession {
    let mut timed = whole(session);
    let mut snapshot = WorkSnapshot::default();
    snapshot.apply(WorkUpdate { prompt: Some(prompt.to_owned()), ..WorkUpdate::default() }, session.created_at);
    timed.work = Some(Box::new(SessionWork {
        instance_id: session.instance_id.clone(),
        activity: None,
        activity_ended: false,
        kind: None,
        agent: None,
        snapshot,
        recorded_at: session.created_at,
        changes: Vec::new(),
    }));
    timed
}

async fn push<W: World>(world: &W, sessions: &[TimedSession], records: &[HistoryRecord]) {
    let mut odin = world.link();
    let after = odin.handshake(&host("odin3", 1)).await.unwrap().batch;
    odin.push(Batch { after, number: after + 1, sessions, records }).await.unwrap();
}

async fn session_enters_the_scope_with_its_work<W: World>(world: W) {
    let then = world.now().minus(HOUR);
    let [api, web] = ["api-PS-00000a", "web-PS-00000b"].map(|id| working(&session(id, "odin3", then), id));
    push(&world, &[api.clone(), web.clone()], &[]).await;
    let mut laptop = world.link();
    laptop.handshake(&host("laptop", 9)).await.unwrap();
    let scope = of(&["web"]);
    let (all, since) = read(&mut laptop, 0, &scope, PageSize::LARGEST).await;
    assert_eq!((ids(&all), &all.work), (vec!["web-PS-00000b"], &vec![*web.work.unwrap()]));
    world.move_to("api-PS-00000a", "web");
    let (changed, since) = read(&mut laptop, since, &scope, PageSize::LARGEST).await;
    assert_eq!((ids(&changed), &changed.work), (vec!["api-PS-00000a"], &vec![*api.work.unwrap()]));
    let (again, _) = read(&mut laptop, since, &scope, PageSize::LARGEST).await;
    assert!(again.is_empty(), "{again:?}");
}

async fn deletions_are_read_in_any_scope<W: World>(world: W) {
    put_some(&world);
    let mut laptop = world.link();
    laptop.handshake(&host("laptop", 9)).await.unwrap();
    let (_, since) = read(&mut laptop, 0, &of(&["web"]), PageSize::LARGEST).await;
    let then = world.now().minus(HOUR);
    world.delete("web-PS-00000b");
    world.delete("web-PS-00000c");
    world.put(&session("web-PS-00000c", "odin4", then));
    for scope in [MirrorScope::All, of(&["web"]), of(&["odin", "web"])] {
        let (changed, _) = read(&mut laptop, since, &scope, PageSize::SMALLEST).await;
        assert!(gone(&changed).contains(&"web-PS-00000b"), "{scope}");
        assert!(ids(&changed).contains(&"web-PS-00000c"), "{scope}");
    }
}

async fn found<C: Central>(link: &mut C, question: Question) -> (Vec<String>, bool) {
    let Found { page, more } = link.find(&question).await.unwrap();
    assert!(page.gone.is_empty());
    (page.sessions.iter().map(|session| session.instance_id.to_string()).collect(), more)
}

async fn sessions_are_found_by_id_project_and_hint<W: World>(world: W) {
    let now = world.now();
    let at = |minutes: u32| now.minus(Duration::from_secs(60) * minutes);
    let put = |id: &str, minutes: u32, change: &dyn Fn(&mut Session)| {
        let mut row = session(id, "odin4", at(minutes));
        change(&mut row);
        world.put(&row);
    };
    put("web-PS-00000a", 3, &|_| {});
    put("web-PS-00000b", 2, &|row| row.current_epic = Some("50%_\\'".into()));
    put("web-PS-00000c", 1, &|row| (row.status, row.closed_at) = (Status::Closed, Some(at(1))));
    put("web-PS-00000d", 9, &|row| (row.status, row.closed_at) = (Status::Closed, Some(at(9))));
    put("api-PS-zzzz0e", 4, &|_| {});
    let mut link = world.link();
    link.handshake(&host("laptop", 9)).await.unwrap();
    let mut of = async |question| found(&mut link, question).await.0;
    let id = |text: &str| Question::Id(text.into());
    assert_eq!(of(id("web-PS-00000a")).await, ["web-PS-00000a"]);
    assert_eq!(of(id("web-PS-00")).await, ["web-PS-00000c", "web-PS-00000b", "web-PS-00000a", "web-PS-00000d"]);
    for nothing in ["web-PS-00000x", "web-PS-00000_", "web%", "eb-PS", "WEB-PS", "' OR ''='", "\\"] {
        assert_eq!(of(id(nothing)).await, [] as [&str; 0], "{nothing}");
    }
    let project_of = |closed_since| Question::Project { project: project("web"), closed_since };
    assert_eq!(of(project_of(Some(at(5)))).await, ["web-PS-00000c", "web-PS-00000b", "web-PS-00000a"]);
    assert_eq!(of(project_of(None)).await.len(), 4);
    let hint = |text: &str| Question::Hint(Hint::interpretations(Some(text)).unwrap());
    assert_eq!(of(hint("web-ps-00000c")).await, ["web-PS-00000c"], "a complete id names a closed session too");
    assert_eq!(of(hint("50%_\\'")).await, ["web-PS-00000b"]);
    assert_eq!(of(hint("web")).await, ["web-PS-00000b", "web-PS-00000a"]);
    assert_eq!(of(hint("zz0e")).await, ["api-PS-zzzz0e"]);
    assert_eq!(of(hint("zz1e")).await, [] as [&str; 0]);
    for n in 0..21 {
        put(&format!("many-PS-0000{n:02}"), 1, &|_| {});
    }
    let (some, more) = found(&mut link, Question::Hint(vec![Hint::Project(project("many"))])).await;
    assert_eq!((some.len(), more), (20, true));
    let (all, more) = found(&mut link, Question::Project { project: project("many"), closed_since: None }).await;
    assert_eq!((all.len(), more), (21, false));
}

async fn found_sessions_come_with_work<W: World>(world: W) {
    let then = world.now().minus(HOUR);
    let sent = working(&session("api-PS-00000a", "odin3", then), "Fix it");
    push(&world, std::slice::from_ref(&sent), &[]).await;
    let mut link = world.link();
    link.handshake(&host("laptop", 9)).await.unwrap();
    let found = link.find(&Question::Id("api-PS-00000a".into())).await.unwrap();
    assert_eq!(found.page.work, [*sent.work.clone().unwrap()]);
    let of_project = Question::Project { project: project("api"), closed_since: None };
    assert_eq!(link.find(&of_project).await.unwrap().page.work, [*sent.work.unwrap()]);
}

/// With the tables of records: what is found has its history, and what enters the scope brings it along.
pub async fn with_history<W: World>(world: W) {
    let then = world.now().minus(HOUR);
    let row = session("api-PS-00000a", "odin3", then);
    let record = HistoryRecord {
        record_id: Uuid::from_u128(77),
        instance_id: InstanceId::parse("api-PS-00000a").unwrap(),
        kind: RecordKind::Checkpoint,
        record_type: "manual".into(),
        at: then,
        body: serde_json::json!({"work_state": {"a": 1}}).as_object().unwrap().clone(),
    };
    push(&world, &[whole(&row)], std::slice::from_ref(&record)).await;
    let mut link = world.link();
    link.handshake(&host("laptop", 9)).await.unwrap();
    let found = link.find(&Question::Id("api-PS-00000a".into())).await.unwrap();
    assert_eq!(found.page.history.len(), 1, "{found:?}");
    let of_project = Question::Project { project: project("api"), closed_since: None };
    assert!(link.find(&of_project).await.unwrap().page.sessions.len() == 1);
}
