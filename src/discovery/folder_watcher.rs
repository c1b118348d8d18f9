//! Waits for changes in a folder that may not exist yet: until then, the nearest existing folder above it is watched.

use std::path::PathBuf;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// The delay after a change, so that a file that is written in steps is read once.
const SETTLE_DELAY: Duration = Duration::from_millis(20);

/// Watches a folder.
pub struct FolderWatcher {
    path: PathBuf,
    /// A change is assumed after this time, as the system may not report all of them.
    rescan_interval: Duration,
    /// The watched folder: this one, or the nearest existing one above it.
    watched: Option<(PathBuf, RecommendedWatcher)>,
    changes: mpsc::Receiver<()>,
    change: mpsc::Sender<()>,
}

impl FolderWatcher {
    pub(crate) fn new(path: PathBuf, rescan_interval: Duration) -> Self {
        let (change, changes) = mpsc::channel(1);
        let mut folder = Self { path, rescan_interval, watched: None, changes, change };
        folder.watch();
        folder
    }

    /// Returns when something in the folder may have changed, at the latest after the rescan interval.
    pub async fn changed(&mut self) {
        let _ = tokio::time::timeout(self.rescan_interval, self.changes.recv()).await;
        tokio::time::sleep(SETTLE_DELAY).await;
        let _ = self.changes.try_recv();
        self.watch();
    }

    /// Watches the folder as soon as it exists, else the nearest existing one above it.
    fn watch(&mut self) {
        let Some(existing) = self.path.ancestors().find(|path| path.is_dir()) else { return };
        if self.watched.as_ref().is_some_and(|(watched, _)| watched == existing) {
            return;
        }
        let change = self.change.clone();
        let watching = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reads are events too; reacting to them would never end.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                let _ = change.try_send(());
            }
        })
        .and_then(|mut watcher| {
            watcher.watch(existing, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match watching {
            Ok(watcher) => {
                self.watched = Some((existing.to_owned(), watcher));
                // Changes between the last scan and this watch were not reported.
                let _ = self.change.try_send(());
            }
            Err(error) => {
                tracing::debug!(%error, folder = %self.path.display(), "the folder cannot be watched; it is read periodically");
                self.watched = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn change_in_a_folder_that_is_created_later_is_reported() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        runtime.block_on(async {
            let mut folder = FolderWatcher::new(path.clone(), Duration::from_secs(600));
            std::fs::create_dir_all(&path).unwrap();
            let deadline = Instant::now() + SOON;
            let mut written = false;
            loop {
                tokio::time::timeout(SOON, folder.changed()).await.expect("a change is noticed");
                if written {
                    break;
                }
                if folder.watched.as_ref().is_some_and(|(watched, _)| *watched == path) {
                    let _ = folder.changes.try_recv();
                    std::fs::write(path.join("x"), "x").unwrap();
                    written = true;
                }
                assert!(Instant::now() < deadline);
            }
        });
    }
}
