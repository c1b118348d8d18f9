//! A private Postgres: its own folder, its own socket, no port.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::unistd::User;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::eventually;

const LIMIT: Duration = Duration::from_secs(60);

/// What `null` reads as in an answer of [`Server::psql`].
pub const NULL: &str = "\\N";

pub struct Server {
    dir: TempDir,
    settings: Vec<String>,
    programs: Programs,
    /// Names the Unix socket too; only a server with TLS listens on it.
    port: u16,
    process: Option<Child>,
}

/// Where the programs of a server come from.
#[derive(Clone)]
enum Programs {
    /// The newest that is installed.
    Installed,
    /// A folder with `bin`, `lib` and `share`, as a package of another version has them.
    In(Arc<ProgramFolder>),
}

/// A copy of a version's programs, which the user who runs Postgres can reach.
struct ProgramFolder(TempDir);

impl Programs {
    /// Postgres's own clients are the installed ones: the packages have none.
    fn server(&self, name: &str) -> PathBuf {
        match self {
            Self::Installed => binary(name),
            Self::In(folder) => folder.0.path().join("programs/bin").join(name),
        }
    }
}

/// A free port may be taken by another process; then another one is tried.
const PORTS_TO_TRY: usize = 10;

const USUAL_PORT: u16 = 5432;

/// How a server is made to stop.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// Refuses new clients, throws out the others, writes everything down.
    Fast,
    /// Like a crash of the server.
    Immediate,
    /// Like a crash of the machine.
    Kill,
}

impl Server {
    /// A running server; each setting is `name=value`.
    pub fn start(settings: &[&str]) -> Self {
        Self::with_programs(Programs::Installed, settings)
    }

    /// A running server of the version whose `bin`, `lib` and `share` lie in a folder.
    pub fn start_version(folder: &Path, settings: &[&str]) -> Self {
        let copied = tempfile::tempdir().expect("a folder for Postgres's programs");
        hand_over(copied.path());
        copy(folder, &copied.path().join("programs"));
        Self::with_programs(Programs::In(Arc::new(ProgramFolder(copied))), settings)
    }

    fn with_programs(programs: Programs, settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder for Postgres");
        copy_template(&programs, dir.path());
        let settings = settings.iter().map(ToString::to_string).collect();
        let mut server = Self { dir, settings, programs, port: USUAL_PORT, process: None };
        server.resume();
        server
    }

    /// A running server with TLS, on a port of this machine.
    pub fn start_with_tls(certificate: &Path, key: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a folder for Postgres");
        copy_template(&Programs::Installed, dir.path());
        let mut settings = vec!["listen_addresses=127.0.0.1".to_owned(), "ssl=on".to_owned()];
        for (name, file) in [("ssl_cert_file", certificate), ("ssl_key_file", key)] {
            let own = dir.path().join(name);
            fs::copy(file, &own).expect("a certificate can be copied");
            fs::set_permissions(&own, fs::Permissions::from_mode(0o600)).expect("a mode can be set");
            give_away(&own);
            settings.push(format!("{name}={}", own.display()));
        }
        let mut server = Self { dir, settings, programs: Programs::Installed, port: 0, process: None };
        for _ in 0..PORTS_TO_TRY {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
            server.port = free.expect("a port").port();
            if server.launch().is_ok() {
                return server;
            }
        }
        panic!("Postgres got no port: {}", fs::read_to_string(server.log()).unwrap_or_default());
    }

