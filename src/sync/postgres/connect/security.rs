//! The requirements of the connection to one server, from a URL and the environment, by libpq's conventions.
//!
//! Every parameter of libpq is enforced, without effect here, or refused by name; none is ignored silently. Without
//! parameters a server on another machine needs TLS (libpq's default, `prefer`, sends a password in clear to any
//! server that answers without TLS), and one on this machine does not.

use std::env;
use std::fs::File;
use std::path::PathBuf;

use super::invalid::{InvalidOptions, invalid};
use crate::domain::text::quotation;

/// libpq's sslmode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SslMode {
    Disable,
    /// Without TLS, unless the server refuses that.
    Allow,
    /// With TLS, unless the server has none.
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// The certificate authorities that are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Roots {
    /// `~/.postgresql/root.crt`, as libpq; if that is missing, the system's.
    Usual,
    System,
    File(PathBuf),
}

/// An authentication method, by its name in require_auth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Password,
    Md5,
    Gss,
    Sspi,
    Scram,
    /// No authentication.
    Nothing,
}

const METHODS: [(&str, Method); 6] = [
    ("password", Method::Password),
    ("md5", Method::Md5),
    ("gss", Method::Gss),
    ("sspi", Method::Sspi),
    ("scram-sha-256", Method::Scram),
    ("none", Method::Nothing),
];

/// The requirements of the connection to one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Security {
    mode: Option<SslMode>,
    roots: Roots,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    /// Send the server's name in the TLS handshake (SNI).
    pub sni: bool,
    /// Only TLS 1.3.
    pub tls13: bool,
    /// Begin with TLS instead of requesting it (sslnegotiation=direct).
    pub direct: bool,
    /// The allowed methods; `None`: all.
    methods: Option<Vec<Method>>,
}

/// How a parameter is used.
enum ParameterUse {
    /// Passed to sqlx.
    Login,
    /// Enforced here.
    Enforced,
    /// A parameter of libpq without effect here.
    Harmless,
}

/// The parameters of libpq, and the older spellings that sqlx accepts for some.
const PARAMETERS: [(&str, ParameterUse); 49] = [
    ("host", ParameterUse::Login),
    ("port", ParameterUse::Login),
    ("dbname", ParameterUse::Login),
    ("user", ParameterUse::Login),
    ("password", ParameterUse::Login),
    ("application_name", ParameterUse::Login),
    ("options", ParameterUse::Login),
    ("hostaddr", ParameterUse::Enforced),
    ("passfile", ParameterUse::Enforced),
    ("sslmode", ParameterUse::Enforced),
    ("ssl-mode", ParameterUse::Enforced),
    ("sslrootcert", ParameterUse::Enforced),
    ("ssl-root-cert", ParameterUse::Enforced),
    ("ssl-ca", ParameterUse::Enforced),
    ("sslcert", ParameterUse::Enforced),
    ("ssl-cert", ParameterUse::Enforced),
    ("sslkey", ParameterUse::Enforced),
    ("ssl-key", ParameterUse::Enforced),
    ("sslsni", ParameterUse::Enforced),
    ("sslnegotiation", ParameterUse::Enforced),
    ("ssl_min_protocol_version", ParameterUse::Enforced),
    ("require_auth", ParameterUse::Enforced),
    // These are refused if their value requires something that is not implemented.
    ("channel_binding", ParameterUse::Enforced),
    ("gssencmode", ParameterUse::Enforced),
    ("sslcertmode", ParameterUse::Enforced),
    ("target_session_attrs", ParameterUse::Enforced),
    ("client_encoding", ParameterUse::Enforced),
    ("requirepeer", ParameterUse::Enforced),
    ("sslcrl", ParameterUse::Enforced),
    ("sslcrldir", ParameterUse::Enforced),
    ("sslpassword", ParameterUse::Enforced),
    ("ssl_max_protocol_version", ParameterUse::Enforced),
    ("connect_timeout", ParameterUse::Harmless),
    ("fallback_application_name", ParameterUse::Harmless),
    ("gssdelegation", ParameterUse::Harmless),
    ("gsslib", ParameterUse::Harmless),
    ("keepalives", ParameterUse::Harmless),
    ("keepalives_count", ParameterUse::Harmless),
    ("keepalives_idle", ParameterUse::Harmless),
    ("keepalives_interval", ParameterUse::Harmless),
    ("krbsrvname", ParameterUse::Harmless),
    ("load_balance_hosts", ParameterUse::Harmless),
    ("max_protocol_version", ParameterUse::Harmless),
    ("min_protocol_version", ParameterUse::Harmless),
    ("scram_client_key", ParameterUse::Enforced),
    ("scram_server_key", ParameterUse::Enforced),
    ("sslcompression", ParameterUse::Harmless),
    ("sslkeylogfile", ParameterUse::Enforced),
    ("tcp_user_timeout", ParameterUse::Harmless),
];

