//! Chooses which spooled requests to import next. All of it blocks, and runs on a thread for blocking work.
//!
//! Each pass lists the folder once and opens a bounded number of files, shared evenly among the users who own them, so
//! that a user with many files delays only their own. A file that was ignored once is remembered by inode and change
//! time, and is not opened again. Memory is bounded by the number of users, not of files.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::domain::Timestamp;
use crate::spool::folder::FileVersion;
use crate::spool::{ReadError, Spool, SpoolEntry, SpoolStatus, SpooledRequest};

/// How many files are opened in one pass.
const MAX_FILES_PER_PASS: usize = 256;
/// How many of them may belong to one user.
const MAX_FILES_PER_USER: usize = 64;
/// How many files of one user are remembered as ignored. Beyond that all of the user's files are ignored, until some of
/// the remembered ones are removed.
const MAX_IGNORED_PER_USER: usize = 10_000;
/// How often, and over how long at least, a request for an unknown session is tried before it is quarantined: the
/// request that registers the session may be in another folder.
const MAX_ATTEMPTS: u32 = 5;
const MIN_ATTEMPTS_TIME: Duration = Duration::from_secs(3);
/// Delay before a failed request is tried again. For one that the store could not apply it doubles each time, up to the
/// maximum. One for an unknown session is also tried again as soon as others were imported.
const RETRY_DELAY: Duration = Duration::from_secs(1);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);

/// How long an answer of the user database about a user is cached.
const ALLOWED_TTL: Duration = Duration::from_secs(10);

/// Whether a user may use this daemon. May block.
pub(super) type AllowedUsers = Arc<dyn Fn(u32) -> bool + Send + Sync>;

/// What is remembered between passes.
#[derive(Default)]
pub(super) struct SpoolScanner {
    ignored: HashMap<u32, HashMap<FileVersion, Ignored>>,
    failed: HashMap<FileVersion, Failed>,
    /// By user, with the time at which the user database was read.
    allowed: HashMap<u32, (bool, Instant)>,
    pass: u64,
    /// How many requests of this folder were imported since the start.
    pub imported: u64,
    /// How many files were opened since the start.
    pub opened: u64,
}

struct Ignored {
    reason: String,
    seen_in: u64,
}

struct Failed {
    attempts: u32,
    first: Instant,
    last: Instant,
    imported_before: u64,
    reason: String,
    /// Later requests with this key wait for it.
    holds: Option<String>,
    seen_in: u64,
}

impl Failed {
    fn is_due(&self, imported: u64) -> bool {
        let delay = match self.holds {
            Some(_) => RETRY_DELAY.saturating_mul(1 << (self.attempts - 1).min(6)).min(MAX_RETRY_DELAY),
            None => RETRY_DELAY,
        };
        let may_resolve = self.holds.is_none() && imported > self.imported_before;
        may_resolve || self.last.elapsed() >= delay
    }
}

/// The files chosen in one pass.
#[derive(Default)]
pub(super) struct Chosen {
    /// The requests, oldest first.
    pub requests: Vec<(SpoolEntry, SpooledRequest)>,
    /// Files that hold no valid request; they are to be quarantined.
    pub invalid: Vec<Rejected>,
    pub status: SpoolStatus,
}

/// A request that can never be applied.
pub(super) struct Rejected {
    pub entry: SpoolEntry,
    pub content: Vec<u8>,
    pub reason: String,
}

/// Whether a failed request may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempts {
    Left,
    Exhausted,
}

/// A file that may be opened in this pass, ordered by time, then by name.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct CandidateFile {
    order: (i64, String),
    entry: SpoolEntry,
}

impl SpoolScanner {
    /// Lists the folder and reads the next requests for the daemon that listens on `socket`, from users who are allowed,
    /// members of `group` included.
    ///
    /// # Errors
    /// The folder is not safe to read, or cannot be read.
    pub(super) fn choose(
        &mut self,
        spool: &Spool,
        socket: &std::path::Path,
        (allowed, group): (&AllowedUsers, Option<u32>),
        now: Timestamp,
    ) -> io::Result<Chosen> {
        let owner = rustix::process::geteuid().as_raw();
        let Some(folder) = spool.open(owner)? else { return Ok(Chosen::default()) };
        let by_members = spool.is_shared() && folder.is_for_members_of(group);
        self.pass += 1;
        let mut status = SpoolStatus::default();
        let mut users: BTreeMap<u32, BinaryHeap<CandidateFile>> = BTreeMap::new();
        folder.scan(now.micros() / 1_000_000, |entry| {
            if by_members || self.allows(entry.uid, allowed) {
                self.visit(entry, &mut users, &mut status);
            } else {
                status.ignored += 1;
                let reason = || format!("user {} may not use this daemon", entry.uid);
                status.ignored_reason.get_or_insert_with(reason);
            }
        })?;
        self.forget_removed();
        let mut chosen = Chosen::default();
        for entry in alternate_users(users) {
            self.opened += 1;
            match folder.read(&entry) {
                Ok(request) if !request.sockets.iter().any(|path| path == socket) => {
                    let intended = request.sockets.last().map(|path| path.display().to_string()).unwrap_or_default();
                    self.ignore(&entry, format!("it is for the daemon at {intended}"), &mut status);
                }
                Ok(request) => chosen.requests.push((entry, request)),
                Err(ReadError::Changed) => {}
                Err(ReadError::Refused(reason)) => self.ignore(&entry, reason, &mut status),
                Err(ReadError::Invalid { content, reason }) => chosen.invalid.push(Rejected { entry, content, reason }),
                Err(ReadError::Failed(error)) => {
                    self.record_failure(&entry, &format!("it cannot be read: {error}"), None);
                }
            }
        }
        chosen.requests.sort_by(|(a, _), (b, _)| (a.written_at, &a.name).cmp(&(b.written_at, &b.name)));
        chosen.status = status;
        Ok(chosen)
    }

