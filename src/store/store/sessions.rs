//! Sessions: what clients, agents and the liveness check do to them, and lists of them.

use rusqlite::Connection;

use crate::domain::Process;
use crate::domain::limits::MachineLimits;
use crate::domain::work::WorkUpdate;
use crate::domain::{Heartbeat, InstanceId, MachineName, SessionWork, Timestamp};
use crate::store::error::StoreError;
use crate::store::op::{Op, OpContext};
use crate::store::ops;
use crate::store::ops::agent_candidates::ReceivedReport;
use crate::store::ops::agent_reports::ReportResult;
use crate::store::ops::idempotency::{Once, RequestKey};
use crate::store::ops::lifecycle::NewSession;
use crate::store::ops::lookup::{Counts, Filter, Lookup};
use crate::store::ops::machines::KnownMachine;
use crate::store::ops::resume::{NewOwner, ResumeTarget, Resumption};
use crate::store::ops::retention::PrunePlace;
use crate::store::ops::session_page::{Cursor, SessionPage};
use crate::store::ops::spooled_writes::{Import, Imported};
use crate::store::ops::{
    agent_reports, conflicts, idempotency, lifecycle, lookup, machines, promised_ids, rate_limits, resume, retention,
    session_page, spooled_writes, user_limits,
};
use crate::store::sqlite::turns;
use crate::store::store::Store;
use crate::store::tables;
use crate::store::tables::session_record::Record;
use crate::store::tables::sessions;

impl Store {
    /// Registers a session, unless the same agent has registered it from the same process before.
    pub async fn register(&self, session: NewSession, context: OpContext) -> Result<Record, StoreError> {
        let attempt = || {
            let session = session.clone();
            self.write_limited(context, move |op| lifecycle::register_unless_known(op, session))
        };
        let record = self.with_room(attempt).await?;
        self.announce_process(&record);
        Ok(record)
    }

    /// Registers a session unless that was done under the same key before. `answer`: what the client is answered, as
    /// JSON, to be repeated.
    pub async fn register_once(
        &self,
        key: RequestKey,
        session: NewSession,
        context: OpContext,
        answer: impl FnOnce(&Record) -> String + Clone + Send + 'static,
    ) -> Result<Once<Record, String>, StoreError> {
        let attempt = || {
            let (key, session, answer) = (key.clone(), session.clone(), answer.clone());
            let work = |op: &Op<'_>| lifecycle::register_unless_known(op, session);
            self.write_limited(context, move |op| idempotency::register(op, &key, work, answer))
        };
        let registered = self.with_room(attempt).await?;
        if let Once::First(record) = &registered {
            self.announce_process(record);
        }
        Ok(registered)
    }

    fn announce_process(&self, record: &Record) {
        if let Some(process) = record.process {
            self.processes.add(&record.session.instance_id, process);
        }
    }

    /// Resumes the session that `wanted` describes. Of two who resume a session at once only one gets it.
    pub async fn resume(
        &self,
        wanted: ResumeTarget,
        owner: NewOwner,
        context: OpContext,
    ) -> Result<Resumption, StoreError> {
        let resumption = self.write_limited(context, move |op| resume::resume(op, &wanted, owner)).await?;
        if let Resumption::Done(resumed) = &resumption {
            self.announce_process(&resumed.session);
        }
        Ok(resumption)
    }

    /// Records a heartbeat.
    pub async fn heartbeat(&self, id: String, beat: Heartbeat, context: OpContext) -> Result<Record, StoreError> {
        let urgent = self.urgent.clone();
        self.writer
            .submit_atomic(move |db| {
                let (record, is_urgent) = lifecycle::heartbeat(&Op::new(db, context), &id, &beat)?;
                if is_urgent {
                    urgent.write();
                }
                Ok(record)
            })
            .await
    }

