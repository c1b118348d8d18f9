//! What is worth a notification: when a session's state becomes one that its user should hear of, and which rules match.
//!
//! A notification is about a [`Transition`]: a session began to wait, failed, turned stale, shares its place with another,
//! or an account's limit is nearly used. Each has a key made of what it is about and when it began, so that it is notified
//! once, no matter how often or on which machine its state is seen. A transition that ended before it was due is not notified.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::activity::{ActivityState, WaitingFor};
use super::limits::MachineLimits;
use super::text::safe_line;
use super::{InstanceId, MachineName, Project, Session, Status, Timestamp, WorkSummary};

/// The longest title or text of a notification, in characters.
pub const MAX_TEXT: usize = 200;
/// The oldest transition for which a notification is sent, as after a start of the daemon.
pub const MAX_AGE: Duration = Duration::from_secs(3600);
/// How much of a limit may be used before it is notified, in percent.
pub const LIMIT_USED: f64 = 90.0;

/// The kinds of transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Occasion {
    /// A session waits for its user.
    Waiting,
    /// A session's turn ended with an error.
    Failed,
    /// A session's process ended, or its machine vanished.
    Stale,
    /// An account has used most of a rate limit.
    Limit,
    /// Two active sessions share a working tree, a branch or an epic.
    Conflict,
}

impl Occasion {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Waiting, Self::Failed, Self::Stale, Self::Limit, Self::Conflict];

    /// The name in the configuration and in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Stale => "stale",
            Self::Limit => "limit",
            Self::Conflict => "conflict",
        }
    }

    /// The occasion of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|occasion| occasion.as_str() == name)
    }
}

/// What a notification is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Its kind.
    pub occasion: Occasion,
    /// The session; `None`: an account's limit.
    pub instance_id: Option<InstanceId>,
    /// The project of the session.
    pub project: Option<Project>,
    /// The machine of the session, or whose agents observed the limit.
    pub machine: MachineName,
    /// How the session's agent runs: `interactive`, `headless` or `background`.
    pub kind: Option<&'static str>,
    /// When it began.
    pub since: Timestamp,
    /// What it is about, and when that began. The same on every machine.
    key: String,
    /// One line that says whom it is about.
    pub title: String,
    /// One line that says what happened.
    pub text: String,
}

impl Transition {
    /// The transition that this session is in, if it is one. `status` is what it is worth now.
    pub fn of_session(session: &Session, work: Option<&WorkSummary>, status: Status) -> Option<Self> {
        let activity = work.and_then(|work| work.current_activity(status));
        let (occasion, since, text) = match (status, activity) {
            (Status::Stale, _) => {
                let text = format!("it is stale: its process ended, or {} is away", session.host_machine);
                (Occasion::Stale, session.last_heartbeat, text)
            }
            (Status::Active, Some(activity)) if activity.state == ActivityState::Waiting => {
                let text = with_detail(waiting_text(activity.waiting_for), activity.detail.as_deref());
                (Occasion::Waiting, activity.since, text)
            }
            (Status::Active, Some(activity)) if activity.state == ActivityState::Failed => {
                let text = with_detail("its turn failed", activity.detail.as_deref());
                (Occasion::Failed, activity.since, text)
            }
            _ => return None,
        };
        let key = format!("{}:{}:{}", occasion.as_str(), session.instance_id, since.micros());
        Some(Self::about(session, work, occasion, since, key, text))
    }

    /// The conflict of an active session with another one. Both sessions have the same one.
    pub fn conflict(session: &Session, work: Option<&WorkSummary>, other: &InstanceId, now: Timestamp) -> Self {
        let (first, second) =
            (session.instance_id.as_str().min(other.as_str()), session.instance_id.as_str().max(other.as_str()));
        let key = format!("conflict:{first}:{second}");
        let text = format!("it shares its working tree, branch or epic with {other}");
        Self::about(session, work, Occasion::Conflict, now, key, text)
    }

    fn about(
        session: &Session,
        work: Option<&WorkSummary>,
        occasion: Occasion,
        since: Timestamp,
        key: String,
        text: String,
    ) -> Self {
        let title = work.and_then(|work| work.title.as_deref()).unwrap_or(session.project.as_str());
        Self {
            occasion,
            instance_id: Some(session.instance_id.clone()),
            project: Some(session.project.clone()),
            machine: session.host_machine.clone(),
            kind: work.and_then(|work| work.kind).map(|kind| kind.as_str()),
            since,
            key,
            title: safe_line(format!("{title} ({})", session.host_machine), MAX_TEXT),
            text: safe_line(text, MAX_TEXT),
        }
    }

