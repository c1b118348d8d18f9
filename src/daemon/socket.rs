//! The daemon's socket: one that systemd hands over, or a file of its own.
//!
//! Its own: probe for a living peer, unlink what is stale, bind, set the mode, only then listen.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{SocketAddrUnix, SocketType, sockopt};

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
    let shared = mode & 0o007 != 0 || group.is_some();
    fs::DirBuilder::new().recursive(true).mode(if shared { 0o755 } else { 0o700 }).create(folder)
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
