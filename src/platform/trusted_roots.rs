//! Where this system keeps the certificate authorities that it trusts.

use std::env;
use std::path::PathBuf;

/// The files in which systems keep them.
const FILES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
    "/etc/ssl/cert.pem",
];

/// The file of trusted authorities, in PEM: SSL_CERT_FILE, else the first that this system has.
pub fn file() -> Option<PathBuf> {
    let named = env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    named.into_iter().chain(FILES.iter().map(PathBuf::from)).find(|path| path.exists())
}
