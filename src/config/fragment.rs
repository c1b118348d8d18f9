//! The file as it is written: every key may be missing, no other key is known.

use serde::Deserialize;

use super::Secret;

/// All keys of the file, as `section.key`.
pub(super) const KEYS: &[&str] = &[
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

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, expecting = "sections")]
pub struct Fragment {
    pub machine: Machine,
    pub central: Central,
    pub sessions: Sessions,
    pub store: Store,
    pub socket: Socket,
    pub log: Log,
    pub claude: Claude,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, expecting = "a section")]
pub struct Machine {
    pub name: Option<String>,
    pub allow_other: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, expecting = "a section")]
pub struct Central {
    #[cfg_attr(test, serde(serialize_with = "hidden"))]
    #[serde(deserialize_with = "secret")]
    pub url: Option<Secret>,
    pub password_file: Option<String>,
    pub heartbeat_interval: Option<String>,
    pub pull_interval: Option<String>,
    pub connect_timeout: Option<String>,
    pub statement_timeout: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, expecting = "a section")]
pub struct Sessions {
    pub stale_after: Option<String>,
    pub keep_closed: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, expecting = "a section")]
pub struct Store {
    pub path: Option<String>,
    pub durability: Option<String>,
    pub max_size: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, expecting = "a section")]
pub struct Socket {
    pub path: Option<String>,
    pub mode: Option<String>,
    pub group: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, expecting = "a section")]
pub struct Log {
    pub level: Option<String>,
    pub format: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, expecting = "a section")]
pub struct Claude {
    pub watch: Option<bool>,
}

impl Fragment {
    /// Reads the text of a configuration file.
    ///
    /// # Errors
    /// One line that says what is wrong and where; it never quotes a value, which might be a secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file = toml::Deserializer::parse(text).map_err(|error| syntax(text, &error))?;
        let mut unknown = None;
        let mut note = |path: serde_ignored::Path| {
            unknown.get_or_insert_with(|| path.to_string());
        };
        let read = serde_path_to_error::deserialize(serde_ignored::Deserializer::new(file, &mut note));
        match (unknown, read) {
            (Some(key), _) => Err(unknown_key(&key)),
            (None, read) => read.map_err(|error| wrong_type(&error)),
        }
    }
}

fn syntax(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(text.len(), |span| span.start);
    let before = text.get(..start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {}", one_line(error.message()))
}

fn wrong_type(error: &serde_path_to_error::Error<toml::de::Error>) -> String {
    // serde says "invalid type: string \"the value\", expected a boolean": the front part may show a secret.
    let expected = error.inner().message().rsplit_once("expected ").map_or("another type of value", |(_, what)| what);
    format!("{} must be {}", one_line(&error.path().to_string()), one_line(expected))
}

fn unknown_key(key: &str) -> String {
    let hint = match nearest(key) {
        Some(known) => format!("did you mean {known}?"),
        None => format!("known are {}", siblings(key)),
    };
    format!("unknown key {}; {hint}", one_line(key))
}

/// The known key or section that was probably meant.
fn nearest(key: &str) -> Option<&'static str> {
    let distance = |known: &str| match name_of(known) == name_of(key) && known.contains('.') {
        // The right key in the wrong section.
        true => 1,
        false => strsim::damerau_levenshtein(known, key),
    };
    // A longer name may have more letters wrong and still be recognised.
    let tolerance = (name_of(key).chars().count() / 3).clamp(1, 3);
    let known = KEYS.iter().copied().chain(sections());
    known.map(|known| (distance(known), known)).filter(|(far, _)| *far <= tolerance).min().map(|(_, known)| known)
}

/// The names that are known where an unknown one stands.
fn siblings(key: &str) -> String {
    let section = key.split_once('.').map_or("", |(section, _)| section);
    let keys: Vec<_> = KEYS.iter().copied().filter(|known| section_of(known) == section).collect();
    if keys.is_empty() { sections().collect::<Vec<_>>().join(", ") } else { keys.join(", ") }
}

fn sections() -> impl Iterator<Item = &'static str> {
    let mut names: Vec<_> = KEYS.iter().map(|key| section_of(key)).collect();
    names.dedup();
    names.into_iter()
}

