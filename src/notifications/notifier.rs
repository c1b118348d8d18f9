//! The notifier's loop: makes changes pending, and sends what is due.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};

use super::channel;
use super::pending::{MAX_PENDING, Pending, PendingSet};
use crate::clock::Clock;
use crate::config::{Channel, NotifyRule, NotifySettings};
use crate::domain::notification::{MAX_AGE, Occasion, Transition};
use crate::domain::{LinkState, LinkStatus, MachineName, Status, Timestamp};
use crate::platform::local_time;
use crate::shutdown::Shutdown;
use crate::store::{Filter, Lookup, OpContext, PinnedIdentity, Record, Store, StoreError};
use crate::sync::leases::Leases;
use crate::wire::{ChannelTestBody, NotificationBody};

/// The lease of the host that sends notifications about other machines' sessions.
const FLEET: &str = "fleet";
/// How long a lease is kept after the notification was sent.
const SENT: Duration = Duration::from_secs(7 * 86_400);
/// How long a host may take for one attempt.
const ATTEMPT: Duration = Duration::from_secs(60);
/// How many requests for a lease a connected central may leave unanswered.
const MAX_UNANSWERED: u32 = 3;
/// How often another host may have the lease before it is assumed to have sent the notification.
const MAX_REFUSED: u32 = 2;
/// How many notifications are sent at the same time.
const AT_ONCE: usize = 8;
/// How many changed sessions are read at once.
const PAGE: usize = 1000;
/// The longest time between two checks of limits and leases.
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// How soon after an unanswered request the leases of what was sent without central are requested again.
const SHARE_AGAIN: Duration = Duration::from_millis(250);

/// What the notifier uses of the daemon.
pub struct NotifierParts {
    /// Whose changes are followed.
    pub store: Store,
    /// This host's name.
    pub identity: Arc<PinnedIdentity>,
    /// The time.
    pub clock: Clock,
    /// `[notify]`, as the last reload left it.
    pub settings: watch::Receiver<NotifySettings>,
    /// A session without a heartbeat for this long is stale.
    pub stale_after: Box<dyn Fn() -> Duration + Send + Sync>,
    /// The state of the link to central.
    pub link: watch::Receiver<LinkStatus>,
    /// Leases in central.
    pub leases: Leases,
    /// The desktops that are connected.
    pub desktop: broadcast::Sender<NotificationBody>,
    /// Requests for a test.
    pub tests: mpsc::Receiver<TestRequest>,
    /// Ends the notifier.
    pub shutdown: Shutdown,
}

/// A request to send a test to all channels; the answer has the result of each.
pub type TestRequest = oneshot::Sender<Vec<ChannelTestBody>>;

/// What became of an attempt.
struct Attempt {
    key: String,
    channel: &'static str,
    outcome: Result<(), String>,
}

/// The state of the loop.
pub struct Notifier {
    parts: NotifierParts,
    settings: NotifySettings,
    pending: PendingSet,
    /// The newest change that was checked.
    seen: u64,
    /// This host has the lease for other machines' sessions.
    has_fleet: bool,
    /// Since when central is connected, as far as it was noticed.
    connected_since: Option<Timestamp>,
    /// The keys of what was sent while central was not connected.
    unshared: BTreeSet<String>,
    at_once: Arc<Semaphore>,
    attempts: mpsc::UnboundedSender<Attempt>,
    ended: mpsc::UnboundedReceiver<Attempt>,
}

/// What ends a wait.
enum Event {
    Changed,
    Due,
    Ended(Attempt),
    /// The state of the link to central changed.
    Link,
    Settings,
    Test(TestRequest),
    Shutdown,
}

impl Notifier {
    /// A notifier that has checked nothing yet.
    pub fn new(mut parts: NotifierParts) -> Self {
        let settings = parts.settings.borrow_and_update().clone();
        let (attempts, ended) = mpsc::unbounded_channel();
        Self {
            parts,
            settings,
            pending: PendingSet::default(),
            seen: 0,
            has_fleet: false,
            connected_since: None,
            unshared: BTreeSet::new(),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            attempts,
            ended,
        }
    }

