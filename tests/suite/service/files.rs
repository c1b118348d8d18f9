//! The files for service managers follow the managers' documentation.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use plist::{Dictionary, Value};
use sessiond::platform::default_paths::{DefaultPaths, Os};
use sessiond::service::{self, InstallTarget, Scope, Setup};

use testkit::skip::skip;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn is_there(program: &str, test: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        skip(test, program);
    }
    found
}

/// The units of one scope, with a program that is there.
fn units(scope: &str, dir: &Path) -> Vec<PathBuf> {
    ["sessiond.service", "sessiond.socket"]
        .map(|unit| {
            let text = fs::read_to_string(root().join("systemd").join(scope).join(unit)).unwrap();
            let path = dir.join(unit);
            fs::write(&path, text.replace("/usr/bin/sessiond", env!("CARGO_BIN_EXE_sessiond"))).unwrap();
            path
        })
        .to_vec()
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    if !is_there("systemd-analyze", "systemd_finds_nothing_wrong_with_the_units") {
        return;
    }
    for (scope, option) in [("system", "--system"), ("user", "--user")] {
        let dir = tempfile::tempdir().unwrap();
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no", "--recursive-errors=no", option]).args(units(scope, dir.path()));
        let output = verify
            .env("XDG_RUNTIME_DIR", dir.path())
            .env("SYSTEMD_UNIT_PATH", format!("{}:", dir.path().display()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("sessiond."), "{scope}: {said}");
    }
}

#[test]
fn the_exposure_of_the_system_service_is_at_most_1_3() {
    if !is_there("systemd-analyze", "the_exposure_of_the_system_service_is_at_most_1_3") {
        return;
    }
    let unit = root().join("systemd/system/sessiond.service");
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=13"])
        .arg(unit)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{}", said.lines().last().unwrap_or_default());
    assert!(output.status.success() && said.contains("Overall exposure level"), "{said}");
}

/// The types of launchd.plist(5).
#[derive(Clone, Copy)]
enum Type {
    Text,
    Flag,
    Number,
    Texts,
    Numbers,
    Conditions,
    Choice(&'static [&'static str]),
}

/// launchd.plist(5), as far as it concerns a job of this kind.
const KEYS: [(&str, Type); 30] = [
    ("Label", Type::Text),
    ("Disabled", Type::Flag),
    ("UserName", Type::Text),
    ("GroupName", Type::Text),
    ("Program", Type::Text),
    ("ProgramArguments", Type::Texts),
    ("EnableGlobbing", Type::Flag),
    ("EnableTransactions", Type::Flag),
    ("KeepAlive", Type::Conditions),
    ("RunAtLoad", Type::Flag),
    ("RootDirectory", Type::Text),
    ("WorkingDirectory", Type::Text),
    ("Umask", Type::Number),
    ("TimeOut", Type::Number),
    ("ExitTimeOut", Type::Number),
    ("ThrottleInterval", Type::Number),
    ("InitGroups", Type::Flag),
    ("StartInterval", Type::Number),
    ("StandardInPath", Type::Text),
    ("StandardOutPath", Type::Text),
    ("StandardErrorPath", Type::Text),
    ("SoftResourceLimits", Type::Numbers),
    ("HardResourceLimits", Type::Numbers),
    ("Nice", Type::Number),
    ("ProcessType", Type::Choice(&["Background", "Standard", "Adaptive", "Interactive"])),
    ("AbandonProcessGroup", Type::Flag),
    ("LowPriorityIO", Type::Flag),
    ("LowPriorityBackgroundIO", Type::Flag),
    ("LaunchOnlyOnce", Type::Flag),
    ("LimitLoadToSessionType", Type::Choice(&["Aqua", "Background", "LoginWindow", "StandardIO", "System"])),
];

