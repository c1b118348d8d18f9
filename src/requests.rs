//! Requests of one part of the daemon to another, each with an answer: bounded in number and in time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};

/// A request that waits for its answer.
#[derive(Debug)]
pub struct Request<Q, A> {
    /// What is asked for.
    pub what: Q,
    /// Takes the answer. Dropped if there is none.
    pub reply: oneshot::Sender<A>,
}

/// Sends requests. Clones share it.
#[derive(Debug)]
pub struct Requester<Q, A> {
    requests: mpsc::Sender<Request<Q, A>>,
    patience: Duration,
}

impl<Q, A> Clone for Requester<Q, A> {
    fn clone(&self) -> Self {
        Self { requests: self.requests.clone(), patience: self.patience }
    }
}

/// The other end. Clones share it, so that a restarted part continues with the requests that wait.
#[derive(Debug)]
pub struct RequestQueue<Q, A>(Arc<Mutex<mpsc::Receiver<Request<Q, A>>>>);

impl<Q, A> Clone for RequestQueue<Q, A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// As many requests wait as may.
    TooMany,
    /// It took too long, or the other part gave up.
    NoAnswer,
}

/// Both ends. `most`: how many requests may wait. `patience`: how long an answer is waited for.
pub fn channel<Q, A>(most: usize, patience: Duration) -> (Requester<Q, A>, RequestQueue<Q, A>) {
    let (requests, receiver) = mpsc::channel(most);
    (Requester { requests, patience }, RequestQueue(Arc::new(Mutex::new(receiver))))
}

impl<Q, A> Requester<Q, A> {
    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn ask(&self, what: Q) -> Result<A, Unanswered> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(Request { what, reply }).map_err(|_| Unanswered::TooMany)?;
        match tokio::time::timeout(self.patience, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            _ => Err(Unanswered::NoAnswer),
        }
    }
}

impl<Q, A> RequestQueue<Q, A> {
    /// The next request whose answer is still awaited. Never returns if there can be none any more. Cancel safe.
    pub async fn next(&self) -> Request<Q, A> {
        loop {
            match self.0.lock().await.recv().await {
                Some(request) if request.reply.is_closed() => {}
                Some(request) => return request,
                None => return std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn request_is_answered_or_given_up() {
        let (requester, queue) = channel::<u32, u32>(1, Duration::from_millis(1));
        assert_eq!(requester.ask(1).await, Err(Unanswered::NoAnswer), "nobody answers");
        assert_eq!(requester.ask(2).await, Err(Unanswered::TooMany), "the first one still waits");
        let (patient, queue_of_patient) = channel::<u32, u32>(1, Duration::from_secs(600));
        let answering = tokio::spawn(async move {
            let request = queue_of_patient.next().await;
            request.reply.send(request.what + 1)
        });
        assert_eq!(patient.ask(3).await, Ok(4));
        answering.await.unwrap().unwrap();
        drop(requester);
        let skipped = tokio::time::timeout(Duration::from_millis(1), queue.next()).await;
        assert!(skipped.is_err(), "what nobody waits for is not performed");
    }
}
