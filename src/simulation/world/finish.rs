//! The end of a run: all faults are repaired, and hosts and central have to agree.

use super::*;
use crate::domain::MirrorScope;
use crate::simulation::command::Command;

impl World {
    /// Repairs all faults, syncs all hosts, and compares them with central.
    pub(crate) fn finish(&mut self) -> Result<(), Violation> {
        self.log_event("all faults are repaired".into());
        self.repair_everything()?;
        self.send_some_heartbeats()?;
        self.others_pass_a_locked_row()?;
        self.sync_until_empty()?;
        self.compare()?;
        while !self.network.lock().late_batches.is_empty() {
            self.late_batch()?;
        }
        self.sync_until_empty()?;
        self.compare()?;
        self.cross_a_scope()?;
        self.run_until_idle()?;
        self.compare_mirrors()?;
        self.check_quiet_pulls()?;
        self.compare_mirrors()?;
        self.a_host_dies()
    }

    /// G9: a host dies after a heartbeat of its sessions, and perhaps another takes its name over. Nobody shows its sessions as
    /// active for longer than stale_after after that.
    fn a_host_dies(&mut self) -> Result<(), Violation> {
        let dead = self.below(HOSTS as u64) as usize;
        let mut is_taken_over = self.below(2) == 0;
        self.log_event(format!("host {dead} dies"));
        let of_host = self.model.sessions.iter().filter(|(_, expected)| expected.host == dead);
        let alive: Vec<_> = of_host.map(|(key, expected)| (*key, expected.id.clone())).collect();
        for (key, id) in alive {
            let beat = Heartbeat { context_percent: Some(1), ..Heartbeat::default() };
            self.submit(dead, Command::Heartbeat { key, id, beat });
        }
        self.commit(dead)?;
        for _ in 0..2 {
            self.pass(20 * SECOND, None);
            (0..HOSTS).try_for_each(|host| self.sync_until_waiting(host))?;
        }
        self.hosts[dead].daemon = None;
        let contact = self.network.lock().contacts[dead];
        for _ in 0..36 {
            self.pass(5 * SECOND, None);
            // Before a sweep can have turned its sessions stale.
            if self.now().since(contact) >= STALE_AFTER && std::mem::take(&mut is_taken_over) {
                let number = Uuid::from_u128(u128::from(self.random.next()) | 1 << 101);
                let rival = hosts::rival(number, self.hosts[dead].name(), number);
                _ = now(self.network.central.connect().handshake(&rival));
            }
            for host in (0..HOSTS).filter(|host| *host != dead) {
                self.sync_until_waiting(host)?;
            }
            self.check_vouching()?;
        }
        Ok(())
    }

    /// Where a host reads some projects ahead, a session enters its scope and leaves it again.
    fn cross_a_scope(&mut self) -> Result<(), Violation> {
        let MirrorScope::Projects(projects) = self.hosts[1].scope() else { return Ok(()) };
        self.delete_and_restore();
        let Some(mut row) = self.foreign_rows.values().next().cloned() else { return Ok(()) };
        for project in [projects[0].clone(), Project::parse("api").unwrap()] {
            self.log_event(format!("{} moves to {project}", row.instance_id));
            row.project = project;
            self.network.central.edit(row.instance_id.as_str(), |session| session.project = row.project.clone());
            self.foreign_rows.insert(row.instance_id.to_string(), row.clone());
            self.check_central()?;
            self.run_until_idle()?;
        }
        Ok(())
    }

