//! A notification, as programs, webhooks and the agents of desktops receive it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::notification::Transition;

/// A notification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NotificationBody {
    /// `waiting`, `failed`, `stale`, `limit`, `conflict`, or `test`.
    pub occasion: String,
    /// The session; null: an account's limit.
    pub instance_id: Option<String>,
    /// The session's project.
    pub project: Option<String>,
    /// The machine of the session, or whose agents observed the limit.
    pub host_machine: String,
    /// `interactive`, `headless` or `background`.
    pub kind: Option<String>,
    /// When it began.
    pub since: String,
    /// One line that says whom it is about.
    pub title: String,
    /// One line that says what happened.
    pub text: String,
}

impl NotificationBody {
    /// The notification of a transition.
    pub fn of(transition: &Transition) -> Self {
        Self {
            occasion: transition.occasion.as_str().to_owned(),
            instance_id: transition.instance_id.as_ref().map(ToString::to_string),
            project: transition.project.as_ref().map(ToString::to_string),
            host_machine: transition.machine.to_string(),
            kind: transition.kind.map(str::to_owned),
            since: transition.since.to_string(),
            title: transition.title.clone(),
            text: transition.text.clone(),
        }
    }
}

/// What became of a test notification in one channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChannelTestBody {
    /// The number of the rule in the configuration, from 1.
    pub rule: usize,
    /// `desktop`, `command`, `webhook` or `ntfy`.
    pub channel: String,
    /// Why it did not arrive; null if it did.
    pub error: Option<String>,
}
