//! The plugin for Claude Code.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use sessiond::claude::hook::HookEvent;

fn plugin() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/claude-plugin")
}

fn json(file: &str) -> Value {
    let text = fs::read_to_string(plugin().join(file)).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn plugin_has_the_hooks_that_install_adds() {
    let hooks = json("hooks/hooks.json");
    let hooks = hooks["hooks"].as_object().unwrap();
    assert_eq!(hooks.len(), HookEvent::INSTALLED.len());
    for event in HookEvent::INSTALLED {
        let groups = hooks[event.name()].as_array().unwrap();
        let [group] = groups.as_slice() else { panic!("{}: {groups:?}", event.name()) };
        assert_eq!(group["matcher"].as_str(), event.matcher(), "{}", event.name());
        let hook = &group["hooks"][0];
        assert_eq!(
            (&hook["type"], &hook["command"]),
            (&"command".into(), &format!("sessiond hook {}", event.name()).into())
        );
    }
}

/// What Claude Code's validator demands.
#[test]
fn plugin_is_complete() {
    let manifest = json(".claude-plugin/plugin.json");
    assert_eq!((&manifest["name"], &manifest["version"]), (&"sessiond".into(), &env!("CARGO_PKG_VERSION").into()));
    let known = ["name", "version", "description", "author", "keywords"];
    assert!(manifest.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{manifest}");
    let market = json(".claude-plugin/marketplace.json");
    assert!(market["owner"]["name"].is_string() && market["plugins"][0]["source"] == "./", "{market}");
    assert_eq!(market["plugins"][0]["name"], manifest["name"]);
    let server = json(".mcp.json");
    let server = &server["mcpServers"]["sessiond"];
    assert_eq!((&server["command"], &server["args"][0]), (&"sessiond".into(), &"mcp".into()));
    for command in ["handoff", "fleet"] {
        let text = fs::read_to_string(plugin().join(format!("commands/{command}.md"))).unwrap();
        let (head, body) = text.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---\n")).unwrap();
        assert!(head.lines().any(|line| line.starts_with("description: ")), "{command}");
        // A command line with an argument in it would run what the argument says.
        assert!(!body.contains("!`") && body.contains("$ARGUMENTS"), "{command}");
    }
}
