//! The notifier's loop: what changed becomes pending, what is due is told.

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

/// The lease of the host that tells of other machines' sessions.
const FLEET: &str = "fleet";
/// How long others are kept from telling what was told.
const TOLD: Duration = Duration::from_secs(7 * 86_400);
/// How long a host may take for one attempt.
const ATTEMPT: Duration = Duration::from_secs(60);
/// How often a connected central may leave the question of whose turn it is unanswered.
const PATIENCE: u32 = 3;
/// How many channels are told at the same time.
const AT_ONCE: usize = 8;
/// How many changed sessions are read at once.
const PAGE: usize = 1000;
/// The longest time between two looks at limits and leases.
const LONGEST_TURN: Duration = Duration::from_secs(10);

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

/// A request to tell all channels of a test; the answer says what became of it.
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
    /// The newest change that was looked at.
    seen: u64,
    /// This host has the lease to tell of other machines' sessions.
    has_fleet: bool,
    /// Since when central is connected, as far as it was noticed.
    connected_since: Option<Timestamp>,
    /// What was told while central was not connected.
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
    /// A notifier that has seen nothing yet.
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
        self.look_at_all().await;
        let mut next_turn = self.now();
        loop {
            match self.next_event(next_turn).await {
                Event::Changed => self.look_at_changes().await,
                Event::Due => {}
                // What was told without central is shared at once, before others learn of it.
                Event::Link => {
                    if self.follow_link() {
                        next_turn = self.now();
                    }
                }
                Event::Ended(attempt) => self.attempt_ended(attempt).await,
                Event::Settings => {
                    self.settings = self.parts.settings.borrow_and_update().clone();
                    self.pending.clear();
                    self.look_at_all().await;
                }
                Event::Test(reply) => drop(reply.send(self.test().await)),
                Event::Shutdown => return,
            }
            if self.settings.rules.is_empty() {
                continue;
            }
            if next_turn <= self.now() {
                self.turn().await;
                next_turn = self.now().plus(self.turn_length());
            }
            self.tell_due().await;
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

    /// How long the sessions' own daemon comes first.
    fn grace(&self) -> Duration {
        (self.parts.stale_after)() / 4
    }

    fn turn_length(&self) -> Duration {
        LONGEST_TURN.min((self.parts.stale_after)() / 8)
    }

    async fn next_event(&mut self, next_turn: Timestamp) -> Event {
        let has_rules = !self.settings.rules.is_empty();
        let due = self.pending.next_due().map_or(next_turn, |due| due.min(next_turn));
        // A clock that was set back must not make this wait for hours.
        let wait = due.since(self.now()).min(LONGEST_TURN);
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

    /// Looks at all sessions, as after a start.
    async fn look_at_all(&mut self) {
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
                    self.look_at(record).await;
                }
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
    }

    async fn look_at_changes(&mut self) {
        match self.parts.store.changed_after(self.seen, PAGE).await {
            Ok(Some((covered, records))) => {
                self.seen += covered;
                for (_, record) in &records {
                    self.look_at(record).await;
                }
            }
            // Too much has changed to be remembered.
            Ok(None) => self.look_at_all().await,
            Err(error) => {
                tracing::warn!(%error, "changed sessions cannot be read for notifications");
                self.seen = *self.parts.store.changes().newest().borrow();
            }
        }
    }

    async fn look_at(&mut self, record: &Record) {
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
        for (number, rule) in self.settings.rules.iter().enumerate() {
            if !rule.filter.matches(transition) {
                continue;
            }
            let delay = if transition.occasion == Occasion::Waiting { rule.delay } else { Duration::ZERO };
            let pending = Pending {
                transition: transition.clone(),
                rule: number,
                is_own,
                // Others wait from when they learn of it: it may have begun while they were without central.
                due: transition.since.plus(delay).max(now).plus(grace),
                until,
                failures: 0,
                unanswered: 0,
                in_flight: false,
            };
            let key = transition.key_for(&rule.channel.identity());
            if !self.pending.add(key, pending) {
                tracing::warn!("too many notifications are pending; one is dropped");
            }
        }
    }

    /// What is not announced by changes of sessions: limits, and leases.
    async fn turn(&mut self) {
        self.pending.expire(self.now());
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
            let taken = self.take(vec![FLEET.to_owned()], self.turn_length() * 3).await;
            self.has_fleet = taken.is_some_and(|taken| !taken.is_empty());
        }
        if !self.unshared.is_empty() {
            let names = self.unshared.iter().take(100).cloned().collect();
            if self.take(names, TOLD).await.is_some() {
                self.unshared = self.unshared.iter().skip(100).cloned().collect();
            }
        }
        let forgotten = self.now().minus(TOLD);
        if let Err(error) = self.parts.store.forget_notified(forgotten).await {
            tracing::debug!(%error, "old notifications cannot be forgotten; trying again later");
        }
    }

    /// Notes since when central is connected. Returns whether that is new.
    fn follow_link(&mut self) -> bool {
        let was_connected = self.connected_since.is_some();
        self.connected_since = self.is_connected().then(|| self.connected_since.unwrap_or_else(|| self.now()));
        !was_connected && self.connected_since.is_some()
    }

    /// After an outage of central the first hosts to come back take the others for vanished.
    fn may_judge_others(&self) -> bool {
        self.connected_since.is_some_and(|since| self.now().since(since) >= (self.parts.stale_after)())
    }

    fn is_connected(&self) -> bool {
        self.parts.link.borrow().state == LinkState::Connected
    }

    /// Takes leases; `None` if central cannot be asked.
    async fn take(&self, names: Vec<String>, length: Duration) -> Option<Vec<String>> {
        if self.is_connected() { self.parts.leases.take(names, length).await } else { None }
    }

    async fn tell_due(&mut self) {
        for key in self.pending.due(self.now()) {
            let Some(pending) = self.pending.get_mut(&key).cloned() else { continue };
            match self.decide(&key, &pending).await {
                Ok(Decision::Tell) => self.tell(&key, &pending),
                Ok(Decision::Drop) => self.pending.remove(&key),
                Ok(Decision::Wait(wait)) => self.wait(&key, wait),
                Ok(Decision::Unanswered) => {
                    self.pending.unanswered(&key);
                    self.wait(&key, self.turn_length());
                }
                Err(error) => {
                    tracing::warn!(%error, "the store cannot be read for a notification; trying again");
                    self.wait(&key, LONGEST_TURN);
                }
            }
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
        let Some(rule) = self.settings.rules.get(pending.rule) else { return Ok(Decision::Drop) };
        if self.parts.store.is_notified(key.to_owned()).await? || !self.still_holds(&pending.transition).await? {
            return Ok(Decision::Drop);
        }
        let minute = local_time::minute_of_day(self.now().micros().div_euclid(1_000_000));
        if let Some(left) = self.settings.quiet_hours.and_then(|quiet| quiet.left(minute)) {
            return Ok(Decision::Wait(left.min(LONGEST_TURN)));
        }
        if rule.channel == Channel::Desktop && self.parts.desktop.receiver_count() == 0 {
            return Ok(Decision::Wait(self.turn_length()));
        }
        let is_early = pending.transition.occasion == Occasion::Stale && !self.may_judge_others();
        if !pending.is_own && (!self.has_fleet || is_early) {
            return Ok(Decision::Wait(self.turn_length()));
        }
        Ok(match self.take(vec![key.to_owned()], ATTEMPT).await {
            Some(taken) if !taken.is_empty() => Decision::Tell,
            // Another host tells, or has told. Whether it was killed before shows when its lease has passed.
            Some(_) => Decision::Wait(ATTEMPT),
            // Without central, or with one that does not answer, a host tells of its own.
            None if pending.is_own && (!self.is_connected() || pending.unanswered >= PATIENCE) => Decision::Tell,
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

    fn tell(&mut self, key: &str, pending: &Pending) {
        let Some(rule) = self.settings.rules.get(pending.rule).cloned() else { return };
        if let Some(pending) = self.pending.get_mut(key) {
            pending.in_flight = true;
        }
        let notification = NotificationBody::of(&pending.transition);
        let (key, desktop) = (key.to_owned(), self.parts.desktop.clone());
        let (attempts, at_once) = (self.attempts.clone(), self.at_once.clone());
        tokio::spawn(async move {
            let _permit = at_once.acquire().await;
            let outcome = channel::tell(&rule.channel, &notification, &key, &desktop).await;
            let _ = attempts.send(Attempt { key, channel: rule.channel.kind(), outcome });
        });
    }

    async fn attempt_ended(&mut self, attempt: Attempt) {
        let Attempt { key, channel, outcome } = attempt;
        let now = self.now();
        match outcome {
            Ok(()) => {
                self.pending.remove(&key);
                if let Err(error) = self.parts.store.record_notified(key.clone(), now).await {
                    tracing::warn!(%error, "a notification cannot be noted; it may come again after a restart");
                }
                let has_central = self.parts.link.borrow().state != LinkState::Off;
                let is_shared = self.take(vec![key.clone()], TOLD).await.is_some();
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

    /// Tells each rule's channel of a test, at once.
    async fn test(&self) -> Vec<ChannelTestBody> {
        let transition = Transition::test(self.this(), self.now());
        let notification = NotificationBody { occasion: "test".to_owned(), ..NotificationBody::of(&transition) };
        let tell = async |(number, rule): (usize, &NotifyRule)| {
            let key = transition.key_for(&rule.channel.identity());
            let outcome = channel::tell(&rule.channel, &notification, &key, &self.parts.desktop).await;
            ChannelTestBody { rule: number + 1, channel: rule.channel.kind().to_owned(), error: outcome.err() }
        };
        futures_util::future::join_all(self.settings.rules.iter().enumerate().map(tell)).await
    }
}

/// What to do about something that is due.
enum Decision {
    Tell,
    Drop,
    Wait(Duration),
    /// Central did not say whose turn it is.
    Unanswered,
}

/// The transition that a session is in, by its recorded status: whoever watches its process or its machine records it.
fn transition(record: &Record) -> Option<Transition> {
    Transition::of_session(&record.session, record.work.as_deref(), record.session.status)
}
