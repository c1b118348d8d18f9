//! Clients work while faults occur; afterwards each row must be explained by the clients' requests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use testkit::clients::run_beside;
use testkit::daemon::{Host, ask_over, connect};
use testkit::history::{Change, End, Operation, Outcome, Row, now, violations};
use testkit::postgres::{Client, NULL, Server, Stop};
use testkit::random::Random;
use testkit::{campaign, eventually};

const MACHINES: [&str; 3] = ["odin3", "odin4", "laptop"];
const CLIENTS_OF_A_HOST: usize = 2;
/// How many sessions a client keeps going at a time.
const OPEN: usize = 4;
/// A machine without a daemon, whose client writes to central as it always did.
const OLD: &str = "workstation";

/// Where a client's requests go.
enum Target {
    Daemon(PathBuf),
    Central(Client),
}

/// A session that a client keeps going.
struct Open {
    session: String,
    process: Option<Child>,
}

/// A test that fails leaves no processes behind.
impl Drop for Open {
    fn drop(&mut self) {
        self.process.iter_mut().for_each(end);
    }
}

/// One request after the other, each written down.
struct Worker {
    machine: String,
    project: String,
    target: Target,
    random: Random,
    open: Vec<Open>,
    beats: u64,
    log: Vec<Operation>,
}

impl Worker {
    fn new(machine: &str, number: usize, target: Target, random: Random) -> Self {
        let (machine, project) = (machine.to_owned(), format!("{machine}-{number}"));
        Self { machine, project, target, random, open: Vec::new(), beats: 0, log: Vec::new() }
    }

    fn step(&mut self) {
        match self.random.below(40) {
            _ if self.open.len() < OPEN => self.register(),
            0 => self.close(),
            1 => self.die(),
            _ => self.beat(),
        }
        // A central that comes back has to catch up with the clients, so they pause.
        thread::sleep(Duration::from_micros(self.random.below(10_000)));
    }

    /// Ends all processes, since the daemon sends heartbeats for those that run; returns what was recorded.
    fn finish(mut self) -> Vec<Operation> {
        while let Some(watched) = self.open.iter().position(|open| open.process.is_some()) {
            self.end_process(watched);
        }
        self.log
    }

    fn register(&mut self) {
        let watched = matches!(self.target, Target::Daemon(_)) && self.random.below(4) == 0;
        let mut process = watched.then(|| Command::new("sleep").arg("600").spawn().expect("a process to watch"));
        let change = Change::Register { watched };
        match self.request(None, change, process.as_ref().map(Child::id)) {
            Some(session) => self.open.push(Open { session, process }),
            None => process.iter_mut().for_each(end),
        }
    }

    fn beat(&mut self) {
        self.beats += 1;
        let epic = match self.random.below(4) {
            0 => None,
            1 => Some(None),
            _ => Some(Some(format!("{:06}", self.beats))),
        };
        let change = Change::Beat { context: self.beats % 101, epic };
        let index = self.random.below(self.open.len() as u64) as usize;
        let session = self.open[index].session.clone();
        self.request(Some(&session), change, None);
    }

    fn close(&mut self) {
        let index = self.random.below(self.open.len() as u64) as usize;
        let mut open = self.open.swap_remove(index);
        self.request(Some(&open.session), Change::Close, None);
        if open.process.is_some() {
            // Should the closing not have happened, this did.
            self.note_death(&mut open);
        }
    }

    fn die(&mut self) {
        if let Some(watched) = self.open.iter().position(|open| open.process.is_some()) {
            self.end_process(watched);
        }
    }

    fn end_process(&mut self, index: usize) {
        let mut open = self.open.swap_remove(index);
        self.note_death(&mut open);
    }

    fn note_death(&mut self, open: &mut Open) {
        let sent = now();
        open.process.iter_mut().for_each(end);
        self.note(Some(&open.session), Change::Death, sent, Outcome::Done);
    }

    /// Answers the session's id if the request is known to have worked.
    fn request(&mut self, session: Option<&str>, change: Change, pid: Option<u32>) -> Option<String> {
        let (sent, outcome, session) = match &self.target {
            Target::Daemon(socket) => {
                let mut stream = connect(socket)?;
                let (path, body) = http(&self.project, session, &change, pid);
                let sent = now();
                let answer = ask_over(&mut stream, "POST", &path, Some(&body));
                let id = answer.as_ref().and_then(|(_, body)| body["instance_id"].as_str()).map(str::to_owned);
                (sent, outcome(&answer), session.map(str::to_owned).or(id))
            }
            Target::Central(client) => {
                let id = session.map_or_else(|| format!("{}-{:06}", self.project, self.log.len()), str::to_owned);
                let sent = now();
                let worked = client.run(&sql(&self.machine, &self.project, &id, &change));
                let known = worked || session.is_some();
                (sent, if worked { Outcome::Done } else { Outcome::Unknown }, known.then_some(id))
            }
        };
        self.note(session.as_deref(), change, sent, outcome);
        session.filter(|_| outcome == Outcome::Done)
    }

