//! Three servers that Patroni manages through etcd, each in a folder of its own, on free ports of this machine.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use crate::eventually;
use crate::postgres::{as_owner, binary, hand_over, libpq, self_and_children};

/// A node is created, or joins again, within this time on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

const NODES: usize = 3;

/// The cluster; everything of it ends when it is dropped.
pub struct Cluster {
    dir: TempDir,
    etcd: Child,
    nodes: Vec<Node>,
}

struct Node {
    name: String,
    port: u16,
    folder: PathBuf,
    patroni: Option<Child>,
}

/// Ports that are free now, all different.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("its address").port()).collect()
}

/// Whether the programs are installed.
pub fn is_installed() -> bool {
    ["/usr/bin/patroni", "/usr/bin/patronictl", "/usr/bin/etcd"].iter().all(|program| Path::new(program).is_file())
}

impl Cluster {
    /// A cluster of which every node serves.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder for the cluster");
        hand_over(dir.path());
        let ports = free_ports(2 + 2 * NODES);
        let etcd = etcd(dir.path(), ports[0], ports[1]);
        let node = |number: usize| {
            let (port, rest) = (ports[2 + 2 * number], ports[3 + 2 * number]);
            Node::new(dir.path(), &format!("node{number}"), port, rest, ports[0])
        };
        let nodes = (0..NODES).map(node).collect();
        let mut cluster = Self { dir, etcd, nodes };
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster.await_all();
        cluster
    }

    /// The URL of a database that names all hosts.
    pub fn url(&self, database: &str) -> String {
        let hosts: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("postgres://postgres@{}/{database}", hosts.join(","))
    }

    /// Runs SQL on the primary; returns lines of fields separated by `|`.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        self.nodes[self.await_primary()].psql(database, sql).unwrap_or_else(|| panic!("{sql} failed"))
    }

    fn primary(&self) -> Option<usize> {
        self.nodes.iter().position(|node| node.psql("postgres", "SELECT pg_is_in_recovery()").as_deref() == Some("f"))
    }

    /// Waits until there is a primary.
    pub fn await_primary(&self) -> usize {
        eventually("a node is promoted", LIMIT, || self.primary())
    }

    /// Waits until a primary has all other nodes as standbys.
    pub fn await_all(&self) {
        let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        eventually("all nodes follow the primary", LIMIT, || {
            let primary = &self.nodes[self.primary()?];
            (primary.psql("postgres", streaming)? == (NODES - 1).to_string()).then_some(())
        });
    }

    /// Kills the primary and its Patroni as a crash of the machine would. Returns the node.
    pub fn kill_primary(&mut self) -> usize {
        let primary = self.await_primary();
        self.nodes[primary].kill();
        primary
    }

    /// Starts a node that was killed.
    pub fn restart(&mut self, node: usize) {
        self.nodes[node].start();
    }

    /// Has Patroni make another node the primary, and waits until it is.
    pub fn switch_over(&self) {
        let before = self.await_primary();
        let node = &self.nodes[before];
        let mut patronictl = as_owner(Path::new("/usr/bin/patronictl"));
        patronictl.arg("-c").arg(node.folder.join("patroni.yml")).args([
            "switchover",
            "--force",
            "--master",
            &node.name,
        ]);
        let output = patronictl.arg("central").output().expect("patronictl can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        eventually("another node is the primary", LIMIT, || self.primary().filter(|now| *now != before));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                let log = fs::read_to_string(node.folder.join("log")).unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(30).collect();
                eprintln!("--- {}\n{}", node.name, tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
            }
        }
        self.nodes.iter_mut().for_each(Node::kill);
        _ = self.etcd.kill();
        _ = self.etcd.wait();
        _ = self.dir.path();
    }
}

fn etcd(dir: &Path, client: u16, peer: u16) -> Child {
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let log = fs::File::create(dir.join("etcd.log")).expect("a log for etcd");
    let mut command = Command::new("/usr/bin/etcd");
    command.args(["--name", "one", "--unsafe-no-fsync", "--initial-cluster", &format!("one={}", url(peer))]);
    command.args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)]);
    command.args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)]);
    command.arg("--data-dir").arg(dir.join("etcd")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("etcd can be started")
}

impl Node {
    fn new(dir: &Path, name: &str, port: u16, rest: u16, etcd: u16) -> Self {
        let folder = dir.join(name);
        fs::create_dir(&folder).expect("a folder for a node");
        hand_over(&folder);
        let programs = binary("postgres");
        let (listen, rest) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{rest}"));
        // JSON is YAML.
        let settings = json!({
            "scope": "central",
            "name": name,
            "restapi": {"listen": rest, "connect_address": rest},
            "etcd3": {"host": format!("127.0.0.1:{etcd}")},
            "bootstrap": {
                "dcs": {
                    "ttl": 20, "loop_wait": 2, "retry_timeout": 5,
                    "postgresql": {"use_pg_rewind": true},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}],
                "pg_hba": [
                    "local all all trust", "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust",
                ],
            },
            "postgresql": {
                "listen": listen, "connect_address": listen,
                "data_dir": folder.join("data"), "bin_dir": programs.parent(), "pgpass": folder.join("pgpass"),
                "authentication": {
                    "superuser": {"username": "postgres", "password": "x"},
                    "replication": {"username": "replicator", "password": "x"},
                },
                "parameters": {
                    "unix_socket_directories": folder, "shared_buffers": "16MB", "fsync": "off", "wal_log_hints": "on",
                },
                "remove_data_directory_on_rewind_failure": true,
                "remove_data_directory_on_diverged_timelines": true,
            },
        });
        fs::write(folder.join("patroni.yml"), settings.to_string()).expect("Patroni's settings can be written");
        Self { name: name.into(), port, folder, patroni: None }
    }

    fn start(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.folder.join("log")).expect("a log");
        let both = log.try_clone().expect("a log");
        let mut patroni = as_owner(Path::new("/usr/bin/patroni"));
        patroni.arg(self.folder.join("patroni.yml")).stdin(Stdio::null()).stdout(log).stderr(both);
        self.patroni = Some(patroni.spawn().expect("Patroni can be started"));
    }

    /// Patroni first: it would start its server again.
    fn kill(&mut self) {
        if let Some(mut patroni) = self.patroni.take() {
            _ = patroni.kill();
            _ = patroni.wait();
        }
        let pid = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap_or_default();
        let Some(postmaster) = pid.lines().next().and_then(|pid| Pid::from_raw(pid.parse().ok()?)) else { return };
        for pid in self_and_children(postmaster) {
            _ = kill_process(pid, Signal::KILL);
        }
    }

    fn psql(&self, database: &str, sql: &str) -> Option<String> {
        let mut psql = libpq("psql", Path::new("127.0.0.1"), self.port, database);
        psql.env("PGCONNECT_TIMEOUT", "3").args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        let output = psql.output().expect("psql can be run");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }
}
