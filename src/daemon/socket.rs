//! The daemon's socket: one that systemd hands over, or a file of its own.
//!
//! Its own: probe for a living peer, unlink what is stale, bind, set the mode, only then listen. While the daemon runs
//! it checks that the path still leads to its socket, and binds anew where it does not: what removes old files from
//! /tmp, or empties /run/user, would leave a daemon that runs and that no client can reach. A socket of systemd's is
//! systemd's to make anew; that it is gone is reported.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{SocketAddrUnix, SocketType, sockopt};
use tokio::sync::{mpsc, watch};

use crate::api::SocketState;
use crate::platform;

/// Why the socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("another daemon answers on {0}")]
    Served(String),
    #[error("{0} exists and is not a socket")]
    NotASocket(String),
    #[error("the socket handed over cannot be used: {0}")]
    Inherited(io::Error),
    #[error("the socket {path} cannot be made: {source}")]
    Io { path: String, source: io::Error },
}

/// A socket that systemd made, and keeps while the daemon restarts.
#[derive(Debug)]
pub struct Inherited {
    pub listener: UnixListener,
    /// The group it was made for, if it lets one in.
    pub group: Option<u32>,
}

/// What `FileDescriptorName=` of sessiond.socket says.
const NAME: &str = "http";

/// The socket that was handed over under our name, if there is one. To be asked once, before any file is opened.
pub fn inherited() -> Result<Option<Inherited>, SocketError> {
    let handed = sd_notify::listen_fds_with_names().map_err(SocketError::Inherited)?;
    let mut ours = None;
    for (descriptor, name) in handed {
        // SAFETY: the descriptor was passed to this process to own, and nobody else in it takes it.
        #[allow(unsafe_code)]
        let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
        if name == NAME && ours.is_none() {
            ours = Some(adopt(owned).map_err(SocketError::Inherited)?);
        } else {
            tracing::warn!(name, "a descriptor that is of no use here is closed");
        }
    }
    Ok(ours)
}

fn adopt(socket: OwnedFd) -> io::Result<Inherited> {
    if sockopt::socket_type(&socket)? != SocketType::STREAM {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no stream socket"));
    }
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let found = address.as_pathname().map(fs::metadata).transpose()?;
    let group = found.filter(|found| found.mode() & 0o060 == 0o060).map(|found| found.gid());
    Ok(Inherited { listener, group })
}

/// The socket file; it goes when this goes, if it still is the one that was made.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    made: Made,
}

/// Tells one file from another at the same path; inode numbers alone are soon used again.
type Made = (u64, u64, i64, i64);

fn made(path: &Path) -> io::Result<Made> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino(), found.ctime(), found.ctime_nsec()))
}

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// How often the path is checked.
const CHECKED_EVERY: Duration = Duration::from_secs(3);

/// Keeps a socket reachable by its path.
pub struct SocketKeeper {
    path: PathBuf,
    mode: u32,
    group: Option<u32>,
    file: Arc<Mutex<Option<SocketFile>>>,
    /// The file of an inherited socket, as it was at the start.
    inherited: Option<Made>,
    state: watch::Sender<SocketState>,
}

impl SocketKeeper {
    /// Keeps `file`, or an inherited socket where there is none.
    pub fn new(path: &Path, mode: u32, group: Option<u32>, file: Option<SocketFile>) -> Self {
        let inherited = if file.is_none() { made(path).ok() } else { None };
        let shown = path.display().to_string();
        let state = SocketState { path: shown, inherited: file.is_none(), error: None };
        let file = Arc::new(Mutex::new(file));
        Self { path: path.to_owned(), mode, group, file, inherited, state: watch::Sender::new(state) }
    }

    pub fn state(&self) -> watch::Receiver<SocketState> {
        self.state.subscribe()
    }

    /// The socket file; it is removed when it is taken and dropped.
    pub fn file(&self) -> Arc<Mutex<Option<SocketFile>>> {
        self.file.clone()
    }

    /// Checks the path again and again, and sends each new listener. Ends when nobody receives them any more.
    pub async fn run(self, listeners: mpsc::Sender<UnixListener>) {
        let keeper = Arc::new(self);
        loop {
            tokio::time::sleep(CHECKED_EVERY).await;
            let checked = keeper.clone();
            let Ok(bound) = tokio::task::spawn_blocking(move || checked.check()).await else { continue };
            if let Some(listener) = bound
                && listeners.send(listener).await.is_err()
            {
                return;
            }
        }
    }

