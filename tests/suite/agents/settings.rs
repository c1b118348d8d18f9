//! Claude Code's settings.json, before and after.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::agent::feed;
use crate::support::daemon::Host;

const MINE: &str = "{\n    // mine\n    \"zeta\": 1,\n    \"hooks\": {\n        \"Stop\": [\n            { \"hooks\": [{ \"type\": \"command\", \"command\": \"say done\" }] }\n        ]\n    },\n    \"alpha\": [1, 2,],\n}\n";

fn folder(host: &Host) -> PathBuf {
    host.dir().join(".claude")
}

fn write(host: &Host, text: &str) -> PathBuf {
    let file = folder(host).join("settings.json");
    fs::create_dir_all(folder(host)).unwrap();
    fs::write(&file, text).unwrap();
    file
}

fn files(host: &Host) -> usize {
    fs::read_dir(folder(host)).unwrap().count()
}

#[test]
fn settings_before_and_after() {
    let host = Host::new("odin3");
    let file = write(&host, MINE);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();

    let shown = host.ok(&["install", "--claude", "--dry-run"]);
    assert!(shown.contains("+ ") && shown.contains("hook SessionStart"), "{shown}");
    assert!(!shown.contains("zeta"), "what stays is not shown: {shown}");
    assert_eq!((fs::read_to_string(&file).unwrap().as_str(), files(&host)), (MINE, 1), "a dry run changes nothing");

    let said = host.ok(&["install", "--claude"]);
    let after = fs::read_to_string(&file).unwrap();
    let order: Vec<_> = ["// mine", "\"zeta\"", "say done", "\"alpha\""].map(|part| after.find(part).unwrap()).into();
    assert!(order.is_sorted(), "{after}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    let backup = PathBuf::from(said.rsplit(' ').next().unwrap());
    assert_eq!(fs::read_to_string(&backup).unwrap(), MINE, "{said}");

    assert!(host.ok(&["install", "--claude"]).contains("nothing to do"));
    host.ok(&["uninstall", "--claude"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), MINE);
    assert!(host.ok(&["uninstall", "--claude"]).contains("nothing to do"));
}

#[test]
fn without_settings_they_are_made_and_what_they_say_runs() {
    let host = Host::new("odin3").started();
    host.ok(&["install", "--claude"]);
    let settings: Value =
        serde_json::from_str(&fs::read_to_string(folder(&host).join("settings.json")).unwrap()).unwrap();
    let run = |command: &Value, input: Value| {
        let own = host.sessiond();
        let mut shell = Command::new("sh");
        shell.args(["-c", command.as_str().unwrap()]).env_clear();
        shell.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.env("CLAUDE_PID", std::process::id().to_string());
        let output = feed(shell, input.to_string().as_bytes());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let input = json!({"session_id": "u-1", "cwd": host.dir(), "source": "startup"});
    let told = run(&settings["hooks"]["SessionStart"][0]["hooks"][0]["command"], input.clone());
    assert!(told.contains("additionalContext"), "{told}");
    assert!(run(&settings["statusLine"]["command"], input).starts_with("Instance: "));
}

#[test]
fn another_status_line_stays_and_it_is_said_how_to_join_them() {
    let host = Host::new("odin3").started();
    let file = write(&host, r#"{"statusLine": {"type": "command", "command": "cat >/dev/null; echo theirs"}}"#);
    let output = host.verb(&["install", "--claude"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("statusline"), "{said}");
    assert!(fs::read_to_string(&file).unwrap().contains("echo theirs\""));

    // What is said is what works.
    let joined: Value = serde_json::from_str(said.trim().rsplit_once("\"statusLine\": ").unwrap().1).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", joined["command"].as_str().unwrap()]).env_clear();
    shell.envs(host.sessiond().get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))));
    let printed = String::from_utf8(feed(shell, b"{\"session_id\": \"u-1\", \"cwd\": \"/work\"}").stdout).unwrap();
    assert!(printed.contains("theirs\n") && printed.contains("Instance: "), "{printed}");
}

#[test]
fn broken_settings_are_told_of_and_not_touched() {
    let host = Host::new("odin3");
    for broken in ["{\"hooks\": ", "[1]", "{\"hooks\": 7}", "\u{1}"] {
        let file = write(&host, broken);
        for verb in ["install", "uninstall"] {
            let output = host.verb(&[verb, "--claude"]);
            let said = String::from_utf8(output.stderr).unwrap();
            // Of a shape that we do not know there is nothing of ours to take out.
            if output.status.code() != Some(78) {
                assert_eq!((verb, output.status.code()), ("uninstall", Some(0)), "{broken}: {said}");
            } else {
                assert!(said.contains("settings.json") && said.lines().count() == 1, "{broken}: {said}");
            }
            assert_eq!((fs::read_to_string(&file).unwrap().as_str(), files(&host)), (broken, 1));
        }
    }
}

#[test]
fn a_link_stays_a_link() {
    let host = Host::new("odin3");
    let kept = host.dir().join("dotfiles.json");
    fs::write(&kept, "{}\n").unwrap();
    fs::create_dir_all(folder(&host)).unwrap();
    let file = folder(&host).join("settings.json");
    symlink(&kept, &file).unwrap();
    host.ok(&["install", "--claude"]);
    assert!(fs::symlink_metadata(&file).unwrap().is_symlink());
    assert!(fs::read_to_string(&kept).unwrap().contains("hook Stop"));
}