/// Values that would need features which are not implemented.
const REFUSED: [&str; 8] = [
    "requirepeer",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
    "ssl_max_protocol_version",
    "scram_client_key",
    "scram_server_key",
    "sslkeylogfile",
];

/// The environment variables of parameters that a URL omits.
const VARIABLES: [(&str, &str); 17] = [
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLSNI", "sslsni"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGSSLCERTMODE", "sslcertmode"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGREQUIREPEER", "requirepeer"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGCLIENTENCODING", "client_encoding"),
];

/// Whether a parameter is passed to sqlx.
///
/// # Errors
/// libpq has no such parameter.
pub(super) fn is_for_login(key: &str) -> Result<bool, InvalidOptions> {
    if key.starts_with("options[") && key.ends_with(']') {
        return Ok(true);
    }
    match PARAMETERS.iter().find(|(name, _)| *name == key) {
        Some((_, kind)) => Ok(matches!(kind, ParameterUse::Login)),
        None => Err(invalid(format!("the parameter \"{}\" is unknown", quotation(key)))),
    }
}

impl Security {
    /// Reads the parameters of a URL, and the environment for those that it omits.
    ///
    /// # Errors
    /// An invalid value, a file that cannot be read, or a requirement that cannot be met.
    pub(super) fn of(parameters: &[(String, String)]) -> Result<Self, InvalidOptions> {
        Self::with(parameters, &|name| env::var(name).ok())
    }

    fn with(
        parameters: &[(String, String)],
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, InvalidOptions> {
        let mut security = Self {
            mode: None,
            roots: Roots::Usual,
            certificate: None,
            key: None,
            sni: true,
            tls13: false,
            direct: false,
            methods: None,
        };
        for (name, key) in VARIABLES {
            let in_url = parameters.iter().any(|(given, _)| canonical(given) == key);
            if let Some(value) = variable(name).filter(|value| !in_url && !value.is_empty()) {
                security.set(name, key, &value)?;
            }
        }
        for (key, value) in parameters {
            security.set(key, canonical(key), value)?;
        }
        security.check()
    }

    /// `shown`: the name under which the user gave the parameter.
    fn set(&mut self, shown: &str, key: &str, value: &str) -> Result<(), InvalidOptions> {
        let wrong = |rule: &str| Err(invalid(format!("{shown}: \"{}\" {rule}", quotation(value))));
        match (key, value) {
            ("sslmode", mode) => {
                let Some(mode) = mode_of(mode) else {
                    return wrong("is none of disable, allow, prefer, require, verify-ca, verify-full");
                };
                self.mode = Some(mode);
            }
            ("sslrootcert", "system") => self.roots = Roots::System,
            ("sslrootcert", file) => self.roots = Roots::File(readable(shown, file)?),
            ("sslcert", file) => self.certificate = Some(readable(shown, file)?),
            ("sslkey", file) => self.key = Some(readable(shown, file)?),
            ("sslsni", "0" | "1") => self.sni = value == "1",
            ("sslsni", _) => return wrong("is neither 0 nor 1"),
            ("sslnegotiation", "postgres" | "direct") => self.direct = value == "direct",
            ("sslnegotiation", _) => return wrong("is neither postgres nor direct"),
            ("ssl_min_protocol_version", "TLSv1" | "TLSv1.1" | "TLSv1.2") => self.tls13 = false,
            ("ssl_min_protocol_version", "TLSv1.3") => self.tls13 = true,
            ("ssl_min_protocol_version", _) => return wrong("is no version of TLS"),
            ("require_auth", list) => match methods(list) {
                Some(methods) => self.methods = Some(methods),
                None => return wrong("names no list of methods such as scram-sha-256"),
            },
            ("channel_binding" | "gssencmode", "disable" | "prefer") | ("sslcertmode", "allow") => {}
            ("channel_binding" | "gssencmode" | "sslcertmode", _) => {
                return wrong("cannot be kept here; leave it out, and verify the server with sslmode=verify-full");
            }
            ("target_session_attrs", "any" | "read-write" | "primary" | "prefer-standby") => {}
            ("target_session_attrs", _) => return wrong("cannot be: central is written to"),
            ("client_encoding", encoding) if is_utf8(encoding) => {}
            ("client_encoding", _) => return wrong("cannot be: text travels as UTF8"),
            (refused, demand) if REFUSED.contains(&refused) && !demand.is_empty() => {
                return Err(invalid(format!("{shown} cannot be kept here; leave it out")));
            }
            _ => {}
        }
        Ok(())
    }

    fn check(mut self) -> Result<Self, InvalidOptions> {
        if self.certificate.is_some() != self.key.is_some() {
            return Err(invalid("sslcert and sslkey must be given together"));
        }
        if self.roots == Roots::System && *self.mode.get_or_insert(SslMode::VerifyFull) != SslMode::VerifyFull {
            return Err(invalid("sslrootcert=system needs sslmode=verify-full, as the system trusts many"));
        }
        if self.direct && self.mode.is_some_and(|mode| !mode.needs_tls()) {
            return Err(invalid("sslnegotiation=direct needs sslmode=require or stronger"));
        }
        Ok(self)
    }

    /// The effective mode for a server on this machine or on another.
    pub(super) fn mode(&self, is_local: bool) -> SslMode {
        match (self.mode, &self.roots) {
            // As libpq does: naming an authority means verifying with it.
            (Some(SslMode::Require), Roots::File(_)) => SslMode::VerifyCa,
            (Some(mode), _) => mode,
            (None, _) if self.direct => SslMode::Require,
            (None, Roots::File(_)) if !is_local => SslMode::VerifyCa,
            (None, _) if is_local => SslMode::Allow,
            (None, _) => SslMode::Require,
        }
    }

    /// Whether a method is allowed, on an exposed connection or not.
    pub(super) fn allows(&self, method: Method, is_exposed: bool) -> bool {
        let is_clear = method == Method::Password && is_exposed;
        !is_clear && self.methods.as_ref().is_none_or(|methods| methods.contains(&method))
    }

    /// Whether the methods have to be checked even if the connection is not exposed.
    pub(super) fn names_methods(&self) -> bool {
        self.methods.is_some()
    }

    /// The trusted certificate authorities.
    pub(super) fn roots(&self) -> &Roots {
        &self.roots
    }

    /// The files of the client's certificate and its key.
    pub(super) fn identity(&self) -> Option<(&PathBuf, &PathBuf)> {
        self.certificate.as_ref().zip(self.key.as_ref())
    }
}

impl SslMode {
    /// Whether a connection without TLS is refused.
    pub(super) const fn needs_tls(self) -> bool {
        matches!(self, Self::Require | Self::VerifyCa | Self::VerifyFull)
    }

