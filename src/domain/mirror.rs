//! The pages in which a host pulls changes from central.
//!
//! Central numbers its transactions. A pull reads all rows that transactions since `since` changed, page by page: first
//! deletions, then sessions, then the history of changed sessions. Where the next pull begins is determined with the
//! first page, because rows that change during a pull may lie before the position that it has reached.

use super::{HistoryRecord, MachineName, TimedSession, Timestamp};

/// A reading of what changed, page by page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What central's transactions before this one changed has been read before; 0: nothing has.
    pub since: u64,
    /// The last row of the page before; none before the first page.
    pub after: Option<Position>,
    pub page: PageSize,
}

/// How much one page may bring. A central that does not send it in time is asked for less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize {
    /// Sessions, or deletions.
    pub rows: u32,
    /// The bodies of records, unless one alone is larger.
    pub bytes: u32,
}

impl PageSize {
    pub const LARGEST: Self = Self { rows: 1000, bytes: 1 << 20 };
    pub const SMALLEST: Self = Self { rows: 1, bytes: 1 << 10 };
    /// Sessions whose history is looked up for one page, of the largest size.
    const HISTORIES: u32 = 50;

    /// Half of it; the same if it is the smallest.
    pub fn halved(self) -> Self {
        let Self { rows, bytes } = self;
        Self { rows: (rows / 2).max(Self::SMALLEST.rows), bytes: (bytes / 2).max(Self::SMALLEST.bytes) }
    }

    pub fn doubled(self) -> Self {
        let Self { rows, bytes } = self;
        Self { rows: (rows * 2).min(Self::LARGEST.rows), bytes: (bytes * 2).min(Self::LARGEST.bytes) }
    }

    /// Sessions whose history is looked up at once.
    pub fn histories(self) -> u32 {
        (self.rows * Self::HISTORIES / Self::LARGEST.rows).max(1)
    }
}

/// Between two pages. Deletions come first, then sessions, then the history of those that have news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Where the next reading is to begin. Taken with the first page, since what changes during a reading
    /// may lie before what it has reached.
    pub next_since: u64,
    pub part: Part,
    pub transaction: u64,
    pub instance_id: String,
    /// What was read already of the session that comes next, if its history did not fit into the page.
    pub partly: Option<Partly>,
    /// Sessions whose history to look up for the next page; none: as many as may be.
    pub histories: Option<u32>,
}

/// A session of whose history the newest records have been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partly {
    pub instance_id: String,
    /// How many of each kind: events, commands, checkpoints.
    pub read: [u32; 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Deletions,
    Sessions,
    History,
}

impl Position {
    /// Where a part begins.
    pub const fn start(part: Part, since: u64, next_since: u64) -> Self {
        Self { next_since, part, transaction: since, instance_id: String::new(), partly: None, histories: None }
    }
}

impl Reading {
    pub const fn since(since: u64) -> Self {
        Self { since, after: None, page: PageSize::LARGEST }
    }

    /// Is everything read, not only what changed?
    pub const fn is_whole(&self) -> bool {
        self.since == 0
    }

    /// Where the next page begins, and of what.
    pub fn position(&self) -> (Part, u64, &str) {
        match &self.after {
            None if self.is_whole() => (Part::Sessions, self.since, ""),
            None => (Part::Deletions, self.since, ""),
            Some(after) => (after.part, after.transaction, &after.instance_id),
        }
    }
}

/// A page of what changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// The times of this host's own sessions' columns; of others' sessions they are left out.
    pub sessions: Vec<TimedSession>,
    /// Sessions that were deleted.
    pub gone: Vec<Gone>,
    /// The latest that happened in sessions: all of it, or its end.
    pub history: Vec<HistoryRecord>,
    /// Rows that other clients wrote and that cannot be read; they are passed over.
    pub unreadable: u64,
    pub rest: Rest,
}

impl Changes {
    /// Does it bring no row?
    pub const fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.gone.is_empty() && self.history.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    pub instance_id: String,
    pub created_at: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rest {
    More(Position),
    /// All is read; the next reading begins here.
    Nothing {
        next_since: u64,
    },
    /// Central numbers its transactions lower than before, so what was read is no measure: everything is to be
    /// read anew.
    #[default]
    Everything,
}

/// A daemon that central knows of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSeen {
    pub machine: MachineName,
    /// When it last spoke to central, by central's clock.
    pub last_seen: Timestamp,
}
