//! The conformance suite's cases for rate limits.

use sessiond::domain::Timestamp;
use sessiond::domain::limits::{AccountLimit, LimitWindow};
use sessiond::sync::central::{Batch, Central};
use uuid::Uuid;

use super::conformance::{World, host};

/// Runs every case, each in a world of its own.
pub async fn all<W: World>(fresh: impl Fn() -> W) {
    limits_come_with_the_list_of_hosts(fresh()).await;
    limits_of_a_replaced_host_are_gone(fresh()).await;
    host_that_was_taken_over_shares_nothing(fresh()).await;
}

fn limit(used: f64, account: Option<&str>, now: Timestamp) -> AccountLimit {
    let window = LimitWindow::new("five_hour", Some(used), Some(now), now).unwrap();
    AccountLimit { uid: 1000, account: account.map(str::to_owned), window, observed_at: now }
}

/// The limits that each machine shares, by its name.
async fn shared<C: Central>(link: &mut C) -> Vec<(String, Vec<AccountLimit>)> {
    let hosts = link.hosts(None).await.unwrap();
    let mut shared: Vec<_> = hosts.into_iter().map(|host| (host.machine.to_string(), host.limits)).collect();
    shared.sort_by(|a, b| a.0.cmp(&b.0));
    shared
}

async fn limits_come_with_the_list_of_hosts<W: World>(world: W) {
    let now = world.now();
    let (mut first, mut second) = (world.link(), world.link());
    first.handshake(&host("odin3", 1)).await.unwrap();
    second.handshake(&host("laptop", 2)).await.unwrap();
    let own = [limit(41.5, Some("dev@example.com \"'{}\u{e9}"), now), limit(3.0, None, now)];
    first.share_limits(&own).await.unwrap();
    let expected = |own: &[AccountLimit]| vec![("laptop".to_owned(), Vec::new()), ("odin3".to_owned(), own.to_vec())];
    assert_eq!(shared(&mut second).await, expected(&own));
    first.share_limits(&own[1..]).await.unwrap();
    assert_eq!(shared(&mut second).await, expected(&own[1..]));
    // A push between changes nothing about them.
    first.push(Batch { after: 0, number: 1, sessions: &[], records: &[] }).await.unwrap();
    first.share_limits(&own[1..]).await.unwrap();
    assert_eq!(shared(&mut first).await, expected(&own[1..]));
    first.share_limits(&[]).await.unwrap();
    assert_eq!(shared(&mut second).await, expected(&[]));
}

async fn limits_of_a_replaced_host_are_gone<W: World>(world: W) {
    let now = world.now();
    let mut first = world.link();
    first.handshake(&host("odin3", 1)).await.unwrap();
    first.share_limits(&[limit(10.0, None, now)]).await.unwrap();
    let mut other = host("odin3", 2);
    other.replace = true;
    let mut second = world.link();
    second.handshake(&other).await.unwrap();
    assert_eq!(shared(&mut second).await, [("odin3".to_owned(), Vec::new())]);
}

async fn host_that_was_taken_over_shares_nothing<W: World>(world: W) {
    let now = world.now();
    let mut original = world.link();
    original.handshake(&host("odin3", 1)).await.unwrap();
    let mut copy = host("odin3", 1);
    copy.claim = Uuid::from_u128(77);
    copy.own_claims = vec![copy.claim];
    copy.replace = true;
    let mut taken = world.link();
    taken.handshake(&copy).await.unwrap();
    original.share_limits(&[limit(10.0, None, now)]).await.unwrap();
    assert_eq!(shared(&mut taken).await, [("odin3".to_owned(), Vec::new())]);
}
