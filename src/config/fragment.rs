//! The configuration file as it is written: every key optional, none unknown.

use std::path::PathBuf;

use serde::Deserialize;
use toml::de::DeTable;

use super::ConfigError;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fragment {
    pub machine: Machine,
    pub central: Central,
    pub sessions: Sessions,
    pub store: Store,
    pub socket: Socket,
    pub log: Log,
    pub claude: Claude,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Machine {
    pub name: Option<String>,
    pub allow_other: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Central {
    pub url: Option<String>,
    pub password_file: Option<PathBuf>,
    pub heartbeat_interval: Option<String>,
    pub pull_interval: Option<String>,
    pub connect_timeout: Option<String>,
    pub statement_timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Sessions {
    pub stale_after: Option<String>,
    pub keep_closed: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Store {
    pub path: Option<PathBuf>,
    pub durability: Option<String>,
    pub max_size: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Socket {
    pub path: Option<PathBuf>,
    pub mode: Option<String>,
    pub group: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Log {
    pub level: Option<String>,
    pub format: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Claude {
    pub watch: Option<bool>,
}

/// Every key there is. config.example.toml documents them, and a test compares the two.
pub(super) const KEYS: [&str; 19] = [
    "machine.name",
    "machine.allow_other",
    "central.url",
    "central.password_file",
    "central.heartbeat_interval",
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
];

impl Fragment {
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let table = DeTable::parse(text).map_err(|error| broken(text, &error))?;
        let mut unknown = Vec::new();
        let mut note = |path: serde_ignored::Path<'_>| unknown.push(path.to_string());
        let noting = serde_ignored::Deserializer::new(toml::Deserializer::from(table), &mut note);
        let tracked = serde_path_to_error::deserialize(noting);
        let fragment = tracked.map_err(|error| {
            let (key, what) = (error.path().to_string(), error.into_inner());
            ConfigError::key(&key, what.message())
        })?;
        match unknown.first() {
            None => Ok(fragment),
            Some(key) => Err(ConfigError(format!("there is no key {key}; did you mean {}?", nearest(key)))),
        }
    }
}

/// The known key that looks most like this one.
fn nearest(key: &str) -> &'static str {
    let likeness = |known: &&str| {
        let whole = strsim::jaro_winkler(known, key);
        // A key that landed in the wrong section is still recognised by its own name.
        let (own, known_own) = (key.rsplit('.').next(), known.rsplit('.').next());
        let last = own.zip(known_own).map_or(0.0, |(a, b)| strsim::jaro_winkler(a, b));
        whole.max(last)
    };
    KEYS.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or(KEYS[0])
}

/// A syntax error, in one line with its place.
fn broken(text: &str, error: &toml::de::Error) -> ConfigError {
    let before = &text[..error.span().map_or(0, |span| span.start.min(text.len()))];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    ConfigError(format!("line {line}, column {column}: {}", error.message().replace('\n', " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Fragment::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn unknown_keys_are_named_with_the_nearest_known_one() {
        assert_eq!(refused("[central]\nurll = \"x\""), "there is no key central.urll; did you mean central.url?");
        assert_eq!(
            refused("[machine]\nstale_after = \"5s\""),
            "there is no key machine.stale_after; did you mean sessions.stale_after?"
        );
        assert!(refused("[sesions]\nstale_after = \"5s\"").contains("sesions"));
    }

    #[test]
    fn wrong_types_are_named_by_key_and_broken_syntax_by_place() {
        assert!(refused("[machine]\nallow_other = 7").starts_with("machine.allow_other: invalid type"));
        let place = refused("[machine]\nname = ");
        assert!(place.starts_with("line 2, column ") && place.lines().count() == 1, "{place}");
    }

    #[test]
    fn the_example_documents_every_key() {
        let example = include_str!("../../config.example.toml");
        Fragment::parse(example).unwrap();
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
