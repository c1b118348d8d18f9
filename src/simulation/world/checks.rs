//! The checks after each step, and at the end.

use super::*;
use crate::domain::SessionWork;
use crate::simulation::model::{ExpectedSession, WRITTEN};
use crate::store::{Parked, ParkedRecord};
use crate::sync::fake_central::FakeRow;

impl World {
    pub(super) fn check_store(&mut self, host: usize) -> Result<(), Violation> {
        let Some(daemon) = &self.hosts[host].daemon else { return Ok(()) };
        let hand = daemon.replica.hand.lock().unwrap();
        // What `HeartbeatsInMemory` has not written is missed only after a crash.
        if !daemon.unwritten.is_empty() || (self.network.has(Bug::AckBeforeCommit) && daemon.has_waiting()) {
            return Ok(());
        }
        if let Some(what) = hand.miscounted_usage() {
            return Err(Violation { guarantee: "G6", what });
        }
        self.model.check_store(host, |id| hand.get(id.as_str()))?;
        // Central always has the table, so events that it does not accept are backlog.
        let (unsynced, counted) = (hand.unsynced_events(), hand.backlog().unwrap().records_of[0]);
        if unsynced != counted {
            let what = format!("host {host} has {unsynced} unsynced events, and its backlog says {counted}");
            return Err(Violation { guarantee: "G2", what });
        }
        Ok(())
    }

    /// G9: a session whose process runs is not stale on its own host, once that has checked its processes.
    pub(super) fn check_liveness(&self, host: usize) -> Result<(), Violation> {
        for record in self.hosts[host].records() {
            let runs = record.process.is_some_and(|process| self.hosts[host].runs(process));
            if runs && record.session.status == Status::Stale {
                let what = format!("{:?} runs, but is stale", record.session);
                return Err(Violation { guarantee: "G9", what });
            }
        }
        Ok(())
    }

    /// G9: no host shows a session as active for longer than stale_after after the last contact of the session's own host.
    pub(super) fn check_vouching(&self) -> Result<(), Violation> {
        let contacts = self.network.lock().contacts;
        for viewer in self.hosts.iter().filter(|host| host.offset.load(Ordering::Relaxed) == 0) {
            let now = viewer.now();
            let is_recent = |at: Timestamp| now.since(at).max(at.since(now)) < STALE_AFTER;
            for record in viewer.shown_active().into_iter().filter(|record| record.mirrored) {
                let session = &record.session;
                let Some(expected) = self.model.sessions.get(&session.created_at) else { continue };
                if !is_recent(session.last_heartbeat) && !is_recent(contacts[expected.host]) {
                    let what = format!(
                        "host {} shows {session:?} as active, alive as of {:?}, but its host {} was last in contact at {:?}",
                        viewer.index, record.alive_as_of, expected.host, contacts[expected.host]
                    );
                    return Err(Violation { guarantee: "G9", what });
                }
            }
        }
        Ok(())
    }

    pub(super) fn check_central(&mut self) -> Result<(), Violation> {
        if let Some(violation) = self.network.lock().violations.pop() {
            return Err(violation);
        }
        let now = self.now();
        let rows: BTreeMap<_, _> =
            self.network.central.rows().into_iter().map(|row| (row.instance_id.to_string(), row)).collect();
        for (id, foreign) in &self.foreign_rows {
            let untouched = |row: &Session| Session { status: foreign.status, ..row.clone() } == *foreign;
            if !rows.get(id).is_some_and(untouched) {
                let what = format!("the row of another client {foreign:?} became {:?}", rows.get(id));
                return Err(Violation { guarantee: "G4", what });
            }
        }
        for (id, row) in rows.iter().filter(|(id, _)| !self.foreign_rows.contains_key(*id)) {
            let before = self.rows.get(id).filter(|before| before.created_at == row.created_at);
            if before != Some(row) {
                self.network.log_event(format!("central: {row:?}"));
                self.model.check_row(row, before, now)?;
            }
        }
        self.rows = rows;
        self.check_order()
    }

