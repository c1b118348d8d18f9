//! `[notify]`: which notifications are sent, and by which channel.

use std::time::Duration;

use url::Url;

use super::file::{NotifyRuleEntry, NotifySection};
use super::settings::{duration, quotable};
use super::{ConfigError, Secret};
use crate::domain::agent::AgentKind;
use crate::domain::notification::{NotificationFilter, Occasion, QuietHours};
use crate::domain::{MachineName, Project};

const KEY: &str = "notify.rules";
/// The most rules.
const MAX_RULES: usize = 32;
/// How long a session has to wait for its user before a notification is sent, if a rule does not say it.
const DEFAULT_DELAY: Duration = Duration::from_secs(10);
const MAX_DELAY: Duration = Duration::from_secs(86_400);

/// `[notify]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotifySettings {
    /// The rules, in the order of the file.
    pub rules: Vec<NotifyRule>,
    /// When no notification is sent, by this machine's local time.
    pub quiet_hours: Option<QuietHours>,
}

/// One rule: when it applies, and by which channel a notification is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifyRule {
    /// What it is about.
    pub filter: NotificationFilter,
    /// How long a session has to wait before.
    pub delay: Duration,
    /// Where the notification is sent.
    pub channel: Channel,
}

/// Where a notification is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// A desktop, by `sessiond notify-agent` in a user's session.
    Desktop,
    /// A program that gets it as JSON on stdin.
    Command(Vec<String>),
    /// A URL to which it is posted as JSON.
    Webhook(Secret),
    /// The URL of a topic of ntfy.
    Ntfy(Secret),
}

impl Channel {
    /// The kind, for logs, which never show a URL.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Desktop => "desktop",
            Self::Command(_) => "command",
            Self::Webhook(_) => "webhook",
            Self::Ntfy(_) => "ntfy",
        }
    }

    /// Identifies this channel on all machines: rules of two machines with the same target have the same.
    pub fn identity(&self) -> String {
        let target = match self {
            Self::Desktop => String::new(),
            Self::Command(words) => words.join("\0"),
            Self::Webhook(url) | Self::Ntfy(url) => url.reveal().to_owned(),
        };
        format!("{}\0{target}", self.kind())
    }
}

/// # Errors
/// Names the first invalid value, and never shows a URL.
pub(super) fn settings(file: NotifySection) -> Result<NotifySettings, ConfigError> {
    let quiet_hours = file.quiet_hours.as_deref().map(quiet_hours).transpose()?;
    let entries = file.rules.unwrap_or_default();
    if entries.len() > MAX_RULES {
        return Err(ConfigError::key(KEY, format!("there are more than {MAX_RULES} rules")));
    }
    let rules = entries.into_iter().map(rule).collect::<Result<_, _>>()?;
    Ok(NotifySettings { rules, quiet_hours })
}

fn rule(entry: NotifyRuleEntry) -> Result<NotifyRule, ConfigError> {
    let invalid = |field: &str, why: String| ConfigError::key(&format!("{KEY}.{field}"), why);
    if entry.on.is_empty() {
        return Err(invalid("on", "it must name at least one occasion".to_owned()));
    }
    let occasion = |name: &String| {
        Occasion::parse(name).ok_or_else(|| {
            let known = Occasion::ALL.map(Occasion::as_str).join(", ");
            invalid("on", format!("\"{}\" is none of {known}", quotable(name)))
        })
    };
    let on = entry.on.iter().map(occasion).collect::<Result<_, _>>()?;
    for project in entry.projects.iter().flatten() {
        Project::parse(&quotable(project)).map_err(|error| invalid("projects", error.rule.to_string()))?;
    }
    for machine in entry.machines.iter().flatten() {
        MachineName::parse(&quotable(machine)).map_err(|error| invalid("machines", error.rule.to_string()))?;
    }
    for kind in entry.kinds.iter().flatten() {
        AgentKind::parse(kind).ok_or_else(|| {
            invalid("kinds", format!("\"{}\" is none of interactive, headless and background", quotable(kind)))
        })?;
    }
    let filter = NotificationFilter {
        on,
        projects: entry.projects.unwrap_or_default(),
        machines: entry.machines.unwrap_or_default(),
        kinds: entry.kinds.unwrap_or_default(),
    };
    let delay = duration(&format!("{KEY}.delay"), entry.delay.as_deref(), DEFAULT_DELAY, Duration::ZERO..=MAX_DELAY)?;
    let channels = [
        entry.desktop.filter(|desktop| *desktop).map(|_| Ok(Channel::Desktop)),
        entry.command.map(command),
        entry.webhook.map(|url| Ok(Channel::Webhook(checked_url("webhook", url)?))),
        entry.ntfy.map(|url| Ok(Channel::Ntfy(checked_url("ntfy", url)?))),
    ];
    let mut channels = channels.into_iter().flatten();
    match (channels.next(), channels.next()) {
        (Some(channel), None) => Ok(NotifyRule { filter, delay, channel: channel? }),
        _ => Err(ConfigError::key(KEY, "a rule must have one of desktop = true, command, webhook and ntfy")),
    }
}

fn command(words: Vec<String>) -> Result<Channel, ConfigError> {
    let is_usable =
        words.first().is_some_and(|program| !program.is_empty()) && words.iter().all(|word| !word.contains('\0'));
    match is_usable {
        true => Ok(Channel::Command(words)),
        false => Err(ConfigError::key(&format!("{KEY}.command"), "it must be a program and its arguments")),
    }
}