/// What KeepAlive may depend on, of the conditions that are true or false.
const CONDITIONS: [&str; 2] = ["SuccessfulExit", "Crashed"];
const LIMITS: [&str; 9] =
    ["Core", "CPU", "Data", "FileSize", "MemoryLock", "NumberOfFiles", "NumberOfProcesses", "ResidentSetSize", "Stack"];

fn fits(value: &Value, expected: Type) -> bool {
    let all = |pairs: &Dictionary, known: &[&str], is: fn(&Value) -> bool| {
        pairs.iter().all(|(key, value)| known.contains(&key.as_str()) && is(value))
    };
    let is_number = |value: &Value| value.as_unsigned_integer().is_some();
    match (expected, value) {
        (Type::Text, Value::String(text)) => !text.is_empty(),
        (Type::Choice(known), Value::String(text)) => known.contains(&text.as_str()),
        (Type::Flag | Type::Conditions, Value::Boolean(_)) => true,
        (Type::Number, number) => is_number(number),
        (Type::Texts, Value::Array(list)) => !list.is_empty() && list.iter().all(|item| item.as_string().is_some()),
        (Type::Numbers, Value::Dictionary(pairs)) => all(pairs, &LIMITS, is_number),
        (Type::Conditions, Value::Dictionary(pairs)) => all(pairs, &CONDITIONS, |value| value.as_boolean().is_some()),
        _ => false,
    }
}

/// What launchd would not accept in a property list.
fn faults(text: &str) -> Vec<String> {
    let parsed = match Value::from_reader_xml(text.as_bytes()) {
        Ok(Value::Dictionary(parsed)) => parsed,
        Ok(_) => return vec!["it is no dictionary".into()],
        Err(error) => return vec![error.to_string()],
    };
    let mut faults = Vec::new();
    for (key, value) in &parsed {
        match KEYS.iter().find(|(known, _)| known == key) {
            None => faults.push(format!("launchd knows no key {key}")),
            Some((_, expected)) if !fits(value, *expected) => faults.push(format!("{key} may not be {value:?}")),
            Some(_) => {}
        }
    }
    for needed in ["Label", "ProgramArguments"] {
        if !parsed.contains_key(needed) {
            faults.push(format!("{needed} is missing"));
        }
    }
    faults
}

/// A program whose path has what XML, shells and systemd give a meaning.
const PROGRAM: &str = "/opt/a & <b> --c's/bin/sessiond";

/// The daemon's property list as `sessiond install` writes it on a Mac.
fn installed(scope: Scope) -> String {
    installed_file(scope, "local.sessiond.plist").expect("a property list")
}

/// A property list as `sessiond install` writes it on a Mac; none if it does not write it.
fn installed_file(scope: Scope, name: &str) -> Option<String> {
    let home = |name: &str| (name == "HOME").then(|| "/Users/m & m".into());
    let paths =
        if scope == Scope::System { DefaultPaths::system(Os::MacOs) } else { DefaultPaths::user(Os::MacOs, &home) };
    let site = InstallTarget {
        os: Os::MacOs,
        scope,
        uid: 501,
        home: Some("/Users/m & m".into()),
        program: PROGRAM.into(),
        paths,
        systemd: None,
        packaged: false,
    };
    let steps = service::install(&site, &Setup::default(), true).unwrap();
    let step = steps.iter().find(|step| step.contains(&format!("/{name} (0644):")))?;
    Some(step.lines().skip(1).map(|line| line.strip_prefix("    ").unwrap_or(line)).collect::<Vec<_>>().join("\n"))
}

