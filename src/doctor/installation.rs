//! The installation that serves this user: their own, or the system's service with its files and password.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::config::{ConfigError, Environment, Overrides, Settings};
use crate::domain::Finding;
use crate::platform::default_paths::DefaultPaths;
use crate::service::CREDENTIAL_FILES;
use crate::wire::StatusBody;

/// The installation whose files are to be checked.
pub(super) struct ServingInstallation<'a> {
    pub overrides: Overrides,
    pub environment: Environment<'a>,
    /// Whether it is the system's service.
    pub is_system: bool,
    /// Whether it is the system's service, and this user is not root.
    pub lacks_rights: bool,
}

impl<'a> ServingInstallation<'a> {
    /// Decides by the daemon that answers. If it is the system's service, its configuration is checked and not the one in the
    /// user's home, and without the variables of the user's shell.
    pub(super) fn by(status: Option<&StatusBody>, overrides: &Overrides, environment: &Environment<'a>) -> Self {
        let system = DefaultPaths::system(environment.os);
        let is_system = status.is_some_and(|status| system.state_dir.as_deref() == Some(Path::new(&status.store.path)));
        let own = Self {
            overrides: overrides.clone(),
            environment: *environment,
            is_system,
            lacks_rights: is_system && !environment.is_root,
        };
        if !is_system || overrides.config.is_some() {
            return own;
        }
        let config = status.and_then(|status| status.config.path.as_ref()).map(PathBuf::from);
        Self {
            overrides: Overrides { config, ..own.overrides },
            environment: Environment { is_root: true, variable: &|_| None, ..own.environment },
            ..own
        }
    }

    /// The finding of a configuration that only this user may not read.
    pub(super) fn unreadable(&self, error: &ConfigError) -> Option<Finding> {
        let path = self.overrides.config.as_deref()?;
        let denied = File::open(path).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied);
        (self.lacks_rights && denied)
            .then(|| Finding::odd("config", format!("not checked: {error}"), "run `sudo sessiond doctor`"))
    }

    /// Adds the password file that the unit loads with LoadCredential=.
    pub(super) fn add_credential(&self, settings: &mut Settings) {
        if let Some(central) = settings.central.as_mut().filter(|_| self.is_system) {
            let credential = || CREDENTIAL_FILES.iter().map(PathBuf::from).find(|path| path.exists());
            central.password_file = central.password_file.take().or_else(credential);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::default_paths::Os;

    fn status(store: &str, config: Option<&str>) -> StatusBody {
        let body = serde_json::json!({
            "daemon": {"version": "0", "pid": 1, "started_at": "", "uptime_seconds": 0},
            "machine": {"name": "odin3", "host_id": "", "pinned_at": "", "conflict": null},
            "central": {"configured": false, "state": "off", "since": "", "last_error": null, "last_sync_at": null,
                "round_trip_ms": null},
            "backlog": {"sessions": 0, "records": 0, "oldest_at": null},
            "parked": 0,
            "sessions": {"active": 0, "stale": 0, "closed": 0},
            "store": {"path": store, "bytes": 0, "durability": "full", "damage": null},
            "config": {"path": config, "error": null},
        });
        serde_json::from_value(body).unwrap()
    }

    #[test]
    fn configuration_of_the_system_service_is_checked_for_its_users() {
        let variable = |name: &str| Some(std::ffi::OsString::from(format!("/home/me/{name}")));
        let environment = Environment { os: Os::Linux, is_root: false, variable: &variable };
        let overrides = Overrides::default();
        let system = status("/var/lib/sessiond", Some("/etc/sessiond/config.toml"));
        let served = ServingInstallation::by(Some(&system), &overrides, &environment);
        assert!(served.is_system && served.lacks_rights && served.environment.is_root);
        assert_eq!(served.overrides.config.as_deref(), Some(Path::new("/etc/sessiond/config.toml")));
        assert_eq!((served.environment.variable)("DATABASE_URL"), None, "a shell's variables are not the service's");

        let own = status("/home/me/.local/state/sessiond", None);
        for status in [Some(&own), None] {
            let served = ServingInstallation::by(status, &overrides, &environment);
            assert!(!served.is_system && !served.lacks_rights && !served.environment.is_root);
            assert!((served.environment.variable)("DATABASE_URL").is_some());
        }
    }

    #[test]
    fn named_configuration_is_checked() {
        let environment = Environment { os: Os::Linux, is_root: true, variable: &|_| None };
        let overrides = Overrides { config: Some("/named".into()), ..Overrides::default() };
        let served = ServingInstallation::by(Some(&status("/var/lib/sessiond", None)), &overrides, &environment);
        assert_eq!(served.overrides.config.as_deref(), Some(Path::new("/named")));
        assert!(served.is_system && !served.lacks_rights);
    }
}
