//! Rate limits of agents' accounts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::limits::{
    AccountLimit, LimitWindow, MAX_WINDOWS, MachineLimits, ObservedLimits, account_name, is_window_name,
};
use crate::domain::{Invalid, Timestamp};

/// What an agent observed of its account's rate limits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsReport {
    /// A stable name of the account, such as its e-mail address; it must not hold a secret. Default: unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// What is known of each window.
    #[schema(max_items = 8)]
    pub windows: Vec<WindowReport>,
}

/// What is used of one window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowReport {
    /// Such as `five_hour` or `seven_day`.
    #[schema(min_length = 1, max_length = 40, pattern = "^[A-Za-z0-9_.-]+$")]
    pub window: String,
    /// How much of it is used, in percent. Default: unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 100)]
    pub used_percent: Option<f64>,
    /// When it is reset, in RFC 3339, within a year. Default: unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub resets_at: Option<String>,
}

impl LimitsReport {
    /// The validated limits of a report that was made at `at`.
    ///
    /// # Errors
    /// A field is invalid.
    pub fn validate(&self, at: Timestamp) -> Result<ObservedLimits, Invalid> {
        if self.windows.len() > MAX_WINDOWS {
            return Err(Invalid::new("windows", format!("{} are too many; at most {MAX_WINDOWS}", self.windows.len())));
        }
        let windows = self.windows.iter().map(|window| window.validate(at)).collect::<Result<Vec<_>, _>>()?;
        Ok(ObservedLimits {
            account: self.account.as_deref().and_then(account_name),
            windows: windows.into_iter().flatten().collect(),
        })
    }
}

impl WindowReport {
    /// `None` if nothing is known of it.
    fn validate(&self, at: Timestamp) -> Result<Option<LimitWindow>, Invalid> {
        if !is_window_name(&self.window) {
            return Err(Invalid::new("window", "it must be 1 to 40 letters, digits, `_`, `-` and `.`"));
        }
        if self.used_percent.is_some_and(|used| !(0.0..=100.0).contains(&used)) {
            return Err(Invalid::new("used_percent", "it must be 0 to 100"));
        }
        let not_a_time = || Invalid::new("resets_at", "it must be a time in RFC 3339, such as 2026-01-30T12:00:00Z");
        let resets_at = self.resets_at.as_deref().map(|at| Timestamp::parse(at).ok_or_else(not_a_time)).transpose()?;
        Ok(LimitWindow::new(&self.window, self.used_percent, resets_at, at))
    }
}

/// One window of the rate limits of an account, as a machine's agents observed it last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LimitBody {
    /// The machine whose agents reported it.
    pub host_machine: String,
    /// Whether it was observed on this machine.
    pub local: bool,
    /// The user of that machine whose agents observed it.
    #[schema(value_type = i64, minimum = 0, maximum = 4294967295_i64)]
    pub uid: u32,
    /// The account's name; null if it is not known.
    pub account: Option<String>,
    /// Such as `five_hour` or `seven_day`.
    pub window: String,
    /// How much of it is used, in percent; null if that is unknown, as after a reset.
    pub used_percent: Option<f64>,
    /// How much of it may still be used, in percent; null if that is unknown.
    pub headroom_percent: Option<f64>,
    /// When it is reset; null if that is unknown.
    pub resets_at: Option<String>,
    /// Whether it was reset since it was observed.
    pub reset_passed: bool,
    /// When an agent observed it last, by that machine's clock.
    pub observed_at: String,
    /// Seconds since it was reported.
    pub age_seconds: u64,
    /// The time up to which this host knows the limits of that machine.
    pub as_of: String,
}

impl LimitBody {
    /// The limits of a machine, at `now`.
    pub fn of_machine(machine: &MachineLimits, now: Timestamp) -> Vec<Self> {
        machine.limits.iter().map(|limit| Self::new(machine, limit, now)).collect()
    }

    fn new(machine: &MachineLimits, limit: &AccountLimit, now: Timestamp) -> Self {
        Self {
            host_machine: machine.machine.to_string(),
            local: machine.is_local,
            uid: limit.uid,
            account: limit.account.clone(),
            window: limit.window.name.clone(),
            used_percent: limit.used_percent(now),
            headroom_percent: limit.headroom_percent(now),
            resets_at: limit.window.resets_at.map(|at| at.to_string()),
            reset_passed: limit.is_reset(now),
            observed_at: limit.observed_at.to_string(),
            age_seconds: now.since(limit.observed_at).as_secs(),
            as_of: machine.as_of.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_field_is_named() {
        let validated = |json: &str| {
            let report: LimitsReport = serde_json::from_str(json).unwrap();
            report.validate(Timestamp::from_micros(1_769_774_400_000_000)).map_err(|error| error.field)
        };
        let window = |fields: &str| validated(&format!(r#"{{"windows": [{{"window": "five_hour"{fields}}}]}}"#));
        assert_eq!(window(r#", "used_percent": 100.5"#), Err("used_percent"));
        assert_eq!(window(r#", "used_percent": -1"#), Err("used_percent"));
        assert_eq!(window(r#", "resets_at": "soon""#), Err("resets_at"));
        assert_eq!(window("").map(|limits| limits.windows), Ok(Vec::new()));
        assert_eq!(window(r#", "used_percent": 7"#).map(|limits| limits.windows.len()), Ok(1));
        assert_eq!(validated(r#"{"windows": [{"window": "a b", "used_percent": 1}]}"#), Err("window"));
        let many = [r#"{"window": "a"}"#; 9].join(",");
        assert_eq!(validated(&format!(r#"{{"windows": [{many}]}}"#)), Err("windows"));
    }
}
