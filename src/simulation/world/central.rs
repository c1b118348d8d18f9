//! Events in central: faults, backups and restores, and changes by clients without a daemon.

use super::*;
use crate::domain::on_demand::Question;

impl World {
    pub(super) fn reject_or_accept(&mut self) {
        if let Some(id) = self.rejected.pop() {
            self.log_event(format!("central accepts {id} again"));
            return self.network.central.accept(id.as_str());
        }
        let host = self.below(HOSTS as u64) as usize;
        let Some((_, id)) = self.any_session(host) else { return };
        self.log_event(format!("central rejects {id}"));
        self.network.central.reject(id.as_str());
        self.rejected.push(id);
    }

    /// An idle transaction locks a row, a right is revoked, a column is added; or one of these faults ends.
    pub(super) fn change_central(&mut self) {
        match self.below(6) {
            0 => {
                let Some(row) = self.some_row() else { return };
                self.log_event(format!("{} is locked in central", row.instance_id));
                self.network.central.lock_row(row.instance_id.as_str());
            }
            1 => {
                self.log_event("no row is locked in central".into());
                self.network.central.unlock_rows();
            }
            2 => self.set_events(TableState::Forbidden(vec!["INSERT on event_store".into()])),
            3 => self.set_events(TableState::Usable),
            4 => self.break_sessions(Some("a column has no value (23502)")),
            _ => self.break_sessions(None),
        }
    }

    pub(super) fn set_events(&mut self, state: TableState) {
        self.log_event(format!("events in central: {state:?}"));
        self.network.central.with_history(|history| history.tables.events = state);
    }

    pub(super) fn break_sessions(&mut self, why: Option<&str>) {
        self.log_event(format!("central accepts no sessions because of: {why:?}"));
        let rejection = why.map(|why| Rejection { code: "23502".into(), message: why.into() });
        self.network.central.break_sessions(rejection);
    }

    pub(super) fn turn_read_only(&mut self) {
        self.read_only = !self.read_only;
        self.log_event(format!("central is read-only: {}", self.read_only));
        self.network.central.set_read_only(self.read_only);
    }

    pub(super) fn back_up_or_restore(&mut self) -> Result<(), Violation> {
        if self.backups.is_empty() || (self.backups.len() < 3 && self.below(2) == 0) {
            if self.below(2) == 0 {
                self.delete_and_restore();
                self.check_central()?;
            }
            self.log_event("central is backed up".into());
            let rivals = self.network.lock().rivals.clone();
            let tables = self.network.central.snapshot();
            self.backups.push(Backup { tables, foreign_rows: self.foreign_rows.clone(), rivals });
            return Ok(());
        }
        let which = self.below(self.backups.len() as u64) as usize;
        let Backup { tables, foreign_rows, rivals } = self.backups.swap_remove(which);
        self.log_event(format!("central is restored from backup {which}"));
        self.restored = true;
        let known = self.network.central.transaction();
        match self.below(3) {
            0 => self.network.central.restore(tables),
            // Into another cluster, which numbers its transactions lower or higher.
            1 => self.network.central.restore_elsewhere(tables, 1 + self.random.below(known)),
            _ => self.network.central.restore_elsewhere(tables, known + 1000),
        }
        self.foreign_rows = foreign_rows;
        self.network.lock().rivals = rivals;
        self.rows.clear();
        self.model.sessions.values_mut().for_each(|expected| expected.in_central = 0);
        self.check_central()
    }

    /// A client without a daemon changes something.
    pub(super) fn foreign_client(&mut self) -> Result<(), Violation> {
        match self.below(6) {
            0 => self.collide(),
            1 => self.close_elsewhere(),
            2 => self.delete_and_restore(),
            3 => self.network.central.hold_a_transaction(self.random.below(2) == 0),
            _ => self.edit_elsewhere(),
        }
        self.check_central()
    }

    pub(super) fn collide(&mut self) {
        let rows = &self.rows;
        let free = self.model.sessions.values().filter(|t| !rows.contains_key(t.id.as_str())).map(|t| t.id.clone());
        let free = free.collect::<Vec<_>>();
        let Some(id) = self.pick(&free).filter(|id| !self.rows.contains_key(id.as_str())) else { return };
        self.log_event(format!("a client without a daemon has a session {id} too"));
        let foreign =
            Session { created_at: self.now().plus(Duration::from_micros(1)), ..foreign_session(id, self.now()) };
        self.network.central.put(&foreign);
        self.foreign_rows.insert(foreign.instance_id.to_string(), foreign);
    }

