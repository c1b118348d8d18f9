//! Copies of damaged files, kept for the operator to examine.
//!
//! A copy must never do harm: it is made once for one and the same damage, the oldest copies go, and none is made that
//! would leave too little room on the disk. The daemon starts without it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::store::error::StoreError;

/// A copy leaves at least this many bytes free, and at least as much as it takes.
const RESERVE: u64 = 64 << 20;

/// How many dated copies are kept beside the newest; each may be as large as the store.
pub(in crate::store) const OLDER_KEPT: usize = 2;

/// Copies a file, replacing a copy of before. Returns whether there is a copy of it now: not if it would leave too
/// little room.
///
/// # Errors
/// The file cannot be read, or its copy not be written.
pub(in crate::store) fn copy(file: &Path, copy: &Path) -> Result<bool, StoreError> {
    if is_same(file, copy) {
        return Ok(true);
    }
    let bytes = fs::metadata(file).map_err(StoreError::of_file)?.len();
    let replaced = fs::metadata(copy).map_or(0, |earlier| earlier.len());
    if !leaves_room(bytes, free_bytes(file).map(|free| free.saturating_add(replaced))) {
        tracing::warn!(file = %file.display(), bytes, "no copy is kept: it would leave too little room on the disk");
        return Ok(false);
    }
    // A half-made copy of before must not pass for one.
    let draft = copy.with_extension("copying");
    let copied = fs::copy(file, &draft).and_then(|_| fs::rename(&draft, copy));
    if copied.is_err() {
        let _ = fs::remove_file(&draft);
    }
    copied.map(|()| true).map_err(StoreError::of_file)
}

/// Whether one of these is a copy of the file already.
pub(in crate::store) fn is_kept(file: &Path, copies: &[PathBuf]) -> bool {
    copies.iter().any(|copy| is_same(file, copy))
}

/// Removes all of these files but the newest, by their names, whose ends are dates.
pub(in crate::store) fn remove_older(mut copies: Vec<PathBuf>, kept: usize) {
    copies.sort();
    copies.truncate(copies.len().saturating_sub(kept));
    for copy in copies {
        match fs::remove_file(&copy) {
            Ok(()) => tracing::info!(copy = %copy.display(), "removed an old copy of a damaged store"),
            Err(error) => tracing::warn!(%error, copy = %copy.display(), "an old copy cannot be removed"),
        }
    }
}

fn leaves_room(bytes: u64, free: Option<u64>) -> bool {
    free.is_some_and(|free| free.saturating_sub(bytes) >= RESERVE.max(bytes))
}

/// What this user may still write on the file's disk.
fn free_bytes(file: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(file.parent()?).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

fn is_same(one: &Path, other: &Path) -> bool {
    let length = |path: &Path| fs::metadata(path).map(|found| found.len()).ok();
    length(one).is_some_and(|bytes| length(other) == Some(bytes)) && has_same_content(one, other).unwrap_or(false)
}

fn has_same_content(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let count = one.read(&mut left)?;
        other.read_exact(&mut right[..count])?;
        if left[..count] != right[..count] {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_made_only_if_space_remains() {
        assert!(leaves_room(1 << 20, Some(66 << 20)));
        assert!(!leaves_room(1 << 20, Some(64 << 20)));
        assert!(!leaves_room(1 << 30, Some((2 << 30) - 1)) && leaves_room(1 << 30, Some(2 << 30)));
        assert!(!leaves_room(0, None), "what is unknown is too little");
    }

    #[test]
    fn one_damage_is_copied_once_and_another_replaces_it() {
        let dir = tempfile::tempdir().unwrap();
        let (file, kept) = (dir.path().join("log"), dir.path().join("log.kept"));
        fs::write(&file, [7; 200_000]).unwrap();
        assert!(copy(&file, &kept).unwrap());
        let made = fs::metadata(&kept).unwrap().modified().unwrap();
        assert!(copy(&file, &kept).unwrap());
        assert_eq!(fs::metadata(&kept).unwrap().modified().unwrap(), made);
        assert!(is_kept(&file, std::slice::from_ref(&kept)));
        fs::write(&file, [8; 200_000]).unwrap();
        assert!(!is_kept(&file, std::slice::from_ref(&kept)));
        assert!(copy(&file, &kept).unwrap());
        assert_eq!(fs::read(&kept).unwrap()[0], 8);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn the_newest_copies_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let copies: Vec<_> = ["2026", "2024", "2025"].map(|year| dir.path().join(year)).to_vec();
        copies.iter().for_each(|copy| fs::write(copy, "").unwrap());
        remove_older(copies.clone(), 2);
        assert_eq!(copies.iter().map(|copy| copy.exists()).collect::<Vec<_>>(), [true, false, true]);
    }
}