    /// Runs until shutdown.
    pub async fn run(mut self) {
        self.follow_link();
        self.check_all().await;
        let mut next_check = self.now();
        loop {
            match self.next_event(next_check).await {
                Event::Changed => self.check_changes().await,
                Event::Due => {}
                // What was sent without central is shared at once, before other hosts may send it.
                Event::Link => {
                    if self.follow_link() {
                        next_check = self.now();
                    }
                }
                Event::Ended(attempt) => self.attempt_ended(attempt).await,
                Event::Settings => {
                    self.settings = self.parts.settings.borrow_and_update().clone();
                    self.pending.clear();
                    self.check_all().await;
                }
                Event::Test(reply) => {
                    let test = Transition::test(self.this(), self.now());
                    let (rules, desktop) = (self.settings.rules.clone(), self.parts.desktop.clone());
                    // A slow channel must not delay what is due.
                    tokio::spawn(async move { reply.send(channel::test(&rules, &test, &desktop).await) });
                }
                Event::Shutdown => return,
            }
            if self.settings.rules.is_empty() {
                continue;
            }
            next_check = next_check.min(self.now().plus(self.next_check_in()));
            if next_check <= self.now() {
                self.check_limits_and_leases().await;
                next_check = self.now().plus(self.next_check_in());
            }
            self.send_due().await;
        }
    }

    fn now(&self) -> Timestamp {
        (self.parts.clock)()
    }

    fn this(&self) -> MachineName {
        self.parts.identity.current().name
    }

    fn context(&self) -> OpContext {
        OpContext::of_daemon(self.now(), (self.parts.stale_after)())
    }

    /// How long other hosts leave a notification to the session's own daemon.
    fn grace(&self) -> Duration {
        (self.parts.stale_after)() / 4
    }

    fn check_interval(&self) -> Duration {
        MAX_CHECK_INTERVAL.min((self.parts.stale_after)() / 8)
    }

    /// How long until limits and leases are checked again: soon while other hosts may repeat what was sent without central.
    fn next_check_in(&self) -> Duration {
        let others_wait = self.connected_since.is_some_and(|since| self.now().since(since) < self.grace());
        if others_wait && !self.unshared.is_empty() { SHARE_AGAIN } else { self.check_interval() }
    }

    async fn next_event(&mut self, next_check: Timestamp) -> Event {
        let has_rules = !self.settings.rules.is_empty();
        let due = self.pending.next_due().map_or(next_check, |due| due.min(next_check));
        // A clock that was set back must not make this wait for hours.
        let wait = due.since(self.now()).min(MAX_CHECK_INTERVAL);
        let mut newest = self.parts.store.changes().newest();
        let (seen, parts) = (self.seen, &mut self.parts);
        tokio::select! {
            _ = newest.wait_for(|newest| *newest != seen), if has_rules => Event::Changed,
            () = tokio::time::sleep(wait), if has_rules => Event::Due,
            Some(attempt) = self.ended.recv() => Event::Ended(attempt),
            Ok(()) = parts.link.changed(), if has_rules => Event::Link,
            Ok(()) = parts.settings.changed() => Event::Settings,
            Some(reply) = parts.tests.recv() => Event::Test(reply),
            () = parts.shutdown.requested() => Event::Shutdown,
        }
    }

