//! Where central is and how to log in, after libpq's conventions.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Row};
use tokio::time::timeout;
use url::Url;

use super::errors::{BY_ITSELF, classify};
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
    /// One for each host, in the order in which they are tried.
    urls: Vec<Url>,
    password_file: Option<PathBuf>,
    /// User, hosts with ports, and database.
    place: String,
}

/// A connection, and to which of the hosts it leads, for people.
pub(super) struct Connected {
    pub connection: PgConnection,
    pub place: String,
    pub login: PgConnectOptions,
}

/// Is the server a standby; and if not, which setting makes its transactions read-only, if one does?
const IS_READ_ONLY: &str = "\
    SELECT pg_is_in_recovery(), \
        (SELECT source FROM pg_settings WHERE name = 'default_transaction_read_only' AND setting::bool), \
        quote_ident(current_database()), quote_ident(session_user)";

/// What is wrong with a URL, without anything secret of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("central.url: {0}")]
pub struct InvalidOptions(String);

impl PostgresOptions {
    /// Reads a URL, of several hosts too, as libpq has it; PGHOST and the like, and ~/.pgpass, fill in what
    /// it leaves out. A password file counts for more than those, and for less than a password in the URL.
    pub fn parse(url: &str, password_file: Option<&Path>) -> Result<Self, InvalidOptions> {
        let urls = each_host(url)?;
        check_environment()?;
        let in_url = |url: &Url| url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password");
        let servers = urls.iter().map(server).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            place: place(&servers),
            password_file: password_file.filter(|_| !urls.iter().any(in_url)).map(Path::to_owned),
            urls,
        })
    }

    /// User, hosts with ports, and database, for people: no secret.
    pub fn display(&self) -> &str {
        &self.place
    }

    /// Each host and its port; none for a Unix socket.
    pub fn servers(&self) -> Vec<Option<(String, u16)>> {
        let host = |server: PgConnectOptions| {
            server.get_socket().is_none().then(|| (server.get_host().to_owned(), server.get_port()))
        };
        self.urls.iter().filter_map(|url| server(url).ok()).map(host).collect()
    }

    /// The ports that the URL names.
    pub(super) fn ports(&self) -> Vec<u16> {
        self.urls.iter().filter_map(|url| server(url).ok()).map(|server| server.get_port()).collect()
    }

    /// The longest that a call may take: each host may keep it waiting, and then each statement.
    pub fn patience(&self) -> Duration {
        const STATEMENTS: u32 = 16;
        let hosts = u32::try_from(self.urls.len()).unwrap_or(u32::MAX);
        self.connect_timeout.saturating_mul(hosts).saturating_add(self.statement_timeout.saturating_mul(STATEMENTS))
    }

    /// What to log in with. Files are read anew each time: passwords are changed while the daemon runs.
    fn login(&self, url: &Url) -> Result<PgConnectOptions, CentralError> {
        let server = server(url).map_err(|error| CentralError::Refused(error.to_string()))?;
        let Some(file) = &self.password_file else { return Ok(server) };
        let text = std::fs::read_to_string(file).map_err(|error| {
            CentralError::Refused(format!("central.password_file {} cannot be read: {error}", file.display()))
        })?;
        Ok(server.password(text.trim_end_matches(['\r', '\n'])))
    }

    /// Connects and logs in to the first host that lets us in, and of several, lets us write.
    pub(super) async fn connect(&self) -> Result<Connected, CentralError> {
        let mut errors = Vec::new();
        for url in &self.urls {
            match self.connect_to(url).await {
                Ok(connected) => return Ok(connected),
                Err(error) => errors.push(error),
            }
        }
        Err(all_of(errors))
    }

    async fn connect_to(&self, url: &Url) -> Result<Connected, CentralError> {
        let login = self.login(url)?;
        let place = place(std::slice::from_ref(&login));
        let attempt = async {
            let mut connection = login.connect().await?;
            let read_only = read_only(&mut connection, &place, self.urls.len()).await?;
            Ok((connection, read_only))
        };
        match timeout(self.connect_timeout, attempt).await {
            Ok(Ok((connection, None))) => Ok(Connected { connection, place, login }),
            Ok(Ok((_, Some(read_only)))) => Err(read_only),
            Ok(Err(error)) => Err(match classify(&error, &place) {
                // There is no data yet that could be at fault.
                CentralError::Reject(message) => CentralError::Refused(message),
                other => other,
            }),
            Err(_) => Err(CentralError::Retry(format!(
                "central {place} let nobody in within {}; {BY_ITSELF}",
                humantime::format_duration(self.connect_timeout)
            ))),
        }
    }
}

