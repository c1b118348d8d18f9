//! The files that service managers read, held against what those managers document.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn is_there(program: &str, test: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: {test} needs {program}");
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
const KEYS: [(&str, Type); 26] = [
    ("Label", Type::Text),
    ("Disabled", Type::Flag),
    ("UserName", Type::Text),
    ("GroupName", Type::Text),
    ("Program", Type::Text),
    ("ProgramArguments", Type::Texts),
    ("EnableGlobbing", Type::Flag),
    ("KeepAlive", Type::Conditions),
    ("RunAtLoad", Type::Flag),
    ("RootDirectory", Type::Text),
    ("WorkingDirectory", Type::Text),
    ("Umask", Type::Number),
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
    ("LaunchOnlyOnce", Type::Flag),
];

/// What KeepAlive may depend on; each is a yes or no.
const CONDITIONS: [&str; 2] = ["SuccessfulExit", "Crashed"];
const LIMITS: [&str; 9] =
    ["Core", "CPU", "Data", "FileSize", "MemoryLock", "NumberOfFiles", "NumberOfProcesses", "ResidentSetSize", "Stack"];

/// One element of a property list. These lists are written by hand, one element a line.
#[derive(Debug, PartialEq)]
enum Value {
    Text(String),
    Flag(bool),
    Number(i64),
    List(Vec<Value>),
    Pairs(Vec<(String, Value)>),
}

fn parse(text: &str) -> Value {
    let mut rest = String::new();
    let mut text = text;
    while let Some((before, behind)) = text.split_once("<!--") {
        rest.push_str(before);
        text = behind.split_once("-->").expect("a comment ends").1;
    }
    rest.push_str(text);
    let body =
        rest.split_once("<plist version=\"1.0\">").expect("a plist").1.rsplit_once("</plist>").expect("its end").0;
    let mut rest = body.trim();
    let value = element(&mut rest);
    assert_eq!(rest, "", "there is more than one element");
    value
}

fn element(rest: &mut &str) -> Value {
    let eat = |rest: &mut &str, what: &str| {
        let behind = rest.strip_prefix(what)?.trim_start();
        *rest = behind;
        Some(())
    };
    let text = |rest: &mut &str, tag: &str| {
        let (inside, behind) = rest.strip_prefix(&format!("<{tag}>"))?.split_once(&format!("</{tag}>"))?;
        *rest = behind.trim_start();
        Some(inside.to_owned())
    };
    if eat(rest, "<true/>").is_some() {
        return Value::Flag(true);
    }
    if eat(rest, "<false/>").is_some() {
        return Value::Flag(false);
    }
    if let Some(number) = text(rest, "integer") {
        return Value::Number(number.parse().expect("a number"));
    }
    if let Some(string) = text(rest, "string") {
        return Value::Text(string);
    }
    if eat(rest, "<array>").is_some() {
        let mut list = Vec::new();
        while eat(rest, "</array>").is_none() {
            list.push(element(rest));
        }
        return Value::List(list);
    }
    eat(rest, "<dict>").unwrap_or_else(|| panic!("an element is not known: {rest}"));
    let mut pairs = Vec::new();
    while eat(rest, "</dict>").is_none() {
        let key = text(rest, "key").unwrap_or_else(|| panic!("a key was expected: {rest}"));
        pairs.push((key, element(rest)));
    }
    Value::Pairs(pairs)
}

fn fits(value: &Value, expected: Type) -> bool {
    let all = |pairs: &[(String, Value)], known: &[&str], is: fn(&Value) -> bool| {
        pairs.iter().all(|(key, value)| known.contains(&key.as_str()) && is(value))
    };
    match (expected, value) {
        (Type::Text, Value::Text(text)) => !text.is_empty(),
        (Type::Choice(known), Value::Text(text)) => known.contains(&text.as_str()),
        (Type::Flag, Value::Flag(_)) | (Type::Number, Value::Number(0..)) | (Type::Conditions, Value::Flag(_)) => true,
        (Type::Texts, Value::List(list)) => list.iter().all(|item| matches!(item, Value::Text(_))),
        (Type::Numbers, Value::Pairs(pairs)) => all(pairs, &LIMITS, |value| matches!(value, Value::Number(_))),
        (Type::Conditions, Value::Pairs(pairs)) => all(pairs, &CONDITIONS, |value| matches!(value, Value::Flag(_))),
        _ => false,
    }
}

/// What is wrong with a property list.
fn faults(text: &str) -> Vec<String> {
    let Value::Pairs(pairs) = parse(text) else { return vec!["it is no dictionary".into()] };
    let mut faults = Vec::new();
    for (index, (key, value)) in pairs.iter().enumerate() {
        match KEYS.iter().find(|(known, _)| known == key) {
            None => faults.push(format!("launchd knows no key {key}")),
            Some((_, expected)) if !fits(value, *expected) => faults.push(format!("{key} may not be {value:?}")),
            Some(_) if pairs[..index].iter().any(|(other, _)| other == key) => faults.push(format!("{key} twice")),
            Some(_) => {}
        }
    }
    for needed in ["Label", "ProgramArguments"] {
        if !pairs.iter().any(|(key, _)| key == needed) {
            faults.push(format!("{needed} is missing"));
        }
    }
    faults
}

#[test]
fn launchd_s_keys_are_known_and_of_their_types() {
    for name in ["agent.plist", "daemon.plist"] {
        let text = fs::read_to_string(root().join("launchd").join(name)).unwrap();
        assert_eq!(faults(&text), Vec::<String>::new(), "{name}");
        for (from, to, fault) in [
            ("RunAtLoad", "RunAtLoaded", "launchd knows no key RunAtLoaded"),
            ("<integer>5</integer>", "<string>5</string>", "ThrottleInterval may not be"),
            ("SuccessfulExit", "SuccessfullExit", "KeepAlive may not be"),
            ("NumberOfFiles", "NoFile", "SoftResourceLimits may not be"),
            ("Background", "background", "ProcessType may not be"),
            ("<key>Label</key>", "<key>Program</key>", "Label is missing"),
        ] {
            let broken = faults(&text.replace(from, to));
            assert!(broken.iter().any(|found| found.starts_with(fault)), "{to}: {broken:?}");
        }
    }
}
