//! Taking changes of the configuration file over while the daemon runs.

use std::path::Path;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::config::{self, Environment, Loaded, Overrides};

use super::in_force::{self, InForce};
use super::systemd;

/// Editors write a file in several steps; the last one counts.
const SETTLE: Duration = Duration::from_millis(100);

pub struct Reloads<'a> {
    overrides: &'a Overrides,
    environment: &'a Environment<'a>,
    current: Loaded,
    refused: Option<String>,
    changes: mpsc::UnboundedReceiver<()>,
    /// Watches for as long as it is kept.
    _watcher: Option<RecommendedWatcher>,
}

impl<'a> Reloads<'a> {
    pub fn new(current: Loaded, overrides: &'a Overrides, environment: &'a Environment<'a>) -> Self {
        let (sender, changes) = mpsc::unbounded_channel();
        let folder = current.config_path.as_deref().and_then(Path::parent).filter(|folder| folder.is_dir());
        let watcher = folder.and_then(|folder| match watch(folder, sender) {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(%error, "changes of the configuration are not noticed by themselves; send SIGHUP");
                None
            }
        });
        Self { overrides, environment, current, refused: None, changes, _watcher: watcher }
    }

    /// Returns when something changed in the configuration's folder.
    pub async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            return std::future::pending().await;
        }
        tokio::time::sleep(SETTLE).await;
        while self.changes.try_recv().is_ok() {}
    }

    /// Reads the configuration anew. One that is not valid leaves the settings in force, and says why.
    pub fn reload(&mut self, in_force: &InForce) {
        systemd::reloading();
        match self.load() {
            Ok((loaded, postgres)) => {
                for setting in config::needs_restart(&self.current.settings, &loaded.settings) {
                    tracing::warn!(setting, "this setting takes effect at the next start");
                }
                in_force.replace(&loaded, postgres);
                if loaded != self.current || self.refused.is_some() {
                    tracing::info!("took the configuration over");
                }
                self.current = loaded;
                self.refused = None;
            }
            Err(why) => {
                if self.refused.as_ref() != Some(&why) {
                    tracing::error!("the configuration is not taken over, the settings in force stay: {why}");
                }
                in_force.refuse(why.clone());
                self.refused = Some(why);
            }
        }
        systemd::ready();
    }

    fn load(&self) -> Result<(Loaded, Option<crate::sync::postgres::PostgresOptions>), String> {
        let loaded = config::load(self.overrides, self.environment).map_err(|error| error.to_string())?;
        let postgres = in_force::postgres(&loaded.settings).map_err(|error| error.message)?;
        Ok((loaded, postgres))
    }
}

/// Watches the folder, since editors replace the file rather than write into it.
fn watch(folder: &Path, sender: mpsc::UnboundedSender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the file is an event too; taking that for a change would never end.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = sender.send(());
        }
    })?;
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
