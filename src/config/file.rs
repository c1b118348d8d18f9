//! The content of the configuration file: every key is optional, unknown keys are errors.

use std::path::PathBuf;

use serde::Deserialize;
use toml::de::DeTable;

use super::ConfigError;
use crate::domain::text::quotation;

#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "sections")]
pub(super) struct ConfigFile {
    pub machine: MachineSection,
    pub central: CentralSection,
    pub sessions: SessionsSection,
    pub store: StoreSection,
    pub socket: SocketSection,
    pub log: LogSection,
    pub claude: ClaudeSection,
    pub agents: AgentsSection,
    pub mirror: MirrorSection,
    pub notify: NotifySection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a section")]
pub(super) struct MachineSection {
    pub name: Option<String>,
    pub allow_other: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a section")]
pub(super) struct CentralSection {
    pub url: Option<String>,
    pub password_file: Option<PathBuf>,
    pub heartbeat_interval: Option<String>,
    pub refresh_after: Option<String>,
    pub pull_interval: Option<String>,
    pub connect_timeout: Option<String>,
    pub statement_timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a section")]
pub(super) struct SessionsSection {
    pub stale_after: Option<String>,
    pub keep_closed: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a section")]
pub(super) struct StoreSection {
    pub path: Option<PathBuf>,
    pub durability: Option<String>,
    pub max_size: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a section")]
pub(super) struct SocketSection {
    pub path: Option<PathBuf>,
    pub mode: Option<String>,
    pub group: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a section")]
pub(super) struct LogSection {
    pub level: Option<String>,
    pub format: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a section")]
pub(super) struct ClaudeSection {
    pub watch: Option<bool>,
    pub home: Option<PathBuf>,
    pub rules: Option<Vec<TypeRuleEntry>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a section")]
pub(super) struct AgentsSection {
    pub record: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a section")]
pub(super) struct MirrorSection {
    pub scope: Option<String>,
    pub projects: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a section")]
pub(super) struct NotifySection {
    pub quiet_hours: Option<String>,
    pub rules: Option<Vec<NotifyRuleEntry>>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "a rule such as { on = [\"waiting\"], desktop = true }")]
pub(super) struct NotifyRuleEntry {
    pub on: Vec<String>,
    pub delay: Option<String>,
    pub desktop: Option<bool>,
    pub command: Option<Vec<String>>,
    pub webhook: Option<String>,
    pub ntfy: Option<String>,
    pub projects: Option<Vec<String>>,
    pub machines: Option<Vec<String>>,
    pub kinds: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "a rule such as { folder = \"/home/me/meta\", type = \"MS\" }")]
pub(super) struct TypeRuleEntry {
    pub project: Option<String>,
    pub folder: Option<PathBuf>,
    #[serde(rename = "type")]
    pub instance_type: String,
}

/// All keys. A test compares them with config.example.toml, which documents them.
pub(super) const KEYS: [&str; 27] = [
    "machine.name",
    "machine.allow_other",
    "central.url",
    "central.password_file",
    "central.heartbeat_interval",
    "central.refresh_after",
    "central.pull_interval",
    "central.connect_timeout",
    "central.statement_timeout",
    "sessions.stale_after",
    "sessions.keep_closed",
    "store.path",
    "store.durability",
    "store.max_size",
    "socket.path",
    "socket.mode",
    "socket.group",
    "log.level",
    "log.format",
    "claude.watch",
    "claude.home",
    "claude.rules",
    "agents.record",
    "mirror.scope",
    "mirror.projects",
    "notify.quiet_hours",
    "notify.rules",
];

/// The value of `agents.record` in a file whose other keys may be wrong, such as those of another version.
///
/// # Errors
/// The file is not TOML, or the value is not a string.
pub(super) fn record_setting(text: &str) -> Result<Option<String>, ConfigError> {
    let table = DeTable::parse(text).map_err(|error| syntax_error(text, &error))?;
    let section = table.get_ref().get("agents");
    let Some(value) = section.and_then(|section| section.get_ref().get("record")) else { return Ok(None) };
    let value = value.get_ref().as_str().map(str::to_owned);
    value.map(Some).ok_or_else(|| ConfigError::key("agents.record", "it must be a string"))
}

impl ConfigFile {
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        let table = DeTable::parse(text).map_err(|error| syntax_error(text, &error))?;
        let mut unknown = Vec::new();
        let mut record_unknown = |path: serde_ignored::Path<'_>| unknown.push(path.to_string());
        let deserializer = serde_ignored::Deserializer::new(toml::Deserializer::from(table), &mut record_unknown);
        let parsed = serde_path_to_error::deserialize(deserializer);
        // Unknown keys first: a key in the wrong section may break the type of another.
        match unknown.first() {
            Some(key) => Err(unknown_key_error(key)),
            None => parsed.map_err(|error| type_error(&error)),
        }
    }
}

/// Keeps only the end of serde's message (`invalid type: string "the value", expected a boolean`): the rest may quote a
/// secret.
fn type_error(error: &serde_path_to_error::Error<toml::de::Error>) -> ConfigError {
    let expected = error.inner().message().rsplit_once("expected ").map_or("of another type", |(_, what)| what);
    ConfigError::key(&quotation(&error.path().to_string()), format!("it must be {}", quotation(expected)))
}

fn unknown_key_error(key: &str) -> ConfigError {
    let hint =
        nearest(key).map_or_else(|| format!("known are {}", siblings(key)), |near| format!("did you mean {near}?"));
    ConfigError::new(format!("there is no key {}; {hint}", displayed_key(key)))
}

/// The key for an error. A quoted key may be any text, such as a URL with a password: it is shown only if it has the
/// form of a name.
fn displayed_key(key: &str) -> String {
    let is_name = key.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    if is_name { quotation(key) } else { "of that name (not shown, it may be a value)".to_owned() }
}

/// The known key or section that is most similar, if it is similar enough to be the one meant.
fn nearest(key: &str) -> Option<&'static str> {
    let name = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let key = &quotation(key);
    let distance = |known: &str| match name(known) == name(key) {
        // A known key in the wrong section.
        true => 1,
        false => strsim::damerau_levenshtein(known, key),
    };
    // Longer names may differ in more letters.
    let tolerance = (name(key).chars().count() / 3).clamp(1, 3);
    let near = KEYS.into_iter().chain(sections()).map(|known| (distance(known), known));
    near.filter(|(distance, _)| *distance <= tolerance).min().map(|(_, known)| known)
}

/// The known keys of the section that the unknown key is in.
fn siblings(key: &str) -> String {
    let section = key.split_once('.').map_or("", |(section, _)| section);
    let keys: Vec<_> = KEYS.into_iter().filter(|known| section_of(known) == section).collect();
    if keys.is_empty() { sections().collect::<Vec<_>>().join(", ") } else { keys.join(", ") }
}

fn sections() -> impl Iterator<Item = &'static str> {
    let mut names = KEYS.map(section_of).to_vec();
    names.dedup();
    names.into_iter()
}

fn section_of(key: &'static str) -> &'static str {
    key.split_once('.').map_or(key, |(section, _)| section)
}

/// A TOML syntax error, in one line with its position.
fn syntax_error(text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    // The parser may quote a password from the file.
    let quotes = error.message().split('`').skip(1).step_by(2).any(|quoted| quoted.len() > 3);
    let message = if quotes { "it is not TOML" } else { error.message() };
    ConfigError::new(format!("line {line}, column {column}: {}", quotation(message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        ConfigFile::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn suggests_the_nearest_key_for_an_unknown_one() {
        assert_eq!(refused("[central]\nurll = \"x\""), "there is no key central.urll; did you mean central.url?");
        assert_eq!(
            refused("[machine]\nstale_after = \"5s\""),
            "there is no key machine.stale_after; did you mean sessions.stale_after?"
        );
        assert_eq!(refused("[sesions]\nstale_after = \"5s\""), "there is no key sesions; did you mean sessions?");
        assert_eq!(refused("url = \"x\""), "there is no key url; did you mean central.url?");
    }

    #[test]
    fn lists_the_known_keys_if_none_is_near() {
        assert_eq!(
            refused("[socket]\n\"postgres://me:hunter2@x\" = 5"),
            "there is no key of that name (not shown, it may be a value); known are socket.path, socket.mode, \
             socket.group"
        );
        assert_eq!(
            refused("[telemetry]\non = true"),
            "there is no key telemetry; known are machine, central, sessions, store, socket, log, claude, agents, mirror, \
             notify"
        );
    }

    #[test]
    fn type_errors_name_the_key_and_syntax_errors_the_position() {
        assert_eq!(refused("[machine]\nallow_other = 7"), "machine.allow_other: it must be a boolean");
        // The value itself may be a secret in the wrong place.
        assert_eq!(refused("central = \"postgres://u:hunter2@h/d\""), "central: it must be a section");
        assert_eq!(refused("central.url = [\"postgres://u:hunter2@h/d\"]"), "central.url: it must be a string");
        let error = refused("[machine]\nname = ");
        assert!(error.starts_with("line 2, column ") && error.lines().count() == 1, "{error}");
    }

    #[test]
    fn the_example_documents_every_key() {
        let example = include_str!("../../config.example.toml");
        ConfigFile::parse(example).unwrap();
        let mut section = "";
        let mut documented = Vec::new();
        for line in example.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                section = name;
            } else if let Some((key, _)) = line.trim_start_matches('#').split_once(" = ") {
                documented.push(format!("{section}.{key}"));
            }
        }
        assert_eq!(documented, KEYS);
    }
}
