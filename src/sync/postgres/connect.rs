//! Where central is and how to log in, after libpq's conventions.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use tokio::time::timeout;
use url::Url;

use super::errors::classify;
use crate::domain::text::{one_line, quotation};
use crate::sync::central::CentralError;

/// Parameters that sqlx understands.
const KNOWN: [&str; 17] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// Parameters of libpq that make no difference here: a URL that works with psql shall work.
const HARMLESS: [&str; 9] = [
    "channel_binding",
    "connect_timeout",
    "fallback_application_name",
    "gssencmode",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "target_session_attrs",
];

/// How to reach central, valid and with the secrets inside.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresOptions {
    pub connect_timeout: Duration,
    pub statement_timeout: Duration,
    url: Url,
    password_file: Option<PathBuf>,
    /// User, host, port and database.
    place: String,
}

/// What is wrong with a URL, without anything secret of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("central.url: {0}")]
pub struct InvalidOptions(String);

impl PostgresOptions {
    /// Reads a URL; PGHOST and the like, and ~/.pgpass, fill in what it leaves out. A password file
    /// counts for more than those, and for less than a password in the URL.
    pub fn parse(url: &str, password_file: Option<&Path>) -> Result<Self, InvalidOptions> {
        let url = checked(url)?;
        check_environment()?;
        let in_url = url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password");
        let server = server(&url)?;
        Ok(Self {
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            place: place(&server),
            password_file: password_file.filter(|_| !in_url).map(Path::to_owned),
            url,
        })
    }

    /// User, host, port and database, for people: no secret.
    pub fn display(&self) -> &str {
        &self.place
    }

    /// What to log in with. Files are read anew each time: passwords are changed while the daemon runs.
    fn login(&self) -> Result<PgConnectOptions, CentralError> {
        let server = server(&self.url).map_err(|error| CentralError::Refused(error.to_string()))?;
        let Some(file) = &self.password_file else { return Ok(server) };
        let text = std::fs::read_to_string(file).map_err(|error| {
            CentralError::Refused(format!("central.password_file {} cannot be read: {error}", file.display()))
        })?;
        Ok(server.password(text.trim_end_matches(['\r', '\n'])))
    }

    /// Connects and logs in.
    pub(super) async fn connect(&self) -> Result<PgConnection, CentralError> {
        let login = self.login()?;
        match timeout(self.connect_timeout, login.connect()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(match classify(&error, self.display()) {
                // There is no data yet that could be at fault.
                CentralError::Reject(message) => CentralError::Refused(message),
                other => other,
            }),
            Err(_) => Err(CentralError::Retry(format!(
                "central {} let nobody in within {}",
                self.display(),
                humantime::format_duration(self.connect_timeout)
            ))),
        }
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("server", &self.display())
            .field("connect_timeout", &self.connect_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .finish()
    }
}

fn server(url: &Url) -> Result<PgConnectOptions, InvalidOptions> {
    let mut server = PgConnectOptions::from_url(url).map_err(|error| invalid(plain(&error)))?;
    if server.get_application_name().is_none() {
        server = server.application_name("sessiond");
    }
    // Poolers refuse a startup parameter they do not know, and lose named statements.
    Ok(server.extra_float_digits(None).statement_cache_capacity(0).disable_statement_logging())
}

fn place(server: &PgConnectOptions) -> String {
    let socket = server.get_socket().map(|socket| socket.display().to_string());
    let host = socket.unwrap_or_else(|| server.get_host().to_owned());
    let user = server.get_username();
    // Escapes in the URL may have become line breaks here.
    quotation(&format!("{user}@{host}:{}/{}", server.get_port(), server.get_database().unwrap_or(user)))
}

fn invalid(why: impl Into<String>) -> InvalidOptions {
    InvalidOptions(one_line(&why.into()))
}

/// The URL with only such parameters as sqlx knows: it would log the others, values and all.
fn checked(text: &str) -> Result<Url, InvalidOptions> {
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        return Err(invalid("it must begin with postgres://, as in postgres://user@host:5432/database"));
    }
    let mut url = Url::parse(text).map_err(|error| {
        invalid(format!("{error}; special characters in user and password must be percent-encoded, such as %2F for /"))
    })?;
    if url.fragment().is_some() {
        return Err(invalid("a # in it must be percent-encoded as %23"));
    }
    let mut parameters = Vec::new();
    for (key, value) in url.query_pairs().into_owned() {
        // libpq's word for the usual authorities, which are trusted here anyway.
        if key == "sslrootcert" && value == "system" {
            continue;
        }
        check_file(&key, &value)?;
        if KNOWN.contains(&key.as_str()) || (key.starts_with("options[") && key.ends_with(']')) {
            parameters.push((key, value));
        } else if !HARMLESS.contains(&key.as_str()) {
            return Err(invalid(format!("the parameter \"{}\" is unknown", quotation(&key))));
        }
    }
    if parameters.is_empty() {
        url.set_query(None);
    } else {
        url.query_pairs_mut().clear().extend_pairs(parameters);
    }
    Ok(url)
}

