//! TLS with a server, by sslmode.
//!
//! sqlx's own TLS is not used: it trusts the public authorities in addition to the one that sslrootcert names, so with
//! verify-ca any server with a public certificate would pass; and it rejects X.509 version 1 certificates, which
//! the instructions of the Postgres manual create.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::platform::trusted_roots;

use super::security::{Roots, Security, SslMode};

/// The ALPN protocol that sslnegotiation=direct requires.
const ALPN: &[u8] = b"postgresql";

/// Performs the TLS handshake with the server `name`.
///
/// # Errors
/// A message for the operator: unusable files, or a certificate that is not trusted.
pub(super) async fn handshake(
    stream: TcpStream,
    name: &str,
    security: &Security,
    mode: SslMode,
) -> Result<TlsStream<TcpStream>, io::Error> {
    let config = config(security, mode).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
    let name = ServerName::try_from(name.to_owned()).map_err(|error| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the server's name cannot be that of a certificate: {error}"),
        )
    })?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

fn config(security: &Security, mode: SslMode) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let versions: &[_] =
        if security.tls13 { &[&rustls::version::TLS13] } else { &[&rustls::version::TLS13, &rustls::version::TLS12] };
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?;
    let verifier = Verifier::new(security, mode, provider)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match security.identity() {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|error| format!("{} cannot be used: {error}", certificate.display()))?,
    };
    config.enable_sni = security.sni;
    if security.direct {
        config.alpn_protocols = vec![ALPN.to_vec()];
    }
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unusable = |why: String| format!("{} holds no usable certificate: {why}", path.display());
    let text = fs::read(path).map_err(|error| unusable(error.to_string()))?;
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(|error| unusable(error.to_string()))?;
    if found.is_empty() { Err(unusable("there is none in it".into())) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| format!("{} holds no usable key: {error}", path.display()))
}

/// The trusted certificates, and their file.
fn trusted(roots: &Roots) -> Result<(PathBuf, Vec<CertificateDer<'static>>), String> {
    let own = || env::home_dir().map(|home| home.join(".postgresql/root.crt")).filter(|path| path.exists());
    let path = match roots {
        Roots::File(path) => Some(path.clone()),
        Roots::System => trusted_roots::file(),
        Roots::Usual => own().or_else(trusted_roots::file),
    };
    let path = path.ok_or("this system's trusted certificates cannot be found; name a file with sslrootcert")?;
    let found = certificates(&path)?;
    Ok((path, found))
}

/// Verifies the server's certificate.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// `None` if sslmode requires only encryption.
    trust: Option<Trust>,
}

#[derive(Debug)]
struct Trust {
    authorities: Arc<WebPkiServerVerifier>,
    /// The certificates of the file: a self-signed one of a server is trusted directly.
    pinned: Vec<CertificateDer<'static>>,
    checks_name: bool,
}

impl Verifier {
    fn new(security: &Security, mode: SslMode, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        if !mode.verifies() {
            return Ok(Self { provider, trust: None });
        }
        let (path, pinned) = trusted(security.roots())?;
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(pinned.iter().cloned());
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
            .build()
            .map_err(|error| format!("{} holds no usable authority: {error}", path.display()))?;
        let trust = Trust { authorities, pinned, checks_name: mode == SslMode::VerifyFull };
        Ok(Self { provider, trust: Some(trust) })
    }
}

impl Trust {
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.pinned.iter().any(|pinned| pinned.as_ref() == certificate.as_ref()) {
            if self.checks_name {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match self.authorities.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.checks_name => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.trust {
            None => Ok(ServerCertVerified::assertion()),
            Some(trust) => trust.verify(certificate, intermediates, name, ocsp, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match &self.trust {
            // Without verification of the certificate its signature proves nothing.
            None => Ok(HandshakeSignatureValid::assertion()),
            Some(trust) => trust.authorities.verify_tls12_signature(message, certificate, signed),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match &self.trust {
            None => Ok(HandshakeSignatureValid::assertion()),
            Some(trust) => trust.authorities.verify_tls13_signature(message, certificate, signed),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
