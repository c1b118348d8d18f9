//! What every operation is given beside its own arguments: the database, the time, the caller, the rule by which
//! sessions become stale, and a source of ids.
//!
//! A caller of the store makes an [`OpContext`], which is small and copied. The writer and the readers add the
//! connection on which the operation runs, which makes it an [`Op`]. Neither allocates, reads a clock or draws a random
//! number that is not needed.

use std::time::Duration;

use rusqlite::Connection;

use crate::domain::liveness::status_at;
use crate::domain::{Session, Status, Timestamp};
use crate::platform::random::random;

/// Who asks for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub(crate) uid: u32,
}

impl Caller {
    /// The daemon itself, which may change every session.
    pub const DAEMON: Self = Self { uid: 0 };
}

/// Where the random part of new ids comes from.
#[derive(Clone, Copy, Debug)]
pub enum IdSource {
    /// Called for each number, when it is needed.
    Random(fn() -> u64),
    /// This number and those that follow it, so that a run with the same seed makes the same ids.
    Seeded(u64),
}

impl IdSource {
    /// Numbers without end. They are the same at each call if the source is seeded.
    pub fn numbers(self) -> impl Iterator<Item = u64> {
        (0..).map(move |step| match self {
            Self::Random(random) => random(),
            Self::Seeded(seed) => seed.wrapping_add(step),
        })
    }
}

/// When, for whom and by which rules an operation runs.
#[derive(Clone, Copy, Debug)]
pub struct OpContext {
    /// The time of the operation.
    pub now: Timestamp,
    /// Who asks for it.
    pub caller: Caller,
    /// A session without a heartbeat for so long is stale.
    pub stale_after: Duration,
    /// Where new ids come from.
    pub ids: IdSource,
}

impl OpContext {
    /// For an operation that the daemon does by itself.
    pub const fn of_daemon(now: Timestamp, stale_after: Duration) -> Self {
        Self { now, caller: Caller::DAEMON, stale_after, ids: IdSource::Random(random) }
    }
}

/// One operation in the transaction that `db` has open.
pub(in crate::store) struct Op<'a> {
    pub(in crate::store) db: &'a Connection,
    pub(in crate::store) now: Timestamp,
    pub(in crate::store) caller: Caller,
    pub(in crate::store) stale_after: Duration,
    pub(in crate::store) ids: IdSource,
}

impl<'a> Op<'a> {
    pub(in crate::store) fn new(db: &'a Connection, context: OpContext) -> Self {
        let OpContext { now, caller, stale_after, ids } = context;
        Self { db, now, caller, stale_after, ids }
    }

    /// The status of a session now, which is recorded with this status and this last heartbeat, and for which a host
    /// vouched at `alive_as_of`.
    pub(in crate::store) fn status(
        &self,
        recorded: Status,
        last_heartbeat: Timestamp,
        alive_as_of: Option<Timestamp>,
    ) -> Status {
        status_at(recorded, last_heartbeat, alive_as_of, self.now, self.stale_after)
    }

    /// The status of a session of this host now.
    pub(in crate::store) fn status_of_own(&self, session: &Session) -> Status {
        self.status(session.status, session.last_heartbeat, None)
    }

    /// A session recorded as active is active now if its last heartbeat, or the last contact of the host that vouches for
    /// it, is between these times, in microseconds: the same rule as [`Self::status`] for SQL (`is_active`).
    pub(in crate::store) fn active_between(&self) -> [i64; 2] {
        [self.now.minus(self.stale_after), self.now.plus(self.stale_after)].map(Timestamp::micros)
    }
}