    /// G2: events are written once and in order.
    fn check_order(&self) -> Result<(), Violation> {
        self.network.central.with_history(|history| {
            let numbers = history.all().map(|(id, rows)| (id, numbers(rows)));
            match numbers.into_iter().find(|(_, numbers)| !numbers.is_sorted_by(|a, b| a < b)) {
                None => Ok(()),
                Some((id, numbers)) => {
                    Err(Violation { guarantee: "G2", what: format!("the events of {id} are {numbers:?}") })
                }
            }
        })
    }

    /// G5, G6: central is not called more often than the intervals and the backoff allow.
    pub(super) fn check_calls(&self) -> Result<(), Violation> {
        let net = self.network.lock();
        for host in &self.hosts {
            let seconds = host.uptime.load(Ordering::Relaxed) / SECOND as u64;
            let most = BURST + CALLS_A_SECOND * seconds + 5 * self.nudges[host.index];
            let calls = u64::from(net.calls[host.index]);
            if calls > most {
                let what = format!("host {} called central {calls} times, at most {most} are allowed", host.index);
                return Err(Violation { guarantee: "G6", what });
            }
        }
        Ok(())
    }

    /// The mirror of every host has the sessions of others that are in its scope as central has them, and no others.
    pub(super) fn compare_mirrors(&self) -> Result<(), Violation> {
        for host in &self.hosts {
            let Some(daemon) = &host.daemon else { continue };
            let scope = host.scope();
            let is_in_scope =
                |session: &Session| scope.includes(&session.project) || session.host_machine == host.name();
            for row in self.foreign_rows.values().filter(|row| !is_in_scope(row)) {
                let kept = daemon.replica.hand.lock().unwrap().get(row.instance_id.as_str());
                let is_read_ahead = |kept: &Record| kept.mirrored && kept.read_at.is_none();
                let kept = kept.filter(|kept| is_read_ahead(kept) && kept.session.created_at == row.created_at);
                if let Some(kept) = kept {
                    let what = format!("host {} has {:?}, out of its scope {scope}", host.index, kept.session);
                    return Err(Violation { guarantee: "mirror", what });
                }
            }
            let others = |row: &&Session| {
                let is_foreign = self.foreign_rows.contains_key(row.instance_id.as_str());
                let expected = self.model.sessions.get(&row.created_at);
                is_in_scope(row) && (is_foreign || expected.is_some_and(|expected| expected.host != host.index))
            };
            for row in self.rows.values().filter(others) {
                let mirrored = daemon.replica.hand.lock().unwrap().mirrored(row.instance_id.as_str());
                // A heartbeat alone is read by no other host.
                let is_foreign = self.foreign_rows.contains_key(row.instance_id.as_str());
                let is_as_read = |mirrored: &Session| {
                    let last_heartbeat = if is_foreign { mirrored.last_heartbeat } else { row.last_heartbeat };
                    Session { last_heartbeat, ..mirrored.clone() } == *row
                };
                if !mirrored.as_ref().is_some_and(is_as_read) {
                    let what = format!("host {} has {row:?} as {mirrored:?}", host.index);
                    return Err(Violation { guarantee: "mirror", what });
                }
                self.compare_work(host, &row.instance_id).map_err(|what| Violation { guarantee: "mirror", what })?;
            }
        }
        Ok(())
    }

    /// G2: central has what a host has pruned.
    fn compare_pruned(&self) -> Result<(), Violation> {
        // What was pruned is not pushed again after a restore; a copy with another id does not count.
        if self.restored || self.copied {
            return Ok(());
        }
        let kept: Vec<_> =
            self.hosts.iter().flat_map(SimHost::records).map(|record| record.session.created_at).collect();
        for (key, expected) in
            self.model.sessions.iter().filter(|(key, expected)| !kept.contains(key) && !expected.dropped)
        {
            let Some(row) = self.rows.values().find(|row| row.created_at == *key) else { continue };
            let events = numbers(&self.network.central.history(row.instance_id.as_str()));
            if events != expected.events {
                let what = format!("was pruned with events {:?}, in central {events:?}", expected.events);
                return Err(violation("G2", expected, &what));
            }
        }
        Ok(())
    }