    /// The limits of a machine that are nearly used.
    pub fn of_limits(machine: &MachineLimits, now: Timestamp) -> Vec<Self> {
        let nearly = |headroom: f64| headroom <= 100.0 - LIMIT_USED;
        let used = machine.limits.iter().filter(|limit| limit.headroom_percent(now).is_some_and(nearly));
        used.map(|limit| {
            let account = limit.account.as_deref().unwrap_or("an account");
            let reset = limit.window.resets_at.map_or(0, Timestamp::micros);
            let key = format!("limit:{}:{}:{account}:{}:{reset}", machine.machine, limit.uid, limit.window.name);
            let headroom = limit.headroom_percent(now).unwrap_or_default();
            Self {
                occasion: Occasion::Limit,
                instance_id: None,
                project: None,
                machine: machine.machine.clone(),
                kind: None,
                since: limit.observed_at,
                key,
                title: safe_line(format!("{account} ({})", machine.machine), MAX_TEXT),
                text: safe_line(format!("{headroom:.0} % of {} are left", limit.window.name), MAX_TEXT),
            }
        })
        .collect()
    }

    /// The transition that `sessiond notify test` sends.
    pub fn test(machine: MachineName, now: Timestamp) -> Self {
        Self {
            occasion: Occasion::Waiting,
            instance_id: None,
            project: None,
            title: format!("sessiond ({machine})"),
            text: "a test: notifications of this machine arrive".to_owned(),
            key: format!("test:{machine}:{}", now.micros()),
            machine,
            kind: None,
            since: now,
        }
    }

    /// The key of its notification by a channel: of a bounded length, and without any name or URL.
    pub fn key_for(&self, channel: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(self.key.as_bytes());
        hash.update([0]);
        hash.update(channel.as_bytes());
        let digest: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        format!("notify:{}:{digest}", self.occasion.as_str())
    }

    /// Whether it is the same transition as another one, seen at another time or on another machine.
    pub fn is_same(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

const fn waiting_text(waiting_for: Option<WaitingFor>) -> &'static str {
    match waiting_for {
        Some(WaitingFor::Permission) => "it waits for a permission",
        Some(WaitingFor::Question) => "it waits for an answer",
        Some(WaitingFor::Plan) => "it waits for its plan to be approved",
        Some(WaitingFor::Input) | None => "it waits for you",
    }
}

fn with_detail(text: &str, detail: Option<&str>) -> String {
    detail.map_or_else(|| text.to_owned(), |detail| format!("{text}: {detail}"))
}

/// When a rule applies. An empty list of names stands for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotificationFilter {
    /// The occasions.
    pub on: Vec<Occasion>,
    /// The projects of sessions.
    pub projects: Vec<String>,
    /// The machines.
    pub machines: Vec<String>,
    /// The kinds of sessions.
    pub kinds: Vec<String>,
}

impl NotificationFilter {
    /// Whether the rule applies. What has no project or kind matches only a rule that names none.
    pub fn matches(&self, transition: &Transition) -> bool {
        let fits = |names: &[String], name: Option<&str>| {
            names.is_empty() || name.is_some_and(|name| names.iter().any(|known| known == name))
        };
        self.on.contains(&transition.occasion)
            && fits(&self.projects, transition.project.as_ref().map(Project::as_str))
            && fits(&self.machines, Some(transition.machine.as_str()))
            && fits(&self.kinds, transition.kind)
    }

    /// Whether the rule may apply to sessions of machines other than this one.
    pub fn covers_others(&self, this: &MachineName) -> bool {
        self.machines.is_empty() || self.machines.iter().any(|machine| machine != this.as_str())
    }
}

/// Hours of the day, in minutes since midnight, in which no notification is sent. They may pass midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuietHours {
    /// The first minute.
    pub from: u16,
    /// The first minute after them.
    pub until: u16,
}

impl QuietHours {
    /// How long they last from this minute of the day on; `None` outside of them.
    pub fn left(self, minute: u16) -> Option<Duration> {
        const DAY: u16 = 24 * 60;
        let since_start = (minute + DAY - self.from) % DAY;
        let length = (self.until + DAY - self.from) % DAY;
        (since_start < length).then(|| Duration::from_secs(u64::from(length - since_start) * 60))
    }
}

#[cfg(test)]
mod tests;
