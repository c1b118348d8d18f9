//! A model of the daemon before hosts vouched for their sessions, as far as others notice it.
//!
//! It pushes each heartbeat, together twice in a heartbeat interval, and everything else at once. It judges sessions of
//! others by the heartbeats that it read, whatever it knows of their hosts. Its store survives it, its connection does not.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use crate::domain::mirror::{Continuation, PullQuery};
use crate::domain::{ColumnTimes, MachineName, Session, Status, TimedSession, Timestamp};
use crate::simulation::setup::{INTERVALS, STALE_AFTER, now};
use crate::sync::central::{Batch, Central, CentralError, HostRegistration};
use crate::sync::fake_central::{FakeCentral, FakeLink};
use testkit::random::Random;

/// Heartbeats are pushed together after this time.
const PUSH_GAP: Duration = Duration::from_secs(15);

#[derive(Clone)]
struct OwnSession {
    session: Session,
    /// Central lacks its newest heartbeat.
    is_pending: bool,
    /// Central lacks more than its newest heartbeat.
    is_urgent: bool,
}

/// When each activity is due; none: at once.
#[derive(Default)]
struct Due {
    handshake: Option<Timestamp>,
    push: Option<Timestamp>,
    pull: Option<Timestamp>,
    sweep: Option<Timestamp>,
}

pub(super) struct EarlierDaemon {
    registration: HostRegistration,
    link: FakeLink,
    random: Random,
    is_connected: bool,
    batch: i64,
    own: BTreeMap<String, OwnSession>,
    mirror: BTreeMap<String, Session>,
    /// The transaction since which changes are read.
    since: u64,
    due: Due,
}

impl EarlierDaemon {
    /// `counts_as_later`: the planted bug, central takes it for a daemon that judges sessions by their hosts.
    pub(super) fn new(machine: MachineName, central: &FakeCentral, random: Random, counts_as_later: bool) -> Self {
        let (host_id, claim) = (Uuid::from_u128(1 << 70), Uuid::from_u128(1 << 71));
        Self {
            registration: HostRegistration {
                host_id,
                machine,
                claim,
                own_claims: vec![claim],
                acked_batch: 0,
                former_host_ids: Vec::new(),
                replace: false,
                version: "earlier",
                stale_after: STALE_AFTER,
            },
            link: if counts_as_later { central.connect() } else { central.connect_earlier_daemon() },
            random,
            is_connected: false,
            batch: 0,
            own: BTreeMap::new(),
            mirror: BTreeMap::new(),
            since: 0,
            due: Due::default(),
        }
    }

    /// It was killed, and is started: with a new claim, and without a connection.
    pub(super) fn restart(&mut self) {
        self.registration.claim = Uuid::from_u128(self.registration.claim.as_u128() + 1);
        self.registration.own_claims.push(self.registration.claim);
        self.is_connected = false;
        self.due = Due::default();
    }

    pub(super) fn register(&mut self, session: Session) {
        let own = OwnSession { session, is_pending: true, is_urgent: true };
        self.own.insert(own.session.instance_id.to_string(), own);
    }

    /// Its process was seen alive.
    pub(super) fn seen_alive(&mut self, id: &str, at: Timestamp) {
        if let Some(own) = self.own.get_mut(id).filter(|own| own.session.status != Status::Closed) {
            own.is_urgent |= own.session.status != Status::Active;
            own.session.status = Status::Active;
            own.session.last_heartbeat = at;
            own.is_pending = true;
        }
    }

    /// Its process ended.
    pub(super) fn process_ended(&mut self, id: &str) {
        if let Some(own) = self.own.get_mut(id).filter(|own| own.session.status == Status::Active) {
            own.session.status = Status::Stale;
            (own.is_pending, own.is_urgent) = (true, true);
        }
    }

    pub(super) fn close(&mut self, id: &str, at: Timestamp) {
        if let Some(own) = self.own.get_mut(id) {
            own.session.close(at);
            (own.is_pending, own.is_urgent) = (true, true);
        }
    }

