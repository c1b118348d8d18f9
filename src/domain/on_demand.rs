//! Questions about sessions that a host does not read ahead, as it asks them of central when they are wanted.
//!
//! An answer is bounded, and is imported into the store with the time at which it was read. What is read so has no host
//! that vouches for it: it is shown as active for at most stale_after after its last heartbeat.

use super::mirror::ChangePage;
use super::{Hint, Project, Timestamp};

/// The most sessions of an answer about a project.
pub const MAX_OF_PROJECT: u32 = 1000;

/// The most sessions of another answer. Their history is read too.
pub const MAX_FOUND: u32 = 20;

/// Which sessions are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The one with this id, or those whose ids begin so.
    Id(String),
    /// The most recent ones of this project.
    Project {
        /// The project.
        project: Project,
        /// Closed sessions only if they were closed after this; all of them if it is none.
        closed_since: Option<Timestamp>,
    },
    /// Those that the first of these has which any session has, without closed ones except by a complete id.
    Hint(Vec<Hint>),
}

/// What central has of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The sessions and their work; also their history, unless a project was asked for. Nothing is deleted in it.
    pub page: ChangePage,
    /// Central has more of them.
    pub more: bool,
}

/// An answer, or in one line why central did not give one.
pub type Reply = Result<Answer, String>;

/// How many were found, once they are in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The number of sessions that central has sent.
    pub sessions: usize,
    /// Central has more of them.
    pub more: bool,
}
