//! The JSON of requests and responses, as docs/contract.md describes it.
//!
//! Daemon and client share these types, and the OpenAPI document is generated from them. `validate` turns a request
//! into a type of `domain`, or names the field that is wrong.

mod activity;
mod activity_history;
mod agent;
mod attention;
mod doctor;
mod error;
mod history;
mod limits;
mod machine;
mod notification;
mod overlap;
mod resume;
mod session;
mod status;
mod work;

pub use activity::{ActivityReport, PermissionReport};
pub use activity_history::{
    ActivityChangeBody, ActivityHistoryBody, ActivityHoursBody, ActivityParams, ActivitySecondsBody, MachineHoursBody,
};
pub use agent::{AgentBody, AgentReport};
pub use doctor::{DoctorBody, FindingBody};
pub use error::{ErrorBody, ErrorCode, ErrorDetail};
pub use history::{
    CheckpointBody, CheckpointList, CheckpointRequest, CommandBody, CommandList, CommandRequest, EventBody, EventList,
    EventRequest, HistoryFilter, HistoryParams, RecordBody, RecordState,
};
pub use limits::{LimitBody, LimitsReport, WindowReport};
pub use machine::MachineBody;
pub use notification::{ChannelTestBody, NotificationBody};
pub use overlap::OverlapBody;
pub use resume::{ActionBody, ContextBody, ResumeBody, ResumeRequest, WorkStateBody};
pub use session::{
    HeartbeatRequest, ListQuery, MAX_SESSIONS_PER_PAGE, Matches, RegisterRequest, SessionBody, SessionList,
    SessionView, Source, WatchQuery,
};
pub use status::{
    BacklogBody, BlockedBody, CentralBody, ConfigBody, ConflictBody, DaemonBody, IdentityRename, MachineIdentity,
    ParkedBody, ParkedCount, ParkedIds, QuarantinedBody, SessionCounts, SocketBody, SpoolBody, SpoolFolderBody,
    StatusBody, StoreBody, SyncBody, SyncRequest,
};
pub use work::{LastActivity, WorkBody};