    /// A new listener, if the path did not lead to the old one any more.
    fn check(&self) -> Option<UnixListener> {
        if self.state.borrow().inherited {
            let error = (self.inherited.is_some() && !self.inherited_is_there())
                .then(|| "its file is gone or was replaced; run `systemctl restart sessiond.socket`".to_owned());
            self.report(error);
            return None;
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing there: the daemon is stopping.
        let known = file.as_mut()?;
        if known.is_there() {
            self.report(None);
            return None;
        }
        match bind(&self.path, self.mode, self.group) {
            Ok((listener, new)) => {
                *file = Some(new);
                tracing::warn!(socket = %self.path.display(), "the socket's file was gone or replaced; it is bound anew");
                self.report(None);
                Some(listener)
            }
            Err(error) => {
                self.report(Some(format!("its file is gone or was replaced, and it cannot be bound anew: {error}")));
                None
            }
        }
    }

    fn inherited_is_there(&self) -> bool {
        made(&self.path).is_ok_and(|now| self.inherited.is_some_and(|then| same_file(now, then)))
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

fn same_file(a: Made, b: Made) -> bool {
    (a.0, a.1) == (b.0, b.1)
}

/// Whether this process listens at the path. An inode's number alone is soon used again.
fn leads_here(path: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        let Ok(stream) = UnixStream::connect(path) else { return false };
        let peer = sockopt::socket_peercred(&stream);
        peer.is_ok_and(|peer| peer.pid == rustix::process::getpid())
    }
    #[cfg(not(target_os = "linux"))]
    UnixStream::connect(path).is_ok()
}

impl SocketFile {
    /// Whether the path still leads to this socket. Its mode and owner may have been changed.
    fn is_there(&mut self) -> bool {
        let Ok(now) = made(&self.path) else { return false };
        if now == self.made {
            return true;
        }
        let same = same_file(now, self.made) && leads_here(&self.path);
        if same {
            self.made = now;
        }
        same
    }
}

/// Makes the socket at `path`, owned by `group` if given.
pub fn bind(path: &Path, mode: u32, group: Option<u32>) -> Result<(UnixListener, SocketFile), SocketError> {
    let failed = |source: io::Error| SocketError::Io { path: path.display().to_string(), source };
    make_folder(path, mode, group).map_err(failed)?;
    clear(path)?;
    let socket = platform::socket::unix_stream().map_err(failed)?;
    let address = SocketAddrUnix::new(path).map_err(|e| failed(e.into()))?;
    rustix::net::bind(&socket, &address).map_err(|e| failed(e.into()))?;
    // Nobody can connect before listen, so nobody slips in under the umask's mode.
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    if group.is_some() {
        std::os::unix::fs::chown(path, None, group).map_err(failed)?;
    }
    rustix::net::listen(&socket, BACKLOG).map_err(|e| failed(e.into()))?;
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true).map_err(failed)?;
    let made = made(path).map_err(failed)?;
    Ok((listener, SocketFile { path: path.to_owned(), made }))
}

/// The folder is private unless the socket is meant for others too.
fn make_folder(path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    let missing: Vec<_> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if mode & 0o007 != 0 || group.is_some() {
        for made in missing {
            // Whatever the umask took away.
            fs::set_permissions(made, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

/// Removes a socket that nobody listens on. One that somebody does is left alone.
fn clear(path: &Path) -> Result<(), SocketError> {
    let shown = || path.display().to_string();
    let failed = |source| SocketError::Io { path: shown(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket(shown())),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::Served(shown())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if made(&self.path).is_ok_and(|made| made == self.made) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_a_live_one_and_a_file_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/sessiond.sock");
        let (listener, file) = bind(&path, 0o660, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(matches!(bind(&path, 0o660, None), Err(SocketError::Served(_))));

        std::mem::forget(file);
        drop(listener);
        assert!(path.exists(), "as a daemon that was killed leaves it");
        let (_listener, file) = bind(&path, 0o600, None).unwrap();
        drop(file);
        assert!(!path.exists());

        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path, 0o600, None), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_socket_that_was_removed_or_replaced_is_bound_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/user/sessiond.sock");
        let (_listener, file) = bind(&path, 0o660, None).unwrap();
        let keeper = SocketKeeper::new(&path, 0o660, None, Some(file));
        assert!(keeper.check().is_none());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(keeper.check().is_none(), "another mode is no other socket");

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
        assert!(!path.exists() && keeper.check().is_none(), "not bound anew while the daemon stops");
    }

    #[test]
    fn an_inherited_socket_that_is_gone_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessiond.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let keeper = SocketKeeper::new(&path, 0o660, None, None);
        assert!(keeper.check().is_none());
        assert_eq!(keeper.state().borrow().error, None);
        fs::remove_file(&path).unwrap();
        assert!(keeper.check().is_none());
        assert!(keeper.state().borrow().error.as_ref().unwrap().contains("systemctl restart sessiond.socket"));
    }

    #[test]
    fn a_successor_s_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessiond.sock");
        let (listener, file) = bind(&path, 0o600, None).unwrap();
        fs::remove_file(&path).unwrap();
        drop(listener);
        let (_successor, _kept) = bind(&path, 0o600, None).unwrap();
        drop(file);
        assert!(path.exists());
    }
}
