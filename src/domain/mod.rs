//! The types and rules of sessions: names, states, history, the reconstruction of a session's context, redaction.
//!
//! Nothing here reads a clock, generates a random number, does I/O or awaits. Times are passed in as [`Timestamp`],
//! randomness as a number, so that every computation can be replayed.

pub mod activity;
pub mod activity_history;
pub mod agent;
pub mod attention;
pub mod backoff;
pub mod columns;
pub mod context;
pub mod durations;
pub mod finding;
pub mod footer;
pub mod handoff;
pub mod hash;
pub mod hint;
pub mod history;
pub mod limits;
pub mod link;
pub mod liveness;
pub mod machine;
pub mod mirror;
pub mod mirror_scope;
pub mod names;
pub mod notification;
pub mod on_demand;
pub mod overlap;
pub mod place;
pub mod process;
mod reason;
pub mod redact;
pub mod refresh;
pub mod resume;
pub mod session;
pub mod session_work;
pub mod text;
pub mod text_width;
pub mod time;
pub mod work;

pub use columns::{ColumnTimes, SharedColumn, TimedSession};
pub use context::{Context, SessionHistory};
pub use finding::{Finding, Verdict};
pub use hint::Hint;
pub use history::{HistoryRecord, HistoryTables, NewRecord, RecordKind, TableState};
pub use link::{BlockedKind, LinkState, LinkStatus};
pub use machine::MachineSummary;
pub use mirror_scope::MirrorScope;
pub use names::{InstanceId, InstanceType, Invalid, MachineName, Project};
pub use place::SessionLocation;
pub use process::Process;
pub use reason::Reason;
pub use session::{Heartbeat, Registration, Session, Status};
pub use session_work::{SessionWork, WorkSummary};
pub use time::Timestamp;
