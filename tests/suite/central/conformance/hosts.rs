//! Names, claims and replaced hosts.

use super::*;

pub fn conflict_of<T: std::fmt::Debug>(result: Result<T, CentralError>) -> sessiond::domain::link::Conflict {
    match result {
        Err(CentralError::Conflict(conflict)) => {
            assert!(conflict.message.contains("sessiond identity rename"), "{}", conflict.message);
            assert!(conflict.message.contains("sessiond identity replace"), "{}", conflict.message);
            assert!(!conflict.message.contains('\n'));
            conflict
        }
        other => panic!("a conflict was due, not {other:?}"),
    }
}

pub async fn second_host_of_a_name_is_rejected<W: World>(world: W) {
    let (mut first, mut session) = with_one_session(&world).await;
    let second = host("odin3", 2);
    let conflict = conflict_of(world.link().handshake(&second).await);
    assert_eq!(conflict.host_id, Uuid::from_u128(1).to_string());
    assert_eq!(conflict.machine_name, "odin3");
    assert!(conflict.last_seen.is_some());
    // The first one goes on, and the second finds another name.
    session.last_heartbeat = session.last_heartbeat.plus(MINUTE);
    assert_eq!(first.push(&session).await, RowOutcome::Stored);
    world.link().handshake(&host("odin4", 2)).await.unwrap();
}

pub async fn copied_state_folder_is_rejected<W: World>(world: W) {
    let (mut original, session) = with_one_session(&world).await;
    let mut copy = host("odin3", 1);
    copy.claim = Uuid::from_u128(77);
    copy.own_claims = vec![copy.claim];
    conflict_of(world.link().handshake(&copy).await);

    // Told to be the one, it is; and the original learns of it.
    copy.replace = true;
    assert_eq!(world.link().handshake(&copy).await.unwrap().batch, 1);
    conflict_of(original.try_push(&[session]).await);
    conflict_of(world.link().handshake(&host("odin3", 1)).await);
}

pub async fn restored_ledger_with_an_unknown_claim_is_no_copy<W: World>(world: W) {
    let (_, session) = with_one_session(&world).await;
    // Many starts later the host no longer keeps the claim of that time, but knows of later batches than central.
    let mut later = host("odin3", 1);
    later.claim = Uuid::from_u128(77);
    later.own_claims = vec![later.claim];
    later.acked_batch = 5;
    let mut member = Member::join(world.link(), &later).await;
    assert_eq!((member.batch, member.push(&session).await), (1, RowOutcome::Stored));
    // A copy that knows of nothing later is still found out.
    let mut copy = later.clone();
    (copy.claim, copy.own_claims) = (Uuid::from_u128(78), vec![Uuid::from_u128(78)]);
    copy.acked_batch = 2;
    conflict_of(world.link().handshake(&copy).await);
}

pub async fn replaced_host_is_rejected<W: World>(world: W) {
    let (mut first, session) = with_one_session(&world).await;
    let mut second = host("odin3", 2);
    second.replace = true;
    assert_eq!(world.link().handshake(&second).await.unwrap().batch, 0);

    let conflict = conflict_of(first.try_push(std::slice::from_ref(&session)).await);
    assert_eq!(conflict.host_id, Uuid::from_u128(2).to_string());
    conflict_of(world.link().handshake(&host("odin3", 1)).await);

    // What was taken can be taken back, ledger and all.
    let mut back = host("odin3", 1);
    back.replace = true;
    assert_eq!(world.link().handshake(&back).await.unwrap().batch, 1);
    conflict_of(world.link().handshake(&host("odin3", 2)).await);
}

pub async fn replaced_and_renamed_host_keeps_its_rows<W: World>(world: W) {
    let (_, mut session) = with_one_session(&world).await;
    let mut rival = host("odin3", 2);
    rival.replace = true;
    world.link().handshake(&rival).await.unwrap();

    let old = host("odin3", 1);
    let mut renamed = host("laptop", 3);
    renamed.own_claims.push(old.claim);
    renamed.former_host_ids.push(old.host_id);
    let mut member = Member::join(world.link(), &renamed).await;
    session.host_machine = machine("laptop");
    assert_eq!(member.push(&session).await, RowOutcome::Stored);
    assert_eq!(only(&world).host_machine, machine("laptop"));
    // The rival keeps the name.
    assert_eq!(world.link().handshake(&rival).await.map(|accepted| accepted.former_names), Ok(Vec::new()));
}

pub async fn hosts_are_listed_with_their_last_contact<W: World>(world: W) {
    let mut member = Member::join(world.link(), &host("odin3", 1)).await;
    let hosts = member.link.hosts(None).await.unwrap();
    assert_eq!(hosts.len(), 1);
    assert_eq!((hosts[0].machine.as_str(), hosts[0].last_seen), ("odin3", world.last_seen(Uuid::from_u128(1))));
    assert!(Member::is_refused(world.link(), &host("odin3", 2)).await);
    let mut other = host("odin3", 2);
    other.replace = true;
    let mut member = Member::join(world.link(), &other).await;
    let names = member.link.hosts(None).await.unwrap();
    assert_eq!(names.len(), 1, "who was replaced is none of them: {names:?}");
}
