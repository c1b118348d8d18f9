//! Reads everything that central has, page by page, behind everything else that is due.
//!
//! A host reads everything when it is new, and when its position is lost: central was restored or failed over, the store
//! was damaged. Pushes, heartbeats and changes of others do not wait for that: between two pages the driver performs what is
//! due, and pulls read what changes after the first page began. So a session of another host is here once it changes,
//! although the pages have not come to it.
//!
//! **Invariant: what the pages and the pulls beside them read is all that central has.** The pages go by id, which no change
//! moves. What changed before the first page is on the pages; what changed since is in the pulls, which begin at the
//! transaction that was the oldest one then. A session that a pull reads counts as met by the pages, since they may have
//! passed its id. The position in the store is written with the last page, and is the one to which the pulls have come.
//!
//! **Failure**: after a lost connection the reading continues behind its last page. After a restart of the daemon it begins
//! again; rows that are here are not written again.
//!
//! **Load**: central's time for a page decides how long the pause after it is (see `pacing`). In a large fleet a host needs one
//! of a few slots, which are leases in central: a roll-out of any size is as many readings at a time as there are slots. Only
//! the first page, which is small, needs none, so that a host that waits for a slot has the changes of others.

use std::time::Duration;

use super::central::{Central, CentralError};
use super::driver::{Driver, SyncError};
use super::pacing::{Fleet, ReadingShare};
use super::pull_state::{FullReading, Slot};
use super::replica::Replica;
use super::scheduler::Scheduler;
use crate::domain::mirror::{ChangePage, Continuation, PageSize, PullQuery};
use crate::domain::{TableState, Timestamp};

/// So many hosts of a large fleet read everything at the same time.
const SLOTS: u64 = 2;

/// How long a slot is taken for. A host that dies leaves it free after that.
const SLOT_LENGTH: Duration = Duration::from_secs(60);

/// A slot is taken for longer when less than this is left of it: no page takes as long.
const SLOT_RENEWED: Duration = Duration::from_secs(30);

/// The largest first page in a large fleet.
const FIRST_PAGE: PageSize = PageSize { rows: 20, bytes: 64 << 10 };

/// A reading that was interrupted for longer begins again: central forgets deletions.
const LONGEST_INTERRUPTION: Duration = Duration::from_secs(86_400);

/// The lease that is this slot.
fn lease(slot: u64) -> String {
    format!("sessiond/full_reading/{slot}")
}

impl<R: Replica, C: Central> Driver<R, C> {
    /// Reads a page of everything, if this host may now, and schedules the next one.
    pub(super) async fn read_all(&mut self, scheduler: &mut Scheduler) -> Result<(), SyncError> {
        let asked = self.now();
        if self.replica.mirror_position(asked).await? > 0 {
            self.pulling.full = None;
            scheduler.page_read(None);
            return Ok(());
        }
        let fleet = scheduler.fleet();
        _ = self.pulling.full.take_if(|full| asked.since(full.as_of) > LONGEST_INTERRUPTION);
        if self.pulling.full.is_none() && !fleet.is_small() {
            let usual = self.pulling.full_page_size;
            if usual.rows > FIRST_PAGE.rows {
                self.pulling.full_page_size = FIRST_PAGE;
            }
            let more = self.read_page_of_all(asked).await?;
            if self.pulling.full_page_size.rows > FIRST_PAGE.rows {
                self.pulling.full_page_size = usual;
            }
            scheduler.page_read(more.then(|| self.tick()));
            return Ok(());
        }
        let Some(share) = self.reading_share(fleet).await? else {
            scheduler.page_read(Some(self.tick() + fleet.slot_wait(self.random())));
            return Ok(());
        };
        let more = self.read_page_of_all(asked).await?;
        if more {
            let answers = &self.pulling.answers;
            let pause = share.pause(answers.last(), answers.slowness());
            scheduler.page_read(Some(self.tick() + pause));
        } else {
            scheduler.page_read(None);
            self.release_slot().await?;
        }
        Ok(())
    }

    /// Returns whether more is left to read.
    async fn read_page_of_all(&mut self, asked: Timestamp) -> Result<bool, SyncError> {
        let begun = self.pulling.full.as_ref().map(|full| (full.changes_since, full.as_of));
        let after = self.pulling.full.as_ref().map(|full| full.after.clone());
        let (page, scope, history) = (self.pulling.full_page_size, self.scope.clone(), self.history);
        let reading = PullQuery { after, page, scope, history, ..PullQuery::since(0) };
        let Some(mut changes) = self.pull_page(&reading).await? else { return Ok(true) };
        let snapshot = changes.snapshot.take();
        let next = next_page(&mut changes, begun, asked);
        let position = match &changes.rest {
            Continuation::Complete { next_since } => *next_since,
            _ => next.as_ref().map_or(0, |next| next.changes_since),
        };
        // The last page says as of when all of it is true.
        let as_of = begun.map(|(_, as_of)| as_of).filter(|_| next.is_none()).unwrap_or(asked);
        self.import(reading, changes, as_of).await?;
        if begun.is_none() {
            self.pulling.read = snapshot.map(|snapshot| (position, snapshot));
        }
        self.pulling.full = next;
        Ok(self.pulling.full.is_some())
    }

    /// Which share of central's time this host may read in; none: the slots are taken.
    async fn reading_share(&mut self, fleet: Fleet) -> Result<Option<ReadingShare>, SyncError> {
        if fleet.is_small() {
            return Ok(Some(ReadingShare::SmallFleet));
        }
        if self.tables.leases != TableState::Usable {
            return Ok(Some(ReadingShare::AllHosts(fleet)));
        }
        let now = self.tick();
        if self.pulling.slot.as_ref().is_some_and(|slot| slot.until > now + SLOT_RENEWED) {
            return Ok(Some(ReadingShare::Slot));
        }
        let number = self.pulling.slot.take().map_or_else(|| self.random() % SLOTS, |slot| slot.number);
        match self.central.take_leases(&[lease(number)], SLOT_LENGTH).await {
            Ok(taken) if taken.is_empty() => Ok(None),
            Ok(_) => {
                self.pulling.slot = Some(Slot { number, until: now + SLOT_LENGTH });
                Ok(Some(ReadingShare::Slot))
            }
            // Another host is taking it.
            Err(CentralError::Locked(_)) => Ok(None),
            Err(error @ (CentralError::Reject(_) | CentralError::Refused(_) | CentralError::SchemaMissing(_))) => {
                tracing::debug!(%error, "central gives no slots for readings of everything");
                Ok(Some(ReadingShare::AllHosts(fleet)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Lets another host have the slot. If that fails the slot becomes free by itself.
    async fn release_slot(&mut self) -> Result<(), SyncError> {
        let Some(slot) = self.pulling.slot.take() else { return Ok(()) };
        match self.central.take_leases(&[lease(slot.number)], Duration::ZERO).await {
            Err(error @ CentralError::Retry(_)) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Where the page after this one begins, if any. The last page gets the position to which pulls have come. `begun`: their
/// position and its time, if this is not the first page.
fn next_page(changes: &mut ChangePage, begun: Option<(u64, Timestamp)>, asked: Timestamp) -> Option<FullReading> {
    match &mut changes.rest {
        Continuation::More(after) => {
            let (changes_since, as_of) = begun.unwrap_or((after.next_since, asked));
            Some(FullReading { after: after.clone(), changes_since, as_of })
        }
        Continuation::Complete { next_since } => {
            *next_since = begun.map_or(*next_since, |(since, _)| since);
            None
        }
        Continuation::Restart => None,
    }
}

#[cfg(test)]
mod tests;