    /// A standby that follows this server.
    pub fn replica(&self) -> Self {
        let dir = tempfile::tempdir().expect("a folder for Postgres");
        hand_over(dir.path());
        let mut backup = as_owner(&binary("pg_basebackup"));
        backup.args(["-R", "-X", "stream", "-c", "fast", "--no-sync", "-U", "postgres", "-h"]).arg(self.folder());
        let output = backup.arg("-D").arg(dir.path().join("data")).output().expect("pg_basebackup can be run");
        assert!(output.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&output.stderr));
        let settings = self.settings.clone();
        let mut replica = Self { dir, settings, programs: self.programs.clone(), port: self.port, process: None };
        replica.resume();
        replica
    }

    /// Makes a standby a primary of its own.
    pub fn promote(&self) {
        let mut promote = as_owner(&self.programs.server("pg_ctl"));
        let output = promote.args(["promote", "-w", "-D"]).arg(self.data()).output().expect("pg_ctl can be run");
        assert!(output.status.success(), "pg_ctl promote: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts a stopped server again.
    pub fn resume(&mut self) {
        eventually("Postgres starts", LIMIT, || match self.launch() {
            // A child that was forked while its server was killed runs a little longer.
            Err(log) if log.lines().rev().take(5).any(|line| line.contains("pre-existing shared memory")) => None,
            started => Some(started),
        })
        .unwrap_or_else(|log| panic!("Postgres ended: {log}"));
    }

    /// Starts it and waits until it serves; its log if it does not.
    fn launch(&mut self) -> Result<(), String> {
        let mut command = as_owner(&self.programs.server("postgres"));
        command.arg("-D").arg(self.data()).arg("-k").arg(self.folder()).arg("-p").arg(self.port.to_string()).args([
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
            "-c",
            "shared_buffers=16MB",
            "-c",
            "max_connections=40",
        ]);
        for setting in &self.settings {
            command.arg("-c").arg(setting);
        }
        let log = fs::File::options().create(true).append(true).open(self.log()).expect("a log for Postgres");
        let log_again = log.try_clone().expect("a log for Postgres");
        self.process =
            Some(command.stdin(Stdio::null()).stdout(log).stderr(log_again).spawn().expect("Postgres can be started"));
        eventually("Postgres is ready", LIMIT, || {
            let status = self.process.as_mut().and_then(|p| p.try_wait().ok().flatten());
            if status.is_some() {
                return Some(Err(fs::read_to_string(self.log()).unwrap_or_default()));
            }
            let pid_file = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
            pid_file.lines().nth(7).filter(|line| matches!(line.trim(), "ready" | "standby")).map(|_| Ok(()))
        })
    }

    pub fn stop(&mut self, how: Stop) {
        let Some(mut process) = self.process.take() else { return };
        let postmaster = Pid::from_child(&process);
        match how {
            Stop::Fast => _ = kill_process(postmaster, Signal::INT),
            Stop::Immediate => _ = kill_process(postmaster, Signal::QUIT),
            Stop::Kill => self_and_children(postmaster).iter().for_each(|pid| _ = kill_process(*pid, Signal::KILL)),
        }
        eventually("Postgres has stopped", LIMIT, || process.try_wait().ok().flatten());
        if matches!(how, Stop::Kill) {
            // A new server refuses to start beside what it takes for a running one.
            _ = fs::remove_file(self.data().join("postmaster.pid"));
        }
    }

    /// Makes the server hang: it accepts connections and does not answer.
    pub fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, signal: Signal) {
        if let Some(process) = &self.process {
            for pid in self_and_children(Pid::from_child(process)) {
                _ = kill_process(pid, signal);
            }
        }
    }

    /// The URL of a database, for its owner.
    pub fn url(&self, database: &str) -> String {
        self.url_as("postgres", database)
    }

    pub fn url_as(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@localhost:{}/{database}?host={}", self.port, self.dir.path().display())
    }

    /// Where its Unix socket lies.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The Unix socket that it listens on.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join(format!(".s.PGSQL.{}", self.port))
    }

    pub fn create(&self, database: &str) {
        self.psql("postgres", &format!("CREATE DATABASE {database}"));
    }

    /// Runs SQL with psql; returns lines of fields separated by `|`.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let output = self.try_psql(database, &["-c", sql]);
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("psql answers UTF-8").trim_end_matches('\n').to_owned()
    }

    /// Runs a file of SQL, as `psql -f` does.
    pub fn psql_file(&self, database: &str, file: &Path) {
        let output = self.try_psql(database, &["-f", file.to_str().expect("a path in UTF-8")]);
        assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    }

    /// The same, with variables as `psql -v NAME=VALUE` sets them.
    pub fn psql_file_with(&self, database: &str, file: &Path, variables: &[&str]) {
        let mut what: Vec<_> = variables.iter().flat_map(|variable| ["-v", variable]).collect();
        what.extend(["-f", file.to_str().expect("a path in UTF-8")]);
        let output = self.try_psql(database, &what);
        assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    }

    /// Runs SQL as another role: returns the output, or the error.
    pub fn psql_as(&self, user: &str, database: &str, sql: &str) -> Result<String, String> {
        let output = self.try_psql(database, &["-U", user, "-c", sql]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn try_psql(&self, database: &str, what: &[&str]) -> Output {
        self.psql_command(database).args(what).output().expect("psql can be run")
    }

    /// Leaves SQL running, such as one that holds a lock.
    pub fn psql_behind(&self, database: &str, sql: &str) -> Behind {
        let mut psql = self.psql_command(database);
        Behind(psql.args(["-c", sql]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("psql can be run"))
    }

    fn psql_command(&self, database: &str) -> Command {
        let mut psql = self.libpq("psql", database);
        psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-P", &format!("null={NULL}")]);
        psql
    }

    /// One of Postgres's own clients, with nothing from the environment.
    fn libpq(&self, program: &str, database: &str) -> Command {
        libpq(program, self.dir.path(), self.port, database)
    }

    /// A client that writes to a database, also while the server fails.
    /// Runs SQL in a transaction that stays open; one at a time.
    pub fn open_transaction(&self, database: &str, sql: &str) -> OpenTransaction<'_> {
        let sql = format!("BEGIN; {sql}; SELECT pg_sleep(600) /* stays open */");
        let transaction = OpenTransaction { server: self, _psql: self.psql_behind(database, &sql) };
        eventually("the transaction is open", LIMIT, || {
            (self.psql("postgres", &format!("SELECT count(*) {SLEEPING}")) == "1").then_some(())
        });
        transaction
    }

    pub fn client(&self, database: &str) -> Client {
        Client { dir: self.dir.path().to_owned(), port: self.port, database: database.into() }
    }

    /// A dump of a database, as `pg_dump` makes it.
    pub fn dump(&self, database: &str) -> String {
        let output = self.libpq("pg_dump", database).output().expect("pg_dump can be run");
        assert!(output.status.success(), "pg_dump: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a dump in UTF-8")
    }

    /// Replaces a database by what a dump has of it.
    pub fn restore(&self, database: &str, dump: &str) {
        self.psql("postgres", &format!("DROP DATABASE {database} WITH (FORCE)"));
        self.create(database);
        let file = self.dir.path().join("dump.sql");
        fs::write(&file, dump).expect("the dump can be written");
        self.psql_file(database, &file);
    }

    /// Replaces pg_hba.conf by these lines.
    pub fn admit(&self, lines: &str) {
        fs::write(self.data().join("pg_hba.conf"), lines).expect("pg_hba.conf can be written");
        self.psql_reload();
    }

    fn psql_reload(&self) {
        if let Some(process) = &self.process {
            _ = kill_process(Pid::from_child(process), Signal::HUP);
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.thaw();
        // A test that fails must not fail again here.
        if let Some(mut process) = self.process.take() {
            for pid in self_and_children(Pid::from_child(&process)) {
                _ = kill_process(pid, Signal::KILL);
            }
            _ = process.wait();
        }
    }
}

pub struct Client {
    dir: PathBuf,
    port: u16,
    database: String,
}

impl Client {
    /// Runs SQL; says whether it is known to have worked.
    pub fn run(&self, sql: &str) -> bool {
        let mut psql = libpq("psql", &self.dir, self.port, &self.database);
        psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-c", sql]).output().expect("psql can be run").status.success()
    }
}

/// One of Postgres's own clients, with nothing from the environment. `dir`: the folder of a socket, or a host.
pub fn libpq(program: &str, dir: &Path, port: u16, database: &str) -> Command {
    let mut command = Command::new(binary(program));
    for variable in ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGSSLMODE", "PGTZ", "PGOPTIONS", "PGSERVICE"] {
        command.env_remove(variable);
    }
    command.args(["-U", "postgres", "-d", database, "-p", &port.to_string(), "-h"]).arg(dir);
    command
}

/// A transaction that stays open, with what it locked, until it is dropped.
pub struct OpenTransaction<'a> {
    server: &'a Server,
    _psql: Behind,
}