    /// Whether the server's certificate is verified.
    pub(super) const fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }
}

/// libpq's name of a parameter for which sqlx has other names too.
fn canonical(key: &str) -> &str {
    match key {
        "ssl-mode" => "sslmode",
        "ssl-root-cert" | "ssl-ca" => "sslrootcert",
        "ssl-cert" => "sslcert",
        "ssl-key" => "sslkey",
        other => other,
    }
}

fn mode_of(text: &str) -> Option<SslMode> {
    Some(match text.to_ascii_lowercase().as_str() {
        "disable" => SslMode::Disable,
        "allow" => SslMode::Allow,
        "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => return None,
    })
}

/// Checks a file early: later, a missing file would be reported as an unreachable central.
fn readable(shown: &str, path: &str) -> Result<PathBuf, InvalidOptions> {
    match File::open(path) {
        Ok(_) => Ok(path.into()),
        Err(error) => Err(invalid(format!("{shown}: {} cannot be read: {error}", quotation(path)))),
    }
}

/// Parses require_auth: `a,b` allows these methods, `!a,!b` all others.
fn methods(list: &str) -> Option<Vec<Method>> {
    let find = |name: &str| METHODS.iter().find(|(known, _)| *known == name).map(|(_, method)| *method);
    let names: Vec<_> = list.split(',').map(str::trim).collect();
    let denied: Vec<_> = names.iter().filter_map(|name| name.strip_prefix('!')).collect();
    if denied.is_empty() {
        return names.into_iter().map(find).collect();
    }
    if denied.len() != names.len() {
        return None;
    }
    let denied = denied.into_iter().map(find).collect::<Option<Vec<_>>>()?;
    Some(METHODS.iter().map(|(_, method)| *method).filter(|method| !denied.contains(method)).collect())
}