    fn note(&mut self, session: Option<&str>, change: Change, sent: i64, outcome: Outcome) {
        let (machine, project) = (self.machine.clone(), self.project.clone());
        let session = session.map(str::to_owned);
        self.log.push(Operation { machine, project, session, change, sent, ended: now(), outcome });
    }
}

fn end(process: &mut Child) {
    _ = process.kill();
    _ = process.wait();
}

fn outcome(answer: &Option<(u16, Value)>) -> Outcome {
    match answer {
        Some((200 | 201, _)) => Outcome::Done,
        Some((409, _)) => Outcome::Refused,
        Some((status, body)) if *status < 500 => panic!("{status} {body}"),
        _ => Outcome::Unknown,
    }
}

fn http(project: &str, session: Option<&str>, change: &Change, pid: Option<u32>) -> (String, Value) {
    let path = |verb: &str| format!("/v1/sessions/{}/{verb}", session.unwrap_or_default());
    match change {
        Change::Beat { context, epic: None } => (path("heartbeat"), json!({"context_percent": context})),
        Change::Beat { context, epic: Some(epic) } => {
            (path("heartbeat"), json!({"context_percent": context, "current_epic": epic}))
        }
        Change::Close => (path("close"), json!({})),
        Change::Register { .. } | Change::Death => {
            let mut body = json!({"project": project});
            if let Some(pid) = pid {
                body["pid"] = json!(pid);
            }
            ("/v1/sessions".into(), body)
        }
    }
}

/// What the earlier services send.
fn sql(machine: &str, project: &str, id: &str, change: &Change) -> String {
    let update = |set: &str| format!("UPDATE supervisor_sessions SET {set} WHERE instance_id = '{id}'");
    match change {
        Change::Beat { context, epic } => update(&match epic {
            None => format!("last_heartbeat = NOW(), context_percent = {context}"),
            Some(None) => format!("last_heartbeat = NOW(), context_percent = {context}, current_epic = NULL"),
            Some(Some(epic)) => {
                format!("last_heartbeat = NOW(), context_percent = {context}, current_epic = '{epic}'")
            }
        }),
        Change::Close | Change::Death => update("status = 'closed', closed_at = NOW()"),
        Change::Register { .. } => format!(
            "INSERT INTO supervisor_sessions (instance_id, project, instance_type, host_machine) \
             VALUES ('{id}', '{project}', 'PS', '{machine}')"
        ),
    }
}

/// Central goes away in one way or another and comes back, or a daemon is killed.
fn break_something(server: &mut Server, hosts: &mut [Host], random: &mut Random) {
    let for_a_while = |random: &mut Random| thread::sleep(Duration::from_millis(random.below(700)));
    match random.below(5) {
        0 => {
            server.freeze();
            for_a_while(random);
            server.thaw();
        }
        1 | 2 => {
            server.stop([Stop::Fast, Stop::Immediate, Stop::Kill][random.below(3) as usize]);
            for_a_while(random);
            server.resume();
        }
        _ => {
            let host = &mut hosts[random.below(MACHINES.len() as u64) as usize];
            host.kill();
            for_a_while(random);
            host.start();
        }
    }
    for_a_while(random);
}

/// Lets everybody work while things break; answers what the clients know.
fn turmoil(server: &mut Server, hosts: &mut [Host], random: &mut Random) -> Vec<Operation> {
    let mut workers = Vec::new();
    for (host, machine) in hosts.iter().zip(MACHINES) {
        for number in 0..CLIENTS_OF_A_HOST {
            workers.push(Worker::new(machine, number, Target::Daemon(host.socket()), random.fork()));
        }
    }
    workers.push(Worker::new(OLD, 0, Target::Central(server.client("central")), random.fork()));
    let faults = || (0..campaign(12, 60)).for_each(|_| break_something(server, hosts, random));
    let ((), workers) = run_beside(workers, Worker::step, faults);
    workers.into_iter().flat_map(Worker::finish).collect()
}

