//! Answers questions about sessions that this host does not read ahead.
//!
//! A question waits until the worker has nothing else to do, so that this host has at most one question in central at a
//! time. What central answers is imported into the store before the requester is told, so that all that reads sessions
//! goes on reading the store. While central is unreachable there is no answer.

use std::time::Duration;

use super::central::Central;
use super::driver::Driver;
use super::replica::Replica;
use crate::domain::on_demand::{Answer, Question, Reply};
use crate::requests::{self, Request, RequestQueue, Requester};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many questions may wait.
const MAX_WAITING: usize = 4;

/// Asks central. Clones share it.
pub type Questions = Requester<Question, Reply>;

/// The worker's end; after a restart the next worker uses it.
pub type QuestionQueue = RequestQueue<Question, Reply>;

/// A way to ask, and the worker's end of it.
pub fn channel() -> (Questions, QuestionQueue) {
    requests::channel(MAX_WAITING, PATIENCE)
}

impl<R: Replica, C: Central> Driver<R, C> {
    /// Asks central, and imports what it has. After a failure the next action finds out what it means.
    pub async fn answer(&mut self, request: Request<Question, Reply>) {
        let reply = self.look_up(request.what).await;
        if let Err(why) = &reply {
            tracing::debug!(why, "a question to central has no answer");
        }
        drop(request.reply.send(reply));
    }

    async fn look_up(&mut self, question: Question) -> Reply {
        // The answer is at least as new as this.
        let asked = self.now();
        self.tick();
        let found = self.central.find(&question).await.map_err(|error| error.to_string())?;
        self.reporter.unreadable_rows(found.page.unreadable);
        let answer = Answer { sessions: found.page.sessions.len(), more: found.more };
        let imported = self.replica.import_found(question, found, self.op_context(asked)).await;
        imported.map_err(|error| error.to_string())?;
        Ok(answer)
    }
}
