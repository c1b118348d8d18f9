//! The settings as the daemon uses them: each is known to be valid.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use tracing::Level;

use super::Secret;
use super::fragment::{self, one_line};
use super::input::{Given, Input, Origin, Wrong, in_file};
use crate::domain::MachineName;
use crate::store::Durability;

/// The shorter of the systems' limits for a socket's path is 103 bytes (sun_path of macOS).
const SOCKET_PATH_MAX: usize = 100;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// As humantime counts: 365.25 days.
const YEAR: Duration = Duration::from_secs(31_557_600);

#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The name that somebody asked for; without one the pinned name holds.
    pub machine: Option<Given<MachineName>>,
    /// Whether a register call may name another machine.
    pub allow_other: bool,
    /// None: the store alone, on this machine alone.
    pub central: Option<CentralSettings>,
    /// 5 s to 1 day, longer than the heartbeat interval.
    pub stale_after: Duration,
    /// 1 minute to 10 years.
    pub keep_closed: Duration,
    pub durability: Durability,
    /// In bytes, at least 1 MiB.
    pub max_size: u64,
    pub state_dir: PathBuf,
    pub socket: SocketSettings,
    pub log: LogSettings,
    /// Find local Claude Code sessions by themselves.
    pub claude_watch: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CentralSettings {
    /// Begins with postgres:// or postgresql://; what it leaves out, libpq's conventions say.
    pub url: Secret,
    pub password_file: Option<PathBuf>,
    /// 1 s to 1 h.
    pub heartbeat_interval: Duration,
    /// 1 s to 1 h.
    pub pull_interval: Duration,
    /// 100 ms to 5 min.
    pub connect_timeout: Duration,
    /// 100 ms to 5 min.
    pub statement_timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketSettings {
    /// At most 100 bytes long.
    pub path: PathBuf,
    /// Permission bits, 0 to 0o777.
    pub mode: u32,
    /// The name or the number of a group that is let in; whether there is one is not known yet.
    pub group: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    pub level: Level,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// The journal under systemd, text elsewhere.
    Auto,
    Journal,
    Text,
    Json,
}

impl Settings {
    pub(super) fn check(input: Input) -> Result<Self, Wrong> {
        let Input { machine, central_url, password_credential, state_dir, socket, file } = input;
        let fragment::Fragment { machine: machine_file, central, sessions, store, socket: socket_file, log, claude } =
            file;
        let name = |name: String| MachineName::parse(&name).map_err(|invalid| invalid.rule);
        let stale_after = duration("sessions.stale_after", sessions.stale_after, 120 * SECOND, 5 * SECOND..=DAY)?;
        Ok(Self {
            machine: machine.map(|given| given.check(name)).transpose()?,
            allow_other: machine_file.allow_other.unwrap_or(true),
            central: check_central(central_url, central, password_credential, stale_after)?,
            stale_after,
            keep_closed: duration("sessions.keep_closed", sessions.keep_closed, 7 * DAY, MINUTE..=10 * YEAR)?,
            durability: keyed("store.durability", store.durability, Durability::Full, durability)?,
            max_size: keyed("store.max_size", store.max_size, bytesize::gib(1_u64), max_size)?,
            state_dir: state_dir.check_path()?.value,
            socket: SocketSettings {
                path: socket.check_path()?.check(socket_path)?.value,
                mode: keyed("socket.mode", socket_file.mode, 0o660, mode)?,
                group: keyed("socket.group", socket_file.group, None, |name| group(name).map(Some))?,
            },
            log: LogSettings {
                level: keyed("log.level", log.level, Level::INFO, level)?,
                format: keyed("log.format", log.format, LogFormat::Auto, format)?,
            },
            claude_watch: claude.watch.unwrap_or(true),
        })
    }

    /// The keys whose change from these settings to `new` takes effect only at the next start.
    pub fn needing_restart(&self, new: &Self) -> Vec<&'static str> {
        let name = |settings: &Self| settings.machine.as_ref().map(|given| given.value.clone());
        let changed = [
            ("machine.name", name(self) != name(new)),
            ("store.path", self.state_dir != new.state_dir),
            ("store.durability", self.durability != new.durability),
            ("store.max_size", self.max_size != new.max_size),
            ("socket.path", self.socket.path != new.socket.path),
        ];
        changed.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }
}

/// Checks the whole section even when no URL makes use of it: a mistake is told before it matters.
fn check_central(
    url: Option<Given<Secret>>,
    file: fragment::Central,
    credential: Option<PathBuf>,
    stale_after: Duration,
) -> Result<Option<CentralSettings>, Wrong> {
    let often = SECOND..=HOUR;
    let patience = Duration::from_millis(100)..=5 * MINUTE;
    // Left alone, it is always well below stale_after.
    let usual = (30 * SECOND).min(stale_after / 3);
    let beat = duration("central.heartbeat_interval", file.heartbeat_interval, usual, often.clone())?;
    if beat >= stale_after {
        let problem = format!("{} must be shorter than sessions.stale_after, {}", spoken(beat), spoken(stale_after));
        return Err(Wrong { origin: Origin::File("central.heartbeat_interval"), problem });
    }
    let pull_interval = duration("central.pull_interval", file.pull_interval, 15 * SECOND, often)?;
    let connect_timeout = duration("central.connect_timeout", file.connect_timeout, 5 * SECOND, patience.clone())?;
    let statement_timeout = duration("central.statement_timeout", file.statement_timeout, 10 * SECOND, patience)?;
    let password_file = in_file("central.password_file", file.password_file.map(PathBuf::from));
    let password_file = password_file.map(Given::check_path).transpose()?.map(|given| given.value).or(credential);
    Ok(url.map(|url| url.check(postgres)).transpose()?.map(|url| CentralSettings {
        url: url.value,
        password_file,
        heartbeat_interval: beat,
        pull_interval,
        connect_timeout,
        statement_timeout,
    }))
}

