//! Promised ids: what they lead to, how long, and how many.

use super::user_limits::{odin, *};
use super::*;
use crate::domain::Session;
use crate::store::ops::promised_ids::{KEPT_FOR, MOST};

#[tokio::test]
async fn a_promised_id_leads_to_its_session() {
    let shared = Shared::new();
    let sighted = shared.promise(&id(1), "u-1", ALICE).await.record.session.instance_id;
    assert_eq!(sighted, id(1), "it is free, so the session has it");
    let adopted = shared.promise(&id(2), "u-1", ALICE).await.record.session.instance_id;
    assert_eq!((&adopted, only(&shared.store, &id(2)).await.session.instance_id), (&sighted, id(1)));
    shared.end();
}

#[tokio::test]
async fn a_promised_id_gives_way_to_a_session_of_that_id() {
    let shared = Shared::new();
    let of_mallory = shared.promise(&id(1), "u-m", MALLORY).await.record.session.instance_id;
    for promised in [2, 3, 4] {
        shared.promise(&id(promised), "u-m", MALLORY).await;
    }
    assert_eq!(shared.promised_by(MALLORY).await, 3);
    // Alice was given these ids while no daemon ran: by a register, by an agent, and on another machine.
    assert_eq!(shared.import(drawn(&id(2)), ALICE).await, Some(Ok(())));
    let report = Box::new(received(START, "u-a", Some(&id(3))));
    assert_eq!(shared.import(SpooledWrite::Report(report), ALICE).await, Some(Ok(())));
    let session =
        Session { host_machine: MachineName::parse("odin4").unwrap(), ..Session::register(id(4), odin(), at(0)) };
    shared.mirror(session).await;
    for (number, owner) in [(2, ALICE), (3, ALICE)] {
        let found = only(&shared.store, &id(number)).await;
        assert_eq!((found.session.instance_id, found.owner_uid), (id(number), owner.uid));
    }
    let mirrored = only(&shared.store, &id(4)).await;
    assert_eq!((mirrored.session.instance_id, mirrored.mirrored), (id(4), true));
    assert_eq!(shared.promised_by(MALLORY).await, 0);
    assert_eq!(only(&shared.store, &of_mallory).await.owner_uid, MALLORY.uid);
    shared.end();
}

#[tokio::test]
async fn promising_an_id_in_use_is_refused() {
    let shared = Shared::new();
    let of_alice = shared.register(ALICE).await.unwrap().session.instance_id;
    shared.promise(&id(9), "u-a", ALICE).await;
    shared.promise(&id(10), "u-a", ALICE).await;
    for taken in [&of_alice, &id(9), &id(10)] {
        let sighted = shared.promise(taken, "u-m", MALLORY).await.record;
        assert_eq!(sighted.owner_uid, MALLORY.uid);
        assert_ne!(sighted.session.instance_id, *taken);
        assert_eq!(only(&shared.store, taken).await.owner_uid, ALICE.uid);
    }
    assert_eq!(shared.promised_by(MALLORY).await, 0);
    shared.end();
}

#[tokio::test]
async fn a_former_id_stays_with_its_session() {
    let shared = Shared::new();
    let of_alice = shared.register(ALICE).await.unwrap().session;
    let other = Session { created_at: at(-9), host_machine: MachineName::parse("odin4").unwrap(), ..of_alice.clone() };
    shared.mirror(other).await;
    let former = of_alice.instance_id;
    assert_eq!(shared.import(drawn(&former), MALLORY).await, Some(Ok(())));
    assert_eq!(only(&shared.store, &former).await.owner_uid, ALICE.uid);
    shared.end();
}

#[tokio::test]
async fn promised_ids_of_a_user_are_bounded() {
    let shared = Shared::new();
    shared.promise(&id(0xa00001), "u-a", ALICE).await;
    shared.promise(&id(0xa00002), "u-a", ALICE).await;
    for number in 0..=MOST as u64 + 5 {
        shared.promise(&id(0xb00000 + number), "u-m", MALLORY).await;
    }
    assert_eq!(shared.promised_by(MALLORY).await, MOST as i64);
    assert_eq!(only(&shared.store, &id(0xa00002)).await.owner_uid, ALICE.uid);
    shared.end();
}

#[tokio::test]
async fn promised_ids_expire_unless_their_session_is_active() {
    let shared = Shared::new();
    let [active, stale] = ["u-1", "u-2"].map(|uuid| {
        let number = if uuid == "u-1" { 1 } else { 2 };
        (uuid, id(number), id(number + 0x10))
    });
    for (uuid, first, promised) in [&active, &stale] {
        shared.promise(first, uuid, ALICE).await;
        shared.promise(promised, uuid, ALICE).await;
    }
    let later = at(2).plus(KEPT_FOR);
    shared.store.heartbeat(active.1.to_string(), Heartbeat::default(), by(ALICE, later)).await.unwrap();
    shared.store.sweep(by(OWNER, later)).await.unwrap();
    shared.store.expire_promises(later).await.unwrap();
    assert_eq!(shared.promised_by(ALICE).await, 2, "not yet");
    shared.store.expire_promises(later.plus(Duration::from_secs(1))).await.unwrap();
    assert_eq!(shared.promised_by(ALICE).await, 1);
    assert_eq!(only(&shared.store, &active.2).await.session.instance_id, active.1);
    assert_eq!(shared.store.find(stale.2.to_string()).await, Ok(Lookup::None));
    shared.end();
}
