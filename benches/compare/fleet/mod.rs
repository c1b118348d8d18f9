//! Target 8: how many hosts one central can serve, what limits them, and how they reconnect after an outage.

mod host;
mod threads;

use std::fs;
use std::time::{Duration, Instant};

use sessiond::domain::Timestamp;
use tokio::task::JoinSet;

use crate::Scale;
use crate::central::{central, number};
use crate::report::{Goal, Report, Unit};
use crate::stats::Samples;
use host::{FleetHost, STALE_AFTER};
use testkit::postgres::{Server, Stop};
use threads::HostThreads;

const SESSIONS: u64 = 50;
/// The default heartbeat_interval.
const HEARTBEAT: Duration = Duration::from_secs(30);
const PROCESSORS: f64 = 2.0;
/// The number of hosts that the goals are for.
const GOALS_FOR: usize = 1000;
/// The sessions whose activity changes while a fleet is measured.
const CHANGES: usize = 10;

pub fn measure(scale: &Scale, report: &mut Report) {
    _ = sessiond::platform::limits::raise_open_files();
    let all: &[usize] = scale.choose(&[100, 250, 500, 1000], &[5]);
    let stages = scale.hosts.as_ref().map_or(all, std::slice::from_ref);
    // Each host has two connections: one for sync and one that listens for changes.
    let mut server = central(&["central"], &["max_connections=2200"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut fleet = Fleet { hosts: Vec::new(), threads: HostThreads::start(), tasks: JoinSet::new(), changed: 0 };
    for stage in stages {
        runtime.block_on(fleet.grow(*stage, &server, scale, report));
        let age = runtime.block_on(fleet.measure(&server, scale, report));
        // Live sessions become stale from here on, so that a larger fleet is not measured.
        if age > STALE_AFTER.as_secs_f64() {
            break;
        }
    }
    runtime.block_on(fleet.outage(&mut server, scale, report));
    runtime.block_on(fleet.tasks.shutdown());
}

struct Fleet {
    hosts: Vec<FleetHost>,
    threads: HostThreads,
    tasks: JoinSet<()>,
    /// The activities that were changed so far, each in a session that had none.
    changed: usize,
}

impl Fleet {
    /// Adds hosts one after another, and waits until they are in a steady state.
    async fn grow(&mut self, to: usize, server: &Server, scale: &Scale, report: &mut Report) {
        let began = Instant::now();
        while self.hosts.len() < to {
            let host = FleetHost::new(self.hosts.len(), SESSIONS, &server.url("central"), HEARTBEAT).await;
            let thread = self.threads.of_host(self.hosts.len());
            self.tasks.spawn_on(host.sync(), thread);
            self.tasks.spawn_on(host.send_heartbeats(HEARTBEAT), thread);
            self.hosts.push(host);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let bound = scale.time(Duration::from_secs(600), Duration::from_secs(40));
        let mut add = |what: &str, value, unit| {
            report.number(8, &format!("{to} hosts: {what}"), value, unit, Goal::None);
        };
        add("all have joined after", began.elapsed().as_secs_f64(), Unit::Time);
        self.settle(server, bound).await;
        add("all have read the sessions that joined after", began.elapsed().as_secs_f64(), Unit::Time);
        // In a large fleet few hosts read everything at a time, for longer than a benchmark may take.
        let reading = self.hosts.iter().filter(|host| !host.has_read_everything()).count();
        add("hosts that have yet to read everything", reading as f64, Unit::Count);
    }

    /// Waits until central has all sessions, and no session is read by all hosts as changed for some time: at most for `bound`,
    /// beyond which the figures are not those of a settled fleet.
    async fn settle(&self, server: &Server, bound: Duration) {
        let (began, all) = (Instant::now(), self.hosts.len() as f64 * SESSIONS as f64);
        let has_all = || number(server, "central", "SELECT count(*) FROM supervisor_sessions") >= all;
        while began.elapsed() < bound {
            let [before, _] = self.read();
            tokio::time::sleep(HEARTBEAT / 3).await;
            if self.read()[0] - before < self.hosts.len() as u64 && has_all() {
                break;
            }
        }
    }

    /// Begins an activity in a few sessions, evenly over a time. Returns since when each has it, and when it was changed.
    async fn change_activities(&mut self, lasts: Duration) -> Vec<(usize, Timestamp, Instant)> {
        let mut changes = Vec::new();
        for change in 0..CHANGES {
            tokio::time::sleep(lasts / (CHANGES as u32 + 1)).await;
            let host = change * self.hosts.len() / CHANGES;
            let began = Instant::now();
            let session = self.changed % SESSIONS as usize;
            self.changed += 1;
            changes.push((host, self.hosts[host].begin_activity(session).await, began));
        }
        tokio::time::sleep(lasts / (CHANGES as u32 + 1)).await;
        changes
    }

    /// How long it took until the first host but their own had read each change, and until each of them had. One that did
    /// not within the bound counts as that.
    async fn delays(&self, changes: &[(usize, Timestamp, Instant)]) -> [Samples; 2] {
        let bound = Duration::from_secs(60);
        let others = |own: usize| self.hosts.iter().enumerate().filter(move |(host, _)| *host != own);
        let (mut firsts, mut delays, began) = (Samples::default(), Samples::default(), Instant::now());
        for (own, since, changed) in changes {
            let mut first = bound;
            for (_, host) in others(*own) {
                while host.saw_activity(*since).is_none() && began.elapsed() < bound {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                let delay = host.saw_activity(*since).map_or(bound, |seen| seen - *changed);
                first = first.min(delay);
                delays.add(delay);
            }
            firsts.add(first);
        }
        [firsts, delays]
    }

    /// Measures the fleet. Returns the age of the sessions in central, p99, in seconds.
    async fn measure(&mut self, server: &Server, scale: &Scale, report: &mut Report) -> f64 {
        // The default refresh_after: a shorter time sees the rows of sessions of the same age together, or none of them.
        let lasts = scale.time(HEARTBEAT * 2, Duration::from_secs(3));
        let before = (cpu(server), writing(server), self.read(), Instant::now());
        let (rows_before, wal_before) = (rows_written(server), wal(server));
        let changes = self.change_activities(lasts).await;
        let seconds = before.3.elapsed().as_secs_f64();
        let share = (cpu(server) - before.0) / seconds / PROCESSORS;
        let hosts = self.hosts.len();
        let mut add = |what: &str, value, unit, most| {
            report.number(8, &format!("{hosts} hosts: {what}"), value, unit, goal(most, hosts));
        };
        add("central's share of two processors", share, Unit::Share, Some(0.5));
        add("transactions that write", (writing(server) - before.1) / seconds, Unit::Rate, None);
        let read: Vec<_> = self.read().iter().zip(before.2).map(|(now, then)| (now - then) as f64 / seconds).collect();
        add("changed rows that hosts read of each other", read[0], Unit::Rate, None);
        add("rows that new hosts read with everything", read[1], Unit::Rate, None);
        let (rows, bytes) = (rows_written(server) - rows_before, wal(server) - wal_before);
        let session_minutes = hosts as f64 * SESSIONS as f64 * seconds / 60.0;
        add("rows of sessions written, a session and minute", rows / session_minutes, Unit::Ratio, Some(1.0));
        add("WAL, a session and minute", bytes / session_minutes, Unit::Bytes, None);
        add("age of the hosts' last contact, p99", hosts_age(server), Unit::Time, Some(40.0));
        let age = age(server);
        add("age of the sessions in central, p99", age, Unit::Time, Some(90.0));
        let mut waits = Samples::default();
        self.hosts.iter().for_each(|host| waits.add(host.longest_push()));
        add("longest push, p50 of hosts", waits.p50(), Unit::Time, None);
        let [firsts, delays] = self.delays(&changes).await;
        add("a changed activity is read by the first other, p50", firsts.p50(), Unit::Time, None);
        add("a changed activity is read by the first other, p99", firsts.p99(), Unit::Time, None);
        add("a changed activity is read by the others, p50", delays.p50(), Unit::Time, None);
        add("a changed activity is read by the others, p99", delays.p99(), Unit::Time, Some(5.0));
        age
    }

    /// Rows of other hosts that all hosts have read since the start: because they changed, and with everything.
    fn read(&self) -> [u64; 2] {
        let add = |[a, b]: [u64; 2], [c, d]: [u64; 2]| [a + c, b + d];
        self.hosts.iter().map(FleetHost::rows_read).fold([0, 0], add)
    }

    /// Stops central for a minute, and watches the hosts come back for another.
    async fn outage(&self, server: &mut Server, scale: &Scale, report: &mut Report) {
        let handshakes = || self.hosts.iter().map(FleetHost::handshakes).sum::<u64>();
        server.stop(Stop::Immediate);
        tokio::time::sleep(scale.time(Duration::from_secs(60), Duration::from_secs(3))).await;
        server.resume();
        let (began, all, before) = (Instant::now(), self.hosts.len() as u64, handshakes());
        let (mut back, mut used, mut all_back) = (vec![0], vec![(began, cpu(server))], None);
        let watched = scale.time(Duration::from_secs(60), Duration::from_secs(12));
        while began.elapsed() < watched || all_back.is_none() && began.elapsed() < watched * 3 / 2 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            back.push(handshakes() - before);
            used.push((Instant::now(), cpu(server)));
            all_back = all_back.or((handshakes() - before >= all).then(|| began.elapsed()));
        }
        let in_a_second: Vec<_> = back.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let busiest = in_a_second.iter().max().copied().unwrap_or(0);
        let mut add = |what: &str, value, unit, most| {
            let what = format!("after an outage of a minute, {all} hosts: {what}");
            report.number(8, &what, value, unit, goal(most, self.hosts.len()));
        };
        add("come back in the first second", in_a_second[0] as f64, Unit::Count, None);
        add("come back in the busiest second", busiest as f64, Unit::Count, None);
        let all_back = all_back.unwrap_or(began.elapsed()).as_secs_f64();
        add("all are back after", all_back, Unit::Time, Some(60.0));
        let share = busiest_share(&used, 10);
        add("central's share of two processors in the busiest ten seconds", share, Unit::Share, Some(0.8));
    }
}

/// The goal, if there is one for a fleet of so many hosts.
fn goal(most: Option<f64>, hosts: usize) -> Goal {
    most.filter(|_| hosts == GOALS_FOR).map_or(Goal::None, Goal::AtMost)
}

/// The largest share of the processors between two samples that are so many apart.
fn busiest_share(used: &[(Instant, f64)], apart: usize) -> f64 {
    let share = |samples: &[(Instant, f64)]| {
        let ((from, before), (to, after)) = (samples[0], samples[samples.len() - 1]);
        (after - before) / (to - from).as_secs_f64() / PROCESSORS
    };
    used.windows(apart + 1).map(share).fold(0.0, f64::max)
}

/// CPU seconds used by all processes of a server.
fn cpu(server: &Server) -> f64 {
    const TICKS: f64 = 100.0;
    let pid_file = fs::read_to_string(server.folder().join("data/postmaster.pid")).expect("it runs");
    let postmaster = pid_file.lines().next().expect("its pid");
    let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap_or_default();
    let of = |pid: &str, fields: usize| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let times = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(fields);
        times.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
    };
    // The postmaster's last two fields are the times of children that have ended.
    (of(postmaster, 4) + children.split_whitespace().map(|pid| of(pid, 2)).sum::<f64>()) / TICKS
}

/// The number of transactions that have written.
fn writing(server: &Server) -> f64 {
    number(server, "central", "SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
}

fn age(server: &Server) -> f64 {
    let age = "SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM now() - last_heartbeat)) \
        FROM supervisor_sessions";
    number(server, "central", age)
}

/// Rows of sessions that were inserted or updated since the server's statistics began.
fn rows_written(server: &Server) -> f64 {
    let rows = "SELECT n_tup_ins + n_tup_upd FROM pg_stat_user_tables WHERE relname = 'supervisor_sessions'";
    number(server, "central", rows)
}

/// The bytes of the write-ahead log so far.
fn wal(server: &Server) -> f64 {
    number(server, "central", "SELECT pg_current_wal_lsn() - '0/0'")
}

fn hosts_age(server: &Server) -> f64 {
    let age = "SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM now() - last_seen)) \
        FROM sessiond_hosts";
    number(server, "central", age)
}
