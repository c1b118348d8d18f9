//! Sets up the daemon's log: text on a terminal, structured fields in the journal under systemd, JSON if configured, a
//! rotated file under launchd.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

use super::log_file::LogFile;
use super::log_text::{SafeJson, safe_fields};
use crate::config::{LogFormat, LogSettings};

/// Changes the level while the daemon runs.
pub(super) struct LogLevel(reload::Handle<Targets, Registry>);

impl LogLevel {
    pub(super) fn set(&self, level: LevelFilter) {
        // It fails only if the subscriber is gone.
        let _ = self.0.reload(targets(level));
    }
}

/// Other crates log warnings at most: their details may contain SQL. The connection pool logs errors only, as it warns
/// when the listening connection ends, which sync reports as the state of the link.
fn targets(level: LevelFilter) -> Targets {
    let others = level.min(LevelFilter::WARN);
    let pool = level.min(LevelFilter::ERROR);
    Targets::new().with_target("sessiond", level).with_target("sqlx_core::pool", pool).with_default(others)
}

/// Starts the log of this process.
///
/// # Errors
/// The log file cannot be opened.
pub(super) fn start(settings: &LogSettings) -> io::Result<LogLevel> {
    let (filter, handle) = reload::Layer::new(targets(settings.level));
    let file = settings.file.as_deref().map(LogFile::open).transpose()?;
    let layer: Box<dyn Layer<_> + Send + Sync> = match (settings.format, file) {
        (LogFormat::Json, Some(file)) => Box::new(fmt::layer().json().with_writer(SafeJson(file))),
        (_, Some(file)) => {
            Box::new(fmt::layer().fmt_fields(safe_fields()).with_ansi(false).with_target(false).with_writer(file))
        }
        (format, None) => to_stderr(format),
    };
    tracing_subscriber::registry().with(filter).with(layer).init();
    std::panic::set_hook(Box::new(log_panic));
    Ok(LogLevel(handle))
}

fn to_stderr(format: LogFormat) -> FilteredLayer {
    match format {
        LogFormat::Json => Box::new(fmt::layer().json().with_writer(SafeJson(io::stderr))),
        LogFormat::Journal => journal().unwrap_or_else(text),
        LogFormat::Auto if std::env::var_os("JOURNAL_STREAM").is_some() && !io::stderr().is_terminal() => {
            journal().unwrap_or_else(text)
        }
        LogFormat::Auto | LogFormat::Text => text(),
    }
}

/// Logs a panic as one line.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let what = panic.payload_as_str().unwrap_or("no message").split(char::is_control).collect::<Vec<_>>().join(" ");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    tracing::error!(place, thread = thread.name().unwrap_or("?"), "a bug: {what}; please report it");
}

type FilteredLayer =
    Box<dyn Layer<tracing_subscriber::layer::Layered<reload::Layer<Targets, Registry>, Registry>> + Send + Sync>;

fn text() -> FilteredLayer {
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let layer = fmt::layer().fmt_fields(safe_fields());
    Box::new(layer.with_ansi(colours).with_target(false).with_writer(io::stderr))
}

/// `None` if the journal's socket does not exist.
fn journal() -> Option<FilteredLayer> {
    let layer = tracing_journald::layer().ok()?;
    Some(Box::new(layer.with_syslog_identifier("sessiond".into())))
}
