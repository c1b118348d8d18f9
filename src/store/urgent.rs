//! Counts urgent changes: those of more than a heartbeat's time, which sync pushes within a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Clones share the count.
#[derive(Clone, Default)]
pub(in crate::store) struct UrgentChanges {
    written: Arc<AtomicU64>,
    committed: Arc<AtomicU64>,
}

impl UrgentChanges {
    /// The open transaction contains an urgent change. If it fails, the next one counts as urgent, which is harmless.
    pub(in crate::store) fn write(&self) {
        self.written.fetch_add(1, Ordering::Relaxed);
    }

    /// The changes are committed: a reader that sees the new count sees them too.
    pub(in crate::store) fn committed(&self) {
        self.committed.store(self.written.load(Ordering::Relaxed), Ordering::Release);
    }

    /// How many urgent changes were committed since the daemon started.
    pub(in crate::store) fn count(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }
}
