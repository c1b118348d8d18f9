//! The status of the spool folders and the quarantine: the importers report it here, and `status` shows it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::quarantine::{Quarantine, Quarantined};
use crate::domain::Timestamp;

/// The status of a spool folder after a pass of its importer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpoolStatus {
    /// Requests that are still to be imported.
    pub waiting: u64,
    /// When the oldest of them was written.
    pub oldest: Option<Timestamp>,
    /// Why the oldest of them could not be imported.
    pub reason: Option<String>,
    /// Files that are ignored.
    pub ignored: u64,
    /// Why one of them is ignored.
    pub ignored_reason: Option<String>,
    /// There are more files than a pass may open.
    pub more: bool,
}

/// The status of each spool folder, and the quarantine; clones share both.
#[derive(Clone, Default)]
pub struct SpoolMonitor(Arc<Mutex<MonitorState>>);

#[derive(Default)]
struct MonitorState {
    folders: BTreeMap<PathBuf, SpoolStatus>,
    quarantine: Option<Quarantine>,
}

impl SpoolMonitor {
    /// A monitor with the quarantine in this state folder.
    ///
    /// # Errors
    /// The quarantine cannot be made or read.
    pub fn with_quarantine(state_dir: &Path) -> io::Result<Self> {
        let quarantine = Some(Quarantine::open(state_dir)?);
        Ok(Self(Arc::new(Mutex::new(MonitorState { quarantine, ..MonitorState::default() }))))
    }

    fn state(&self) -> MutexGuard<'_, MonitorState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the status of a folder.
    pub fn report(&self, dir: &Path, status: SpoolStatus) {
        self.state().folders.insert(dir.to_owned(), status);
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

    /// The status of each folder, and the quarantined requests, oldest first.
    pub fn snapshot(&self) -> (Vec<(PathBuf, SpoolStatus)>, Vec<Quarantined>) {
        let mut state = self.state();
        let folders = state.folders.iter().map(|(path, status)| (path.clone(), status.clone())).collect();
        let kept = state.quarantine.as_mut().map_or(Vec::new(), |quarantine| quarantine.list().to_vec());
        (folders, kept)
    }
}
