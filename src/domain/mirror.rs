//! The pages in which a host pulls changes from central.
//!
//! Central numbers its transactions. A pull reads all rows that transactions since `since` changed, page by page: first
//! deletions, then sessions, then those that left the scope, then work, then the history of changed sessions. Where the
//! next pull begins is determined with the first page, because rows that change during a pull may lie before the position
//! that it has reached.

use uuid::Uuid;

use super::limits::AccountLimit;
use super::{HistoryRecord, MachineName, MirrorScope, SessionWork, TimedSession, Timestamp};

/// A query for one page of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullQuery {
    /// The first transaction whose changes are read; earlier ones were read before. 0: everything is read.
    pub since: u64,
    /// The position after the previous page; none for the first page.
    pub after: Option<PullPosition>,
    /// The limits of this page.
    pub page: PageSize,
    /// The transactions since `since` whose changes were read by the pull before: a transaction that runs for long keeps
    /// `since` where it is, and what others change meanwhile is not read again.
    pub read: Option<Transactions>,
    /// Which sessions of other hosts are read. Those that left the scope are read as deleted.
    pub scope: MirrorScope,
    /// Whether their history is read too.
    pub history: HistoryReading,
}

/// When the history of other hosts' sessions is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HistoryReading {
    /// With every change of it.
    #[default]
    Ahead,
    /// Only when a client asks for it.
    OnDemand,
}

/// The transactions of central that had ended when a pull began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transactions {
    /// All with lower numbers have ended,
    pub(crate) below: u64,
    /// except these, in order.
    pub(crate) running: Vec<u64>,
}

impl Transactions {
    /// If more are running, they are not remembered: then some changes are read again.
    const MAX_RUNNING: usize = 2000;

    /// Reads what `pg_snapshot` is shown as: `xmin:xmax:running,running`.
    pub(crate) fn parse(snapshot: &str) -> Option<Self> {
        let mut parts = snapshot.splitn(3, ':').skip(1);
        let below = parts.next()?.parse().ok()?;
        let running = parts.next()?.split(',').filter(|part| !part.is_empty());
        let running: Vec<u64> = running.map(|number| number.parse().ok()).collect::<Option<_>>()?;
        (running.len() <= Self::MAX_RUNNING).then_some(Self { below, running })
    }

    /// The same as `pg_snapshot` is shown.
    pub(crate) fn to_snapshot(&self) -> String {
        let oldest = self.running.first().copied().unwrap_or(self.below);
        let running: Vec<_> = self.running.iter().map(u64::to_string).collect();
        format!("{oldest}:{}:{}", self.below, running.join(","))
    }

    /// Whether this transaction had ended.
    pub fn contain(&self, transaction: u64) -> bool {
        transaction < self.below && !self.running.contains(&transaction)
    }

    /// The oldest transaction that was running.
    pub fn oldest_running(&self) -> Option<u64> {
        self.running.first().copied()
    }
}

/// The limits of one page. They are halved if central does not send a page in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize {
    /// The number of sessions, or of deletions.
    pub rows: u32,
    /// The total size of the records' bodies; a single record may be larger.
    pub bytes: u32,
}

impl PageSize {
    /// The limits of a fast central.
    pub const LARGEST: Self = Self { rows: 1000, bytes: 1 << 20 };
    /// The limits below which no page is divided.
    pub const SMALLEST: Self = Self { rows: 1, bytes: 1 << 10 };
    /// The number of sessions whose history a page of the largest size may contain.
    const HISTORIES: u32 = 50;

    /// Half of it, but not less than the smallest.
    pub fn halved(self) -> Self {
        let Self { rows, bytes } = self;
        Self { rows: (rows / 2).max(Self::SMALLEST.rows), bytes: (bytes / 2).max(Self::SMALLEST.bytes) }
    }

    pub(crate) fn doubled(self) -> Self {
        let Self { rows, bytes } = self;
        Self { rows: (rows * 2).min(Self::LARGEST.rows), bytes: (bytes * 2).min(Self::LARGEST.bytes) }
    }

    /// The number of sessions whose history a page of this size may contain.
    pub fn histories(self) -> u32 {
        (self.rows * Self::HISTORIES / Self::LARGEST.rows).max(1)
    }
}

/// A position between two pages. The order is that of the parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullPosition {
    /// Where the next pull begins. Determined with the first page, as rows that change during a pull may lie before its
    /// position.
    pub next_since: u64,
    pub(crate) part: PullPart,
    pub(crate) transaction: u64,
    pub(crate) instance_id: String,
    /// What was read of the next session, if its history did not fit into the page.
    pub partly: Option<PartialHistory>,
    /// The number of sessions whose history the next page contains; none: as many as the page size allows.
    pub histories: Option<u32>,
}

