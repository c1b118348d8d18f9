//! The JSON that travels over the socket, as contract.md describes it. Both ends use these types, and
//! the OpenAPI document is generated from them.

mod doctor;
mod error;
mod session;
mod status;

pub use doctor::{DoctorBody, FindingBody};
pub use error::{ErrorBody, ErrorCode, ErrorDetail};
pub use session::{
    HeartbeatRequest, ListQuery, MachineBody, Matches, RegisterRequest, SessionBody, SessionList, SessionSeen,
};
pub use status::{
    BacklogBody, CentralBody, ConfigBody, ConflictBody, DaemonBody, IdentityRename, MachineIdentity, ParkedBody,
    ParkedCount, ParkedIds, SessionCounts, StatusBody, StoreBody, SyncBody, SyncRequest,
};