    /// Its sessions that are recorded as active.
    pub(super) fn open_sessions(&self) -> Vec<String> {
        let open = self.own.iter().filter(|(_, own)| own.session.status == Status::Active);
        open.map(|(id, _)| id.clone()).collect()
    }

    /// What it shows as active.
    pub(super) fn shown_active(&self, at: Timestamp) -> impl Iterator<Item = String> {
        let all = self.own.values().map(|own| &own.session).chain(self.mirror.values());
        let active = all.filter(move |session| session.status_at(at, STALE_AFTER) == Status::Active);
        active.map(|session| session.instance_id.to_string())
    }

    pub(super) fn host_id(&self) -> Uuid {
        self.registration.host_id
    }

    /// Does what is due. Returns whether it shook hands with central.
    pub(super) fn sync(&mut self, at: Timestamp, is_cut_off: bool) -> bool {
        let was_connected = self.is_connected;
        if is_cut_off {
            self.is_connected = false;
        }
        if !is_cut_off {
            // Nothing but the network fails here.
            self.do_what_is_due(at).expect("central answers");
        } else if self.due.handshake.is_none_or(|due| due <= at) {
            let wait = self.random.below(INTERVALS.longest_wait.as_secs());
            self.due.handshake = Some(at.plus(Duration::from_secs(wait)));
        }
        self.is_connected && !was_connected
    }

    fn do_what_is_due(&mut self, at: Timestamp) -> Result<(), CentralError> {
        let is_due = |due: Option<Timestamp>| due.is_none_or(|due| due <= at);
        if !self.is_connected {
            if !is_due(self.due.handshake) {
                return Ok(());
            }
            self.batch = now(self.link.handshake(&self.registration))?.batch;
            self.registration.acked_batch = self.batch;
            (self.is_connected, self.due) = (true, Due::default());
        }
        if is_due(self.due.push) || self.own.values().any(|own| own.is_urgent) {
            self.push()?;
            self.due.push = Some(at.plus(PUSH_GAP));
        }
        if is_due(self.due.pull) {
            self.pull()?;
            self.due.pull = Some(at.plus(INTERVALS.pull_interval));
        }
        if is_due(self.due.sweep) {
            now(self.link.sweep(STALE_AFTER, INTERVALS.sweep_interval))?;
            self.due.sweep = Some(at.plus(INTERVALS.sweep_interval));
        }
        Ok(())
    }

    fn push(&mut self) -> Result<(), CentralError> {
        let pending = self.own.values().filter(|own| own.is_pending).map(|own| &own.session);
        let timed = |session: &Session| TimedSession {
            times: ColumnTimes::all(session.created_at),
            ..TimedSession::untimed(session.clone())
        };
        let sessions: Vec<_> = pending.map(timed).collect();
        let number = self.batch + 1;
        now(self.link.push(Batch { after: self.batch, number, sessions: &sessions, records: &[] }))?;
        (self.batch, self.registration.acked_batch) = (number, number);
        self.own.values_mut().for_each(|own| (own.is_pending, own.is_urgent) = (false, false));
        Ok(())
    }

    /// Reads everything that changed, page by page.
    fn pull(&mut self) -> Result<(), CentralError> {
        let mut query = PullQuery::since(self.since);
        loop {
            let page = now(self.link.pull(&query))?;
            for session in page.sessions.into_iter().filter(|row| !self.own.contains_key(row.instance_id.as_str())) {
                self.mirror.insert(session.instance_id.to_string(), session.session);
            }
            for gone in page.gone {
                self.mirror.remove(&gone.instance_id);
            }
            match page.rest {
                Continuation::More(position) => query.after = Some(position),
                Continuation::Restart => query = PullQuery::since(0),
                Continuation::Complete { next_since } => {
                    self.since = next_since;
                    return Ok(());
                }
            }
        }
    }
}