const SLEEPING: &str = "FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%stays open%'";

impl Drop for OpenTransaction<'_> {
    fn drop(&mut self) {
        self.server.psql("postgres", &format!("SELECT pg_terminate_backend(pid) {SLEEPING}"));
        eventually("the transaction has ended", LIMIT, || {
            (self.server.psql("postgres", &format!("SELECT count(*) {SLEEPING}")) == "0").then_some(())
        });
    }
}

/// A psql that runs until it is dropped.
pub struct Behind(Child);

impl Drop for Behind {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// A process and its children.
pub fn self_and_children(pid: Pid) -> Vec<Pid> {
    let children = format!("/proc/{0}/task/{0}/children", pid.as_raw_nonzero());
    let children = fs::read_to_string(children).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
    std::iter::once(pid).chain(children).collect()
}

/// Puts a fresh data folder into `to`. initdb takes its time, so its work is kept in the target folder.
fn copy_template(programs: &Programs, to: &Path) {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    hand_over(to);
    match programs {
        Programs::Installed => copy(TEMPLATE.get_or_init(|| template(programs)), &to.join("data")),
        Programs::In(_) => copy(&template(programs), &to.join("data")),
    }
}

fn template(programs: &Programs) -> PathBuf {
    let initdb = programs.server("initdb");
    let version = as_owner(&initdb).arg("--version").output().expect("initdb can be run").stdout;
    let version = String::from_utf8_lossy(&version).replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let kept = crate::target_tmp().join(format!("{version}{}", geteuid().as_raw()));
    if !kept.exists() {
        // Renamed as a whole; if another process was first, this copy is discarded.
        let draft = tempfile::tempdir_in(crate::target_tmp()).expect("a folder for the template");
        initialise(&initdb, &draft.path().join("data"));
        _ = fs::rename(draft.path().join("data"), &kept);
    }
    kept
}

/// By way of a folder that another user can reach, which the target folder need not be.
fn initialise(initdb: &Path, to: &Path) {
    let dir = tempfile::tempdir().expect("a folder for Postgres");
    hand_over(dir.path());
    let mut initdb = as_owner(initdb);
    initdb.args(["--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"]);
    let output = initdb.arg("-D").arg(dir.path().join("data")).output().expect("initdb can be run");
    assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    copy(&dir.path().join("data"), to);
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp can be run");
    assert!(copied.success(), "{} can be copied", from.display());
}

/// Postgres refuses to run as root.
fn owner() -> Option<User> {
    if !geteuid().is_root() {
        return None;
    }
    let user = |name| User::from_name(name).ok().flatten();
    Some(user("postgres").or_else(|| user("nobody")).expect("a user other than root to run Postgres"))
}

pub fn hand_over(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("the folder's mode can be set");
    give_away(dir);
}

fn give_away(path: &Path) {
    if let Some(owner) = owner() {
        chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw())).expect("it can be handed over");
    }
}

pub fn as_owner(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").env("LC_ALL", "C.UTF-8").env_remove("PGTZ").env_remove("TZ");
    if let Some(owner) = owner() {
        command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
    }
    command
}

/// Postgres's programs: on the path, or where Debian puts them.
pub fn binary(name: &str) -> PathBuf {
    let on_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|e| e.path().join("bin"));
    let mut debian = debian.collect::<Vec<_>>();
    debian.sort();
    // psql on Debian's path is a wrapper that looks for servers of its own.
    let mut places = debian
        .into_iter()
        .rev()
        .chain(on_path.into_iter().flatten())
        .chain(["/usr/sbin".into()])
        .map(|dir| dir.join(name));
    places.find(|path| path.is_file()).unwrap_or_else(|| panic!("{name} is not installed; tests/run installs it"))
}
