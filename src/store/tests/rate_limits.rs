//! Rate limits that agents observe, in a real store.

use super::*;
use crate::domain::agent::{AgentSignal, ValidReport};
use crate::domain::limits::{
    AccountLimit, LimitWindow, MAX_ACCOUNTS, MAX_ACCOUNTS_OF_USER, MAX_WINDOWS, MachineLimits, ObservedLimits,
};
use crate::domain::mirror::HostSeen;
use crate::store::op::Op;

const OTHER: Caller = Caller { uid: 1001 };

fn this() -> MachineName {
    MachineName::parse("odin3").unwrap()
}

fn window(name: &str, used: f64, second: i64) -> LimitWindow {
    LimitWindow::new(name, Some(used), Some(at(second + 9000)), at(second)).unwrap()
}

fn heartbeat(account: Option<&str>, windows: Vec<LimitWindow>, second: i64) -> ReceivedReport {
    let report = ValidReport {
        agent: None,
        sign: AgentSignal::Heartbeat,
        claude_session_uuid: Some("u-1".to_owned()),
        claude_session_path: None,
        working_dir: None,
        project: Project::parse("odin").unwrap(),
        instance_type: InstanceType::Ps,
        kind: None,
        context_percent: None,
        promised_id: None,
        outer_id: None,
        at: at(second),
        activity: None,
        work: None,
        limits: Some(ObservedLimits { account: account.map(str::to_owned), windows }),
    };
    let process = Some(Process { pid: 1, started: 1 });
    ReceivedReport { report, process, host_machine: this(), lives: |_| true, now: at(second) }
}

async fn observe(store: &Store, caller: Caller, account: Option<&str>, window: LimitWindow, second: i64) {
    let seed = u64::from(caller.uid) * 8;
    store.report_agent(heartbeat(account, vec![window], second), seeded(seed, caller, at(second))).await.unwrap();
}

/// User, account, window, percent used, and the second of the observation.
async fn known(store: &Store, second: i64) -> Vec<(u32, Option<String>, String, Option<f64>, i64)> {
    let limits = store.own_limits(at(second)).await.unwrap();
    let second_of = |limit: &AccountLimit| (limit.observed_at.micros() - at(0).micros()) / 1_000_000;
    let row = |limit: AccountLimit| {
        let observed = second_of(&limit);
        (limit.uid, limit.account, limit.window.name, limit.window.used_percent, observed)
    };
    limits.into_iter().map(row).collect()
}

#[tokio::test]
async fn newest_observation_is_kept_and_unchanged_ones_write_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = open(dir.path());
    let row = |used, second| vec![(1000, None, "five_hour".to_owned(), Some(used), second)];
    let steady = |used, second| LimitWindow { resets_at: Some(at(9000)), ..window("five_hour", used, second) };
    observe(&store, OWNER, None, steady(20.0, 10), 10).await;
    assert_eq!(known(&store, 10).await, row(20.0, 10));
    observe(&store, OWNER, None, steady(20.0, 12), 12).await;
    assert_eq!(known(&store, 12).await, row(20.0, 10), "it did not change");
    observe(&store, OWNER, None, steady(20.0, 70), 70).await;
    assert_eq!(known(&store, 70).await, row(20.0, 70), "its age passed a minute");
    observe(&store, OWNER, None, steady(25.0, 71), 71).await;
    // A spooled report of before.
    let late = ReceivedReport { now: at(80), ..heartbeat(None, vec![steady(22.0, 60)], 60) };
    store.report_agent(late, seeded(8000, OWNER, at(80))).await.unwrap();
    assert_eq!(known(&store, 80).await, row(25.0, 71));
    shut((store, writer));
    let (store, writer) = open(dir.path());
    assert_eq!(known(&store, 80).await, row(25.0, 71), "after a restart");
    shut((store, writer));
}

#[tokio::test]
async fn accounts_of_users_are_kept_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    observe(&store, OWNER, Some("dev@example.com"), window("five_hour", 1.0, 1), 1).await;
    observe(&store, OTHER, Some("dev@example.com"), window("five_hour", 2.0, 2), 2).await;
    observe(&store, OWNER, None, window("five_hour", 3.0, 3), 3).await;
    let all: Vec<_> =
        known(&store, 4).await.into_iter().map(|(uid, account, _, used, _)| (uid, account, used)).collect();
    let account = || Some("dev@example.com".to_owned());
    assert_eq!(all, [(1000, None, Some(3.0)), (1000, account(), Some(1.0)), (1001, account(), Some(2.0))]);
}