    /// If nothing changed, a pull reads, writes and announces nothing; and pulling everything again announces nothing.
    fn check_quiet_pulls(&mut self) -> Result<(), Violation> {
        for host in 0..HOSTS {
            // The mirror's time is written once a minute; this makes it due.
            self.pass(MINUTE, None);
            let is_quiet =
                |before: &MirrorCost, after: &MirrorCost| MirrorCost { pulls: before.pulls, ..*after } == *before;
            if let Some((before, after)) = self.pull_until(host, Self::pull_once, is_quiet)? {
                let what = format!("a pull of host {host} changed {before:?} to {after:?}");
                return Err(Violation { guarantee: "mirror", what });
            }
            // The first one may still find sessions that this host has pruned.
            let announces_nothing = |first: &MirrorCost, again: &MirrorCost| first.announced == again.announced;
            if let Some((first, again)) = self.pull_until(host, Self::pull_everything, announces_nothing)? {
                let what = format!("reading everything again, host {host} announced changes: {first:?}, {again:?}");
                return Err(Violation { guarantee: "mirror", what });
            }
        }
        Ok(())
    }

    /// Pulls until one pull costs as little as `is_fine` says compared with the one before, at most three times: beside
    /// one of them a parked row may be retried, which is announced too. Returns the last two costs if none was fine.
    fn pull_until(
        &mut self,
        host: usize,
        pull: fn(&mut Self, usize) -> Result<MirrorCost, Violation>,
        is_fine: impl Fn(&MirrorCost, &MirrorCost) -> bool,
    ) -> Result<Option<(MirrorCost, MirrorCost)>, Violation> {
        let mut before = pull(self, host)?;
        let mut last = None;
        for _ in 0..2 {
            let after = pull(self, host)?;
            if is_fine(&before, &after) {
                return Ok(None);
            }
            last = Some((before, after));
            before = after;
        }
        Ok(last)
    }

    /// Lets a host read everything.
    fn pull_everything(&mut self, host: usize) -> Result<MirrorCost, Violation> {
        self.hosts[host].reset_mirror_position();
        self.pull_once(host)
    }

    /// Lets a host pull. Returns the cost of its pulls so far.
    fn pull_once(&mut self, host: usize) -> Result<MirrorCost, Violation> {
        let pulls = |world: &Self| world.hosts[host].mirror_cost().map_or(0, |cost| cost.pulls);
        let before = pulls(self);
        for _ in 0..20 {
            self.pass(INTERVALS.pull_interval.as_micros() as i64, None);
            self.sync_until_waiting(host)?;
            if pulls(self) > before {
                break;
            }
        }
        let cost = self.hosts[host].mirror_cost().filter(|cost| cost.pulls > before);
        cost.ok_or_else(|| Violation { guarantee: "mirror", what: format!("host {host} does not pull") })
    }

    /// Syncs all hosts until every change has been pulled.
    fn run_until_idle(&mut self) -> Result<(), Violation> {
        for _ in 0..4 {
            self.pass(INTERVALS.sweep_interval.as_micros() as i64, None);
            (0..HOSTS).try_for_each(|host| self.sync_until_waiting(host))?;
        }
        Ok(())
    }

    pub(super) fn repair_everything(&mut self) -> Result<(), Violation> {
        self.read_only = false;
        self.network.central.set_read_only(false);
        self.network.central.hold_a_transaction(false);
        self.network.central.unlock_rows();
        self.set_events(TableState::Usable);
        self.break_sessions(None);
        self.network.lock().quality = [LinkQuality::Reliable; HOSTS];
        while self.rejected.len() > 1 {
            self.reject_or_accept();
        }
        for host in 0..HOSTS {
            self.set_full(host, false);
            self.hosts[host].offset.store(0, Ordering::Relaxed);
            if self.hosts[host].daemon.is_none() {
                self.restart(host)?;
            }
            // An operator's request comes when the host is not in the middle of an action.
            self.sync_until_waiting(host)?;
            let name = self.hosts[host].name();
            if self.network.lock().rivals.contains_key(name.as_str()) {
                self.change_identity(host);
            }
            self.commit(host)?;
            self.submit(host, Command::FileUnder { name: self.hosts[host].name() });
            // Rows that are being rejected are parked first.
            self.sync_until_waiting(host)?;
            self.submit(host, Command::RetryParked);
            self.commit(host)?;
        }
        Ok(())
    }

