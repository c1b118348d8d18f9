//! Waiting for changes in a folder that may not be watchable yet.

use std::path::PathBuf;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// A file that is written in steps is looked at once.
const SETTLE_DELAY: Duration = Duration::from_millis(20);

pub struct FolderWatcher {
    path: PathBuf,
    /// Where nothing is heard of changes, it is looked at so often.
    rescan_interval: Duration,
    /// What is watched now: the folder, or the nearest one above it that exists.
    watched: Option<(PathBuf, RecommendedWatcher)>,
    changes: mpsc::Receiver<()>,
    change: mpsc::Sender<()>,
}

impl FolderWatcher {
    pub fn new(path: PathBuf, rescan_interval: Duration) -> Self {
        let (change, changes) = mpsc::channel(1);
        let mut folder = Self { path, rescan_interval, watched: None, changes, change };
        folder.watch();
        folder
    }

    /// Returns when something in it may have changed, or has not for long.
    pub async fn changed(&mut self) {
        let _ = tokio::time::timeout(self.rescan_interval, self.changes.recv()).await;
        tokio::time::sleep(SETTLE_DELAY).await;
        let _ = self.changes.try_recv();
        self.watch();
    }

    /// Watches the folder itself as soon as it is watchable; one that was made anew is another.
    fn watch(&mut self) {
        let Some(watchable) = self.path.ancestors().find(|path| path.is_dir()) else { return };
        if self.watched.as_ref().is_some_and(|(watched, _)| watched == watchable) {
            return;
        }
        let change = self.change.clone();
        let watching = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is an event too; taking that for a change would never end.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                let _ = change.try_send(());
            }
        })
        .and_then(|mut watcher| {
            watcher.watch(watchable, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match watching {
            Ok(watcher) => {
                self.watched = Some((watchable.to_owned(), watcher));
                // What came between the last look and this watch has made no sound.
                let _ = self.change.try_send(());
            }
            Err(error) => {
                tracing::debug!(%error, folder = %self.path.display(), "changes are looked for from time to time");
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
    fn a_file_in_a_folder_that_is_made_later_is_noticed() {
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
