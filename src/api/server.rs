//! Accepting connections: who gets in, how many at once, and how long each may take.

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

use super::front::REQUEST_TIMEOUT;
use super::places::{Place, Places};
use super::{ApiError, Peer};
use crate::shutdown::Shutdown;
use crate::wire::ErrorCode;

/// Connections served at once; for what comes beyond, idle ones have to go.
const CONNECTIONS: usize = 1024;
/// Connections of one user.
const SHARE: usize = CONNECTIONS / 4 * 3;
/// Connections that are turned away with an explanation at once; those beyond get none, and keep nobody waiting.
const TURNED_AWAY: usize = 64;
/// How long a client may take to send the head of a request, or be idle between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may live after the daemon was told to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the first request of somebody who has just come in may be on its way when the daemon is told to stop.
const ON_THE_WAY: Duration = Duration::from_millis(500);
/// How long one waits for somebody who may still be at a socket that is gone.
const LAST_CALL: Duration = Duration::from_millis(10);
/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// Decides from the connection itself who is there, and whether they may enter.
pub type Admission = Arc<dyn Fn(&UnixStream) -> Result<Peer, ApiError> + Send + Sync>;

/// Serves until told to shut down, then lets the requests under way finish.
///
/// `listeners`: the socket bound anew, each time its file was gone.
pub async fn serve<F, A>(
    mut listener: UnixListener,
    mut listeners: mpsc::Receiver<std::os::unix::net::UnixListener>,
    answer: F,
    admission: Admission,
    mut shutdown: Shutdown,
) where
    F: Fn(Request) -> A + Clone + Send + 'static,
    A: Future<Output = Response> + Send + 'static,
{
    let places = Places::new(CONNECTIONS, SHARE);
    let turned_away = Arc::new(Semaphore::new(TURNED_AWAY));
    let told = shutdown.clone();
    let mut connections = JoinSet::new();
    let receive = |stream: UnixStream, connections: &mut JoinSet<()>| {
        let seated = admission(&stream).and_then(|peer| Ok((peer, places.take(peer.uid).ok_or_else(full)?)));
        match seated {
            Ok((peer, place)) => {
                let place = Arc::new(place);
                let connection = connections.spawn(converse(stream, answer.clone(), peer, place.clone(), told.clone()));
                place.seats(connection);
            }
            Err(refusal) => {
                let Ok(place) = turned_away.clone().try_acquire_owned() else { return };
                connections.spawn(turn_away(stream, refusal, place));
            }
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            Some(bound) = listeners.recv() => {
                match UnixListener::from_std(bound) {
                    Ok(bound) => while_waiting(&std::mem::replace(&mut listener, bound), |stream| receive(stream, &mut connections)).await,
                    Err(error) => tracing::error!(%error, "the socket that was bound anew cannot be served"),
                }
                continue;
            }
            () = shutdown.requested() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: give the connections that are open time to end.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        receive(stream, &mut connections);
    }
    // Nobody else can answer those who wait at a socket that is gone; at one that stays, the next daemon does.
    if is_gone(&listener) {
        while_waiting(&listener, |stream| receive(stream, &mut connections)).await;
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!("some clients did not finish in time; their connections are cut");
    }
}

/// Receives the connections that wait at a socket that no new ones can reach.
async fn while_waiting(listener: &UnixListener, mut receive: impl FnMut(UnixStream)) {
    while let Ok(Ok((stream, _))) = tokio::time::timeout(LAST_CALL, listener.accept()).await {
        receive(stream);
    }
}

/// Has the socket's file been removed, so that nobody comes any more?
fn is_gone(listener: &UnixListener) -> bool {
    listener.local_addr().is_ok_and(|address| address.as_pathname().is_some_and(|path| !path.exists()))
}

fn full() -> ApiError {
    ApiError::new(
        ErrorCode::Unavailable,
        "each connection there may be has a request under way",
        "try again in a moment",
    )
}

/// Serves one connection, request after request.
async fn converse<F, A>(stream: UnixStream, answer: F, peer: Peer, place: Arc<Place>, mut shutdown: Shutdown)
where
    F: Fn(Request) -> A,
    A: Future<Output = Response>,
{
    place.idle();
    let spoke = Arc::new(Notify::new());
    let speaks = spoke.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        speaks.notify_one();
        let place = place.clone();
        place.idle();
        let mut request = request.map(|body| axum::body::Body::new(Arriving::new(body, place.clone())));
        request.extensions_mut().insert(peer);
        let answer = answer(request);
        async move {
            let answer = answer.await;
            place.idle();
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http(HEAD_TIMEOUT).serve_connection(patient(stream, REQUEST_TIMEOUT), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = shutdown.requested() => {
            // Whoever came in before the end is answered, too: its request may not have been read yet.
            tokio::select! {
                _ = &mut connection => return,
                () = spoke.notified() => {}
                () = tokio::time::sleep(ON_THE_WAY) => {}
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// The body of a request. Until its end has come, it is the daemon that waits.
struct Arriving {
    body: Incoming,
    place: Arc<Place>,
}

impl Arriving {
    fn new(body: Incoming, place: Arc<Place>) -> Self {
        let arriving = Self { body, place };
        arriving.look();
        arriving
    }

    fn look(&self) {
        if self.body.is_end_stream() {
            self.place.busy();
        }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.look();
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Answers the first request of a connection with a refusal, and hangs up.
async fn turn_away(stream: UnixStream, refusal: ApiError, _place: OwnedSemaphorePermit) {
    const PATIENCE: Duration = Duration::from_secs(1);
    let service = service_fn(move |_: hyper::Request<Incoming>| {
        let refusal = refusal.clone();
        async move { Ok::<_, Infallible>(refusal.into_response()) }
    });
    let mut builder = http(PATIENCE);
    let connection = builder.keep_alive(false).serve_connection(patient(stream, PATIENCE), service);
    let _ = tokio::time::timeout(2 * PATIENCE, connection).await;
}

fn http(head_timeout: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // A client that has sent all it wanted may close its half, and still gets its answer.
    builder.timer(TokioTimer::new()).header_read_timeout(head_timeout).max_buf_size(MAX_HEAD).half_close(true);
    builder
}

/// A stream that gives up on a client which does not read its answer.
fn patient(
    stream: UnixStream,
    write_timeout: Duration,
) -> TokioIo<Pin<Box<tokio_io_timeout::TimeoutStream<UnixStream>>>> {
    let mut stream = tokio_io_timeout::TimeoutStream::new(stream);
    stream.set_write_timeout(Some(write_timeout));
    TokioIo::new(Box::pin(stream))
}
