//! The notifications that were sent.

use crate::domain::Timestamp;
use crate::store::error::StoreError;
use crate::store::store::Store;
use crate::store::tables::notified;

impl Store {
    /// Whether this notification was sent.
    pub async fn is_notified(&self, key: String) -> Result<bool, StoreError> {
        self.read(move |db| notified::contains(db, &key)).await
    }

    /// Records that this notification was sent at `at`.
    pub async fn record_notified(&self, key: String, at: Timestamp) -> Result<(), StoreError> {
        self.write(move |db| notified::insert(db, &key, at)).await
    }

    /// Forgets what was notified before, a bounded turn after the other.
    pub async fn forget_notified(&self, before: Timestamp) -> Result<(), StoreError> {
        if self.read(move |db| notified::any_before(db, before)).await? {
            while self.writer.submit(move |db| notified::delete_before(db, before)).await? {}
        }
        Ok(())
    }
}
