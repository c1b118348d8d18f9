//! Passwords from a file such as `~/.pgpass`: lines of `host:port:database:user:password`, where `*` matches
//! everything and a backslash escapes the next character. The first matching line counts.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The password for a login. As in libpq, `None` if the file is missing or other users can read it.
pub(super) fn password(file: &Path, wanted: [&str; 4]) -> Option<String> {
    let about = fs::metadata(file).ok().filter(fs::Metadata::is_file)?;
    if about.mode() & 0o077 != 0 {
        tracing::warn!(file = %file.display(), "the password file is open to others and not used; run chmod 600 on it");
        return None;
    }
    find(&fs::read_to_string(file).ok()?, wanted)
}

fn find(text: &str, wanted: [&str; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        let fits = fields.len() == 5
            && wanted
                .iter()
                .zip(&fields)
                .all(|(wanted, (field, is_escaped))| (field == "*" && !is_escaped) || field == wanted);
        fits.then(|| fields[4].0.clone())
    })
}

/// The fields of a line, and whether each was escaped; a password may have colons.
fn fields(line: &str) -> Vec<(String, bool)> {
    let mut fields = vec![(String::new(), false)];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let count = fields.len();
        let Some((field, is_escaped)) = fields.last_mut() else { break };
        match character {
            '\\' => {
                *is_escaped = true;
                field.extend(characters.next());
            }
            ':' if count < 5 => fields.push((String::new(), false)),
            other => field.push(other),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn first_matching_line_counts() {
        let text = "# comment\nodin3:5435:x:me:first\nodin3:*:*:me:second:with:colons\n\\:\\:1:5432:x:me:v6\nshort:line\n*:*:*:*:rest\\\\";
        let of = |host, port, database, user| find(text, [host, port, database, user]);
        assert_eq!(of("odin3", "5435", "x", "me").as_deref(), Some("first"));
        assert_eq!(of("odin3", "5432", "y", "me").as_deref(), Some("second:with:colons"));
        assert_eq!(of("::1", "5432", "x", "me").as_deref(), Some("v6"));
        assert_eq!(of("other", "1", "z", "you").as_deref(), Some("rest\\"));
        assert_eq!(find("\\*:1:x:me:p", ["h", "1", "x", "me"]), None, "an escaped star is a name");
    }

    #[test]
    fn file_readable_by_others_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pass");
        assert_eq!(password(&file, ["h", "1", "x", "me"]), None);
        fs::write(&file, "*:*:*:*:p\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(password(&file, ["h", "1", "x", "me"]), None);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(password(&file, ["h", "1", "x", "me"]).as_deref(), Some("p"));
    }
}
