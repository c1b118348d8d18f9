//! Lower bounds (floors): the same HTTP stack with a fixed response, and one synced commit.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use rusqlite::Connection;
use sessiond::api::{self, Peer};
use sessiond::shutdown::{self, Stop};
use tempfile::TempDir;
use tower::ServiceExt;

/// The daemon's server with a fixed response to every request.
pub struct StaticServer {
    dir: TempDir,
    stop: Option<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl StaticServer {
    pub fn of(answer: &[u8]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("echo.sock")).expect("a socket");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let (stop, shutdown) = shutdown::channel();
        let answer = Bytes::copy_from_slice(answer);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let router = Router::new().fallback(move |_question: Bytes| async move {
                    ([(CONTENT_TYPE, "application/json")], answer.clone())
                });
                let listener = tokio::net::UnixListener::from_std(listener).expect("a listener");
                let answer = move |question| {
                    let router = router.clone();
                    async move { router.oneshot(question).await.unwrap_or_else(|never| match never {}) }
                };
                api::serve(
                    listener,
                    tokio::sync::mpsc::channel(1).1,
                    answer,
                    Arc::new(|_| Ok(Peer::of_user(0))),
                    shutdown,
                )
                .await;
            });
        });
        Self { dir, stop: Some(stop), thread: Some(thread) }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("echo.sock")
    }
}

impl Drop for StaticServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A database of one row, with the durability of the daemon's store.
pub struct OneRowDatabase {
    connection: Connection,
    _dir: TempDir,
}

impl OneRowDatabase {
    /// On the file system of `beside`.
    pub fn beside(beside: &Path) -> Self {
        let dir = tempfile::tempdir_in(beside).expect("a folder");
        let connection = Connection::open(dir.path().join("floor.db")).expect("a database");
        let set_up = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
             CREATE TABLE one (id INTEGER PRIMARY KEY, n INTEGER NOT NULL); INSERT INTO one VALUES (1, 0)";
        connection.execute_batch(set_up).expect("a table");
        Self { connection, _dir: dir }
    }

    pub fn commit(&self) {
        let update = self.connection.prepare_cached("UPDATE one SET n = n + 1 WHERE id = 1");
        update.and_then(|mut update| update.execute([])).expect("it is committed");
    }
}