    /// Applies an agent's report: it begins, continues or ends a session.
    pub async fn report_agent(&self, received: ReceivedReport, context: OpContext) -> Result<ReportResult, StoreError> {
        let attempt = || {
            let (received, limits, urgent) = (received.clone(), self.user_limits, self.urgent.clone());
            let apply = move |op: &Op<'_>| {
                let result = agent_reports::apply_report(op, received)?;
                if result.is_urgent {
                    urgent.write();
                }
                Ok(result)
            };
            self.writer.submit(move |db| user_limits::limited(limits.as_ref(), &Op::new(db, context), apply))
        };
        let sighted = self.with_room(attempt).await?;
        if sighted.process_changed {
            self.announce_process(&sighted.record);
        }
        Ok(sighted)
    }

    /// What the session with this id does and works on; `None` if nothing was reported.
    pub async fn work(&self, id: InstanceId) -> Result<Option<SessionWork>, StoreError> {
        self.read(move |db| Ok(tables::session_work::shared(db, &id)?.map(|(work, _)| work))).await
    }

    /// Records what a client states of a session's work.
    pub async fn record_work(
        &self,
        id: String,
        update: WorkUpdate,
        context: OpContext,
    ) -> Result<SessionWork, StoreError> {
        let attempt = || {
            let (id, update) = (id.clone(), update.clone());
            self.write_limited(context, move |op| ops::session_work::record(op, &id, &update))
        };
        self.with_room(attempt).await
    }

    /// Applies spooled requests, each once however often it is offered, in one transaction.
    ///
    /// # Errors
    /// The store can apply none of them now. What is wrong with a single request is in its own result.
    pub async fn import(&self, imports: Vec<Import>) -> Result<Vec<Imported>, StoreError> {
        let brings_process = imports.iter().any(|import| import.deferred.brings_process());
        let limits = self.user_limits;
        let imported = self.write(move |db| spooled_writes::import(db, imports, limits.as_ref())).await?;
        if brings_process {
            self.processes.add_others();
        }
        Ok(imported)
    }

    /// Forgets the names of spool files that are deleted on disk.
    pub async fn forget_imported(&self, names: Vec<String>) -> Result<(), StoreError> {
        for part in turns::parts(names) {
            self.writer.submit(move |db| spooled_writes::forget(db, &part)).await?;
        }
        Ok(())
    }

    pub(crate) async fn close(&self, id: String, context: OpContext) -> Result<Record, StoreError> {
        self.write_op(context, move |op| lifecycle::close(op, &id)).await
    }

    pub(crate) async fn seen_alive(&self, ids: Vec<InstanceId>, context: OpContext) -> Result<(), StoreError> {
        let mut parts = turns::parts(ids);
        let mut part = parts.next().unwrap_or_default();
        loop {
            self.write_op(context, move |op| lifecycle::seen_alive(op, &part)).await?;
            match parts.next() {
                Some(next) => part = next,
                None => return Ok(()),
            }
        }
    }

    pub(crate) async fn process_died(
        &self,
        id: InstanceId,
        process: Process,
        context: OpContext,
    ) -> Result<bool, StoreError> {
        let is_stale = self.write_op(context, move |op| lifecycle::process_died(op, &id, process)).await?;
        if !is_stale {
            // Another process may run the session.
            self.processes.add_others();
        }
        Ok(is_stale)
    }

    pub(crate) async fn sweep(&self, context: OpContext) -> Result<usize, StoreError> {
        let mut swept = 0;
        loop {
            let turn = self.write_op(context, |op| lifecycle::mark_silent_stale(op, turns::ROWS)).await?;
            swept += turn;
            if turn < turns::ROWS {
                return Ok(swept);
            }
        }
    }

    /// Closes headless sessions that have been stale since then.
    pub async fn close_headless(&self, silent_since: Timestamp, context: OpContext) -> Result<usize, StoreError> {
        let mut closed = 0;
        let mut place = Some(i64::MIN);
        while let Some(from) = place {
            let urgent = self.urgent.clone();
            let work = move |db: &Connection| {
                let turn = retention::close_headless(&Op::new(db, context), silent_since, from)?;
                if turn.closed > 0 {
                    urgent.write();
                }
                Ok(turn)
            };
            let turn = self.writer.submit(work).await?;
            closed += turn.closed;
            place = turn.next;
        }
        Ok(closed)
    }

    /// Lets go of sessions that were closed before then and that central has, a bounded turn after the other.
    /// Returns how many.
    pub async fn prune(&self, closed_before: Timestamp) -> Result<usize, StoreError> {
        let mut pruned = 0;
        let mut place = Some(PrunePlace::FIRST);
        while let Some(from) = place {
            let turn = self.writer.submit(move |db| retention::turn(db, closed_before, from)).await?;
            pruned += turn.pruned;
            place = turn.next;
        }
        Ok(pruned)
    }

    /// The rate limits of all machines of which any are known, this one first.
    pub async fn limits(&self, this: MachineName, context: OpContext) -> Result<Vec<MachineLimits>, StoreError> {
        self.read_op(context, move |op| rate_limits::list(op, &this)).await
    }

    /// Deletes rate limits that have not been observed for long.
    pub async fn expire_limits(&self, now: Timestamp) -> Result<(), StoreError> {
        if self.read(move |db| rate_limits::any_expired(db, now)).await? {
            self.writer.submit(move |db| rate_limits::delete_expired(db, now)).await?;
        }
        Ok(())
    }

    /// Deletes promised ids that have expired, a bounded turn after the other.
    pub async fn expire_promises(&self, at: Timestamp) -> Result<(), StoreError> {
        if self.read(move |db| promised_ids::any_expired(db, at)).await? {
            while self.writer.submit(move |db| promised_ids::delete_expired(db, at)).await? {}
        }
        Ok(())
    }

    pub(crate) async fn watched(&self) -> Result<Vec<(InstanceId, Process)>, StoreError> {
        self.read(sessions::watched).await
    }

    pub(crate) async fn find(&self, text: String) -> Result<Lookup, StoreError> {
        self.read(move |db| lookup::find(db, &text)).await
    }

    /// Up to [`MAX_CONFLICTS`](conflicts::MAX_CONFLICTS) active sessions that this one may get in the way of.
    pub async fn conflicts(&self, record: Record, context: OpContext) -> Result<Vec<InstanceId>, StoreError> {
        self.read_op(context, move |op| conflicts::of(op, &record)).await
    }

    pub(crate) async fn list(&self, filter: Filter, context: OpContext) -> Result<Vec<Record>, StoreError> {
        // In pieces, so that no read keeps SQLite from restarting its log for long.
        let mut records = Vec::new();
        let mut after_row = Some(i64::MIN);
        while let Some(after) = after_row {
            let filter = filter.clone();
            let piece = self.read_op(context, move |op| lookup::list_piece(op, &filter, after)).await?;
            records.extend(piece.records);
            after_row = piece.next;
        }
        lookup::in_order(&mut records);
        Ok(records)
    }

    /// A page of such a list; see `session_page`.
    pub async fn page(
        &self,
        filter: Filter,
        limit: usize,
        after: Option<Cursor>,
        context: OpContext,
    ) -> Result<SessionPage, StoreError> {
        self.read_op(context, move |op| session_page::read(op, &filter, limit, after.clone())).await
    }

    pub(crate) async fn counts(&self, context: OpContext) -> Result<Counts, StoreError> {
        self.read_op(context, lookup::counts).await
    }

    pub(crate) async fn machines(
        &self,
        this: MachineName,
        context: OpContext,
    ) -> Result<Vec<KnownMachine>, StoreError> {
        self.read_op(context, move |op| machines::list(op, &this)).await
    }

    /// The sessions that changed after change number `seen`, as they are now, each with the number of its change,
    /// and how many changes that covers; none if it is too long ago.
    pub async fn changed_after(
        &self,
        seen: u64,
        limit: usize,
    ) -> Result<Option<(u64, Vec<(u64, Record)>)>, StoreError> {
        let Some(rows) = self.changes.after(seen, limit) else { return Ok(None) };
        let covered = rows.len() as u64;
        let numbered: Vec<_> = (seen + 1..).zip(rows).collect();
        let records = self.read(move |db| sessions::in_rows(db, &numbered)).await?;
        Ok(Some((covered, records)))
    }

    /// Files this host's sessions under its name; those of a former name move along. Returns how many moved.
    pub async fn set_machine_name(&self, name: MachineName, at: Timestamp) -> Result<usize, StoreError> {
        let mut moved = 0;
        let mut place = Some(i64::MIN);
        while let Some(from) = place {
            let name = name.clone();
            let turn = self.write(move |db| machines::set_machine_name(db, &name, from, at)).await?;
            moved += turn.moved;
            place = turn.next;
        }
        Ok(moved)
    }
}