    /// A client deletes its session and inserts it again.
    pub(super) fn delete_and_restore(&mut self) {
        let foreign_rows: Vec<_> = self.foreign_rows.values().cloned().collect();
        let foreign = self.pick(&foreign_rows).unwrap_or_else(|| {
            self.drawn += 1;
            let id = InstanceId::parse(&format!("odin-PS-w{:05}", self.drawn)).unwrap();
            foreign_session(id, self.now())
        });
        self.foreign_rows.insert(foreign.instance_id.to_string(), foreign.clone());
        self.network.central.put(&foreign);
        self.log_event(format!("{} is deleted and inserted again", foreign.instance_id));
        self.network.central.delete(foreign.instance_id.as_str());
        self.network.central.put(&foreign);
    }

    pub(super) fn some_row(&mut self) -> Option<Session> {
        let ours: Vec<_> =
            self.rows.values().filter(|r| !self.foreign_rows.contains_key(r.instance_id.as_str())).collect();
        let index = self.random.below(ours.len() as u64) as usize;
        ours.get(index).map(|row| (*row).clone())
    }

    pub(super) fn close_elsewhere(&mut self) {
        let Some(row) = self.some_row().filter(|row| row.status != Status::Closed) else { return };
        self.log_event(format!("{} is closed in central", row.instance_id));
        self.network.central.close(row.instance_id.as_str());
        let is_row = |other: &Session| other.instance_id == row.instance_id;
        let Some(closed_at) = self.network.central.rows().into_iter().find(is_row).and_then(|row| row.closed_at) else {
            return;
        };
        if let Some(expected) = self.model.sessions.get_mut(&row.created_at) {
            expected.closed_elsewhere.insert(closed_at);
        }
    }

    /// Another client sends a heartbeat to central, or changes one column there.
    pub(super) fn edit_elsewhere(&mut self) {
        let Some(row) = self.some_row().filter(|row| row.status != Status::Closed) else { return };
        let mut edited = row.clone();
        match self.below(3) {
            0 => {
                let ahead = if self.below(4) == 0 { 60 * MINUTE } else { 0 };
                let at = self.now().plus(Duration::from_micros(ahead as u64));
                edited.last_heartbeat = at.max(row.last_heartbeat);
                edited.context_percent = self.below(101) as u8;
                edited.status = Status::Active;
            }
            1 => edited.context_percent = self.below(101) as u8,
            _ => edited.current_epic = Some(format!("theirs-{}", self.below(1000))),
        }
        self.log_event(format!("another client makes {row:?} {edited:?}"));
        self.network.central.edit(row.instance_id.as_str(), |session| session.clone_from(&edited));
        let at = self.now();
        if let Some(expected) = self.model.sessions.get_mut(&row.created_at) {
            expected.edited(&row, &edited, at);
        }
    }

    /// A client moves its session to another project, or somebody asks for sessions that may be out of scope.
    pub(super) fn move_or_ask(&mut self) -> Result<(), Violation> {
        let foreign_rows: Vec<_> = self.foreign_rows.values().cloned().collect();
        let Some(mut row) = self.pick(&foreign_rows) else { return Ok(()) };
        if self.below(2) == 0 {
            let question = match self.below(2) {
                0 => Question::Id(row.instance_id.to_string()),
                _ => Question::Project { project: row.project, closed_since: None },
            };
            self.log_event(format!("host 1 asks central: {question:?}"));
            self.hosts[1].ask(question);
            return Ok(());
        }
        let project = ["odin", "web", "api"][self.below(3) as usize];
        row.project = Project::parse(project).unwrap();
        self.log_event(format!("{} moves to {project}", row.instance_id));
        self.network.central.edit(row.instance_id.as_str(), |session| session.project = row.project.clone());
        self.foreign_rows.insert(row.instance_id.to_string(), row);
        self.check_central()
    }

    pub(super) fn late_batch(&mut self) -> Result<(), Violation> {
        self.network.deliver_late_batch();
        self.check_central()
    }
}

/// A session of a client without a daemon.
pub(super) fn foreign_session(instance_id: InstanceId, at: Timestamp) -> Session {
    Session {
        instance_id,
        project: Project::parse("odin").unwrap(),
        instance_type: InstanceType::Ps,
        status: Status::Active,
        context_percent: 50,
        current_epic: None,
        last_heartbeat: at,
        created_at: at,
        closed_at: None,
        host_machine: MachineName::parse("odin9").unwrap(),
        claude_session_uuid: None,
        claude_session_path: None,
        resumed_from: None,
        working_dir: None,
    }
}