    /// G2, G7: central has what the hosts have, and nothing is parked without a reason.
    pub(super) fn compare(&mut self) -> Result<(), Violation> {
        self.compare_pruned()?;
        for host in &self.hosts {
            let Some(daemon) = &host.daemon else { continue };
            let parked = daemon.replica.hand.lock().unwrap().parked();
            for record in host.records() {
                let session = &record.session;
                let expected = &self.model.sessions[&session.created_at];
                let of_session = parked.iter().filter(|parked| parked.instance_id == session.instance_id);
                let is_parked = self.check_parked(expected, session, of_session)?;
                if !is_parked && !expected.dropped {
                    self.compare_session(host, expected, session)?;
                }
            }
        }
        Ok(())
    }

    /// G7: what is parked of a session has a reason. Returns whether the session itself is.
    fn check_parked<'a>(
        &self,
        expected: &ExpectedSession,
        session: &Session,
        parked: impl Iterator<Item = &'a Parked>,
    ) -> Result<bool, Violation> {
        let is_odd = |record: &ParkedRecord| record.record_type == REJECTED_EVENT;
        let (records, itself): (Vec<_>, Vec<_>) = parked.partition(|parked| parked.record.is_some());
        if !expected.dropped && !records.iter().all(|parked| parked.record.as_ref().is_some_and(is_odd)) {
            return Err(violation("G7", expected, &format!("has records parked without a reason: {records:?}")));
        }
        let Some(parked) = itself.first() else { return Ok(false) };
        let is_rejected = self.rejected.contains(&session.instance_id);
        let is_copy = (self.copied || self.restored) && parked.error.starts_with("it belongs to machine");
        match is_rejected || is_copy {
            true => Ok(true),
            false => Err(violation("G7", expected, &format!("is parked without a reason: {}", parked.error))),
        }
    }

    /// G2: central has a session, its events and its newest values.
    fn compare_session(&self, host: &SimHost, expected: &ExpectedSession, session: &Session) -> Result<(), Violation> {
        let Some(row) = self.rows.get(session.instance_id.as_str()) else {
            return Err(violation("G2", expected, "is not in central"));
        };
        if (&row.host_machine, row.created_at) != (&host.name(), session.created_at) {
            return Err(violation("G2", expected, &format!("is in central as {row:?}")));
        }
        let events = numbers(&self.network.central.history(session.instance_id.as_str()));
        if events != expected.events {
            let what = format!("has events {:?}, in central {events:?}", expected.events);
            return Err(violation("G2", expected, &what));
        }
        let has = SessionState::of(row);
        for column in WRITTEN {
            let latest = expected.latest(column).filter(|_| !expected.odd && !self.restored);
            if column.differs(session, row) || latest.is_some_and(|latest| !latest.agrees(column, &has)) {
                let what = format!("has {} as in {session:?}, in central {row:?}", column.name());
                return Err(violation("G2", expected, &what));
            }
        }
        if !expected.fits(&has) {
            return Err(violation("G2", expected, &format!("is in central as {row:?}")));
        }
        self.compare_work(host, &session.instance_id).map_err(|what| violation("G2", expected, &what))
    }

    /// Central has the work of a session as this host has it. Its time is not compared: central cuts times of its future.
    fn compare_work(&self, host: &SimHost, id: &InstanceId) -> Result<(), String> {
        let Some(daemon) = &host.daemon else { return Ok(()) };
        let of =
            |work: Option<SessionWork>| work.map(|work| SessionWork { recorded_at: Timestamp::from_micros(0), ..work });
        let here = of(daemon.replica.hand.lock().unwrap().work(id));
        let there = of(self.network.central.work(id.as_str()));
        if here == there { Ok(()) } else { Err(format!("host {} has {here:?} of {id}, central {there:?}", host.index)) }
    }
}

/// The numbers of a session's events.
fn numbers(rows: &[FakeRow]) -> Vec<u64> {
    rows.iter().filter_map(|row| row.record.body["data"]["number"].as_u64()).collect()
}
