//! The sockets on which the daemon may listen, and connecting to them.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::SocketAddrUnix;
use rustix::net::sockopt::{self, Timeout};

use crate::platform;
use crate::platform::default_paths::{Env, Os, SOCKET_VAR, path_in, socket_candidates};
use crate::wire::{ErrorCode, ErrorDetail};

/// How long to retry a socket that refuses connections, or is missing from a folder made for it: its daemon may be
/// restarting.
const RESTART_WAIT: Duration = Duration::from_secs(1);
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// The sockets on which a daemon may listen, in the order in which they are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    candidates: Vec<PathBuf>,
    named: bool,
}

impl Endpoint {
    /// The socket of the flag, else of SESSIOND_SOCKET, else the user's or the system's.
    pub fn resolve(flag: Option<&Path>, env: Env<'_>) -> Self {
        Self {
            candidates: socket_candidates(Os::here(), flag, env),
            named: flag.is_some() || path_in(env, SOCKET_VAR).is_some(),
        }
    }

    /// The one socket at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { candidates: vec![path.into()], named: true }
    }

    /// Whether the socket was given explicitly, by the flag or by SESSIOND_SOCKET.
    pub const fn is_named(&self) -> bool {
        self.named
    }

    /// The sockets, in the order in which they are tried.
    pub fn candidates(&self) -> &[PathBuf] {
        &self.candidates
    }

    /// Connects to the first socket on which a daemon listens.
    ///
    /// # Errors
    /// No daemon listens, or this user may not connect to it.
    pub fn connect(&self, timeout: Duration) -> Result<UnixStream, ErrorDetail> {
        let deadline = Instant::now() + RESTART_WAIT.min(timeout / 2);
        let mut refused = false;
        loop {
            let mut failures = Vec::new();
            for path in &self.candidates {
                match connect(path, timeout) {
                    Ok(stream) => return Ok(stream),
                    Err(error) => failures.push((path.as_path(), error)),
                }
            }
            refused |= failures.iter().any(|(path, error)| may_be_restarting(path, error));
            if !refused || Instant::now() >= deadline {
                return Err(self.explain(failures));
            }
            thread::sleep(RETRY_INTERVAL);
        }
    }

    /// The most informative of the failures: a daemon that refuses is reported rather than a socket that is missing.
    fn explain(&self, failures: Vec<(&Path, io::Error)>) -> ErrorDetail {
        let most_informative = failures.into_iter().max_by_key(|(_, error)| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => 0,
            io::ErrorKind::ConnectionRefused => 1,
            _ => 2,
        });
        match most_informative {
            Some((path, error)) => self.failure(path, &error),
            None => self.missing(),
        }
    }

    fn failure(&self, path: &Path, error: &io::Error) -> ErrorDetail {
        let path = path.display();
        let (code, message, hint) = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => return self.missing(),
            io::ErrorKind::ConnectionRefused => (
                ErrorCode::Unreachable,
                format!("no daemon listens on {path}"),
                "start it with `sessiond run`, or name another socket with --socket",
            ),
            io::ErrorKind::PermissionDenied => (
                ErrorCode::Forbidden,
                format!("this user may not connect to {path}"),
                "join the group that owns the socket, or run this as the daemon's user",
            ),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => (
                ErrorCode::Usage,
                format!("{path} cannot be the path of a socket: {error}"),
                "give a shorter path with --socket",
            ),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => (
                ErrorCode::Timeout,
                format!("the daemon on {path} accepts no connections"),
                "it may be overloaded or stopped; check its log, then try again",
            ),
            _ => (
                ErrorCode::Unreachable,
                format!("cannot connect to {path}: {error}"),
                "check the socket, or name another with --socket",
            ),
        };
        ErrorDetail { code, message, hint: hint.to_owned() }
    }

    fn missing(&self) -> ErrorDetail {
        let paths: Vec<_> = self.candidates.iter().map(|path| path.display().to_string()).collect();
        ErrorDetail {
            code: ErrorCode::Unreachable,
            message: format!("no daemon found: there is no socket at {}", paths.join(" or ")),
            hint: "start it with `sessiond run`, or name its socket with --socket".to_owned(),
        }
    }
}

