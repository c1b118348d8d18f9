//! Whether what was written is more than a sign of life, for whoever has to carry it on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts news. Clones share the count.
#[derive(Clone, Default)]
pub(in crate::store) struct UrgentChanges {
    written: Arc<AtomicU64>,
    committed: Arc<AtomicU64>,
}

impl UrgentChanges {
    /// The open transaction writes some. Should it fail, the next one is taken for news, which harms nobody.
    pub fn write(&self) {
        self.written.fetch_add(1, Ordering::Relaxed);
    }

    /// What was written can be read now; whoever sees the count will find it.
    pub fn committed(&self) {
        self.committed.store(self.written.load(Ordering::Relaxed), Ordering::Release);
    }

    /// How much there has been since the daemon started.
    pub fn count(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }
}