impl Given<PathBuf> {
    /// A flag or a variable is relative to where it was given; a file is read from anywhere.
    fn check_path(self) -> Result<Self, Wrong> {
        let in_file = matches!(self.origin, Origin::File(_));
        let absolute = |path: PathBuf| match path.is_absolute() || !(in_file || path.as_os_str().is_empty()) {
            true => Ok(path),
            false => Err(format!("\"{}\" is not an absolute path", one_line(&path.display().to_string()))),
        };
        self.check(absolute)
    }
}

/// Reads the text of a key, or takes its default.
fn keyed<T>(
    key: &'static str,
    text: Option<String>,
    default: T,
    read: impl FnOnce(String) -> Result<T, String>,
) -> Result<T, Wrong> {
    in_file(key, text).map_or(Ok(default), |given| given.check(read).map(|given| given.value))
}

fn duration(
    key: &'static str,
    text: Option<String>,
    default: Duration,
    range: RangeInclusive<Duration>,
) -> Result<Duration, Wrong> {
    keyed(key, text, default, |text| {
        let shown = one_line(&text);
        let value = humantime::parse_duration(&text)
            .map_err(|_| format!("\"{shown}\" is not a length of time such as \"30s\", \"5m\" or \"7d\""))?;
        let [least, most] = [range.start(), range.end()].map(|limit| spoken(*limit));
        range.contains(&value).then_some(value).ok_or(format!("\"{shown}\" is not within {least} and {most}"))
    })
}

/// A limit in the largest unit that divides it: humantime would call ten years "9years 11months 28days".
fn spoken(limit: Duration) -> String {
    let units = [(YEAR, "y"), (DAY, "d"), (HOUR, "h"), (MINUTE, "m"), (SECOND, "s")];
    let whole = |(unit, _): &&(Duration, &str)| limit >= *unit && limit.as_millis().is_multiple_of(unit.as_millis());
    match units.iter().find(whole) {
        Some((unit, name)) => format!("{}{name}", limit.as_millis() / unit.as_millis()),
        None => format!("{}ms", limit.as_millis()),
    }
}

fn max_size(text: String) -> Result<u64, String> {
    let shown = one_line(&text);
    let size: ByteSize =
        text.parse().map_err(|_| format!("\"{shown}\" is not a size such as \"512MiB\" or \"1GiB\""))?;
    (size >= ByteSize::mib(1)).then_some(size.as_u64()).ok_or(format!("\"{shown}\" is too small; at least 1MiB"))
}

fn durability(text: String) -> Result<Durability, String> {
    one_of(&text, &[Durability::Full, Durability::Normal].map(|kind| (kind.as_str(), kind)))
}

fn level(text: String) -> Result<Level, String> {
    let levels = [
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
        ("trace", Level::TRACE),
    ];
    one_of(&text, &levels)
}

fn format(text: String) -> Result<LogFormat, String> {
    let formats = [
        ("auto", LogFormat::Auto),
        ("journal", LogFormat::Journal),
        ("text", LogFormat::Text),
        ("json", LogFormat::Json),
    ];
    one_of(&text, &formats)
}

fn one_of<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let chosen = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    let names = || choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    chosen.ok_or_else(|| format!("\"{}\" is none of {}", one_line(text), names()))
}

fn mode(text: String) -> Result<u32, String> {
    let octal = text.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    let mode = u32::from_str_radix(&text, 8).ok().filter(|&mode| octal && mode <= 0o777);
    let mode = mode.ok_or(format!("\"{}\" is not an octal mode between \"0600\" and \"0777\"", one_line(&text)))?;
    (mode & 0o600 == 0o600).then_some(mode).ok_or(format!("\"{text}\" keeps the socket's own owner out; add 0600"))
}

fn group(name: String) -> Result<String, String> {
    if name.is_empty() { Err("names no group; leave the key out for none".to_owned()) } else { Ok(name) }
}

fn socket_path(path: PathBuf) -> Result<PathBuf, String> {
    let length = path.as_os_str().len();
    if length <= SOCKET_PATH_MAX {
        return Ok(path);
    }
    Err(format!(
        "{length} bytes are too long for a socket's path, at most {SOCKET_PATH_MAX}; \
         set a shorter one by --socket, SESSIOND_SOCKET or socket.path"
    ))
}

fn postgres(url: Secret) -> Result<Secret, String> {
    let known = ["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme));
    known.then_some(url).ok_or("central's URL must begin with postgres:// or postgresql://".to_owned())
}
