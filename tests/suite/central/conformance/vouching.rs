//! Hosts vouch for the sessions that they wrote last: heartbeats alone are not read by others.

use super::reading::pull_all;
use super::*;

/// The sessions that changed since, each with the host that vouches for it.
async fn changed<C: Central>(link: &mut C, since: u64) -> Vec<(Session, Option<Uuid>)> {
    let changes = link.pull(&PullQuery::since(since)).await.unwrap();
    changes.sessions.into_iter().map(|read| (read.session, read.vouched_by)).collect()
}

fn beaten(session: &Session, at: Timestamp) -> TimedSession {
    TimedSession::untimed(Session { last_heartbeat: at, ..session.clone() })
}

pub async fn bare_heartbeat_is_read_by_no_other_host<W: World>(world: W) {
    let (mut member, session) = with_one_session(&world).await;
    let mut other = Member::join(world.link(), &host("laptop", 2)).await;
    // Whether all hosts judge sessions by their hosts is known from the list of hosts.
    member.link.hosts(None).await.unwrap();
    let (_, _, since) = pull_all(&mut other.link, 0).await;
    let heartbeat = world.now();
    member.offer(&[beaten(&session, heartbeat)]).await.unwrap();
    assert_eq!(only(&world).last_heartbeat, heartbeat, "it is written");
    assert_eq!(changed(&mut other.link, since).await, []);

    // Everything else is a change.
    let stale = Session { status: Status::Stale, last_heartbeat: heartbeat, ..session };
    member.offer(&[TimedSession::untimed(stale.clone())]).await.unwrap();
    assert_eq!(changed(&mut other.link, since).await, [(stale, Some(Uuid::from_u128(1)))]);
}

pub async fn last_writer_vouches<W: World>(world: W) {
    let (mut member, mut session) = with_one_session(&world).await;
    let mut other = Member::join(world.link(), &host("laptop", 2)).await;
    member.link.hosts(None).await.unwrap();
    let (_, _, since) = pull_all(&mut other.link, 0).await;
    session.last_heartbeat = world.now();
    world.edit(ID, SharedColumn::CurrentEpic, "theirs");
    let (theirs, vouched_by) = changed(&mut other.link, since).await.remove(0);
    assert_eq!(vouched_by, None, "no host vouches for what a client without a daemon wrote");
    assert_eq!(theirs.current_epic.as_deref(), Some("theirs"));
    let (_, _, since) = pull_all(&mut other.link, since).await;
    // The next heartbeat of its daemon says that it lives, so it is read although nothing else changed.
    member.offer(&[beaten(&theirs, world.now())]).await.unwrap();
    let again: Vec<_> = changed(&mut other.link, since).await.into_iter().map(|(_, by)| by).collect();
    assert_eq!(again, [Some(Uuid::from_u128(1))]);
    let (_, _, since) = pull_all(&mut other.link, since).await;
    member.offer(&[beaten(&theirs, world.now())]).await.unwrap();
    assert_eq!(changed(&mut other.link, since).await, []);
}

pub async fn joined_hosts_are_read_alone<W: World>(world: W) {
    let mut member = Member::join(world.link(), &host("odin3", 1)).await;
    Member::join(world.link(), &host("laptop", 2)).await;
    let seen = member.link.hosts(Some(&[Uuid::from_u128(2), Uuid::from_u128(9)])).await.unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].host_id, seen[0].machine.as_str()), (Uuid::from_u128(2), "laptop"));
    assert_eq!(seen[0].last_seen, world.last_seen(Uuid::from_u128(2)));
    assert_eq!(member.link.hosts(Some(&[])).await.unwrap(), []);
    assert_eq!(member.link.hosts(None).await.unwrap().len(), 2);
}

pub async fn sessions_that_a_host_lacks_are_disowned<W: World>(world: W) {
    let (mut member, lost) = with_one_session(&world).await;
    let theirs = session("odin-PS-000002", "odin3", world.now());
    world.put(&theirs);
    let closed = Session { instance_id: InstanceId::parse("odin-PS-000003").unwrap(), ..lost.clone() };
    let closed = Session { status: Status::Closed, closed_at: Some(lost.last_heartbeat), ..closed };
    member.push(&closed).await;
    let ids: Vec<_> = world.rows().into_iter().map(|row| row.instance_id).collect();
    member.link.disown(&ids).await.unwrap();
    let [lost, kept, closed] = world.rows().try_into().unwrap();
    assert_eq!((lost.status, kept.status, closed.status), (Status::Stale, Status::Active, Status::Closed));
}
