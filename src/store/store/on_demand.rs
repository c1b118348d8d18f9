//! Sessions that are not read ahead, and that somebody asked for.

use std::sync::Arc;

use crate::domain::Timestamp;
use crate::domain::on_demand::{Found, Question};
use crate::store::error::StoreError;
use crate::store::op::{Op, OpContext};
use crate::store::store::Store;
use crate::store::sync_state::mirror::{self, Turn};
use crate::store::sync_state::mirror_share::{self, Limit};
use crate::store::sync_state::on_demand::{self, Dropped};

impl Store {
    /// Imports what central answered to a question that was asked at `context.now`, in turns that are each short.
    pub async fn import_found(&self, question: Question, found: Found, context: OpContext) -> Result<(), StoreError> {
        let is_complete = !found.more;
        for turn in Turn::of_found(found.page) {
            let turn = Arc::new(turn);
            let import = || {
                let turn = turn.clone();
                self.writer.submit(move |db| mirror::import(&Op::new(db, context), &turn))
            };
            self.with_room(import).await?;
        }
        if is_complete {
            self.forget(Dropped::Unmet(question), context.now).await?;
        }
        while self.writer.submit(|db| mirror_share::make_room(db, Limit::Share)).await? {}
        Ok(())
    }

    /// Deletes what was asked for some time ago.
    pub async fn expire_on_demand(&self, now: Timestamp) -> Result<(), StoreError> {
        if self.read(|db| Ok(db.prepare_cached(ANY)?.exists([])?)).await? {
            self.forget(Dropped::Expired, now).await?;
        }
        Ok(())
    }

    async fn forget(&self, which: Dropped, now: Timestamp) -> Result<(), StoreError> {
        let which = Arc::new(which);
        loop {
            let turn = which.clone();
            if !self.writer.submit(move |db| on_demand::forget(db, &turn, now)).await? {
                return Ok(());
            }
        }
    }
}

/// Whether there is any such session.
const ANY: &str = "SELECT 1 FROM sessions INDEXED BY sessions_on_demand WHERE read_at IS NOT NULL LIMIT 1";
