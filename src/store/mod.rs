//! The state folder: SQLite for sessions and their history, a small file for the identity, a lock for both.
//!
//! **Write path.** A write is a job for the one writer thread (`sqlite::writer`), which runs all jobs that wait in one
//! transaction, commits once and then answers. A read runs on a connection of its own with one consistent view.
//! Only this module knows SQLite.
//!
//! **Layers**, each of which uses only those below it:
//! - [`Store`] (`store.rs`, `store/`): the handle; one method for each operation;
//! - `ops`: one use case in one transaction; `recovery`: opening, upgrading and repairing the files;
//! - `sync_state`: what central lacks, what it answered, and the mirror of other machines;
//! - `tables`: SQL of single tables, without any decision;
//! - `sqlite`: connections, the writer, readers, the change feed; it knows no operation.
//!
//! **Schema.** A session of this host has `mirror_generation` NULL (`OURS`), and what is read and written of one is listed
//! once (`tables/session_row.rs`); `unsynced_since` is set while central lacks its newest
//! version. There is no queue: what central lacks is in the rows themselves, so the backlog grows with sessions and
//! records, not with heartbeats.
//!
//! **Failure.** A write that was answered is on disk (durability `full`). A job that fails is undone alone. A store that
//! turns out to be damaged is quarantined under a dated name, and what can be read of it is carried over.

mod error;
mod folder_lock;
mod identity;
mod new_processes;
mod op;
mod ops;
mod recovery;
mod sqlite;
#[allow(clippy::module_inception)]
mod store;
mod sync_state;
mod tables;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod urgent;

pub use error::{OpenError, StoreError};
pub use folder_lock::FolderLock;
pub use identity::{Identity, IdentityFile, PinnedIdentity};
pub use new_processes::{NewProcesses, ProcessChanges};
pub use op::{Caller, IdSource, OpContext};
pub use ops::activity_figures::ActivityFigures;
pub use ops::agent_candidates::ReceivedReport;
pub use ops::agent_reports::ReportResult;
pub use ops::conflicts::MAX_CONFLICTS;
pub use ops::history::{Append, History, HistoryQuery};
pub use ops::idempotency::{Once, RequestKey};
pub use ops::lifecycle::NewSession;
pub use ops::lookup::{CANDIDATES, Counts, Filter, Lookup};
pub use ops::machines::KnownMachine;
pub use ops::resume::{NewOwner, ResumeTarget, Resumed, Resumption};
pub use ops::session_page::{Cursor, SessionPage};
pub use ops::spooled_writes::{Import, Imported, SpooledWrite};
pub use ops::user_limits::UserLimits;
pub use recovery::examine::examine;
pub use sqlite::change_feed::ChangeFeed;
pub use sqlite::connection::{Durability, Options};
pub use store::{Store, WriterThread};
pub use sync_state::activity_history::ActivityHistory;
pub use sync_state::batch_result::{
    BatchResult, RecordResult, Renamed, SessionOutcome, SessionResult, WITHOUT_SESSION,
};
pub use sync_state::ledger::Ledger;
pub use sync_state::mirror::PageResult;
pub use sync_state::outbox::{Backlog, OutboxPosition, Pending, UnsyncedWork};
pub use sync_state::parked::{Parked, ParkedRecord};
pub use sync_state::selection::{BatchLimit, Skip};
pub use tables::records::StoredRecord;
pub use tables::session_columns::ColumnChanges;
pub use tables::session_record::Record;
