//! A private PgBouncer in transaction mode before a private Postgres: its own folder and socket, no port.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::eventually;
use crate::postgres::{Server, as_owner, binary, hand_over};

const LIMIT: Duration = Duration::from_secs(30);
const PORT: u16 = 6432;

pub struct Pooler {
    dir: TempDir,
    process: Option<Child>,
}

impl Pooler {
    /// A running pooler that shares so many connections to the database among all its clients.
    pub fn start(server: &Server, database: &str, connections: usize) -> Self {
        let dir = tempfile::tempdir().expect("a folder for PgBouncer");
        hand_over(dir.path());
        let folder = dir.path().display();
        let settings = format!(
            "[databases]\n{database} = host={} user=postgres\n[pgbouncer]\nlisten_addr =\nlisten_port = {PORT}\n\
             unix_socket_dir = {folder}\nauth_type = any\npool_mode = transaction\ndefault_pool_size = {connections}\n",
            server.folder().display()
        );
        fs::write(dir.path().join("pgbouncer.ini"), settings).expect("PgBouncer's settings can be written");
        let mut pooler = Self { dir, process: None };
        pooler.resume();
        pooler
    }

    pub fn resume(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log")).expect("a log");
        let mut command = as_owner(&binary("pgbouncer"));
        command.arg(self.dir.path().join("pgbouncer.ini")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().expect("PgBouncer can be started"));
        let socket = self.dir.path().join(format!(".s.PGSQL.{PORT}"));
        eventually("PgBouncer is ready", LIMIT, || {
            let ended = self.process.as_mut().and_then(|process| process.try_wait().ok().flatten());
            assert!(ended.is_none(), "PgBouncer ended: {}", self.log());
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
    }

    /// Ends it as a crash would, or after the transactions that are under way.
    pub fn stop(&mut self, signal: Signal) {
        let Some(mut process) = self.process.take() else { return };
        _ = kill_process(Pid::from_child(&process), signal);
        eventually("PgBouncer has stopped", LIMIT, || process.try_wait().ok().flatten());
        _ = fs::remove_file(self.dir.path().join(format!(".s.PGSQL.{PORT}")));
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@localhost:{PORT}/{database}?host={}", self.dir.path().display())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            _ = process.kill();
            _ = process.wait();
        }
    }
}
