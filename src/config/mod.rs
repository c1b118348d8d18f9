//! Settings: reads the configuration file and merges it with flags and environment variables.
//!
//! Precedence: flag ([`Overrides`]), environment variable ([`Environment`]), file (`ConfigFile`), default. The result
//! ([`Settings`]) is valid: each value is checked here. An error names the key, and never quotes a value that may hold a
//! password.

mod file;
mod mirror;
mod notify;
mod recording;
mod settings;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;

use tracing::level_filters::LevelFilter;

pub use notify::{Channel, NotifyRule, NotifySettings};
pub use recording::recording;
pub use settings::{
    CentralSettings, ClaudeSettings, LogFormat, LogSettings, MachineSettings, Secret, Settings, SocketSettings,
    needs_restart, unused_database_url,
};

use crate::domain::Reason;
use crate::domain::text::one_line;
use crate::platform::default_paths::{CONFIG_VAR, DefaultPaths, Os, path_in};
use file::ConfigFile;

/// Values of command line flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
    /// `--socket`.
    pub socket: Option<PathBuf>,
    /// `--machine`.
    pub machine: Option<String>,
    /// `--central-url`.
    pub central_url: Option<Secret>,
    /// `--log-level`.
    pub log_level: Option<LevelFilter>,
    /// `--log-file`.
    pub log_file: Option<PathBuf>,
}

/// The process's environment, as far as the settings depend on it.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// The system whose default paths count.
    pub os: Os,
    /// Whether the system's paths are the defaults.
    pub is_root: bool,
    /// The value of an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
}

/// Settings, and the file they were read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The merged settings.
    pub settings: Settings,
    /// The path of the configuration file, whether it exists or not.
    pub config_path: Option<PathBuf>,
    pub(crate) file_exists: bool,
}

/// What is wrong with the configuration: one line that names the file or the key. A parser's error is not kept as its
/// source, because it quotes the file, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct ConfigError(Reason);

impl ConfigError {
    fn new(what: impl AsRef<str>) -> Self {
        Self(one_line(what.as_ref()).into())
    }

    /// The value of `key` breaks `rule`.
    fn key(key: &str, rule: impl std::fmt::Display) -> Self {
        Self::new(format!("{key}: {rule}"))
    }

    fn in_file(self, path: &std::path::Path) -> Self {
        let text = one_line(&format!("{}: {}", path.display(), self.0));
        Self(self.0.with_text(text))
    }
}

/// Reads the configuration file, if it exists, and merges it with flags and environment.
///
/// # Errors
/// A file that was given explicitly does not exist; the file cannot be read or parsed; a value is invalid.
pub fn load(overrides: &Overrides, environment: &Environment<'_>) -> Result<Loaded, ConfigError> {
    let default_paths = DefaultPaths::of(environment.os, environment.is_root, environment.variable);
    let named = overrides.config.clone().or_else(|| path_in(environment.variable, CONFIG_VAR));
    let explicit = named.is_some();
    let config_path = named.or_else(|| default_paths.config_file.clone());
    let text = match config_path.as_ref().map(fs::read_to_string) {
        Some(Ok(text)) => Some(text),
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound && !explicit => None,
        Some(Err(error)) => {
            let path = config_path.unwrap_or_default();
            let text = one_line(&format!("the configuration {} cannot be read: {error}", path.display()));
            return Err(ConfigError(Reason::from(text).caused_by(error)));
        }
        None => None,
    };
    let in_file = |error: ConfigError| config_path.as_ref().map_or(error.clone(), |path| error.in_file(path));
    let fragment = text.as_deref().map_or_else(|| Ok(ConfigFile::default()), ConfigFile::parse).map_err(in_file)?;
    let settings = settings::merge(overrides, environment, &default_paths, fragment)?;
    Ok(Loaded { settings, config_path, file_exists: text.is_some() })
}

/// Whether a URL or a connection string of keys and values contains a password. The user info is taken to extend to the
/// last `@`, because passwords often contain slashes, blanks or quotes that should have been escaped.
pub fn has_password(url: &str) -> bool {
    let user_info = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@'));
    user_info.is_some_and(|(user_info, _)| user_info.contains(':')) || sets_password(url)
}

/// Whether the text sets `password`, also as part of another name (`PGPASSWORD`, `sslpassword`), with blanks, or
/// percent-encoded.
pub fn sets_password(text: &str) -> bool {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8_lossy().to_ascii_lowercase();
    let is_set = |rest: &str| rest.trim_start_matches(['"', '\'', ' ', '\t']).starts_with(['=', ':']);
    decoded.split("password").skip(1).any(is_set)
}