/// Whether a daemon may be restarting: one that stops removes its socket, but not the folder.
fn may_be_restarting(path: &Path, error: &io::Error) -> bool {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => true,
        io::ErrorKind::NotFound => path.parent().is_some_and(|folder| folder.ends_with("sessiond") && folder.is_dir()),
        _ => false,
    }
}

/// Like `UnixStream::connect`, with a timeout for a daemon that does not accept connections.
fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let socket = platform::socket::unix_stream()?;
    sockopt::set_socket_timeout(&socket, Timeout::Send, Some(timeout))?;
    sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(timeout))?;
    rustix::net::connect(&socket, &address)?;
    Ok(UnixStream::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::os::unix::net::UnixListener;

    const TIMEOUT: Duration = Duration::from_secs(2);

    fn env(pairs: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
    }

    #[test]
    fn the_flag_precedes_the_environment() {
        let both = env(&[("SESSIOND_SOCKET", "/env.sock"), ("XDG_RUNTIME_DIR", "/run/user/7"), ("HOME", "/h")]);
        assert_eq!(Endpoint::resolve(Some(Path::new("/flag.sock")), &both), Endpoint::at("/flag.sock"));
        assert_eq!(Endpoint::resolve(None, &both), Endpoint::at("/env.sock"));
    }

    #[test]
    fn a_missing_socket_fails_at_once() {
        let start = Instant::now();
        let error = Endpoint::at("/nonexistent/x.sock").connect(TIMEOUT).unwrap_err();
        assert_eq!(error.code, ErrorCode::Unreachable);
        assert!(error.message.contains("no socket at /nonexistent/x.sock"), "{}", error.message);
        assert!(start.elapsed() < RESTART_WAIT);
    }

    #[test]
    fn waits_for_a_restart_when_a_socket_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        drop(UnixListener::bind(&path).unwrap());
        let start = Instant::now();
        let error = Endpoint::at(&path).connect(TIMEOUT).unwrap_err();
        assert!(error.message.starts_with("no daemon listens on"), "{}", error.message);
        assert!(start.elapsed() >= RESTART_WAIT);

        let again = path.clone();
        let restart = thread::spawn(move || {
            thread::sleep(Duration::from_millis(60));
            std::fs::remove_file(&again).unwrap();
            thread::sleep(Duration::from_millis(30));
            UnixListener::bind(&again).unwrap()
        });
        assert!(Endpoint::at(&path).connect(TIMEOUT).is_ok());
        drop(restart.join().unwrap());
    }

    #[test]
    fn uses_the_first_socket_that_accepts() {
        let dir = tempfile::tempdir().unwrap();
        let (stale, live) = (dir.path().join("stale.sock"), dir.path().join("live.sock"));
        drop(UnixListener::bind(&stale).unwrap());
        let _listener = UnixListener::bind(&live).unwrap();
        let start = Instant::now();
        assert!(Endpoint { candidates: vec![stale, live], named: false }.connect(TIMEOUT).is_ok());
        assert!(start.elapsed() < RESTART_WAIT);
    }

    #[test]
    fn each_failure_has_its_own_code() {
        let endpoint = Endpoint::at("/x.sock");
        let code = |kind: io::ErrorKind| endpoint.failure(Path::new("/x.sock"), &kind.into()).code.exit_code();
        assert_eq!(code(io::ErrorKind::PermissionDenied), 77);
        assert_eq!(code(io::ErrorKind::ConnectionRefused), 69);
        assert_eq!(code(io::ErrorKind::NotFound), 69);
        assert_eq!(code(io::ErrorKind::WouldBlock), 75);
        assert_eq!(Endpoint::at("/x".repeat(100)).connect(TIMEOUT).unwrap_err().code, ErrorCode::Usage);
    }
}
