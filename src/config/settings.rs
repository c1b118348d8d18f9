//! Valid settings, and how flags, environment, file and defaults are merged into them.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::file::{self, ConfigFile};
use super::mirror;
use super::notify::{self, NotifySettings};
use super::recording::parse;
use super::{ConfigError, Environment, Overrides, has_password};
use crate::domain::agent::TypeRule;
use crate::domain::text::quotation;
use crate::domain::work::Recording;
use crate::domain::{InstanceType, Invalid, MachineName, MirrorScope, Project};
use crate::platform::default_paths::{DefaultPaths, SOCKET_VAR, STATE_DIR_VAR, path_in};
use crate::store::Durability;

/// Text that `Debug` does not show, so that it appears in no log or error.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// All settings. Each is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `[machine]`.
    pub machine: MachineSettings,
    /// `None`: sessions are not synced.
    pub central: Option<CentralSettings>,
    /// How often live sessions are refreshed, here and in central.
    pub heartbeat_interval: Duration,
    /// How old the heartbeat of a live session in central may become before its row is written again.
    pub refresh_after: Duration,
    /// A session without a heartbeat for this long is stale.
    pub stale_after: Duration,
    /// How long closed sessions are kept once central has them.
    pub keep_closed: Duration,
    pub(crate) durability: Durability,
    /// The largest size of the database, in bytes.
    pub max_size: u64,
    /// The folder of the database and the identity.
    pub state_dir: PathBuf,
    /// `[socket]`.
    pub socket: SocketSettings,
    /// `[log]`.
    pub(crate) log: LogSettings,
    /// `[mirror]`: which sessions of other hosts are read ahead.
    pub scope: MirrorScope,
    /// `[notify]`.
    pub(crate) notify: NotifySettings,
    /// `[claude]`, and what `[agents]` records.
    pub(crate) claude: ClaudeSettings,
}

/// How Claude Code's sessions are found and recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaudeSettings {
    /// Whether to discover local Claude Code sessions.
    pub watch: bool,
    /// Claude Code's folder; `None`: this user has no home.
    pub home: Option<PathBuf>,
    /// How much of the agents' work is recorded.
    pub record: Recording,
    /// Determine the type of a session that an agent's report creates.
    pub rules: Vec<TypeRule>,
}

/// `[machine]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSettings {
    /// The configured name; `None`: the pinned name is used.
    pub name: Option<MachineName>,
    pub(crate) allow_other: bool,
}

/// `[central]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CentralSettings {
    pub(crate) url: Secret,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) pull_interval: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) statement_timeout: Duration,
}

/// `[socket]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketSettings {
    /// The socket's file.
    pub path: PathBuf,
    /// Its permissions, such as 0o660.
    pub mode: u32,
    pub(crate) group: Option<String>,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    pub(crate) level: LevelFilter,
    pub(crate) format: LogFormat,
    /// Where the log is written instead of stderr or the journal.
    pub file: Option<PathBuf>,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// The journal's own format under systemd, else text.
    Auto,
    /// The journal's native protocol, with fields.
    Journal,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The changed settings that take effect only at the next start.
pub fn needs_restart(old: &Settings, new: &Settings) -> Vec<&'static str> {
    [
        ("machine.name", old.machine.name != new.machine.name),
        ("store.path", old.state_dir != new.state_dir),
        ("store.durability", old.durability != new.durability),
        ("store.max_size", old.max_size != new.max_size),
        ("socket", old.socket != new.socket),
        ("log.format", old.log.format != new.log.format),
    ]
    .into_iter()
    .filter_map(|(setting, differs)| differs.then_some(setting))
    .collect()
}

/// The longest path of a Unix socket in bytes, without the terminating zero (sun_path has 108 bytes on Linux, 104 on
/// macOS).
const SOCKET_PATH_MAX: usize = 103;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// 365.25 days, as in humantime.
const YEAR: Duration = Duration::from_secs(31_557_600);

