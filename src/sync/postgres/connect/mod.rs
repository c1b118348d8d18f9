//! The address of central and the login, by libpq's conventions.
//!
//! A server on this machine is connected to directly by sqlx. For a server on another machine sessiond opens the connection
//! itself (`transport`, `tls`) and hands it to sqlx through a `tunnel`. `security` holds the requirements of each
//! connection.
//!
//! **Invariant**: a password is never sent unencrypted to another machine (G10).

mod connection_url;
mod invalid;
mod pgpass;
mod security;
mod tls;
mod transport;
mod tunnel;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Row};
use tokio::time::timeout;
use url::Url;

use super::errors::{BY_ITSELF, classify};
use crate::domain::text::{one_line, quotation};
use crate::sync::central::CentralError;
use crate::sync::pull_state::LONG_TRANSACTION;
pub use invalid::InvalidOptions;

use connection_url::each_host;
use invalid::{invalid, plain};
use security::{Security, SslMode};
use transport::Wire;
use tunnel::{Target, Tunnel};

/// How to connect to central: validated settings, including secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresOptions {
    /// How long a connection attempt may take.
    pub connect_timeout: Duration,
    /// How long a statement may take.
    pub statement_timeout: Duration,
    /// How long a transaction of another client may be open before `doctor` names it.
    pub long_transaction: Duration,
    /// One URL per host, in the order of attempts.
    urls: Vec<Url>,
    password_file: Option<PathBuf>,
    /// User, hosts with ports, and database.
    place: String,
}

/// A connection, and the host that it leads to, as text for the operator.
pub(super) struct Connected {
    pub connection: PgConnection,
    pub place: String,
    pub login: Login,
}

/// What sqlx needs to connect to a server. A connection lives no longer than its login, which may hold a tunnel.
pub(super) struct Login {
    pub options: PgConnectOptions,
    /// Whether the connection is unencrypted and leads to another machine.
    pub is_exposed: bool,
    _tunnel: Option<Tunnel>,
}

/// Returns whether the server is a standby; if not, the setting that makes its transactions read-only, if one does.
const IS_READ_ONLY: &str = "\
    SELECT pg_is_in_recovery(), \
        (SELECT source FROM pg_settings WHERE name = 'default_transaction_read_only' AND setting::bool), \
        quote_ident(current_database()), quote_ident(session_user)";

impl PostgresOptions {
    /// Parses a URL, with one host or several, as libpq does. PGHOST and similar variables, and ~/.pgpass, supply what it
    /// omits. A password file takes precedence over those, a password in the URL over the file.
    ///
    /// # Errors
    /// A URL that libpq would refuse, or a requirement that cannot be met.
    pub fn parse(url: &str, password_file: Option<&Path>) -> Result<Self, InvalidOptions> {
        let urls = each_host(url)?;
        let servers = urls.iter().map(ServerSettings::of).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            long_transaction: LONG_TRANSACTION,
            place: place(&servers),
            password_file: password_file.filter(|_| !urls.iter().any(has_password)).map(Path::to_owned),
            urls,
        })
    }

    /// User, hosts with ports, and database; contains no secret.
    pub fn display(&self) -> &str {
        &self.place
    }

    /// Each host and its port; `None` for a Unix socket.
    pub fn servers(&self) -> Vec<Option<(String, u16)>> {
        let host = |server: ServerSettings| match server.host {
            ServerAddress::Socket(_) => None,
            ServerAddress::Network { name, address } => {
                Some((address.map_or(name, |address| address.to_string()), server.port))
            }
        };
        self.urls.iter().filter_map(|url| ServerSettings::of(url).ok()).map(host).collect()
    }

    /// The ports that the URL names.
    pub(super) fn ports(&self) -> Vec<u16> {
        self.urls.iter().filter_map(|url| ServerSettings::of(url).ok()).map(|server| server.port).collect()
    }

    /// The longest that a call may take: the connection to each host, and then each statement, may take its limit.
    pub fn patience(&self) -> Duration {
        const STATEMENTS: u32 = 16;
        let hosts = u32::try_from(self.urls.len()).unwrap_or(u32::MAX);
        self.connect_timeout.saturating_mul(hosts).saturating_add(self.statement_timeout.saturating_mul(STATEMENTS))
    }

    /// The settings of one server. Files are read each time, because passwords change while the daemon runs.
    fn server(&self, url: &Url) -> Result<ServerSettings, CentralError> {
        let server =
            ServerSettings::of(url).map_err(|error| CentralError::refused(error.to_string()).caused_by(error))?;
        let Some(file) = &self.password_file else { return Ok(server) };
        let text = std::fs::read_to_string(file).map_err(|error| {
            CentralError::refused(format!("central.password_file {} cannot be read: {error}", file.display()))
                .caused_by(error)
        })?;
        Ok(ServerSettings { login: server.login.password(text.trim_end_matches(['\r', '\n'])), ..server })
    }

    /// Connects to the first host that accepts the login; of several hosts, the first that is writable.
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
        let server = self.server(url)?;
        let place = place(std::slice::from_ref(&server));
        let attempt = async {
            let (mut connection, login) = server.connect().await?;
            let read_only = read_only(&mut connection, &place, self.urls.len()).await?;
            Ok((connection, login, read_only))
        };
        match timeout(self.connect_timeout, attempt).await {
            Ok(Ok((connection, login, None))) => Ok(Connected { connection, place, login }),
            Ok(Ok((.., Some(read_only)))) => Err(read_only),
            Ok(Err(error)) => Err(match classify(error, &place) {
                // No data was sent yet, so none can be at fault.
                CentralError::Reject(rejection) => CentralError::refused(rejection.message),
                other => other,
            }),
            Err(_) => Err(CentralError::retry(format!(
                "central {place} did not complete the login within {}; {BY_ITSELF}",
                humantime::format_duration(self.connect_timeout)
            ))),
        }
    }
}

