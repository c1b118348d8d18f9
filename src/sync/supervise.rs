//! Keeps sync at work: should it end by a bug, people are told, and it begins anew.

use crate::domain::LinkState;
use crate::domain::backoff::{CAP, full_jitter};

use super::central::Central;
use super::worker::Worker;

/// A few attempts ahead: what a bug has broken is rarely mended within a second.
const ATTEMPTS_AHEAD: u32 = 2;

/// Runs sync until it is told to shut down.
pub async fn supervise<S, C, F>(mut worker: Worker<S, F>)
where
    S: Clone + Send + Sync + 'static,
    C: Central + Sync + 'static,
    F: Fn(&S) -> C + Clone + Send + Sync + 'static,
{
    let mut attempt = ATTEMPTS_AHEAD;
    // A task of its own, because a panic ends a task and nothing else.
    while let Err(ended) = tokio::spawn(worker.clone().run()).await {
        let why = ended.try_into_panic().map_or_else(|ended| ended.to_string(), |panic| words(&*panic));
        tell(&worker, &format!("sync ended by a bug ({why}) and begins anew by itself; please report it"));
        let wait = full_jitter(attempt, CAP, (worker.random)());
        attempt = attempt.saturating_add(1);
        worker.progress.at_rest(wait);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = worker.shutdown.requested() => return,
        }
        worker.begins_anew = true;
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it left no word").split(char::is_control).collect::<Vec<_>>().join(" ")
}

fn tell<S, F>(worker: &Worker<S, F>, what: &str) {
    tracing::error!("{what}");
    let now = (worker.clock)();
    worker.link.send_modify(|link| {
        if link.state != LinkState::Unreachable {
            link.state = LinkState::Unreachable;
            link.since = now;
        }
        link.last_error = Some(what.to_owned());
        link.round_trip = None;
    });
}
