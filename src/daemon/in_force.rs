//! The settings in force, handed to each part as just what it needs; a change reaches all of them.

use std::time::Duration;

use tokio::sync::watch;

use crate::api::ApiSettings;
use crate::config::{ClaudeSettings, Loaded, Settings};
use crate::domain::backoff::{CAP, CAP_OF_SEVERAL};
use crate::sync::postgres::PostgresOptions;
use crate::sync::scheduler::SyncIntervals;
use crate::sync::worker::SyncSettings;
use crate::wire::{ErrorCode, ErrorDetail};

use super::liveness::LivenessSettings;
use super::logging::LogLevel;

pub struct InForce {
    api: watch::Sender<ApiSettings>,
    sync: watch::Sender<SyncSettings<PostgresOptions>>,
    liveness: watch::Sender<LivenessSettings>,
    claude: watch::Sender<ClaudeSettings>,
    log: LogLevel,
}

impl InForce {
    pub fn new(loaded: &Loaded, postgres: Option<PostgresOptions>, log: LogLevel) -> Self {
        let settings = &loaded.settings;
        Self {
            api: watch::Sender::new(for_api(loaded)),
            sync: watch::Sender::new(for_sync(settings, postgres)),
            liveness: watch::Sender::new(for_liveness(settings)),
            claude: watch::Sender::new(settings.claude.clone()),
            log,
        }
    }

    pub fn api(&self) -> watch::Receiver<ApiSettings> {
        self.api.subscribe()
    }

    pub fn sync(&self) -> watch::Receiver<SyncSettings<PostgresOptions>> {
        self.sync.subscribe()
    }

    pub fn liveness(&self) -> watch::Receiver<LivenessSettings> {
        self.liveness.subscribe()
    }

    pub fn claude(&self) -> watch::Receiver<ClaudeSettings> {
        self.claude.subscribe()
    }

    /// Takes new settings over; only those who are concerned are woken.
    pub fn replace(&self, loaded: &Loaded, postgres: Option<PostgresOptions>) {
        replace(&self.api, for_api(loaded));
        replace(&self.sync, for_sync(&loaded.settings, postgres));
        replace(&self.liveness, for_liveness(&loaded.settings));
        replace(&self.claude, loaded.settings.claude.clone());
        self.log.set(loaded.settings.log.level);
    }

    /// The file as it is now cannot be taken over; what was in force stays.
    pub fn refuse(&self, why: String) {
        self.api.send_modify(|api| api.config_error = Some(why));
    }
}

fn replace<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|current| {
        let news = *current != value;
        *current = value;
        news
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
            pull_interval: central.map_or(settings.heartbeat_interval, |c| c.pull_interval),
            // Often enough that a vanished host's sessions turn stale soon after they are due.
            sweep_interval: (settings.stale_after / 4).max(Duration::from_secs(1)),
            longest_wait: if several { CAP_OF_SEVERAL } else { CAP },
        },
        stale_after: settings.stale_after,
    }
}

fn for_liveness(settings: &Settings) -> LivenessSettings {
    LivenessSettings {
        heartbeat_interval: settings.heartbeat_interval,
        stale_after: settings.stale_after,
        keep_closed: settings.keep_closed,
    }
}

/// How to reach central, as the settings say.
pub fn postgres(settings: &Settings) -> Result<Option<PostgresOptions>, ErrorDetail> {
    let wrong = |message: String| ErrorDetail {
        code: ErrorCode::Configuration,
        message,
        hint: "mend central.url or central.password_file".into(),
    };
    let Some(central) = &settings.central else { return Ok(None) };
    // Read again at each login; here only to say at once that it cannot be.
    if let Some(path) = &central.password_file
        && let Err(error) = std::fs::read(path)
    {
        return Err(wrong(format!("central.password_file {} cannot be read: {error}", path.display())));
    }
    let mut options = PostgresOptions::parse(central.url.reveal(), central.password_file.as_deref())
        .map_err(|error| wrong(error.to_string()))?;
    options.connect_timeout = central.connect_timeout;
    options.statement_timeout = central.statement_timeout;
    Ok(Some(options))
}
