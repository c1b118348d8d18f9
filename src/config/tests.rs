use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::store::Durability;

/// A configuration file in a folder of its own, and an environment.
struct Bench {
    dir: TempDir,
    env: HashMap<String, OsString>,
    flags: Overrides,
}

impl Bench {
    fn new(file: &str) -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap(), env: HashMap::new(), flags: Overrides::default() };
        fs::write(bench.path(), file).unwrap();
        let path = bench.path();
        bench.var("SESSIOND_CONFIG", path)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    fn var(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.insert(name.to_owned(), value.into());
        self
    }

    fn flag(mut self, set: impl FnOnce(&mut Overrides)) -> Self {
        set(&mut self.flags);
        self
    }

    fn load(&self) -> Result<Loaded, ConfigError> {
        load(&self.flags, &|name| self.env.get(name).cloned(), true)
    }

    #[track_caller]
    fn settings(&self) -> Settings {
        self.load().unwrap().settings
    }

    /// The error's one line, with the file's path shortened to FILE.
    #[track_caller]
    fn refusal(&self) -> String {
        let line = self.load().unwrap_err().to_string();
        assert!(!line.contains('\n'), "{line}");
        line.replace(&self.path().display().to_string(), "FILE")
    }
}

#[track_caller]
fn refusal(file: &str) -> String {
    Bench::new(file).refusal()
}

fn set(file: &str) -> Settings {
    Bench::new(file).settings()
}

const EXAMPLE: &str = include_str!("../../config.example.toml");

