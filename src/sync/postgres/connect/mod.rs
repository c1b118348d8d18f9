//! Where central is and how to log in, after libpq's conventions.
//!
//! A server on this machine is connected to directly; one on another over a wire of our own (`transport`, `tls`), which
//! sqlx uses through a `tunnel`. `security` decides what each connection must fulfil.

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
pub use invalid::InvalidOptions;

use connection_url::each_host;
use invalid::{invalid, plain};
use security::{Security, SslMode};
use transport::Wire;
use tunnel::{Target, Tunnel};

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
    pub login: Login,
}

/// What sqlx needs to connect to a server. A connection lives no longer than its login, which may hold a tunnel.
pub(super) struct Login {
    pub options: PgConnectOptions,
    /// Whether it is in clear, to another machine.
    pub is_exposed: bool,
    _tunnel: Option<Tunnel>,
}

/// Is the server a standby; and if not, which setting makes its transactions read-only, if one does?
const IS_READ_ONLY: &str = "\
    SELECT pg_is_in_recovery(), \
        (SELECT source FROM pg_settings WHERE name = 'default_transaction_read_only' AND setting::bool), \
        quote_ident(current_database()), quote_ident(session_user)";

impl PostgresOptions {
    /// Reads a URL, of several hosts too, as libpq has it; PGHOST and the like, and ~/.pgpass, fill in what
    /// it leaves out. A password file counts for more than those, and for less than a password in the URL.
    ///
    /// # Errors
    /// What libpq would refuse, and a demand that cannot be kept.
    pub fn parse(url: &str, password_file: Option<&Path>) -> Result<Self, InvalidOptions> {
        let urls = each_host(url)?;
        let servers = urls.iter().map(Server::of).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            place: place(&servers),
            password_file: password_file.filter(|_| !urls.iter().any(has_password)).map(Path::to_owned),
            urls,
        })
    }

    /// User, hosts with ports, and database, for people: no secret.
    pub fn display(&self) -> &str {
        &self.place
    }

    /// Each host and its port; none for a Unix socket.
    pub fn servers(&self) -> Vec<Option<(String, u16)>> {
        let host = |server: Server| match server.host {
            Host::Socket(_) => None,
            Host::Network { name, address } => Some((address.map_or(name, |address| address.to_string()), server.port)),
        };
        self.urls.iter().filter_map(|url| Server::of(url).ok()).map(host).collect()
    }

    /// The ports that the URL names.
    pub(super) fn ports(&self) -> Vec<u16> {
        self.urls.iter().filter_map(|url| Server::of(url).ok()).map(|server| server.port).collect()
    }

    /// The longest that a call may take: each host may keep it waiting, and then each statement.
    pub fn patience(&self) -> Duration {
        const STATEMENTS: u32 = 16;
        let hosts = u32::try_from(self.urls.len()).unwrap_or(u32::MAX);
        self.connect_timeout.saturating_mul(hosts).saturating_add(self.statement_timeout.saturating_mul(STATEMENTS))
    }

    /// What to log in with. Files are read anew each time: passwords are changed while the daemon runs.
    fn server(&self, url: &Url) -> Result<Server, CentralError> {
        let server = Server::of(url).map_err(|error| CentralError::Refused(error.to_string()))?;
        let Some(file) = &self.password_file else { return Ok(server) };
        let text = std::fs::read_to_string(file).map_err(|error| {
            CentralError::Refused(format!("central.password_file {} cannot be read: {error}", file.display()))
        })?;
        Ok(Server { login: server.login.password(text.trim_end_matches(['\r', '\n'])), ..server })
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
            Ok(Err(error)) => Err(match classify(&error, &place) {
                // There is no data yet that could be at fault.
                CentralError::Reject(rejection) => CentralError::Refused(rejection.message),
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

/// One server, as a URL and the environment have it.
struct Server {
    /// User, password, database and settings of the session; neither the way there nor TLS.
    login: PgConnectOptions,
    host: Host,
    port: u16,
    security: Security,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    /// The folder of a Unix socket, as sqlx takes it.
    Socket(PathBuf),
    /// `address` counts where both are given; the certificate is for the name.
    Network { name: String, address: Option<IpAddr> },
}

impl Server {
    fn of(url: &Url) -> Result<Self, InvalidOptions> {
        let parameters: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let value = |name: &str| parameters.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let login = login_of(url, &parameters)?;
        let host = host_of(&login, value("hostaddr"))?;
        let port = login.get_port();
        let security = Security::of(&parameters)?;
        if matches!(host, Host::Socket(_)) && security.names_methods() {
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
                // What the server said first tells more than that it has no TLS either.
                self.connect_in(SslMode::Require).await.map_err(|_| error)
            }
            connected => connected,
        }
    }

    async fn connect_in(&self, mode: SslMode) -> Result<(PgConnection, Login), sqlx::Error> {
        let login = match &self.host {
            Host::Socket(folder) => self.direct(self.login.clone().socket(folder)),
            Host::Network { name, address } => {
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

    /// Whether the URL itself says that the server is on this machine.
    fn is_here(&self) -> bool {
        match &self.host {
            Host::Socket(_) => true,
            Host::Network { address: Some(address), .. } => address.to_canonical().is_loopback(),
            Host::Network { name, .. } => {
                name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
            }
        }
    }
}

/// Does the server refuse a login in clear that it might take with TLS?
fn asks_for_tls(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "28000")
}

/// What sqlx makes of a URL and the environment, with only such parameters as it is meant to know: it would log the
/// others, values and all.
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
    // Poolers refuse a startup parameter they do not know, and lose named statements.
    Ok(login.extra_float_digits(None).statement_cache_capacity(0).disable_statement_logging())
}

fn host_of(login: &PgConnectOptions, address: Option<&str>) -> Result<Host, InvalidOptions> {
    if let Some(socket) = login.get_socket() {
        return Ok(Host::Socket(socket.clone()));
    }
    let name = percent_decode_str(login.get_host()).decode_utf8_lossy().into_owned();
    // Brackets are the URL's way to tell the colons of an address from that of the port.
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name).to_owned();
    if name.starts_with('/') {
        return Ok(Host::Socket(name.into()));
    }
    let parse =
        |text: &str| text.parse().map_err(|_| invalid(format!("hostaddr: \"{}\" is no address", quotation(text))));
    Ok(Host::Network { name, address: address.filter(|text| !text.is_empty()).map(parse).transpose()? })
}

/// Looks the password up in the file that `passfile` names, else where libpq looks for one.
fn with_password_of_file(login: PgConnectOptions, host: &Host, named: Option<&str>) -> PgConnectOptions {
    let usual = || {
        let variable = std::env::var_os("PGPASSFILE").filter(|path| !path.is_empty()).map(PathBuf::from);
        variable.or_else(|| Some(std::env::home_dir()?.join(".pgpass")))
    };
    let Some(file) = named.map(PathBuf::from).or_else(usual) else { return login };
    let host = match host {
        Host::Socket(_) => "localhost",
        Host::Network { name, .. } => name,
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

fn place(servers: &[Server]) -> String {
    let host = |server: &Server| {
        let host = match &server.host {
            Host::Socket(folder) => folder.display().to_string(),
            Host::Network { name, .. } if name.contains(':') => format!("[{name}]"),
            Host::Network { name, .. } => name.clone(),
        };
        format!("{host}:{}", server.port)
    };
    let Some(first) = servers.first() else { return String::new() };
    let user = first.login.get_username();
    let hosts = servers.iter().map(host).collect::<Vec<_>>().join(",");
    // Escapes in the URL may have become line breaks here.
    quotation(&format!("{user}@{hosts}/{}", first.login.get_database().unwrap_or(user)))
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
        let url = "postgresql://me@db/x?connect_timeout=3&channel_binding=prefer&application_name=mine&sslsni=1\
                   &client_encoding=utf8&passfile=/no/such&tcp_user_timeout=5000&keepalives=1&gssencmode=disable";
        let options = PostgresOptions::parse(url, None).unwrap();
        let server = options.server(&options.urls[0]).unwrap();
        assert_eq!(server.login.get_application_name(), Some("mine"));
        assert_eq!(server.login.get_options(), None);
    }

    #[test]
    fn hosts_are_names_addresses_and_sockets() {
        let host = |url: &str| Server::of(&Url::parse(url).unwrap()).unwrap();
        let network = |name: &str| Host::Network { name: name.into(), address: None };
        for (url, name, is_here) in [
            ("postgres://u@[::1]:5432/d", "::1", true),
            ("postgres://u@%5B%3A%3A1%5D:5432/d", "::1", true),
            ("postgres://u@%3A%3A1/d", "::1", true),
            ("postgres://u@[2001:db8::7]/d", "2001:db8::7", false),
            ("postgres://u@127.8.9.1/d", "127.8.9.1", true),
            ("postgres://u@[::ffff:127.0.0.1]/d", "::ffff:127.0.0.1", true),
            ("postgres://u@localhost/d", "localhost", true),
            ("postgres://u@odin3/d", "odin3", false),
            ("postgres://u@localhost.example/d", "localhost.example", false),
        ] {
            let server = host(url);
            let shown = server.host == network(name)
                || server.host == network(&name.replace("::ffff:127.0.0.1", "::ffff:7f00:1"));
            assert!(shown && server.is_here() == is_here, "{url}: {:?}", server.host);
        }
        for url in ["postgres://u@%2Frun%2Fpg/d", "postgres://u@localhost/d?host=/run/pg"] {
            assert!(matches!(host(url).host, Host::Socket(_)), "{url}");
        }
        let both = host("postgres://u@db.example/d?hostaddr=127.0.0.1");
        assert!(
            both.is_here()
                && both.host == Host::Network { name: "db.example".into(), address: "127.0.0.1".parse().ok() }
        );
        assert!(Server::of(&Url::parse("postgres://u@db/d?hostaddr=db").unwrap()).is_err());
    }

    #[test]
    fn a_password_in_the_url_counts_most_and_a_file_is_read_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "apart\n").unwrap();
        let of =
            |options: &PostgresOptions| Ok::<_, CentralError>(options.server(&options.urls[0])?.login.to_url_lossy());
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
