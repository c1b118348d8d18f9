//! The merged input: for each setting the value that wins, and who gave it.

use std::fmt;
use std::path::{Path, PathBuf};

use super::fragment::Fragment;
use super::{ConfigError, Secret, shown};
use crate::platform::places::{Env, Places, SOCKET_VAR, STATE_DIR_VAR, path_in};

/// What the command line says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--state-dir`
    pub state_dir: Option<PathBuf>,
    /// `--socket`
    pub socket: Option<PathBuf>,
    /// `--machine`
    pub machine: Option<String>,
    /// `--central-url`
    pub central_url: Option<Secret>,
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Flag(&'static str),
    Env(&'static str),
    /// A key of the file, as `section.key`.
    File(&'static str),
    /// Nobody gave it; what a person would set is named all the same.
    Default(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Env(name) => f.write_str(name),
            Self::File(key) => write!(f, "{key} in the configuration file"),
            Self::Default(key) => write!(f, "the default of {key}"),
        }
    }
}

/// A value, and who gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given<T> {
    pub value: T,
    pub origin: Origin,
}

impl<T> Given<T> {
    /// Checks the value, or turns it into a better type.
    pub(super) fn check<U>(self, check: impl FnOnce(T) -> Result<U, String>) -> Result<Given<U>, Wrong> {
        let origin = self.origin;
        let value = check(self.value).map_err(|problem| Wrong { origin, problem })?;
        Ok(Given { value, origin })
    }
}

/// A value that is not valid, before it is known in which file it stands.
pub(super) struct Wrong {
    pub origin: Origin,
    pub problem: String,
}

impl Wrong {
    pub(super) fn locate(self, file: Option<&Path>) -> ConfigError {
        match self.origin {
            Origin::Flag(name) | Origin::Env(name) | Origin::Default(name) => {
                ConfigError { place: name.to_owned(), problem: self.problem }
            }
            Origin::File(key) => ConfigError { place: shown(file), problem: format!("{key}: {}", self.problem) },
        }
    }
}

/// The values that win. What only the file can say stays in `file`.
pub(super) struct Input {
    pub machine: Option<Given<String>>,
    pub central_url: Option<Given<Secret>>,
    /// A file that systemd hands this service, readable for it alone.
    pub password_credential: Option<PathBuf>,
    pub state_dir: Given<PathBuf>,
    pub socket: Given<PathBuf>,
    pub file: Fragment,
}

impl Input {
    pub(super) fn merge(overrides: &Overrides, env: Env, file: Fragment, places: Places) -> Result<Self, Wrong> {
        let Overrides { state_dir, socket, machine, central_url, .. } = overrides.clone();
        let state_dir = flag("--state-dir", state_dir)
            .or_else(|| path_var(env, STATE_DIR_VAR))
            .or(in_file("store.path", file.store.path.clone().map(PathBuf::from)))
            .or(default("store.path", places.state_dir.clone()))
            .ok_or_else(homeless)?;
        let socket = flag("--socket", socket)
            .or_else(|| path_var(env, SOCKET_VAR))
            .or(in_file("socket.path", file.socket.path.clone().map(PathBuf::from)))
            .or(default("socket.path", places.socket(Some(&state_dir.value))))
            .ok_or_else(homeless)?;
        let machine = match flag("--machine", machine) {
            Some(given) => Some(given),
            None => text_var(env, "HOST_MACHINE")?.or(in_file("machine.name", file.machine.name.clone())),
        };
        let central_url = match flag("--central-url", central_url) {
            Some(given) => Some(given),
            None => url_vars(env)?.or(in_file("central.url", file.central.url.clone())),
        };
        Ok(Self { machine, central_url, password_credential: credential(env), state_dir, socket, file })
    }
}

fn url_vars(env: Env) -> Result<Option<Given<Secret>>, Wrong> {
    let given = match text_var(env, "SESSIOND_CENTRAL_URL")? {
        Some(given) => Some(given),
        None => text_var(env, "DATABASE_URL")?,
    };
    Ok(given.map(|given| Given { value: given.value.into(), origin: given.origin }))
}

fn flag<T>(name: &'static str, value: Option<T>) -> Option<Given<T>> {
    value.map(|value| Given { value, origin: Origin::Flag(name) })
}

pub(super) fn in_file<T>(key: &'static str, value: Option<T>) -> Option<Given<T>> {
    value.map(|value| Given { value, origin: Origin::File(key) })
}

fn default<T>(key: &'static str, value: Option<T>) -> Option<Given<T>> {
    value.map(|value| Given { value, origin: Origin::Default(key) })
}

fn path_var(env: Env, name: &'static str) -> Option<Given<PathBuf>> {
    path_in(env, name).map(|value| Given { value, origin: Origin::Env(name) })
}

fn text_var(env: Env, name: &'static str) -> Result<Option<Given<String>>, Wrong> {
    let origin = Origin::Env(name);
    let not_text = |_| Wrong { origin, problem: "is not UTF-8 text".to_owned() };
    let text = env(name).filter(|value| !value.is_empty()).map(|value| value.into_string().map_err(not_text));
    Ok(text.transpose()?.map(|value| Given { value, origin }))
}

fn credential(env: Env) -> Option<PathBuf> {
    path_in(env, "CREDENTIALS_DIRECTORY").map(|dir| dir.join("central-password")).filter(|file| file.is_file())
}

fn homeless() -> Wrong {
    Wrong {
        origin: Origin::Default("store.path"),
        problem: "there is no default, since HOME is not set; set HOME, --state-dir or SESSIOND_STATE_DIR".to_owned(),
    }
}
