//! Claude Code's settings.json: what is ours is put in and taken out, everything else stays to the letter.

mod jsonc;

use serde_json::{Value, json};

use super::hook::Event;
use jsonc::Node;
pub use jsonc::SyntaxError;

const HOOKS: &str = "hooks";
const STATUS_LINE: &str = "statusLine";

/// What the settings become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    pub text: String,
    /// The status line that is already there, and is somebody else's.
    pub other_status_line: Option<String>,
}

/// Settings whose shape is not Claude Code's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("{0}")]
    Syntax(#[from] SyntaxError),
    #[error("{0} is not {1}")]
    Shape(String, &'static str),
}

/// The settings with our hooks and, unless there is another, our status line. `program` is the path of ours.
pub fn install(text: &str, program: &str) -> Result<Merged, SettingsError> {
    let mut text = if text.trim().is_empty() { "{}\n".to_owned() } else { text.to_owned() };
    for event in Event::ALL {
        text = with_hook(&text, event, program)?;
    }
    let root = object(&text)?;
    let command = format!("{} statusline", quoted(program));
    let Some(there) = root.member(STATUS_LINE) else {
        text = root.with_member(&text, STATUS_LINE, &json!({"type": "command", "command": command}));
        return Ok(Merged { text, other_status_line: None });
    };
    let other = there.member("command").and_then(|node| node.string(&text).map(|command| (node, command)));
    match other {
        Some((node, old)) if is_ours(&old, "statusline") => {
            text = node.replaced(&text, &json!(command));
            Ok(Merged { text, other_status_line: None })
        }
        // One that calls ours among others is joined already.
        Some((_, old)) if old.contains("sessiond statusline") => Ok(Merged { text, other_status_line: None }),
        Some((_, old)) => Ok(Merged { text, other_status_line: Some(old) }),
        None => Ok(Merged { other_status_line: Some(there.text(&text).to_owned()), text }),
    }
}

/// The settings without anything of ours.
pub fn uninstall(text: &str) -> Result<String, SettingsError> {
    let mut text = text.to_owned();
    if text.trim().is_empty() {
        return Ok(text);
    }
    for event in Event::ALL {
        while let Some(shorter) = without_hook(&text, event)? {
            text = shorter;
        }
    }
    let root = object(&text)?;
    let ours = root.member(STATUS_LINE).and_then(|line| line.member("command")).and_then(|node| node.string(&text));
    if ours.is_some_and(|command| is_ours(&command, "statusline")) {
        text = root.without_member(&text, STATUS_LINE);
    }
    Ok(text)
}

fn object(text: &str) -> Result<Node, SettingsError> {
    let root = jsonc::parse(text)?;
    if root.is_object() { Ok(root) } else { Err(SettingsError::Shape("the file".into(), "a JSON object")) }
}

fn with_hook(text: &str, event: Event, program: &str) -> Result<String, SettingsError> {
    let word = format!("hook {}", event.name());
    let command = format!("{} {word}", quoted(program));
    let group = json!({"hooks": [{"type": "command", "command": command}]});
    let root = object(text)?;
    let Some(hooks) = root.member(HOOKS) else {
        return Ok(root.with_member(text, HOOKS, &json!({event.name(): [group]})));
    };
    if !hooks.is_object() {
        return Err(SettingsError::Shape(HOOKS.into(), "an object"));
    }
    let Some(groups) = hooks.member(event.name()) else {
        return Ok(hooks.with_member(text, event.name(), &json!([group])));
    };
    if !groups.is_array() {
        return Err(SettingsError::Shape(format!("{HOOKS}.{}", event.name()), "an array"));
    }
    // Ours of another place is an older one.
    for (node, old) in commands(groups, text) {
        if is_ours(&old, &word) {
            return Ok(node.replaced(text, &json!(command)));
        }
    }
    Ok(groups.with_item(text, &group))
}

/// The commands of an event's groups.
fn commands<'a>(groups: &'a Node, text: &str) -> Vec<(&'a Node, String)> {
    let each = groups.items().iter().filter_map(|group| group.member(HOOKS)).flat_map(Node::items);
    each.filter_map(|hook| hook.member("command")).filter_map(|node| Some((node, node.string(text)?))).collect()
}

/// The settings with one hook of ours less, and nothing left empty by that; `None`: there is none.
fn without_hook(text: &str, event: Event) -> Result<Option<String>, SettingsError> {
    let word = format!("hook {}", event.name());
    let root = object(text)?;
    let Some(hooks) = root.member(HOOKS) else { return Ok(None) };
    let Some(groups) = hooks.member(event.name()) else { return Ok(None) };
    let ours =
        |hook: &Node| hook.member("command").and_then(|node| node.string(text)).is_some_and(|c| is_ours(&c, &word));
    for (index, group) in groups.items().iter().enumerate() {
        let Some(list) = group.member(HOOKS) else { continue };
        let Some(place) = list.items().iter().position(ours) else { continue };
        return Ok(Some(match (list.items().len(), groups.items().len(), hooks.members().len()) {
            (1, 1, 1) => root.without_member(text, HOOKS),
            (1, 1, _) => hooks.without_member(text, event.name()),
            (1, ..) => groups.without_item(text, index),
            _ => list.without_item(text, place),
        }));
    }
    Ok(None)
}