    /// Whether this user may use the daemon.
    fn allows(&mut self, uid: u32, allowed: &AllowedUsers) -> bool {
        let known = self.allowed.get(&uid).filter(|(_, since)| since.elapsed() < ALLOWED_TTL);
        if let Some((known, _)) = known {
            return *known;
        }
        let found = allowed(uid);
        self.allowed.insert(uid, (found, Instant::now()));
        found
    }

    /// Counts a listed file, and adds it to its user's candidates if it is one of the oldest.
    fn visit(
        &mut self,
        entry: SpoolEntry,
        users: &mut BTreeMap<u32, BinaryHeap<CandidateFile>>,
        status: &mut SpoolStatus,
    ) {
        let ignored = self.ignored.entry(entry.uid).or_default();
        if let Some(known) = ignored.get_mut(&entry.version) {
            known.seen_in = self.pass;
            status.ignored += 1;
            status.ignored_reason.get_or_insert_with(|| known.reason.clone());
            return;
        }
        if ignored.len() >= MAX_IGNORED_PER_USER {
            status.ignored += 1;
            return;
        }
        if let Some(reason) = entry.refusal {
            self.ignore(&entry, reason.to_owned(), status);
            return;
        }
        status.waiting += 1;
        let written_at = Timestamp::from_micros(entry.written_at);
        status.oldest = Some(status.oldest.map_or(written_at, |oldest| oldest.min(written_at)));
        if let Some(failed) = self.failed.get_mut(&entry.version) {
            failed.seen_in = self.pass;
            status.reason.get_or_insert_with(|| failed.reason.clone());
            if !failed.is_due(self.imported) {
                return;
            }
        }
        let candidates = users.entry(entry.uid).or_default();
        candidates.push(CandidateFile { order: (entry.written_at, entry.name.clone()), entry });
        if candidates.len() > MAX_FILES_PER_USER {
            candidates.pop();
            status.more = true;
        }
    }

    /// Records that a file is ignored from now on.
    fn ignore(&mut self, entry: &SpoolEntry, reason: String, status: &mut SpoolStatus) {
        let ignored = self.ignored.entry(entry.uid).or_default();
        tracing::debug!(file = entry.name, user = entry.uid, reason, "a file in the spool is ignored");
        if ignored.is_empty() {
            tracing::warn!(user = entry.uid, reason, "files of this user in the spool are ignored");
        }
        status.ignored += 1;
        status.ignored_reason.get_or_insert_with(|| reason.clone());
        ignored.insert(entry.version, Ignored { reason, seen_in: self.pass });
    }

    /// Records that a request could not be applied; later ones with the key `holds` wait for it. Returns whether one for
    /// an unknown session may be tried again.
    pub(super) fn record_failure(&mut self, entry: &SpoolEntry, reason: &str, holds: Option<String>) -> Attempts {
        let now = Instant::now();
        let failed = self.failed.entry(entry.version).or_insert_with(|| Failed {
            attempts: 0,
            first: now,
            last: now,
            imported_before: 0,
            reason: String::new(),
            holds: None,
            seen_in: self.pass,
        });
        failed.attempts += 1;
        failed.last = now;
        failed.imported_before = self.imported;
        failed.holds = holds;
        reason.clone_into(&mut failed.reason);
        let exhausted = failed.attempts >= MAX_ATTEMPTS && now.duration_since(failed.first) >= MIN_ATTEMPTS_TIME;
        if exhausted { Attempts::Exhausted } else { Attempts::Left }
    }

    /// Forgets the failures of a request that is applied or quarantined.
    pub(super) fn forget(&mut self, entry: &SpoolEntry) {
        self.failed.remove(&entry.version);
    }

