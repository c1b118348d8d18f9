//! Limits how many connections are open at once, and decides which one is closed for a new one.
//!
//! Invariants:
//! - There are never more than `capacity` connections, nor more than `per_user` of one user: others can connect even
//!   while each connection of a user has a request under way.
//! - A connection whose request is being handled is never closed for another.
//!
//! When a limit is reached, an idle connection is closed: one of the user with the most connections, and of those the
//! one that has been idle longest. Where none is idle, the new connection is refused with 503.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::task::AbortHandle;

/// Hands out connection slots. Clones share the slots.
#[derive(Clone)]
pub(super) struct ConnectionLimiter {
    slots: Arc<Mutex<SlotTable>>,
    /// Logical clock: orders the times at which connections became idle.
    ticks: Arc<AtomicU64>,
    capacity: usize,
    per_user: usize,
}

/// The slots in use, by slot number.
#[derive(Default)]
struct SlotTable {
    slots: HashMap<u64, Arc<SlotState>>,
    /// Slots in use by user id.
    per_uid: HashMap<u32, usize>,
}

impl SlotTable {
    fn count(&self, uid: u32) -> usize {
        self.per_uid.get(&uid).copied().unwrap_or(0)
    }

    fn insert(&mut self, number: u64, slot: Arc<SlotState>) {
        *self.per_uid.entry(slot.uid).or_default() += 1;
        self.slots.insert(number, slot);
    }

    fn remove(&mut self, number: u64) -> Option<Arc<SlotState>> {
        let slot = self.slots.remove(&number)?;
        if let Entry::Occupied(mut count) = self.per_uid.entry(slot.uid) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(slot)
    }
}

struct SlotState {
    uid: u32,
    /// The tick at which the connection became idle, or [`BUSY`].
    idle_since: AtomicU64,
    connection: OnceLock<AbortHandle>,
}

/// A request is being handled, or the connection has not been served yet.
const BUSY: u64 = u64::MAX;

impl ConnectionLimiter {
    /// At most `capacity` connections, at most `per_user` of them of one user.
    pub(super) fn new(capacity: usize, per_user: usize) -> Self {
        Self { slots: Arc::default(), ticks: Arc::default(), capacity, per_user }
    }

    /// Takes a slot for a connection of this user, closing an idle connection if a limit is reached; `None` if no
    /// connection may be closed.
    pub(super) fn acquire(&self, uid: u32) -> Option<ConnectionSlot> {
        let mut table = self.lock();
        if table.count(uid) >= self.per_user || table.slots.len() >= self.capacity {
            self.close_idle(&mut table, uid)?;
        }
        let number = self.tick();
        let state = Arc::new(SlotState { uid, idle_since: AtomicU64::new(BUSY), connection: OnceLock::new() });
        table.insert(number, state.clone());
        Some(ConnectionSlot { limiter: self.clone(), number, state })
    }

    /// Closes an idle connection in favour of a new one of this user; `None` if there is none that may be closed.
    fn close_idle(&self, table: &mut SlotTable, uid: u32) -> Option<()> {
        let own = table.count(uid);
        let may_close = |slot: &SlotState| match own >= self.per_user {
            true => slot.uid == uid,
            false => table.count(slot.uid) >= own,
        };
        let idle = table.slots.iter().filter_map(|(number, slot)| Some((*number, slot, slot.idle_since()?)));
        let (number, ..) = idle
            .filter(|(_, slot, _)| may_close(slot))
            .min_by_key(|(_, slot, since)| (Reverse(table.count(slot.uid)), *since))?;
        if let Some(connection) = table.remove(number)?.connection.get() {
            connection.abort();
        }
        Some(())
    }

    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, SlotTable> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SlotState {
    fn idle_since(&self) -> Option<u64> {
        Some(self.idle_since.load(Ordering::Relaxed)).filter(|since| *since != BUSY)
    }
}

/// A slot in use; dropping it frees the slot.
pub(super) struct ConnectionSlot {
    limiter: ConnectionLimiter,
    number: u64,
    state: Arc<SlotState>,
}

impl ConnectionSlot {
    /// Names the task of the connection, which is aborted when the slot is needed for another.
    pub(super) fn set_connection(&self, connection: AbortHandle) {
        let _ = self.state.connection.set(connection);
    }