fn section_of(key: &str) -> &str {
    key.split_once('.').map_or(key, |(section, _)| section)
}

fn name_of(key: &str) -> &str {
    key.rsplit_once('.').map_or(key, |(_, name)| name)
}

/// Text from outside as it may stand in a message: bounded, and without control characters.
pub(super) fn one_line(text: &str) -> String {
    const MAX: usize = 120;
    let cut: String = text.chars().take(MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().count() > MAX { cut + "..." } else { cut }
}

fn secret<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    String::deserialize(from).map(|text| Some(text.into()))
}

#[cfg(test)]
fn hidden<S: serde::Serializer>(_: &Option<Secret>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str) -> String {
        let error = Fragment::parse(text).unwrap_err();
        assert!(!error.contains('\n'), "{error}");
        error
    }

    #[test]
    fn the_known_keys_are_the_fields() {
        let fields = serde_json::to_value(Fragment::default()).unwrap();
        let mut names: Vec<String> = fields
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(section, keys)| keys.as_object().unwrap().keys().map(move |key| format!("{section}.{key}")))
            .collect();
        let mut known = KEYS.to_vec();
        names.sort();
        known.sort_unstable();
        assert_eq!(names, known);
    }

    #[test]
    fn an_empty_file_sets_nothing() {
        assert_eq!(Fragment::parse(""), Ok(Fragment::default()));
        assert_eq!(Fragment::parse("[central]\n[socket]\n"), Ok(Fragment::default()));
    }

    #[test]
    fn unknown_keys_are_named_with_the_nearest_known_one() {
        let cases = [
            ("[central]\nheartbeat_intervall = \"1s\"", "central.heartbeat_intervall", "central.heartbeat_interval"),
            ("[sessions]\nstale_affter = \"1s\"", "sessions.stale_affter", "sessions.stale_after"),
            ("[central]\nstale_after = \"1s\"", "central.stale_after", "sessions.stale_after"),
            ("[centrall]\nurl = \"x\"", "centrall", "central"),
            ("[machines]\nname = \"x\"", "machines", "machine"),
            ("url = \"x\"", "url", "central.url"),
            ("[machine]\nnam = \"x\"", "machine.nam", "machine.name"),
        ];
        for (text, key, meant) in cases {
            assert_eq!(refused(text), format!("unknown key {key}; did you mean {meant}?"));
        }
    }

    #[test]
    fn without_a_near_key_the_known_ones_are_listed() {
        assert_eq!(
            refused("[socket]\nbacklog = 5"),
            "unknown key socket.backlog; known are socket.path, socket.mode, socket.group"
        );
        assert_eq!(
            refused("[telemetry]\non = true"),
            "unknown key telemetry; known are machine, central, sessions, store, socket, log, claude"
        );
        assert!(refused("[socket]\n\"a\\nb\" = 5").starts_with("unknown key socket.a\u{fffd}b; "));
    }

    #[test]
    fn wrong_types_are_named_by_key() {
        assert_eq!(refused("[machine]\nallow_other = \"yes\""), "machine.allow_other must be a boolean");
        assert_eq!(refused("[central]\nheartbeat_interval = 30"), "central.heartbeat_interval must be a string");
        assert_eq!(refused("[socket]\nmode = 660"), "socket.mode must be a string");
        assert_eq!(refused("[central]\nurl = [\"x\"]"), "central.url must be a string");
        assert_eq!(refused("central = \"postgres://u:hunter2@h/d\""), "central must be a section");
    }

    #[test]
    fn a_syntax_error_has_its_place() {
        let error = refused("[machine]\nname = \"ok\"\nallow_other = \n");
        assert!(error.starts_with("line 3, column 1"), "{error}");
        let error = refused("[central]\nurl = \"postgres://u:hunter2@h/d\n");
        assert!(error.starts_with("line 2, column ") && !error.contains("hunter2"), "{error}");
        let error = refused("[machine]\nname = \"a\"\nname = \"b\"\n");
        assert!(error.starts_with("line 3, column 1: duplicate key"), "{error}");
    }

    #[test]
    fn a_url_is_not_shown() {
        let fragment = Fragment::parse("[central]\nurl = \"postgres://u:hunter2@h/d\"").unwrap();
        assert!(!format!("{fragment:?}").contains("hunter2"));
    }
}