fn is_utf8(encoding: &str) -> bool {
    matches!(encoding.to_ascii_lowercase().as_str(), "utf8" | "utf-8" | "unicode" | "auto")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parameters: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Security, String> {
        let parameters: Vec<_> = parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let variable = |name: &str| variables.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned());
        Security::with(&parameters, &variable).map_err(|error| error.to_string())
    }

    fn mode(parameters: &[(&str, &str)], is_local: bool) -> SslMode {
        of(parameters, &[]).unwrap().mode(is_local)
    }

    #[test]
    fn another_machine_needs_tls_unless_the_url_says_otherwise() {
        assert_eq!(mode(&[], false), SslMode::Require);
        assert_eq!(mode(&[], true), SslMode::Allow);
        for (text, expected) in [
            ("disable", SslMode::Disable),
            ("allow", SslMode::Allow),
            ("prefer", SslMode::Prefer),
            ("require", SslMode::Require),
            ("verify-full", SslMode::VerifyFull),
        ] {
            assert_eq!(mode(&[("sslmode", text)], false), expected);
            assert_eq!(mode(&[("sslmode", text)], true), expected);
        }
    }

    #[test]
    fn named_authority_is_verified_with() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        assert_eq!(mode(&[("sslmode", "require"), ("sslrootcert", path)], false), SslMode::VerifyCa);
        assert_eq!(mode(&[("sslrootcert", path)], false), SslMode::VerifyCa);
        assert_eq!(mode(&[("sslrootcert", "system")], false), SslMode::VerifyFull);
        assert_eq!(mode(&[("sslrootcert", "system")], true), SslMode::VerifyFull);
        for weak in ["disable", "prefer", "require", "verify-ca"] {
            assert!(of(&[("sslrootcert", "system"), ("sslmode", weak)], &[]).unwrap_err().contains("verify-full"));
        }
    }

    #[test]
    fn every_parameter_is_applied_or_rejected_by_name() {
        for (key, value) in [
            ("channel_binding", "require"),
            ("gssencmode", "require"),
            ("sslcertmode", "require"),
            ("requirepeer", "postgres"),
            ("sslcrl", "/x"),
            ("target_session_attrs", "standby"),
            ("client_encoding", "LATIN1"),
            ("ssl_max_protocol_version", "TLSv1.2"),
            ("sslmode", "ful"),
            ("sslnegotiation", "other"),
            ("require_auth", "oauth2"),
            ("require_auth", "md5,!password"),
            ("sslrootcert", "/no/such"),
            ("sslcert", "/dev/null"),
        ] {
            let error = of(&[(key, value)], &[]).unwrap_err();
            assert!(error.contains(key), "{key}={value}: {error}");
        }
        assert!(of(&[], &[("PGSSLMODE", "ful")]).unwrap_err().contains("PGSSLMODE"));
        assert!(of(&[], &[("PGCHANNELBINDING", "require")]).unwrap_err().contains("PGCHANNELBINDING"));
        assert!(
            of(&[("channel_binding", "prefer")], &[("PGCHANNELBINDING", "require")]).is_ok(),
            "the URL counts more"
        );
    }

    #[test]
    fn parameters_without_effect_are_accepted_as_by_psql() {
        for (key, value) in [
            ("client_encoding", "utf8"),
            ("client_encoding", "auto"),
            ("sslsni", "1"),
            ("channel_binding", "prefer"),
            ("gssencmode", "disable"),
            ("sslcompression", "0"),
            ("target_session_attrs", "read-write"),
        ] {
            assert!(of(&[(key, value)], &[]).is_ok(), "{key}={value}");
        }
        for key in ["tcp_user_timeout", "keepalives_idle", "krbsrvname", "load_balance_hosts", "passfile", "hostaddr"] {
            assert_eq!(is_for_login(key), Ok(false), "{key}");
        }
        assert_eq!(is_for_login("options[search_path]"), Ok(true));
        assert!(is_for_login("statement-cache-capacity").is_err(), "sqlx's own words are no URL of psql's");
    }

    #[test]
    fn clear_text_password_needs_tls_to_another_machine() {
        let plain = of(&[("sslmode", "disable")], &[]).unwrap();
        assert!(!plain.allows(Method::Password, true) && plain.allows(Method::Password, false));
        assert!(plain.allows(Method::Scram, true) && plain.allows(Method::Md5, true));
        let scram = of(&[("require_auth", "scram-sha-256")], &[]).unwrap();
        assert!(scram.allows(Method::Scram, false) && !scram.allows(Method::Nothing, false));
        let not = of(&[("require_auth", "!password,!none")], &[]).unwrap();
        assert!(not.allows(Method::Md5, false) && !not.allows(Method::Password, false));
        assert!(not.names_methods() && !plain.names_methods());
    }
}
