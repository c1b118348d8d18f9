//! Where the configuration, the state and the socket lie unless somebody says otherwise.
//!
//! Pure: the environment and the system come in as arguments, so each system's places are tested on any.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Looks an environment variable up.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

pub const CONFIG_VAR: &str = "SESSIOND_CONFIG";
pub const STATE_DIR_VAR: &str = "SESSIOND_STATE_DIR";
pub const SOCKET_VAR: &str = "SESSIOND_SOCKET";

const SOCKET: &str = "sessiond.sock";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Os {
    Linux,
    MacOs,
}

impl Os {
    /// The system this binary was built for.
    pub const fn here() -> Self {
        if cfg!(target_os = "macos") { Self::MacOs } else { Self::Linux }
    }
}

/// The default places; those of a user are unknown where the environment names no home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    pub config_file: Option<PathBuf>,
    pub state_dir: Option<PathBuf>,
    /// The socket's folder; without one the socket lies in the state folder, wherever that was moved to.
    pub runtime_dir: Option<PathBuf>,
}

impl Places {
    /// The system's places for root, the user's own for everybody else.
    pub fn of(os: Os, is_root: bool, env: Env) -> Self {
        if is_root { Self::system(os) } else { Self::user(os, env) }
    }

    pub fn system(os: Os) -> Self {
        let runtime_dir = match os {
            Os::Linux => "/run/sessiond",
            // macOS has no /run, and its sealed root lets nobody make one.
            Os::MacOs => "/var/run/sessiond",
        };
        Self {
            config_file: Some("/etc/sessiond/config.toml".into()),
            state_dir: Some("/var/lib/sessiond".into()),
            runtime_dir: Some(runtime_dir.into()),
        }
    }

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

    /// The socket of a daemon that keeps its state in `state_dir`.
    pub fn socket(&self, state_dir: Option<&Path>) -> Option<PathBuf> {
        self.runtime_dir.as_deref().or(state_dir).map(|dir| dir.join(SOCKET))
    }
}

/// Where a client looks for the daemon, in this order.
///
/// A socket that was named, by `--socket` or SESSIOND_SOCKET, is the only one: to speak to some other
/// daemon because the named one is down would write into the wrong store.
pub fn socket_candidates(os: Os, flag: Option<&Path>, env: Env) -> Vec<PathBuf> {
    if let Some(named) = flag.map(Path::to_path_buf).or_else(|| path_in(env, SOCKET_VAR)) {
        return vec![named];
    }
    let user = Places::user(os, env);
    let state_dir = path_in(env, STATE_DIR_VAR).or_else(|| user.state_dir.clone());
    let system = Places::system(os).socket(None);
    user.socket(state_dir.as_deref()).into_iter().chain(system).collect()
}

/// A path from the environment; an empty variable counts as one that is not set.
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

    fn shown(os: Os, is_root: bool, vars: &'static [(&'static str, &'static str)]) -> [Option<String>; 3] {
        let places = Places::of(os, is_root, &lookup(vars));
        let socket = places.socket(places.state_dir.as_deref());
        [places.config_file, places.state_dir, socket].map(|path| path.map(|path| path.display().to_string()))
    }

    #[track_caller]
    fn assert_places(
        os: Os,
        is_root: bool,
        vars: &'static [(&'static str, &'static str)],
        [config, state, socket]: [&str; 3],
    ) {
        assert_eq!(shown(os, is_root, vars), [Some(config.into()), Some(state.into()), Some(socket.into())]);
    }

    #[test]
    fn the_system_service_has_fixed_places() {
        let vars = &[("HOME", "/root"), ("XDG_CONFIG_HOME", "/x"), ("XDG_RUNTIME_DIR", "/y")];
        let [config, state] = ["/etc/sessiond/config.toml", "/var/lib/sessiond"];
        assert_places(Os::Linux, true, vars, [config, state, "/run/sessiond/sessiond.sock"]);
        assert_places(Os::MacOs, true, vars, [config, state, "/var/run/sessiond/sessiond.sock"]);
    }

    #[test]
    fn a_user_on_linux_follows_xdg() {
        assert_places(
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
    fn what_xdg_leaves_out_lies_below_home_and_the_socket_in_the_state_folder() {
        let expected = [
            "/home/a/.config/sessiond/config.toml",
            "/home/a/.local/state/sessiond",
            "/home/a/.local/state/sessiond/sessiond.sock",
        ];
        assert_places(Os::Linux, false, &[("HOME", "/home/a")], expected);
        let ignored = &[
            ("HOME", "/home/a"),
            ("XDG_CONFIG_HOME", ""),
            ("XDG_STATE_HOME", "relative/state"),
            ("XDG_RUNTIME_DIR", "./run"),
        ];
        assert_places(Os::Linux, false, ignored, expected);
    }

    #[test]
    fn a_user_on_macos_has_everything_in_application_support() {
        let dir = "/Users/a/Library/Application Support/sessiond";
        assert_places(
            Os::MacOs,
            false,
            &[("HOME", "/Users/a"), ("XDG_STATE_HOME", "/s"), ("XDG_RUNTIME_DIR", "/r")],
            [&format!("{dir}/config.toml"), dir, &format!("{dir}/sessiond.sock")],
        );
    }

    #[test]
    fn without_a_home_nothing_is_made_up() {
        for os in [Os::Linux, Os::MacOs] {
            assert_eq!(shown(os, false, &[]), [None, None, None]);
            assert_eq!(shown(os, false, &[("HOME", "")]), [None, None, None]);
        }
    }

    fn candidates(os: Os, flag: Option<&str>, vars: &'static [(&'static str, &'static str)]) -> Vec<String> {
        let found = socket_candidates(os, flag.map(Path::new), &lookup(vars));
        found.iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn a_named_socket_is_the_only_candidate() {
        let vars = &[("SESSIOND_SOCKET", "/env.sock"), ("HOME", "/home/a")];
        assert_eq!(candidates(Os::Linux, Some("/flag.sock"), vars), ["/flag.sock"]);
        assert_eq!(candidates(Os::Linux, None, vars), ["/env.sock"]);
    }

    #[test]
    fn otherwise_the_user_socket_comes_before_the_system_socket() {
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
