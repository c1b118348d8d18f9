//! How the spool stands: the daemon's importers report here, and `status` reads it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::quarantine::{Quarantine, Quarantined};
use crate::domain::Timestamp;

/// How a spool folder stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files that are still to be imported.
    pub waiting: u64,
    /// When the oldest of them was written.
    pub oldest: Option<Timestamp>,
    /// Why the first of them has not been imported.
    pub reason: Option<String>,
    /// Files that are left alone.
    pub ignored: u64,
    /// Why one of them is.
    pub ignored_reason: Option<String>,
    /// There are more files to open than a pass may open.
    pub more: bool,
}

/// How each spool folder stands, and the quarantine; clones share both.
#[derive(Clone, Default)]
pub struct SpoolMonitor(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    folders: BTreeMap<PathBuf, Summary>,
    quarantine: Option<Quarantine>,
}

impl SpoolMonitor {
    /// With the quarantine in this state folder.
    ///
    /// # Errors
    /// The quarantine cannot be made or read.
    pub fn with_quarantine(state_dir: &Path) -> io::Result<Self> {
        let quarantine = Some(Quarantine::open(state_dir)?);
        Ok(Self(Arc::new(Mutex::new(State { quarantine, ..State::default() }))))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how a folder stands.
    pub fn report(&self, dir: &Path, summary: Summary) {
        self.state().folders.insert(dir.to_owned(), summary);
    }

    /// Keeps a copy of a request that can never be imported: see [`Quarantine::keep`].
    ///
    /// # Errors
    /// The copy cannot be written.
    pub fn quarantine(
        &self,
        origin: (u32, PathBuf),
        content: &[u8],
        reason: &str,
        at: Timestamp,
        random: u64,
    ) -> io::Result<()> {
        match &mut self.state().quarantine {
            Some(quarantine) => quarantine.keep(origin, content, reason, at, random),
            None => Err(io::Error::other("there is no quarantine")),
        }
    }

    /// How each folder stands, and what is in quarantine, oldest first.
    pub fn snapshot(&self) -> (Vec<(PathBuf, Summary)>, Vec<Quarantined>) {
        let mut state = self.state();
        let folders = state.folders.iter().map(|(path, summary)| (path.clone(), summary.clone())).collect();
        let kept = state.quarantine.as_mut().map_or(Vec::new(), |quarantine| quarantine.list().to_vec());
        (folders, kept)
    }
}
