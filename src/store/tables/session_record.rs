//! A session as this host keeps it, and how its shared columns are merged with central's.

use uuid::Uuid;

use crate::domain::Process;
use crate::domain::agent::{AgentName, conversation_key};
use crate::domain::session::fresh;
use crate::domain::{ColumnTimes, InstanceId, Session, SharedColumn, Status, TimedSession, Timestamp, WorkSummary};
use crate::store::op::Op;
use crate::store::tables::session_columns::{Change, ColumnChanges};

/// A session as this host keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The session.
    pub session: Session,
    /// Who registered it.
    pub owner_uid: u32,
    pub(crate) process: Option<Process>,
    /// Grows with every local change.
    pub version: i64,
    /// The newest version that central acknowledged; 0: none, so that all columns are offered.
    pub synced_version: i64,
    /// Which version changed each shared column, and when.
    pub columns: ColumnChanges,
    /// When the oldest change that central lacks was made.
    pub unsynced_since: Option<Timestamp>,
    /// It is mirrored: another host's session, as last read from central.
    pub mirrored: bool,
    /// When the daemon of its machine last spoke to central, for a mirrored session; never, for a machine without.
    pub machine_seen: Option<Timestamp>,
    /// The host whose daemon wrote it last in central, which vouches for it; none if another client did, and for a
    /// session of this host.
    pub(crate) vouched_by: Option<Uuid>,
    /// When that host last contacted central; none if it is not known, or if central has the session as not active.
    pub alive_as_of: Option<Timestamp>,
    /// When it was read from central because somebody asked for it; none if it is read ahead.
    pub read_at: Option<Timestamp>,
    /// The id under which this session was registered, where central's owner of that id was another.
    pub former_id: Option<String>,
    /// Its context window is nearly full, and it made no checkpoint since; set by a heartbeat only.
    pub checkpoint_due: bool,
    /// Active sessions that it may get in the way of; set by a heartbeat and a report only.
    pub conflicts: Vec<InstanceId>,
    /// What its agent does and works on; none if nothing was reported.
    pub work: Option<Box<WorkSummary>>,
}

impl Record {
    /// Its status now.
    pub(in crate::store) fn status_now(&self, op: &Op<'_>) -> Status {
        op.status(self.session.status, self.session.last_heartbeat, self.alive_as_of)
    }

    /// Which agent runs it. A conversation that was registered without naming its agent is Claude Code's.
    pub fn agent(&self) -> Option<AgentName> {
        let named = self.work.as_ref().and_then(|work| work.agent);
        named.or_else(|| self.session.claude_session_uuid.as_ref().map(|_| AgentName::ClaudeCode))
    }

    /// The key of its current conversation.
    pub(in crate::store) fn conversation(&self) -> Option<String> {
        let id = self.session.claude_session_uuid.as_deref()?;
        Some(conversation_key(self.agent()?, id))
    }

    /// A session that begins here.
    pub(in crate::store) fn begun(op: &Op<'_>, session: Session, process: Option<Process>) -> Self {
        Self {
            session,
            owner_uid: op.caller.uid,
            process,
            version: 1,
            synced_version: 0,
            columns: ColumnChanges::begun(op.now),
            unsynced_since: Some(op.now),
            mirrored: false,
            machine_seen: None,
            vouched_by: None,
            alive_as_of: None,
            read_at: None,
            former_id: None,
            checkpoint_due: false,
            conflicts: Vec::new(),
            work: None,
        }
    }

    /// The next version, which is about to be saved, changes this column. It is later than what was changed before, even
    /// where the clock was set back.
    pub(in crate::store) fn change_column(&mut self, column: SharedColumn, at: Timestamp) {
        let version = self.version + 1;
        let change = &mut self.columns.0[column as usize];
        let after_the_last = Timestamp::from_micros(change.at.micros().saturating_add(1));
        *change = Change { version, at: at.max(after_the_last) };
    }

    /// The next version changes the columns whose values differ from before.
    pub(in crate::store) fn change_columns_since(&mut self, before: &Session, at: Timestamp) {
        for column in SharedColumn::ALL {
            if column.differs(before, &self.session) {
                self.change_column(*column, at);
            }
        }
    }

    fn waits(&self, column: SharedColumn) -> bool {
        self.synced_version == 0 || self.columns.0[column as usize].version > self.synced_version
    }

    /// The columns that central lacks, and when they were changed.
    pub fn offered_columns(&self) -> ColumnTimes {
        let offered = SharedColumn::ALL.iter().filter(|column| self.waits(**column));
        offered.map(|column| (*column, self.columns.0[*column as usize].at)).collect()
    }

    /// Applies the columns that other clients changed in central. Says whether central lost some that it once acknowledged.
    ///
    /// A column that waits here is replaced by a later change only. Of one that does not wait, central's value counts; but
    /// when everything is read (`whole`), which may bring the past, again only a later one.
    pub(in crate::store) fn merge_columns(&mut self, central: &TimedSession, whole: bool) -> bool {
        let mut lost = false;
        for column in SharedColumn::ALL {
            if !column.differs(&self.session, central) {
                continue;
            }
            let waits = self.waits(*column);
            let known = &mut self.columns.0[*column as usize];
            let at = central.times.get(*column).unwrap_or(Timestamp::from_micros(i64::MIN));
            if at > known.at || !(waits || whole) {
                column.copy(central, &mut self.session);
                *known = Change { version: 0, at: at.max(known.at) };
            } else {
                lost |= !waits && at < known.at;
            }
        }
        lost
    }

    /// Applies a later heartbeat that another client sent to central, unless it is from before a process died here.
    pub(in crate::store) fn merge_heartbeat(&mut self, op: &Op<'_>, central: &Session) {
        let died = self.unsynced_since.is_some() && self.session.status == Status::Stale;
        let later = central.last_heartbeat > self.session.last_heartbeat;
        if later && !died && fresh(central.last_heartbeat, op.now, op.stale_after) {
            self.session.last_heartbeat = central.last_heartbeat;
            self.session.status = central.status;
        }
    }
}
