//! Damage in SQLite's write-ahead log, which SQLite itself takes for its end.
//!
//! After a crash SQLite reads the log up to the first frame whose checksum is wrong and forgets the rest
//! without a word: right for a write that was cut off, wrong for a bit that flipped in the middle of what had
//! been acknowledged. The two can be distinguished. Every commit is synced before the next begins, so only
//! the very last transaction can have been cut off; and what one flipped bit has spoilt, flipping it back mends,
//! unless several bits would: the checksum does not distinguish the highest bits of distant words.
//! The format is that of <https://sqlite.org/fileformat2.html#walformat>.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// What there is to say of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) enum LogCondition {
    /// SQLite will read all that counts of it.
    Sound,
    /// The last transaction cannot be read: cut off before it was acknowledged, or damaged.
    CutOff,
    /// SQLite would forget acknowledged transactions. `repaired` is the log with all of them; `exact` if it says
    /// just what was written.
    Damaged { repaired: Vec<u8>, exact: bool },
}

const HEADER: usize = 32;

const FRAME_HEADER: usize = 24;

/// The magic number for checksums over little-endian words; the next number stands for big-endian ones.
const MAGIC: u32 = 0x377f_0682;

type Sum = (u32, u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mended {
    Yes,
    /// One bit is wrong, and there is no telling which.
    OneBitIsWrong,
    No,
}

/// A log in memory, taken apart.
struct Log {
    bytes: Vec<u8>,
    frame: usize,
    big_endian: bool,
    salts: [u8; 8],
}

/// Examines a log frame by frame, in the memory of one; only one that is not plainly sound is read as a whole.
///
/// # Errors
/// The log cannot be read, as when there is none.
pub(in crate::store) fn examine_file(path: &Path) -> io::Result<LogCondition> {
    let mut log = BufReader::new(File::open(path)?);
    match is_plainly_sound(&mut log) {
        Ok(true) => Ok(LogCondition::Sound),
        _ => Ok(examine(std::fs::read(path)?)),
    }
}

/// Whether each frame of the log is sound, and no frame of it stands behind one that is not.
fn is_plainly_sound(log: &mut impl Read) -> io::Result<bool> {
    let mut header = [0; HEADER];
    if !read_whole(log, &mut header)? {
        return Ok(true);
    }
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (magic, page) = (word(0), word(8) as usize);
    let big_endian = magic == MAGIC + 1;
    let is_page = page.is_power_of_two() && (512..=65536).contains(&page);
    let mut sum = checksum(big_endian, (0, 0), &header[..24]);
    if magic & !1 != MAGIC || !is_page || sum != sum_at(&header, 24) {
        return Ok(false);
    }
    let mut frame = vec![0; FRAME_HEADER + page];
    let mut ended = false;
    while read_whole(log, &mut frame)? {
        let is_of_this_log = frame[8..16] == header[16..24];
        let computed = checksum(big_endian, checksum(big_endian, sum, &frame[..8]), &frame[FRAME_HEADER..]);
        let matches = computed == sum_at(&frame, 16);
        if ended {
            // A frame of this log behind its end: the end is damage, or a write that was cut off.
            if is_of_this_log {
                return Ok(false);
            }
        } else if is_of_this_log && matches {
            sum = computed;
        } else if is_of_this_log || matches {
            return Ok(false);
        } else {
            ended = true;
        }
    }
    Ok(true)
}

/// Fills the buffer; `false`: there is not that much left.
fn read_whole(log: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(buffer) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

pub(in crate::store) fn examine(bytes: Vec<u8>) -> LogCondition {
    let Some(mut log) = Log::new(bytes) else { return LogCondition::Sound };
    let header_sound = log.header_sound();
    if !header_sound {
        log.mend_header_sum();
    }
    let Some(last) = log.last() else { return LogCondition::Sound };
    let first_bad = (0..=last).find(|&n| !log.sound(n));
    let first_bad = match (header_sound, first_bad) {
        (true, None) => return LogCondition::Sound,
        (true, Some(bad)) => bad,
        (false, _) => 0,
    };
    if !(first_bad..=last).any(|n| log.commits(n)) {
        return LogCondition::Sound;
    }
    let bad: Vec<usize> = (first_bad..=last).filter(|&n| !log.sound(n)).collect();
    let repaired: Vec<(usize, Mended)> = bad.into_iter().map(|n| (n, log.mend(n))).collect();
    // A transaction that is followed by another was synced; the last one counts if it is not cut off.
    let cut_off = |n: usize| repaired.iter().any(|&(bad, how)| how == Mended::No && log.begins(n) <= bad);
    let whole = |n: usize| n < last || !cut_off(n);
    let Some(end) = (first_bad..=last).rev().find(|&n| log.commits(n) && whole(n)) else { return LogCondition::CutOff };
    // A page that was written again later is as it was written then.
    let superseded = |bad: usize| bad > end || (bad + 1..=end).any(|n| log.page(n) == log.page(bad));
    let exact = repaired.iter().all(|&(bad, how)| how == Mended::Yes || superseded(bad));
    LogCondition::Damaged { repaired: log.rewritten(end), exact }
}

impl Log {
    /// `None`: there is nothing in it.
    fn new(bytes: Vec<u8>) -> Option<Self> {
        let word =
            |at: usize| bytes.get(at..at + 4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
        let page = match word(8)? as usize {
            page if page.is_power_of_two() && (512..=65536).contains(&page) => page,
            _ => 4096,
        };
        let big_endian = word(0)? == MAGIC + 1;
        // Those of the first frame, where the header's may be the damage.
        let salts = bytes.get(HEADER + 8..HEADER + 16)?.try_into().ok()?;
        let mut log = Self { bytes, frame: FRAME_HEADER + page, big_endian, salts };
        if log.header_sound() {
            log.salts = log.bytes[16..24].try_into().ok()?;
        }
        Some(log)
    }

    fn frames(&self) -> usize {
        (self.bytes.len() - HEADER) / self.frame
    }

    fn at(&self, n: usize) -> &[u8] {
        &self.bytes[HEADER + n * self.frame..][..self.frame]
    }

    fn word(&self, n: usize, at: usize) -> u32 {
        let frame = self.at(n);
        u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]])
    }

    fn page(&self, n: usize) -> u32 {
        self.word(n, 0)
    }

    fn commits(&self, n: usize) -> bool {
        self.word(n, 4) != 0
    }

    /// Where the transaction begins that frame `n` commits.
    fn begins(&self, n: usize) -> usize {
        (0..n).rev().find(|&n| self.commits(n)).map_or(0, |commit| commit + 1)
    }

    fn stored(&self, n: usize) -> Sum {
        (self.word(n, 16), self.word(n, 20))
    }

    /// The checksum that frame `n` continues.
    fn before(&self, n: usize) -> Sum {
        match n.checked_sub(1) {
            Some(n) => self.stored(n),
            None => sum_at(&self.bytes, 24),
        }
    }

    fn computed(&self, n: usize, before: Sum) -> Sum {
        let frame = self.at(n);
        self.sum(self.sum(before, &frame[..8]), &frame[FRAME_HEADER..])
    }

    fn word_at(&self, at: usize) -> u32 {
        as_word(self.big_endian, &self.bytes[at..])
    }

    fn sum(&self, before: Sum, bytes: &[u8]) -> Sum {
        checksum(self.big_endian, before, bytes)
    }

    fn header_sound(&self) -> bool {
        self.bytes[..3] == MAGIC.to_be_bytes()[..3] && self.sum((0, 0), &self.bytes[..24]) == sum_at(&self.bytes, 24)
    }

    /// Where the header is right and only its checksum is not, the first frame knows.
    fn mend_header_sum(&mut self) {
        let right = self.sum((0, 0), &self.bytes[..24]);
        if self.frames() > 0 && self.computed(0, right) == self.stored(0) {
            self.store_at(24, right);
        }
    }

    fn salted(&self, n: usize) -> bool {
        self.at(n)[8..16] == self.salts
    }

    fn matches(&self, n: usize) -> bool {
        self.computed(n, self.before(n)) == self.stored(n)
    }

    fn sound(&self, n: usize) -> bool {
        self.salted(n) && self.matches(n)
    }

    /// The last frame of this log; what follows is left over from before SQLite restarted it, with other salts.
    fn last(&self) -> Option<usize> {
        let salted = (0..self.frames()).rev().find(|&n| self.salted(n));
        let next = salted.map_or(0, |n| n + 1);
        // The salt itself may be what is damaged; what is left over does not go on from here.
        if next < self.frames() && self.matches(next) { Some(next) } else { salted }
    }

    /// Flips the one bit back that makes the frame right.
    fn mend(&mut self, n: usize) -> Mended {
        let salts = self.salts;
        let start = HEADER + n * self.frame;
        self.bytes[start + 8..start + 16].copy_from_slice(&salts);
        if self.matches(n) {
            return Mended::Yes;
        }
        // The checksum itself, which the next frame knows too.
        let right = self.computed(n, self.before(n));
        if n + 1 < self.frames() && self.computed(n + 1, right) == self.stored(n + 1) {
            self.store(n, right);
            return Mended::Yes;
        }
        let stored = self.stored(n);
        if ((right.0 ^ stored.0).count_ones() + (right.1 ^ stored.1).count_ones()) == 1 {
            self.store(n, right);
            return Mended::Yes;
        }
        match self.suspects(n)[..] {
            [] => Mended::No,
            [bit] => {
                self.bytes[bit / 8] ^= 1 << (bit % 8);
                Mended::Yes
            }
            _ => Mended::OneBitIsWrong,
        }
    }

    /// The bits, counted from the start of the log, any of which makes the frame right when flipped.
    fn suspects(&self, n: usize) -> Vec<usize> {
        let (computed, stored) = (self.computed(n, self.before(n)), self.stored(n));
        let wanted = (stored.0.wrapping_sub(computed.0), stored.1.wrapping_sub(computed.1));
        let start = HEADER + n * self.frame;
        let pairs = (start..start + 8).chain(start + FRAME_HEADER..start + self.frame).step_by(8);
        // The sum is linear: what one more in a word adds to it depends only on how many words follow.
        let (mut first, mut second): (Sum, Sum) = ((1, 1), (0, 1));
        let mut suspects = Vec::new();
        for pair in pairs.collect::<Vec<_>>().into_iter().rev() {
            suspects.extend(self.suspects_in(pair, first, wanted));
            suspects.extend(self.suspects_in(pair + 4, second, wanted));
            (first, second) = (one_pair_on(first), one_pair_on(second));
        }
        suspects
    }

    /// The bits of the word at `at` that change the sum as wanted, if one more there adds `each` to it.
    fn suspects_in(&self, at: usize, each: Sum, wanted: Sum) -> impl Iterator<Item = usize> {
        let word = self.word_at(at);
        let big_endian = self.big_endian;
        (0..32_u32).filter_map(move |bit| {
            let change = if word >> bit & 1 == 0 { 1_u32 << bit } else { (1_u32 << bit).wrapping_neg() };
            let byte = if big_endian { 3 - bit / 8 } else { bit / 8 } as usize;
            let adds = (each.0.wrapping_mul(change), each.1.wrapping_mul(change));
            (adds == wanted).then_some((at + byte) * 8 + bit as usize % 8)
        })
    }

    fn store(&mut self, n: usize, sum: Sum) {
        self.store_at(HEADER + n * self.frame + 16, sum);
    }

    fn store_at(&mut self, at: usize, sum: Sum) {
        self.bytes[at..at + 4].copy_from_slice(&sum.0.to_be_bytes());
        self.bytes[at + 4..at + 8].copy_from_slice(&sum.1.to_be_bytes());
    }

    /// The log up to this frame, with checksums that say so.
    fn rewritten(mut self, end: usize) -> Vec<u8> {
        let salts = self.salts;
        let magic = MAGIC + u32::from(self.big_endian);
        let page = (self.frame - FRAME_HEADER) as u32;
        self.bytes[..4].copy_from_slice(&magic.to_be_bytes());
        self.bytes[4..8].copy_from_slice(&3_007_000_u32.to_be_bytes());
        self.bytes[8..12].copy_from_slice(&page.to_be_bytes());
        self.bytes[16..24].copy_from_slice(&salts);
        let mut sum = self.sum((0, 0), &self.bytes[..24]);
        self.store_at(24, sum);
        for n in 0..=end {
            let at = HEADER + n * self.frame + 8;
            self.bytes[at..at + 8].copy_from_slice(&salts);
            sum = self.computed(n, sum);
            self.store(n, sum);
        }
        self.bytes.truncate(HEADER + (end + 1) * self.frame);
        self.bytes
    }
}