/// Merges flags, environment and file.
///
/// # Errors
/// Names the first invalid value.
pub(super) fn merge(
    overrides: &Overrides,
    environment: &Environment<'_>,
    default_paths: &DefaultPaths,
    file: ConfigFile,
) -> Result<Settings, ConfigError> {
    let path = |name| path_in(environment.variable, name);
    // A path in the file cannot be relative: the daemon's working directory may be any.
    absolute("store.path", file.store.path.as_deref())?;
    absolute("socket.path", file.socket.path.as_deref())?;
    absolute("central.password_file", file.central.password_file.as_deref())?;
    let (stale_after, heartbeat_interval) = heartbeat_durations(&file)?;
    let refresh_after = refresh_after(file.central.refresh_after.as_deref(), stale_after, heartbeat_interval)?;
    let state_dir =
        first([overrides.state_dir.clone(), path(STATE_DIR_VAR), file.store.path, default_paths.state_dir.clone()])
            .ok_or_else(|| ConfigError::key("store.path", "HOME is not set; give the folder with --state-dir"))?;
    let socket_path =
        first([overrides.socket.clone(), path(SOCKET_VAR), file.socket.path, default_paths.socket(Some(&state_dir))])
            .unwrap_or_else(|| state_dir.join("sessiond.sock"));
    let keep_closed = file.sessions.keep_closed.as_deref();
    Ok(Settings {
        machine: MachineSettings {
            name: machine_name(overrides, environment, file.machine.name)?,
            allow_other: file.machine.allow_other.unwrap_or(true),
        },
        central: central(overrides, environment, file.central)?,
        heartbeat_interval,
        refresh_after,
        stale_after,
        keep_closed: duration("sessions.keep_closed", keep_closed, 7 * DAY, 60 * SECOND..=10 * YEAR)?,
        durability: durability(file.store.durability.as_deref())?,
        max_size: size(file.store.max_size.as_deref())?,
        socket: socket(socket_path, file.socket.mode.as_deref(), file.socket.group)?,
        state_dir,
        log: log(overrides, &file.log)?,
        scope: mirror::scope(file.mirror)?,
        notify: notify::settings(file.notify)?,
        claude: claude(environment, file.claude, &file.agents)?,
    })
}

/// `stale_after` and `heartbeat_interval`.
fn heartbeat_durations(file: &ConfigFile) -> Result<(Duration, Duration), ConfigError> {
    let stale_after = file.sessions.stale_after.as_deref();
    let stale_after = duration("sessions.stale_after", stale_after, 120 * SECOND, 5 * SECOND..=DAY)?;
    // Several heartbeats within stale_after, also where only that is configured.
    let default = (stale_after / 4).clamp(SECOND, 30 * SECOND);
    let interval = file.central.heartbeat_interval.as_deref();
    let interval = duration("central.heartbeat_interval", interval, default, SECOND..=HOUR)?;
    if stale_after <= interval {
        return Err(ConfigError::key(
            "sessions.stale_after",
            "it must be longer than central.heartbeat_interval, or live sessions would become stale between heartbeats",
        ));
    }
    Ok((stale_after, interval))
}

/// How old the heartbeat of a live session in central may become. Clients without a daemon would take the session for stale if
/// it were close to `stale_after`: after it is due, half an interval may pass until it is pushed, and the newest heartbeat may
/// be one interval old.
fn refresh_after(text: Option<&str>, stale_after: Duration, interval: Duration) -> Result<Duration, ConfigError> {
    const KEY: &str = "central.refresh_after";
    let longest = stale_after.saturating_sub(2 * interval);
    let default = (2 * interval).min(60 * SECOND).min(longest);
    let value = duration(KEY, text, default, SECOND..=DAY)?;
    if text.is_some() && value > longest {
        let rule = format!(
            "it must be at most sessions.stale_after minus two of central.heartbeat_interval, which is {}: other clients \
             would take live sessions for stale",
            format_limit(longest)
        );
        return Err(ConfigError::key(KEY, rule));
    }
    Ok(value)
}

/// A value as an error may quote it: central's URL may have been set for the wrong key.
pub(super) fn quotable(value: &str) -> String {
    let may_hold_a_password = has_password(value) || value.contains("://");
    if may_hold_a_password { "(a value that may hold a password)".to_owned() } else { quotation(value) }
}

fn absolute(key: &str, path: Option<&Path>) -> Result<(), ConfigError> {
    match path.filter(|path| !path.is_absolute()) {
        None => Ok(()),
        Some(path) => {
            let path = quotable(&path.display().to_string());
            Err(ConfigError::key(key, format!("\"{path}\" is not an absolute path")))
        }
    }
}

fn first<T, const N: usize>(candidates: [Option<T>; N]) -> Option<T> {
    candidates.into_iter().flatten().next()
}

fn text(environment: &Environment<'_>, name: &str) -> Option<String> {
    (environment.variable)(name).map(|value| value.to_string_lossy().into_owned())
}