#[tokio::test]
async fn windows_and_accounts_are_bounded_and_the_newest_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    for n in 0..MAX_WINDOWS as i64 + 2 {
        observe(&store, OWNER, None, window(&format!("w{n}"), 1.0, n), n).await;
    }
    let names: Vec<_> = known(&store, 20).await.into_iter().map(|row| row.2).collect();
    assert_eq!(names, (2..10).map(|n| format!("w{n}")).collect::<Vec<_>>());
    for n in 0..MAX_ACCOUNTS_OF_USER as i64 + 1 {
        observe(&store, OTHER, Some(&format!("a{n:02}")), window("five_hour", 1.0, 30 + n), 30 + n).await;
    }
    let all = known(&store, 60).await;
    let of_other: Vec<_> = all.iter().filter(|row| row.0 == OTHER.uid).collect();
    assert_eq!((of_other.len(), of_other[0].1.as_deref()), (MAX_ACCOUNTS_OF_USER, Some("a01")));
    assert!(all.iter().any(|row| row.0 == OWNER.uid), "no user displaces another");
    for uid in 2000..2010 {
        for n in 0..10 {
            let second = i64::from(uid) * 10 + n;
            observe(&store, Caller { uid }, Some(&format!("a{n}")), window("five_hour", 1.0, second), second).await;
        }
    }
    assert_eq!(known(&store, 30_000).await.len(), MAX_ACCOUNTS);
}

#[tokio::test]
async fn old_limits_expire() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    const DAY: i64 = 86_400;
    observe(&store, OWNER, None, window("five_hour", 1.0, 0), 0).await;
    observe(&store, OWNER, None, window("seven_day", 1.0, DAY), DAY).await;
    assert_eq!(known(&store, 14 * DAY - 1).await.len(), 2);
    assert_eq!(known(&store, 14 * DAY).await.len(), 1);
    store.expire_limits(at(14 * DAY)).await.unwrap();
    let rows = "SELECT count(*) FROM rate_limits";
    assert_eq!(store.read(move |db| Ok(db.query_row(rows, [], |row| row.get::<_, i64>(0))?)).await, Ok(1));
}

#[tokio::test]
async fn limits_of_other_machines_come_with_the_list_of_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = open(dir.path());
    observe(&store, OWNER, None, window("five_hour", 40.0, 0), 0).await;
    let host = |name: &str, used: f64| HostSeen {
        host_id: Uuid::new_v4(),
        machine: MachineName::parse(name).unwrap(),
        last_seen: at(1),
        limits: vec![AccountLimit {
            uid: 7,
            account: Some("dev@example.com".into()),
            window: window("seven_day", used, 0),
            observed_at: at(0),
        }],
    };
    let silent = HostSeen { limits: Vec::new(), ..host("odin5", 0.0) };
    // What central says of this host is what it shared itself.
    store.replace_hosts(vec![host("odin4", 90.0), host("odin3", 1.0), silent]).await.unwrap();
    let listed = |machines: &[MachineLimits], second| -> Vec<_> {
        machines.iter().map(|m| (m.machine.to_string(), m.is_local, m.least_headroom(at(second)))).collect()
    };
    let expected = |own, other| [("odin3".to_owned(), true, own), ("odin4".to_owned(), false, other)];
    let all = store.limits(this(), by(OWNER, at(2))).await.unwrap();
    assert_eq!(listed(&all, 2), expected(Some(60.0), Some(10.0)));
    shut((store, writer));
    let (store, writer) = open(dir.path());
    let all = store.limits(this(), by(OWNER, at(9000))).await.unwrap();
    assert_eq!(listed(&all, 9000), expected(None, None), "kept past their reset");
    store.replace_hosts(vec![host("odin4", 95.0)]).await.unwrap();
    let all = store.limits(this(), by(OWNER, at(2))).await.unwrap();
    assert_eq!(listed(&all, 2), expected(Some(60.0), Some(5.0)));
    store.replace_hosts(Vec::new()).await.unwrap();
    assert_eq!(store.limits(this(), by(OWNER, at(2))).await.unwrap().len(), 1, "the other is gone from central");
    shut((store, writer));
}

#[tokio::test]
async fn limits_of_an_unchanged_status_line_cost_no_write() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let steady = |second| LimitWindow { resets_at: Some(at(9000)), ..window("five_hour", 20.0, second) };
    observe(&store, OWNER, None, steady(1), 1).await;
    let changes = |second| {
        let report = heartbeat(None, vec![steady(second)], second);
        let observed = report.report.limits.unwrap();
        store.write(move |db| {
            let before = db.total_changes();
            let op = Op::new(db, by(OWNER, at(second)));
            ops::rate_limits::record(&op, &observed, at(second), at(second))?;
            Ok(db.total_changes() - before)
        })
    };
    assert_eq!(changes(2).await, Ok(0));
    assert_eq!(changes(61).await, Ok(1));
}
