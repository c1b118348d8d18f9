//! Accepts connections within limits and serves HTTP/1.1 on them.
//!
//! Limits: [`CONNECTIONS`] connections, of which [`super::routes::STREAMS`] may be event streams; 10 seconds for the head
//! of a request, which has at most 16 KiB; 20 seconds for each write to a client that does not read.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::routes::{Site, respond};
use crate::shutdown::Shutdown;

/// Connections at once. A further one is closed without an answer.
const CONNECTIONS: usize = 640;
/// How long a client may take to send the head of a request, or be idle between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// The most headers of a request.
const MAX_HEADERS: usize = 64;
/// How long to wait after a failed accept, most likely for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// How long requests under way may take once the end was requested.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves until the shutdown is requested.
///
/// # Errors
/// The listener cannot be used.
pub(super) async fn serve(listener: TcpListener, site: Arc<Site>, mut shutdown: Shutdown) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Ok(slot) = slots.clone().try_acquire_owned() {
                        connections.spawn(serve_connection(stream, site.clone(), slot, shutdown.clone()));
                    }
                }
                Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = shutdown.requested() => break,
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    // The rest is cut.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
    Ok(())
}

async fn serve_connection(stream: TcpStream, site: Arc<Site>, _slot: OwnedSemaphorePermit, mut shutdown: Shutdown) {
    let _ = stream.set_nodelay(true);
    let mut stream = tokio_io_timeout::TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let ending = shutdown.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (site, ending) = (site.clone(), ending.clone());
        async move { Ok::<_, Infallible>(respond(site, request.map(drop), ending).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
    let connection = builder.serve_connection(TokioIo::new(Box::pin(stream)), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = &mut connection => {}
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
