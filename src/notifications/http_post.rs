//! Posts JSON to a URL, with the system's trusted authorities. One connection for one request; nothing of the answer is read
//! but its status.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use crate::platform::trusted_roots;

/// The limit of a request, with everything.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Posts `body`. `key` is the Idempotency-Key.
///
/// # Errors
/// One line that does not show the URL: the server cannot be reached, or its status is not a success.
pub(super) async fn post(url: &Url, body: String, key: &str) -> Result<(), String> {
    match tokio::time::timeout(TIMEOUT, attempt(url, body, key)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    }
}

async fn attempt(url: &Url, body: String, key: &str) -> Result<(), String> {
    let host = url.host_str().ok_or("it has no host")?;
    let port = url.port_or_known_default().ok_or("it has no port")?;
    // An address of IPv6 is in brackets in a URL.
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((name, port)).await.map_err(|error| format!("cannot connect: {error}"))?;
    let request = request(url, host, body, key).map_err(|error| format!("the request cannot be made: {error}"))?;
    let status = match url.scheme() {
        "https" => {
            let stream = encrypted(stream, name).await.map_err(|error| format!("TLS failed: {error}"))?;
            send(stream, request).await
        }
        _ => send(stream, request).await,
    };
    match status.map_err(|error| format!("no answer: {error}"))? {
        200..=299 => Ok(()),
        status => Err(format!("the server answered {status}")),
    }
}

fn request(url: &Url, host: &str, body: String, key: &str) -> Result<Request<String>, hyper::http::Error> {
    let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    Request::post(path)
        .header(HOST, authority)
        .header(USER_AGENT, concat!("sessiond/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        .header("idempotency-key", key)
        .header(hyper::header::CONTENT_LENGTH, body.len())
        .body(body)
}

async fn send<S>(stream: S, request: Request<String>) -> Result<u16, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async move { sender.send_request(request).await.map(|response| response.status().as_u16()) };
    // The connection ends when the sender is dropped; its own error says nothing more than the answer's.
    let (answer, _) = tokio::join!(answer, connection);
    answer
}

async fn encrypted(stream: TcpStream, name: &str) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    let config = config().map_err(invalid)?;
    let name = ServerName::try_from(name.to_owned()).map_err(|error| invalid(error.to_string()))?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

fn config() -> Result<ClientConfig, String> {
    let path = trusted_roots::file().ok_or("this system's trusted certificates cannot be found; set SSL_CERT_FILE")?;
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(&path).map_err(|error| error.to_string())?;
    roots.add_parsable_certificates(certificates.flatten());
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
