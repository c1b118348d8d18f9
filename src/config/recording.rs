//! How much of the agents' work may be recorded, read by each hook's process: cheaply, and with nothing but this key.
//!
//! A user's file and the system's both count, and the stricter one applies: the administrator may forbid what the user
//! allows, and the user what the administrator allows. Files at the default paths that do not exist say nothing, nor does a system's file that
//! this user may not read: its daemon applies it. Anything else that keeps a file from being read is an error, after which
//! nothing may be recorded.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::file::record_setting;
use super::{ConfigError, Environment};
use crate::domain::text::quotation;
use crate::domain::work::Recording;
use crate::platform::default_paths::{CONFIG_VAR, DefaultPaths, path_in};

/// The largest configuration file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// How much may be recorded by a process in this environment.
///
/// # Errors
/// A file cannot be read or parsed, or its value is none of the three.
pub fn recording(environment: &Environment<'_>) -> Result<Recording, ConfigError> {
    let default = DefaultPaths::of(environment.os, environment.is_root, environment.variable).config_file;
    let own = match (path_in(environment.variable, CONFIG_VAR), default) {
        (Some(named), _) => Some((named, &[][..])),
        (None, default) => default.map(|path| (path, &[ErrorKind::NotFound][..])),
    };
    let system = DefaultPaths::system(environment.os).config_file;
    let system = system.filter(|path| own.as_ref().is_none_or(|(own, _)| own != path));
    let system = system.map(|path| (path, &[ErrorKind::NotFound, ErrorKind::PermissionDenied][..]));
    let mut settings = own.into_iter().chain(system).map(|(path, tolerated)| of_file(&path, tolerated));
    settings.try_fold(Recording::default(), |strictest, setting| Ok(strictest.max(setting?)))
}

/// The setting of a file. The `tolerated` errors mean that it says nothing.
fn of_file(path: &Path, tolerated: &[ErrorKind]) -> Result<Recording, ConfigError> {
    let failed = |what: String| ConfigError::new(format!("the configuration {} {what}", path.display()));
    match fs::metadata(path) {
        // Of a pipe or a device the end may never come.
        Ok(about) if !about.is_file() || about.len() > MAX_BYTES => return Err(failed("is no small file".to_owned())),
        _ => {}
    }
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if tolerated.contains(&error.kind()) => return Ok(Recording::default()),
        Err(error) => return Err(failed(format!("cannot be read: {error}"))),
    };
    let setting = record_setting(&text).map_err(|error| error.in_file(path))?;
    setting.map_or(Ok(Recording::default()), |value| parse(&value).map_err(|error| error.in_file(path)))
}

/// The value of `agents.record`.
///
/// # Errors
/// It is none of the three.
pub(super) fn parse(value: &str) -> Result<Recording, ConfigError> {
    Recording::parse(value).ok_or_else(|| {
        let value = quotation(value);
        ConfigError::key("agents.record", format!("\"{value}\" is none of \"full\", \"titles\" and \"none\""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::default_paths::Os;

    fn of(text: Option<&[u8]>) -> Result<Recording, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        if let Some(text) = text {
            fs::write(&path, text).unwrap();
        }
        let variable = |name: &str| (name == CONFIG_VAR).then(|| path.clone().into_os_string());
        recording(&Environment { os: Os::Linux, is_root: false, variable: &variable })
            .map_err(|error| error.to_string())
    }

    #[test]
    fn recording_is_full_unless_the_file_says_less() {
        assert_eq!(of(Some(b"")), Ok(Recording::Full));
        assert_eq!(of(Some(b"[agents]\nrecord = \"full\"\n")), Ok(Recording::Full));
        assert_eq!(of(Some(b"[agents]\nrecord = \"titles\"\n")), Ok(Recording::Titles));
        assert_eq!(of(Some(b"agents.record = 'none'\n")), Ok(Recording::None));
        assert_eq!(of(Some(b"[of_a_later_version]\nx = 1\n[agents]\nrecord = \"none\"\n")), Ok(Recording::None));
    }

    #[test]
    fn unreadable_configuration_is_an_error() {
        assert!(of(None).is_err(), "a file that was named and does not exist");
        let none = |_: &str| None;
        assert_eq!(
            recording(&Environment { os: Os::Linux, is_root: false, variable: &none })
                .map_err(|error| error.to_string()),
            Ok(Recording::Full)
        );
        for text in [&b"[agents]\nrecord = \"some\""[..], b"[agents]\nrecord = 7", b"[agents", b"\xff\xfe"] {
            let error = of(Some(text)).unwrap_err();
            assert!(error.contains("config.toml") && error.lines().count() == 1, "{error}");
        }
    }
}