/// Later, a missing file would look like a central that cannot be reached.
fn check_file(key: &str, value: &str) -> Result<(), InvalidOptions> {
    if !matches!(key, "sslrootcert" | "ssl-root-cert" | "ssl-ca" | "sslcert" | "ssl-cert" | "sslkey" | "ssl-key") {
        return Ok(());
    }
    match std::fs::File::open(value) {
        Ok(_) => Ok(()),
        Err(error) => Err(invalid(format!("{key}: {} cannot be read: {error}", quotation(value)))),
    }
}

/// sqlx takes a mistyped PGSSLMODE for none at all, and would go on without the protection asked for.
fn check_environment() -> Result<(), InvalidOptions> {
    match std::env::var("PGSSLMODE").map(|mode| mode.parse::<PgSslMode>()) {
        Ok(Err(error)) => Err(invalid(format!("PGSSLMODE: {}", plain(&error)))),
        _ => Ok(()),
    }
}

/// What is wrong with a parameter.
fn plain(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Configuration(why) => why.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_where_but_no_secret() {
        let options = PostgresOptions::parse("postgres://me:s3cr3t@db:5435/sessions?sslmode=require", None).unwrap();
        assert_eq!(options.display(), "me@db:5435/sessions");
        assert!(!format!("{options:?}").contains("s3cr3t"));
        let socket = PostgresOptions::parse("postgres://me@%2Frun%2Fpg:5435/sessions", None).unwrap();
        assert!(socket.display().starts_with("me@/run/pg"), "{}", socket.display());
    }

    #[test]
    fn says_what_is_wrong_without_the_password() {
        for (url, why) in [
            ("host=db password=s3cr3t", "must begin with postgres://"),
            ("mysql://me:s3cr3t@db/x", "must begin with postgres://"),
            ("postgres://me:s3cr3t/x@db/x", "percent-encoded"),
            ("postgres://me:s3cr3t@db:port/x", "invalid port number"),
            ("postgres://me:s3cr3t@db/x?sslmode=ful", "ful"),
            ("postgres://me@db/x?pasword=s3cr3t", "\"pasword\" is unknown"),
            ("postgres://me:s3cr3t@db/x?sslrootcert=/no/such.pem", "/no/such.pem cannot be read"),
            ("postgres://me:x#s3cr3t@db/x", "percent-encoded"),
        ] {
            let error = PostgresOptions::parse(url, None).unwrap_err().to_string();
            assert!(error.contains(why), "{url}: {error}");
            assert!(!error.contains("s3cr3t") && !error.contains('\n'), "{url}: {error}");
        }
    }

    #[test]
    fn takes_a_url_that_psql_takes() {
        let url =
            "postgresql://me@db/x?connect_timeout=3&channel_binding=require&sslrootcert=system&application_name=mine";
        let options = PostgresOptions::parse(url, None).unwrap();
        assert_eq!(options.login().unwrap().get_application_name(), Some("mine"));
    }

    #[test]
    fn a_password_in_the_url_counts_most_and_a_file_is_read_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "apart\n").unwrap();
        let password = |url: &str| PostgresOptions::parse(url, Some(&file)).unwrap().login().unwrap().to_url_lossy();
        assert_eq!(password("postgres://me:inside@db/x").password(), Some("inside"));
        assert_eq!(password("postgres://me@db/x?password=inside").password(), Some("inside"));
        assert_eq!(password("postgres://me@db/x").password(), Some("apart"));
        let options = PostgresOptions::parse("postgres://me@db/x", Some(&file)).unwrap();
        std::fs::write(&file, "changed").unwrap();
        assert_eq!(options.login().unwrap().to_url_lossy().password(), Some("changed"));
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(options.login(), Err(CentralError::Refused(why)) if why.contains("password_file")));
    }
}