/// The configured name, of which an empty one is an error too.
fn machine_name(
    overrides: &Overrides,
    environment: &Environment<'_>,
    file: Option<String>,
) -> Result<Option<MachineName>, ConfigError> {
    let given = first([
        overrides.machine.clone().map(|name| ("--machine", name)),
        text(environment, "HOST_MACHINE").map(|name| ("HOST_MACHINE", name)),
        file.map(|name| ("machine.name", name)),
    ]);
    let parse = |(source, name): (&str, String)| {
        MachineName::parse(&quotable(&name)).map_err(|invalid| ConfigError::key(source, invalid.rule))
    };
    given.map(parse).transpose()
}

fn central(
    overrides: &Overrides,
    environment: &Environment<'_>,
    file: file::CentralSection,
) -> Result<Option<CentralSettings>, ConfigError> {
    let from_environment = |name| text(environment, name).filter(|url| !url.is_empty()).map(|url| (name, Secret(url)));
    // DATABASE_URL may be the database of another program; SESSIOND_CENTRAL_URL is only used by sessiond.
    let database_url = from_environment("DATABASE_URL").filter(|(_, url)| is_postgres_url(url));
    let url = first([
        overrides.central_url.clone().map(|url| ("--central-url", url)),
        from_environment("SESSIOND_CENTRAL_URL"),
        database_url,
        file.url.map(|url| ("central.url", Secret(url))),
    ]);
    let limits = SECOND / 10..=300 * SECOND;
    // Checked also without a URL, so that errors show before central is configured.
    let pull_interval = duration("central.pull_interval", file.pull_interval.as_deref(), 15 * SECOND, SECOND..=HOUR)?;
    let connect_timeout =
        duration("central.connect_timeout", file.connect_timeout.as_deref(), 5 * SECOND, limits.clone())?;
    let statement_timeout =
        duration("central.statement_timeout", file.statement_timeout.as_deref(), 10 * SECOND, limits)?;
    let Some((source, url)) = url else { return Ok(None) };
    if !is_postgres_url(&url) {
        return Err(ConfigError::key(source, "it must begin with postgres:// or postgresql://"));
    }
    let password_file = file.password_file.or_else(|| systemd_credential(environment));
    Ok(Some(CentralSettings { url, password_file, pull_interval, connect_timeout, statement_timeout }))
}

fn is_postgres_url(url: &Secret) -> bool {
    ["postgres://", "postgresql://"].iter().any(|scheme| url.0.starts_with(scheme))
}

