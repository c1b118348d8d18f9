//! Events of hosts: sleep, wrong clocks, crashes, full disks, bad networks, renames and copies.

use super::*;
use crate::simulation::command::Command;
use crate::sync::central::HostRegistration;

impl World {
    pub(super) fn suspend(&mut self, host: usize) -> Result<(), Violation> {
        let long = SECOND + self.below(8 * 60 * MINUTE as u64) as i64;
        self.log_event(format!("host {host} sleeps for {} s", long / SECOND));
        self.pass(long, Some(host));
        self.hosts[host].sync_now();
        self.nudges[host] += 1;
        self.check_processes(host)
    }

    pub(super) fn set_clock(&mut self, host: usize) {
        let wrong = [0, 0, DAY, -DAY, 90 * SECOND, -90 * SECOND, 10 * MINUTE, -10 * MINUTE];
        let offset = self.pick(&wrong).unwrap_or(0);
        self.log_event(format!("the clock of host {host} is off by {} s", offset / SECOND));
        self.hosts[host].offset.store(offset, Ordering::Relaxed);
    }

    /// A power cut and a restart: what was not committed is lost.
    pub(super) fn crash(&mut self, host: usize) -> Result<(), Violation> {
        self.log_event(format!("host {host} crashes"));
        self.hosts[host].daemon = None;
        self.restart(host)
    }

    pub(super) fn stop(&mut self, host: usize) -> Result<(), Violation> {
        self.log_event(format!("host {host} is stopped"));
        self.model.begin_group();
        let answered = self.hosts[host].stop();
        self.hosts[host].start();
        self.check_answers(host, answered)?;
        self.check_central()
    }

    pub(super) fn restart(&mut self, host: usize) -> Result<(), Violation> {
        self.nudges[host] += 1;
        self.hosts[host].start();
        self.check_store(host)
    }

    pub(super) fn change_link_quality(&mut self, host: usize) {
        let quality = self.pick(&[LinkQuality::Reliable, LinkQuality::Flaky, LinkQuality::Flaky, LinkQuality::Down]);
        self.log_event(format!("between host {host} and central: {quality:?}"));
        self.network.lock().quality[host] = quality.unwrap_or(LinkQuality::Reliable);
    }

    pub(super) fn change_disk(&mut self, host: usize) {
        if self.below(4) == 0 {
            return self.submit(host, Command::FailCommit);
        }
        let full = !self.hosts[host].full;
        self.set_full(host, full);
    }

    pub(super) fn set_full(&mut self, host: usize, full: bool) {
        self.log_event(format!("the disk of host {host} is full: {full}"));
        self.hosts[host].full = full;
        if let Some(daemon) = &self.hosts[host].daemon {
            daemon.replica.hand.lock().unwrap().set_full(full);
        }
    }

    pub(super) fn nudge(&mut self, host: usize) {
        match self.below(4) {
            0 => self.submit(host, Command::RetryParked),
            1 => self.submit(host, Command::DropParked),
            _ => {
                self.nudges[host] += 1;
                self.hosts[host].sync_now();
            }
        }
    }

    /// Another host takes over the name, or a copy of the state folder is started.
    pub(super) fn take_name(&mut self, host: usize) {
        let identity = self.hosts[host].identity.lock().unwrap().clone();
        let number = Uuid::from_u128(u128::from(self.random.next()) | 1 << 100);
        let copy = self.below(3) == 0;
        let rival = rival(if copy { identity.host_id } else { number }, identity.name.clone(), number);
        if now(self.network.central.connect().handshake(&rival)).is_ok() {
            self.log_event(format!("{} is now host {}", rival.machine, rival.host_id));
            self.copied |= copy;
            if copy {
                self.network.note_contact(host);
            }
            self.network.lock().rivals.insert(rival.machine.to_string(), number);
        }
    }

    /// An operator renames the host, or has it take its name back.
    pub(super) fn change_identity(&mut self, host: usize) {
        let copied = self.copied;
        if self.hosts[host].daemon.is_none() {
            return;
        }
        // No second rename while the store has not recorded the first.
        let filed = self.hosts[host].is_filed();
        if copied || !filed || self.below(2) == 0 {
            self.log_event(format!("host {host} has to replace its rival"));
            self.hosts[host].identity.lock().unwrap().replace = true;
        } else {
            self.drawn += 1;
            let name = MachineName::parse(&format!("laptop{}", self.drawn)).unwrap();
            let host_id = Uuid::from_u128(1 << 90 | u128::from(self.drawn));
            let at = self.hosts[host].now();
            self.hosts[host].identity.lock().unwrap().rename(name.clone(), host_id, at);
            self.submit(host, Command::FileUnder { name });
        }
        self.nudges[host] += 1;
        self.hosts[host].reconnect();
    }

    pub(super) fn sync(&mut self, host: usize) -> Result<(), Violation> {
        let most = self.below(16);
        for _ in 0..most {
            if !self.hosts[host].sync() {
                break;
            }
            if self.below(3) == 0 {
                self.commit(host)?;
            }
        }
        self.check_central()
    }
}

/// Another host that takes over a name.
pub(super) fn rival(host_id: Uuid, machine: MachineName, claim: Uuid) -> HostRegistration {
    HostRegistration {
        host_id,
        machine,
        claim,
        own_claims: vec![claim],
        acked_batch: 0,
        former_host_ids: Vec::new(),
        replace: true,
        version: "rival",
        stale_after: STALE_AFTER,
    }
}