fn rows_of_central(server: &Server) -> Vec<Row> {
    let micros = |column: &str| format!("(extract(epoch from {column}) * 1000000)::bigint");
    let rows = server.psql(
        "central",
        &format!(
            "SELECT instance_id, host_machine, project, context_percent, current_epic, status, {}, {}, {} \
             FROM supervisor_sessions",
            micros("last_heartbeat"),
            micros("created_at"),
            micros("closed_at")
        ),
    );
    let row = |line: &str| {
        let fields: Vec<&str> = line.split('|').collect();
        let text = |index: usize| Some(fields[index]).filter(|field| *field != NULL).map(str::to_owned);
        let number = |index: usize| text(index).map(|text| text.parse::<i64>().expect("a number"));
        Row {
            session: text(0).unwrap(),
            machine: text(1).unwrap(),
            project: text(2).unwrap(),
            context: number(3).unwrap() as u64,
            epic: text(4),
            status: text(5).unwrap(),
            heartbeat: number(6).unwrap(),
            created: number(7).unwrap(),
            closed: number(8),
        }
    };
    rows.lines().map(row).collect()
}

fn rows_of_host(host: &Host) -> Vec<Row> {
    let (_, list) = host.ask("GET", "/v1/sessions?local=true", None);
    let row = |session: &Value| {
        let text = |field: &str| session[field].as_str().map(str::to_owned);
        let time = |field: &str| {
            text(field).map(|at| chrono::DateTime::parse_from_rfc3339(&at).expect("a time").timestamp_micros())
        };
        Row {
            session: text("instance_id").unwrap(),
            machine: text("host_machine").unwrap(),
            project: text("project").unwrap(),
            context: session["context_percent"].as_u64().unwrap(),
            epic: text("current_epic"),
            status: text("status").unwrap(),
            heartbeat: time("last_heartbeat").unwrap(),
            created: time("created_at").unwrap(),
            closed: time("closed_at"),
        }
    };
    list["instances"].as_array().expect("a list of sessions").iter().map(row).collect()
}

/// All daemons run and central has everything; that a process ended has been noticed.
fn everything_heals(server: &Server, hosts: &[Host], history: &[Operation]) {
    let dead =
        |session: &str| history.iter().any(|op| op.change == Change::Death && op.session.as_deref() == Some(session));
    for host in hosts {
        eventually("every death is noticed", Duration::from_secs(30), || {
            rows_of_host(host).iter().all(|row| row.status != "active" || !dead(&row.session)).then_some(())
        });
        host.await_synced();
    }
    // What the old client's last psql began, the server has ended.
    server.psql("central", "SELECT 1");
}

#[test]
fn every_row_is_one_that_the_clients_requests_can_have_made() {
    let mut random = Random::from_clock("history");
    let mut server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/central");
    server.psql_file("central", &migrations.join("1769700000000_session_registry.sql"));
    server.psql_file("central", &migrations.join("1769950000000_add_host_machine.sql"));
    Host::new("odin3").ok(&["migrate", "--central-url", &url]);
    let mut hosts = MACHINES.map(|machine| Host::with_central(machine, &url).started());

    let history = turmoil(&mut server, &mut hosts, &mut random);
    everything_heals(&server, &hosts, &history);
    let end = End {
        central: rows_of_central(&server),
        hosts: hosts.iter().zip(MACHINES).map(|(host, machine)| (machine.to_owned(), rows_of_host(host))).collect(),
        read: now(),
    };
    assert_eq!(violations(&history, &end), [""; 0], "{} operations", history.len());
    let count = |outcome| history.iter().filter(|op| op.outcome == outcome).count();
    let (done, unknown) = (count(Outcome::Done), count(Outcome::Unknown));
    assert!(done > 1000, "only {done} operations worked");
    println!("history: {done} operations done, {unknown} of unknown outcome, {} sessions", end.central.len());
}

/// A history in which all is well: each kind of operation and of outcome is in it.
fn a_true_history() -> (Vec<Operation>, End) {
    let operation = |machine: &str, session: Option<&str>, change, sent, outcome| Operation {
        machine: machine.into(),
        project: "p".into(),
        session: session.map(str::to_owned),
        change,
        sent,
        ended: sent + 10,
        outcome,
    };
    let beat = |context, epic: &str| Change::Beat { context, epic: Some(Some(epic.into())) };
    let register = |watched| Change::Register { watched };
    let history = vec![
        operation("odin3", Some("a"), register(false), 100, Outcome::Done),
        operation("odin3", Some("a"), beat(1, "one"), 200, Outcome::Done),
        operation("odin3", Some("a"), beat(2, "two"), 300, Outcome::Unknown),
        operation("odin3", Some("b"), register(false), 110, Outcome::Done),
        operation("odin3", Some("b"), Change::Close, 210, Outcome::Done),
        operation("odin3", Some("b"), beat(9, "late"), 310, Outcome::Refused),
        operation("odin3", Some("c"), register(true), 120, Outcome::Done),
        operation("odin3", Some("c"), Change::Death, 520, Outcome::Done),
        operation("odin3", None, register(false), 130, Outcome::Unknown),
        operation(OLD, Some("o"), register(false), 140, Outcome::Done),
        operation(OLD, Some("o"), beat(7, "old"), 240, Outcome::Done),
    ];
    let row = |session: &str, context, epic: Option<&str>, status: &str, heartbeat, created, closed| Row {
        session: session.into(),
        machine: if session == "o" { OLD } else { "odin3" }.into(),
        project: "p".into(),
        context,
        epic: epic.map(str::to_owned),
        status: status.into(),
        heartbeat,
        created,
        closed,
    };
    let of_odin3 = vec![
        row("a", 1, Some("one"), "active", 205, 105, None),
        row("b", 0, None, "closed", 115, 115, Some(215)),
        row("c", 0, None, "stale", 500, 125, None),
        row("stray", 0, None, "active", 135, 135, None),
    ];
    let mut central = of_odin3.clone();
    central.push(row("o", 7, Some("old"), "active", 245, 145, None));
    (history, End { central, hosts: BTreeMap::from([("odin3".into(), of_odin3)]), read: 1000 })
}