    /// Checks all sessions, as after a start.
    async fn check_all(&mut self) {
        if self.settings.rules.is_empty() {
            return;
        }
        self.seen = *self.parts.store.changes().newest().borrow();
        for status in [Status::Active, Status::Stale] {
            let filter = Filter { status: Some(status), ..Filter::default() };
            let mut after = None;
            loop {
                let page = match self.parts.store.page(filter.clone(), PAGE, after.take(), self.context()).await {
                    Ok(page) => page,
                    Err(error) => return tracing::warn!(%error, "sessions cannot be read for notifications"),
                };
                for record in &page.records {
                    self.check(record).await;
                }
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
    }

    async fn check_changes(&mut self) {
        match self.parts.store.changed_after(self.seen, PAGE).await {
            Ok(Some((covered, records))) => {
                self.seen += covered;
                for (_, record) in &records {
                    self.check(record).await;
                }
            }
            // Too much has changed to be remembered.
            Ok(None) => self.check_all().await,
            Err(error) => {
                tracing::warn!(%error, "changed sessions cannot be read for notifications");
                self.seen = *self.parts.store.changes().newest().borrow();
            }
        }
    }

    async fn check(&mut self, record: &Record) {
        // What was read because somebody asked for it turns stale by its age alone.
        if record.read_at.is_some() {
            return;
        }
        if let Some(transition) = transition(record) {
            self.add(&transition, !record.mirrored);
        }
        if !record.mirrored && self.has_rule(Occasion::Conflict) {
            let others = self.parts.store.conflicts(record.clone(), self.context()).await.unwrap_or_default();
            for other in others {
                let conflict = Transition::conflict(&record.session, record.work.as_deref(), &other, self.now());
                self.add(&conflict, true);
            }
        }
    }

    fn has_rule(&self, occasion: Occasion) -> bool {
        self.settings.rules.iter().any(|rule| rule.filter.on.contains(&occasion))
    }

    /// Makes it pending for each rule that matches.
    fn add(&mut self, transition: &Transition, is_own: bool) {
        let now = self.now();
        let until = transition.since.plus(MAX_AGE).plus((self.parts.stale_after)());
        if until <= now {
            return;
        }
        let grace = if is_own { Duration::ZERO } else { self.grace() };
        for rule in &self.settings.rules {
            if !rule.filter.matches(transition) {
                continue;
            }
            let delay = if transition.occasion == Occasion::Waiting { rule.delay } else { Duration::ZERO };
            let pending = Pending {
                transition: transition.clone(),
                channel: rule.channel.clone(),
                is_own,
                // Other hosts wait from when they see it: it may have begun during an outage of central.
                due: transition.since.plus(delay).max(now).plus(grace),
                until,
                failures: 0,
                unanswered: 0,
                refused: 0,
                in_flight: false,
            };
            let key = transition.key_for(&rule.channel.identity());
            if !self.pending.add(key, pending) {
                tracing::warn!("too many notifications are pending; one is dropped");
            }
        }
    }

    /// Checks limits, which no change of a session announces, and renews leases.
    async fn check_limits_and_leases(&mut self) {
        self.pending.expire(self.now());
        // First, because other hosts wait for it for a limited time.
        if !self.unshared.is_empty() {
            let names = self.unshared.iter().take(100).cloned().collect();
            if self.take_leases(names, SENT).await.is_some() {
                self.unshared = self.unshared.iter().skip(100).cloned().collect();
            }
        }
        if self.has_rule(Occasion::Limit) {
            let limits = self.parts.store.limits(self.this(), self.context()).await.unwrap_or_default();
            for machine in &limits {
                for transition in Transition::of_limits(machine, self.now()) {
                    self.add(&transition, machine.is_local);
                }
            }
        }
        let this = self.this();
        if self.settings.rules.iter().any(|rule| rule.filter.covers_others(&this)) {
            let taken = self.take_leases(vec![FLEET.to_owned()], self.check_interval() * 3).await;
            self.has_fleet = taken.is_some_and(|taken| !taken.is_empty());
        }
        let forgotten = self.now().minus(SENT);
        if let Err(error) = self.parts.store.forget_notified(forgotten).await {
            tracing::debug!(%error, "old notifications cannot be forgotten; trying again later");
        }
    }

    /// Records since when central is connected. Returns whether it was disconnected before.
    fn follow_link(&mut self) -> bool {
        let was_connected = self.connected_since.is_some();
        self.connected_since = self.is_connected().then(|| self.connected_since.unwrap_or_else(|| self.now()));
        !was_connected && self.connected_since.is_some()
    }

    /// Whether stale sessions of other hosts are reported: after an outage of central the first hosts that reconnect turn
    /// the sessions of the others stale until these reconnect too.
    fn may_report_others(&self) -> bool {
        self.connected_since.is_some_and(|since| self.now().since(since) >= (self.parts.stale_after)())
    }

    fn is_connected(&self) -> bool {
        self.parts.link.borrow().state == LinkState::Connected
    }

    /// Takes leases; `None` if central cannot be asked, or is lost before it answers.
    async fn take_leases(&self, names: Vec<String>, length: Duration) -> Option<Vec<String>> {
        let mut link = self.parts.link.clone();
        tokio::select! {
            biased;
            _ = link.wait_for(|link| link.state != LinkState::Connected) => None,
            taken = self.parts.leases.take(names, length) => taken,
        }
    }

    async fn send_due(&mut self) {
        for key in self.pending.due(self.now()) {
            let Some(pending) = self.pending.get_mut(&key).cloned() else { continue };
            match self.decide(&key, &pending).await {
                Ok(Decision::Send) => self.send(&key, &pending),
                Ok(Decision::Drop) => self.pending.remove(&key),
                Ok(Decision::Wait(wait)) => self.wait(&key, wait),
                Ok(Decision::Unanswered) => {
                    self.wait(&key, self.check_interval());
                    self.count(&key, |pending| pending.unanswered += 1);
                }
                Ok(Decision::Refused) => {
                    self.wait(&key, ATTEMPT);
                    self.count(&key, |pending| pending.refused += 1);
                }
                Err(error) => {
                    tracing::warn!(%error, "the store cannot be read for a notification; trying again");
                    self.wait(&key, MAX_CHECK_INTERVAL);
                }
            }
        }
    }

    fn count(&mut self, key: &str, add: impl FnOnce(&mut Pending)) {
        if let Some(pending) = self.pending.get_mut(key) {
            add(pending);
        }
    }

    fn wait(&mut self, key: &str, wait: Duration) {
        let due = self.now().plus(wait.max(Duration::from_millis(100)));
        if let Some(pending) = self.pending.get_mut(key) {
            pending.due = due;
        }
    }

    /// What to do about something that is due.
    async fn decide(&self, key: &str, pending: &Pending) -> Result<Decision, StoreError> {
        let applies = |rule: &NotifyRule| rule.channel == pending.channel && rule.filter.matches(&pending.transition);
        if !self.settings.rules.iter().any(applies) {
            return Ok(Decision::Drop);
        }
        if self.parts.store.is_notified(key.to_owned()).await? || !self.still_holds(&pending.transition).await? {
            return Ok(Decision::Drop);
        }
        let minute = local_time::minute_of_day(self.now().micros().div_euclid(1_000_000));
        if let Some(left) = self.settings.quiet_hours.and_then(|quiet| quiet.left(minute)) {
            return Ok(Decision::Wait(left.min(MAX_CHECK_INTERVAL)));
        }
        if pending.channel == Channel::Desktop && self.parts.desktop.receiver_count() == 0 {
            return Ok(Decision::Wait(self.check_interval()));
        }
        let is_early = pending.transition.occasion == Occasion::Stale && !self.may_report_others();
        if !pending.is_own && (!self.has_fleet || is_early) {
            return Ok(Decision::Wait(self.check_interval()));
        }
        // Another host sends it, or has sent it. If it was killed before, its lease has expired by the next attempt.
        if pending.refused >= MAX_REFUSED {
            return Ok(Decision::Wait(MAX_AGE));
        }
        Ok(match self.take_leases(vec![key.to_owned()], ATTEMPT).await {
            Some(taken) if !taken.is_empty() => Decision::Send,
            Some(_) => Decision::Refused,
            // Without central, or with one that does not answer, a host sends what is about its own sessions.
            None if pending.is_own && (!self.is_connected() || pending.unanswered >= MAX_UNANSWERED) => Decision::Send,
            None => Decision::Unanswered,
        })
    }

    async fn still_holds(&self, known: &Transition) -> Result<bool, StoreError> {
        let (Some(id), Occasion::Waiting | Occasion::Failed | Occasion::Stale) = (&known.instance_id, known.occasion)
        else {
            return Ok(true);
        };
        Ok(match self.parts.store.find(id.to_string()).await? {
            Lookup::One(record) => transition(&record).is_some_and(|now| now.is_same(known)),
            Lookup::Several(_) | Lookup::None => false,
        })
    }

    fn send(&mut self, key: &str, pending: &Pending) {
        let channel = pending.channel.clone();
        if let Some(pending) = self.pending.get_mut(key) {
            pending.in_flight = true;
        }
        let notification = NotificationBody::of(&pending.transition);
        let (key, desktop) = (key.to_owned(), self.parts.desktop.clone());
        let (attempts, at_once) = (self.attempts.clone(), self.at_once.clone());
        tokio::spawn(async move {
            let _permit = at_once.acquire().await;
            let outcome = channel::send(&channel, &notification, &key, &desktop).await;
            let _ = attempts.send(Attempt { key, channel: channel.kind(), outcome });
        });
    }

    async fn attempt_ended(&mut self, attempt: Attempt) {
        let Attempt { key, channel, outcome } = attempt;
        let now = self.now();
        match outcome {
            Ok(()) => {
                self.pending.remove(&key);
                if let Err(error) = self.parts.store.record_notified(key.clone(), now).await {
                    tracing::warn!(%error, "a sent notification cannot be recorded; it may be sent again after a restart");
                }
                let has_central = self.parts.link.borrow().state != LinkState::Off;
                let is_shared = self.take_leases(vec![key.clone()], SENT).await.is_some();
                if has_central && !is_shared && self.unshared.len() < MAX_PENDING {
                    self.unshared.insert(key);
                }
            }
            Err(error) => {
                let Some(pending) = self.pending.get_mut(&key) else { return };
                pending.failed(now);
                let retry = pending.due < pending.until;
                tracing::warn!(channel, %error, retry, "a notification could not be delivered");
                if !retry {
                    self.pending.remove(&key);
                }
            }
        }
    }
}

/// What to do about something that is due.
enum Decision {
    Send,
    Drop,
    Wait(Duration),
    /// Central did not answer the request for the lease.
    Unanswered,
    /// Another host has the lease.
    Refused,
}

/// The transition that a session is in, by its recorded status, which the daemon and central's sweep keep up to date.
fn transition(record: &Record) -> Option<Transition> {
    Transition::of_session(&record.session, record.work.as_deref(), record.session.status)
}
