//! The rate limits that Claude Code's status line shows, and the account that they belong to.
//!
//! The status line has `rate_limits` for subscribers, after the first answer of a session: an object with a window for each
//! name, `{"used_percentage": 41.2, "resets_at": 1738425600}`. It does not name the account. Claude Code keeps that in
//! its configuration file as `oauthAccount`. That file holds secrets too: nothing else of it is parsed or kept. It is read only
//! if there are limits to report.

use std::path::PathBuf;

use serde_json::Value;

use super::input::Input;
use super::variable;
use crate::domain::Timestamp;
use crate::domain::hash::fnv1a;
use crate::domain::limits::{LimitWindow, MAX_WINDOWS, account_name};
use crate::domain::work::Recording;
use crate::platform::default_paths::Env;
use crate::platform::small_file;
use crate::wire::{LimitsReport, WindowReport};

/// The field of the status line.
pub const WANTED: &str = "rate_limits";

const FILE: &str = ".claude.json";
const ACCOUNT: &str = "oauthAccount";
/// The file holds some kilobytes for each project; in a larger one the account is not looked for.
const MAX_FILE: u64 = 4 << 20;

/// The limits of a status line that was read at `now`. `None`: it has none, or they may not be recorded.
pub fn of(input: &Input, recording: Recording, env: Env<'_>, now: Timestamp) -> Option<LimitsReport> {
    if recording == Recording::None {
        return None;
    }
    let windows = windows(input.at(&[WANTED])?, now);
    (!windows.is_empty()).then(|| LimitsReport { account: account(recording, env), windows })
}

/// Identifies what a status line shows of the limits, and the requests to the model before it: the same once more is no new
/// observation, but an idle agent that draws its status line again. `None`: the status line does not tell.
pub fn observation(input: &Input) -> Option<u64> {
    let requests = input.at(&["cost", "total_api_duration_ms"]).filter(|duration| duration.is_number())?;
    Some(fnv1a(&format!("{requests} {}", input.at(&[WANTED])?)))
}

fn windows(limits: &Value, now: Timestamp) -> Vec<WindowReport> {
    let all = limits.as_object().into_iter().flatten();
    let known = all.filter_map(|(name, window)| {
        let used = window.get("used_percentage").and_then(Value::as_f64);
        let window = LimitWindow::new(name, used, window.get("resets_at").and_then(resets_at), now)?;
        Some(WindowReport {
            window: window.name,
            used_percent: window.used_percent,
            resets_at: window.resets_at.map(|at| at.to_string()),
        })
    });
    known.take(MAX_WINDOWS).collect()
}

/// A time in seconds or milliseconds since 1970, or in RFC 3339.
fn resets_at(value: &Value) -> Option<Timestamp> {
    /// As seconds this is in the year 5138, as milliseconds in 1973.
    const MILLISECONDS_FROM: f64 = 1e11;
    if let Some(text) = value.as_str() {
        return Timestamp::parse(text);
    }
    let number = value.as_f64()?;
    let seconds = if number.abs() < MILLISECONDS_FROM { number } else { number / 1e3 };
    // A cast of a float is cut to the range of the integer.
    Some(Timestamp::from_micros((seconds * 1e6) as i64))
}

/// A stable name of the account that Claude Code is logged in to: with everything recorded its e-mail address, and its
/// organisation where that is another; else a number that tells accounts apart.
fn account(recording: Recording, env: Env<'_>) -> Option<String> {
    let (_, file) = small_file::open(&path(env)?, MAX_FILE)?;
    let input = Input::read(file, &[ACCOUNT]);
    let text = |name: &str| input.at(&[ACCOUNT, name]).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (email, organization) = (text("emailAddress"), text("organizationName"));
    if recording != Recording::Full {
        let ids = [text("accountUuid").or(email), text("organizationUuid").or(organization)];
        let ids: Vec<_> = ids.into_iter().flatten().collect();
        return (!ids.is_empty()).then(|| format!("account-{:08x}", fnv1a(&ids.join(" ")) >> 32));
    }
    match (email, organization) {
        // A user's own organisation is called after the address.
        (Some(email), Some(organization)) if !organization.contains(email) => {
            account_name(&format!("{email} ({organization})"))
        }
        (Some(email), _) => account_name(email),
        (None, organization) => account_name(organization?),
    }
}

