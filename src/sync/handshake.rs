//! The handshake with central, and the check of its tables for records.
//!
//! The handshake registers this host under its machine name, with the claim of this start of the daemon. Central
//! answers with the number of the newest batch it has applied, from which this host finds out whether a batch whose
//! answer was lost arrived, or whether central was restored from a backup (see `ledger`).
//!
//! Order matters: a rename changes the identity before the sessions, so the sessions are brought up to date before the
//! handshake, and none is pushed under a name that may belong to another host by now.

use super::central::{Central, HostRegistration};
use super::driver::{Driver, SyncError};
use super::held_rows::HeldRows;
use super::replica::Replica;
use crate::domain::{HistoryTables, MachineName, MirrorScope, RecordKind, TableState};
use crate::store::Identity;

impl<R: Replica, C: Central> Driver<R, C> {
    /// Connects, registers this host, and brings everything that depends on central's state up to date.
    pub(super) async fn handshake(&mut self) -> Result<(), SyncError> {
        let identity = self.replica.identity();
        self.replica.set_machine_name(identity.name.clone(), self.now()).await?;
        let stored = self.replica.ledger().await?;
        let registration = self.registration(&identity, stored.acked);
        let accepted = self.central.handshake(&registration).await?;
        self.replica.claim_accepted(registration.claim);
        self.held = HeldRows::default();
        self.record_tables(accepted.tables).await?;
        if self.ledger.is_restored(accepted.batch, &stored) {
            self.push_everything_again(accepted.batch, stored.acked).await?;
        }
        self.ledger.start(accepted.batch, &self.context.random);
        self.host_id = identity.host_id;
        self.marks_changes_only = accepted.marks_changes_only;
        self.replica.set_mirror_timeline(accepted.timeline.clone()).await?;
        self.replica.set_mirror_scope(scope_on(&self.scope, &identity.name)).await?;
        self.history = self.replica.history_reading().await?;
        self.pulling.follow_timeline(accepted.timeline, self.tick());
        self.triggers_checked(accepted.missing_triggers);
        Ok(())
    }

    /// Notes which triggers that mark changes central lacks.
    pub(super) fn triggers_checked(&mut self, missing: Vec<String>) {
        let now = self.tick();
        self.pulling.triggers_checked = now;
        self.pulling.set_changes_marked(missing.is_empty(), now);
        self.reporter.set_missing_triggers(missing);
    }

    fn registration(&self, identity: &Identity, acked_batch: i64) -> HostRegistration {
        HostRegistration {
            host_id: identity.host_id,
            machine: identity.name.clone(),
            claim: identity.claims.last().copied().unwrap_or_default(),
            own_claims: identity.own_claims(),
            acked_batch,
            former_host_ids: identity.former_host_ids.clone(),
            replace: identity.replace,
            version: self.context.version,
            stale_after: self.stale_after,
        }
    }

    async fn push_everything_again(&mut self, reported: i64, acked: i64) -> Result<(), SyncError> {
        let (sessions, records) = self.replica.forget_synced(reported, self.now()).await?;
        tracing::warn!(
            sessions,
            records,
            ledger = reported,
            known = acked,
            "central lost what it had (restored from a backup?); everything kept on this host is pushed again"
        );
        Ok(())
    }

    /// Checks which tables central has for records. Returns whether one can be used that could not be before.
    pub(super) async fn check_tables(&mut self) -> Result<bool, SyncError> {
        let tables = self.central.history_tables().await?;
        let freed = RecordKind::ALL.into_iter().any(|kind| !self.tables.is_usable(kind) && tables.is_usable(kind));
        self.record_tables(tables).await?;
        self.report_answer();
        Ok(freed)
    }

    async fn record_tables(&mut self, tables: HistoryTables) -> Result<(), SyncError> {
        RecordKind::ALL.into_iter().for_each(|kind| log_table(kind, &self.tables, &tables));
        self.replica.record_tables(tables.clone(), self.now()).await?;
        self.tables = tables;
        Ok(())
    }
}

/// What the store notes of a scope. This host's own sessions are in it by their machine's name.
fn scope_on(scope: &MirrorScope, name: &MachineName) -> String {
    if scope.is_all() { scope.to_string() } else { format!("{scope}, and machine {name}") }
}

/// Logs when a table begins or ceases to be blocked.
fn log_table(kind: RecordKind, before: &HistoryTables, now: &HistoryTables) {
    match (now.blocked(kind), before.blocked(kind)) {
        (Some(why), before) if before.as_ref() != Some(&why) => {
            tracing::warn!(table = kind.table(), "records wait: {why}");
        }
        (None, Some(_)) if *now.state(kind) == TableState::Usable => {
            tracing::info!(table = kind.table(), "central accepts records again");
        }
        _ => {}
    }
}
