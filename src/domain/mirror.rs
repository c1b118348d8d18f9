//! Reading what changed in central: where a reading stands, and what it brings.

use super::{HistoryRecord, MachineName, TimedSession, Timestamp};

/// A reading of what changed, page by page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What central's transactions before this one changed has been read before; 0: nothing has.
    pub since: u64,
    /// The last row of the page before; none before the first page.
    pub after: Option<Position>,
}

/// Between two pages. Sessions come first, then the history of those that have news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Where the next reading is to begin. Taken with the first page, since what changes during a reading
    /// may lie before what it has reached.
    pub next_since: u64,
    pub part: Part,
    pub transaction: u64,
    pub instance_id: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Sessions,
    History,
}

impl Reading {
    pub const fn since(since: u64) -> Self {
        Self { since, after: None }
    }

    /// Is everything read, not only what changed?
    pub const fn is_whole(&self) -> bool {
        self.since == 0
    }

    /// Where the next page begins, and of what.
    pub fn position(&self) -> (Part, u64, &str) {
        match &self.after {
            None => (Part::Sessions, self.since, ""),
            Some(after) => (after.part, after.transaction, &after.instance_id),
        }
    }
}

/// A page of what changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes {
    /// The times of this host's own sessions' columns; of others' sessions they are left out.
    pub sessions: Vec<TimedSession>,
    /// Sessions that were deleted.
    pub gone: Vec<Gone>,
    /// The latest that happened in sessions: all of it, or its end.
    pub history: Vec<HistoryRecord>,
    pub rest: Rest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    pub instance_id: String,
    pub created_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rest {
    More(Position),
    /// All is read; the next reading begins here.
    Nothing {
        next_since: u64,
    },
}

/// A daemon that central knows of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSeen {
    pub machine: MachineName,
    /// When it last spoke to central, by central's clock.
    pub last_seen: Timestamp,
}