/// Why nothing can be written there. A standby that is the only host is accepted: after a failover it is the primary.
async fn read_only(
    connection: &mut PgConnection,
    place: &str,
    hosts: usize,
) -> Result<Option<CentralError>, sqlx::Error> {
    let row = sqlx::raw_sql(IS_READ_ONLY).fetch_one(connection).await?;
    if row.try_get(0)? {
        return Ok((hosts > 1).then(|| CentralError::Retry(format!("central {place} is read-only: it is a standby"))));
    }
    let Some(source) = row.try_get::<Option<String>, _>(1)? else { return Ok(None) };
    let (database, role): (String, String) = (row.try_get(2)?, row.try_get(3)?);
    let begin = |of: String| format!("BEGIN READ WRITE; ALTER {of} RESET default_transaction_read_only; COMMIT");
    let reset = match source.as_str() {
        "database" => begin(format!("DATABASE {database}")),
        "user" => begin(format!("ROLE {role}")),
        "database user" => begin(format!("ROLE {role} IN DATABASE {database}")),
        "client" => "remove it from central.url".into(),
        _ => "ALTER SYSTEM RESET default_transaction_read_only, then SELECT pg_reload_conf()".into(),
    };
    Ok(Some(CentralError::Refused(one_line(&format!(
        "central {place} is read-only: default_transaction_read_only is on (set by: {source}); to allow changes again: \
         {reset}"
    )))))
}

/// Why no host will do. As long as one of them may come back by itself, so may central.
fn all_of(mut errors: Vec<CentralError>) -> CentralError {
    if errors.len() == 1 {
        return errors.remove(0);
    }
    let refused = errors.iter().all(|error| matches!(error, CentralError::Refused(_)));
    let each = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let all = format!("none of the {} hosts of central can be written to: {each}", errors.len());
    if refused { CentralError::Refused(all) } else { CentralError::Retry(all) }
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

fn place(servers: &[PgConnectOptions]) -> String {
    let host = |server: &PgConnectOptions| {
        let socket = server.get_socket().map(|socket| socket.display().to_string());
        format!("{}:{}", socket.unwrap_or_else(|| server.get_host().to_owned()), server.get_port())
    };
    let Some(first) = servers.first() else { return String::new() };
    let user = first.get_username();
    let hosts = servers.iter().map(host).collect::<Vec<_>>().join(",");
    // Escapes in the URL may have become line breaks here.
    quotation(&format!("{user}@{hosts}/{}", first.get_database().unwrap_or(user)))
}

/// One URL for each host of `postgres://user@host1:port1,host2:port2/database?host=/socket1,/socket2`; hosts in
/// the query count for more than those before it, and one port serves all hosts.
fn each_host(text: &str) -> Result<Vec<Url>, InvalidOptions> {
    let (before, hosts, after) = authority(text);
    // libpq takes user@/database where the query names the hosts; a URL proper has one before it.
    let hosts = if hosts.is_empty() && after.contains("host=") { "localhost" } else { hosts };
    let hosts: Vec<&str> = hosts.split(',').collect();
    let urls = hosts.iter().map(|host| checked(&format!("{before}{host}{after}"))).collect::<Result<Vec<_>, _>>()?;
    let Some(first) = urls.first() else { return Err(invalid("it names no host")) };
    let values = |name: &str| -> Vec<String> {
        let value = first.query_pairs().filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).last();
        value.map(|value| value.split(',').map(str::to_owned).collect()).unwrap_or_default()
    };
    let (in_query, ports) = (values("host"), values("port"));
    if in_query.len() < 2 && ports.len() < 2 {
        return Ok(urls);
    }
    let count = if in_query.is_empty() { urls.len() } else { in_query.len() };
    if ports.len() > 1 && ports.len() != count {
        return Err(invalid(format!("it names {count} hosts and {} ports", ports.len())));
    }
    let nth = |n: usize| {
        let mut url = urls.get(n).unwrap_or(first).clone();
        set(&mut url, "host", in_query.get(n));
        set(&mut url, "port", ports.get(n).or(ports.first()));
        url
    };
    Ok((0..count).map(nth).collect())
}

