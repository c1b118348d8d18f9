//! Agents' reports against a real store.

use super::*;
use crate::domain::agent::{AgentKind, AgentName, AgentSignal, StartSource, ValidReport};
use crate::domain::{InstanceType, Project, Status};

fn received(sign: AgentSignal, uuid: &str, kind: AgentKind, pid: i32) -> ReceivedReport {
    let report = ValidReport {
        sign,
        agent: Some(AgentName::ClaudeCode),
        claude_session_uuid: Some(uuid.to_owned()),
        claude_session_path: None,
        working_dir: None,
        project: Project::parse("odin").unwrap(),
        instance_type: InstanceType::Ps,
        kind: Some(kind),
        context_percent: None,
        promised_id: None,
        outer_id: None,
        at: at(1),
        activity: None,
        work: None,
        limits: None,
    };
    let process = Some(Process { pid, started: 1 });
    // Processes with an odd pid run.
    ReceivedReport {
        report,
        process,
        host_machine: MachineName::guess(),
        lives: |process| process.pid % 2 == 1,
        now: at(1),
    }
}

async fn report(store: &Store, received: ReceivedReport, seed: u64, second: i64) -> ReportResult {
    store.report_agent(received, seeded(seed * 8, OWNER, at(second))).await.unwrap()
}

const START: AgentSignal = AgentSignal::Start(StartSource::Startup);

#[tokio::test]
async fn killed_headless_sessions_are_closed_eventually() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let print =
        report(&store, received(START, "u-print", AgentKind::Headless, 1), 1, 0).await.record.session.instance_id;
    let person =
        report(&store, received(START, "u-person", AgentKind::Interactive, 3), 2, 0).await.record.session.instance_id;
    store.sweep(by(OWNER, at(1000))).await.unwrap();
    assert_eq!(store.close_headless(at(0), by(OWNER, at(1000))).await.unwrap(), 0, "not yet");
    assert_eq!(store.close_headless(at(500), by(OWNER, at(1000))).await.unwrap(), 1);
    assert_eq!(only(&store, &print).await.session.status, Status::Closed);
    assert_eq!(only(&store, &person).await.session.status, Status::Stale);
}

#[tokio::test]
async fn next_process_of_a_conversation_is_watched_when_the_first_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let first = Process { pid: 1, started: 1 };
    let id = report(&store, received(START, "u-1", AgentKind::Interactive, 1), 1, 0).await.record.session.instance_id;
    let second =
        report(&store, received(AgentSignal::Start(StartSource::Resume), "u-1", AgentKind::Headless, 3), 2, 1).await;
    assert_eq!((second.created, second.record.process), (false, Some(first)));
    assert!(!store.process_died(id.clone(), first, by(OWNER, at(2))).await.unwrap());
    let record = only(&store, &id).await;
    assert_eq!((record.session.status, record.process.map(|process| process.pid)), (Status::Active, Some(3)));
    assert!(store.process_died(id.clone(), record.process.unwrap(), by(OWNER, at(3))).await.unwrap());
    assert_eq!(only(&store, &id).await.session.status, Status::Stale);
}

#[tokio::test]
async fn only_a_changed_process_wakes_the_watch() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let beat = |pid| received(AgentSignal::Heartbeat, "u-1", AgentKind::Interactive, pid);
    assert!(report(&store, beat(1), 1, 0).await.process_changed);
    assert!(!report(&store, beat(1), 2, 1).await.process_changed);
    // Another process reports, which does not take the session from one that runs.
    assert!(!report(&store, beat(3), 3, 2).await.process_changed);
    let (other, _writer) = open(tempfile::tempdir().unwrap().path());
    report(&other, beat(2), 4, 0).await;
    assert!(report(&other, beat(5), 5, 1).await.process_changed, "the first had ended");
}

fn by_agent(agent: AgentName, sign: AgentSignal, uuid: Option<&str>, pid: i32) -> ReceivedReport {
    let mut report = received(sign, "", AgentKind::Interactive, pid);
    report.report.agent = Some(agent);
    report.report.claude_session_uuid = uuid.map(str::to_owned);
    report
}

#[tokio::test]
async fn one_id_of_two_agents_is_two_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let mut ids = Vec::new();
    for (n, agent) in AgentName::ALL.into_iter().enumerate() {
        // Its first process has ended.
        let (pid, seed) = (2 * n as i32 + 2, n as u64 + 1);
        let begun = report(&store, by_agent(agent, START, Some("id"), pid), seed, 1).await;
        assert!(begun.created, "{agent:?}");
        let id = begun.record.session.instance_id;
        // A later process of the same agent, and a report without a process.
        let resumed = AgentSignal::Start(StartSource::Resume);
        let again = report(&store, by_agent(agent, resumed, Some("id"), pid + 101), seed + 100, 2).await;
        assert_eq!((&again.record.session.instance_id, again.created), (&id, false), "{agent:?}");
        let read = only(&store, &id).await;
        assert_eq!(read.agent(), Some(agent));
        assert_eq!(read.session.claude_session_uuid.as_deref(), Some("id"));
        ids.push(id);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), AgentName::ALL.len());
    let end = by_agent(AgentName::Codex, AgentSignal::End, Some("id"), 105);
    report(&store, end, 99, 3).await;
    let closed = store.list(Filter::default(), by(OWNER, at(3))).await.unwrap();
    let closed = closed.into_iter().filter(|record| record.session.status == Status::Closed).collect::<Vec<_>>();
    assert_eq!(closed.iter().map(Record::agent).collect::<Vec<_>>(), [Some(AgentName::Codex)]);
}

#[tokio::test]
async fn process_of_opencode_runs_several_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let process = Process { pid: 1, started: 1 };
    let mut ids = Vec::new();
    for (seed, uuid) in [(1, "ses_1"), (2, "ses_2")] {
        let begun = report(&store, by_agent(AgentName::Opencode, START, Some(uuid), 1), seed, 1).await;
        ids.push(begun.record.session.instance_id);
    }
    assert_ne!(ids[0], ids[1]);
    for id in &ids {
        let record = only(&store, id).await;
        assert_eq!((record.process, record.session.status), (Some(process), Status::Active));
    }
    // Without an id, nothing says which of them reports.
    let unknown = by_agent(AgentName::Opencode, AgentSignal::Heartbeat, None, 1);
    assert!(matches!(store.report_agent(unknown, seeded(80, OWNER, at(2))).await, Err(StoreError::NotFound(_))));
}

#[tokio::test]
async fn agent_of_a_registered_session_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let process = Some(Process { pid: 1, started: 1 });
    let new = NewSession { agent: Some(AgentName::Codex), process, ..unregistered(None) };
    let record = store.register(new, seeded(1, OWNER, at(0))).await.unwrap();
    assert_eq!(record.agent(), Some(AgentName::Codex));
    let codex = report(&store, by_agent(AgentName::Codex, START, Some("id"), 1), 2, 1).await;
    assert_eq!(codex.record.session.instance_id, record.session.instance_id);
    // Another agent in the same process is no report of it.
    let claude = report(&store, by_agent(AgentName::ClaudeCode, START, Some("id"), 1), 3, 2).await;
    assert_ne!(claude.record.session.instance_id, record.session.instance_id);
}
