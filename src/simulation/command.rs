//! The calls of the store that the simulation makes.

use crate::domain::Process;
use std::pin::Pin;

use uuid::Uuid;

use super::setup::STALE_AFTER;
use crate::domain::work::WorkUpdate;
use crate::domain::{Heartbeat, InstanceId, InstanceType, MachineName, NewRecord, Project, Registration, Timestamp};
use crate::store::testing::manual_store::ManualStore;
use crate::store::{Append, Caller, IdSource, NewSession, OpContext, Record, Store, StoreError};

/// The answer of the store to a command.
pub(super) type Answer = Result<Option<Record>, StoreError>;

/// Commands with their times and answers, in the order in which they were committed.
pub(super) type Answered = Vec<(Command, Timestamp, Answer)>;

/// A type of event that central rejects.
pub(super) const REJECTED_EVENT: &str = "odd";

const OWNER: Caller = Caller { uid: 1000 };

/// Identifies a session by its `created_at`: the simulation creates no two at the same time.
pub(super) type Key = Timestamp;

/// A call of the store by a client, an operator, or the daemon's check of its processes.
#[derive(Clone, Debug)]
pub(super) enum Command {
    Register {
        epic: Option<String>,
        process: Option<Process>,
        machine: MachineName,
        /// Makes the session's id.
        seed: u64,
    },
    Heartbeat {
        key: Key,
        id: InstanceId,
        beat: Heartbeat,
    },
    Close {
        key: Key,
        id: InstanceId,
    },
    /// An event; central rejects it if it is `odd`.
    Append {
        key: Key,
        id: InstanceId,
        number: u64,
        odd: bool,
    },
    /// A prompt with this number.
    Work {
        id: InstanceId,
        number: u64,
    },
    SeenAlive {
        sessions: Vec<(Key, InstanceId)>,
    },
    Died {
        key: Key,
        id: InstanceId,
        process: Process,
    },
    Sweep,
    Prune {
        before: Timestamp,
    },
    FileUnder {
        name: MachineName,
    },
    RetryParked,
    DropParked,
    /// The disk fails at the commit.
    FailCommit,
}

impl Command {
    /// Calls the store.
    pub(super) fn carry_out(self, store: Store, at: Timestamp) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
        let context = OpContext { caller: OWNER, ..OpContext::of_daemon(at, STALE_AFTER) };
        Box::pin(async move {
            match self {
                Self::Register { epic, process, machine, seed } => {
                    let session = NewSession { what: registration(machine, epic), agent: None, process };
                    let context = OpContext { ids: IdSource::Seeded(seed), ..context };
                    store.register(session, context).await.map(Some)
                }
                Self::Heartbeat { id, beat, .. } => store.heartbeat(id.to_string(), beat, context).await.map(Some),
                Self::Append { id, number, odd, .. } => {
                    let data = serde_json::Map::from_iter([("number".to_owned(), number.into())]);
                    let event = NewRecord::event(if odd { REJECTED_EVENT } else { "tool_use" }, data, None).unwrap();
                    let record_id = Uuid::from_u128(1 << 80 | u128::from(number));
                    store.append(Append { id: id.to_string(), what: event, record_id }, context).await.map(|_| None)
                }
                Self::Work { id, number, .. } => {
                    let update = WorkUpdate { prompt: Some(number.to_string()), ..WorkUpdate::default() };
                    store.record_work(id.to_string(), update, context).await.map(|_| None)
                }
                Self::Close { id, .. } => store.close(id.to_string(), context).await.map(Some),
                Self::SeenAlive { sessions } => {
                    let ids = sessions.into_iter().map(|(_, id)| id).collect();
                    store.seen_alive(ids, context).await.map(|()| None)
                }
                Self::Died { id, process, .. } => store.process_died(id, process, context).await.map(|_| None),
                Self::Sweep => store.sweep(context).await.map(|_| None),
                Self::Prune { before } => store.prune(before).await.map(|_| None),
                Self::FileUnder { name } => store.set_machine_name(name, at).await.map(|_| None),
                Self::RetryParked => ManualStore::retry_all_parked(&store).await.map(|_| None),
                Self::DropParked => ManualStore::drop_all_parked(&store).await.map(|_| None),
                Self::FailCommit => {
                    let dangling = "PRAGMA defer_foreign_keys = ON; INSERT INTO aliases VALUES ('a', 'nothing', 0)";
                    ManualStore::execute(&store, dangling).await.map(|()| None)
                }
            }
        })
    }
}

fn registration(host_machine: MachineName, current_epic: Option<String>) -> Registration {
    Registration {
        project: Project::parse("odin").unwrap(),
        instance_type: InstanceType::Ps,
        host_machine,
        context_percent: 0,
        // Some need so much space that the disk matters.
        claude_session_path: current_epic.clone().filter(|epic| epic.len() > 200).map(|epic| epic.repeat(8)),
        current_epic,
        claude_session_uuid: None,
        resumed_from: None,
        working_dir: None,
    }
}
