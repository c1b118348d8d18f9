//! The places for connections, and who gets one when all are taken.
//!
//! Connections that do nothing keep nobody out: the one that has been idle longest gives up its place. That is
//! taken from whoever has most, so that no user can crowd out another; and nobody may have all of them, so that
//! there is a place for others even while each of a user's connections has a request under way.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::task::AbortHandle;

/// All places. Clones share them.
#[derive(Clone)]
pub struct Places {
    taken: Arc<Mutex<Seating>>,
    /// Counts what happens, so that one moment can be told to be older than another.
    moments: Arc<AtomicU64>,
    all: usize,
    /// What one user may have of them.
    share: usize,
}

#[derive(Default)]
struct Seating {
    seats: HashMap<u64, Arc<Seat>>,
    /// How many each user has.
    counts: HashMap<u32, usize>,
}

impl Seating {
    fn count(&self, uid: u32) -> usize {
        self.counts.get(&uid).copied().unwrap_or(0)
    }

    fn insert(&mut self, number: u64, seat: Arc<Seat>) {
        *self.counts.entry(seat.uid).or_default() += 1;
        self.seats.insert(number, seat);
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Seat>> {
        let seat = self.seats.remove(&number)?;
        if let Entry::Occupied(mut count) = self.counts.entry(seat.uid) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(seat)
    }
}

struct Seat {
    uid: u32,
    idle_since: AtomicU64,
    connection: OnceLock<AbortHandle>,
}

/// A request is being answered, or the connection has not been looked at yet.
const BUSY: u64 = u64::MAX;

impl Places {
    pub fn new(all: usize, share: usize) -> Self {
        Self { taken: Arc::default(), moments: Arc::default(), all, share }
    }

    /// A place for a connection of this user, for which an idle one may have to go; none if all are busy.
    pub fn take(&self, uid: u32) -> Option<Place> {
        let mut taken = self.lock();
        if taken.count(uid) >= self.share || taken.seats.len() >= self.all {
            self.make_room(&mut taken, uid)?;
        }
        let number = self.moment();
        let seat = Arc::new(Seat { uid, idle_since: AtomicU64::new(BUSY), connection: OnceLock::new() });
        taken.insert(number, seat.clone());
        Some(Place { places: self.clone(), number, seat })
    }

    /// Ends an idle connection, so that this user may have one more; none if there is none that may go.
    fn make_room(&self, taken: &mut Seating, uid: u32) -> Option<()> {
        let own = taken.count(uid);
        let may_go = |seat: &Seat| match own >= self.share {
            true => seat.uid == uid,
            false => taken.count(seat.uid) >= own,
        };
        let idle = taken.seats.iter().filter_map(|(number, seat)| Some((*number, seat, seat.idle_since()?)));
        let (number, ..) = idle
            .filter(|(_, seat, _)| may_go(seat))
            .min_by_key(|(_, seat, since)| (Reverse(taken.count(seat.uid)), *since))?;
        if let Some(connection) = taken.remove(number)?.connection.get() {
            connection.abort();
        }
        Some(())
    }

    fn moment(&self) -> u64 {
        self.moments.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Seating> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    fn idle_since(&self) -> Option<u64> {
        Some(self.idle_since.load(Ordering::Relaxed)).filter(|since| *since != BUSY)
    }
}

/// A place that is taken; it is free again when this goes.
pub struct Place {
    places: Places,
    number: u64,
    seat: Arc<Seat>,
}

impl Place {
    /// The connection that has this place; it ends when somebody else needs the place more.
    pub fn seats(&self, connection: AbortHandle) {
        let _ = self.seat.connection.set(connection);
    }

    /// From now on the connection waits for its client: for a request or the rest of it, or for an answer to be read.
    pub fn idle(&self) {
        self.seat.idle_since.store(self.places.moment(), Ordering::Relaxed);
    }

    /// From now on the client waits for the daemon.
    pub fn busy(&self) {
        self.seat.idle_since.store(BUSY, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: u32 = 1;
    const OTHER: u32 = 2;
    const THIRD: u32 = 3;

    /// Eight places, six for one user; connections that go on until they are ended.
    struct Room {
        places: Places,
        runtime: tokio::runtime::Runtime,
    }

    impl Room {
        fn new() -> Self {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            Self { places: Places::new(8, 6), runtime }
        }

        fn enter(&self, uid: u32) -> Option<(Arc<Place>, tokio::task::JoinHandle<()>)> {
            let place = Arc::new(self.places.take(uid)?);
            let connection = self.runtime.spawn(std::future::pending());
            place.seats(connection.abort_handle());
            place.idle();
            Some((place, connection))
        }

        fn ended(&self, connection: &tokio::task::JoinHandle<()>) -> bool {
            self.runtime.block_on(tokio::task::yield_now());
            connection.is_finished()
        }
    }

    #[test]
    fn the_longest_idle_connection_makes_room() {
        let room = Room::new();
        let seated: Vec<_> = (0..6).map(|_| room.enter(OWNER).unwrap()).collect();
        seated[0].0.busy();
        seated[0].0.idle();
        let _new = room.enter(OWNER).unwrap();
        let gone: Vec<_> = seated.iter().map(|(_, connection)| room.ended(connection)).collect();
        assert_eq!(gone, [false, true, false, false, false, false]);
    }

    #[test]
    fn nobody_is_let_in_for_a_connection_that_is_busy() {
        let room = Room::new();
        let seated: Vec<_> = (0..6).map(|_| room.enter(OTHER).unwrap()).collect();
        seated.iter().for_each(|(place, _)| place.busy());
        assert!(room.enter(OTHER).is_none());
        let owner = [room.enter(OWNER).unwrap(), room.enter(OWNER).unwrap()];
        assert!(room.enter(THIRD).is_some(), "an idle one of the owner's goes: it has more than the newcomer");
        assert!(room.ended(&owner[0].1) && !room.ended(&owner[1].1));
        seated[3].0.idle();
        assert!(room.enter(OTHER).is_some());
    }

    #[test]
    fn room_is_made_by_whoever_has_most() {
        let room = Room::new();
        let owner = [room.enter(OWNER).unwrap(), room.enter(OWNER).unwrap()];
        let others: Vec<_> = (0..6).map(|_| room.enter(OTHER).unwrap()).collect();
        let _new = [room.enter(OWNER).unwrap(), room.enter(THIRD).unwrap()];
        assert!(owner.iter().all(|(_, connection)| !room.ended(connection)));
        assert!(room.ended(&others[0].1) && room.ended(&others[1].1) && !room.ended(&others[2].1));
    }

    #[test]
    fn a_place_that_was_left_is_free() {
        let room = Room::new();
        for _ in 0..100 {
            drop(room.enter(OWNER).unwrap());
        }
        assert!(room.places.lock().seats.is_empty() && room.places.lock().counts.is_empty());
    }
}