    /// The keys whose requests wait for an earlier one, each with that one's file.
    pub(super) fn held(&self) -> HashMap<String, FileVersion> {
        self.failed.iter().filter_map(|(version, failed)| Some((failed.holds.clone()?, *version))).collect()
    }

    /// Whether requests are to be tried again.
    pub(super) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Forgets files that the last listing did not contain.
    fn forget_removed(&mut self) {
        let pass = self.pass;
        self.failed.retain(|_, failed| failed.seen_in == pass);
        self.ignored.retain(|_, ignored| {
            ignored.retain(|_, known| known.seen_in == pass);
            !ignored.is_empty()
        });
    }
}

/// The oldest candidates, alternating between users, as many as a pass may open.
fn alternate_users(users: BTreeMap<u32, BinaryHeap<CandidateFile>>) -> Vec<SpoolEntry> {
    let mut turns: BinaryHeap<Reverse<(usize, u32, usize)>> = BinaryHeap::new();
    let mut files = Vec::new();
    for (uid, candidates) in users {
        for (turn, candidate) in candidates.into_sorted_vec().into_iter().enumerate() {
            turns.push(Reverse((turn, uid, files.len())));
            files.push(Some(candidate.entry));
        }
    }
    let mut chosen = Vec::new();
    while let Some(Reverse((_, _, index))) = turns.pop().filter(|_| chosen.len() < MAX_FILES_PER_PASS) {
        chosen.extend(files[index].take());
    }
    chosen
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::chown;
    use std::path::Path;

    use super::*;

    fn scan(scanner: &mut SpoolScanner, spool: &Spool, allowed: fn(u32) -> bool) -> Chosen {
        let allowed: AllowedUsers = Arc::new(allowed);
        scanner.choose(spool, Path::new("/s"), (&allowed, None), Timestamp::from_micros(0)).unwrap()
    }

    fn request(socket: &str) -> String {
        format!("{{\"at\": 1, \"sockets\": [\"{socket}\"], \"write\": {{\"close\": {{\"id\": \"odin-PS-8f4a2b\"}}}}}}")
    }

    #[test]
    fn ignored_files_are_not_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::in_folder(&dir.path().join("state"));
        spool.make().unwrap();
        for n in 0..300 {
            fs::write(spool.dir().join(format!("{n:03}.json")), request("/other")).unwrap();
            fs::create_dir(spool.dir().join(format!("d{n:03}.json"))).unwrap();
        }
        let mut scanner = SpoolScanner::default();
        while scan(&mut scanner, &spool, |_| true).status.more {}
        assert_eq!(scanner.opened, 300);
        let chosen = scan(&mut scanner, &spool, |_| true);
        assert_eq!((scanner.opened, chosen.status.ignored, chosen.status.waiting), (300, 600, 0));
        // A file that its owner changed has another version.
        fs::write(spool.dir().join("000.json"), request("/s")).unwrap();
        assert_eq!(scan(&mut scanner, &spool, |_| true).requests.len(), 1);
        assert_eq!(scanner.opened, 301);
        for n in 0..300 {
            fs::remove_dir(spool.dir().join(format!("d{n:03}.json"))).unwrap();
        }
        scan(&mut scanner, &spool, |_| true);
        assert_eq!(scanner.ignored.values().map(HashMap::len).sum::<usize>(), 299, "removed files are forgotten");
    }

    #[test]
    fn a_user_with_many_files_delays_only_their_own() {
        if !rustix::process::geteuid().is_root() {
            return testkit::skip::skip("a_user_with_many_files_delays_only_their_own", "root, to be several users");
        }
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::in_folder(&dir.path().join("state"));
        spool.make().unwrap();
        let write = |name: String, uid| {
            let path = spool.dir().join(name);
            fs::write(&path, request("/s")).unwrap();
            chown(&path, Some(uid), None).unwrap();
        };
        for n in 0..2000 {
            write(format!("{n:020}-many.json"), 5001);
        }
        write(format!("{:020}-late.json", 9999), 5002);
        write(format!("{:020}-late.json", 9998), 5003);
        let mut scanner = SpoolScanner::default();
        let chosen = scan(&mut scanner, &spool, |uid| uid != 5003);
        let of = |uid| chosen.requests.iter().filter(|(entry, _)| entry.uid == uid).count();
        assert_eq!((of(5001), of(5002), of(5003)), (MAX_FILES_PER_USER, 1, 0));
        assert_eq!(chosen.requests[0].0.written_at, 0, "the oldest first");
        assert_eq!((scanner.opened, chosen.status.ignored), (MAX_FILES_PER_USER as u64 + 1, 1));
        assert_eq!(chosen.status.ignored_reason.as_deref(), Some("user 5003 may not use this daemon"));
    }
}