/// Why DATABASE_URL is ignored although it is set: it names another kind of database, probably that of another program.
pub fn unused_database_url(environment: &Environment<'_>) -> Option<&'static str> {
    let url = text(environment, "DATABASE_URL").filter(|url| !url.is_empty())?;
    (!is_postgres_url(&Secret(url))).then_some("DATABASE_URL is not used: it does not begin with postgres://")
}

fn claude(
    environment: &Environment<'_>,
    file: file::ClaudeSection,
    agents: &file::AgentsSection,
) -> Result<ClaudeSettings, ConfigError> {
    absolute("claude.home", file.home.as_deref())?;
    let default = || path_in(environment.variable, "HOME").map(|home| home.join(".claude"));
    Ok(ClaudeSettings {
        watch: file.watch.unwrap_or(true),
        record: agents.record.as_deref().map(parse).transpose()?.unwrap_or_default(),
        home: file.home.or_else(|| path_in(environment.variable, "CLAUDE_CONFIG_DIR")).or_else(default),
        rules: file.rules.unwrap_or_default().into_iter().map(type_rule).collect::<Result<_, _>>()?,
    })
}

fn type_rule(rule: file::TypeRuleEntry) -> Result<TypeRule, ConfigError> {
    const KEY: &str = "claude.rules";
    absolute(KEY, rule.folder.as_deref())?;
    let invalid = |error: Invalid| ConfigError::key(KEY, error);
    let project = rule.project.as_deref().map(|name| Project::parse(&quotable(name))).transpose().map_err(invalid)?;
    let folder = rule.folder.map(|folder| folder.into_os_string().to_string_lossy().into_owned());
    if project.is_none() && folder.is_none() {
        return Err(ConfigError::key(KEY, "a rule must name a project or a folder"));
    }
    let instance_type = InstanceType::parse(&quotable(&rule.instance_type))
        .map_err(|error| ConfigError::key(KEY, format!("type: {}", error.rule)))?;
    Ok(TypeRule { project: project.map(|project| project.to_string()), folder, instance_type })
}

/// The file that `LoadCredential=central-password:...` of a systemd unit provides.
fn systemd_credential(environment: &Environment<'_>) -> Option<PathBuf> {
    path_in(environment.variable, "CREDENTIALS_DIRECTORY")
        .map(|dir| dir.join("central-password"))
        .filter(|p| p.exists())
}

pub(super) fn duration(
    key: &str,
    text: Option<&str>,
    default: Duration,
    allowed: RangeInclusive<Duration>,
) -> Result<Duration, ConfigError> {
    let Some(text) = text else { return Ok(default) };
    let given = quotable(text);
    let value = humantime::parse_duration(text)
        .map_err(|_| ConfigError::key(key, format!("\"{given}\" is not a duration such as 30s or 7d")))?;
    if !allowed.contains(&value) {
        let (min, max) = (format_limit(*allowed.start()), format_limit(*allowed.end()));
        let rule = format!("{given} is not between {min} and {max}");
        return Err(ConfigError::key(key, rule));
    }
    Ok(value)
}

/// A limit in the largest unit that divides it; humantime formats ten years as "9years 11months 27days ...".
fn format_limit(limit: Duration) -> String {
    let units = [(YEAR, "y"), (DAY, "d"), (HOUR, "h"), (60 * SECOND, "m"), (SECOND, "s")];
    let whole = |(unit, _): &&(Duration, &str)| limit >= *unit && limit.as_millis().is_multiple_of(unit.as_millis());
    match units.iter().find(whole) {
        Some((unit, name)) => format!("{}{name}", limit.as_millis() / unit.as_millis()),
        None => format!("{}ms", limit.as_millis()),
    }
}

fn durability(text: Option<&str>) -> Result<Durability, ConfigError> {
    match text {
        None | Some("full") => Ok(Durability::Full),
        Some("normal") => Ok(Durability::Normal),
        Some(other) => {
            Err(ConfigError::key("store.durability", format!("\"{}\" is neither full nor normal", quotable(other))))
        }
    }
}

fn size(text: Option<&str>) -> Result<u64, ConfigError> {
    const LEAST: u64 = 1 << 20;
    let Some(text) = text else { return Ok(1 << 30) };
    let size = text.parse::<bytesize::ByteSize>().map_err(|_| {
        ConfigError::key("store.max_size", format!("\"{}\" is not a size such as 1GiB", quotable(text)))
    })?;
    if size.as_u64() < LEAST {
        return Err(ConfigError::key("store.max_size", format!("{} is less than 1MiB", quotable(text))));
    }
    Ok(size.as_u64())
}

fn socket(path: PathBuf, mode: Option<&str>, group: Option<String>) -> Result<SocketSettings, ConfigError> {
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        let rule = format!(
            "{} is longer than the {SOCKET_PATH_MAX} bytes that a socket's path may have",
            quotable(&path.display().to_string())
        );
        return Err(ConfigError::key("socket.path", rule));
    }
    let mode = mode.unwrap_or("0660");
    // from_str_radix also accepts a sign.
    let octal = u32::from_str_radix(mode, 8).ok().filter(|octal| *octal <= 0o777 && !mode.starts_with('+'));
    let mode = octal.filter(|octal| octal & 0o600 == 0o600).ok_or_else(|| {
        let rule = format!("\"{}\" is not a mode between 0600 and 0777 that gives the owner access", quotable(mode));
        ConfigError::key("socket.mode", rule)
    })?;
    Ok(SocketSettings { path, mode, group: group.filter(|group| !group.is_empty()) })
}

fn log(overrides: &Overrides, file: &file::LogSection) -> Result<LogSettings, ConfigError> {
    let from_file = match file.level.as_deref() {
        None => LevelFilter::INFO,
        Some(level @ ("error" | "warn" | "info" | "debug" | "trace")) => level.parse().unwrap_or(LevelFilter::INFO),
        Some(other) => {
            let rule = format!("\"{}\" is none of error, warn, info, debug, trace", quotable(other));
            return Err(ConfigError::key("log.level", rule));
        }
    };
    let format = match file.format.as_deref() {
        None | Some("auto") => LogFormat::Auto,
        Some("journal") => LogFormat::Journal,
        Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(other) => {
            let rule = format!("\"{}\" is none of auto, journal, text, json", quotable(other));
            return Err(ConfigError::key("log.format", rule));
        }
    };
    Ok(LogSettings { level: overrides.log_level.unwrap_or(from_file), format, file: overrides.log_file.clone() })
}

#[cfg(test)]
mod tests;
