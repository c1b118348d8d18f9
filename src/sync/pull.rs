//! Pulls what other hosts and clients changed in central, page by page.
//!
//! A pull begins at the transaction number up to which the store has read everything, and ends with the page after
//! which nothing is left. The position within a pull lives in memory only: after a lost connection or a crash
//! the pull starts over, and rows that are unchanged cost nothing. Where the store has no such number, everything is read
//! (see `full_reading`); pulls meanwhile keep their position in memory.
//!
//! A session of this host that the store does not have, because it was lost or central was restored, is disowned:
//! otherwise this host's reports would vouch for it for ever.
//!
//! The size of a page adapts: it doubles after a fast page and halves after a slow failure. A page with a row that
//! central cannot send is halved until that row is alone, and then skipped by the adapter.

use std::time::Duration;

use super::central::{Central, CentralError};
use super::driver::{Driver, SyncError};
use super::replica::Replica;
use super::scheduler::Scheduler;
use crate::domain::mirror::{ChangePage, Continuation, PageSize, PullPart, PullPosition, PullQuery};
use crate::domain::{InstanceId, Status, Timestamp};
use crate::store::Renamed;

/// A page that took less is followed by larger ones, and one that failed after more by smaller ones.
const FAST_PAGE: Duration = Duration::from_millis(250);

/// A page of everything that took longer is followed by smaller ones: a push may wait for its end.
const SLOW_PAGE: Duration = Duration::from_millis(500);

/// A row of work or of history takes central as long as so many sessions.
const SESSIONS_OF_A_LARGE_ROW: usize = 8;

impl<R: Replica, C: Central> Driver<R, C> {
    /// Pulls one page. Returns whether there is more to pull.
    pub(super) async fn pull(&mut self, scheduler: &mut Scheduler) -> Result<bool, SyncError> {
        if self.pulling.position.is_none() {
            self.pulling.began = self.tick();
            if self.pulling.begins_whole_pull(self.pulling.began) {
                self.replica.reset_mirror_position().await?;
            }
        }
        // The page is at least as new as this.
        let asked = self.now();
        let stored = self.replica.mirror_position(asked).await?;
        if stored == 0 {
            scheduler.read_all(self.tick());
        }
        let since = match (stored, &self.pulling.full) {
            (0, Some(full)) => full.changes_since,
            // Changes are read once the first page of everything is.
            (0, None) => return Ok(false),
            (stored, _) => stored,
        };
        // A position within a pull means nothing to one that begins at another number.
        let after = self.pulling.position.clone().filter(|(begun, _)| *begun == since).map(|(_, after)| after);
        let read = self.pulling.read.as_ref().filter(|(next, _)| *next == since && since > 0);
        let read = read.map(|(_, transactions)| transactions.clone());
        let (page, scope, history) = (self.pulling.page_size, self.scope.clone(), self.history);
        let reading = PullQuery { since, after, page, read, scope, history };
        let Some(mut changes) = self.pull_page(&reading).await? else { return Ok(true) };
        if reading.after.is_none() {
            self.pulling.snapshot = changes.snapshot.take();
        }
        let rest = changes.rest.clone();
        if stored == 0 {
            // The store gets its position with the last page of everything.
            changes.rest = Continuation::More(PullPosition::start(PullPart::Sessions, since, since));
        }
        self.import(reading, changes, asked).await?;
        self.pulling.position = match rest {
            Continuation::More(position) => Some((since, position)),
            Continuation::Complete { next_since } => {
                let oldest = self.pulling.completed(next_since, asked);
                self.reporter.set_long_transaction(oldest);
                if let Some(full) = self.pulling.full.as_mut().filter(|_| stored == 0) {
                    (full.changes_since, full.as_of) = (next_since, asked);
                }
                None
            }
            Continuation::Restart => {
                tracing::warn!("central's transaction numbers went back (restored from a backup?); pulling everything");
                self.replica.reset_mirror_position().await?;
                self.pulling.full = None;
                return Ok(true);
            }
        };
        Ok(self.pulling.position.is_some())
    }

    /// Imports a page that is at least as new as `as_of`.
    pub(super) async fn import(
        &mut self,
        reading: PullQuery,
        mut changes: ChangePage,
        as_of: Timestamp,
    ) -> Result<(), SyncError> {
        let own = self.take_own(&mut changes);
        self.reporter.unreadable_rows(changes.unreadable);
        let imported = self.replica.import_page(reading, changes, self.op_context(as_of)).await?;
        log_renamed(&imported.renamed);
        self.disown_missing(own).await
    }

    /// This host vouches for no session by what central says. Returns those that central has as written last by it and active.
    fn take_own(&self, changes: &mut ChangePage) -> Vec<InstanceId> {
        let own = changes.sessions.iter_mut().filter(|session| session.vouched_by == Some(self.host_id));
        own.filter_map(|session| {
            session.vouched_by = None;
            (session.status == Status::Active).then(|| session.instance_id.clone())
        })
        .collect()
    }

    /// Turns those of these sessions stale in central that are not in this host's store.
    async fn disown_missing(&mut self, ids: Vec<InstanceId>) -> Result<(), SyncError> {
        if ids.is_empty() {
            return Ok(());
        }
        let missing = self.replica.not_own(ids).await?;
        if missing.is_empty() {
            return Ok(());
        }
        match self.central.disown(&missing).await {
            Ok(()) => tracing::warn!(
                sessions = missing.len(),
                "central has active sessions of this host that its store lacks; they are stale now"
            ),
            // They are found again by the next reading of everything.
            Err(error @ (CentralError::Reject(_) | CentralError::Refused(_) | CentralError::Locked(_))) => {
                tracing::warn!(%error, "central does not let active sessions that this host lacks turn stale");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Requests a page. `None` if a smaller one has to be requested instead.
    pub(super) async fn pull_page(&mut self, reading: &PullQuery) -> Result<Option<ChangePage>, CentralError> {
        let began = self.tick();
        let answer = self.central.pull(reading).await;
        let took = self.tick().saturating_sub(began);
        let is_whole = reading.is_whole();
        let pulling = &mut self.pulling;
        let page_size = if is_whole { &mut pulling.full_page_size } else { &mut pulling.page_size };
        match answer {
            Ok(changes) => {
                if took < FAST_PAGE {
                    *page_size = page_size.doubled();
                } else if is_whole && took > SLOW_PAGE {
                    *page_size = page_size.halved();
                }
                let large = changes.work.len() + changes.history.len();
                let rows = changes.sessions.len() + changes.gone.len() + large * SESSIONS_OF_A_LARGE_ROW;
                pulling.answers.record(took, rows);
                Ok(Some(changes))
            }
            // A row of the page is at fault.
            Err(CentralError::Reject(_)) if *page_size != PageSize::SMALLEST => {
                *page_size = page_size.halved();
                Ok(None)
            }
            Err(error) => {
                // Also where a short statement_timeout ended it.
                if took > FAST_PAGE {
                    *page_size = page_size.halved();
                }
                Err(error)
            }
        }
    }
}

/// Logs the sessions of this host that got a new id.
pub(super) fn log_renamed(renamed: &[Renamed]) {
    for session in renamed {
        tracing::warn!(
            from = %session.from,
            to = %session.to,
            "another session has this id in central; this one got a new id, and the old one still resolves on this host"
        );
    }
}
