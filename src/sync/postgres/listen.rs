//! Being told of changes at once, over a connection of its own: a connection that listens cannot ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::link::{Link, column};
use crate::sync::central::{Announcement, CentralError};

/// The channel on which triggers tell of changes; the payload is the host that made them, if one did.
const CHANNEL: &str = "sessiond";

const WHO_SERVES: &str = "SELECT pg_backend_pid()";

/// A connection that is silent for so long is asked whether it still lives: one that a router has forgotten, or whose
/// server is gone without a word, brings nothing for ever.
const SILENT: Duration = Duration::from_secs(10);

/// What the payload of a notification begins with that a daemon sends as it greets central.
pub(super) const GREETING: &str = "host ";

/// Listens until it is dropped, or its connection is lost.
#[derive(Debug)]
pub(super) struct Ear {
    heard: Arc<Heard>,
    task: JoinHandle<()>,
}

/// What was heard and not yet handed on.
#[derive(Debug, Default)]
struct Heard {
    something: Notify,
    a_host: AtomicBool,
    lost: AtomicBool,
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ear {
    /// Opens the second connection. None where central cannot tell, or does not let it in.
    pub(super) async fn open(link: &mut Link, limit: Duration, own: String) -> Option<Self> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(limit)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_lazy_with(link.login().clone());
        let opening = async {
            let mut listener = PgListener::connect_with(&pool).await.ok()?;
            listener.eager_reconnect(false);
            // A pooler would have us listen on a connection that is somebody else's a moment later.
            let server = is_direct(link, &mut listener).await.ok()??;
            listener.listen(CHANNEL).await.ok()?;
            Some((listener, server))
        };
        let (listener, server) = timeout(limit, opening).await.ok().flatten()?;
        let heard = Arc::new(Heard::default());
        let task = listen(listener, server, limit, heard.clone(), own);
        Some(Self { heard, task: tokio::spawn(task) })
    }

    /// Returns when something is announced; never again after the connection was lost.
    pub(super) async fn heard(&self) -> Announcement {
        self.heard.something.notified().await;
        if self.heard.lost.load(Ordering::Acquire) {
            return Announcement::Lost;
        }
        match self.heard.a_host.swap(false, Ordering::AcqRel) {
            true => Announcement::Host,
            false => Announcement::Changes,
        }
    }
}

async fn listen(mut listener: PgListener, server: i32, limit: Duration, heard: Arc<Heard>, own: String) {
    loop {
        match timeout(SILENT, listener.try_recv()).await {
            Ok(Ok(Some(told))) => match told.payload().strip_prefix(GREETING) {
                Some(host) if host == own => {}
                Some(_) => {
                    heard.a_host.store(true, Ordering::Release);
                    heard.something.notify_one();
                }
                None if told.payload() == own => {}
                None => heard.something.notify_one(),
            },
            // Silence; what is notified meanwhile is kept for the next turn.
            Err(_) if timeout(limit, serves(&mut listener)).await.ok().flatten() == Some(server) => {}
            Ok(Ok(None) | Err(_)) | Err(_) => break,
        }
    }
    heard.lost.store(true, Ordering::Release);
    heard.something.notify_one();
}

/// The server process behind the listener, if each of the two connections leads to one of its own, always the same. A
/// pooler in transaction mode gives the process that one has just left to the other.
async fn is_direct(link: &mut Link, listener: &mut PgListener) -> Result<Option<i32>, CentralError> {
    link.begin().await?;
    let mine = link.rows(sqlx::query(WHO_SERVES)).await?.first().map(|row| column::<i32>(row, 0)).transpose()?;
    let meanwhile = serves(listener).await;
    link.commit().await?;
    let afterwards = serves(listener).await;
    Ok(afterwards.filter(|_| afterwards == meanwhile && afterwards != mine))
}

async fn serves(listener: &mut PgListener) -> Option<i32> {
    sqlx::query_scalar(WHO_SERVES).persistent(false).fetch_one(listener).await.ok()
}
