//! Stores with many sessions, written by the daemon's own store.

use std::path::Path;
use std::time::Duration;

use sessiond::clock;
use sessiond::domain::mirror::{ChangePage, Continuation, PullQuery};
use sessiond::domain::{
    Heartbeat, InstanceId, InstanceType, MachineName, Project, Registration, Session, TimedSession, Timestamp,
};
use sessiond::store::{Durability, FolderLock, IdSource, NewSession, OpContext, Options, Store};
use tokio::task::JoinSet;

use testkit::random::Random;

const STALE_AFTER: Duration = Duration::from_secs(120);
/// Concurrent requests; the writer's queue holds more.
const CONCURRENT: u64 = 512;

/// Opens the store in a folder that no daemon uses, and closes it after `work`.
pub fn with_store<T>(dir: &Path, work: impl AsyncFnOnce(Store) -> T) -> T {
    let _lock = FolderLock::take(dir).expect("no daemon uses it");
    let options = Options { durability: Durability::Full, max_size: 4 << 30 };
    let (store, writer) = Store::open(dir, options, clock::system()).expect("a store");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let done = runtime.block_on(work(store));
    drop(runtime);
    writer.join();
    done
}

fn project(number: u64) -> Project {
    Project::parse(&format!("project{}", number % 97)).expect("a project")
}

/// A registration, different for each number.
pub fn registration(number: u64, machine: &MachineName) -> Registration {
    Registration {
        project: project(number),
        instance_type: InstanceType::parse("PS").expect("a type"),
        host_machine: machine.clone(),
        context_percent: (number % 101) as u8,
        current_epic: Some(format!("epic {}", number % 1000)),
        claude_session_uuid: None,
        claude_session_path: None,
        resumed_from: None,
        working_dir: Some(format!("/home/user/src/project{}", number % 97)),
    }
}

fn seeded(seed: u64, now: Timestamp) -> OpContext {
    OpContext { ids: IdSource::Seeded(seed), ..OpContext::of_daemon(now, STALE_AFTER) }
}

/// Registers `count` sessions. Returns their ids.
pub fn register(dir: &Path, machine: &str, count: u64) -> Vec<String> {
    let machine = MachineName::parse(machine).expect("a name");
    let mut random = Random::new(count);
    with_store(dir, async |store| {
        let mut ids = Vec::new();
        for from in (0..count).step_by(CONCURRENT as usize) {
            let at = clock::system()();
            let mut registered = JoinSet::new();
            for number in from..count.min(from + CONCURRENT) {
                let session = NewSession { what: registration(number, &machine), agent: None, process: None };
                let (store, context) = (store.clone(), seeded(random.next(), at));
                registered.spawn(async move { store.register(session, context).await });
            }
            for record in registered.join_all().await {
                ids.push(record.expect("it is registered").session.instance_id.to_string());
            }
        }
        ids
    })
}

/// Records a heartbeat of each of these sessions.
pub fn heartbeat(dir: &Path, ids: &[String]) {
    with_store(dir, async |store| {
        for some in ids.chunks(CONCURRENT as usize) {
            let at = clock::system()();
            let beat = Heartbeat { context_percent: Some((at.micros() % 101) as u8), ..Heartbeat::default() };
            let mut beats = JoinSet::new();
            for id in some.iter().cloned() {
                let (store, beat) = (store.clone(), beat.clone());
                let context = OpContext::of_daemon(at, STALE_AFTER);
                beats.spawn(async move { store.heartbeat(id, beat, context).await });
            }
            for record in beats.join_all().await {
                record.expect("it is recorded");
            }
        }
    });
}

/// Stores `count` sessions of other hosts, as if they had been pulled from central.
pub fn mirror(dir: &Path, count: u64) {
    let mut random = Random::new(!count);
    with_store(dir, async |store| {
        for from in (0..count).step_by(1000) {
            let at = clock::system()();
            let sessions = (from..count.min(from + 1000))
                .map(|number| TimedSession::untimed(remote_session(number, random.next(), at)));
            let sessions = sessions.collect();
            let changes =
                ChangePage { sessions, rest: Continuation::Complete { next_since: from + 1 }, ..ChangePage::default() };
            store
                .import_page(PullQuery::since(from.max(1)), changes, seeded(random.next(), at))
                .await
                .expect("it is mirrored");
        }
    });
}

fn remote_session(number: u64, random: u64, at: Timestamp) -> Session {
    let machine = MachineName::parse(&format!("machine{}", number % 100)).expect("a name");
    let what = registration(number, &machine);
    Session::register(InstanceId::generate(&what.project, what.instance_type, random), what, at)
}