/// A session of which only the newest history records have been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialHistory {
    pub(crate) instance_id: String,
    /// How many records of each kind: events, commands, checkpoints.
    pub read: [u32; 3],
}

/// The parts of a pull, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPart {
    /// Sessions that were deleted.
    Deletions,
    /// Sessions that changed.
    Sessions,
    /// Sessions that left the scope.
    OutOfScope,
    /// What sessions of other hosts do and work on.
    Work,
    /// Records of sessions whose history changed.
    History,
}

impl PullPart {
    /// The part after this one, if there is any.
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::Deletions => Some(Self::Sessions),
            Self::Sessions => Some(Self::OutOfScope),
            Self::OutOfScope => Some(Self::Work),
            Self::Work => Some(Self::History),
            Self::History => None,
        }
    }
}

impl PullPosition {
    /// The beginning of a part.
    pub const fn start(part: PullPart, since: u64, next_since: u64) -> Self {
        Self { next_since, part, transaction: since, instance_id: String::new(), partly: None, histories: None }
    }

    /// The position behind a row of the same part: its session and its transaction.
    pub fn behind(&self, (instance_id, transaction): (String, u64)) -> Self {
        Self { instance_id, transaction, ..self.clone() }
    }
}

impl PullQuery {
    /// Reads what changed since this transaction; everything if it is 0.
    pub const fn since(since: u64) -> Self {
        Self {
            since,
            after: None,
            page: PageSize::LARGEST,
            read: None,
            scope: MirrorScope::All,
            history: HistoryReading::Ahead,
        }
    }

    /// Whether everything is read, not only changes.
    pub const fn is_whole(&self) -> bool {
        self.since == 0
    }

    /// The part, the transaction and the session id after which the page begins.
    pub fn position(&self) -> (PullPart, u64, &str) {
        match &self.after {
            None if self.is_whole() => (PullPart::Sessions, self.since, ""),
            None => (PullPart::Deletions, self.since, ""),
            Some(after) => (after.part, after.transaction, &after.instance_id),
        }
    }
}

/// A page of changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChangePage {
    /// Column times are contained for this host's own sessions only.
    pub sessions: Vec<TimedSession>,
    /// What sessions of other hosts do and work on.
    pub work: Vec<SessionWork>,
    /// Deleted sessions, and changed ones that are out of scope and may have been in it.
    pub gone: Vec<DeletedSession>,
    /// The newest history records of sessions.
    pub history: Vec<HistoryRecord>,
    /// The number of rows that other clients wrote and that cannot be read; they are skipped.
    pub unreadable: u64,
    /// The transactions that had ended when the pull began; with its first page only.
    pub snapshot: Option<Transactions>,
    /// What follows the page.
    pub rest: Continuation,
}

impl ChangePage {
    /// Whether it contains no row.
    pub const fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.work.is_empty() && self.gone.is_empty() && self.history.is_empty()
    }
}

/// A session that was deleted in central.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedSession {
    /// Its id.
    pub instance_id: String,
    /// When it was registered: the same id may be given to a later session.
    pub(crate) created_at: Timestamp,
}

/// What follows a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Continuation {
    /// More was changed; the next page begins here.
    More(PullPosition),
    /// Everything is read; the next pull begins here.
    Complete {
        /// The transaction since which the next pull reads.
        next_since: u64,
    },
    /// Central's transaction numbers are lower than before, as after a restore: everything has to be read again.
    #[default]
    Restart,
}

/// A daemon that central knows of.
#[derive(Clone, Debug, PartialEq)]
pub struct HostSeen {
    /// The id of its state folder. Sessions that it wrote last in central are vouched for by it.
    pub host_id: Uuid,
    /// The name under which it is registered.
    pub machine: MachineName,
    /// When it last contacted central, by central's clock.
    pub last_seen: Timestamp,
    /// The rate limits that it shares.
    pub limits: Vec<AccountLimit>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_read_as_postgres_shows_them() {
        for (text, ended, running) in [("5:9:5,7", [4, 6, 8], [5, 7, 9]), ("9:9:", [1, 7, 8], [9, 10, 99])] {
            let transactions = Transactions::parse(text).unwrap();
            assert_eq!(transactions.to_snapshot(), text);
            assert!(ended.into_iter().all(|number| transactions.contain(number)), "{text}");
            assert!(!running.into_iter().any(|number| transactions.contain(number)), "{text}");
        }
        assert_eq!(Transactions::parse("5:9:5,7").unwrap().oldest_running(), Some(5));
        let many: Vec<_> = (1..3000).map(|number: u64| number.to_string()).collect();
        for text in ["", "1:2", "a:b:c", "1:2:x", &format!("1:9999:{}", many.join(","))] {
            assert_eq!(Transactions::parse(text), None, "{text}");
        }
    }
}
