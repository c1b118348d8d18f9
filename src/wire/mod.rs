//! The JSON that travels over the socket, as docs/contract.md describes it. Both ends use these types, and
//! the OpenAPI document is generated from them.

mod agent;
mod doctor;
mod error;
mod history;
mod resume;
mod session;
mod status;

pub use agent::{AgentBody, AgentReport};
pub use doctor::{DoctorBody, FindingBody};
pub use error::{ErrorBody, ErrorCode, ErrorDetail};
pub use history::{
    CheckpointBody, CheckpointList, CheckpointRequest, CommandBody, CommandList, CommandRequest, EventBody, EventList,
    EventRequest, HistoryFilter, HistoryParams, RecordBody, RecordState,
};
pub use resume::{ActionBody, ContextBody, ResumeBody, ResumeRequest, WorkStateBody};
pub use session::{
    HeartbeatRequest, ListQuery, MOST_SESSIONS, MachineBody, Matches, RegisterRequest, SessionBody, SessionList,
    SessionSeen, WatchQuery,
};
pub use status::{
    BacklogBody, BlockedBody, CentralBody, ConfigBody, ConflictBody, DaemonBody, IdentityRename, MachineIdentity,
    ParkedBody, ParkedCount, ParkedIds, QuarantinedBody, SessionCounts, SocketBody, SpoolBody, SpoolFolderBody,
    StatusBody, StoreBody, SyncBody, SyncRequest,
};
