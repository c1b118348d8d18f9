//! Where reading central stands, in memory and on disk.
//!
//! The last page of a reading that brought rows writes the position and the time into the store. A reading that
//! brought none advances both in memory only, and once a minute on disk. A crash loses no more than such quiet
//! advances: what the next daemon reads again from the older position on disk is nothing of other hosts.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::Timestamp;
use crate::domain::mirror::{ChangePage, Continuation, PullQuery};

/// How much older than the truth the time on disk may be.
const WRITTEN_EVERY: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(in crate::store) struct MirrorPosition(Mutex<State>);

#[derive(Default)]
struct State {
    /// When the mirror was last known to be true.
    as_of: Option<Timestamp>,
    /// The same as it is on disk.
    written_as_of: Option<Timestamp>,
    /// Where quiet readings have come to since the position was written.
    ahead: Option<Ahead>,
    /// A reading wrote rows, and not yet its position.
    unfinished: bool,
    /// Everything is read for the first time: all that is mirrored is of this reading and of the changes read beside it.
    is_first: bool,
}

/// Counts only while the position on disk is still the one that it is ahead of: who resets that one resets both.
#[derive(Clone, Copy)]
struct Ahead {
    of: u64,
    since: u64,
}

impl MirrorPosition {
    pub(in crate::store) fn new(as_of: Option<Timestamp>) -> Self {
        Self(Mutex::new(State { as_of, written_as_of: as_of, ..State::default() }))
    }

    pub(in crate::store) fn as_of(&self) -> Option<Timestamp> {
        self.lock().as_of
    }

    /// Where the next reading begins, given what is on disk.
    pub(in crate::store) fn since(&self, stored: u64) -> u64 {
        self.lock().ahead.filter(|ahead| ahead.of == stored).map_or(stored, |ahead| ahead.since)
    }

    /// Ends a reading that brought nothing, if nothing of it has to be written. Says whether it did.
    pub(in crate::store) fn advances_in_memory(
        &self,
        reading: &PullQuery,
        changes: &ChangePage,
        at: Timestamp,
    ) -> bool {
        let Continuation::Complete { next_since } = changes.rest else { return false };
        let mut state = self.lock();
        let recent = state.written_as_of.is_some_and(|written| at.since(written) < WRITTEN_EVERY);
        if reading.is_whole() || state.unfinished || !changes.is_empty() || !recent {
            return false;
        }
        let of = state.ahead.filter(|ahead| ahead.since == reading.since).map_or(reading.since, |ahead| ahead.of);
        state.ahead = Some(Ahead { of, since: next_since });
        state.as_of = Some(at);
        true
    }

    /// Rows of a reading are being written: its position has to be, too.
    pub(in crate::store) fn page_written(&self) {
        self.lock().unfinished = true;
    }

    /// A page was imported that was asked for at `at`. Before everything was read for the first time, what is mirrored is as
    /// new as the first page, and then as the changes that are read beside the others.
    pub(in crate::store) fn page_imported(&self, reading: &PullQuery, at: Timestamp) {
        let mut state = self.lock();
        let begins = reading.is_whole() && reading.after.is_none();
        state.is_first |= begins && state.as_of.is_none();
        if state.is_first && (begins || !reading.is_whole()) {
            state.as_of = Some(at);
        }
    }

    /// The position of a reading is on disk. `time_too`: so is the time.
    pub(in crate::store) fn written(&self, at: Timestamp, time_too: bool) {
        let mut state = self.lock();
        let written_as_of = if time_too { Some(at) } else { state.written_as_of };
        *state = State { as_of: Some(at), written_as_of, ..State::default() };
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::mirror::{PullPart, PullPosition};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn ends(next_since: u64) -> ChangePage {
        ChangePage { rest: Continuation::Complete { next_since }, ..ChangePage::default() }
    }

    #[test]
    fn quiet_readings_advance_in_memory_and_a_reset_on_disk_wins() {
        let position = MirrorPosition::new(Some(at(0)));
        assert!(position.advances_in_memory(&PullQuery::since(5), &ends(8), at(10)));
        assert_eq!((position.since(5), position.as_of()), (8, Some(at(10))));
        assert!(position.advances_in_memory(&PullQuery::since(8), &ends(9), at(20)));
        assert_eq!(position.since(5), 9);
        assert_eq!(position.since(0), 0, "everything is to be read");
        assert!(!position.advances_in_memory(&PullQuery::since(9), &ends(10), at(60)), "once a minute on disk");
    }

    #[test]
    fn what_is_mirrored_has_a_time_before_everything_was_read_for_the_first_time() {
        let position = MirrorPosition::new(None);
        let begin = PullQuery::since(0);
        let second = PullQuery { after: Some(PullPosition::start(PullPart::Sessions, 0, 5)), ..begin.clone() };
        position.page_imported(&begin, at(10));
        position.page_imported(&second, at(20));
        assert_eq!(position.as_of(), Some(at(10)));
        position.page_imported(&PullQuery::since(5), at(30));
        assert_eq!(position.as_of(), Some(at(30)));
        position.written(at(40), true);
        position.page_imported(&begin, at(50));
        position.page_imported(&PullQuery::since(5), at(60));
        assert_eq!(position.as_of(), Some(at(40)), "not all of it is read again");
    }

    #[test]
    fn a_reading_that_wrote_rows_writes_its_position_although_its_last_page_is_empty() {
        let position = MirrorPosition::new(Some(at(0)));
        position.page_written();
        assert!(!position.advances_in_memory(&PullQuery::since(5), &ends(8), at(1)));
        position.written(at(1), true);
        assert_eq!(position.since(8), 8);
        assert!(position.advances_in_memory(&PullQuery::since(8), &ends(9), at(2)));
    }
}
