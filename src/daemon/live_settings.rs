//! The settings in force. Each part subscribes to the settings it uses; a reload notifies the parts whose settings
//! changed.

use std::time::Duration;

use tokio::sync::watch;

use crate::api::ApiSettings;
use crate::config::{ClaudeSettings, Loaded, NotifySettings, Settings};
use crate::domain::backoff::{CAP, CAP_WITH_FAILOVER};
use crate::sync::postgres::PostgresOptions;
use crate::sync::scheduler::SyncIntervals;
use crate::sync::worker::SyncSettings;
use crate::wire::{ErrorCode, ErrorDetail};

use super::liveness::LivenessSettings;
use super::logging::LogLevel;

pub(super) struct LiveSettings {
    api: watch::Sender<ApiSettings>,
    sync: watch::Sender<SyncSettings<PostgresOptions>>,
    liveness: watch::Sender<LivenessSettings>,
    claude: watch::Sender<ClaudeSettings>,
    notify: watch::Sender<NotifySettings>,
    log: LogLevel,
}

impl LiveSettings {
    pub(super) fn new(loaded: &Loaded, postgres: Option<PostgresOptions>, log: LogLevel) -> Self {
        let settings = &loaded.settings;
        Self {
            api: watch::Sender::new(for_api(loaded)),
            sync: watch::Sender::new(for_sync(settings, postgres)),
            liveness: watch::Sender::new(for_liveness(settings)),
            claude: watch::Sender::new(settings.claude.clone()),
            notify: watch::Sender::new(settings.notify.clone()),
            log,
        }
    }

    pub(super) fn api(&self) -> watch::Receiver<ApiSettings> {
        self.api.subscribe()
    }

    pub(super) fn sync(&self) -> watch::Receiver<SyncSettings<PostgresOptions>> {
        self.sync.subscribe()
    }

    pub(super) fn liveness(&self) -> watch::Receiver<LivenessSettings> {
        self.liveness.subscribe()
    }

    pub(super) fn claude(&self) -> watch::Receiver<ClaudeSettings> {
        self.claude.subscribe()
    }

    pub(super) fn notify(&self) -> watch::Receiver<NotifySettings> {
        self.notify.subscribe()
    }

    /// Applies new settings; only parts whose settings changed are notified.
    pub(super) fn replace(&self, loaded: &Loaded, postgres: Option<PostgresOptions>) {
        replace(&self.api, for_api(loaded));
        replace(&self.sync, for_sync(&loaded.settings, postgres));
        replace(&self.liveness, for_liveness(&loaded.settings));
        replace(&self.claude, loaded.settings.claude.clone());
        replace(&self.notify, loaded.settings.notify.clone());
        self.log.set(loaded.settings.log.level);
    }

    /// Records why the changed configuration is not applied; the settings in force stay.
    pub(super) fn reject(&self, why: String) {
        self.api.send_modify(|api| api.config_error = Some(why));
    }
}

fn replace<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|current| {
        let changed = *current != value;
        *current = value;
        changed
    });
}

fn for_api(loaded: &Loaded) -> ApiSettings {
    ApiSettings {
        stale_after: loaded.settings.stale_after,
        keep_closed: loaded.settings.keep_closed,
        allow_other: loaded.settings.machine.allow_other,
        type_rules: loaded.settings.claude.rules.clone(),
        config_path: loaded.file_exists.then(|| loaded.config_path.as_ref().map(|p| p.display().to_string())).flatten(),
        config_error: None,
        scope: loaded.settings.scope.clone(),
    }
}

fn for_sync(settings: &Settings, postgres: Option<PostgresOptions>) -> SyncSettings<PostgresOptions> {
    let central = settings.central.as_ref();
    let several = postgres.as_ref().is_some_and(|postgres| postgres.servers().len() > 1);
    SyncSettings {
        call_limit: postgres.as_ref().map_or(Duration::ZERO, PostgresOptions::patience),
        central: postgres,
        intervals: SyncIntervals {
            heartbeat_interval: settings.heartbeat_interval,
            refresh_after: settings.refresh_after,
            pull_interval: central.map_or(settings.heartbeat_interval, |c| c.pull_interval),
            // Sessions of an unreachable host become stale at most this much late.
            sweep_interval: (settings.stale_after / 4).max(Duration::from_secs(1)),
            longest_wait: if several { CAP_WITH_FAILOVER } else { CAP },
        },
        stale_after: settings.stale_after,
        scope: settings.scope.clone(),
    }
}

fn for_liveness(settings: &Settings) -> LivenessSettings {
    LivenessSettings {
        heartbeat_interval: settings.heartbeat_interval,
        stale_after: settings.stale_after,
        keep_closed: settings.keep_closed,
    }
}

/// The options for connecting to central; none if no central is configured.
///
/// # Errors
/// `Configuration`: the URL is invalid, or the password file cannot be read.
pub fn postgres(settings: &Settings) -> Result<Option<PostgresOptions>, ErrorDetail> {
    let invalid = |message: String| ErrorDetail {
        code: ErrorCode::Configuration,
        message,
        hint: "correct central.url or central.password_file".into(),
    };
    let Some(central) = &settings.central else { return Ok(None) };
    // It is read again at each login; this reports a wrong path at once.
    if let Some(path) = &central.password_file
        && let Err(error) = std::fs::read(path)
    {
        return Err(invalid(format!("central.password_file {} cannot be read: {error}", path.display())));
    }
    let mut options = PostgresOptions::parse(central.url.reveal(), central.password_file.as_deref())
        .map_err(|error| invalid(error.to_string()))?;
    options.connect_timeout = central.connect_timeout;
    options.statement_timeout = central.statement_timeout;
    Ok(Some(options))
}
