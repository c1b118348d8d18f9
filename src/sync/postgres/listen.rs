//! Being told of changes at once, over a connection of its own: a connection that listens cannot ask.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::link::{Link, column};
use crate::sync::central::CentralError;

/// The channel on which triggers tell of changes; the payload is the host that made them, if one did.
const CHANNEL: &str = "sessiond";

const WHO_SERVES: &str = "SELECT pg_backend_pid()";

/// How long after a failure it is tried to listen again.
const AGAIN: Duration = Duration::from_secs(30);

/// Listens until it is dropped.
#[derive(Debug)]
pub(super) struct Ear {
    heard: Arc<Notify>,
    task: JoinHandle<()>,
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
            // A pooler would have us listen on a connection that is somebody else's a moment later.
            if !is_direct(link, &mut listener).await.ok()? {
                return None;
            }
            listener.listen(CHANNEL).await.ok()?;
            Some(listener)
        };
        let listener = timeout(limit, opening).await.ok().flatten()?;
        let heard = Arc::new(Notify::new());
        Some(Self { heard: heard.clone(), task: tokio::spawn(listen(listener, heard, own)) })
    }

    /// Returns when somebody else has changed something.
    pub(super) async fn heard(&self) {
        self.heard.notified().await;
    }
}

async fn listen(mut listener: PgListener, heard: Arc<Notify>, own: String) {
    loop {
        match listener.try_recv().await {
            Ok(Some(told)) if told.payload() == own => {}
            // After a break nobody knows what was missed.
            Ok(_) => heard.notify_one(),
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

/// Does each of the two connections lead to a server process of its own, always the same? A pooler in
/// transaction mode gives the process that one has just left to the other.
async fn is_direct(link: &mut Link, listener: &mut PgListener) -> Result<bool, CentralError> {
    link.begin().await?;
    let mine = link.rows(sqlx::query(WHO_SERVES)).await?.first().map(|row| column::<i32>(row, 0)).transpose()?;
    let meanwhile = serves(listener).await;
    link.commit().await?;
    let afterwards = serves(listener).await;
    Ok(afterwards.is_some() && afterwards == meanwhile && afterwards != mine)
}

async fn serves(listener: &mut PgListener) -> Option<i32> {
    sqlx::query_scalar(WHO_SERVES).persistent(false).fetch_one(listener).await.ok()
}
