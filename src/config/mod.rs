//! The configuration, in three types: the file's `Fragment`, the merged `Input` that remembers where each
//! value came from, and the validated [`Settings`]. An invalid value does not get beyond this module.
//!
//! Pure, apart from [`load`], which reads the file.

mod fragment;
mod input;
mod secret;
mod settings;

use std::io;
use std::path::{Path, PathBuf};

pub use input::{Given, Origin, Overrides};
pub use secret::Secret;
pub use settings::{CentralSettings, LogFormat, LogSettings, Settings, SocketSettings};

use crate::platform::places::{CONFIG_VAR, Env, Os, Places, path_in};
use fragment::Fragment;
use input::Input;

/// A configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    /// The flag, the variable, or the file.
    pub place: String,
    /// What is wrong there, beginning with the key if it stands in a file. Never shows a secret.
    pub problem: String,
}

/// What [`load`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    pub settings: Settings,
    /// The file to watch; none if nobody named one and the environment names no home.
    pub config_path: Option<PathBuf>,
    pub file_was_there: bool,
}

/// Reads and checks the configuration: flags come first, then the environment, the file, the defaults.
/// An empty environment variable counts as one that is not set.
///
/// # Errors
/// One line with the place and the key: a value that is not valid, a file that cannot be read or parsed,
/// or one that was named and does not exist. Without a name, a missing file is none.
pub fn load(overrides: &Overrides, env: Env, is_root: bool) -> Result<Loaded, ConfigError> {
    let places = Places::of(Os::here(), is_root, env);
    let named = overrides.config.clone().or_else(|| path_in(env, CONFIG_VAR));
    let may_be_missing = named.is_none();
    let config_path = named.or_else(|| places.config_file.clone());
    let text = config_path.as_deref().map(|path| read(path, may_be_missing)).transpose()?.flatten();
    let in_file = |problem| ConfigError { place: shown(config_path.as_deref()), problem };
    let fragment = Fragment::parse(text.as_deref().unwrap_or_default()).map_err(in_file)?;
    let input = Input::merge(overrides, env, fragment, places);
    let settings = input.and_then(Settings::check).map_err(|wrong| wrong.locate(config_path.as_deref()))?;
    Ok(Loaded { settings, file_was_there: text.is_some(), config_path })
}

fn read(path: &Path, may_be_missing: bool) -> Result<Option<String>, ConfigError> {
    let problem = match std::fs::read(path).map(String::from_utf8) {
        Ok(Ok(text)) => return Ok(Some(text)),
        Ok(Err(_)) => "is not UTF-8 text".to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound && may_be_missing => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            "there is no such file; create it, or leave --config and SESSIOND_CONFIG out".to_owned()
        }
        Err(error) => format!("cannot be read: {error}"),
    };
    Err(ConfigError { place: shown(Some(path)), problem })
}

fn shown(path: Option<&Path>) -> String {
    path.map_or_else(|| "the configuration".to_owned(), |path| fragment::one_line(&path.display().to_string()))
}

#[cfg(test)]
mod tests;
