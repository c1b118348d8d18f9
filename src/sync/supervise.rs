//! Restarts the sync worker if a bug ends it, and reports that.

use crate::domain::LinkState;
use crate::domain::backoff::{CAP, full_jitter};

use super::central::Central;
use super::worker::Worker;

/// The backoff of the first restart is that of this attempt: a second rarely repairs what a bug has broken.
const FIRST_ATTEMPT: u32 = 2;

/// Runs sync until shutdown.
pub async fn supervise<S, C, F>(mut worker: Worker<S, F>)
where
    S: Clone + Send + Sync + 'static,
    C: Central + Sync + 'static,
    F: Fn(&S) -> C + Clone + Send + Sync + 'static,
{
    let mut attempt = FIRST_ATTEMPT;
    // A task of its own, because a panic ends a task and nothing else.
    while let Err(ended) = tokio::spawn(worker.clone().run()).await {
        let why = ended.try_into_panic().map_or_else(|ended| ended.to_string(), |panic| panic_message(&*panic));
        report(&worker, &format!("sync ended by a bug ({why}) and restarts automatically; please report it"));
        let wait = full_jitter(attempt, CAP, (worker.random)());
        attempt = attempt.saturating_add(1);
        worker.watchdog.expect_within(wait);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = worker.shutdown.requested() => return,
        }
        worker.is_restarted = true;
    }
}

/// The message of a panic, in one line.
fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").split(char::is_control).collect::<Vec<_>>().join(" ")
}

fn report<S, F>(worker: &Worker<S, F>, error: &str) {
    tracing::error!("{error}");
    let now = (worker.clock)();
    worker.link.send_modify(|link| {
        if link.state != LinkState::Unreachable {
            link.state = LinkState::Unreachable;
            link.since = now;
        }
        link.last_error = Some(error.to_owned());
        link.round_trip = None;
    });
}
