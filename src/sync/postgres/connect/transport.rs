//! The connection to one server: TCP, and TLS if sslmode requires it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::client::TlsStream;

use super::security::{Security, SslMode};
use super::tls;

/// The SSLRequest message: its length, and a code in place of the protocol version.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// TCP keepalive: a silent connection is probed after so long, so that a lost one is detected.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 3;

/// An open connection.
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects to the first address that answers.
///
/// # Errors
/// The name has no address, or no connection succeeds.
pub(super) async fn connect(name: &str, address: Option<IpAddr>, port: u16) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = match address {
        Some(address) => vec![(address, port).into()],
        None => lookup_host((name, port)).await?.collect(),
    };
    let mut failed = io::Error::new(io::ErrorKind::NotFound, format!("{name} has no address"));
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                prepare(&stream)?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_COUNT)?;
    Ok(())
}

/// Whether the other end is this machine.
pub(super) fn is_local(stream: &TcpStream) -> bool {
    stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback())
}

/// Negotiates TLS, or no TLS, with the server.
///
/// # Errors
/// `InvalidData`: no TLS although it is required, or no trusted certificate. An operator has to act.
pub(super) async fn negotiate(
    mut stream: TcpStream,
    name: &str,
    security: &Security,
    mode: SslMode,
) -> io::Result<Wire> {
    let offers_tls = match mode {
        SslMode::Disable | SslMode::Allow => false,
        _ if security.direct => true,
        _ => {
            stream.write_all(&SSL_REQUEST).await?;
            stream.read_u8().await? == b'S'
        }
    };
    if offers_tls {
        return Ok(Wire::Tls(Box::new(tls::handshake(stream, name, security, mode).await?)));
    }
    if mode.needs_tls() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the server offers no TLS, which a server on another machine needs, unless sslmode in central.url says \
             otherwise",
        ));
    }
    Ok(Wire::Plain(stream))
}
