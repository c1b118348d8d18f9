//! Lets sqlx use connections that sessiond opened.
//!
//! sqlx opens its connections itself. So it is given a Unix socket in a folder that only this user can read; the tunnel
//! passes each connection to it on over TLS or unencrypted.
//!
//! **Invariant**: a password in clear text is never sent to another machine (G10). On an unencrypted connection each
//! authentication request of the server is checked before sqlx receives it; one for a forbidden method ends the login.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};
use uuid::Uuid;

use super::security::{Method, Security, SslMode};
use super::transport::{self, Wire};

/// The size of the copy buffer, in bytes.
const BUFFER: usize = 64 << 10;
/// The longest authentication request of a server, in bytes.
const LONGEST_REQUEST: usize = 64 << 10;

/// One server, and how to reach it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub name: String,
    pub address: Option<IpAddr>,
    pub port: u16,
    pub mode: SslMode,
    pub security: Security,
}

/// A folder with a socket that leads to a server. Dropping it removes both.
#[derive(Debug)]
pub(super) struct Tunnel {
    folder: PathBuf,
    task: JoinHandle<()>,
}

impl Tunnel {
    /// Opens a tunnel whose first connection uses a wire that is open already; each further one opens its own.
    ///
    /// # Errors
    /// The folder or the socket cannot be made.
    pub(super) fn open(target: Target, first: Wire) -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("sessiond-{}", Uuid::new_v4()));
        DirBuilder::new().mode(0o700).create(&folder)?;
        // As sqlx names the socket of a port within a folder.
        let listener = UnixListener::bind(folder.join(format!(".s.PGSQL.{}", target.port)));
        let listener = listener.inspect_err(|_| drop(fs::remove_dir_all(&folder)))?;
        Ok(Self { folder, task: tokio::spawn(serve(listener, target, first)) })
    }

    /// The folder in which sqlx finds the server's socket.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

async fn serve(listener: UnixListener, target: Target, first: Wire) {
    let mut first = Some(first);
    // Connections that end with this task.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (wire, target) = (first.take(), target.clone());
        connections.spawn(async move {
            if let Err(error) = pass(client, wire, &target).await {
                tracing::debug!(%error, "a connection to central broke");
            }
        });
    }
}

async fn pass(client: UnixStream, wire: Option<Wire>, target: &Target) -> io::Result<()> {
    let wire = match wire {
        Some(wire) => wire,
        None => {
            let stream = transport::connect(&target.name, target.address, target.port).await?;
            transport::negotiate(stream, &target.name, &target.security, target.mode).await?
        }
    };
    match wire {
        Wire::Plain(stream) => {
            let is_exposed = !transport::is_local(&stream);
            relay(client, stream, &target.security, is_exposed).await
        }
        Wire::Tls(stream) => relay(client, *stream, &target.security, false).await,
    }
}

/// `is_exposed`: the connection is unencrypted and leads to another machine.
async fn relay(
    mut client: UnixStream,
    mut server: impl AsyncRead + AsyncWrite + Unpin,
    security: &Security,
    is_exposed: bool,
) -> io::Result<()> {
    if (is_exposed || security.names_methods()) && !watch(&mut client, &mut server, security, is_exposed).await? {
        return Ok(());
    }
    copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await.map(|_| ())
}

/// Passes the login on, message by message. Returns whether it was accepted.
async fn watch(
    client: &mut UnixStream,
    server: &mut (impl AsyncRead + AsyncWrite + Unpin),
    security: &Security,
    is_exposed: bool,
) -> io::Result<bool> {
    let mut login = LoginExchange { security, is_exposed, asked: false, pending: Vec::new() };
    let (mut up, mut down) = ([0; 4096], [0; 4096]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let count = read?;
                if count == 0 {
                    return Ok(false);
                }
                server.write_all(&up[..count]).await?;
                server.flush().await?;
            }
            read = server.read(&mut down) => {
                let count = read?;
                if count == 0 {
                    return Ok(false);
                }
                login.pending.extend_from_slice(&down[..count]);
                match login.examine()? {
                    LoginDecision::Continue(messages) => client.write_all(&messages).await?,
                    LoginDecision::Accepted(messages) => {
                        client.write_all(&messages).await?;
                        return Ok(true);
                    }
                    LoginDecision::Refused(why) => {
                        client.write_all(&error_response(why)).await?;
                        return Ok(false);
                    }
                }
            }
        }
    }
}

/// The messages of the server during a login that were not passed on yet.
struct LoginExchange<'a> {
    security: &'a Security,
    is_exposed: bool,
    /// The server has sent an authentication request.
    asked: bool,
    pending: Vec<u8>,
}

#[derive(Debug, PartialEq)]
enum LoginDecision {
    /// These messages may be passed on; the login continues.
    Continue(Vec<u8>),
    /// The login is complete; these are its last messages, and what follows.
    Accepted(Vec<u8>),
    Refused(&'static str),
}

impl LoginExchange<'_> {
    /// Checks the complete messages that were received.
    fn examine(&mut self) -> io::Result<LoginDecision> {
        let mut harmless = 0;
        while let Some(message) = first_message(&self.pending[harmless..])? {
            if let Some(method) = method(message) {
                let is_asked_for = method != Some(Method::Nothing);
                if let Some(why) = method.filter(|_| is_asked_for || !self.asked).and_then(|m| self.objection(m)) {
                    return Ok(LoginDecision::Refused(why));
                }
                if !is_asked_for {
                    return Ok(LoginDecision::Accepted(std::mem::take(&mut self.pending)));
                }
                self.asked = true;
            }
            harmless += message.len();
        }
        Ok(LoginDecision::Continue(self.pending.drain(..harmless).collect()))
    }

