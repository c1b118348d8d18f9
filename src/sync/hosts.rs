//! Reads when the other hosts were last in contact, and shares this host's rate limits.
//!
//! All hosts are read once in each heartbeat interval, and not for a notification. A host that joins is read alone, soon
//! after its handshake, so that a roll-out of many hosts costs each of the others one row a host. While many join, the
//! time between these readings doubles.
//!
//! Heartbeats are marked as changes from the reading that finds a daemon of an earlier version. What was pushed between its
//! first reading and this one was not marked, so all live sessions are pushed again then: otherwise it would judge them by
//! heartbeats that are older than `refresh_after` by as much again.

use super::central::{Central, CentralError};
use super::driver::{Driver, SyncError};
use super::pacing::Fleet;
use super::replica::Replica;
use super::scheduler::{Scheduler, SyncIntervals};
use crate::domain::TableState;
use crate::domain::mirror::HistoryReading;
use crate::domain::refresh::RefreshRule;

impl<R: Replica, C: Central> Driver<R, C> {
    /// Reads all hosts if they are due, and else those that joined.
    pub(super) async fn read_hosts(
        &mut self,
        intervals: SyncIntervals,
        scheduler: &mut Scheduler,
    ) -> Result<(), SyncError> {
        let now = self.tick();
        let joined = std::mem::take(&mut self.pulling.joined);
        if self.pulling.host_list_due <= now {
            self.share_limits().await?;
            let hosts = self.central.hosts(None).await?;
            let fleet = Fleet::of(&hosts);
            scheduler.set_fleet(fleet);
            self.choose_history_reading(fleet).await?;
            self.replica.replace_hosts(hosts).await?;
            self.pulling.host_list_due = now + intervals.heartbeat_interval;
            self.pulling.joined_readings = 0;
        } else if !joined.is_empty() {
            let hosts = self.central.hosts(Some(&joined)).await?;
            self.replica.add_hosts(hosts).await?;
            self.pulling.joined_readings += 1;
        }
        self.pulling.hosts_read = now;
        scheduler.hosts_read(self.pulling.host_list_due);
        self.check_triggers(intervals).await?;
        let marks_heartbeats = self.central.marks_heartbeats();
        if marks_heartbeats && !self.pulling.heartbeats_marked {
            let pushed_again = self.replica.refresh(RefreshRule::ALL_AGAIN, self.now()).await?;
            scheduler.refreshed(pushed_again > 0, now);
        }
        self.pulling.heartbeats_marked = marks_heartbeats;
        Ok(())
    }

    /// Decides whether the history of others' sessions is read ahead. Going back to that has everything read once more.
    async fn choose_history_reading(&mut self, fleet: Fleet) -> Result<(), SyncError> {
        let chosen = fleet.history_reading(self.history);
        if chosen == self.history {
            return Ok(());
        }
        if chosen == HistoryReading::Ahead {
            self.replica.reset_mirror_position().await?;
            (self.pulling.position, self.pulling.full) = (None, None);
        }
        // Last, so that a crash before it has the same decided again.
        self.replica.set_history_reading(chosen).await?;
        self.history = chosen;
        tracing::info!(
            "the history of other machines' sessions is read {}",
            match chosen {
                HistoryReading::Ahead => "ahead again, with everything else",
                HistoryReading::OnDemand => "on demand, because the fleet is large",
            }
        );
        Ok(())
    }

    /// Checks the triggers that mark changes, with every second reading of all hosts: what central does not mark is read
    /// with everything else.
    async fn check_triggers(&mut self, intervals: SyncIntervals) -> Result<(), SyncError> {
        if self.tick() >= self.pulling.triggers_checked + 2 * intervals.heartbeat_interval {
            let missing = self.central.missing_triggers().await?;
            self.triggers_checked(missing);
            self.report_answer();
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