/// The list as Python's plistlib reads it, whose XML parser is as strict as launchd's.
fn read_by_python(text: &str) -> Result<serde_json::Value, String> {
    let program = "import json, plistlib, sys; json.dump(plistlib.loads(sys.stdin.buffer.read()), sys.stdout)";
    let mut python = Command::new("python3")
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn installed_property_lists_are_what_launchd_accepts() {
    for scope in [Scope::User, Scope::System] {
        let text = installed(scope);
        assert_eq!(faults(&text), Vec::<String>::new(), "{scope:?}");
        for (from, to, fault) in [
            ("RunAtLoad", "RunAtLoaded", "launchd knows no key RunAtLoaded"),
            ("<integer>5</integer>", "<string>5</string>", "ThrottleInterval may not be"),
            ("SuccessfulExit", "SuccessfullExit", "KeepAlive may not be"),
            ("NumberOfFiles", "NoFile", "SoftResourceLimits may not be"),
            ("Interactive", "interactive", "ProcessType may not be"),
            ("<key>Label</key>", "<key>Program</key>", "Label is missing"),
        ] {
            let broken = faults(&text.replace(from, to));
            assert!(broken.iter().any(|found| found.starts_with(fault)), "{to}: {broken:?}");
        }
    }
}

#[test]
fn users_of_a_macs_system_service_may_enable_notifications() {
    let name = "local.sessiond.notify-agent.plist";
    let text = installed_file(Scope::System, name).expect("it is installed");
    assert_eq!(faults(&text), Vec::<String>::new());
    let list: serde_json::Value = plist::from_reader_xml(text.as_bytes()).unwrap();
    assert_eq!(list["ProgramArguments"], serde_json::json!([PROGRAM, "notify-agent"]));
    assert_eq!((&list["Disabled"], &list["KeepAlive"]), (&true.into(), &true.into()));
    assert_eq!(installed_file(Scope::User, name), None, "a user's own daemon shows them itself");
    assert!(sessiond::cli::command().find_subcommand("notify-agent").is_some());
}

#[test]
fn installed_property_lists_are_xml() {
    if !is_there("python3", "installed_property_lists_are_xml") {
        return;
    }
    for (scope, log) in
        [(Scope::User, "/Users/m & m/Library/Logs/sessiond.log"), (Scope::System, "/var/log/sessiond.log")]
    {
        let text = installed(scope);
        let read = read_by_python(&text).unwrap_or_else(|error| panic!("{scope:?}: {error}"));
        assert_eq!(read["ProgramArguments"][0], PROGRAM);
        assert_eq!(read["StandardErrorPath"], log);
        let crate_reads: serde_json::Value = plist::from_reader_xml(text.as_bytes()).unwrap();
        assert_eq!(read, crate_reads, "both parsers read the same");
        // Neither a double dash in a comment nor an ampersand is left to chance: the check sees both.
        for (from, to) in [("<!-- ", "<!-- --user "), ("&amp;", "&")] {
            assert!(read_by_python(&text.replace(from, to)).is_err(), "{to:?} is accepted");
        }
    }
}

#[test]
fn the_service_runs_the_path_by_which_the_program_was_called() {
    let dir = tempfile::tempdir().unwrap();
    let dir = fs::canonicalize(dir.path()).unwrap();
    // As Homebrew lays it out: an upgrade removes the version's folder and moves the link.
    let cellar = dir.join("Cellar/sessiond/1.0/bin");
    fs::create_dir_all(&cellar).unwrap();
    fs::create_dir(dir.join("bin")).unwrap();
    let file = cellar.join("sessiond");
    if fs::hard_link(env!("CARGO_BIN_EXE_sessiond"), &file).is_err() {
        testkit::program::copy_program(env!("CARGO_BIN_EXE_sessiond").as_ref(), &file);
    }
    std::os::unix::fs::symlink("../Cellar/sessiond/1.0/bin/sessiond", dir.join("bin/sessiond")).unwrap();
    for (program, path) in [(dir.join("bin/sessiond"), ""), ("sessiond".into(), "bin"), (file, "bin")] {
        let output = Command::new(&program)
            .args(["install", "--user", "--dry-run"])
            .env_clear()
            .env("HOME", &dir)
            .env("PATH", dir.join(path))
            .output()
            .unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        let linked = dir.join("bin/sessiond").display().to_string();
        assert!(shown.contains(&linked) && !shown.contains("Cellar"), "{program:?}: {shown}");
    }
}