    /// Some sessions send a heartbeat, the others are silent from here on.
    pub(super) fn send_some_heartbeats(&mut self) -> Result<(), Violation> {
        self.pass(3 * MINUTE, None);
        let sessions: Vec<_> =
            self.model.sessions.iter().map(|(key, expected)| (*key, expected.id.clone(), expected.host)).collect();
        for (key, id, host) in sessions {
            if self.below(3) > 0 {
                let beat = Heartbeat { context_percent: Some(self.below(101) as u8), ..Heartbeat::default() };
                self.submit(host, Command::Heartbeat { key, id, beat });
            }
        }
        (0..HOSTS).try_for_each(|host| self.commit(host))
    }

    /// G7: while another transaction has a row locked, all other sessions reach central.
    fn others_pass_a_locked_row(&mut self) -> Result<(), Violation> {
        let rows = &self.rows;
        let waits: Vec<_> = self.waiting().into_iter().filter(|id| rows.contains_key(id)).collect();
        let Some(locked) = self.pick(&waits) else { return Ok(()) };
        self.log_event(format!("{locked} is locked in central"));
        self.network.central.lock_row(&locked);
        let mut others = Vec::new();
        for _ in 0..60 {
            self.pass(20 * SECOND, None);
            (0..HOSTS).try_for_each(|host| self.sync_until_waiting(host))?;
            others = self.waiting();
            others.retain(|id| *id != locked);
            if others.is_empty() {
                break;
            }
        }
        self.network.central.unlock_rows();
        if others.is_empty() {
            return Ok(());
        }
        Err(Violation { guarantee: "G7", what: format!("{others:?} wait because {locked} is locked") })
    }

    /// The unsynced sessions that are not parked.
    fn waiting(&self) -> Vec<String> {
        let mut waiting = Vec::new();
        for host in self.hosts.iter().filter_map(|host| host.daemon.as_ref().map(|daemon| (host, daemon))) {
            let parked = host.1.replica.hand.lock().unwrap().parked();
            let is_parked = |id: &InstanceId| parked.iter().any(|p| p.record.is_none() && p.instance_id == *id);
            let records = host.0.records().into_iter().filter(|record| record.unsynced_since.is_some());
            let ids = records.map(|record| record.session.instance_id).filter(|id| !is_parked(id));
            waiting.extend(ids.map(|id| id.to_string()));
        }
        waiting
    }

    pub(super) fn sync_until_empty(&mut self) -> Result<(), Violation> {
        for round in 0..60 {
            let short = 10 * SECOND + self.below(25 * SECOND as u64) as i64;
            self.pass(short, None);
            for host in 0..HOSTS {
                if round % 3 == 0 {
                    self.check_processes(host)?;
                }
                self.sync_until_waiting(host)?;
            }
            self.check_calls()?;
            if round > 3 && self.hosts.iter().all(|host| backlog(host) == 0) {
                return self.sync_heartbeats();
            }
        }
        let left: Vec<_> = self.hosts.iter().map(backlog).collect();
        Err(Violation { guarantee: "G2", what: format!("these many sessions never reached central: {left:?}") })
    }

    /// Syncs all hosts until central has the newest heartbeats: they are pushed once central's are too old.
    fn sync_heartbeats(&mut self) -> Result<(), Violation> {
        for _ in 0..6 {
            self.pass(15 * SECOND, None);
            (0..HOSTS).try_for_each(|host| self.sync_until_waiting(host))?;
        }
        Ok(())
    }

    pub(super) fn sync_until_waiting(&mut self, host: usize) -> Result<(), Violation> {
        for _ in 0..400 {
            let progressed = self.hosts[host].sync();
            self.commit(host)?;
            if !progressed {
                return self.check_central();
            }
        }
        Err(Violation { guarantee: "G6", what: format!("host {host} never waits") })
    }
}

fn backlog(host: &SimHost) -> u64 {
    let backlog = host.daemon.as_ref().map(|daemon| daemon.replica.hand.lock().unwrap().backlog().unwrap());
    backlog.map_or(0, |backlog| backlog.sessions + backlog.records)
}
