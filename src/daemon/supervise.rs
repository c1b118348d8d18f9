//! Supervises the running daemon, and shuts it down in order.
//!
//! If the store's writer, sync, the server or the process checks end by themselves, the daemon shuts down with an
//! error, so that the service manager restarts it: a daemon of which one part is dead would look healthy.
//!
//! Order of the shutdown: the socket file is removed and new connections are refused; requests in progress finish; the
//! background tasks stop; sync makes its final push. Then no part holds the store, and its writer ends.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::live_settings::LiveSettings;
use super::reload::Reloads;
use super::signals::Signal;
use super::socket::SocketFile;
use super::sync_thread::SyncThread;
use super::{failure, systemd};
use crate::config::{Environment, Loaded, Overrides};
use crate::domain::LinkStatus;
use crate::shutdown::Stop;
use crate::store::Store;
use crate::wire::ErrorDetail;

/// The handles of all parts.
pub(super) struct RunningDaemon {
    pub store: Store,
    pub settings: LiveSettings,
    pub loaded: Loaded,
    pub link: watch::Receiver<LinkStatus>,
    pub server: JoinHandle<()>,
    pub liveness: JoinHandle<()>,
    /// End by themselves at shutdown.
    pub tasks: Vec<JoinHandle<()>>,
    /// Are aborted at shutdown: the status reports to systemd, and the socket keeper.
    pub helpers: [JoinHandle<()>; 2],
    pub socket_file: Arc<Mutex<Option<SocketFile>>>,
    pub stop_serving: Stop,
    pub sync: SyncThread,
}

impl RunningDaemon {
    /// Runs until a signal stops the daemon or one of its parts ends, then shuts down.
    ///
    /// # Errors
    /// A part ended by itself.
    pub(super) async fn run(
        mut self,
        mut signals: mpsc::UnboundedReceiver<Signal>,
        overrides: &Overrides,
        environment: &Environment<'_>,
    ) -> Result<(), ErrorDetail> {
        let mut reloads = Reloads::new(self.loaded.clone(), overrides, environment);
        let ended = loop {
            tokio::select! {
                signal = signals.recv() => match signal {
                    Some(Signal::Reload) => reloads.reload(&self.settings),
                    Some(Signal::Stop) | None => break Ok(()),
                },
                () = reloads.changed() => reloads.reload(&self.settings),
                () = self.store.stopped() => break Err("the store's writer"),
                () = sync_ended(self.link.clone()) => break Err("sync"),
                _ = &mut self.server => break Err("the socket's server"),
                _ = &mut self.liveness => break Err("the process checks"),
            }
        };
        self.shut_down().await;
        ended.map_err(failure::of_part)
    }

    async fn shut_down(self) {
        let Self { store, server, liveness, tasks, helpers, socket_file, stop_serving, sync, .. } = self;
        drop(store);
        tracing::info!("stopping");
        systemd::stopping();
        for helper in helpers {
            helper.abort();
        }
        // A check of the keeper that still runs finds no file, and so does not bind the socket again.
        drop(socket_file.lock().unwrap_or_else(PoisonError::into_inner).take());
        stop_serving.stop();
        for task in tasks.into_iter().chain([server, liveness]) {
            // The result of a task that has ended may have been taken by `run`.
            if !task.is_finished() {
                let _ = task.await;
            }
        }
        sync.finish().await;
    }
}

/// Returns when the last sender of the link's status is dropped, which sync holds.
async fn sync_ended(mut link: watch::Receiver<LinkStatus>) {
    while link.changed().await.is_ok() {}
}