/// Is it sessiond, wherever that lies, called with just this?
fn is_ours(command: &str, word: &str) -> bool {
    let program = command.trim().strip_suffix(word).and_then(|rest| rest.strip_suffix(' '));
    program
        .map(|program| program.trim_matches(['\'', '"']))
        .is_some_and(|program| program == "sessiond" || program.ends_with("/sessiond"))
}

/// A path as one word of a shell.
fn quoted(program: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if program.chars().all(plain) { program.to_owned() } else { format!("'{}'", program.replace('\'', "'\\''")) }
}

/// How a status line that is there can be joined with ours.
pub fn joined(other: &str, program: &str) -> String {
    let script =
        format!("input=$(cat); printf %s \"$input\" | {other}; printf %s \"$input\" | {} statusline", quoted(program));
    json!({"type": "command", "command": script}).to_string()
}

/// A value in JSON over several lines, each but the first after `indent`.
fn pretty(value: &Value, indent: &str) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default().replace('\n', &format!("\n{indent}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHERS: &str = r#"{
  // my own settings
  "model": "opus",
  "permissions": { "allow": ["Bash(ls:*)"], },
  "hooks": {
    "Stop": [
      {
        "hooks": [
          { "type": "command", "command": "say done" }
        ]
      }
    ],
    "PreToolUse": [] /* none yet */
  },
  "zeta": 1
}
"#;

    #[test]
    fn what_others_wrote_stays_to_the_letter_and_in_order() {
        let Merged { text, other_status_line } = install(OTHERS, "/usr/bin/sessiond").unwrap();
        assert_eq!(other_status_line, None);
        // But for a comma behind what was the last.
        let without_commas = text.replace(',', "");
        let mut rest = without_commas.as_str();
        for line in OTHERS.lines().filter(|line| line.trim().len() > 2) {
            let line = &line.replace(',', "");
            let at = rest.find(line).unwrap_or_else(|| panic!("{line} is gone, or in another place:\n{text}"));
            rest = &rest[at + line.len()..];
        }
        for event in Event::ALL {
            assert_eq!(text.matches(&format!("\"/usr/bin/sessiond hook {}\"", event.name())).count(), 1, "{text}");
        }
        assert_eq!(text.matches("/usr/bin/sessiond statusline").count(), 1, "{text}");
        assert!(jsonc::parse(&text).is_ok());
        assert_eq!(install(&text, "/usr/bin/sessiond").unwrap().text, text, "once is enough");
        assert_eq!(uninstall(&text).unwrap(), OTHERS, "and nothing of it is left");
        assert_eq!(uninstall(OTHERS).unwrap(), OTHERS);
    }

    #[test]
    fn an_empty_file_and_an_empty_object_are_filled() {
        for before in ["", "{}", " \n", "{\n}\n", "{ /* nothing */ }"] {
            let after = install(before, "sessiond").unwrap().text;
            let root = jsonc::parse(&after).unwrap();
            assert!(root.member("hooks").unwrap().member("SessionStart").is_some(), "{after}");
            let removed = uninstall(&after).unwrap();
            assert!(jsonc::parse(&removed).unwrap().members().is_empty(), "{removed}");
        }
        let after = install("", "sessiond").unwrap().text;
        let strict: Value = serde_json::from_str(&after).unwrap();
        assert_eq!(strict["statusLine"], json!({"type": "command", "command": "sessiond statusline"}));
        assert_eq!(strict["hooks"]["Stop"][0]["hooks"][0]["command"], "sessiond hook Stop");
    }

    #[test]
    fn ours_of_another_place_is_brought_up_to_date() {
        let old = install(OTHERS, "/old place/sessiond").unwrap().text;
        assert!(old.contains("'/old place/sessiond' hook Stop"), "{old}");
        let new = install(&old, "/new/sessiond").unwrap().text;
        assert!(!new.contains("/old place"), "{new}");
        assert_eq!(new, install(OTHERS, "/new/sessiond").unwrap().text);
    }

    #[test]
    fn another_status_line_stays_and_can_be_joined() {
        let before = r#"{"statusLine": {"type": "command", "command": "~/my line.sh"}}"#;
        let merged = install(before, "sessiond").unwrap();
        assert_eq!(merged.other_status_line.as_deref(), Some("~/my line.sh"));
        assert!(merged.text.contains(r#""statusLine": {"type": "command", "command": "~/my line.sh"}"#));
        let joined = format!(r#"{{"statusLine": {}}}"#, joined("~/my line.sh", "sessiond"));
        assert_eq!(install(&joined, "sessiond").unwrap().other_status_line, None);
        assert_eq!(uninstall(&merged.text).unwrap(), before);
    }

    #[test]
    fn what_is_broken_or_of_another_shape_is_told_and_not_touched() {
        for (text, told) in [
            ("{\"a\": ", "line 1, column 7"),
            ("{\n  \"a\" 1\n}", "line 2, column 7"),
            ("{} {}", "line 1, column 4"),
            ("[]", "the file is not a JSON object"),
            (r#"{"hooks": []}"#, "hooks is not an object"),
            (r#"{"hooks": {"Stop": {}}}"#, "hooks.Stop is not an array"),
            ("{\"a\": \"\\x\"}", "line 1"),
        ] {
            let error = install(text, "sessiond").unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
        assert!(install(&"[".repeat(100_000), "sessiond").is_err());
    }
}
