//! The thread that sync runs on, with a runtime of its own, so that sync never delays the socket's thread.

use std::thread::JoinHandle;

use crate::shutdown::Stop;
use crate::sync::postgres::{Postgres, PostgresOptions};
use crate::sync::supervise::supervise;
use crate::sync::worker::Worker;
use crate::wire::ErrorDetail;

use super::failure;

pub(super) struct SyncThread {
    stop: Stop,
    thread: JoinHandle<()>,
}

impl SyncThread {
    /// Runs `worker` until `stop` is signalled or dropped.
    pub(super) fn start<F>(worker: Worker<PostgresOptions, F>, stop: Stop) -> Result<Self, ErrorDetail>
    where
        F: Fn(&PostgresOptions) -> Postgres + Clone + Send + Sync + 'static,
    {
        let runtime = super::runtime()?;
        let thread = std::thread::Builder::new()
            .name("sync".into())
            .spawn(move || runtime.block_on(supervise(worker)))
            .map_err(|error| failure::of_io("the sync thread cannot start", &error))?;
        Ok(Self { stop, thread })
    }

    /// Stops sync after a final push of what is pending, as far as its deadline allows.
    pub(super) async fn finish(self) {
        self.stop.stop();
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("sync ended by a panic; unsynced sessions are pushed after the next start");
        }
    }
}
