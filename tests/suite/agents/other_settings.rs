//! Hooks in the settings of agents beside Claude Code.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use testkit::daemon::Host;

/// The agents, and their files below the home folder.
const FILES: [(&str, &str); 5] = [
    ("codex", ".codex/hooks.json"),
    ("opencode", ".config/opencode/plugin/sessiond.js"),
    ("cursor", ".cursor/hooks.json"),
    ("copilot", ".copilot/hooks/sessiond.json"),
    ("gemini", ".gemini/settings.json"),
];

fn host() -> Host {
    Host::new("odin3").environment("PATH", "/nowhere")
}

fn write(host: &Host, file: &str, text: &str) -> PathBuf {
    let path = host.dir().join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

fn files_in(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, |entries| entries.flatten().count())
}

#[test]
fn file_that_was_not_there_is_removed_again() {
    for (agent, file) in FILES {
        let host = host();
        let path = host.dir().join(file);
        let shown = host.ok(&["install", "--agent", agent, "--dry-run"]);
        assert!(shown.contains(agent) && !path.exists(), "{shown}");
        host.ok(&["install", "--agent", agent]);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("hook") && text.contains(agent), "{text}");
        assert!(host.ok(&["install", "--agent", agent]).contains("nothing to do"));
        host.ok(&["uninstall", "--agent", agent, "--dry-run"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        host.ok(&["uninstall", "--agent", agent]);
        assert_eq!((path.exists(), files_in(path.parent().unwrap())), (false, 0), "{agent}");
        assert!(host.ok(&["uninstall", "--agent", agent]).contains("nothing to do"));
    }
}

#[test]
fn settings_are_restored_byte_by_byte() {
    let texts = [
        "{}\n",
        "\u{feff}{\r\n  // mine\r\n  \"version\": 1,\r\n  \"hooks\": {\r\n    \"stop\": [\r\n    ]\r\n  },\r\n}\r\n",
        "{\"hooks\": {\"SessionStart\": [{\"hooks\": [{\"type\": \"command\", \"command\": \"mine\"}]}]}, \"a\": 1, \"a\": 2}",
    ];
    for (agent, file) in FILES.into_iter().filter(|(agent, _)| *agent != "opencode") {
        for text in texts {
            let host = host();
            let path = write(&host, file, text);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            host.ok(&["install", "--agent", agent]);
            assert!(fs::read_to_string(&path).unwrap().contains(&format!("hook --agent {agent} ")), "{agent}");
            host.ok(&["uninstall", "--agent", agent]);
            assert_eq!(fs::read_to_string(&path).unwrap(), text, "{agent}");
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        }
    }
}

#[test]
fn broken_files_are_reported_and_not_changed() {
    for (agent, file) in FILES {
        for broken in ["{\"hooks\": ", "[1]", "{\"hooks\": 7}", "\u{1}"] {
            let host = host();
            let path = write(&host, file, broken);
            let output = host.verb(&["install", "--agent", agent]);
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(78), "{agent} {broken}: {said}");
            assert!(said.contains(file) && said.lines().count() == 1, "{said}");
            assert_eq!(fs::read_to_string(&path).unwrap(), broken);
            assert_eq!(files_in(path.parent().unwrap()), 1);
        }
        let host = host();
        let path = host.dir().join(file);
        fs::create_dir_all(&path).unwrap();
        assert!(!host.verb(&["install", "--agent", agent]).status.success(), "a folder in its place");
    }
}

#[test]
fn links_to_dotfiles_stay_links() {
    for (agent, file) in FILES {
        let host = host();
        let (path, target) = (host.dir().join(file), host.dir().join("dotfiles/kept"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(&target, &path).unwrap();
        host.ok(&["install", "--agent", agent]);
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        assert!(fs::read_to_string(&target).unwrap().contains("hook"), "{agent}");
    }
}

#[test]
fn all_agents_that_are_found_get_their_hooks() {
    let host = host();
    assert!(host.ok(&["install", "--all-agents"]).contains("no agent"));
    for folder in [".claude", ".codex", ".cursor", ".config/opencode"] {
        fs::create_dir_all(host.dir().join(folder)).unwrap();
    }
    let broken = write(&host, ".gemini/settings.json", "{");
    let output = host.verb(&["install", "--all-agents"]);
    assert_eq!(output.status.code(), Some(78), "Gemini CLI's settings are broken");
    let has = |file: &str| host.dir().join(file).exists();
    assert!(has(".claude/settings.json") && has(".codex/hooks.json") && has(".cursor/hooks.json"));
    assert!(has(".config/opencode/plugin/sessiond.js") && !has(".copilot"));
    fs::remove_file(broken).unwrap();
    host.ok(&["uninstall", "--all-agents"]);
    assert!(!has(".codex/hooks.json") && !has(".config/opencode/plugin/sessiond.js"));
    assert!(!fs::read_to_string(host.dir().join(".claude/settings.json")).unwrap().contains("sessiond"));
}

#[test]
fn folders_of_agents_are_found_by_their_variables() {
    let host = host();
    let elsewhere = host.dir().join("else where");
    let host = host.environment("CODEX_HOME", elsewhere.to_str().unwrap());
    host.ok(&["install", "--agent", "codex", "--agent", "gemini"]);
    assert!(elsewhere.join("hooks.json").exists() && host.dir().join(".gemini/settings.json").exists());
    for wrong in
        [&["install", "--agent", "other"][..], &["install", "--agent", "codex", "--user"], &["install", "--agent"]]
    {
        assert_eq!(host.verb(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn doctor_finds_hooks_of_codex_that_are_not_trusted() {
    let host = host().started();
    let doctor = || String::from_utf8(host.verb(&["doctor"]).stdout).unwrap();
    assert!(!doctor().contains("codex"), "{}", doctor());
    fs::create_dir_all(host.dir().join(".codex")).unwrap();
    assert!(doctor().contains("install --agent codex"), "{}", doctor());
    host.ok(&["install", "--agent", "codex"]);
    assert!(doctor().contains("then /hooks"), "{}", doctor());
    let file = fs::canonicalize(host.dir().join(".codex/hooks.json")).unwrap();
    let names = [
        "session_start",
        "user_prompt_submit",
        "permission_request",
        "post_tool_use",
        "pre_compact",
        "post_compact",
        "interrupt",
        "stop",
        "session_end",
    ];
    let trust = |names: &[&str]| {
        let key =
            |name: &&str| format!("[hooks.state.\"{}:{name}:0:0\"]\ntrusted_hash = \"sha256:0\"\n", file.display());
        write(&host, ".codex/config.toml", &names.iter().map(key).collect::<String>());
    };
    trust(&names[1..]);
    assert!(doctor().contains("SessionStart"), "{}", doctor());
    trust(&names);
    assert!(!doctor().contains("then /hooks"), "{}", doctor());
}

#[test]
fn doctor_finds_that_gemini_runs_no_hook() {
    let host = host().started();
    let doctor = || String::from_utf8(host.verb(&["doctor"]).stdout).unwrap();
    host.ok(&["install", "--agent", "gemini"]);
    assert!(!doctor().contains("hooksConfig"), "{}", doctor());
    let file = host.dir().join(".gemini/settings.json");
    let installed = fs::read_to_string(&file).unwrap();
    for (switch, is_off) in [("false", true), ("true", false), ("\"false\"", false)] {
        let with = installed.replacen('{', &format!("{{ // mine\n  \"hooksConfig\": {{\"enabled\": {switch}}},"), 1);
        fs::write(&file, with).unwrap();
        assert_eq!(doctor().contains("remove hooksConfig.enabled"), is_off, "{switch}: {}", doctor());
    }
}
