//! Where central's ledger stands for this host, and the numbers of the batches to come.
//!
//! `sessiond_hosts.batch` in central advances in the transaction that applies a batch, by a random step, so no number
//! is ever used twice, even after a restore. The store keeps the newest number that it has recorded as applied, and the
//! two numbers that may be applied next: one batch can be on its way while the result of the one before is recorded.
//!
//! **Invariant**: a ledger at a number that is neither recorded, announced as next, nor sent by this connection means
//! that central was restored from a backup. Everything is pushed again then.
//!
//! Recovery: a batch whose answer was lost, also by a crash, is found by the next handshake, because its number is one
//! of those that the store knows. A batch of an abandoned connection that arrives late finds the ledger advanced and
//! does nothing.

use crate::store::{BatchResult, Ledger};

#[derive(Default)]
pub(super) struct LedgerPosition {
    /// The newest batch that central has applied.
    applied: i64,
    /// The numbers sent since the store last recorded a result: central may or may not have applied them.
    sent: Vec<i64>,
    /// The numbers of the next two batches.
    next: [i64; 2],
}

impl LedgerPosition {
    /// The newest batch that central has applied.
    pub(super) fn applied(&self) -> i64 {
        self.applied
    }

    /// Starts at the number that central reported in the handshake.
    pub(super) fn start(&mut self, applied: i64, random: impl Fn() -> u64) {
        self.applied = applied;
        let next = step(applied, random());
        self.next = [next, step(next, random())];
    }

    /// Whether central's ledger stands at a number that this host does not know.
    pub(super) fn is_restored(&self, reported: i64, stored: &Ledger) -> bool {
        reported != stored.acked && !stored.next.contains(&reported) && !self.sent.contains(&reported)
    }

    /// The number of the batch that is about to be sent.
    pub(super) fn send_next(&mut self) -> i64 {
        let [number, _] = self.next;
        self.sent.push(number);
        number
    }

    /// Central has applied the next batch.
    pub(super) fn advance(&mut self, random: u64) {
        let [number, next] = self.next;
        self.applied = number;
        self.next = [next, step(next, random)];
    }

    /// The store has recorded all batches up to this one.
    pub(super) fn recorded(&mut self, acked: i64) {
        self.sent.retain(|number| *number > acked);
    }

    /// Adds the position to the result of a batch, so that the store records both at once.
    pub(super) fn stamp(&self, result: BatchResult) -> BatchResult {
        BatchResult { acked_batch: self.applied, next_batches: self.next, ..result }
    }
}

/// A number after this one that no other batch has had, even in a past that a restore has undone.
fn step(after: i64, random: u64) -> i64 {
    after + 1 + i64::from(random as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_number_means_a_restored_central() {
        let mut position = LedgerPosition::default();
        position.start(10, || 4);
        let stored = Ledger { acked: 10, next: vec![15, 20] };
        assert_eq!(position.send_next(), 15);
        for (reported, is_restored) in [(10, false), (15, false), (20, false), (9, true), (16, true)] {
            assert_eq!(position.is_restored(reported, &stored), is_restored, "{reported}");
        }
        position.advance(4);
        let before_the_crash = Ledger { acked: 3, next: vec![4, 5] };
        assert!(!position.is_restored(15, &before_the_crash), "sent by this connection");
        position.recorded(15);
        assert!(position.is_restored(15, &before_the_crash), "the store knows it from here on");
    }
}
