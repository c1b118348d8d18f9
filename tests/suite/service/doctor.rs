//! `sessiond doctor` and `sessiond bugreport` on healthy and on broken installations.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use testkit::daemon::Host;
use testkit::postgres::Server;

fn look(host: &Host) -> (i32, Vec<Value>) {
    let state = host.state_dir();
    let output = host.verb(&["doctor", "--json", "--state-dir", state.to_str().unwrap()]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code().unwrap(), document["findings"].as_array().unwrap().clone())
}

fn verdict<'a>(findings: &'a [Value], check: &str) -> Option<(&'a str, &'a str)> {
    let found = findings
        .iter()
        .filter(|finding| finding["check"] == check)
        .max_by_key(|f| f["verdict"].as_str() == Some("wrong"))?;
    Some((found["verdict"].as_str()?, found["found"].as_str()?))
}

#[test]
fn doctor_finds_nothing_wrong_in_a_healthy_installation() {
    let server = Server::start(&[]);
    server.create("central");
    let host = Host::with_central("odin3", &server.url("central")).started();
    let (code, findings) = look(&host);
    let (state, found) = verdict(&findings, "central.schema").unwrap();
    assert_eq!((code, state), (1, "wrong"), "{found}");
    host.ok(&["migrate"]);
    host.ok(&["sync"]);
    host.await_central("connected");
    let (code, findings) = look(&host);
    let wrong: Vec<_> = findings
        .iter()
        .filter(|f| f["verdict"] == "wrong" && f["check"] != "path" && f["check"] != "service")
        .collect();
    assert!(wrong.is_empty(), "{code} {wrong:#?}");
    for check in [
        "config",
        "identity",
        "daemon",
        "link",
        "socket",
        "store",
        "disk",
        "central.login",
        "central.tls",
        "central.pooler",
        "central.clock",
        "central.schema",
        "central.timezone",
        "central.trigger",
        "central.rights",
    ] {
        assert_eq!(verdict(&findings, check).map(|(verdict, _)| verdict), Some("good"), "{check}: {findings:#?}");
    }
}

#[test]
fn doctor_warns_of_a_central_without_utf8() {
    let server = Server::start(&[]);
    server.psql("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    let host = Host::with_central("odin3", &server.url("latin"));
    let migrated = host.verb(&["migrate"]);
    let said = [migrated.stdout, migrated.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(migrated.status.success() && said.contains("encoded in LATIN1"), "{said}");
    let (_, findings) = look(&host);
    let (state, found) = verdict(&findings, "central.encoding").unwrap();
    assert!(state == "odd" && found.contains("encoded in LATIN1"), "{findings:#?}");
}

#[test]
fn doctor_reports_each_fault_with_advice() {
    let mut host = Host::new("odin3").started();
    host.kill();
    let (code, findings) = look(&host);
    assert_eq!((code, verdict(&findings, "daemon").unwrap().0), (1, "wrong"));

    host.configure("[central]\nurl = \"postgres://me:hunter2@no-such-host.invalid/x\"\n");
    let (_, findings) = look(&host);
    assert_eq!(verdict(&findings, "central.name").unwrap().0, "wrong", "{findings:#?}");
    host.configure("[central]\nurl = \"postgres://me:hunter2@127.0.0.1:1/x\"\n");
    let (_, findings) = look(&host);
    assert_eq!(verdict(&findings, "central.tcp").unwrap().0, "wrong", "{findings:#?}");
    assert!(!format!("{findings:?}").contains("hunter2"));

    host.configure("[machine]\nname = \"other\"\n");
    let (_, findings) = look(&host);
    assert!(verdict(&findings, "identity").unwrap().1.contains("pinned as odin3"), "{findings:#?}");
    host.configure("[machine]\nnmae = \"other\"\n");
    let (_, findings) = look(&host);
    assert!(verdict(&findings, "config").unwrap().1.contains("machine.name"), "{findings:#?}");

    host.configure("");
    let store = host.state_dir().join("sessiond.db");
    let mut bytes = fs::read(&store).unwrap();
    let end = bytes.len();
    bytes[4096..end.min(12288)].fill(0xA5);
    fs::write(&store, bytes).unwrap();
    let (_, findings) = look(&host);
    assert_ne!(verdict(&findings, "store").unwrap().0, "good", "{findings:#?}");
    assert!(
        findings
            .iter()
            .filter(|f| f["verdict"] != "good")
            .all(|f| !f["advice"].as_str().unwrap_or_default().is_empty())
    );
}

#[test]
fn doctor_reports_disabled_hooks_and_missing_programs() {
    let host = Host::new("odin3").started();
    host.ok(&["install", "--claude"]);
    let file = host.dir().join(".claude/settings.json");
    let installed = fs::read_to_string(&file).unwrap();
    let verdict_with = |text: &str| {
        fs::write(&file, text).unwrap();
        let (_, findings) = look(&host);
        let (verdict, found) = verdict(&findings, "claude.settings").unwrap();
        (verdict.to_owned(), found.to_owned())
    };
    assert_eq!(verdict_with(&installed).0, "good");
    assert_eq!(verdict_with("{}").0, "odd");
    assert_eq!(verdict_with("{").0, "wrong");
    let disabled = installed.replacen('{', "{\"disableAllHooks\": true,", 1);
    let (state, found) = verdict_with(&disabled);
    assert_eq!(state, "wrong", "{found}");
    assert!(found.contains("disableAllHooks"), "{found}");
    let program = env!("CARGO_BIN_EXE_sessiond");
    let (state, found) = verdict_with(&installed.replace(program, "/no-such-folder/sessiond"));
    assert_eq!(state, "wrong", "{found}");
    assert!(found.contains("/no-such-folder/sessiond"), "{found}");
}

#[test]
fn doctor_reports_requests_that_no_daemon_reads() {
    let host = Host::new("odin3").started();
    let status: Value = serde_json::from_str(&host.ok(&["status", "--json"])).unwrap();
    let read = status["spool"]["read"].as_array().unwrap();
    let own = host.state_dir().join("spool");
    assert!(read.iter().any(|path| path.as_str() == own.to_str()), "{status:#}");
    let other = host.dir().join("other");
    fs::create_dir_all(other.join("spool")).unwrap();
    let check = || {
        let output = host.sessiond().args(["doctor", "--json"]).env("SESSIOND_STATE_DIR", &other).output().unwrap();
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = document["findings"].as_array().unwrap();
        verdict(findings, "spool").map(|(verdict, found)| (verdict.to_owned(), found.to_owned())).unwrap()
    };
    assert_eq!(check().0, "good");
    fs::write(other.join("spool/1.json"), "{}").unwrap();
    let (state, found) = check();
    assert_eq!(state, "wrong", "{found}");
    assert!(found.contains(other.to_str().unwrap()) && found.contains("does not read"), "{found}");
}

#[test]
fn bugreport_is_complete_and_redacted() {
    let host = Host::new("odin3");
    host.configure("[central]\nurl = \"postgres://me:hunter2@127.0.0.1:1/x\"\n");
    let host = host.started();
    let file = host.dir().join("report.txt");
    host.ok(&["bugreport", file.to_str().unwrap()]);
    let report = fs::read_to_string(&file).unwrap();
    assert!(!report.contains("hunter2"), "{report}");
    for section in ["== system", "== doctor", "== status", "== config", "== state folder"] {
        assert!(report.contains(section), "{section}: {report}");
    }
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}