/// The error does not show the URL, which is a secret: knowing it is enough to post to it.
fn checked_url(field: &str, url: String) -> Result<Secret, ConfigError> {
    let invalid = |why: &str| ConfigError::key(&format!("{KEY}.{field}"), why);
    let parsed = Url::parse(&url).map_err(|error| invalid(&format!("it is not a URL: {error}")))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
        return Err(invalid("it must begin with https:// or http://"));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(invalid("it must not have a user or a password"));
    }
    if field == "ntfy" && parsed.path_segments().is_none_or(|mut path| path.next_back().is_none_or(str::is_empty)) {
        return Err(invalid("it must end with the name of the topic"));
    }
    Ok(Secret::new(url))
}

/// Such as `22:00-07:00`.
fn quiet_hours(text: &str) -> Result<QuietHours, ConfigError> {
    let invalid = || {
        let rule = format!("\"{}\" is not a time of the day such as 22:00-07:00", quotable(text));
        ConfigError::key("notify.quiet_hours", rule)
    };
    let minute = |text: &str| {
        let (hour, minute) = text.trim().split_once(':')?;
        let number = |text: &str, below: u16| {
            let is_number = text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|number: &u16| is_number && *number < below)
        };
        Some(number(hour, 24)? * 60 + number(minute, 60)?)
    };
    let (from, until) = text.split_once('-').ok_or_else(invalid)?;
    match (minute(from), minute(until)) {
        (Some(from), Some(until)) if from != until => Ok(QuietHours { from, until }),
        _ => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::ConfigFile;
    use super::*;

    fn of(text: &str) -> Result<NotifySettings, String> {
        settings(ConfigFile::parse(text).map_err(|error| error.to_string())?.notify).map_err(|error| error.to_string())
    }

    #[test]
    fn rules_are_read_as_the_contract_writes_them() {
        let settings = of("[notify]\nquiet_hours = \"22:00-07:00\"\n\n[[notify.rules]]\n\
            on = [\"waiting\", \"failed\", \"stale\", \"limit\", \"conflict\"]\ndelay = \"3s\"\n\
            webhook = \"https://host/path\"\nprojects = [\"odin\"]\n\n\
            [[notify.rules]]\non = [\"failed\"]\ncommand = [\"prog\", \"arg\"]\nkinds = [\"headless\"]\n\n\
            [[notify.rules]]\non = [\"stale\"]\nntfy = \"https://host/topic\"\nmachines = [\"laptop\"]\n\n\
            [[notify.rules]]\non = [\"waiting\"]\ndesktop = true\n")
        .unwrap();
        assert_eq!(settings.quiet_hours, Some(QuietHours { from: 1320, until: 420 }));
        assert_eq!(settings.rules[0].filter.on, Occasion::ALL);
        let kinds: Vec<_> = settings.rules.iter().map(|rule| rule.channel.kind()).collect();
        assert_eq!(kinds, ["webhook", "command", "ntfy", "desktop"]);
        let delays: Vec<_> = settings.rules.iter().map(|rule| rule.delay.as_secs()).collect();
        assert_eq!(delays, [3, 10, 10, 10]);
        assert!(!format!("{settings:?}").contains("host"), "a URL is a secret: {settings:?}");
        assert_eq!(of("").unwrap(), NotifySettings::default());
    }

    #[test]
    fn invalid_rule_is_named_and_its_url_is_not_shown() {
        let rule = |text: &str| of(&format!("[[notify.rules]]\n{text}")).unwrap_err();
        for (text, expected) in [
            (
                "on = [\"idle\"]\ndesktop = true",
                "notify.rules.on: \"idle\" is none of waiting, failed, stale, limit, conflict",
            ),
            ("on = []\ndesktop = true", "notify.rules.on: it must name at least one occasion"),
            ("on = [\"stale\"]", "notify.rules: a rule must have one of"),
            ("on = [\"stale\"]\ndesktop = false", "notify.rules: a rule must have one of"),
            ("on = [\"stale\"]\ndesktop = true\nntfy = \"https://h/t\"", "notify.rules: a rule must have one of"),
            ("on = [\"stale\"]\ncommand = []", "notify.rules.command: it must be a program"),
            ("on = [\"stale\"]\nwebhook = \"hunter2\"", "notify.rules.webhook: it is not a URL"),
            ("on = [\"stale\"]\nwebhook = \"ftp://hunter2/x\"", "notify.rules.webhook: it must begin with"),
            (
                "on = [\"stale\"]\nwebhook = \"https://me:hunter2@host/x\"",
                "notify.rules.webhook: it must not have a user",
            ),
            ("on = [\"stale\"]\nntfy = \"https://hunter2/\"", "notify.rules.ntfy: it must end with the name"),
            ("on = [\"stale\"]\ndelay = \"soon\"\ndesktop = true", "notify.rules.delay: \"soon\" is not a duration"),
            ("on = [\"stale\"]\ndelay = \"2d\"\ndesktop = true", "notify.rules.delay: 2d is not between"),
            ("on = [\"stale\"]\nkinds = [\"dark\"]\ndesktop = true", "notify.rules.kinds: \"dark\" is none of"),
            ("on = [\"stale\"]\nprojects = [\"a b\"]\ndesktop = true", "notify.rules.projects:"),
            ("on = [\"stale\"]\nmachines = [\"A\"]\ndesktop = true", "notify.rules.machines:"),
        ] {
            let error = rule(text);
            assert!(error.starts_with(expected) && !error.contains("hunter2"), "{text}: {error}");
        }
        for wrong in ["25:00-07:00", "22:00", "7-8", "22:00-22:00", "22:60-07:00", "+1:00-2:00", ""] {
            assert!(of(&format!("[notify]\nquiet_hours = \"{wrong}\"")).is_err(), "{wrong}");
        }
    }
}
