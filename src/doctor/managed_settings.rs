//! The settings of Claude Code that an administrator deploys to a machine. They override those of its users.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::hooks::CHECK;
use crate::claude::hook::HookEvent;
use crate::claude::settings;
use crate::domain::Finding;
use crate::platform::default_paths::Os;

/// The readable files; later ones override earlier ones.
#[derive(Default)]
pub(super) struct ManagedSettings {
    files: Vec<(PathBuf, String)>,
    pub faults: Vec<Finding>,
}

/// The folder of the managed settings.
pub(super) fn folder(os: Os) -> &'static Path {
    Path::new(match os {
        Os::Linux => "/etc/claude-code",
        Os::MacOs => "/Library/Application Support/ClaudeCode",
    })
}

impl ManagedSettings {
    /// Reads `managed-settings.json`, and the files in `managed-settings.d` in the order of their names.
    pub(super) fn read(folder: &Path) -> Self {
        let entries = fs::read_dir(folder.join("managed-settings.d")).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).filter(|path| is_fragment(path)).collect();
        paths.sort_unstable();
        paths.insert(0, folder.join("managed-settings.json"));
        let mut managed = Self::default();
        for path in paths {
            let read = fs::read_to_string(&path);
            managed.add(path, read);
        }
        managed
    }

    fn add(&mut self, path: PathBuf, read: io::Result<String>) {
        let shown = path.display();
        match read.map(|text| (settings::events(&text), text)) {
            Ok((Ok(_), text)) => self.files.push((path, text)),
            Ok((Err(error), _)) => {
                let hint = "the administrator of this machine must fix the file";
                self.faults.push(Finding::wrong(CHECK, format!("{shown}: {error}"), hint));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                let hint = "make it readable for the users of Claude Code";
                self.faults.push(Finding::odd(CHECK, format!("{shown} cannot be read: {error}"), hint));
            }
        }
    }

    /// The value of a boolean setting, and the file that sets it.
    pub(super) fn flag(&self, name: &str) -> Option<(bool, &Path)> {
        let mut values =
            self.files.iter().rev().filter_map(|(path, text)| Some((settings::flag(text, name)?, path.as_path())));
        values.next()
    }

    pub(super) fn has_hook(&self, event: HookEvent) -> bool {
        self.files.iter().any(|(_, text)| settings::has_hook(text, event).unwrap_or(false))
    }
}

fn is_fragment(path: &Path) -> bool {
    let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !is_hidden && path.extension().is_some_and(|ending| ending == "json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Verdict;

    #[test]
    fn later_managed_files_replace_earlier_ones() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ManagedSettings::read(dir.path()).flag("disableAllHooks"), None);
        fs::create_dir(dir.path().join("managed-settings.d")).unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("managed-settings.json", r#"{"disableAllHooks": true, "allowManagedHooksOnly": "yes"}"#);
        write("managed-settings.d/20.json", r#"{"disableAllHooks": false}"#);
        write("managed-settings.d/10.json", r#"{"disableAllHooks": true}"#);
        write("managed-settings.d/.30.json", r#"{"disableAllHooks": true}"#);
        write("managed-settings.d/README", "not JSON");
        let managed = ManagedSettings::read(dir.path());
        assert_eq!(managed.flag("disableAllHooks").map(|(value, _)| value), Some(false));
        assert_eq!(managed.flag("allowManagedHooksOnly"), None, "not a boolean");
        assert_eq!(managed.faults, []);
    }

    #[test]
    fn broken_managed_settings_are_wrong() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("managed-settings.json"), "{").unwrap();
        let managed = ManagedSettings::read(dir.path());
        assert_eq!(managed.faults[0].verdict, Verdict::Wrong);
        assert_eq!(managed.flag("disableAllHooks"), None);
    }
}
