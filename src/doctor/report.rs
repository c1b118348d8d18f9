//! The diagnostics for a bug report, as one text without secrets.

use std::fs;

use serde_json::Value;

use super::examine;
use super::service::output;
use crate::client::Client;
use crate::config::{self, Environment, Overrides, sets_password};
use crate::domain::redact;
use crate::wire::DoctorBody;

const LOG_LINES: &str = "300";

/// The report: findings, status, configuration, state folder, units and logs.
pub fn report(overrides: &Overrides, environment: &Environment<'_>, client: &Client) -> String {
    let findings = examine(overrides, environment, client);
    let loaded = config::load(overrides, environment);
    let config = loaded.as_ref().ok().and_then(|loaded| fs::read_to_string(loaded.config_path.as_deref()?).ok());
    let state = loaded.as_ref().ok().map(|loaded| listing(&loaded.settings.state_dir));
    let status = client.status().map(|status| pretty(&status)).unwrap_or_else(|error| error.message);
    let journal =
        |words: &[&str]| output(&[&["journalctl", "--no-pager", "-n", LOG_LINES, "-o", "short-iso"], words].concat());
    let sections = [
        ("system", output(&["uname", "-srm"])),
        ("distribution", fs::read_to_string("/etc/os-release").ok()),
        ("doctor", Some(pretty(&DoctorBody::from(findings.as_slice())))),
        ("status", Some(status)),
        ("config", config.as_deref().map(settings)),
        ("state folder", state),
        ("unit", output(&["systemctl", "cat", "sessiond.service", "sessiond.socket"])),
        ("user's unit", output(&["systemctl", "--user", "cat", "sessiond.service", "sessiond.socket"])),
        ("log", journal(&["-u", "sessiond"])),
        ("user's log", journal(&["--user-unit", "sessiond"])),
    ];
    let shown = sections.into_iter().filter_map(|(name, text)| {
        let text = text.filter(|text| !text.trim().is_empty())?;
        Some(format!("== {name}\n{}\n", without_secrets(text.trim_end())))
    });
    shown.collect::<Vec<_>>().join("\n")
}

fn pretty(body: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(body).unwrap_or_else(|error| error.to_string())
}

/// The names and sizes of a folder's files.
fn listing(dir: &std::path::Path) -> String {
    let Ok(entries) = fs::read_dir(dir) else { return format!("{} cannot be read", dir.display()) };
    let line = |entry: fs::DirEntry| {
        let size = entry.metadata().map_or(0, |found| found.len());
        format!("{size:>12}  {}\n", entry.file_name().display())
    };
    entries.flatten().map(line).collect()
}

/// Redacts each word that may hold a password, and each line that sets one.
fn without_secrets(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", without_secret(line))).collect::<String>().trim_end().to_owned()
}

fn without_secret(line: &str) -> String {
    if sets_password(line) {
        return "(a line that may hold a password)".into();
    }
    let shown = match line.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?))) {
        Some((scheme, (user_info, rest))) if user_info.contains(':') => format!("{scheme}://(hidden)@{rest}"),
        _ => line.to_owned(),
    };
    redact::text(&shown).unwrap_or(shown)
}

/// The channels of notifications: a URL may be all that is needed to post to it, and a command may hold a token.
const CHANNELS: [&str; 3] = ["webhook", "ntfy", "command"];

/// The settings of a configuration file. Comments are not shown, nor a file that is not TOML.
fn settings(text: &str) -> String {
    match toml::from_str::<Value>(text) {
        Ok(settings) => pretty(&without_passwords(settings)),
        Err(_) => "(it is not TOML, and not shown: any part of it may be a password)".to_owned(),
    }
}

fn without_passwords(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_secret(&text)),
        Value::Array(items) => items.into_iter().map(without_passwords).collect(),
        Value::Object(fields) => {
            let shown = |(name, value): (String, Value)| match name.as_str() {
                name if CHANNELS.contains(&name) => (name.to_owned(), Value::from("(hidden)")),
                name => (without_secret(name), without_passwords(value)),
            };
            fields.into_iter().map(shown).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_holds_no_secret() {
        for line in [
            "url = \"postgres://me:hunter2@odin3/x\"",
            "url = 'postgres://me@odin3/x?password=hunter2'",
            "Nov 24 odin3 sessiond[1]: central postgres://me:hunter2@odin3/x cannot be reached",
            "Environment=PGPASSWORD=hunter2",
            "password = \"hunter2\"",
            "\"password\": \"hunter2\"",
            "Environment=SESSIOND_CENTRAL_URL=postgres://me:hunter2@odin3/x",
            "url = \"postgres://me:a/hunter2@odin3/x\"",
            "url = \"postgres://me:a@hunter2@odin3/x\"",
            "url = \"postgres://me:a#hunter2@odin3/x\"",
            "url = \"postgres://me:a? hunter2@odin3/x\"",
            "url = \"postgres://me:a' hunter2@odin3/x\"",
            "url = 'postgres://me:a\" hunter2@odin3/x'",
            "url = \"postgres://me:a <hunter2> `@odin3/x\"",
            "url = \"host=odin3 password=hunter2 user=me\"",
            "url = \"host=odin3 password = 'a hunter2' user=me\"",
            "url = \"postgres://odin3/x?pass%77ord=hunter2\"",
            "url = \"postgres://odin3/x?sslpassword=hunter2\"",
            "Environment=\"PGPASSWORD=a hunter2\"",
            "ExecStart=/usr/bin/sessiond run --central-url 'postgres://me:x y/hunter2@odin3/x'",
            "DB_PASS=hunter2",
        ] {
            assert!(!without_secrets(line).contains("hunter2"), "{line}: {}", without_secrets(line));
        }
        for line in ["url = \"postgres://me@odin3/x\"", "password_file = \"/etc/x\"", "café: check the password of me"]
        {
            assert_eq!(without_secrets(line), line);
        }
    }

    #[test]
    fn only_the_settings_of_a_configuration_are_shown() {
        let shown = settings(
            "# url = \"postgres://a hunter2\"\n[central]\nurl = \"\"\"postgres://me:a\nhunter2@h/x\"\"\"\n[log]\nlevel = \"info\"",
        );
        assert!(!shown.contains("hunter2") && shown.contains("\"level\": \"info\""), "{shown}");
        let rules = "[[notify.rules]]\non = [\"stale\"]\nwebhook = \"https://h/hunter2\"\n[[notify.rules]]\nntfy = \
            \"https://h/hunter2\"\n[[notify.rules]]\ncommand = [\"tell\", \"hunter2\"]\n";
        let shown = settings(rules);
        assert!(!shown.contains("hunter2") && shown.contains("stale"), "{shown}");
        for broken in ["[central]\nurl = postgres://me:hunter2@h/x", "hunter2", "[central]\nurl = \"x hunter2"] {
            assert!(!settings(broken).contains("hunter2"), "{broken}");
        }
    }
}
