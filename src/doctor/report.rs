//! Everything that whoever mends a bug wants to see, in one text, without secrets.

use std::fs;

use super::examine;
use super::service::output;
use crate::client::Client;
use crate::config::{self, Environment, Overrides, has_password};
use crate::wire::DoctorBody;

const LOG_LINES: &str = "300";

/// The whole report.
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
        ("config", config),
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

/// Names and sizes, and nothing of what is inside.
fn listing(dir: &std::path::Path) -> String {
    let Ok(entries) = fs::read_dir(dir) else { return format!("{} cannot be read", dir.display()) };
    let line = |entry: fs::DirEntry| {
        let size = entry.metadata().map_or(0, |found| found.len());
        format!("{size:>12}  {}\n", entry.file_name().display())
    };
    entries.flatten().map(line).collect()
}

/// Hides each word that may hold a password, and each line that sets one.
fn without_secrets(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", without_secret(line))).collect::<String>().trim_end().to_owned()
}

fn without_secret(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let is_set = |behind: &str| behind.trim_start_matches(['"', '\'', ' ']).starts_with(['=', ':']);
    if lower.split("password").skip(1).any(is_set) {
        return "(a line that may hold a password)".into();
    }
    let end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`');
    let mut shown = String::new();
    let mut rest = line;
    while !rest.is_empty() {
        let word = rest.find(end).unwrap_or(rest.len());
        let hidden = rest[..word].contains("://") && has_password(&rest[..word]);
        shown.push_str(if hidden { "(a URL with a password)" } else { &rest[..word] });
        let next = rest[word..].chars().next().map_or(0, char::len_utf8);
        shown.push_str(&rest[word..word + next]);
        rest = &rest[word + next..];
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_gets_into_the_report() {
        for line in [
            "url = \"postgres://me:hunter2@odin3/x\"",
            "url = 'postgres://me@odin3/x?password=hunter2'",
            "Nov 24 odin3 sessiond[1]: central postgres://me:hunter2@odin3/x cannot be reached",
            "Environment=PGPASSWORD=hunter2",
            "password = \"hunter2\"",
            "\"password\": \"hunter2\"",
            "Environment=SESSIOND_CENTRAL_URL=postgres://me:hunter2@odin3/x",
        ] {
            assert!(!without_secrets(line).contains("hunter2"), "{line}: {}", without_secrets(line));
        }
        for line in ["url = \"postgres://me@odin3/x\"", "password_file = \"/etc/x\"", "café: check the password of me"]
        {
            assert_eq!(without_secrets(line), line);
        }
    }
}