    /// Marks the connection as waiting for its client: for a request or the rest of one, or for a response to be read.
    pub(super) fn set_idle(&self) {
        self.state.idle_since.store(self.limiter.tick(), Ordering::Relaxed);
    }

    /// Marks the connection as handling a request.
    pub(super) fn set_busy(&self) {
        self.state.idle_since.store(BUSY, Ordering::Relaxed);
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.limiter.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: u32 = 1;
    const OTHER: u32 = 2;
    const THIRD: u32 = 3;

    /// Eight slots, six for one user; connections that last until they are aborted.
    struct Fixture {
        limiter: ConnectionLimiter,
        runtime: tokio::runtime::Runtime,
    }

    impl Fixture {
        fn new() -> Self {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            Self { limiter: ConnectionLimiter::new(8, 6), runtime }
        }

        fn connect(&self, uid: u32) -> Option<(Arc<ConnectionSlot>, tokio::task::JoinHandle<()>)> {
            let slot = Arc::new(self.limiter.acquire(uid)?);
            let connection = self.runtime.spawn(std::future::pending());
            slot.set_connection(connection.abort_handle());
            slot.set_idle();
            Some((slot, connection))
        }

        fn is_closed(&self, connection: &tokio::task::JoinHandle<()>) -> bool {
            self.runtime.block_on(tokio::task::yield_now());
            connection.is_finished()
        }
    }

    #[test]
    fn closes_the_connection_idle_longest() {
        let fixture = Fixture::new();
        let open: Vec<_> = (0..6).map(|_| fixture.connect(OWNER).unwrap()).collect();
        open[0].0.set_busy();
        open[0].0.set_idle();
        let _new = fixture.connect(OWNER).unwrap();
        let closed: Vec<_> = open.iter().map(|(_, connection)| fixture.is_closed(connection)).collect();
        assert_eq!(closed, [false, true, false, false, false, false]);
    }

    #[test]
    fn a_busy_connection_is_never_closed_for_another() {
        let fixture = Fixture::new();
        let open: Vec<_> = (0..6).map(|_| fixture.connect(OTHER).unwrap()).collect();
        open.iter().for_each(|(slot, _)| slot.set_busy());
        assert!(fixture.connect(OTHER).is_none());
        let owner = [fixture.connect(OWNER).unwrap(), fixture.connect(OWNER).unwrap()];
        assert!(fixture.connect(THIRD).is_some(), "closes an idle one of the owner, who has more than the new user");
        assert!(fixture.is_closed(&owner[0].1) && !fixture.is_closed(&owner[1].1));
        open[3].0.set_idle();
        assert!(fixture.connect(OTHER).is_some());
    }

    #[test]
    fn closes_a_connection_of_the_user_with_the_most() {
        let fixture = Fixture::new();
        let owner = [fixture.connect(OWNER).unwrap(), fixture.connect(OWNER).unwrap()];
        let others: Vec<_> = (0..6).map(|_| fixture.connect(OTHER).unwrap()).collect();
        let _new = [fixture.connect(OWNER).unwrap(), fixture.connect(THIRD).unwrap()];
        assert!(owner.iter().all(|(_, connection)| !fixture.is_closed(connection)));
        assert!(fixture.is_closed(&others[0].1) && fixture.is_closed(&others[1].1));
        assert!(!fixture.is_closed(&others[2].1));
    }

    #[test]
    fn dropping_a_slot_frees_it() {
        let fixture = Fixture::new();
        for _ in 0..100 {
            drop(fixture.connect(OWNER).unwrap());
        }
        assert!(fixture.limiter.lock().slots.is_empty() && fixture.limiter.lock().per_uid.is_empty());
    }
}
