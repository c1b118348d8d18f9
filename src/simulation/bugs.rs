//! Bugs that were made before, here or elsewhere. The simulation plants them one at a time and has to detect each:
//! otherwise its success proves nothing.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// A client gets its answer before the commit.
    AckBeforeCommit,
    /// Heartbeats are kept in memory and written from time to time.
    HeartbeatsInMemory,
    /// A full disk is answered as success.
    SwallowFullDisk,
    /// Central applies every batch, whatever its number.
    NoLedger,
    /// Central applies late batches of abandoned connections.
    LateBatchApplied,
    /// The last push wins, whatever the time of its rows.
    LastWriteWins,
    /// Heartbeats get the time of the push.
    StampNow,
    /// A push makes a closed row active again.
    ReopenClosed,
    /// A row with the same id counts as the same session.
    OverwriteCollision,
    /// A session with a new id is no longer found by its old one.
    CollisionNotAliased,
    /// An acknowledgement counts for the current version instead of the one that was pushed.
    AckIgnoresVersion,
    /// A row that central rejects is never parked.
    RetryRejected,
    /// A row that central rejects fails the batch.
    RejectedBlocks,
    /// A restored backup is not detected.
    NoResync,
    /// The name is taken over without an operator's request.
    PushUnderConflict,
    /// Silent sessions turn stale before the processes were checked.
    SweepBeforeProcessCheck,
    /// Pending changes are dropped on shutdown.
    DropBacklogOnStop,
    /// No wait between attempts.
    NoBackoff,
    /// A record that is pushed again is written again.
    ReplayTwice,
    /// Events are replayed newest first.
    ReplayBackwards,
    /// After a restored backup the sessions are pushed again, but not their history.
    HistoryNotReoffered,
    /// An event that central rejects discards those after it.
    RejectedTakesOthersAlong,
    /// A push offers every column, with the time of the heartbeat.
    PushWholeRows,
    /// An acknowledgement counts for columns that were changed during the push.
    AckClearsLaterColumns,
    /// Changes by other clients are not adopted while the session is unsynced.
    NoAdoptionWhileWaiting,
    /// A failed start draws a claim, for which the accepted one is forgotten.
    ClaimAtEachStart,
    /// The claim that central accepted is forgotten after a few starts.
    ClaimsAgedOut,
    /// Each pull reads everything again.
    PositionNeverAdvances,
    /// Unchanged rows of central are written and announced to watchers.
    UnchangedRowsWritten,
    /// A deletion counts whatever its transaction, even if the session was restored.
    DeletionIsPermanent,
    /// A table that the login may not use counts as absent.
    MissingRightCountsAsAbsent,
    /// A row that another transaction has locked fails the batch.
    LockedRowBlocks,
    /// An acknowledgement of a session's work counts for what was changed during the push.
    AckClearsLaterWork,
    /// A host vouches for sessions that were closed.
    VouchesForClosed,
    /// A host vouches for sessions of other hosts.
    VouchesForOthers,
    /// The host that has the name of a session's machine vouches for it, although another took the name over.
    VouchesByName,
    /// Heartbeats alone never make a session pending.
    NeverRefreshed,
    /// A session that left the scope of a host stays in its mirror.
    LeftScopeStays,
    /// Heartbeats in central become older than `stale_after` before they are pushed again.
    RefreshedTooLate,
    /// Central takes a daemon that judges sessions by their heartbeats for one that judges them by their hosts.
    EarlierDaemonOverlooked,
    /// What was pushed before an earlier daemon was noticed is not pushed again.
    NotPushedAgain,
}

impl Bug {
    /// Those that the world of two hosts detects.
    pub(super) const ALL: [Self; 38] = [
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
        Self::DeletionIsPermanent,
        Self::MissingRightCountsAsAbsent,
        Self::LockedRowBlocks,
        Self::AckClearsLaterWork,
        Self::VouchesForClosed,
        Self::VouchesForOthers,
        Self::VouchesByName,
        Self::NeverRefreshed,
        Self::LeftScopeStays,
    ];

    /// Those that a fleet of several versions detects.
    pub(super) const OF_MIXED_FLEET: [Self; 4] =
        [Self::NeverRefreshed, Self::RefreshedTooLate, Self::EarlierDaemonOverlooked, Self::NotPushedAgain];
}
