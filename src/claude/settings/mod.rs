//! Adds and removes this program's entries in Claude Code's settings.json.
//!
//! Invariants: every byte outside of these entries stays, comments and formatting too; installing twice changes nothing the
//! second time; uninstalling after installing restores the file. An entry belongs to this program if it runs only this
//! program, also by an old path or with options that were added by hand; entries that run other programs too are the
//! user's. Settings that cannot be parsed are not changed.

mod command;
mod hooks;
mod jsonc;

use serde_json::{Value, json};

use super::hook::HookEvent;
pub use hooks::{HookShape, OwnHook, events, is_blank};
use hooks::{object, quoted, with_program, without};
use jsonc::Node;
pub use jsonc::SyntaxError;

const STATUS_LINE: &str = "statusLine";
const PERMISSIONS: &str = "permissions";
const ALLOW: &str = "allow";
/// The permission to run `sessiond footer`, without which the agent asks the user under each answer.
const FOOTER_RULE: &str = "Bash(sessiond footer:*)";

/// Settings with this program's entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The whole file.
    pub text: String,
    /// Another program's status line, which is kept.
    pub other_status_line: Option<String>,
}

/// Settings whose shape is not Claude Code's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The file is not JSON with comments.
    #[error("{0}")]
    Syntax(#[from] SyntaxError),
    /// A value is not of the type that Claude Code expects: its path, and that type.
    #[error("{0} is not {1}")]
    Shape(String, &'static str),
}

/// Adds hooks of these events and removes those of others, adds the permission to print the footer and, unless there is
/// another, the status line. `program` is the path of this program.
///
/// # Errors
/// The settings cannot be parsed, or have another shape than Claude Code's.
pub fn install(text: &str, program: &str, events: &[HookEvent]) -> Result<Merged, SettingsError> {
    let mut text = if is_blank(text) { "{}\n".to_owned() } else { text.to_owned() };
    for event in HookEvent::INSTALLED {
        text = match events.contains(&event) {
            true => with_own_hook(event, |hook| hook.add(&text, program))?,
            false => with_own_hook(event, |hook| hook.remove(text, 0))?,
        };
    }
    text = with_footer_rule(&text)?;
    with_status_line(text, program)
}

/// Removes all entries of this program.
///
/// # Errors
/// The settings cannot be parsed.
pub fn uninstall(text: &str) -> Result<String, SettingsError> {
    let mut text = text.to_owned();
    if is_blank(&text) {
        return Ok(text);
    }
    text = without_status_line(text)?;
    text = without_footer_rule(text)?;
    // In the reverse order of the installation, so that brackets which the user had empty are recognised.
    for event in HookEvent::ALL.into_iter().rev() {
        text = with_own_hook(event, |hook| hook.remove(text, 0))?;
    }
    Ok(text)
}

/// Whether a hook of this event runs this program.
///
/// # Errors
/// The settings cannot be parsed.
pub fn has_hook(text: &str, event: HookEvent) -> Result<bool, SettingsError> {
    with_own_hook(event, |hook| hook.is_in(text))
}

/// The value of a boolean setting; `None` if it is missing or not a boolean.
pub fn flag(text: &str, name: &str) -> Option<bool> {
    flag_at(text, &[name])
}

/// [`flag`] of a setting within others.
pub fn flag_at(text: &str, path: &[&str]) -> Option<bool> {
    let root = object(text).ok()?;
    let found = path.iter().try_fold(&root, |node, name| node.member(name))?;
    found.text(text).parse().ok()
}

/// The paths by which hooks and the status line run this program, as a shell reads them.
pub fn programs(text: &str) -> Vec<String> {
    let Ok(root) = object(text) else { return Vec::new() };
    let line = root.member(STATUS_LINE).and_then(|line| line.member("command")?.string(text));
    let of_line = line.and_then(|line| Some(command::find(&line, &["statusline"])?.path));
    let of_event = |event| with_own_hook(event, |hook| hook.programs(text));
    HookEvent::ALL.into_iter().flat_map(of_event).chain(of_line).collect()
}

/// The hook of this event that runs this program.
fn with_own_hook<T>(event: HookEvent, then: impl FnOnce(&OwnHook<'_>) -> T) -> T {
    let arguments = ["hook", event.name()];
    let (shape, matcher) = (HookShape::Groups, event.matcher());
    then(&OwnHook { shape, event: event.name(), arguments: &arguments, matcher, fields: &[] })
}

fn with_footer_rule(text: &str) -> Result<String, SettingsError> {
    let root = object(text)?;
    let Some(permissions) = root.member(PERMISSIONS) else {
        return Ok(root.with_member(text, PERMISSIONS, &json!({ALLOW: [FOOTER_RULE]})));
    };
    match permissions.member(ALLOW) {
        None if permissions.is_object() => Ok(permissions.with_member(text, ALLOW, &json!([FOOTER_RULE]))),
        Some(allow) if allow.is_array() && footer_rule(allow, text).is_none() => {
            Ok(allow.with_item(text, &json!(FOOTER_RULE)))
        }
        // Permissions of an unknown shape are not changed.
        _ => Ok(text.to_owned()),
    }
}

fn without_footer_rule(text: String) -> Result<String, SettingsError> {
    let root = object(&text)?;
    let Some((of_permissions, permissions)) = root.place_of(PERMISSIONS).zip(root.member(PERMISSIONS)) else {
        return Ok(text);
    };
    let Some((of_allow, allow)) = permissions.place_of(ALLOW).zip(permissions.member(ALLOW)) else { return Ok(text) };
    let Some(place) = footer_rule(allow, &text) else { return Ok(text) };
    Ok(without(&text, &[(&root, of_permissions), (permissions, of_allow), (allow, place)]))
}

fn footer_rule(allow: &Node, text: &str) -> Option<usize> {
    allow.items().iter().position(|rule| rule.string(text).as_deref() == Some(FOOTER_RULE))
}

fn with_status_line(text: String, program: &str) -> Result<Merged, SettingsError> {
    let root = object(&text)?;
    let Some(line) = root.member(STATUS_LINE) else {
        let line = json!({"type": "command", "command": format!("{} statusline", quoted(program))});
        return Ok(Merged { text: root.with_member(&text, STATUS_LINE, &line), other_status_line: None });
    };
    let Some((node, old)) = line.member("command").and_then(|node| Some((node, node.string(&text)?))) else {
        return Ok(Merged { other_status_line: Some(line.text(&text).to_owned()), text });
    };
    match command::find(&old, &["statusline"]) {
        // A status line that runs this program among others needs no change.
        Some(call) => {
            let updated = with_program(&old, &call, program);
            let text = if updated == old { text } else { node.replaced(&text, &json!(updated)) };
            Ok(Merged { text, other_status_line: None })
        }
        None => Ok(Merged { text, other_status_line: Some(old) }),
    }
}

fn without_status_line(text: String) -> Result<String, SettingsError> {
    let root = object(&text)?;
    let line = root.member(STATUS_LINE).and_then(|line| line.member("command"));
    let Some((node, old)) = line.and_then(|node| Some((node, node.string(&text)?))) else { return Ok(text) };
    if let Some(other) = joined_with(&old) {
        return Ok(node.replaced(&text, &json!(other)));
    }
    match command::find(&old, &["statusline"]) {
        Some(call) if call.is_alone => Ok(root.without_member(&text, STATUS_LINE)),
        _ => Ok(text),
    }
}

/// The script that joins two status lines: both get the same input.
const BEFORE: &str = "input=$(cat); printf %s \"$input\" | ";
const BETWEEN: &str = "; printf %s \"$input\" | ";

/// The other status line, in one that [`joined`] made.
fn joined_with(command: &str) -> Option<&str> {
    let (other, own) = command.strip_prefix(BEFORE)?.rsplit_once(BETWEEN)?;
    command::find(own, &["statusline"]).is_some_and(|call| call.is_alone).then_some(other)
}

/// A status line that prints another one and this program's, as JSON.
pub fn joined(other: &str, program: &str) -> String {
    let script = format!("{BEFORE}{other}{BETWEEN}{} statusline", quoted(program));
    json!({"type": "command", "command": script}).to_string()
}

/// A value as indented JSON, each line but the first after `indent`.
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
    fn other_entries_and_comments_stay_unchanged() {
        let Merged { text, other_status_line } = install(OTHERS, "/usr/bin/sessiond", &HookEvent::INSTALLED).unwrap();
        assert_eq!(other_status_line, None);
        // But for a comma behind what was the last.
        let without_rule = text.replace(&format!(", \"{FOOTER_RULE}\""), "");
        let without_commas = without_rule.replace(',', "");
        let mut rest = without_commas.as_str();
        // An empty list of the user's is filled.
        for line in OTHERS.lines().filter(|line| line.trim().len() > 2 && !line.contains("PreToolUse")) {
            let line = &line.replace(',', "");
            let at = rest.find(line).unwrap_or_else(|| panic!("{line} is gone, or in another place:\n{text}"));
            rest = &rest[at + line.len()..];
        }
        for event in HookEvent::INSTALLED {
            assert_eq!(text.matches(&format!("\"/usr/bin/sessiond hook {}\"", event.name())).count(), 1, "{text}");
        }
        assert_eq!(text.matches("/usr/bin/sessiond statusline").count(), 1, "{text}");
        assert!(jsonc::parse(&text).is_ok());
        assert_eq!(install(&text, "/usr/bin/sessiond", &HookEvent::INSTALLED).unwrap().text, text, "once is enough");
        assert_eq!(uninstall(&text).unwrap(), OTHERS, "and nothing of it is left");
        assert_eq!(uninstall(OTHERS).unwrap(), OTHERS);
    }

    #[test]
    fn an_empty_file_and_an_empty_object_are_filled() {
        for before in ["", "{}", " \n", "{\n}\n", "{ /* nothing */ }"] {
            let after = install(before, "sessiond", &HookEvent::INSTALLED).unwrap().text;
            let root = jsonc::parse(&after).unwrap();
            assert!(root.member("hooks").unwrap().member("SessionStart").is_some(), "{after}");
            let removed = uninstall(&after).unwrap();
            assert!(jsonc::parse(&removed).unwrap().members().is_empty(), "{removed}");
        }
        let after = install("", "sessiond", &HookEvent::INSTALLED).unwrap().text;
        let strict: Value = serde_json::from_str(&after).unwrap();
        assert_eq!(strict["statusLine"], json!({"type": "command", "command": "sessiond statusline"}));
        assert_eq!(strict["hooks"]["Stop"][0]["hooks"][0]["command"], "sessiond hook Stop");
    }

    #[test]
    fn old_path_of_this_program_is_replaced() {
        let old = install(OTHERS, "/old place/sessiond", &HookEvent::INSTALLED).unwrap().text;
        assert!(old.contains("'/old place/sessiond' hook Stop"), "{old}");
        let new = install(&old, "/new/sessiond", &HookEvent::INSTALLED).unwrap().text;
        assert!(!new.contains("/old place"), "{new}");
        assert_eq!(new, install(OTHERS, "/new/sessiond", &HookEvent::INSTALLED).unwrap().text);
    }

    #[test]
    fn another_status_line_is_kept_and_can_be_joined() {
        let before = r#"{"statusLine": {"type": "command", "command": "~/my line.sh"}}"#;
        let merged = install(before, "sessiond", &HookEvent::INSTALLED).unwrap();
        assert_eq!(merged.other_status_line.as_deref(), Some("~/my line.sh"));
        assert!(merged.text.contains(r#""statusLine": {"type": "command", "command": "~/my line.sh"}"#));
        let joined = format!(r#"{{"statusLine": {}}}"#, joined("~/my line.sh", "sessiond"));
        assert_eq!(install(&joined, "sessiond", &HookEvent::INSTALLED).unwrap().other_status_line, None);
        assert_eq!(uninstall(&merged.text).unwrap(), before);
        assert_eq!(joined_with(&super::joined("~/my line.sh", "sessiond")), None, "that is JSON");
        let removed = uninstall(&install(&joined, "sessiond", &HookEvent::INSTALLED).unwrap().text).unwrap();
        assert!(removed.contains(r#""command":"~/my line.sh""#), "{removed}");
    }

    #[test]
    fn only_accepted_events_are_installed() {
        let few: Vec<_> = HookEvent::INSTALLED.into_iter().filter(|event| *event != HookEvent::PostCompact).collect();
        let text = install(OTHERS, "/bin/sessiond", &few).unwrap().text;
        assert!(!text.contains("PostCompact") && text.contains("hook PreCompact"), "{text}");
        let all = install(&text, "/bin/sessiond", &HookEvent::INSTALLED).unwrap().text;
        assert!(all.contains("hook PostCompact"), "{all}");
        assert!(has_hook(&all, HookEvent::PostCompact).unwrap() && !has_hook(&text, HookEvent::PostCompact).unwrap());
        assert!(events(&all).unwrap().contains(&"PreToolUse".to_owned()));
        let less = install(&all, "/bin/sessiond", &few).unwrap().text;
        assert!(!less.contains("PostCompact"), "an older version came: {less}");
    }

    #[test]
    fn line_ends_are_kept() {
        let before = OTHERS.replace('\n', "\r\n");
        let after = install(&before, "/bin/sessiond", &HookEvent::INSTALLED).unwrap().text;
        assert_eq!(after.matches('\n').count(), after.matches("\r\n").count(), "{after:?}");
        assert_eq!(uninstall(&after).unwrap(), before);
    }

    #[test]
    fn empty_entries_of_the_user_are_kept() {
        for before in [
            r#"{"hooks": {}}"#,
            r#"{"hooks": { }, "permissions": { }}"#,
            r#"{"hooks": {"Stop": []}, "permissions": {"allow": []}}"#,
            "{\n  \"hooks\": {\n    \"Stop\": [\n    ],\n    \"SessionEnd\": [ /* none */ ]\n  },\n  \"permissions\": {\n    \"allow\": [],\n    \"deny\": []\n  }\n}\n",
            r#"{"hooks": {"Stop": [{"hooks": []}], "Notification": []}}"#,
            r#"{"permissions": {"allow": ["Bash(ls:*)",]}}"#,
        ] {
            let after = install(before, "/bin/sessiond", &HookEvent::INSTALLED).unwrap().text;
            assert!(after.contains("hook Stop") && after.contains(FOOTER_RULE), "{after}");
            assert_eq!(install(&after, "/bin/sessiond", &HookEvent::INSTALLED).unwrap().text, after);
            assert_eq!(uninstall(&after).unwrap(), before, "{after}");
        }
    }

    #[test]
    fn edited_entries_are_updated_and_removed() {
        let hooks = |command: &str| {
            let hook = json!({"type": "command", "command": command, "timeout": 5});
            json!({"hooks": {"Stop": [{"hooks": [hook]}]}, "model": "m"}).to_string()
        };
        let edited = hooks("timeout 2 '/old place/sessiond' hook Stop 2>/dev/null || true");
        let after = install(&edited, "/bin/sessiond", &HookEvent::INSTALLED).unwrap().text;
        assert!(after.contains("timeout 2 /bin/sessiond hook Stop 2>/dev/null || true"), "{after}");
        assert!(after.contains("\"timeout\":5") && after.matches("hook Stop ").count() == 1, "{after}");
        assert!(!uninstall(&after).unwrap().contains("sessiond"), "{after}");
        let twice = install(&hooks("sessiond hook Stop"), "/bin/sessiond", &HookEvent::INSTALLED).unwrap().text;
        let twice = twice.replacen(
            r#""Stop":["#,
            r#""Stop":[{"hooks":[{"type":"command","command":"/x/sessiond hook Stop"}]},"#,
            1,
        );
        let once = install(&twice, "/bin/sessiond", &HookEvent::INSTALLED).unwrap().text;
        assert_eq!(once.matches("hook Stop\"").count(), 1, "{once}");
        let own = hooks("notify-send done; sessiond hook Stop");
        assert!(uninstall(&own).unwrap().contains("notify-send done; sessiond hook Stop"), "it is the user's");
        let minified: Value =
            serde_json::from_str(&install("", "sessiond", &HookEvent::INSTALLED).unwrap().text).unwrap();
        assert_eq!(uninstall(&minified.to_string()).unwrap(), r#"{"permissions":{"allow":[]}}"#);
    }

    #[test]
    fn rejects_settings_that_are_broken_or_of_another_shape() {
        for (text, expected) in [
            ("{\"a\": ", "line 1, column 7"),
            ("{\n  \"a\" 1\n}", "line 2, column 7"),
            ("{} {}", "line 1, column 4"),
            ("[]", "the file is not a JSON object"),
            (r#"{"hooks": []}"#, "hooks is not an object"),
            (r#"{"hooks": {"Stop": {}}}"#, "hooks.Stop is not an array"),
            ("{\"a\": \"\\x\"}", "line 1"),
        ] {
            let error = install(text, "sessiond", &HookEvent::INSTALLED).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(install(&"[".repeat(100_000), "sessiond", &HookEvent::INSTALLED).is_err());
    }
}
