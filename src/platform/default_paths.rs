//! The default paths of the configuration, the state folder and the socket.
//!
//! Pure functions of the environment and the operating system, so that each system's paths are tested on any.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Looks up an environment variable.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

pub(crate) const CONFIG_VAR: &str = "SESSIOND_CONFIG";
pub(crate) const STATE_DIR_VAR: &str = "SESSIOND_STATE_DIR";
pub(crate) const SOCKET_VAR: &str = "SESSIOND_SOCKET";

const SOCKET: &str = "sessiond.sock";

/// The systems that sessiond supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Os {
    /// Linux, with or without systemd.
    Linux,
    /// macOS, with launchd.
    MacOs,
}

impl Os {
    /// The system this binary was built for.
    pub const fn here() -> Self {
        if cfg!(target_os = "macos") { Self::MacOs } else { Self::Linux }
    }
}

/// The default paths; a user's are `None` if the environment names no home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultPaths {
    /// The configuration file.
    pub(crate) config_file: Option<PathBuf>,
    /// The state folder.
    pub(crate) state_dir: Option<PathBuf>,
    /// The socket's folder; if `None`, the socket is in the state folder in use.
    pub runtime_dir: Option<PathBuf>,
}

impl DefaultPaths {
    /// The system's paths for root, the user's own for other users.
    pub fn of(os: Os, is_root: bool, env: Env) -> Self {
        if is_root { Self::system(os) } else { Self::user(os, env) }
    }

    /// The system's paths.
    pub fn system(os: Os) -> Self {
        let runtime_dir = match os {
            Os::Linux => "/run/sessiond",
            // macOS has no /run, and its read-only root does not allow one.
            Os::MacOs => "/var/run/sessiond",
        };
        Self {
            config_file: Some("/etc/sessiond/config.toml".into()),
            state_dir: Some("/var/lib/sessiond".into()),
            runtime_dir: Some(runtime_dir.into()),
        }
    }

    /// The paths of the user whose environment this is.
    pub fn user(os: Os, env: Env) -> Self {
        let home = absolute(env, "HOME");
        let in_home = |below: &str| home.as_ref().map(|home| home.join(below));
        let (config_dir, state_dir, runtime_dir) = match os {
            Os::Linux => (
                absolute(env, "XDG_CONFIG_HOME").or_else(|| in_home(".config")),
                absolute(env, "XDG_STATE_HOME").or_else(|| in_home(".local/state")),
                absolute(env, "XDG_RUNTIME_DIR"),
            ),
            Os::MacOs => {
                let support = in_home("Library/Application Support");
                (support.clone(), support, None)
            }
        };
        Self {
            config_file: config_dir.map(|dir| dir.join("sessiond/config.toml")),
            state_dir: state_dir.map(|dir| dir.join("sessiond")),
            runtime_dir: runtime_dir.map(|dir| dir.join("sessiond")),
        }
    }

    /// The socket of a daemon whose state folder is `state_dir`.
    pub fn socket(&self, state_dir: Option<&Path>) -> Option<PathBuf> {
        self.runtime_dir.as_deref().or(state_dir).map(|dir| dir.join(SOCKET))
    }
}

/// The sockets that a client tries, in order.
///
/// A socket given by `--socket` or SESSIOND_SOCKET is the only one: using another daemon while that one is down would
/// write into the wrong store.
pub fn socket_candidates(os: Os, flag: Option<&Path>, env: Env) -> Vec<PathBuf> {
    if let Some(named) = flag.map(Path::to_path_buf).or_else(|| path_in(env, SOCKET_VAR)) {
        return vec![named];
    }
    let user = DefaultPaths::user(os, env);
    let state_dir = path_in(env, STATE_DIR_VAR).or_else(|| user.state_dir.clone());
    let system = DefaultPaths::system(os).socket(None);
    user.socket(state_dir.as_deref()).into_iter().chain(system).collect()
}