#[test]
fn valid_history_passes_the_check() {
    let (history, end) = a_true_history();
    assert_eq!(violations(&history, &end), [""; 0]);
}

/// A wrong row that its host and central both have.
fn everybody_says(session: &str, lie: impl Fn(&mut Row)) -> Vec<String> {
    let (history, mut end) = a_true_history();
    let rows = end.central.iter_mut().chain(end.hosts.values_mut().flatten());
    rows.filter(|row| row.session == session).for_each(lie);
    violations(&history, &end)
}

#[test]
fn each_kind_of_violation_is_caught() {
    let unknown_beat_happened =
        everybody_says("a", |row| (row.context, row.epic, row.heartbeat) = (2, Some("two".into()), 305));
    assert_eq!(unknown_beat_happened, [""; 0], "what was never answered may have happened");

    let lies: [(&str, Vec<String>); 14] = [
        (
            "an acknowledged beat is lost",
            everybody_says("a", |row| (row.context, row.epic, row.heartbeat) = (0, None, 105)),
        ),
        ("a beat nobody sent", everybody_says("a", |row| row.context = 3)),
        ("half of a beat", everybody_says("a", |row| row.epic = None)),
        ("stamped when it was replayed", everybody_says("a", |row| row.heartbeat = 900)),
        ("the newer state with the older time", everybody_says("a", |row| row.context = 2)),
        ("a heartbeat moved back", everybody_says("a", |row| row.heartbeat = 150)),
        (
            "a closed session is open again",
            everybody_says("b", |row| (row.status, row.closed) = ("active".into(), None)),
        ),
        ("closed at the wrong time", everybody_says("b", |row| row.closed = Some(900))),
        ("closed by nobody", everybody_says("a", |row| (row.status, row.closed) = ("closed".into(), Some(205)))),
        ("the dead live", everybody_says("c", |row| row.status = "active".into())),
        ("a sign of life after death", everybody_says("c", |row| row.heartbeat = 600)),
        ("another machine", everybody_says("a", |row| row.machine = "odin4".into())),
        ("another session's birth", everybody_says("a", |row| row.created = 500)),
        ("a foreign row is changed", everybody_says("o", |row| row.context = 8)),
    ];
    for (lie, caught) in lies {
        assert!(!caught.is_empty(), "not caught: {lie}");
    }
}

#[test]
fn check_reports_missing_extra_and_conflicting_rows() {
    let caught = |lie: fn(&mut Vec<Operation>, &mut End)| {
        let (mut history, mut end) = a_true_history();
        lie(&mut history, &mut end);
        violations(&history, &end)
    };
    fn everywhere(end: &mut End, change: impl Fn(&mut Vec<Row>)) {
        change(&mut end.central);
        end.hosts.values_mut().for_each(change);
    }
    let lost = caught(|_, end| everywhere(end, |rows| rows.retain(|row| row.session != "a")));
    assert_eq!(lost, ["a was acknowledged and is not in central"]);
    let foreign_lost = caught(|_, end| end.central.retain(|row| row.session != "o"));
    assert_eq!(foreign_lost, ["o was acknowledged and is not in central"]);
    let not_carried = caught(|_, end| end.central.retain(|row| row.session != "stray"));
    assert!(not_carried[0].contains("central says None"), "{not_carried:?}");
    let twice = caught(|_, end| {
        let again = Row { session: "stray2".into(), ..end.central[3].clone() };
        everywhere(end, |rows| rows.push(again.clone()));
    });
    assert!(twice[0].starts_with("nobody asked for"), "one registration made two sessions: {twice:?}");
    let at_odds = caught(|_, end| end.central[0].heartbeat = 206);
    assert!(at_odds[0].contains("central says"), "{at_odds:?}");
    let refused = caught(|history, _| history[1].outcome = Outcome::Refused);
    assert!(refused[0].contains("cannot have ended so"), "an open session refuses nothing: {refused:?}");
}
