//! What a push does to the rows of sessions, and how often.

use super::*;

pub async fn inserts_and_updates<W: World>(world: W) {
    let (mut member, mut session) = with_one_session(&world).await;
    assert_eq!(only(&world), session);

    session.last_heartbeat = session.last_heartbeat.plus(MINUTE);
    session.context_percent = 42;
    session.current_epic = None;
    session.claude_session_uuid = Some("c-2".into());
    session.claude_session_path = None;
    session.working_dir = None;
    let other = self::session("freya-MS-00000z", "odin3", session.created_at);
    let applied = member.try_push(&[other.clone(), session.clone()]).await.unwrap();
    assert_eq!(applied, [RowOutcome::Stored, RowOutcome::Stored]);
    assert_eq!(world.rows(), [other, session]);
}

pub async fn older_heartbeat_changes_nothing<W: World>(world: W) {
    let (mut member, session) = with_one_session(&world).await;
    let mut newer = session.clone();
    newer.last_heartbeat = session.last_heartbeat.plus(MINUTE);
    newer.context_percent = 50;
    world.put(&newer);

    let mut late = session.clone();
    late.context_percent = 99;
    late.status = Status::Stale;
    late.current_epic = Some("old".into());
    late.claude_session_uuid = None;
    assert_eq!(member.push(&late).await, RowOutcome::Stored);
    assert_eq!(only(&world), newer);
}

pub async fn heartbeat_from_the_future_is_cut<W: World>(world: W) {
    let (mut member, mut session) = with_one_session(&world).await;
    let before = world.now();
    session.last_heartbeat = before.plus(HOUR);
    session.context_percent = 77;
    assert_eq!(member.push(&session).await, RowOutcome::Stored);
    let row = only(&world);
    assert!(row.last_heartbeat >= before && row.last_heartbeat <= world.now(), "{row:?}");
    assert_eq!(row.context_percent, 77);

    session.status = Status::Closed;
    session.closed_at = Some(before.plus(HOUR));
    member.push(&session).await;
    let closed_at = only(&world).closed_at.unwrap();
    assert!(closed_at >= before && closed_at <= world.now());
}

pub async fn heartbeat_in_centrals_future_is_replaced<W: World>(world: W) {
    let (mut member, mut session) = with_one_session(&world).await;
    let mut wrong = session.clone();
    wrong.last_heartbeat = world.now().plus(HOUR);
    world.put(&wrong);

    session.last_heartbeat = session.last_heartbeat.plus(MINUTE);
    assert_eq!(member.push(&session).await, RowOutcome::Stored);
    assert_eq!(only(&world), session);
}

pub async fn stale_and_active_follow_the_newer_heartbeat<W: World>(world: W) {
    let (mut member, mut session) = with_one_session(&world).await;
    session.status = Status::Stale;
    member.push(&session).await;
    assert_eq!(only(&world).status, Status::Stale);

    session.status = Status::Active;
    session.last_heartbeat = session.last_heartbeat.plus(MINUTE);
    member.push(&session).await;
    assert_eq!(only(&world), session);
}

pub async fn closed_stays_closed<W: World>(world: W) {
    let (mut member, mut session) = with_one_session(&world).await;
    let closed_at = session.created_at.plus(MINUTE);
    let mut closed = session.clone();
    closed.status = Status::Closed;
    closed.closed_at = Some(closed_at);
    world.put(&closed);

    session.last_heartbeat = session.last_heartbeat.plus(MINUTE * 2);
    assert_eq!(member.push(&session).await, RowOutcome::ClosedElsewhere { closed_at });
    assert_eq!((only(&world).status, only(&world).closed_at), (Status::Closed, Some(closed_at)));

    // Closing it once more is no news, and does not move the time.
    session.status = Status::Closed;
    session.closed_at = Some(closed_at.plus(HOUR / 2));
    assert_eq!(member.push(&session).await, RowOutcome::Stored);
    assert_eq!(only(&world).closed_at, Some(closed_at));
}

pub async fn late_close_is_applied<W: World>(world: W) {
    let (mut member, mut session) = with_one_session(&world).await;
    let mut newer = session.clone();
    newer.last_heartbeat = session.last_heartbeat.plus(MINUTE);
    world.put(&newer);

    session.status = Status::Closed;
    session.closed_at = Some(session.created_at.plus(MINUTE / 2));
    assert_eq!(member.push(&session).await, RowOutcome::Stored);
    let row = only(&world);
    assert_eq!((row.status, row.closed_at), (Status::Closed, session.closed_at));
    assert_eq!(row.last_heartbeat, newer.last_heartbeat);
}

pub async fn other_session_keeps_its_id<W: World>(world: W) {
    let mut member = Member::join(world.link(), &host("odin3", 1)).await;
    let theirs = session(ID, "odin4", world.now().minus(HOUR));
    world.put(&theirs);
    let ours = session(ID, "odin3", world.now().minus(MINUTE));
    let other = session("odin-PS-000002", "odin3", world.now().minus(MINUTE));
    let applied = member.try_push(&[ours, other.clone()]).await.unwrap();
    assert_eq!(applied, [RowOutcome::IdCollision, RowOutcome::Stored]);
    assert_eq!(world.rows(), [theirs, other]);
}

pub async fn row_of_another_machine_is_not_changed<W: World>(world: W) {
    let mut member = Member::join(world.link(), &host("odin3", 1)).await;
    let theirs = session(ID, "odin4", world.now().minus(HOUR));
    world.put(&theirs);
    let mut copy = theirs.clone();
    copy.host_machine = machine("odin3");
    copy.last_heartbeat = world.now();
    assert_eq!(member.push(&copy).await, RowOutcome::ForeignMachine { machine: "odin4".into() });
    assert_eq!(only(&world), theirs);
}

