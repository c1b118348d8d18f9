//! Reloads the configuration file when it changes or on SIGHUP.

use std::path::Path;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::config::{self, Environment, Loaded, Overrides};

use super::live_settings::{self, LiveSettings};
use super::systemd;

/// How long to wait after a change: editors write a file in several steps.
const SETTLE: Duration = Duration::from_millis(100);

pub(super) struct Reloads<'a> {
    overrides: &'a Overrides,
    environment: &'a Environment<'a>,
    current: Loaded,
    rejected: Option<String>,
    changes: mpsc::UnboundedReceiver<()>,
    /// The watch ends when it is dropped.
    _watcher: Option<RecommendedWatcher>,
}

impl<'a> Reloads<'a> {
    pub(super) fn new(current: Loaded, overrides: &'a Overrides, environment: &'a Environment<'a>) -> Self {
        let (sender, changes) = mpsc::unbounded_channel();
        let folder = current.config_path.as_deref().and_then(Path::parent).filter(|folder| folder.is_dir());
        let watcher = folder.and_then(|folder| match watch(folder, sender) {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(%error, "the configuration file cannot be watched; send SIGHUP after changing it");
                None
            }
        });
        Self { overrides, environment, current, rejected: None, changes, _watcher: watcher }
    }

    /// Returns when something changed in the configuration file's folder.
    pub(super) async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            return std::future::pending().await;
        }
        tokio::time::sleep(SETTLE).await;
        while self.changes.try_recv().is_ok() {}
    }

    /// Reads the configuration again and applies it. An invalid one is reported, and the settings in force stay.
    pub(super) fn reload(&mut self, settings: &LiveSettings) {
        systemd::reloading();
        match self.load() {
            Ok((loaded, postgres)) => {
                for setting in config::needs_restart(&self.current.settings, &loaded.settings) {
                    tracing::warn!(setting, "this setting takes effect at the next start");
                }
                settings.replace(&loaded, postgres);
                if loaded != self.current || self.rejected.is_some() {
                    tracing::info!("reloaded the configuration");
                }
                self.current = loaded;
                self.rejected = None;
            }
            Err(why) => {
                if self.rejected.as_ref() != Some(&why) {
                    tracing::error!("the configuration is not applied, the settings in force stay: {why}");
                }
                settings.reject(why.clone());
                self.rejected = Some(why);
            }
        }
        systemd::ready();
    }

    fn load(&self) -> Result<(Loaded, Option<crate::sync::postgres::PostgresOptions>), String> {
        let loaded = config::load(self.overrides, self.environment).map_err(|error| error.to_string())?;
        let postgres = live_settings::postgres(&loaded.settings).map_err(|error| error.message)?;
        Ok((loaded, postgres))
    }
}

/// Watches the folder, since editors replace the file rather than write into it.
fn watch(folder: &Path, sender: mpsc::UnboundedSender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reads are events, too: reacting to them would reload forever.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = sender.send(());
        }
    })?;
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
