//! Keeps copies of requests that can never be imported, with the reason, for the operator.
//!
//! The quarantine is a folder of the state folder, which no other user may enter. It holds copies: the file in the spool
//! is unlinked once the copy is on the disk. The number of copies is bounded for each user and in total; the oldest are
//! removed first.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, unlinkat};
use serde::{Deserialize, Serialize};

use super::SpooledRequest;
use super::folder::open_folder;
use crate::domain::text::one_line;
use crate::domain::{Timestamp, redact};
use crate::platform::files::{WriteDurability, write_atomically_in};

const FOLDER: &str = "quarantine";
const EXTENSION: &str = ".json";
/// How many copies are kept of one user's requests.
const MAX_PER_USER: usize = 100;
/// How many copies are kept in total.
const MAX_IN_TOTAL: usize = 1000;

/// A quarantined request, as its file describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// The file's name in the quarantine.
    #[serde(skip)]
    pub name: String,
    /// The user who made the request.
    pub uid: u32,
    /// The file in the spool.
    pub file: PathBuf,
    pub(crate) reason: String,
    /// When it was quarantined: microseconds since 1970 in UTC.
    pub at: i64,
    /// The file's content, redacted.
    pub content: String,
}

/// The quarantine of a state folder.
#[derive(Debug)]
pub struct Quarantine {
    descriptor: OwnedFd,
    /// Oldest first, with empty contents.
    kept: Vec<Quarantined>,
}

impl Quarantine {
    /// Opens the quarantine of a state folder, and creates it if it is missing.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(FOLDER);
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let mut quarantine = Self { descriptor: open_folder(&path, OFlags::RDONLY)?, kept: Vec::new() };
        quarantine.load()?;
        Ok(quarantine)
    }

    fn load(&mut self) -> io::Result<()> {
        for listed in Dir::read_from(&self.descriptor)? {
            let listed = listed?;
            let Ok(name) = listed.file_name().to_str() else { continue };
            if !name.ends_with(EXTENSION) || name.starts_with('.') {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = openat(&self.descriptor, name, flags, Mode::empty()).map(File::from);
            let known =
                file.ok().and_then(|file| serde_json::from_reader::<_, Quarantined>(io::BufReader::new(file)).ok());
            if let Some(known) = known {
                self.kept.push(Quarantined { name: name.to_owned(), content: String::new(), ..known });
            }
        }
        self.kept.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    }

    /// Keeps a copy of a request; when this returns it is on the disk. `random` makes its name unique.
    pub fn keep(
        &mut self,
        (uid, file): (u32, PathBuf),
        content: &[u8],
        reason: &str,
        at: Timestamp,
        random: u64,
    ) -> io::Result<()> {
        let name = format!("{:020}-{random:016x}{EXTENSION}", at.micros().max(0));
        let content = redacted(content);
        let entry = Quarantined { name: name.clone(), uid, file, reason: one_line(reason), at: at.micros(), content };
        let bytes = serde_json::to_vec(&entry)?;
        write_atomically_in(self.descriptor.as_fd(), &name, &bytes, 0o600, WriteDurability::ContentAndName)?;
        self.kept.push(Quarantined { content: String::new(), ..entry });
        self.enforce_limits(uid);
        Ok(())
    }

    /// Removes the oldest copies beyond the limits.
    fn enforce_limits(&mut self, uid: u32) {
        let mut of_user = self.kept.iter().filter(|kept| kept.uid == uid).count().saturating_sub(MAX_PER_USER);
        let mut in_all = self.kept.len().saturating_sub(MAX_IN_TOTAL);
        let descriptor = &self.descriptor;
        self.kept.retain(|kept| {
            let beyond = (kept.uid == uid && of_user > 0) || in_all > 0;
            if beyond {
                of_user = of_user.saturating_sub(usize::from(kept.uid == uid));
                in_all = in_all.saturating_sub(1);
                let _ = unlinkat(descriptor, &kept.name, AtFlags::empty());
            }
            !beyond
        });
    }

    /// The quarantined requests, oldest first, with empty contents. Files that were removed are forgotten.
    pub fn list(&mut self) -> &[Quarantined] {
        let descriptor = &self.descriptor;
        self.kept.retain(|kept| rustix::fs::statat(descriptor, &kept.name, AtFlags::SYMLINK_NOFOLLOW).is_ok());
        &self.kept
    }
}

fn redacted(content: &[u8]) -> String {
    if let Ok(mut request) = serde_json::from_slice::<SpooledRequest>(content) {
        request.redact();
        return serde_json::to_string(&request).unwrap_or_default();
    }
    let text = String::from_utf8_lossy(content).into_owned();
    redact::text(&text).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(quarantine: &mut Quarantine, uid: u32, at: i64) {
        let file = PathBuf::from(format!("/spool/{at}.json"));
        let content = b"{\"at\": 1, \"password\": \"hunter2\"";
        quarantine.keep((uid, file), content, "it is\nnot a request", Timestamp::from_micros(at), at as u64).unwrap();
    }

    #[test]
    fn is_bounded_for_each_user_and_kept_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let mut quarantine = Quarantine::open(dir.path()).unwrap();
        keep(&mut quarantine, 1, 1);
        for at in 2..2 + MAX_PER_USER as i64 + 5 {
            keep(&mut quarantine, 2, at);
        }
        let of = |kept: &[Quarantined], uid| kept.iter().filter(|kept| kept.uid == uid).count();
        assert_eq!((of(quarantine.list(), 1), of(quarantine.list(), 2)), (1, MAX_PER_USER));

        let mut again = Quarantine::open(dir.path()).unwrap();
        assert_eq!(again.list(), quarantine.list());
        assert!(again.list().iter().all(|kept| kept.reason == "it is\u{fffd}not a request"));
        let path = dir.path().join("quarantine").join(&again.list()[0].name);
        assert!(!fs::read_to_string(&path).unwrap().contains("hunter2"));
        fs::remove_file(path).unwrap();
        assert_eq!(again.list().len(), MAX_PER_USER);
    }
}
