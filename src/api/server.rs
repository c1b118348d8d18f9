//! Accepts connections on the Unix socket, checks who connects, and serves HTTP/1.1 on them.
//!
//! Limits: [`CONNECTIONS`] connections, [`PER_USER`] of one user (see [`super::connections`]), [`REFUSALS`] refusals at
//! once; time limits for the head, the request ([`REQUEST_TIMEOUT`]) and for each write to a client that does not read.
//!
//! Shutdown: no connection is accepted any more. A connection that has not sent its first request yet gets
//! [`FIRST_REQUEST_GRACE`] for it, requests under way are completed, and after [`DRAIN_TIMEOUT`] the rest is cut.
//! Where the socket's file was removed, connections still queued on the old socket are accepted first: no other
//! process can reach them.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::connections::{ConnectionLimiter, ConnectionSlot};
use super::handler::REQUEST_TIMEOUT;
use super::{ApiError, Peer};
use crate::shutdown::Shutdown;
use crate::wire::ErrorCode;

/// Connections served at once; for a further one an idle one is closed.
const CONNECTIONS: usize = 1024;
/// Connections of one user.
const PER_USER: usize = CONNECTIONS / 4 * 3;
/// Connections that are being refused with an explanation at once; further ones are closed without one.
const REFUSALS: usize = 64;
/// How long a client may take to send the head of a request, or be idle between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a refused client may take for each of its request's head and the reading of the refusal.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long connections may last after the shutdown was requested.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection's first request may take to arrive after the shutdown was requested.
const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(500);
/// How long to wait for each connection that may still be queued on a removed socket.
const QUEUED_CONNECTION_WAIT: Duration = Duration::from_millis(10);
/// How long to wait after a failed accept, most likely for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// Identifies the process at the other end of a connection, or refuses it.
pub type AccessPolicy = Arc<dyn Fn(&UnixStream) -> Result<Peer, ApiError> + Send + Sync>;

/// Serves until the shutdown is requested, then completes the requests under way.
///
/// `listeners`: replacements for `listener`, one each time the socket's file was removed and the socket bound again.
pub async fn serve<F, R>(
    mut listener: UnixListener,
    mut listeners: mpsc::Receiver<std::os::unix::net::UnixListener>,
    handle: F,
    access: AccessPolicy,
    mut shutdown: Shutdown,
) where
    F: Fn(Request) -> R + Clone + Send + 'static,
    R: Future<Output = Response> + Send + 'static,
{
    let mut acceptor = Acceptor {
        handle,
        access,
        limiter: ConnectionLimiter::new(CONNECTIONS, PER_USER),
        refusals: Arc::new(Semaphore::new(REFUSALS)),
        shutdown: shutdown.clone(),
        connections: JoinSet::new(),
    };
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => acceptor.accept(stream),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
            Some(_) = acceptor.connections.join_next(), if !acceptor.connections.is_empty() => {}
            Some(replacement) = listeners.recv() => match UnixListener::from_std(replacement) {
                Ok(replacement) => acceptor.accept_queued(&std::mem::replace(&mut listener, replacement)).await,
                Err(error) => tracing::error!(%error, "the socket that was bound again cannot be served"),
            },
            () = shutdown.requested() => break,
        }
    }
    // Connections queued on a socket that still has its file are accepted by the next daemon.
    if is_removed(&listener) {
        acceptor.accept_queued(&listener).await;
    }
    drop(listener);
    acceptor.drain().await;
}

/// Starts a task for each accepted connection.
struct Acceptor<F> {
    handle: F,
    access: AccessPolicy,
    limiter: ConnectionLimiter,
    refusals: Arc<Semaphore>,
    shutdown: Shutdown,
    connections: JoinSet<()>,
}

