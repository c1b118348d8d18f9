//! The conformance suite's cases for leases.

use std::time::Duration;

use sessiond::sync::central::Central;

use super::conformance::{World, host};

const HOUR: Duration = Duration::from_secs(3600);

/// Runs every case, each in a world of its own.
pub async fn all<W: World>(fresh: impl Fn() -> W) {
    lease_has_one_host_until_it_expires(fresh()).await;
    host_that_was_taken_over_gets_no_lease(fresh()).await;
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

async fn taken<C: Central>(link: &mut C, wanted: &[&str], length: Duration) -> Vec<String> {
    let mut taken = link.take_leases(&names(wanted), length).await.unwrap();
    taken.sort();
    taken
}

async fn lease_has_one_host_until_it_expires<W: World>(world: W) {
    let (mut first, mut second) = (world.link(), world.link());
    first.handshake(&host("odin3", 1)).await.unwrap();
    second.handshake(&host("laptop", 2)).await.unwrap();
    assert_eq!(taken(&mut first, &["a", "b \"'{}\u{e9}", "a"], HOUR).await, names(&["a", "b \"'{}\u{e9}"]));
    assert_eq!(taken(&mut second, &["a", "c"], HOUR).await, names(&["c"]));
    assert_eq!(taken(&mut first, &["a", "c"], HOUR).await, names(&["a"]), "its own is taken for longer");
    assert_eq!(taken(&mut first, &[], HOUR).await, names(&[]));
    // Given up at once: the next host gets it.
    assert_eq!(taken(&mut first, &["a"], Duration::ZERO).await, names(&["a"]));
    assert_eq!(taken(&mut second, &["a"], HOUR).await, names(&["a"]));
    assert_eq!(taken(&mut first, &["a"], HOUR).await, names(&[]));
}

async fn host_that_was_taken_over_gets_no_lease<W: World>(world: W) {
    let mut original = world.link();
    original.handshake(&host("odin3", 1)).await.unwrap();
    let mut other = host("odin3", 2);
    other.replace = true;
    let mut second = world.link();
    second.handshake(&other).await.unwrap();
    assert_eq!(taken(&mut original, &["a"], HOUR).await, names(&[]));
    assert_eq!(taken(&mut second, &["a"], HOUR).await, names(&["a"]));
}