/// Splits a URL before and after its hosts.
fn authority(text: &str) -> (&str, &str, &str) {
    let start = text.find("://").map_or(0, |at| at + 3);
    let end = text[start..].find(['/', '?', '#']).map_or(text.len(), |at| start + at);
    let start = text[start..end].rfind('@').map_or(start, |at| start + at + 1);
    (&text[..start], &text[start..end], &text[end..])
}

/// Gives a parameter another value, if there is one.
fn set(url: &mut Url, name: &str, value: Option<&String>) {
    let Some(value) = value else { return };
    let others: Vec<_> =
        url.query_pairs().filter(|(key, _)| key != name).map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
    url.query_pairs_mut().clear().extend_pairs(others).append_pair(name, value);
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
        assert_eq!(options.login(&options.urls[0]).unwrap().get_application_name(), Some("mine"));
    }

    #[test]
    fn a_password_in_the_url_counts_most_and_a_file_is_read_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "apart\n").unwrap();
        let of = |options: &PostgresOptions| Ok::<_, CentralError>(options.login(&options.urls[0])?.to_url_lossy());
        let password = |url: &str| of(&PostgresOptions::parse(url, Some(&file)).unwrap()).unwrap();
        assert_eq!(password("postgres://me:inside@db/x").password(), Some("inside"));
        assert_eq!(password("postgres://me@db/x?password=inside").password(), Some("inside"));
        assert_eq!(password("postgres://me@db/x").password(), Some("apart"));
        let options = PostgresOptions::parse("postgres://me@db/x", Some(&file)).unwrap();
        std::fs::write(&file, "changed").unwrap();
        assert_eq!(of(&options).unwrap().password(), Some("changed"));
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(of(&options), Err(CentralError::Refused(why)) if why.contains("password_file")));
    }

    #[test]
    fn takes_several_hosts_as_libpq_does() {
        for (url, shown) in [
            ("postgres://me@a:1,b:2/x", "me@a:1,b:2/x"),
            ("postgres://me@a,b:2,c/x", "me@a:5432,b:2,c:5432/x"),
            ("postgres://me@[::1]:1,b/x", "me@[::1]:1,b:5432/x"),
            ("postgres://me@a,b/x?port=7", "me@a:7,b:7/x"),
            ("postgres://me@/x?host=/a,/b", "me@/a:5432,/b:5432/x"),
            ("postgres://me@localhost/x?host=/a,b&port=1,2", "me@/a:1,b:2/x"),
        ] {
            let options = PostgresOptions::parse(url, None).map(|options| options.display().to_owned());
            assert_eq!(options.as_deref(), Ok(shown), "{url}");
        }
        for url in ["postgres://me@a,b/x?port=1,2,3", "postgres://me:s3cr3t@a:1,b:no/x"] {
            let error = PostgresOptions::parse(url, None).unwrap_err().to_string();
            assert!(!error.contains("s3cr3t"), "{error}");
        }
    }

    #[test]
    fn hosts_that_all_refuse_need_a_person_and_others_do_not() {
        let (away, refused) = (CentralError::Retry("away".into()), CentralError::Refused("no".into()));
        assert_eq!(all_of(vec![away.clone()]), away);
        assert!(matches!(all_of(vec![refused.clone(), refused.clone()]), CentralError::Refused(_)));
        let CentralError::Retry(both) = all_of(vec![refused, away]) else { panic!("one may come back") };
        assert!(both.contains("none of the 2 hosts") && both.contains("no; away"), "{both}");
    }
}