pub async fn renamed_host_keeps_its_rows<W: World>(world: W) {
    let (_, mut session) = with_one_session(&world).await;
    let old = host("odin3", 1);
    let mut renamed = host("laptop", 2);
    renamed.own_claims.push(old.claim);
    renamed.former_host_ids.push(old.host_id);

    let mut link = world.link();
    let accepted = link.handshake(&renamed).await.unwrap();
    assert_eq!(accepted.former_names, [machine("odin3")]);
    assert_eq!(accepted.batch, 0);
    session.host_machine = machine("laptop");
    let mut member = Member { link, batch: 0 };
    assert_eq!(member.push(&session).await, RowOutcome::Stored);
    assert_eq!(only(&world).host_machine, machine("laptop"));

    // Renamed once more, it still knows both names; and the first is free for others.
    let mut again = host("desk", 3);
    again.own_claims.extend([old.claim, renamed.claim]);
    again.former_host_ids.extend([old.host_id, renamed.host_id]);
    assert_eq!(world.link().handshake(&again).await.unwrap().former_names, [machine("laptop"), machine("odin3")]);
    world.link().handshake(&host("odin3", 9)).await.unwrap();
    // And a restart changes nothing.
    assert_eq!(world.link().handshake(&again).await.unwrap().former_names, [machine("laptop"), machine("odin3")]);
}

pub async fn batch_is_applied_once<W: World>(world: W) {
    let (mut member, mut session) = with_one_session(&world).await;
    assert_eq!(member.batch, 1);
    session.context_percent = 90;
    let again = Batch { after: 0, number: 1, sessions: &[whole(&session)], records: &[] };
    assert_eq!(member.link.push(again).await, Err(CentralError::OutOfStep));
    let ahead = Batch { after: 2, number: 3, sessions: &[whole(&session)], records: &[] };
    assert_eq!(member.link.push(ahead).await, Err(CentralError::OutOfStep));
    assert_eq!(only(&world).context_percent, 10);

    // The connection is still good, and the ledger where it was.
    assert_eq!(member.push(&session).await, RowOutcome::Stored);
    let mut next = host("odin3", 1);
    next.claim = Uuid::from_u128(99);
    next.own_claims.push(next.claim);
    assert_eq!(world.link().handshake(&next).await.unwrap().batch, 2);
    // The start before it has been overtaken by itself, which is no conflict.
    assert!(member.try_push(&[]).await.is_err());
}

pub async fn lost_answer_is_resolved_by_the_ledger<W: World>(world: W) {
    let (member, mut session) = with_one_session(&world).await;
    // All that the next connection knows is that batch 1 was sent.
    drop(member);
    let mut link = world.link();
    assert_eq!(link.handshake(&host("odin3", 1)).await.unwrap().batch, 1);
    session.context_percent = 90;
    let again = Batch { after: 0, number: 1, sessions: &[whole(&session)], records: &[] };
    assert_eq!(link.push(again).await, Err(CentralError::OutOfStep));
    assert_eq!(only(&world).context_percent, 10);
}

pub async fn empty_batch_counts_as_a_sign_of_the_host<W: World>(world: W) {
    let (mut member, _) = with_one_session(&world).await;
    world.silence(HOUR);
    let silent = world.last_seen(Uuid::from_u128(1));
    assert_eq!(member.try_push(&[]).await, Ok(Vec::new()));
    assert!(world.last_seen(Uuid::from_u128(1)).since(silent) >= HOUR);
}

pub async fn rejected_row_rolls_the_batch_back<W: World>(world: W) {
    let (mut member, mut session) = with_one_session(&world).await;
    let before = only(&world);
    session.last_heartbeat = session.last_heartbeat.plus(MINUTE);
    let bad = self::session("odin-PS-bad000", "odin3", world.now().minus(MINUTE));
    world.reject(bad.instance_id.as_str());
    let rejected = member.try_push(&[session.clone(), bad]).await;
    assert!(matches!(rejected, Err(CentralError::Reject(_))), "{rejected:?}");
    assert_eq!(only(&world), before);
    // The ledger did not move, and the connection is still good.
    assert_eq!(member.push(&session).await, RowOutcome::Stored);
    assert_eq!(only(&world), session);
}

pub async fn locked_row_is_found_and_others_are_pushed<W: World>(world: W) {
    let (mut member, session) = with_one_session(&world).await;
    let other = self::session("odin-PS-000002", "odin3", session.created_at);
    let ids = [other.instance_id.clone(), session.instance_id.clone()];
    let lock = world.lock_row(ID);
    let both = member.try_push(&[session.clone(), other.clone()]).await;
    assert!(matches!(both, Err(CentralError::Locked(_))), "{both:?}");
    assert_eq!(member.link.locked_rows(&ids).await.unwrap(), std::slice::from_ref(&session.instance_id));
    // The connection is still good, and the row that is not there yet is not locked.
    assert_eq!(member.push(&other).await, RowOutcome::Stored);
    drop(lock);
    assert_eq!(member.link.locked_rows(&ids).await.unwrap(), []);
    assert_eq!(member.push(&session).await, RowOutcome::Stored);
}

pub async fn each_push_returns_centrals_clock<W: World>(world: W) {
    let before = world.now();
    let (member, _) = with_one_session(&world).await;
    let clock = member.link.last_clock().unwrap();
    assert!(clock >= before && clock <= world.now(), "{clock}");
}
