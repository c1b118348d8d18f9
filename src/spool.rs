//! The spool: a folder in which clients leave their writes while no daemon answers.
//!
//! One write is one file, there whole or not at all. Its name begins with the moment it was written, so that
//! names in their order are writes in theirs. The daemon takes each in once and removes it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::platform::places::{Env, Os, Places, STATE_DIR_VAR, path_in};
use crate::wire::{AgentReport, CheckpointRequest, EventRequest, HeartbeatRequest, RegisterRequest};

/// The spool within a state folder.
const FOLDER: &str = "spool";
/// The spool of the system service, whose state folder nobody else may enter.
const SHARED: &str = "/var/spool/sessiond";
/// Everybody may leave a file, and see or remove only their own: as for mail and print jobs of old.
const SHARED_MODE: u32 = 0o1733;
const ENDING: &str = ".json";
/// Where files go that cannot be taken in.
const DAMAGED: &str = "damaged";
/// A file holds one request, which has 64 KiB at most, in JSON that may be escaped once more.
const MAX_FILE: u64 = 256 << 10;
/// How many files a user may leave: a folder must not grow without end because nobody starts the daemon.
const MAX_FILES: usize = 10_000;

/// For so long, in microseconds, the same sign of life says nothing new: a status line is drawn all the time.
const NO_NEWS: i64 = 5_000_000;

/// A write that waits for the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Letter {
    /// When it was made: microseconds since 1970 in UTC.
    pub at: i64,
    /// The sockets on which a daemon was looked for: it is for the one that listens on any of these.
    pub sockets: Vec<PathBuf>,
    pub write: Write,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Write {
    /// `id` was drawn by the client, and told.
    Register {
        id: String,
        request: RegisterRequest,
        pid_started: Option<i64>,
    },
    Heartbeat {
        id: String,
        request: HeartbeatRequest,
    },
    Close {
        id: String,
    },
    Agent {
        report: AgentReport,
    },
    Event {
        id: String,
        request: EventRequest,
    },
    Checkpoint {
        id: String,
        request: CheckpointRequest,
    },
}

impl Write {
    /// What sign of life it is, and of whom: a later one of the same makes it superfluous.
    fn beat(&self) -> Option<String> {
        match self {
            Self::Heartbeat { id, .. } => Some(format!("session {id}")),
            Self::Agent { report } if report.sign == "beat" => {
                Some(format!("agent {}", report.claude_session_uuid.as_deref()?))
            }
            _ => None,
        }
    }

    /// What an earlier sign of life said, and this later one leaves out.
    fn completed_by(self, earlier: Self) -> Self {
        match (self, earlier) {
            (Self::Heartbeat { id, request }, Self::Heartbeat { request: before, .. }) => {
                let request = HeartbeatRequest {
                    context_percent: request.context_percent.or(before.context_percent),
                    current_epic: request.current_epic.or(before.current_epic),
                };
                Self::Heartbeat { id, request }
            }
            (Self::Agent { mut report }, Self::Agent { report: before }) => {
                report.context_percent = report.context_percent.or(before.context_percent);
                report.claude_session_path = report.claude_session_path.or(before.claude_session_path);
                report.promised_id = report.promised_id.or(before.promised_id);
                Self::Agent { report }
            }
            (later, _) => later,
        }
    }
}

/// A folder of letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    dir: PathBuf,
}

/// A letter as it lies there.
#[derive(Debug)]
pub struct Found {
    pub name: String,
    /// Who wrote it: the file's owner.
    pub uid: u32,
    pub letter: Letter,
}

impl Spool {
    /// Where a client leaves its letters: in the state folder that it shares with its daemon, or where the system
    /// service collects those of everybody.
    pub fn of_client(env: Env<'_>, is_root: bool) -> Option<Self> {
        if let Some(named) = path_in(env, STATE_DIR_VAR) {
            return Some(Self::in_folder(&named));
        }
        let own = Places::of(Os::here(), is_root, env).state_dir;
        let has_a_daemon = own.as_ref().is_some_and(|dir| dir.join("identity.json").exists());
        if !has_a_daemon && !is_root && Path::new(SHARED).is_dir() {
            return Some(Self { dir: SHARED.into() });
        }
        own.map(|dir| Self::in_folder(&dir))
    }

    pub fn in_folder(state_dir: &Path) -> Self {
        Self { dir: state_dir.join(FOLDER) }
    }

