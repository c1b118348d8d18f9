//! What agents report of their activity.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::activity::{
    ActivityEvent, ActivitySource, ActivityState, Actor, MAX_DETAIL, MAX_ID, PermissionEvent, WaitingFor,
};
use crate::domain::redact;
use crate::domain::text::safe_line;
use crate::domain::{Invalid, Timestamp};

/// What an agent does from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ActivityReport {
    #[schema(pattern = "^(working|waiting|idle|failed)$")]
    pub(crate) activity: String,
    /// What it waits for; only with `waiting`. Default: `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(permission|question|plan|input)$")]
    pub waiting_for: Option<String>,
    /// The tool that waits for permission, the kind of the error, or how many background tasks run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 200)]
    pub detail: Option<String>,
    /// Which agent of the session it is about: `main`, or a sub-agent's id. Default: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64)]
    pub actor: Option<String>,
    /// The turn is over, and tasks in the background go on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_background: bool,
    /// It is a request for permission, or the notification of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission: Option<PermissionReport>,
    /// Default: `hook`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(hook|status_file|api)$")]
    pub source: Option<String>,
}

/// How a wait belongs to a request for permission, which may be reported twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PermissionReport {
    /// It is the notification that follows a request some seconds later.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_notification: bool,
    /// The agent's id of its user's prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64)]
    pub prompt_id: Option<String>,
}

/// The name of the main agent as an actor.
const MAIN: &str = "main";

impl ActivityReport {
    /// The event that happened at `at`.
    ///
    /// # Errors
    /// A field is invalid.
    pub fn validate(&self, at: Timestamp) -> Result<ActivityEvent, Invalid> {
        let state = ActivityState::parse(&self.activity)?;
        let waiting_for = self.waiting_for.as_deref().map(WaitingFor::parse).transpose()?;
        if waiting_for.is_some() && state != ActivityState::Waiting {
            return Err(Invalid::new("waiting_for", "it is only for the activity `waiting`"));
        }
        let unknown_source = || Invalid::new("source", "it must be hook, status_file or api");
        let source = self.source.as_deref().map(|source| ActivitySource::parse(source).ok_or_else(unknown_source));
        let actor = match self.actor.as_deref().map(|actor| valid_id("actor", actor)).transpose()? {
            None => Actor::Session,
            Some(actor) if actor == MAIN => Actor::Main,
            Some(id) => Actor::Subagent(id),
        };
        let permission = self.permission.as_ref().map(|permission| {
            let prompt_id = permission.prompt_id.as_deref().map(|id| valid_id("prompt_id", id)).transpose()?;
            Ok(PermissionEvent { is_notification: permission.is_notification, prompt_id })
        });
        Ok(ActivityEvent {
            state,
            waiting_for: waiting_for.or((state == ActivityState::Waiting).then_some(WaitingFor::Input)),
            detail: self
                .detail
                .clone()
                .map(|detail| safe_line(redact::text(&detail).unwrap_or(detail), MAX_DETAIL))
                .filter(|detail| !detail.is_empty()),
            at,
            source: source.transpose()?.unwrap_or(ActivitySource::Hook),
            actor,
            in_background: self.in_background,
            permission: permission.transpose()?,
        })
    }
}

fn valid_id(field: &'static str, id: &str) -> Result<String, Invalid> {
    match id.is_empty() || id.len() > MAX_ID || id.contains(char::is_control) {
        true => Err(Invalid::new(field, format!("it must have 1 to {MAX_ID} bytes without control characters"))),
        false => Ok(id.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(json: &str) -> Result<ActivityEvent, Invalid> {
        serde_json::from_str::<ActivityReport>(json).unwrap().validate(Timestamp::from_micros(7))
    }

    #[test]
    fn fields_are_validated_by_name() {
        for (json, field) in [
            (r#"{"activity": "sleeping"}"#, "activity"),
            (r#"{"activity": "waiting", "waiting_for": "Godot"}"#, "waiting_for"),
            (r#"{"activity": "idle", "waiting_for": "plan"}"#, "waiting_for"),
            (r#"{"activity": "idle", "source": "rumour"}"#, "source"),
            (r#"{"activity": "idle", "actor": ""}"#, "actor"),
            (r#"{"activity": "waiting", "permission": {"prompt_id": "\n"}}"#, "prompt_id"),
        ] {
            assert_eq!(report(json).unwrap_err().field, field, "{json}");
        }
    }

    #[test]
    fn detail_is_one_safe_line() {
        let event = report(r#"{"activity": "waiting", "detail": "a\u001b[31m\nb", "actor": "a1"}"#).unwrap();
        assert_eq!(event.detail.as_deref(), Some("a\u{fffd}[31m\u{fffd}b"));
        assert_eq!((event.waiting_for, event.actor), (Some(WaitingFor::Input), Actor::Subagent("a1".into())));
    }
}
