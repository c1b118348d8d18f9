//! Opens the daemon's socket: the one that systemd passes, or else one of its own.
//!
//! To bind its own, the daemon connects to the path first; a daemon that answers there is an error, and a socket without
//! a listener is removed. The mode and the group are set between bind and listen, so that no client can connect under
//! wrong rights. [`super::socket_keeper`] binds the socket again if its file is removed.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{SocketAddrUnix, SocketType, sockopt};

use super::access::SocketAccess;
use super::failure;
use crate::config::SocketSettings;
use crate::platform;
use crate::wire::ErrorDetail;

/// Why the socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    #[error("another daemon answers on {0}")]
    Served(String),
    #[error("{0} exists and is not a socket")]
    NotASocket(String),
    #[error("the socket that systemd passed cannot be used: {0}")]
    Inherited(#[source] io::Error),
    #[error("the socket {path} cannot be created: {source}")]
    Io { path: String, source: io::Error },
}

/// A socket that listens.
pub(super) struct BoundSocket {
    pub listener: UnixListener,
    /// None if systemd owns the socket.
    pub file: Option<SocketFile>,
}

/// Opens the socket that systemd passed, or else the one of the settings, and determines who may connect.
///
/// # Errors
/// The socket cannot be opened, or its group is unknown.
pub(super) fn open(settings: &SocketSettings) -> Result<(BoundSocket, SocketAccess), ErrorDetail> {
    if let Some(Inherited { listener, group }) = inherited().map_err(failure::of_socket)? {
        // A socket unit with SocketGroup= configures access, if socket.group does not.
        let group = settings.group.clone().or_else(|| group.map(|gid| gid.to_string()));
        return Ok((BoundSocket { listener, file: None }, SocketAccess::new(group.as_deref())?));
    }
    let access = SocketAccess::new(settings.group.as_deref())?;
    let (listener, file) = bind(&settings.path, settings.mode, access.group_id()).map_err(failure::of_socket)?;
    Ok((BoundSocket { listener, file: Some(file) }, access))
}

/// A socket that systemd owns; it stays while the daemon restarts.
#[derive(Debug)]
struct Inherited {
    listener: UnixListener,
    /// The group of the socket's file, if members of it may write to it.
    group: Option<u32>,
}

/// `FileDescriptorName=` in sessiond.socket.
const DESCRIPTOR_NAME: &str = "http";

/// The socket that systemd passed, if any. To be called once, before any file is opened.
fn inherited() -> Result<Option<Inherited>, SocketError> {
    let passed = sd_notify::listen_fds_with_names().map_err(SocketError::Inherited)?;
    let mut socket = None;
    for (descriptor, name) in passed {
        // SAFETY: systemd passed the descriptor to this process, and this is the only place that takes it.
        #[allow(unsafe_code)]
        let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
        if name == DESCRIPTOR_NAME && socket.is_none() {
            socket = Some(prepare_inherited(owned).map_err(SocketError::Inherited)?);
        } else {
            tracing::warn!(name, "systemd passed a descriptor of unknown name; it is closed");
        }
    }
    Ok(socket)
}

fn prepare_inherited(socket: OwnedFd) -> io::Result<Inherited> {
    if sockopt::socket_type(&socket)? != SocketType::STREAM {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a stream socket"));
    }
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let found = address.as_pathname().map(fs::metadata).transpose()?;
    let group = found.filter(|found| found.mode() & 0o060 == 0o060).map(|found| found.gid());
    Ok(Inherited { listener, group })
}

/// The file of a socket that this daemon bound. Dropping it removes the file, unless another file has replaced it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    version: FileId,
}

/// Identifies a file among those that have been at one path. The change time is part of it, as inode numbers are reused
/// soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
    changed_at: (i64, i64),
}

impl FileId {
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self { device: found.dev(), inode: found.ino(), changed_at: (found.ctime(), found.ctime_nsec()) })
    }

    /// Whether both have the same inode: the file may have been given another mode or owner in between.
    pub(super) fn has_same_inode(self, other: Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// How many clients may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Whether this process listens at the path: the same inode number alone is no proof.
fn is_served_by_this_process(path: &Path) -> bool {
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
    pub(super) fn is_in_place(&mut self) -> bool {
        let Ok(now) = FileId::at(&self.path) else { return false };
        if now == self.version {
            return true;
        }
        let same = now.has_same_inode(self.version) && is_served_by_this_process(&self.path);
        if same {
            self.version = now;
        }
        same
    }
}

/// Creates the socket at `path`, with this mode and owned by `group` if given.
///
/// # Errors
/// Another daemon answers there, the path is not a socket, or the file system refuses.
pub(super) fn bind(path: &Path, mode: u32, group: Option<u32>) -> Result<(UnixListener, SocketFile), SocketError> {
    let failed = |source: io::Error| SocketError::Io { path: path.display().to_string(), source };
    make_folder(path, mode, group).map_err(failed)?;
    remove_stale_socket(path)?;
    let socket = platform::socket::unix_stream().map_err(failed)?;
    let address = SocketAddrUnix::new(path).map_err(|e| failed(e.into()))?;
    rustix::net::bind(&socket, &address).map_err(|e| failed(e.into()))?;
    // No client can connect before listen, so the mode that the umask left never counts.
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    if group.is_some() {
        std::os::unix::fs::chown(path, None, group).map_err(failed)?;
    }
    rustix::net::listen(&socket, BACKLOG).map_err(|e| failed(e.into()))?;
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true).map_err(failed)?;
    let version = FileId::at(path).map_err(failed)?;
    Ok((listener, SocketFile { path: path.to_owned(), version }))
}

/// Creates the socket's folder: private, unless other users may use the socket.
fn make_folder(path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    let missing: Vec<_> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if mode & 0o007 != 0 || group.is_some() {
        for made in missing {
            // The umask has removed these bits.
            fs::set_permissions(made, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

/// Removes a socket that no process listens on.
fn remove_stale_socket(path: &Path) -> Result<(), SocketError> {
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
        if FileId::at(&self.path).is_ok_and(|found| found == self.version) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_only_a_stale_socket() {
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
    fn drop_leaves_the_socket_of_a_successor() {
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