/// What a difference in the sum becomes when two more words follow.
fn one_pair_on((first, second): Sum) -> Sum {
    let first = first.wrapping_add(second);
    (first, second.wrapping_add(first))
}

fn as_word(big_endian: bool, bytes: &[u8]) -> u32 {
    let word = [bytes[0], bytes[1], bytes[2], bytes[3]];
    if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
}

fn checksum(big_endian: bool, before: Sum, bytes: &[u8]) -> Sum {
    bytes.chunks_exact(8).fold(before, |(first, second), words| {
        let first = first.wrapping_add(as_word(big_endian, words)).wrapping_add(second);
        (first, second.wrapping_add(as_word(big_endian, &words[4..])).wrapping_add(first))
    })
}

fn sum_at(bytes: &[u8], at: usize) -> Sum {
    let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    (word(at), word(at + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of some transactions, as SQLite writes it, and how many rows the newest state has.
    fn written(transactions: usize) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)").unwrap();
        for n in 0..transactions {
            db.execute("INSERT INTO t VALUES (?1)", [n.to_string().repeat(300)]).unwrap();
        }
        std::fs::read(dir.path().join("db-wal")).unwrap()
    }

    /// What is plainly sound frame by frame is sound as a whole; anything else is examined as a whole.
    fn examine(bytes: Vec<u8>) -> LogCondition {
        let verdict = super::examine(bytes.clone());
        if is_plainly_sound(&mut &bytes[..]).unwrap() {
            assert_eq!(verdict, LogCondition::Sound);
        }
        verdict
    }

    #[test]
    fn a_whole_log_is_read_in_the_memory_of_a_frame() {
        let log = written(20);
        assert!(is_plainly_sound(&mut &log[..]).unwrap());
        let lengthened = [log, vec![0; 100_000]].concat();
        assert!(is_plainly_sound(&mut &lengthened[..]).unwrap(), "zeros behind it are no frames");
    }

    #[test]
    fn a_whole_log_is_sound_and_one_that_was_cut_off_is_no_damage() {
        let log = written(20);
        assert_eq!(examine(log.clone()), LogCondition::Sound);
        for cut in [0, 10, HEADER, HEADER + 10, log.len() - 1, log.len() - 4096, log.len() - 4120 - 7] {
            assert_eq!(examine(log[..cut].to_vec()), LogCondition::Sound, "cut at {cut}");
        }
        let mut torn = log.clone();
        let tail = torn.len() - 2000;
        torn[tail..].fill(0);
        assert_eq!(examine(torn), LogCondition::CutOff);
    }

    #[test]
    fn what_is_left_over_from_an_older_log_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let db = rusqlite::Connection::open(dir.path().join("db")).unwrap();
        db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 20; CREATE TABLE t (x)").unwrap();
        let mut restarted = 0;
        for n in 0..100 {
            db.execute("INSERT INTO t VALUES (?1)", [n.to_string().repeat(300)]).unwrap();
            let bytes = std::fs::read(dir.path().join("db-wal")).unwrap();
            let log = Log::new(bytes.clone()).unwrap();
            let used = log.last().map_or(0, |last| last + 1);
            restarted += u64::from(used < log.frames());
            assert_eq!(examine(bytes.clone()), LogCondition::Sound, "after {n}");
            let mut flipped = bytes;
            flipped[HEADER + FRAME_HEADER + 100] ^= 4;
            let LogCondition::Damaged { repaired, .. } = examine(flipped) else { panic!("after {n}: it is damage") };
            assert_eq!(repaired.len(), HEADER + used * 4120, "after {n}");
        }
        assert!(restarted > 50, "only {restarted}");
    }

    #[test]
    fn any_one_bit_is_found_and_flipped_back() {
        let log = written(6);
        let step = 1 + log.len() * 8 / 40;
        let in_headers = (0..HEADER * 8).chain((HEADER..HEADER + FRAME_HEADER).flat_map(|byte| byte * 8..byte * 8 + 8));
        let pages = |log: &[u8]| log[HEADER..].chunks(4120).flat_map(|frame| frame[24..].to_vec()).collect::<Vec<_>>();
        let (mut flipped_back, mut all) = (0, 0);
        for bit in in_headers.step_by(5).chain((0..log.len() * 8).step_by(step)) {
            all += 1;
            let mut flipped = log.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match examine(flipped) {
                LogCondition::Damaged { repaired, exact } => {
                    assert_eq!(
                        (examine(repaired.clone()), repaired.len()),
                        (LogCondition::Sound, log.len()),
                        "bit {bit}"
                    );
                    let wrong =
                        pages(&repaired).iter().zip(pages(&log)).filter(|(found, wanted)| *found != wanted).count();
                    assert!(wrong <= 1, "bit {bit}: {wrong} bytes are wrong");
                    // What is not repaired lies on a page that was written again, or is not reported as repaired.
                    assert!(!exact || wrong == 0 || bit / 8 < log.len() - 4096, "bit {bit}");
                    flipped_back += u64::from(wrong == 0);
                }
                other => panic!("bit {bit}: {other:?}"),
            }
        }
        assert!(flipped_back * 2 > all, "only {flipped_back} of {all}");
    }

    #[test]
    fn a_spoilt_sector_costs_no_more_than_its_page() {
        let mut log = written(20);
        let frame = HEADER + 3 * 4120;
        log[frame + 1000..frame + 1512].fill(0x5A);
        let LogCondition::Damaged { repaired, exact } = examine(log.clone()) else { panic!("it is damage") };
        assert_eq!((repaired.len(), exact), (log.len(), true), "the page was written again later");
        assert_eq!(examine(repaired), LogCondition::Sound);
    }
}