/// A path from the environment; an empty variable is treated as not set.
pub fn path_in(env: Env, name: &str) -> Option<PathBuf> {
    env(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The XDG specification: "If an implementation encounters a relative path it should [...] ignore it".
fn absolute(env: Env, name: &str) -> Option<PathBuf> {
    path_in(env, name).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(vars: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<OsString> {
        move |name| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(*value))
    }

    fn paths(os: Os, is_root: bool, vars: &'static [(&'static str, &'static str)]) -> [Option<String>; 3] {
        let paths = DefaultPaths::of(os, is_root, &lookup(vars));
        let socket = paths.socket(paths.state_dir.as_deref());
        [paths.config_file, paths.state_dir, socket].map(|path| path.map(|path| path.display().to_string()))
    }

    #[track_caller]
    fn assert_paths(
        os: Os,
        is_root: bool,
        vars: &'static [(&'static str, &'static str)],
        [config, state, socket]: [&str; 3],
    ) {
        assert_eq!(paths(os, is_root, vars), [Some(config.into()), Some(state.into()), Some(socket.into())]);
    }

    #[test]
    fn the_system_service_has_fixed_paths() {
        let vars = &[("HOME", "/root"), ("XDG_CONFIG_HOME", "/x"), ("XDG_RUNTIME_DIR", "/y")];
        let [config, state] = ["/etc/sessiond/config.toml", "/var/lib/sessiond"];
        assert_paths(Os::Linux, true, vars, [config, state, "/run/sessiond/sessiond.sock"]);
        assert_paths(Os::MacOs, true, vars, [config, state, "/var/run/sessiond/sessiond.sock"]);
    }

    #[test]
    fn a_user_on_linux_follows_xdg() {
        assert_paths(
            Os::Linux,
            false,
            &[
                ("HOME", "/home/a"),
                ("XDG_CONFIG_HOME", "/c"),
                ("XDG_STATE_HOME", "/s"),
                ("XDG_RUNTIME_DIR", "/run/user/7"),
            ],
            ["/c/sessiond/config.toml", "/s/sessiond", "/run/user/7/sessiond/sessiond.sock"],
        );
    }

    #[test]
    fn without_xdg_variables_paths_are_in_home_and_the_socket_in_the_state_folder() {
        let expected = [
            "/home/a/.config/sessiond/config.toml",
            "/home/a/.local/state/sessiond",
            "/home/a/.local/state/sessiond/sessiond.sock",
        ];
        assert_paths(Os::Linux, false, &[("HOME", "/home/a")], expected);
        let ignored = &[
            ("HOME", "/home/a"),
            ("XDG_CONFIG_HOME", ""),
            ("XDG_STATE_HOME", "relative/state"),
            ("XDG_RUNTIME_DIR", "./run"),
        ];
        assert_paths(Os::Linux, false, ignored, expected);
    }

    #[test]
    fn a_user_on_macos_has_all_paths_in_application_support() {
        let dir = "/Users/a/Library/Application Support/sessiond";
        assert_paths(
            Os::MacOs,
            false,
            &[("HOME", "/Users/a"), ("XDG_STATE_HOME", "/s"), ("XDG_RUNTIME_DIR", "/r")],
            [&format!("{dir}/config.toml"), dir, &format!("{dir}/sessiond.sock")],
        );
    }

    #[test]
    fn without_a_home_there_are_no_paths() {
        for os in [Os::Linux, Os::MacOs] {
            assert_eq!(paths(os, false, &[]), [None, None, None]);
            assert_eq!(paths(os, false, &[("HOME", "")]), [None, None, None]);
        }
    }

    fn candidates(os: Os, flag: Option<&str>, vars: &'static [(&'static str, &'static str)]) -> Vec<String> {
        let found = socket_candidates(os, flag.map(Path::new), &lookup(vars));
        found.iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn an_explicit_socket_is_the_only_candidate() {
        let vars = &[("SESSIOND_SOCKET", "/env.sock"), ("HOME", "/home/a")];
        assert_eq!(candidates(Os::Linux, Some("/flag.sock"), vars), ["/flag.sock"]);
        assert_eq!(candidates(Os::Linux, None, vars), ["/env.sock"]);
    }

    #[test]
    fn the_user_socket_precedes_the_system_socket() {
        let system = "/run/sessiond/sessiond.sock";
        assert_eq!(
            candidates(Os::Linux, None, &[("SESSIOND_SOCKET", ""), ("XDG_RUNTIME_DIR", "/run/user/7")]),
            ["/run/user/7/sessiond/sessiond.sock", system]
        );
        assert_eq!(
            candidates(Os::Linux, None, &[("HOME", "/home/a")]),
            ["/home/a/.local/state/sessiond/sessiond.sock", system]
        );
        assert_eq!(
            candidates(Os::Linux, None, &[("HOME", "/home/a"), ("SESSIOND_STATE_DIR", "/moved")]),
            ["/moved/sessiond.sock", system]
        );
        assert_eq!(candidates(Os::Linux, None, &[]), [system]);
        assert_eq!(
            candidates(Os::MacOs, None, &[("HOME", "/Users/a")]),
            ["/Users/a/Library/Application Support/sessiond/sessiond.sock", "/var/run/sessiond/sessiond.sock"]
        );
    }
}
