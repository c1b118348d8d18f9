//! Who judges sessions, and how that compares with the truth.

use std::collections::BTreeSet;
use std::ops::AddAssign;
use std::time::Duration;

use super::*;
use crate::domain::Status;
use crate::simulation::setup::{INTERVALS, STALE_AFTER};

/// How long the host of a session and a judge must have been in contact with central before a session that lives may not be
/// judged dead: the longest wait for a connection, a push, and a pull.
const SETTLES_WITHIN: Duration = Duration::from_secs(60);

/// How much later than stale_after a session may be judged active: its host notices within a heartbeat interval that
/// a client is silent, reports it within a second, and others read it within a pull interval. The rest is one step.
const NOTICED_WITHIN: Duration = Duration::from_secs(1 + STEP.unsigned_abs() / SECOND.unsigned_abs())
    .saturating_add(INTERVALS.heartbeat_interval)
    .saturating_add(INTERVALS.pull_interval);

/// What was compared.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub live: u64,
    pub dead: u64,
    pub compared: u64,
    /// Not compared, because the host of the session, or the judge, was not in contact with central.
    pub excused: u64,
}

/// One who judges sessions.
struct Judge {
    name: String,
    shows_active: BTreeSet<String>,
    in_contact_since: Option<Timestamp>,
}

impl Fleet {
    pub(super) fn compare_with_the_truth(&mut self) -> Result<(), Violation> {
        for judge in self.judges() {
            for session in self.sessions.values() {
                let tally = &mut self.tally;
                let shown = judge.shows_active.contains(session.id.as_str());
                let now = Timestamp::from_micros(self.true_time.load(Ordering::Relaxed));
                let host_contact = self.machines[session.machine].in_contact_since;
                let misjudged = match session.ended_at {
                    None => {
                        tally.live += 1;
                        let since = [Some(session.began_at), host_contact, judge.in_contact_since];
                        let is_settled =
                            since.iter().all(|since| since.is_some_and(|since| now.since(since) > SETTLES_WITHIN));
                        (if is_settled { &mut tally.compared } else { &mut tally.excused }).add_assign(1);
                        is_settled && !shown
                    }
                    Some(ended) => {
                        tally.dead += 1;
                        tally.compared += 1;
                        // A host that returns is alive again before it has reported what became of its sessions.
                        let returned = [host_contact, judge.in_contact_since].into_iter().flatten().max();
                        let known = returned.unwrap_or(ended).max(ended.plus(STALE_AFTER));
                        shown && now.since(known) > NOTICED_WITHIN
                    }
                };
                if misjudged {
                    let row = self.network.central.rows().into_iter().find(|row| row.instance_id == session.id);
                    let what = format!(
                        "{now:?}: {} shows {session:?} as active: {shown}; its host is in contact since \
                         {host_contact:?}, and the judge since {:?}; in central it is {row:?}",
                        judge.name, judge.in_contact_since
                    );
                    return Err(Violation { guarantee: "G9", what });
                }
            }
        }
        Ok(())
    }

    /// All that run.
    fn judges(&self) -> Vec<Judge> {
        let now = self.now();
        let mut judges = Vec::new();
        for host in self.hosts.iter().filter(|host| host.daemon.is_some()) {
            let shown = host.shown_active().into_iter().map(|record| record.session.instance_id.to_string());
            judges.push(Judge {
                name: format!("host {}", host.index),
                shows_active: shown.collect(),
                in_contact_since: self.machines[host.index].in_contact_since,
            });
        }
        if self.machines[EARLIER].power == Power::On {
            judges.push(Judge {
                name: "the earlier daemon".into(),
                shows_active: self.earlier.shown_active(now).collect(),
                in_contact_since: self.machines[EARLIER].in_contact_since,
            });
        }
        // As earlier clients judge rows.
        let is_active =
            |row: &crate::domain::Session| row.status == Status::Active && now.since(row.last_heartbeat) <= STALE_AFTER;
        let active = self.network.central.rows().into_iter().filter(is_active);
        judges.push(Judge {
            name: "a client without a daemon".into(),
            shows_active: active.map(|row| row.instance_id.to_string()).collect(),
            in_contact_since: Some(Timestamp::from_micros(0)),
        });
        judges
    }
}
