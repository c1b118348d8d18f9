//! The few settings of a repository's own configuration that are needed.

use std::io::Read;
use std::path::Path;

use super::{Place, remote};
use crate::platform::small_file;

/// The largest configuration that is read, in bytes.
const MAX: u64 = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Config {
    /// The name by the remote `origin`, or else by the first one.
    pub remote: Option<String>,
    pub is_bare: bool,
    /// Whether git might run a program that the repository names, or whether that is not known.
    pub names_programs: bool,
}

impl Config {
    pub(crate) fn read(place: &Place) -> Self {
        let mut config = Self::default();
        let Some(text) = text(&place.common_dir.join("config")) else {
            // Absent, or too large to know what it says.
            config.names_programs = place.common_dir.join("config").exists();
            return config;
        };
        config.apply(&text);
        for own in [place.git_dir.join("config.worktree"), place.common_dir.join("config.worktree")] {
            if own.exists() {
                config.names_programs |= text_names_programs(&own);
            }
        }
        config
    }

    fn apply(&mut self, text: &str) {
        let mut is_origin = false;
        for Entry { section, subsection, key, value } in entries(text) {
            match (section.as_str(), key.as_str()) {
                ("remote", "url") if !is_origin && (self.remote.is_none() || subsection == "origin") => {
                    is_origin = subsection == "origin";
                    self.remote = remote::name_of(&value).or_else(|| self.remote.take());
                }
                ("core", "bare") => self.is_bare = matches!(value.to_ascii_lowercase().as_str(), "true" | "yes" | "1"),
                _ => self.names_programs |= names_program(&section),
            }
        }
    }
}

/// Filters run for changed files, and an included file may have filters. `git status` is called so that nothing else is run.
fn names_program(section: &str) -> bool {
    ["filter", "include", "includeif"].contains(&section)
}

fn text_names_programs(path: &Path) -> bool {
    text(path).is_none_or(|text| entries(&text).any(|entry| names_program(&entry.section)))
}

fn text(path: &Path) -> Option<String> {
    let (_, mut reader) = small_file::open(path, MAX)?;
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

struct Entry {
    /// In lower case.
    section: String,
    subsection: String,
    /// In lower case.
    key: String,
    value: String,
}

/// The entries of a configuration. Lines that cannot be parsed are skipped.
fn entries(text: &str) -> impl Iterator<Item = Entry> {
    let joined = text.replace("\\\r\n", "").replace("\\\n", "");
    let (mut section, mut subsection) = (String::new(), String::new());
    let lines: Vec<_> = joined.lines().map(str::to_owned).collect();
    lines.into_iter().filter_map(move |line| {
        let mut line = line.trim_start_matches('\u{feff}').trim();
        if let Some(header) = line.strip_prefix('[') {
            let (header, rest) = header_of(header)?;
            (section, subsection) = header;
            line = rest.trim();
        }
        if line.is_empty() || line.starts_with(['#', ';']) {
            // A section that is named counts also without a key.
            let key = String::new();
            return Some(Entry { section: section.clone(), subsection: subsection.clone(), key, value: String::new() });
        }
        let (key, value) = line.split_once('=').unwrap_or((line, "true"));
        Some(Entry {
            section: section.clone(),
            subsection: subsection.clone(),
            key: key.trim().to_ascii_lowercase(),
            value: value_of(value),
        })
    })
}

/// Section and subsection of `remote "origin"]`, and what follows. The old form is `remote.origin]`.
fn header_of(header: &str) -> Option<((String, String), &str)> {
    let Some((name, quoted)) = header.split_once('"').filter(|(name, _)| !name.contains(']')) else {
        let (name, rest) = header.split_once(']')?;
        let (section, subsection) = name.split_once('.').unwrap_or((name, ""));
        return Some(((section.trim().to_ascii_lowercase(), subsection.to_owned()), rest));
    };
    let mut subsection = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                let rest = quoted[at + 1..].trim_start().strip_prefix(']')?;
                return Some(((name.trim().to_ascii_lowercase(), subsection), rest));
            }
            '\\' => subsection.extend(chars.next().map(|(_, c)| c)),
            c => subsection.push(c),
        }
    }
    None
}

/// A value without quotes, escapes and a comment.
fn value_of(text: &str) -> String {
    let (mut value, mut is_quoted) = (String::new(), false);
    let mut chars = text.trim().chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => is_quoted = !is_quoted,
            '#' | ';' if !is_quoted => break,
            '\\' => match chars.next() {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                Some(c) => value.push(c),
                None => {}
            },
            c => value.push(c),
        }
    }
    value.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Config {
        let mut config = Config::default();
        config.apply(text);
        config
    }

    #[test]
    fn origin_names_the_repository() {
        let other = "[remote \"fork\"]\n\turl = https://x/fork.git\n";
        let origin = "[core]\n\tbare = false\n[Remote \"origin\"] ; mine\n URL = \"https://u:p@x/\\\napp.git\" # why\n\turl = no\n";
        assert_eq!(of(other).remote.as_deref(), Some("x/fork"));
        for text in [format!("{other}{origin}"), format!("{origin}{other}")] {
            assert_eq!(of(&text).remote.as_deref(), Some("x/app"), "{text}");
        }
        assert_eq!(of("[remote.origin]\nurl=git@x:app\n").remote.as_deref(), Some("x/app"));
        assert_eq!(of("[remote \"a]b\\\"\"] url=git@x:app\n").remote.as_deref(), Some("x/app"));
        for broken in
            ["[remote \"origin\nurl = x:y\n", "[", "[]", "=\n[remote \"origin\"]\nurl\n", "[remote \"o\" x]\n"]
        {
            let _ = of(broken);
        }
        assert!(of("[core]\n\tbare\n").is_bare);
    }

    #[test]
    fn programs_that_the_repository_names_are_noticed() {
        for text in [
            "[filter \"x\"]\n\tclean = evil\n",
            "[FILTER \"x\"] clean = evil",
            "[filter.x]\nprocess = evil\n",
            "[include]\n\tpath = ../evil\n",
            "[includeIf \"gitdir:/\"]\n\tpath = ../evil\n",
            "[core]\n[filter \"x\"]\n",
        ] {
            assert!(of(text).names_programs, "{text}");
        }
        assert!(!of("[core]\n\tfsmonitor = evil\n# [filter]\n").names_programs, "that is switched off");
    }
}