impl<F, R> Acceptor<F>
where
    F: Fn(Request) -> R + Clone + Send + 'static,
    R: Future<Output = Response> + Send + 'static,
{
    /// Serves the connection, or refuses it.
    fn accept(&mut self, stream: UnixStream) {
        let admitted = (self.access)(&stream)
            .and_then(|peer| Ok((peer, self.limiter.acquire(peer.uid).ok_or_else(all_connections_busy)?)));
        match admitted {
            Ok((peer, slot)) => {
                let slot = Arc::new(slot);
                let serving = serve_connection(stream, self.handle.clone(), peer, slot.clone(), self.shutdown.clone());
                slot.set_connection(self.connections.spawn(serving));
            }
            Err(refusal) => {
                let Ok(permit) = self.refusals.clone().try_acquire_owned() else { return };
                self.connections.spawn(refuse_connection(stream, refusal, permit));
            }
        }
    }

    /// Accepts the connections queued on a socket that no client can reach any more.
    async fn accept_queued(&mut self, listener: &UnixListener) {
        while let Ok(Ok((stream, _))) = tokio::time::timeout(QUEUED_CONNECTION_WAIT, listener.accept()).await {
            self.accept(stream);
        }
    }

    /// Waits for the connections to end, at most [`DRAIN_TIMEOUT`].
    async fn drain(mut self) {
        let drained = async { while self.connections.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            tracing::warn!("some clients did not finish in time; their connections are cut");
        }
    }
}

/// Whether the socket's file has been removed, so that no client can connect any more.
fn is_removed(listener: &UnixListener) -> bool {
    listener.local_addr().is_ok_and(|address| address.as_pathname().is_some_and(|path| !path.exists()))
}

fn all_connections_busy() -> ApiError {
    ApiError::new(
        ErrorCode::Unavailable,
        "all connections that this user may have are busy with a request",
        "try again in a second",
    )
}

/// Serves one connection, request after request.
async fn serve_connection<F, R>(
    stream: UnixStream,
    handle: F,
    peer: Peer,
    slot: Arc<ConnectionSlot>,
    mut shutdown: Shutdown,
) where
    F: Fn(Request) -> R,
    R: Future<Output = Response>,
{
    slot.set_idle();
    let first_request = Arc::new(Notify::new());
    let received = first_request.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        received.notify_one();
        let slot = slot.clone();
        slot.set_idle();
        let mut request = request.map(|body| axum::body::Body::new(RequestBody::new(body, slot.clone())));
        request.extensions_mut().insert(peer);
        let response = handle(request);
        async move {
            let response = response.await;
            slot.set_idle();
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http(HEAD_TIMEOUT).serve_connection(with_write_timeout(stream, REQUEST_TIMEOUT), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = shutdown.requested() => {
            // The first request may have been sent before the shutdown without having been read yet.
            tokio::select! {
                _ = &mut connection => return,
                () = first_request.notified() => {}
                () = tokio::time::sleep(FIRST_REQUEST_GRACE) => {}
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// The body of a request. It marks the connection's slot busy once it has arrived completely: until then the daemon
/// waits for the client.
struct RequestBody {
    body: Incoming,
    slot: Arc<ConnectionSlot>,
}

impl RequestBody {
    fn new(body: Incoming, slot: Arc<ConnectionSlot>) -> Self {
        let body = Self { body, slot };
        body.mark_if_complete();
        body
    }

    fn mark_if_complete(&self) {
        if self.body.is_end_stream() {
            self.slot.set_busy();
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.mark_if_complete();
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Answers the first request of a connection with the refusal, and closes it.
async fn refuse_connection(stream: UnixStream, refusal: ApiError, _permit: OwnedSemaphorePermit) {
    let service = service_fn(move |_: hyper::Request<Incoming>| {
        let refusal = refusal.clone();
        async move { Ok::<_, Infallible>(refusal.into_response()) }
    });
    let mut builder = http(REFUSAL_TIMEOUT);
    let stream = with_write_timeout(stream, REFUSAL_TIMEOUT);
    let connection = builder.keep_alive(false).serve_connection(stream, service);
    let _ = tokio::time::timeout(2 * REFUSAL_TIMEOUT, connection).await;
}

fn http(head_timeout: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // A client may close its half of the connection after its last request, and still gets the response.
    builder.timer(TokioTimer::new()).header_read_timeout(head_timeout).max_buf_size(MAX_HEAD).half_close(true);
    builder
}

/// A stream whose writes fail after `write_timeout` if the client does not read.
fn with_write_timeout(
    stream: UnixStream,
    write_timeout: Duration,
) -> TokioIo<Pin<Box<tokio_io_timeout::TimeoutStream<UnixStream>>>> {
    let mut stream = tokio_io_timeout::TimeoutStream::new(stream);
    stream.set_write_timeout(Some(write_timeout));
    TokioIo::new(Box::pin(stream))
}
