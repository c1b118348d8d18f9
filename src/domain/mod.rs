//! The pure core: names, sessions and their states, the footer, the policy of backoff.
//!
//! Nothing here reads a clock, draws a random number, does I/O or awaits. Time comes in as a
//! [`Timestamp`], randomness as a number; so any run can be replayed.

pub mod backoff;
pub mod finding;
pub mod footer;
pub mod link;
pub mod machine;
pub mod names;
pub mod session;
pub mod text;
pub mod time;

pub use finding::{Finding, Verdict};
pub use link::{LinkState, LinkStatus};
pub use machine::MachineSummary;
pub use names::{InstanceId, InstanceType, Invalid, MachineName, Project};
pub use session::{Heartbeat, Registration, Session, Status};
pub use time::Timestamp;