/// The example with its commented-out keys: `#key = ...`, where prose has a space behind the `#`.
fn whole_example() -> String {
    let is_key = |rest: &&str| rest.starts_with(|c: char| c.is_ascii_lowercase()) && rest.contains(" = ");
    EXAMPLE.lines().map(|line| line.strip_prefix('#').filter(is_key).unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_covers_exactly_the_known_keys() {
    let document: toml::Table = toml::from_str(&whole_example()).unwrap();
    let keys: Vec<String> = document
        .iter()
        .flat_map(|(section, keys)| keys.as_table().unwrap().keys().map(move |key| format!("{section}.{key}")))
        .collect();
    let [mut keys, mut known] = [keys, fragment::KEYS.iter().map(|key| (*key).to_owned()).collect()];
    keys.sort();
    known.sort();
    assert_eq!(keys, known);
    assert!(Bench::new(&whole_example()).load().is_ok());
}

#[test]
fn the_example_holds_the_defaults() {
    assert_eq!(set(EXAMPLE), set(""));
    // With a URL the defaults of the central section show, too.
    let with_url = |file| Bench::new(file).var("DATABASE_URL", "postgres://h/d").settings();
    assert_eq!(with_url(EXAMPLE), with_url(""));
    assert!(with_url("").central.is_some());
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let settings = Bench::new("").var("DATABASE_URL", "postgres://h/d").settings();
    let central = settings.central.unwrap();
    assert_eq!(central.heartbeat_interval, Duration::from_secs(30));
    assert_eq!(central.pull_interval, Duration::from_secs(15));
    assert_eq!(central.connect_timeout, Duration::from_secs(5));
    assert_eq!(central.statement_timeout, Duration::from_secs(10));
    assert_eq!(central.password_file, None);
    assert_eq!(settings.machine, None);
    assert!(settings.allow_other && settings.claude_watch);
    assert_eq!(settings.stale_after, Duration::from_secs(120));
    assert_eq!(settings.keep_closed, Duration::from_secs(7 * 86_400));
    assert_eq!(settings.durability, Durability::Full);
    assert_eq!(settings.max_size, 1 << 30);
    assert_eq!(settings.state_dir, Path::new("/var/lib/sessiond"));
    assert_eq!((settings.socket.mode, settings.socket.group), (0o660, None));
    assert_eq!(settings.log, LogSettings { level: tracing::Level::INFO, format: LogFormat::Auto });
}

#[test]
fn every_key_is_taken_over() {
    let settings = set(r#"
        [machine]
        name = "laptop"
        allow_other = false
        [central]
        url = "postgresql://u@h/d"
        password_file = "/etc/pw"
        heartbeat_interval = "10s"
        pull_interval = "20s"
        connect_timeout = "100ms"
        statement_timeout = "5m"
        [sessions]
        stale_after = "1m 30s"
        keep_closed = "10y"
        [store]
        path = "/s"
        durability = "normal"
        max_size = "1MiB"
        [socket]
        path = "/s.sock"
        mode = "600"
        group = "staff"
        [log]
        level = "trace"
        format = "json"
        [claude]
        watch = false
    "#);
    let machine = settings.machine.unwrap();
    assert_eq!((machine.value.as_str(), machine.origin), ("laptop", Origin::File("machine.name")));
    let central = CentralSettings {
        url: "postgresql://u@h/d".into(),
        password_file: Some("/etc/pw".into()),
        heartbeat_interval: Duration::from_secs(10),
        pull_interval: Duration::from_secs(20),
        connect_timeout: Duration::from_millis(100),
        statement_timeout: Duration::from_secs(300),
    };
    assert_eq!(settings.central, Some(central));
    assert!(!settings.allow_other && !settings.claude_watch);
    assert_eq!(settings.stale_after, Duration::from_secs(90));
    assert_eq!((settings.durability, settings.max_size), (Durability::Normal, 1 << 20));
    assert_eq!(settings.state_dir, Path::new("/s"));
    assert_eq!(settings.socket, SocketSettings { path: "/s.sock".into(), mode: 0o600, group: Some("staff".into()) });
    assert_eq!(settings.log, LogSettings { level: tracing::Level::TRACE, format: LogFormat::Json });
}

/// Each row takes the highest step away; what is left below it must win.
#[test]
fn flags_come_before_the_environment_the_file_and_the_default() {
    let file = "machine.name = \"file\"\nstore.path = \"/file\"\nsocket.path = \"/file.sock\"\n";
    let file_and_env = || {
        Bench::new(file)
            .var("HOST_MACHINE", "env")
            .var("SESSIOND_STATE_DIR", "/env")
            .var("SESSIOND_SOCKET", "/env.sock")
    };
    let all = || {
        file_and_env().flag(|flags| {
            flags.machine = Some("flag".to_owned());
            flags.state_dir = Some("/flag".into());
            flags.socket = Some("/flag.sock".into());
        })
    };
    let emptied = || Bench::new(file).var("HOST_MACHINE", "").var("SESSIOND_STATE_DIR", "").var("SESSIOND_SOCKET", "");
    for (bench, origin, winner) in [
        (all(), Some(Origin::Flag("--machine")), "flag"),
        (file_and_env(), Some(Origin::Env("HOST_MACHINE")), "env"),
        (Bench::new(file), Some(Origin::File("machine.name")), "file"),
        (emptied(), Some(Origin::File("machine.name")), "file"),
    ] {
        let settings = bench.settings();
        let machine = settings.machine.unwrap();
        assert_eq!((machine.value.as_str(), Some(machine.origin)), (winner, origin));
        assert_eq!(settings.state_dir, Path::new(&format!("/{winner}")));
        assert_eq!(settings.socket.path, Path::new(&format!("/{winner}.sock")));
    }
}

#[test]
fn central_has_four_sources() {
    let url = |bench: Bench| bench.settings().central.map(|central| central.url.expose().to_owned());
    let file = || Bench::new("central.url = \"postgres://file\"");
    let generic = || file().var("DATABASE_URL", "postgres://generic");
    let own = || generic().var("SESSIOND_CENTRAL_URL", "postgres://own");
    let flag = || own().flag(|flags| flags.central_url = Some("postgres://flag".into()));
    assert_eq!(url(flag()).as_deref(), Some("postgres://flag"));
    assert_eq!(url(own()).as_deref(), Some("postgres://own"));
    assert_eq!(url(generic()).as_deref(), Some("postgres://generic"));
    assert_eq!(url(file()).as_deref(), Some("postgres://file"));
    assert_eq!(url(file().var("DATABASE_URL", "")).as_deref(), Some("postgres://file"));
    assert_eq!(url(Bench::new("")), None);
}

#[test]
fn the_file_is_named_by_flag_then_variable() {
    let bench = Bench::new("machine.name = \"variable\"");
    let other = bench.dir.path().join("other.toml");
    fs::write(&other, "machine.name = \"flag\"").unwrap();
    assert_eq!(bench.settings().machine.unwrap().value.as_str(), "variable");
    let loaded = bench.flag(|flags| flags.config = Some(other.clone())).load().unwrap();
    assert_eq!(loaded.settings.machine.unwrap().value.as_str(), "flag");
    assert_eq!((loaded.config_path, loaded.file_was_there), (Some(other), true));
}

#[test]
fn a_missing_file_is_an_error_only_if_it_was_named() {
    let home = tempfile::tempdir().unwrap();
    let env = |name: &str| (name == "HOME").then(|| home.path().as_os_str().to_owned());
    let flags = Overrides { socket: Some("/s.sock".into()), ..Overrides::default() };
    let loaded = load(&flags, &env, false).unwrap();
    assert!(!loaded.file_was_there);
    assert!(loaded.config_path.unwrap().starts_with(home.path()));
    assert!(loaded.settings.state_dir.starts_with(home.path()));

    let named = Overrides { config: Some("/no/such/config.toml".into()), ..Overrides::default() };
    assert_eq!(
        load(&named, &env, false).unwrap_err().to_string(),
        "/no/such/config.toml: there is no such file; create it, or leave --config and SESSIOND_CONFIG out"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let bench = Bench::new("");
    let folder = bench.dir.path().to_path_buf();
    let error = bench.flag(|flags| flags.config = Some(folder)).load().unwrap_err().to_string();
    assert!(error.contains(": cannot be read: "), "{error}");
    let bench = Bench::new("");
    fs::write(bench.path(), b"\xff\xfe").unwrap();
    assert_eq!(bench.refusal(), "FILE: is not UTF-8 text");
}

#[test]
fn without_a_home_the_state_folder_must_be_named() {
    assert_eq!(
        load(&Overrides::default(), &|_| None, false).unwrap_err().to_string(),
        "store.path: there is no default, since HOME is not set; set HOME, --state-dir or SESSIOND_STATE_DIR"
    );
    let named = Overrides { state_dir: Some("/s".into()), ..Overrides::default() };
    let loaded = load(&named, &|_| None, false).unwrap();
    assert_eq!((loaded.config_path, loaded.settings.socket.path), (None, "/s/sessiond.sock".into()));
}

#[test]
fn mistakes_in_the_file_are_told_with_file_and_key() {
    let range = |key: &str, text: &str, rule: &str| {
        let (section, name) = key.split_once('.').unwrap();
        let told = refusal(&format!("[{section}]\n{name} = \"{text}\""));
        assert_eq!(told, format!("FILE: {key}: \"{text}\" is not within {rule}"));
    };
    range("central.heartbeat_interval", "0s", "1s and 1h");
    range("central.heartbeat_interval", "2h", "1s and 1h");
    range("central.pull_interval", "999ms", "1s and 1h");
    range("central.connect_timeout", "99ms", "100ms and 5m");
    range("central.statement_timeout", "6m", "100ms and 5m");
    range("sessions.stale_after", "4s", "5s and 1d");
    range("sessions.stale_after", "25h", "5s and 1d");
    range("sessions.keep_closed", "59s", "1m and 10y");
    range("sessions.keep_closed", "11y", "1m and 10y");

    let cases = [
        ("sessions.stale_after = \"soon\"", "is not a length of time such as \"30s\", \"5m\" or \"7d\""),
        ("sessions.stale_after = \"\"", "is not a length of time such as \"30s\", \"5m\" or \"7d\""),
        ("store.durability = \"ful\"", "is none of full, normal"),
        ("store.max_size = \"huge\"", "is not a size such as \"512MiB\" or \"1GiB\""),
        ("store.max_size = \"-1GiB\"", "is not a size such as \"512MiB\" or \"1GiB\""),
        ("store.max_size = \"1023KiB\"", "is too small; at least 1MiB"),
        ("store.path = \"var/lib\"", "is not an absolute path"),
        ("store.path = \"\"", "is not an absolute path"),
        ("socket.path = \"s.sock\"", "is not an absolute path"),
        ("socket.mode = \"0888\"", "is not an octal mode between \"0600\" and \"0777\""),
        ("socket.mode = \"+660\"", "is not an octal mode between \"0600\" and \"0777\""),
        ("socket.mode = \"1777\"", "is not an octal mode between \"0600\" and \"0777\""),
        ("socket.mode = \"\"", "is not an octal mode between \"0600\" and \"0777\""),
        ("socket.mode = \"0060\"", "keeps the socket's own owner out; add 0600"),
        ("central.password_file = \"pw\"", "is not an absolute path"),
        ("log.level = \"loud\"", "is none of error, warn, info, debug, trace"),
        ("log.format = \"xml\"", "is none of auto, journal, text, json"),
    ];
    for (line, rule) in cases {
        let (key, value) = line.split_once(" = ").unwrap();
        assert_eq!(refusal(line), format!("FILE: {key}: {value} {rule}"));
    }
    assert_eq!(refusal("socket.group = \"\""), "FILE: socket.group: names no group; leave the key out for none");
    assert!(refusal("machine.name = \"A\"").starts_with("FILE: machine.name: \"A\" is not a machine name; it must"));
    assert_eq!(refusal("[socket]\nmod = \"1\""), "FILE: unknown key socket.mod; did you mean socket.mode?");
    assert!(refusal("[socket").starts_with("FILE: line 1, column 8: "), "{}", refusal("[socket"));
}

#[test]
fn mistakes_outside_the_file_are_told_with_flag_or_variable() {
    let env = Bench::new("").var("HOST_MACHINE", "My Mac").refusal();
    assert!(env.starts_with("HOST_MACHINE: \"My Mac\" is not a machine name; it must match"), "{env}");
    let flag = Bench::new("").flag(|flags| flags.machine = Some(String::new())).refusal();
    assert!(flag.starts_with("--machine: \"\" is not a machine name"), "{flag}");
    let bytes = Bench::new("").var("HOST_MACHINE", OsString::from_vec(vec![0xff])).refusal();
    assert_eq!(bytes, "HOST_MACHINE: is not UTF-8 text");
    let long = Bench::new("").var("SESSIOND_SOCKET", format!("/{}", "s".repeat(100))).refusal();
    assert_eq!(
        long,
        "SESSIOND_SOCKET: 101 bytes are too long for a socket's path, at most 100; \
         set a shorter one by --socket, SESSIOND_SOCKET or socket.path"
    );
    let derived = load(
        &Overrides { state_dir: Some(format!("/{}", "s".repeat(100)).into()), ..Overrides::default() },
        &|_| None,
        false,
    );
    assert!(derived.unwrap_err().to_string().starts_with("socket.path: 115 bytes are too long"));
}

#[test]
fn central_must_be_postgres_and_its_url_is_never_shown() {
    let rule = "central's URL must begin with postgres:// or postgresql://";
    let url = "mysql://u:hunter2@h/d";
    assert_eq!(refusal(&format!("central.url = \"{url}\"")), format!("FILE: central.url: {rule}"));
    assert_eq!(Bench::new("").var("DATABASE_URL", url).refusal(), format!("DATABASE_URL: {rule}"));
    let bench = Bench::new("").flag(|flags| flags.central_url = Some(url.into()));
    assert_eq!(bench.refusal(), format!("--central-url: {rule}"));
    assert!(!format!("{:?}", bench.flags).contains("hunter2"));

    let loaded = Bench::new("").var("DATABASE_URL", "postgres://u:hunter2@h/d").load().unwrap();
    assert!(!format!("{loaded:?}").contains("hunter2"));
    assert_eq!(loaded.settings.central.unwrap().url.to_string(), "***");
}

#[test]
fn a_session_is_refreshed_before_it_goes_stale() {
    assert_eq!(
        refusal("central.heartbeat_interval = \"2m\""),
        "FILE: central.heartbeat_interval: 2m must be shorter than sessions.stale_after, 2m"
    );
    let beat = |stale_after: &str| {
        let file = format!("sessions.stale_after = \"{stale_after}\"\ncentral.url = \"postgres://h\"");
        set(&file).central.unwrap().heartbeat_interval
    };
    assert_eq!(beat("15s"), Duration::from_secs(5));
    assert_eq!(beat("1h"), Duration::from_secs(30));
}

#[test]
fn a_mistake_in_a_central_section_without_url_is_told_too() {
    assert!(refusal("central.pull_interval = \"x\"").starts_with("FILE: central.pull_interval: "));
}

#[test]
fn a_systemd_credential_is_the_password_file_unless_another_is_set() {
    let password_file = |file: &str, credential_exists: bool| {
        let bench = Bench::new(file).var("DATABASE_URL", "postgres://h");
        let credential = bench.dir.path().join("central-password");
        if credential_exists {
            fs::write(&credential, "hunter2").unwrap();
        }
        let dir = bench.dir.path().to_path_buf();
        let bench = bench.var("CREDENTIALS_DIRECTORY", dir);
        let found = bench.settings().central.unwrap().password_file;
        found.map(|path| if path == credential { "credential".to_owned() } else { path.display().to_string() })
    };
    let file = "central.password_file = \"/set\"";
    assert_eq!(password_file("", true).as_deref(), Some("credential"));
    assert_eq!(password_file("", false), None);
    assert_eq!(password_file(file, true).as_deref(), Some("/set"));
}

#[test]
fn what_needs_a_restart_is_named() {
    let old = set("");
    assert!(old.needing_restart(&old).is_empty());
    let live =
        set("log.level = \"debug\"\nsocket.mode = \"0600\"\nsessions.stale_after = \"1h\"\nclaude.watch = false");
    assert!(old.needing_restart(&live).is_empty());
    let new = set("[machine]\nname = \"a\"\n[store]\npath = \"/s\"\ndurability = \"normal\"\nmax_size = \"2GiB\"\n\
         [socket]\npath = \"/s.sock\"");
    let all = ["machine.name", "store.path", "store.durability", "store.max_size", "socket.path"];
    assert_eq!(old.needing_restart(&new), all);
    assert_eq!(new.needing_restart(&old), all);
    // The same name from elsewhere is no change.
    let by_variable = Bench::new("").var("HOST_MACHINE", "a").settings();
    assert!(set("machine.name = \"a\"").needing_restart(&by_variable).is_empty());
}
