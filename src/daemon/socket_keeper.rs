//! Keeps the daemon's socket reachable by its path.
//!
//! A program that cleans up /tmp or /run/user may remove the socket's file; the daemon would run on, and no client could
//! connect. So the path is checked every three seconds, and the socket is bound again if its file was removed or
//! replaced. A socket that systemd owns cannot be bound here: that its file is missing is reported in the status.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::socket::{FileId, SocketFile, bind};
use crate::api::SocketState;
use crate::config::SocketSettings;

/// How often the path is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(3);

/// Keeps a socket reachable by its path.
pub(super) struct SocketKeeper {
    path: PathBuf,
    mode: u32,
    group: Option<u32>,
    /// None for an inherited socket, and once the daemon shuts down.
    file: Arc<Mutex<Option<SocketFile>>>,
    /// The file of an inherited socket, as it was at the start.
    inherited: Option<FileId>,
    state: watch::Sender<SocketState>,
}

impl SocketKeeper {
    /// Keeps the socket of `file`, or an inherited one if there is no file.
    pub(super) fn new(settings: &SocketSettings, group: Option<u32>, file: Option<SocketFile>) -> Self {
        let SocketSettings { path, mode, .. } = settings;
        let inherited = if file.is_none() { FileId::at(path).ok() } else { None };
        let state = SocketState { path: path.display().to_string(), inherited: file.is_none(), error: None };
        let file = Arc::new(Mutex::new(file));
        Self { path: path.clone(), mode: *mode, group, file, inherited, state: watch::Sender::new(state) }
    }

    pub(super) fn state(&self) -> watch::Receiver<SocketState> {
        self.state.subscribe()
    }

    /// The socket file. Taking it stops the keeper from binding the socket again; dropping it removes the file.
    pub(super) fn file(&self) -> Arc<Mutex<Option<SocketFile>>> {
        self.file.clone()
    }

    /// Checks the path at an interval, and sends each new listener. Returns when the receiver is dropped.
    pub(super) async fn run(self, listeners: mpsc::Sender<UnixListener>) {
        let keeper = Arc::new(self);
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let checked = keeper.clone();
            let Ok(bound) = tokio::task::spawn_blocking(move || checked.check()).await else { continue };
            if let Some(listener) = bound
                && listeners.send(listener).await.is_err()
            {
                return;
            }
        }
    }

    /// Binds the socket again if the path does not lead to it any more, and returns the new listener.
    fn check(&self) -> Option<UnixListener> {
        if self.state.borrow().inherited {
            let error = (self.inherited.is_some() && !self.inherited_is_in_place())
                .then(|| "its file was removed or replaced; run `systemctl restart sessiond.socket`".to_owned());
            self.report(error);
            return None;
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // None: the daemon is shutting down.
        if file.as_mut()?.is_in_place() {
            self.report(None);
            return None;
        }
        match bind(&self.path, self.mode, self.group) {
            Ok((listener, new)) => {
                *file = Some(new);
                tracing::warn!(socket = %self.path.display(), "the socket's file was removed or replaced; the socket is bound again");
                self.report(None);
                Some(listener)
            }
            Err(error) => {
                self.report(Some(format!("its file was removed or replaced, and it cannot be bound again: {error}")));
                None
            }
        }
    }

    fn inherited_is_in_place(&self) -> bool {
        FileId::at(&self.path).is_ok_and(|now| self.inherited.is_some_and(|then| now.has_same_inode(then)))
    }

    fn report(&self, error: Option<String>) {
        self.state.send_if_modified(|state| {
            let changed = state.error != error;
            if changed && let Some(error) = &error {
                tracing::error!(socket = state.path, error, "clients cannot reach the daemon by its socket");
            }
            state.error = error;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;
    use std::path::Path;

    use super::*;

    fn settings(path: &Path) -> SocketSettings {
        SocketSettings { path: path.to_owned(), mode: 0o660, group: None }
    }

    #[test]
    fn binds_a_removed_or_replaced_socket_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/user/sessiond.sock");
        let (_listener, file) = bind(&path, 0o660, None).unwrap();
        let keeper = SocketKeeper::new(&settings(&path), None, Some(file));
        assert!(keeper.check().is_none());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(keeper.check().is_none(), "a changed mode is not a replacement");

        let mut listeners = Vec::new();
        for remove in
            [&|| fs::remove_file(&path).unwrap(), &|| fs::remove_dir_all(dir.path().join("run")).unwrap(), &|| {
                fs::remove_file(&path).unwrap();
                drop(UnixListener::bind(&path).unwrap());
            }] as [&dyn Fn(); 3]
        {
            remove();
            listeners.extend(keeper.check());
            assert!(UnixStream::connect(&path).is_ok());
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
            assert!(keeper.check().is_none());
        }
        assert_eq!(listeners.len(), 3);

        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(keeper.check().is_none());
        assert!(keeper.state().borrow().error.as_ref().unwrap().contains("is not a socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::remove_file(&path).unwrap();
        assert!(keeper.check().is_some());
        assert_eq!(keeper.state().borrow().error, None);
        drop(keeper.file().lock().unwrap().take());
        assert!(!path.exists() && keeper.check().is_none(), "not bound again during shutdown");
    }

    #[test]
    fn reports_a_missing_inherited_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessiond.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let keeper = SocketKeeper::new(&settings(&path), None, None);
        assert!(keeper.check().is_none());
        assert_eq!(keeper.state().borrow().error, None);
        fs::remove_file(&path).unwrap();
        assert!(keeper.check().is_none());
        assert!(keeper.state().borrow().error.as_ref().unwrap().contains("systemctl restart sessiond.socket"));
    }
}
