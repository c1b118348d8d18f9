//! Bugs that were made before, here or elsewhere, planted into the simulation's wiring one at a time: a
//! simulation that does not notice them proves nothing by passing.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A client is expected "done" before the commit.
    AckBeforeCommit,
    /// Heartbeats are kept in memory and written now and then.
    HeartbeatsInMemory,
    /// A full disk is a "done" all the same.
    SwallowFullDisk,
    /// Central applies whatever arrives, whichever number it bears.
    NoLedger,
    /// Only a batch of a connection given up long ago gets past the ledger.
    LateBatchApplied,
    /// The last push wins, whatever time it bears.
    LastWriteWins,
    /// Central gets the time of the push.
    StampNow,
    /// A push makes a closed row active again.
    ReopenClosed,
    /// A row of the same id is the same session.
    OverwriteCollision,
    /// A session with a new id is no longer found by its old one.
    CollisionNotAliased,
    /// An acknowledgement counts for whatever version there is by now.
    AckIgnoresVersion,
    /// A row that central rejects is tried again for ever.
    RetryRejected,
    /// A row that central rejects fails the batch.
    RejectedBlocks,
    /// A central restored from a backup is taken for complete.
    NoResync,
    /// The name is taken over without being expected to.
    PushUnderConflict,
    /// Silence is judged before anybody looked at the processes.
    SweepBeforeProcessCheck,
    /// What waits at the end is taken for sent.
    DropBacklogOnStop,
    /// No wait between attempts.
    NoBackoff,
    /// What is replayed again is taken for something new.
    ReplayTwice,
    /// Events are replayed newest first.
    ReplayBackwards,
    /// A central restored from a backup gets the sessions again, and not their history.
    HistoryNotReoffered,
    /// An event that central rejects takes those after it along.
    RejectedTakesOthersAlong,
    /// A push carries every column, whoever changed it, as of its heartbeat.
    PushWholeRows,
    /// An acknowledgement counts for columns that were changed during the push.
    AckClearsLaterColumns,
    /// What other clients changed is not adopted while something waits.
    NoAdoptionWhileWaiting,
    /// A start that fails makes a claim, and the one that central accepted is forgotten for it.
    ClaimAtEachStart,
    /// The claim that central accepted is forgotten after a few starts.
    ClaimsAgedOut,
    /// Each pull reads again what was read before.
    PositionNeverAdvances,
    /// Rows of central that did not change are written, and announced to watchers.
    UnchangedRowsWritten,
    /// A deletion counts whatever transaction it bears, and although the session was brought back.
    DeletedForGood,
    /// A table that the login may not use is taken for one that is not there.
    MissingRightCountsAsAbsent,
    /// A row that another transaction has locked fails the batch.
    LockedRowBlocks,
}

impl Bug {
    pub const ALL: [Self; 32] = [
        Self::AckBeforeCommit,
        Self::HeartbeatsInMemory,
        Self::SwallowFullDisk,
        Self::NoLedger,
        Self::LateBatchApplied,
        Self::LastWriteWins,
        Self::StampNow,
        Self::ReopenClosed,
        Self::OverwriteCollision,
        Self::CollisionNotAliased,
        Self::AckIgnoresVersion,
        Self::RetryRejected,
        Self::RejectedBlocks,
        Self::NoResync,
        Self::PushUnderConflict,
        Self::SweepBeforeProcessCheck,
        Self::DropBacklogOnStop,
        Self::NoBackoff,
        Self::ReplayTwice,
        Self::ReplayBackwards,
        Self::HistoryNotReoffered,
        Self::RejectedTakesOthersAlong,
        Self::PushWholeRows,
        Self::AckClearsLaterColumns,
        Self::NoAdoptionWhileWaiting,
        Self::ClaimAtEachStart,
        Self::ClaimsAgedOut,
        Self::PositionNeverAdvances,
        Self::UnchangedRowsWritten,
        Self::DeletedForGood,
        Self::MissingRightCountsAsAbsent,
        Self::LockedRowBlocks,
    ];
}
