//! What a host reads of others, and where the next reading begins.

use super::*;

/// Everything there is to read, page by page, and where the next reading begins.
pub async fn pull_all<C: Central>(link: &mut C, since: u64) -> (Vec<Session>, Vec<String>, u64) {
    let mut reading = PullQuery::since(since);
    let (mut sessions, mut gone) = (Vec::new(), Vec::new());
    loop {
        let changes = link.pull(&reading).await.unwrap();
        sessions.extend(changes.sessions.into_iter().map(|read| read.session));
        gone.extend(changes.gone.into_iter().map(|gone| gone.instance_id));
        match changes.rest {
            Continuation::More(position) => reading.after = Some(position),
            Continuation::Complete { next_since } => {
                sessions.sort_by(|a, b| a.instance_id.cmp(&b.instance_id));
                return (sessions, gone, next_since);
            }
            Continuation::Restart => panic!("central numbers its transactions as before"),
        }
    }
}

pub async fn first_pull_returns_all_and_the_next_one_the_changes<W: World>(world: W) {
    let then = world.now().minus(HOUR);
    let ids: Vec<_> = (0..7).map(|n| format!("odin-PS-00000{n}")).collect();
    ids.iter().for_each(|id| world.put(&session(id, "odin4", then)));
    let mut laptop = Member::join(world.link(), &host("laptop", 1)).await;
    let (all, gone, since) = pull_all(&mut laptop.link, 0).await;
    assert_eq!((all, gone), (world.rows(), vec![]));
    assert!(since > 0);

    let mut changed = session(&ids[3], "odin4", then);
    changed.context_percent = 77;
    world.put(&changed);
    world.delete(&ids[5]);
    let (news, mut gone, since) = pull_all(&mut laptop.link, since).await;
    // A row may be replaced by deleting and inserting it.
    gone.retain(|id| *id != ids[3]);
    assert_eq!((news, gone), (vec![changed], vec![ids[5].clone()]));

    let (news, gone, _) = pull_all(&mut laptop.link, since).await;
    assert_eq!((news, gone), (vec![], vec![]));
}

pub async fn host_does_not_pull_its_own_changes<W: World>(world: W) {
    let (mut member, session) = with_one_session(&world).await;
    let (_, _, since) = pull_all(&mut member.link, 0).await;
    let mut beaten = session.clone();
    beaten.last_heartbeat = beaten.last_heartbeat.plus(MINUTE);
    beaten.context_percent = 11;
    member.push(&beaten).await;
    assert_eq!(pull_all(&mut member.link, since).await.0, []);
    let mut other = Member::join(world.link(), &host("laptop", 2)).await;
    assert_eq!(pull_all(&mut other.link, since).await.0, [beaten.clone()]);

    beaten.close(world.now());
    world.put(&beaten);
    assert_eq!(pull_all(&mut member.link, since).await.0, [beaten], "but what another client did to its session");
}

pub async fn host_pulls_what_others_changed_before_its_push<W: World>(world: W) {
    let (mut member, mut session) = with_one_session(&world).await;
    let (_, _, since) = pull_all(&mut member.link, 0).await;
    world.edit(ID, SharedColumn::ClaudeSessionUuid, "c-9");
    session.last_heartbeat = world.now();
    member.offer(&[TimedSession::untimed(session.clone())]).await.unwrap();
    let changes = member.link.pull(&PullQuery::since(since)).await.unwrap();
    let [read_back] = changes.sessions.as_slice() else { panic!("the row is read: {changes:?}") };
    assert_eq!(read_back.claude_session_uuid.as_deref(), Some("c-9"));
    let times = read_back.times;
    assert!(times.get(SharedColumn::ClaudeSessionUuid) > times.get(SharedColumn::CurrentEpic), "{times:?}");

    let (_, _, since) = pull_all(&mut member.link, since).await;
    session.last_heartbeat = world.now();
    member.offer(&[TimedSession::untimed(session)]).await.unwrap();
    assert_eq!(pull_all(&mut member.link, since).await.0, [], "what it changed alone it does not read");
}

pub async fn restored_session_is_not_reported_as_deleted<W: World>(world: W) {
    let row = session(ID, "odin4", world.now().minus(HOUR));
    world.put(&row);
    let mut laptop = Member::join(world.link(), &host("laptop", 1)).await;
    let (_, _, since) = pull_all(&mut laptop.link, 0).await;
    world.delete(ID);
    world.put(&row);
    assert_eq!(pull_all(&mut laptop.link, since).await.1, [] as [String; 0]);
}

pub async fn lower_transaction_numbers_restart_the_pull<W: World>(world: W) {
    let mut laptop = Member::join(world.link(), &host("laptop", 1)).await;
    let changes = laptop.link.pull(&PullQuery::since(1 << 40)).await.unwrap();
    assert_eq!(changes, ChangePage::default());
    assert_eq!(changes.rest, Continuation::Restart);
}

pub async fn small_page_is_followed_by_the_rest<W: World>(world: W) {
    let then = world.now().minus(HOUR);
    (0..5).for_each(|n| world.put(&session(&format!("odin-PS-00000{n}"), "odin4", then)));
    let mut laptop = Member::join(world.link(), &host("laptop", 1)).await;
    for since in [0, 1] {
        let mut reading = PullQuery { page: PageSize::SMALLEST, ..PullQuery::since(since) };
        let mut ids = Vec::new();
        while let Continuation::More(position) = {
            let changes = laptop.link.pull(&reading).await.unwrap();
            ids.extend(changes.sessions.into_iter().map(|session| session.instance_id.to_string()));
            changes.rest
        } {
            reading.after = Some(position);
        }
        ids.sort();
        assert_eq!(ids, (0..5).map(|n| format!("odin-PS-00000{n}")).collect::<Vec<_>>());
    }
}