    /// The system service's spool; made by it if it is missing.
    pub fn shared() -> io::Result<Self> {
        let dir = Path::new(SHARED);
        if !dir.is_dir() {
            DirBuilder::new().mode(SHARED_MODE).create(dir)?;
            // The umask may have taken some of it away.
            fs::set_permissions(dir, fs::Permissions::from_mode(SHARED_MODE))?;
        }
        Ok(Self { dir: dir.to_owned() })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the folder if it is missing, for its user alone.
    pub fn make(&self) -> io::Result<()> {
        if self.dir.is_dir() { Ok(()) } else { DirBuilder::new().recursive(true).mode(0o700).create(&self.dir) }
    }

    /// Leaves a letter: when this returns it is on the disk. `random` tells its name from all others.
    ///
    /// # Errors
    /// The folder cannot be made or written, or there are too many letters in it.
    pub fn leave(&self, letter: &Letter, random: u64) -> io::Result<()> {
        self.make()?;
        let mut letter = letter.clone();
        let superfluous = self.superseded_by(&letter)?;
        if let Some((earlier, _)) = &superfluous {
            letter.write = letter.write.completed_by(earlier.write.clone());
            if letter.write == earlier.write && (0..NO_NEWS).contains(&(letter.at - earlier.at)) {
                return Ok(());
            }
        }
        // The daemon may be another user, who learns of the owner and not of a group.
        let name = format!("{:020}-{random:016x}{}{ENDING}", letter.at.max(0), mark(&letter.write));
        let draft = self.dir.join(format!(".{name}"));
        let written = self.write_whole(&draft, &self.dir.join(&name), &serde_json::to_vec(&letter)?);
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        written?;
        if let Some((_, path)) = superfluous {
            let _ = fs::remove_file(path);
        }
        Ok(())
    }

    fn write_whole(&self, draft: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::options().create_new(true).write(true).mode(0o600).open(draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(draft, path)?;
        match File::open(&self.dir) {
            Ok(dir) => dir.sync_all(),
            // The shared one may be written and not read; its file system writes the name in its own time.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The earlier sign of life that this one makes superfluous.
    fn superseded_by(&self, letter: &Letter) -> io::Result<Option<(Letter, PathBuf)>> {
        let names = match self.names() {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(None),
            names => names?,
        };
        let mark = mark(&letter.write);
        let earlier = names.iter().rev().find(|name| !mark.is_empty() && name.contains(&mark)).and_then(|name| {
            let found = self.read(name).ok()?;
            (found.letter.write.beat() == letter.write.beat() && found.letter.sockets == letter.sockets)
                .then(|| (found.letter, self.dir.join(name)))
        });
        if earlier.is_none() && names.len() >= MAX_FILES {
            return Err(io::Error::other(format!("{MAX_FILES} writes wait there already")));
        }
        Ok(earlier)
    }

    /// The letters that wait, by name, oldest first.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(names),
            entries => entries?,
        };
        for entry in entries {
            match entry?.file_name().into_string() {
                Ok(name) if name.ends_with(ENDING) && !name.starts_with('.') => names.push(name),
                _ => {}
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Reads one letter.
    ///
    /// # Errors
    /// `NotFound` when it is gone; `InvalidData` when it is none: set it aside.
    pub fn read(&self, name: &str) -> io::Result<Found> {
        use rustix::fs::{Mode, OFlags};
        // Whoever may leave files here may leave links and pipes too.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::open(self.dir.join(name), flags, Mode::empty()) {
            Err(rustix::io::Errno::LOOP) => return Err(invalid("it is a link")),
            opened => File::from(opened?),
        };
        let about = file.metadata()?;
        // A second name of somebody else's file would pass for that user's letter.
        if !about.is_file() || about.nlink() != 1 {
            return Err(invalid("it is no file of its own"));
        }
        let mut bytes = Vec::new();
        if file.take(MAX_FILE + 1).read_to_end(&mut bytes)? as u64 > MAX_FILE {
            return Err(invalid("it is too large"));
        }
        let letter = serde_json::from_slice(&bytes).map_err(|error| invalid(&error.to_string()))?;
        Ok(Found { name: name.to_owned(), uid: about.uid(), letter })
    }

    /// Keeps a file that cannot be taken in where it is out of the way.
    pub fn set_aside(&self, name: &str) -> io::Result<PathBuf> {
        let damaged = self.dir.join(DAMAGED);
        if !damaged.is_dir() {
            DirBuilder::new().mode(0o700).create(&damaged)?;
        }
        let aside = damaged.join(name);
        fs::rename(self.dir.join(name), &aside)?;
        Ok(aside)
    }

    /// Removes letters for good: not even a power cut brings them back.
    pub fn remove(&self, names: &[String]) -> io::Result<()> {
        for name in names {
            match fs::remove_file(self.dir.join(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        File::open(&self.dir)?.sync_all()
    }
}

/// What the name of a sign of life bears, by which an earlier one of the same is found.
fn mark(write: &Write) -> String {
    let hash = |who: String| {
        let hash = who
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        format!("-beat{hash:016x}")
    };
    write.beat().map(hash).unwrap_or_default()
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

impl Letter {
    /// A write made at `at`, for the daemon that was looked for on these sockets.
    pub fn new(write: Write, sockets: &[PathBuf], at: Timestamp) -> Self {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Self { at: at.micros(), sockets: sockets.iter().map(absolute).collect(), write }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(at: i64, context_percent: Option<i64>, epic: Option<&str>) -> Letter {
        let current_epic = epic.map(|epic| Some(epic.to_owned()));
        let request = HeartbeatRequest { context_percent, current_epic };
        Letter { at, sockets: vec!["/s".into()], write: Write::Heartbeat { id: "odin-PS-8f4a2b".into(), request } }
    }

    fn close(at: i64) -> Letter {
        Letter { at, sockets: vec!["/s".into()], write: Write::Close { id: "odin-PS-8f4a2b".into() } }
    }

    #[test]
    fn letters_are_read_in_order_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::in_folder(dir.path());
        assert_eq!(spool.names().unwrap(), Vec::<String>::new());
        for (at, random) in [(30, 1), (9, 2), (10, 3)] {
            spool.leave(&close(at), random).unwrap();
        }
        let names = spool.names().unwrap();
        let found: Vec<_> = names.iter().map(|name| spool.read(name).unwrap()).collect();
        assert_eq!(found.iter().map(|f| f.letter.at).collect::<Vec<_>>(), [9, 10, 30]);
        assert!(found.iter().all(|f| f.uid == rustix::process::geteuid().as_raw()));
        assert_eq!(fs::metadata(spool.dir()).unwrap().mode() & 0o777, 0o700);
        spool.remove(&names).unwrap();
        spool.remove(&names).unwrap();
        assert_eq!(fs::read_dir(spool.dir()).unwrap().count(), 0);
    }

    #[test]
    fn signs_of_life_do_not_pile_up_and_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::in_folder(dir.path());
        spool.leave(&beat(1, Some(42), None), 1).unwrap();
        spool.leave(&beat(2, None, Some("004")), 2).unwrap();
        spool.leave(&beat(3, None, None), 3).unwrap();
        assert_eq!(spool.read(&spool.names().unwrap()[0]).unwrap().letter.at, 2, "the same says nothing new so soon");
        spool.leave(&beat(3 + NO_NEWS, None, None), 4).unwrap();
        let names = spool.names().unwrap();
        assert_eq!(names.len(), 1);
        assert_eq!(spool.read(&names[0]).unwrap().letter, beat(3 + NO_NEWS, Some(42), Some("004")));
    }

    #[test]
    fn what_is_no_letter_is_told_and_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::in_folder(dir.path());
        spool.make().unwrap();
        let at = |name: &str| spool.dir().join(name);
        fs::write(at("1.json"), "{\"at\": 1, \"sockets\": [], \"write\"").unwrap();
        fs::write(at("2.json"), vec![b' '; 300 << 10]).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", at("3.json")).unwrap();
        fs::create_dir(at("4.json")).unwrap();
        fs::write(dir.path().join("other"), serde_json::to_vec(&close(1)).unwrap()).unwrap();
        fs::hard_link(dir.path().join("other"), at("5.json")).unwrap();
        fs::write(at(".6.json"), "a draft").unwrap();
        for name in spool.names().unwrap() {
            assert_eq!(spool.read(&name).unwrap_err().kind(), ErrorKind::InvalidData, "{name}");
            assert!(fs::symlink_metadata(spool.set_aside(&name).unwrap()).is_ok());
        }
        assert_eq!(spool.names().unwrap(), Vec::<String>::new());
        assert_eq!(spool.read("gone.json").unwrap_err().kind(), ErrorKind::NotFound);
    }
}