    fn objection(&self, method: Method) -> Option<&'static str> {
        if self.security.allows(method, self.is_exposed) {
            return None;
        }
        Some(if method == Method::Password && self.is_exposed {
            "the server asks for the password in clear text, without TLS; it was not sent"
        } else {
            "the server identifies users in a way that require_auth in central.url does not allow"
        })
    }
}

/// A message of the server: its type, its length without the type, and its body. `None` while it is incomplete.
fn first_message(bytes: &[u8]) -> io::Result<Option<&[u8]>> {
    let Some(length) = bytes.get(1..5).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes) else {
        return Ok(None);
    };
    let whole = (length as usize).saturating_add(1);
    if whole > LONGEST_REQUEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the server does not use the Postgres protocol"));
    }
    Ok(bytes.get(..whole))
}

/// The method that an authentication request asks for. `Some(None)`: a further step of the method before; `None`: another
/// message.
fn method(message: &[u8]) -> Option<Option<Method>> {
    if message.first() != Some(&b'R') {
        return None;
    }
    let code = message.get(5..9).and_then(|code| code.try_into().ok()).map(u32::from_be_bytes);
    Some(match code {
        Some(0) => Some(Method::Nothing),
        Some(3) => Some(Method::Password),
        Some(5) => Some(Method::Md5),
        Some(7) => Some(Method::Gss),
        Some(9) => Some(Method::Sspi),
        Some(10) => Some(Method::Scram),
        _ => None,
    })
}

/// An error as a server would send it.
fn error_response(message: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0VFATAL\0C28000\0M{message}\0\0");
    let length = u32::try_from(fields.len() + 4).unwrap_or(u32::MAX).to_be_bytes();
    [&b"E"[..], &length, fields.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";
    const CLEAR: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
    const SCRAM: &[u8] = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";
    const SCRAM_STEP: &[u8] = b"R\0\0\0\x0a\0\0\0\x0bxy";

    fn verdicts(is_exposed: bool, parameters: &[(&str, &str)], messages: &[&[u8]]) -> Vec<LoginDecision> {
        let parameters: Vec<_> = parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let security = Security::of(&parameters).unwrap();
        let mut login = LoginExchange { security: &security, is_exposed, asked: false, pending: Vec::new() };
        let each = messages.iter().map(|bytes| {
            login.pending.extend_from_slice(bytes);
            login.examine().unwrap()
        });
        each.collect()
    }

    #[test]
    fn clear_text_password_request_is_refused_on_exposed_connections() {
        assert!(
            matches!(verdicts(true, &[], &[CLEAR])[..], [LoginDecision::Refused(why)] if why.contains("clear text"))
        );
        assert_eq!(verdicts(false, &[], &[CLEAR]), [LoginDecision::Continue(CLEAR.to_vec())]);
        // At any cut of the message, and after any other message.
        let notice = b"N\0\0\0\x06ab";
        let (head, tail) = CLEAR.split_at(6);
        let cut = verdicts(true, &[], &[notice, head, tail]);
        assert!(
            matches!(&cut[..], [LoginDecision::Continue(n), LoginDecision::Continue(none), LoginDecision::Refused(_)]
            if n == notice && none.is_empty())
        );
    }

    #[test]
    fn scram_login_passes_and_ends_the_checks() {
        let end = [OK, b"Z\0\0\0\x05I"].concat();
        assert_eq!(
            verdicts(true, &[], &[SCRAM, SCRAM_STEP, &end]),
            [
                LoginDecision::Continue(SCRAM.to_vec()),
                LoginDecision::Continue(SCRAM_STEP.to_vec()),
                LoginDecision::Accepted(end.clone())
            ]
        );
        let after = verdicts(true, &[], &[SCRAM, CLEAR]);
        assert!(matches!(after[1], LoginDecision::Refused(_)), "a second request is checked too");
    }

    #[test]
    fn require_auth_is_enforced() {
        let only_scram = &[("require_auth", "scram-sha-256")];
        assert!(
            matches!(verdicts(false, only_scram, &[OK])[0], LoginDecision::Refused(_)),
            "a server that asks for nothing"
        );
        assert!(matches!(verdicts(false, only_scram, &[CLEAR])[0], LoginDecision::Refused(_)));
        assert!(matches!(verdicts(false, only_scram, &[SCRAM, OK])[1], LoginDecision::Accepted(_)));
        assert!(matches!(verdicts(false, &[("require_auth", "!password")], &[OK])[0], LoginDecision::Accepted(_)));
    }

    #[test]
    fn server_without_the_postgres_protocol_is_disconnected() {
        assert!(first_message(b"HTTP/1.1 400 Bad Request\r\n").is_err());
        assert_eq!(first_message(b"R\0\0").unwrap(), None);
    }
}
