//! Sessions of hosts that no longer report become stale.

use super::*;

pub async fn sessions_of_vanished_hosts_are_swept<W: World>(world: W) {
    let (_, session) = with_one_session(&world).await;
    let fresh = self::session("odin-PS-000002", "odin3", world.now());
    world.put(&fresh);
    world.silence(HOUR);

    let mut other = Member::join(world.link(), &host("odin4", 2)).await;
    assert_eq!(swept_rows(&mut other).await, 1);
    let [swept, left] = world.rows().try_into().unwrap();
    assert_eq!(swept, Session { status: Status::Stale, ..session });
    assert_eq!(left, fresh);
}

pub async fn sessions_of_live_hosts_are_not_swept<W: World>(world: W) {
    let (mut member, session) = with_one_session(&world).await;
    assert_eq!(swept_rows(&mut member).await, 0);
    assert_eq!(only(&world), session);
}

pub async fn session_is_swept_by_its_hosts_stale_after<W: World>(world: W) {
    let began = world.now();
    let mut patient = host("odin3", 1);
    patient.stale_after = 2 * HOUR;
    let mut member = Member::join(world.link(), &patient).await;
    let session = session(ID, "odin3", began.minus(HOUR + MINUTE));
    member.push(&session).await;
    // The same silence is too long for rows of no host.
    let earlier = self::session("odin-PS-000002", "gone", began.minus(HOUR));
    world.put(&earlier);
    world.silence(HOUR);
    let mut other = Member::join(world.link(), &host("odin4", 2)).await;
    assert_eq!(swept_rows(&mut other).await, 1);
    let [left, swept] = world.rows().try_into().unwrap();
    assert_eq!((left, swept.status), (session, Status::Stale));
    // Its host vanished for longer than that.
    world.silence(2 * HOUR);
    let aged = self::session("odin-PS-000003", "odin3", began.minus(HOUR));
    world.put(&aged);
    assert_eq!(swept_rows(&mut other).await, 0, "neither is older than two hours");
    let old = self::session("odin-PS-000004", "odin3", began.minus(3 * HOUR));
    world.put(&old);
    world.silence(HOUR);
    assert_eq!(swept_rows(&mut other).await, 1);
}

pub async fn row_without_a_live_host_is_swept<W: World>(world: W) {
    let (mut member, own) = with_one_session(&world).await;
    // An earlier client's, under the name of a machine whose daemon is live.
    world.put(&session("odin-PS-000002", "odin3", world.now().minus(HOUR)));
    assert_eq!(swept_rows(&mut member).await, 1);
    let [left, swept] = world.rows().try_into().unwrap();
    assert_eq!((left, swept.status), (own, Status::Stale));
}

pub async fn swept_rows<C: Central>(member: &mut Member<C>) -> u64 {
    member.link.sweep(STALE_AFTER, MINUTE).await.unwrap().sessions
}

pub async fn sweeping_is_throttled<W: World>(world: W) {
    let (mut member, _) = with_one_session(&world).await;
    let orphan = |id| session(id, "gone", world.now().minus(HOUR));
    assert_eq!(swept_rows(&mut member).await, 0);
    world.put(&orphan("odin-PS-000002"));
    assert_eq!(member.link.sweep(STALE_AFTER, MINUTE).await, Ok(SweepResult::default()), "too early");
    world.silence(MINUTE);
    assert_eq!(swept_rows(&mut member).await, 1);
}