/// Where Claude Code keeps its configuration.
fn path(env: Env<'_>) -> Option<PathBuf> {
    let folder = variable(env, "CLAUDE_CONFIG_DIR").or_else(|| variable(env, "HOME"));
    folder.map(PathBuf::from).filter(|folder| folder.is_absolute()).map(|folder| folder.join(FILE))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_769_774_400_000_000);

    fn report(limits: &str, recording: Recording, home: &str) -> Option<LimitsReport> {
        let text = format!(r#"{{"session_id": "s", "rate_limits": {limits}}}"#);
        of(&Input::read(text.as_bytes(), &[WANTED]), recording, &|name| (name == "HOME").then(|| home.into()), NOW)
    }

    fn windows_of(limits: &str) -> Vec<(String, Option<f64>, Option<String>)> {
        let report = report(limits, Recording::Full, "/none").unwrap_or_default();
        report.windows.into_iter().map(|w| (w.window, w.used_percent, w.resets_at)).collect()
    }

    #[test]
    fn windows_are_read_whatever_they_are_called() {
        let limits = r#"{"five_hour": {"used_percentage": 23.54, "resets_at": 1769780000}, "seven_day": {"used_percentage": 41,
            "resets_at": null}, "seven_day_opus": {"used_percentage": null, "resets_at": 1769780000}, "x": 7}"#;
        let at = || Some("2026-01-30T13:33:20.000000Z".to_owned());
        assert_eq!(
            windows_of(limits),
            [
                ("five_hour".to_owned(), Some(23.5), at()),
                ("seven_day".to_owned(), Some(41.0), None),
                ("seven_day_opus".to_owned(), None, at()),
            ]
        );
        let many: Vec<_> = (0..20).map(|n| format!(r#""w{n}": {{"used_percentage": 1, "resets_at": null}}"#)).collect();
        assert_eq!(windows_of(&format!("{{{}}}", many.join(","))).len(), MAX_WINDOWS);
    }

    #[test]
    fn times_of_reset_are_read_in_any_unit() {
        let of = |resets: &str| {
            let found = windows_of(&format!(r#"{{"five_hour": {{"used_percentage": 1, "resets_at": {resets}}}}}"#));
            found[0].2.clone()
        };
        for resets in ["1769780000", "1769780000000", "1769780000.0", "\"2026-01-30T14:33:20+01:00\""] {
            assert_eq!(of(resets).as_deref(), Some("2026-01-30T13:33:20.000000Z"), "{resets}");
        }
        for resets in [
            "-1",
            "0",
            "253370764800",
            "1e300",
            "\"soon\"",
            "\"1769780000\"",
            "{}",
            "[]",
            "true",
            "\"9999-01-01T00:00:00Z\"",
        ] {
            assert_eq!(of(resets), None, "{resets}");
        }
    }

    #[test]
    fn what_is_no_limit_is_left_out() {
        for limits in [
            "null",
            "7",
            "[]",
            "{}",
            r#"{"five_hour": null}"#,
            r#"{"five_hour": {"used_percentage": "41", "resets_at": null}}"#,
            r#"{"five_hour": {"used_percentage": -4, "resets_at": null}}"#,
            r#"{"a\u001b[2J": {"used_percentage": 4, "resets_at": null}}"#,
        ] {
            assert_eq!(report(limits, Recording::Full, "/none"), None, "{limits}");
        }
        let over = windows_of(r#"{"five_hour": {"used_percentage": 250, "resets_at": null}}"#);
        assert_eq!(over[0].1, Some(100.0), "all of it is used");
    }

    #[test]
    fn same_limits_are_observed_anew_after_a_request() {
        let of = |cost: &str, used: u8| {
            let text = format!(r#"{{"cost": {cost}, "rate_limits": {{"five_hour": {{"used_percentage": {used}}}}}}}"#);
            observation(&Input::read(text.as_bytes(), &[WANTED, "cost"]))
        };
        let first = of(r#"{"total_api_duration_ms": 100}"#, 7);
        assert!(first.is_some());
        assert_eq!(first, of(r#"{"total_api_duration_ms": 100, "total_duration_ms": 5}"#, 7), "drawn again");
        assert_ne!(first, of(r#"{"total_api_duration_ms": 101}"#, 7));
        assert_ne!(first, of(r#"{"total_api_duration_ms": 100}"#, 8));
        assert_eq!((of("{}", 7), of("7", 7), of(r#"{"total_api_duration_ms": null}"#, 7)), (None, None, None));
    }

    #[test]
    fn account_is_named_as_far_as_the_user_allows() {
        const LIMITS: &str = r#"{"five_hour": {"used_percentage": 1, "resets_at": null}}"#;
        let home = tempfile::tempdir().unwrap();
        let (path, home) = (home.path().join(FILE), home.path().to_str().unwrap().to_owned());
        let account = |recording| report(LIMITS, recording, &home).map(|report| report.account);
        assert_eq!(account(Recording::Full), Some(None), "there is no file");
        let write = |account: &str| {
            let text = format!(
                r#"{{"primaryApiKey": "sk-ant-1", "projects": {{"oauthAccount": 1}}, "oauthAccount": {account}, "x": 1}}"#
            );
            fs::write(&path, text).unwrap();
        };
        write(
            r#"{"accountUuid": "a-1", "emailAddress": "dev@example.com", "organizationUuid": "o-1", "organizationName": "dev@example.com's Organization"}"#,
        );
        assert_eq!(account(Recording::Full), Some(Some("dev@example.com".to_owned())));
        let personal = account(Recording::Titles).unwrap().unwrap();
        assert!(personal.starts_with("account-") && personal.len() == 16, "{personal}");
        assert_eq!(account(Recording::None), None, "no limits either");
        write(
            r#"{"accountUuid": "a-1", "emailAddress": "dev@example.com", "organizationUuid": "o-2", "organizationName": "Team"}"#,
        );
        assert_eq!(account(Recording::Full), Some(Some("dev@example.com (Team)".to_owned())));
        assert_ne!(account(Recording::Titles).unwrap().unwrap(), personal);
        for unknown in ["null", "7", "{}", r#"{"emailAddress": ""}"#, r#"{"emailAddress": 7}"#] {
            write(unknown);
            assert_eq!((account(Recording::Full), account(Recording::Titles)), (Some(None), Some(None)), "{unknown}");
        }
        write(r#"{"emailAddress": "a\u001b[2J@b\u202e"}"#);
        let hostile = account(Recording::Full).unwrap().unwrap();
        assert!(!hostile.chars().any(crate::domain::text::is_unsafe), "{hostile}");
        fs::write(&path, "{").unwrap();
        assert_eq!(account(Recording::Full), Some(None));
        fs::write(&path, " ".repeat(5 << 20)).unwrap();
        assert_eq!(account(Recording::Full), Some(None));
    }
}