/// Why the server is not writable. A standby that is the only host is accepted: after a failover it is the primary.
async fn read_only(
    connection: &mut PgConnection,
    place: &str,
    hosts: usize,
) -> Result<Option<CentralError>, sqlx::Error> {
    let row = sqlx::raw_sql(IS_READ_ONLY).fetch_one(connection).await?;
    if row.try_get(0)? {
        return Ok((hosts > 1).then(|| CentralError::retry(format!("central {place} is read-only: it is a standby"))));
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
    Ok(Some(CentralError::refused(one_line(&format!(
        "central {place} is read-only: default_transaction_read_only is on (set by: {source}); to allow changes again: \
         {reset}"
    )))))
}

/// The error if no host can be used. It is transient if that of one host is.
fn all_of(mut errors: Vec<CentralError>) -> CentralError {
    if errors.len() == 1 {
        return errors.remove(0);
    }
    let refused = errors.iter().all(|error| matches!(error, CentralError::Refused(_)));
    let each = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let all = format!("none of the {} hosts of central can be written to: {each}", errors.len());
    if refused { CentralError::refused(all) } else { CentralError::retry(all) }
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

/// The settings of one server, from a URL and the environment.
struct ServerSettings {
    /// User, password, database and session settings; not the address, and not TLS.
    login: PgConnectOptions,
    host: ServerAddress,
    port: u16,
    security: Security,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ServerAddress {
    /// The folder of a Unix socket, as sqlx expects it.
    Socket(PathBuf),
    /// `address` takes precedence; the certificate has to be for the name.
    Network { name: String, address: Option<IpAddr> },
}

impl ServerSettings {
    fn of(url: &Url) -> Result<Self, InvalidOptions> {
        let parameters: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let value = |name: &str| parameters.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let login = login_of(url, &parameters)?;
        let host = host_of(&login, value("hostaddr"))?;
        let port = login.get_port();
        let security = Security::of(&parameters)?;
        if matches!(host, ServerAddress::Socket(_)) && security.names_methods() {
            return Err(invalid("require_auth cannot be kept on a Unix socket; leave it out"));
        }
        let login = match value("passfile") {
            _ if has_password(url) || env_is_set("PGPASSWORD") => login,
            named => with_password_of_file(login, &host, named),
        };
        Ok(Self { login, host, port, security })
    }

    async fn connect(&self) -> Result<(PgConnection, Login), sqlx::Error> {
        let mode = self.security.mode(self.is_here());
        match self.connect_in(mode).await {
            Err(error) if mode == SslMode::Allow && asks_for_tls(&error) => {
                // The first error is more helpful than the one that the server has no TLS either.
                self.connect_in(SslMode::Require).await.map_err(|_| error)
            }
            connected => connected,
        }
    }

    async fn connect_in(&self, mode: SslMode) -> Result<(PgConnection, Login), sqlx::Error> {
        let login = match &self.host {
            ServerAddress::Socket(folder) => self.direct(self.login.clone().socket(folder)),
            ServerAddress::Network { name, address } => {
                let clear = matches!(mode, SslMode::Disable | SslMode::Allow);
                if clear && self.is_here() && !self.security.names_methods() {
                    let host = address.map_or_else(|| name.clone(), |address| address.to_string());
                    self.direct(self.login.clone().host(&host))
                } else {
                    self.tunnel(name, *address, mode).await?
                }
            }
        };
        Ok((login.options.connect().await?, login))
    }

    fn direct(&self, options: PgConnectOptions) -> Login {
        Login { options: options.ssl_mode(PgSslMode::Disable), is_exposed: false, _tunnel: None }
    }

    async fn tunnel(&self, name: &str, address: Option<IpAddr>, mode: SslMode) -> io::Result<Login> {
        let stream = transport::connect(name, address, self.port).await?;
        let is_local = transport::is_local(&stream);
        let security = self.security.clone();
        let wire = transport::negotiate(stream, name, &security, mode).await?;
        let is_exposed = matches!(wire, Wire::Plain(_)) && !is_local;
        let target = Target { name: name.to_owned(), address, port: self.port, mode, security };
        let tunnel = Tunnel::open(target, wire)?;
        let options = self.login.clone().socket(tunnel.folder()).ssl_mode(PgSslMode::Disable);
        Ok(Login { options, is_exposed, _tunnel: Some(tunnel) })
    }

    /// Whether the URL names a server on this machine.
    fn is_here(&self) -> bool {
        match &self.host {
            ServerAddress::Socket(_) => true,
            ServerAddress::Network { address: Some(address), .. } => address.to_canonical().is_loopback(),
            ServerAddress::Network { name, .. } => {
                name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
            }
        }
    }
}

/// Whether the server refused an unencrypted login that it may accept with TLS.
fn asks_for_tls(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "28000")
}

/// The options of sqlx for a URL and the environment. sqlx is given only parameters that it supports, because it logs the
/// others with their values.
fn login_of(url: &Url, parameters: &[(String, String)]) -> Result<PgConnectOptions, InvalidOptions> {
    let mut url = url.clone();
    url.set_query(None);
    for (key, value) in parameters {
        if security::is_for_login(key)? {
            url.query_pairs_mut().append_pair(key, value);
        }
    }
    let mut login = PgConnectOptions::from_url(&url).map_err(|error| invalid(plain(&error)))?;
    if login.get_application_name().is_none() {
        login = login.application_name("sessiond");
    }
    // Poolers refuse startup parameters that they do not know, and lose named statements.
    Ok(login.extra_float_digits(None).statement_cache_capacity(0).disable_statement_logging())
}

fn host_of(login: &PgConnectOptions, address: Option<&str>) -> Result<ServerAddress, InvalidOptions> {
    if let Some(socket) = login.get_socket() {
        return Ok(ServerAddress::Socket(socket.clone()));
    }
    let name = percent_decode_str(login.get_host()).decode_utf8_lossy().into_owned();
    // Brackets separate the colons of an IPv6 address from that of the port.
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name).to_owned();
    if name.starts_with('/') {
        return Ok(ServerAddress::Socket(name.into()));
    }
    let parse =
        |text: &str| text.parse().map_err(|_| invalid(format!("hostaddr: \"{}\" is no address", quotation(text))));
    Ok(ServerAddress::Network { name, address: address.filter(|text| !text.is_empty()).map(parse).transpose()? })
}

/// Sets the password from the file that `passfile` names, or else from the one that libpq reads.
fn with_password_of_file(login: PgConnectOptions, host: &ServerAddress, named: Option<&str>) -> PgConnectOptions {
    let usual = || {
        let variable = std::env::var_os("PGPASSFILE").filter(|path| !path.is_empty()).map(PathBuf::from);
        variable.or_else(|| Some(std::env::home_dir()?.join(".pgpass")))
    };
    let Some(file) = named.map(PathBuf::from).or_else(usual) else { return login };
    let host = match host {
        ServerAddress::Socket(_) => "localhost",
        ServerAddress::Network { name, .. } => name,
    };
    let user = login.get_username().to_owned();
    let database = login.get_database().unwrap_or(&user).to_owned();
    match pgpass::password(&file, [host, &login.get_port().to_string(), &database, &user]) {
        Some(password) => login.password(&password),
        None => login,
    }
}

fn has_password(url: &Url) -> bool {
    url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password")
}

fn env_is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

fn place(servers: &[ServerSettings]) -> String {
    let host = |server: &ServerSettings| {
        let host = match &server.host {
            ServerAddress::Socket(folder) => folder.display().to_string(),
            ServerAddress::Network { name, .. } if name.contains(':') => format!("[{name}]"),
            ServerAddress::Network { name, .. } => name.clone(),
        };
        format!("{host}:{}", server.port)
    };
    let Some(first) = servers.first() else { return String::new() };
    let user = first.login.get_username();
    let hosts = servers.iter().map(host).collect::<Vec<_>>().join(",");
    // Decoded escapes of the URL may contain line breaks.
    quotation(&format!("{user}@{hosts}/{}", first.login.get_database().unwrap_or(user)))
}

#[cfg(test)]
mod tests;
