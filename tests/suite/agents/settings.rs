//! Editing Claude Code's settings.json.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use testkit::agent::feed;
use testkit::daemon::Host;
use testkit::program::{copy_program, write_script};

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
fn settings_are_edited_and_restored() {
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
fn missing_settings_are_created_and_their_commands_run() {
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
fn foreign_status_line_is_kept_with_advice() {
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
fn invalid_settings_are_reported_and_not_changed() {
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
fn symlink_is_kept() {
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

/// A Claude Code that prints this version, first on PATH.
fn claude(host: Host, version: &str) -> Host {
    let folder = host.dir().join("bin");
    fs::create_dir_all(&folder).unwrap();
    write_script(&folder.join("claude"), &format!("#!/bin/sh\necho '{version} (Claude Code)'\n"));
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    host.environment("PATH", &path)
}

#[test]
fn installed_hooks_match_the_installed_version() {
    for (version, takes_all) in [("2.1.332", true), ("2.1.75", true), ("2.1.74", false), ("unknown", false)] {
        let host = claude(Host::new("odin3"), version);
        let output = host.verb(&["install", "--claude"]);
        let said = String::from_utf8(output.stderr).unwrap();
        let text = fs::read_to_string(folder(&host).join("settings.json")).unwrap();
        assert_eq!(text.contains("PostCompact"), takes_all, "{version}: {text}");
        assert!(text.contains("hook PreCompact") && text.contains("hook SessionEnd"), "{version}: {text}");
        assert_eq!(said.contains("PostCompact"), !takes_all, "{version}: {said}");
        assert!(said.lines().count() <= 1, "{said}");
        for event in ["PermissionRequest", "PostToolUse", "PreToolUse"] {
            let is_known = version != "unknown" || event != "PermissionRequest";
            assert_eq!(text.contains(&format!("hook {event}\"")), is_known, "{version}: {text}");
        }
        // Another version came, and the next installation follows.
        let host = claude(host, "2.1.101");
        host.ok(&["install", "--claude"]);
        assert!(fs::read_to_string(folder(&host).join("settings.json")).unwrap().contains("PostCompact"));
        assert_eq!(host.verb(&["install", "--claude", "--dry-run"]).stderr, b"");
        host.ok(&["uninstall", "--claude"]);
        assert!(!fs::read_to_string(folder(&host).join("settings.json")).unwrap().contains("sessiond hook"));
    }
}

#[test]
fn link_to_a_file_that_does_not_exist_stays_a_link() {
    let host = Host::new("odin3");
    fs::create_dir_all(folder(&host)).unwrap();
    let (file, target) = (folder(&host).join("settings.json"), host.dir().join("dotfiles/claude/settings.json"));
    symlink("../dotfiles/claude/settings.json", &file).unwrap();
    host.ok(&["install", "--claude"]);
    assert!(fs::symlink_metadata(&file).unwrap().is_symlink());
    assert!(fs::read_to_string(&target).unwrap().contains("hook Stop"));
    assert_eq!(files(&host), 1, "nothing to keep a copy of");
    host.ok(&["install", "--claude"]);
    assert_eq!((files(&host), fs::read_dir(target.parent().unwrap()).unwrap().count()), (1, 1));
}

#[test]
fn installed_path_is_the_link_by_which_it_was_called() {
    let host = Host::new("odin3");
    let versioned = host.dir().join("Cellar/sessiond/1.0/bin/sessiond");
    fs::create_dir_all(versioned.parent().unwrap()).unwrap();
    let program = host.sessiond().get_program().to_owned();
    fs::hard_link(&program, &versioned).unwrap_or_else(|_| copy_program(program.as_ref(), &versioned));
    let link = host.dir().join("sessiond");
    symlink("Cellar/sessiond/1.0/bin/sessiond", &link).unwrap();
    let own = host.sessiond();
    let mut command = Command::new(&link);
    command.env_clear().envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert!(command.args(["install", "--claude"]).output().unwrap().status.success());
    let text = fs::read_to_string(folder(&host).join("settings.json")).unwrap();
    assert!(text.contains(&format!("{} hook Stop", link.display())) && !text.contains("Cellar"), "{text}");
}

#[test]
fn dry_run_on_many_lines_stays_within_its_memory() {
    let host = Host::new("odin3");
    let rules: Vec<_> = (0..20_000).map(|number| format!("Bash(command {number}:*)")).collect();
    let text = serde_json::to_string_pretty(&json!({"a": 1, "permissions": {"allow": rules}, "zeta": 2})).unwrap();
    let file = write(&host, &text);
    let own = host.sessiond();
    // The limit is for all that the program may ask for.
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -v 102400; exec \"$0\" install --claude --dry-run"]).arg(own.get_program()).env_clear();
    let output = shell.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?)))).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(shown.contains("hook Stop") && shown.lines().count() < 120, "{} lines", shown.lines().count());
    assert_eq!(fs::read_to_string(file).unwrap(), text);
}
