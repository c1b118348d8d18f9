//! Where central is and how to log in, after libpq's conventions.

use std::fmt;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use tokio::time::timeout;
use url::Url;

use super::errors::classify;
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
#[derive(Clone)]
pub struct PostgresOptions {
    pub connect_timeout: Duration,
    pub statement_timeout: Duration,
    server: PgConnectOptions,
    /// The URL and the password it was made of, to compare by: sqlx's options cannot be compared.
    made_of: (String, Option<String>),
}

impl PartialEq for PostgresOptions {
    fn eq(&self, other: &Self) -> bool {
        let key = |o: &Self| (o.made_of.clone(), o.connect_timeout, o.statement_timeout);
        key(self) == key(other)
    }
}

/// What is wrong with a URL, without anything secret of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("central.url: {0}")]
pub struct InvalidOptions(String);

impl PostgresOptions {
    /// Reads a URL; PGHOST and the like, and ~/.pgpass, fill in what it leaves out. A password given
    /// by itself counts for more than those, and for less than one in the URL.
    pub fn parse(url: &str, password: Option<&str>) -> Result<Self, InvalidOptions> {
        let made_of = (url.to_owned(), password.map(str::to_owned));
        let url = checked(url)?;
        check_environment()?;
        let mut server = PgConnectOptions::from_url(&url).map_err(|error| invalid(plain(&error)))?;
        let in_url = url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password");
        if let Some(password) = password.filter(|_| !in_url) {
            server = server.password(password);
        }
        if server.get_application_name().is_none() {
            server = server.application_name("sessiond");
        }
        // Poolers refuse a startup parameter they do not know, and lose named statements.
        server = server.extra_float_digits(None).statement_cache_capacity(0).disable_statement_logging();
        Ok(Self {
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            server,
            made_of,
        })
    }

    /// User, host, port and database, for people: no secret.
    pub fn display(&self) -> String {
        let host = self
            .server
            .get_socket()
            .map_or_else(|| self.server.get_host().to_owned(), |socket| socket.display().to_string());
        let user = self.server.get_username();
        format!("{user}@{host}:{}/{}", self.server.get_port(), self.server.get_database().unwrap_or(user))
    }

    /// Connects and logs in.
    pub(super) async fn connect(&self) -> Result<PgConnection, CentralError> {
        match timeout(self.connect_timeout, self.server.connect()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(match classify(&error, &self.display()) {
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

fn invalid(why: impl Into<String>) -> InvalidOptions {
    InvalidOptions(why.into())
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
            return Err(invalid(format!("the parameter \"{}\" is unknown", key.escape_debug())));
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
        Err(error) => Err(invalid(format!("{key}: {} cannot be read: {error}", value.escape_debug()))),
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
        let socket = PostgresOptions::parse("postgres://me@%2Frun%2Fpg:5435/sessions", Some("s3cr3t")).unwrap();
        assert!(socket.display().starts_with("me@/run/pg"), "{}", socket.display());
        assert!(!format!("{socket:?}").contains("s3cr3t"));
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
        assert_eq!(options.server.get_application_name(), Some("mine"));
    }

    #[test]
    fn a_password_in_the_url_counts_most() {
        let password = |url: &str| PostgresOptions::parse(url, Some("apart")).unwrap().server.to_url_lossy();
        assert_eq!(password("postgres://me:inside@db/x").password(), Some("inside"));
        assert_eq!(password("postgres://me@db/x?password=inside").password(), Some("inside"));
        assert_eq!(password("postgres://me@db/x").password(), Some("apart"));
    }
}
