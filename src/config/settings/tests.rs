use std::collections::HashMap;
use std::ffi::OsString;

use super::*;
use crate::platform::default_paths::Os;

fn merged(overrides: &Overrides, variables: &[(&str, &str)], toml: &str) -> Result<Settings, String> {
    let variables: HashMap<_, _> = [("HOME", "/home/me")].iter().chain(variables).copied().collect();
    let variable = |name: &str| variables.get(name).map(OsString::from);
    let environment = Environment { os: Os::Linux, is_root: false, variable: &variable };
    let default_paths = DefaultPaths::user(environment.os, &variable);
    merge(overrides, &environment, &default_paths, ConfigFile::parse(toml).unwrap()).map_err(|error| error.to_string())
}

fn from_file(toml: &str) -> Result<Settings, String> {
    merged(&Overrides::default(), &[], toml)
}

#[test]
fn the_example_has_the_default_values() {
    let example = from_file(include_str!("../../../config.example.toml")).unwrap();
    assert_eq!(example, from_file("").unwrap());
}

#[test]
fn flags_precede_the_environment_which_precedes_the_file() {
    let toml = "[machine]\nname = \"file\"\n[central]\nurl = \"postgres://file\"\n[store]\npath = \"/file\"\n";
    let variables = [("HOST_MACHINE", "env"), ("DATABASE_URL", "postgres://env"), ("SESSIOND_STATE_DIR", "/env")];
    let overrides = Overrides {
        machine: Some("flag".into()),
        central_url: Some(Secret::new("postgres://flag")),
        state_dir: Some("/flag".into()),
        ..Overrides::default()
    };
    let result = |settings: Result<Settings, String>| {
        let s = settings.unwrap();
        let url = s.central.map(|c| c.url.reveal().to_owned());
        (s.machine.name.map(|name| name.to_string()), url, s.state_dir.display().to_string())
    };
    let expect = |who: &str| (Some(who.to_owned()), Some(format!("postgres://{who}")), format!("/{who}"));
    assert_eq!(result(merged(&overrides, &variables, toml)), expect("flag"));
    assert_eq!(result(merged(&Overrides::default(), &variables, toml)), expect("env"));
    assert_eq!(result(from_file(toml)), expect("file"));
    assert_eq!(result(from_file("")), (None, None, "/home/me/.local/state/sessiond".into()));
    let both = [("DATABASE_URL", "postgres://b"), ("SESSIOND_CENTRAL_URL", "postgres://a")];
    assert_eq!(result(merged(&Overrides::default(), &both, "")).1.as_deref(), Some("postgres://a"));
}

#[test]
fn errors_name_the_key_of_an_invalid_value() {
    for (toml, message) in [
        ("[central]\nheartbeat_interval = \"soon\"", "central.heartbeat_interval: \"soon\" is not a duration"),
        ("[central]\nheartbeat_interval = \"10ms\"", "central.heartbeat_interval: 10ms is not between 1s and 1h"),
        ("[central]\nheartbeat_interval = \"3m\"", "sessions.stale_after: it must be longer"),
        ("[central]\nrefresh_after = \"0s\"", "central.refresh_after: 0s is not between 1s and 1d"),
        ("[central]\nrefresh_after = \"61s\"", "central.refresh_after: it must be at most"),
        (
            "[central]\nrefresh_after = \"10s\"\nheartbeat_interval = \"60s\"",
            "central.refresh_after: it must be at most",
        ),
        ("[central]\nurl = \"mysql://u:hunter2@x\"", "central.url: it must begin with postgres://"),
        ("[sessions]\nkeep_closed = \"1s\"", "sessions.keep_closed: 1s is not between"),
        ("[store]\nmax_size = \"huge\"", "store.max_size: \"huge\" is not a size"),
        ("[store]\nmax_size = \"5KiB\"", "store.max_size: 5KiB is less"),
        ("[store]\ndurability = \"some\"", "store.durability: \"some\""),
        ("[socket]\nmode = \"9\"", "socket.mode: \"9\""),
        ("[socket]\nmode = \"0060\"", "socket.mode: \"0060\" is not a mode between"),
        ("[socket]\nmode = \"+660\"", "socket.mode: \"+660\""),
        ("[socket]\npath = \"s.sock\"", "socket.path: \"s.sock\" is not an absolute path"),
        ("[store]\npath = \"\"", "store.path: \"\" is not an absolute path"),
        ("[central]\npassword_file = \"pw\"", "central.password_file: \"pw\" is not an absolute path"),
        ("[sessions]\nkeep_closed = \"11y\"", "sessions.keep_closed: 11y is not between 1m and 10y"),
        ("[sessions]\nkeep_closed = \"a\\nb\"", "sessions.keep_closed: \"a\u{fffd}b\" is not a duration"),
        ("[log]\nlevel = \"loud\"", "log.level: \"loud\""),
        ("[log]\nformat = \"xml\"", "log.format: \"xml\""),
        ("[machine]\nname = \"My-Machine\"", "machine.name: \"My-Machine\" is not a machine name"),
    ] {
        let error = from_file(toml).unwrap_err();
        assert!(error.starts_with(message), "{error}");
        assert!(!error.contains("hunter2") && error.lines().count() == 1, "{error}");
    }
    assert_eq!(from_file("[sessions]\nkeep_closed = \"10y\"").unwrap().keep_closed, 10 * YEAR);
    // It may be the database of another program.
    let elsewhere = merged(&Overrides::default(), &[("DATABASE_URL", "mysql://u:hunter2@x")], "").unwrap();
    assert_eq!(elsewhere.central, None);
    let long = format!("[socket]\npath = \"/{}\"", "x".repeat(120));
    assert!(from_file(&long).unwrap_err().starts_with("socket.path: "));
    assert!(merged(&Overrides::default(), &[("HOST_MACHINE", "")], "").unwrap_err().starts_with("HOST_MACHINE: "));
}

#[test]
fn live_sessions_are_refreshed_well_before_they_would_be_stale() {
    for (toml, seconds) in [
        ("", 60),
        ("[central]\nheartbeat_interval = \"1s\"", 2),
        ("[central]\nheartbeat_interval = \"1s\"\nrefresh_after = \"100s\"", 100),
        ("[central]\nheartbeat_interval = \"50s\"", 20),
        ("[central]\nheartbeat_interval = \"100s\"", 0),
        ("[sessions]\nstale_after = \"1h\"", 60),
    ] {
        assert_eq!(from_file(toml).unwrap().refresh_after, Duration::from_secs(seconds), "{toml}");
    }
}

#[test]
fn debug_output_hides_secrets() {
    let settings = from_file("[central]\nurl = \"postgres://u:hunter2@x/y\"").unwrap();
    assert!(!format!("{settings:?}").contains("hunter2"));
}
