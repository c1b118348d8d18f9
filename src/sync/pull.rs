//! Pulls what other hosts and clients changed in central, page by page.
//!
//! A pull begins at the transaction number up to which the store has read everything, and ends with the page after
//! which nothing is left. The position within a pull lives in memory only: after a lost connection or a crash
//! the pull starts over, and rows that are unchanged cost nothing. The list of hosts is read, and this
//! host's rate limits are shared, before the first page, once in each heartbeat interval.
//!
//! The size of a page adapts: it doubles after a fast page and halves after a slow failure. A page with a row that
//! central cannot send is halved until that row is alone, and then skipped by the adapter.

use std::time::Duration;

use super::central::{Central, CentralError};
use super::driver::{Driver, SyncError};
use super::replica::Replica;
use super::scheduler::SyncIntervals;
use crate::domain::TableState;
use crate::domain::mirror::{ChangePage, Continuation, PageSize, PullQuery};
use crate::store::Renamed;

/// A page that took less is followed by larger ones, and one that failed after more by smaller ones.
const FAST_PAGE: Duration = Duration::from_millis(250);

impl<R: Replica, C: Central> Driver<R, C> {
    /// Pulls one page. Returns whether there is more to pull.
    pub(super) async fn pull(&mut self, intervals: SyncIntervals) -> Result<bool, SyncError> {
        if self.pulling.position.is_none() {
            self.pulling.began = self.tick();
            self.pull_host_list(intervals).await?;
        }
        // The page is at least as new as this.
        let asked = self.now();
        let since = self.replica.mirror_position(asked).await?;
        // A position within a pull means nothing to one that begins at another number.
        let after = self.pulling.position.clone().filter(|(begun, _)| *begun == since).map(|(_, after)| after);
        let reading = PullQuery { since, after, page: self.pulling.page_size };
        let Some(changes) = self.pull_page(&reading).await? else { return Ok(true) };
        let rest = changes.rest.clone();
        self.reporter.unreadable_rows(changes.unreadable);
        let imported = self.replica.import_page(reading, changes, self.op_context(asked)).await?;
        log_renamed(&imported.renamed);
        self.pulling.position = match rest {
            Continuation::More(position) => Some((since, position)),
            Continuation::Complete { .. } => None,
            Continuation::Restart => {
                tracing::warn!("central's transaction numbers went back (restored from a backup?); pulling everything");
                self.replica.reset_mirror_position().await?;
                return Ok(true);
            }
        };
        Ok(self.pulling.position.is_some())
    }

    /// Requests a page. `None` if a smaller one has to be requested instead.
    async fn pull_page(&mut self, reading: &PullQuery) -> Result<Option<ChangePage>, CentralError> {
        let began = self.tick();
        let answer = self.central.pull(reading).await;
        let took = self.tick().saturating_sub(began);
        let page_size = &mut self.pulling.page_size;
        match answer {
            Ok(changes) => {
                if took < FAST_PAGE {
                    *page_size = page_size.doubled();
                }
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

    async fn pull_host_list(&mut self, intervals: SyncIntervals) -> Result<(), SyncError> {
        let now = self.tick();
        if self.pulling.host_list_due <= now {
            self.share_limits().await?;
            let hosts = self.central.hosts().await?;
            self.replica.replace_hosts(hosts).await?;
            self.pulling.host_list_read = now;
            self.pulling.host_list_due = now + intervals.heartbeat_interval;
        }
        Ok(())
    }

    /// Shares the rate limits of this host if they changed. What central does not accept is left until they change.
    async fn share_limits(&mut self) -> Result<(), SyncError> {
        let limits = self.replica.own_limits(self.now()).await?;
        if self.tables.limits != TableState::Usable || self.pulling.shared_limits.as_ref() == Some(&limits) {
            return Ok(());
        }
        match self.central.share_limits(&limits).await {
            Err(error @ (CentralError::Reject(_) | CentralError::Refused(_))) => {
                tracing::warn!(%error, "central does not accept rate limits; everything else is shared");
            }
            // They are offered again with the next list of hosts.
            Err(CentralError::Locked(_)) => return Ok(()),
            shared => shared?,
        }
        self.pulling.shared_limits = Some(limits);
        Ok(())
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
