//! Rate limits: how much of an account's allowance is used, by window of time.
//!
//! A limit is a fact of an account on a machine, as the agents of one user observed it there: the newest value with its
//! time, never a sum. Reports arrive in any order; [`AccountLimit::is_replaced_by`] decides alone which of two counts.
//! A value says nothing once its window was reset: then the use is unknown until an agent observes it again.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::text::{is_unsafe, safe_line};
use super::{MachineName, Timestamp, redact};

/// How many windows of an account are kept, the newest.
pub const MAX_WINDOWS: usize = 8;
/// How many accounts of a machine are kept, the newest.
pub const MAX_ACCOUNTS: usize = 64;
/// How many of them may be of one user, so that no user displaces those of others.
pub const MAX_ACCOUNTS_OF_USER: usize = 16;
/// How long a limit is kept that no agent observes any more.
pub const KEPT: Duration = Duration::from_secs(14 * 86_400);
/// The longest name of an account, in characters.
pub const MAX_ACCOUNT: usize = 120;

/// A value that does not change is written again once it is this old, so that its age stays true to a minute.
const REWRITTEN_AFTER: Duration = Duration::from_secs(60);
/// No window lasts longer: a time that is further away is not one of a reset.
const LONGEST_WINDOW: Duration = Duration::from_secs(366 * 86_400);
const MAX_WINDOW_NAME: usize = 40;
/// What is read of the limits that another machine shared, in bytes.
const MAX_SHARED: usize = 512 << 10;

/// One window of an account's limits, as an agent reports it. At least one of the two values is known.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitWindow {
    /// Such as `five_hour` or `seven_day`.
    pub name: String,
    /// How much of it is used, 0 to 100.
    pub used_percent: Option<f64>,
    /// When the share begins again at 0; `None` if it was not reported.
    pub resets_at: Option<Timestamp>,
}

impl LimitWindow {
    /// The window of a report that was made at `at`. `None` if its name is not one, or if nothing is known of it. More than
    /// all cannot be used; less than nothing, and a reset that no window has, are not known.
    pub fn new(name: &str, used_percent: Option<f64>, resets_at: Option<Timestamp>, at: Timestamp) -> Option<Self> {
        let used_percent = used_percent.filter(|used| *used >= 0.0).map(|used| (used.min(100.0) * 10.0).round() / 10.0);
        let resets_at = resets_at.filter(|reset| (at.minus(LONGEST_WINDOW)..=at.plus(LONGEST_WINDOW)).contains(reset));
        let is_known = used_percent.is_some() || resets_at.is_some();
        (is_window_name(name) && is_known).then(|| Self { name: name.to_owned(), used_percent, resets_at })
    }
}

/// Whether a text can name a window: letters, digits, `_`, `-` and `.`.
pub fn is_window_name(name: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    !name.is_empty() && name.len() <= MAX_WINDOW_NAME && name.bytes().all(is_allowed)
}

/// What an agent reports of its account's limits.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedLimits {
    /// `None`: the agent's account is not known.
    pub account: Option<String>,
    /// At most [`MAX_WINDOWS`], each name once.
    pub windows: Vec<LimitWindow>,
}

/// The name of an account, safe to show and without secrets; `None` if nothing is left of it.
pub fn account_name(name: &str) -> Option<String> {
    let name: String = name.chars().take(4 * MAX_ACCOUNT).map(|c| if is_unsafe(c) { ' ' } else { c }).collect();
    let name = redact::text(&name).unwrap_or(name);
    let name = safe_line(name.trim().to_owned(), MAX_ACCOUNT);
    (!name.is_empty()).then_some(name)
}

/// A window of an account's limits, whose it is, and when it was observed.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountLimit {
    /// The user of the machine whose agents observed it.
    pub uid: u32,
    /// The account's label; `None` if it is not known.
    pub account: Option<String>,
    /// The newest values.
    pub window: LimitWindow,
    /// When they were reported.
    pub observed_at: Timestamp,
}

impl AccountLimit {
    /// Whether another observation of the same window, received at `now`, takes the place of this one. An observation
    /// of a window that had been reset by then is what an idle agent goes on showing: it replaces none that is current.
    pub fn is_replaced_by(&self, new: &Self, now: Timestamp) -> bool {
        // The clock was set back since.
        if self.observed_at > now {
            return true;
        }
        let is_repeat = |limit: &Self| limit.window.resets_at.is_some_and(|reset| reset <= new.observed_at);
        if new.observed_at < self.observed_at || is_repeat(new) && !is_repeat(self) {
            return false;
        }
        new.window != self.window || new.observed_at.since(self.observed_at) >= REWRITTEN_AFTER
    }

    /// Whether the window was reset since it was observed: what is used by now is unknown.
    pub fn is_reset(&self, now: Timestamp) -> bool {
        match (self.window.resets_at, known_length(&self.window.name)) {
            (Some(reset), _) => reset <= now,
            (None, Some(length)) => now.since(self.observed_at) >= length,
            (None, None) => false,
        }
    }

    /// How much is used now, 0 to 100; `None` if that is unknown.
    pub fn used_percent(&self, now: Timestamp) -> Option<f64> {
        self.window.used_percent.filter(|_| !self.is_reset(now))
    }

    /// How much may still be used, 0 to 100; `None` if that is unknown.
    pub fn headroom_percent(&self, now: Timestamp) -> Option<f64> {
        self.used_percent(now).map(|used| ((100.0 - used) * 10.0).round() / 10.0)
    }

    /// Whether nobody has observed it for [`KEPT`].
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now.since(self.observed_at) >= KEPT
    }
}

/// How long a window lasts, if its name says so.
fn known_length(name: &str) -> Option<Duration> {
    const HOUR: u64 = 3600;
    let lengths = [("five_hour", 5 * HOUR), ("seven_day", 7 * 24 * HOUR)];
    lengths.into_iter().find(|(begin, _)| name.starts_with(begin)).map(|(_, seconds)| Duration::from_secs(seconds))
}

/// The limits of one machine, and when this host last knew them to be true.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineLimits {
    /// The machine's name.
    pub machine: MachineName,
    /// Whether it is the machine of this host.
    pub is_local: bool,
    /// What its agents reported.
    pub limits: Vec<AccountLimit>,
    /// The time up to which the machine's state is known here.
    pub as_of: Timestamp,
}

impl MachineLimits {
    /// The least headroom of the windows of which it is known.
    pub fn least_headroom(&self, now: Timestamp) -> Option<f64> {
        self.limits.iter().filter_map(|limit| limit.headroom_percent(now)).reduce(f64::min)
    }
}

/// The form in which limits are shared.
#[derive(Serialize, Deserialize)]
struct SharedLimit {
    uid: u32,
    account: Option<String>,
    window: String,
    used_percent: Option<f64>,
    resets_at: Option<Timestamp>,
    observed_at: Timestamp,
}

/// Limits as the JSON in which they are shared.
pub fn to_json(limits: &[AccountLimit]) -> String {
    let shared = limits.iter().map(|limit| SharedLimit {
        uid: limit.uid,
        account: limit.account.clone(),
        window: limit.window.name.clone(),
        used_percent: limit.window.used_percent,
        resets_at: limit.window.resets_at,
        observed_at: limit.observed_at,
    });
    serde_json::to_string(&shared.collect::<Vec<_>>()).unwrap_or_else(|_| "[]".to_owned())
}

/// The limits in JSON from outside: what cannot be read is left out, every text is safe to show, the number is bounded.
pub fn from_foreign_json(json: &str) -> Vec<AccountLimit> {
    let json = if json.len() <= MAX_SHARED { json } else { "[]" };
    let items: Vec<Value> = serde_json::from_str(json).unwrap_or_default();
    items.into_iter().filter_map(of_foreign).take(MAX_ACCOUNTS * MAX_WINDOWS).collect()
}

fn of_foreign(item: Value) -> Option<AccountLimit> {
    let shared: SharedLimit = serde_json::from_value(item).ok()?;
    let SharedLimit { uid, account, window, used_percent, resets_at, observed_at } = shared;
    let window = LimitWindow::new(&window, used_percent, resets_at, observed_at)?;
    Some(AccountLimit { uid, account: account.as_deref().and_then(account_name), window, observed_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(1_769_774_400_000_000 + seconds * 1_000_000)
    }

    fn limit(used: f64, resets: i64, observed: i64) -> AccountLimit {
        let window = LimitWindow::new("five_hour", Some(used), Some(at(resets)), at(observed)).unwrap();
        AccountLimit { uid: 1000, account: None, window, observed_at: at(observed) }
    }

    #[test]
    fn newest_observation_counts_in_any_order() {
        let (first, second) = (limit(20.0, 9000, 0), limit(35.0, 9000, 10));
        let now = at(20);
        assert!(first.is_replaced_by(&second, now));
        assert!(!second.is_replaced_by(&first, now), "a late report of an earlier time");
        let lower = limit(1.0, 27_000, 15);
        assert!(second.is_replaced_by(&lower, now), "of the next window");
    }

    #[test]
    fn unchanged_value_is_rewritten_once_a_minute() {
        let first = limit(20.0, 9000, 0);
        assert!(!first.is_replaced_by(&limit(20.0, 9000, 59), at(59)));
        assert!(first.is_replaced_by(&limit(20.0, 9000, 60), at(60)));
        assert!(first.is_replaced_by(&limit(20.1, 9000, 1), at(1)));
    }

    #[test]
    fn idle_agent_that_shows_a_past_window_replaces_nothing_current() {
        let (current, idle) = (limit(3.0, 20_000, 10_000), limit(90.0, 9000, 10_010));
        assert!(!current.is_replaced_by(&idle, at(10_010)));
        assert!(limit(80.0, 9000, 9001).is_replaced_by(&idle, at(10_010)), "neither is current");
    }

    #[test]
    fn clock_that_was_set_back_does_not_block_new_values() {
        let ahead = limit(20.0, 90_000, 80_000);
        assert!(ahead.is_replaced_by(&limit(5.0, 9000, 10), at(10)));
    }

    #[test]
    fn use_is_unknown_after_the_reset() {
        let known = limit(80.0, 9000, 0);
        assert_eq!((known.used_percent(at(8999)), known.headroom_percent(at(8999))), (Some(80.0), Some(20.0)));
        assert!(known.is_reset(at(9000)));
        assert_eq!((known.used_percent(at(9000)), known.headroom_percent(at(9000))), (None, None));
        let without = |name: &str| AccountLimit {
            window: LimitWindow::new(name, Some(80.0), None, at(0)).unwrap(),
            ..known.clone()
        };
        let later = |hours: u32| at(0).plus(hours * HOUR);
        assert_eq!(without("five_hour").used_percent(later(4)), Some(80.0));
        assert_eq!(without("five_hour").used_percent(later(5)), None, "no window of five hours lasts longer");
        assert_eq!(without("seven_day_opus").used_percent(later(7 * 24)), None);
        assert_eq!(without("monthly").used_percent(later(7 * 24)), Some(80.0));
        assert!(!known.is_expired(later(13 * 24)) && known.is_expired(later(14 * 24)));
    }

    #[test]
    fn values_that_cannot_be_are_unknown() {
        let of = |used: Option<f64>, resets| LimitWindow::new("five_hour", used, resets, at(0));
        let used = |used| of(Some(used), Some(at(9))).unwrap().used_percent;
        assert_eq!((used(250.0), used(41.26), used(-0.5), used(f64::NAN)), (Some(100.0), Some(41.3), None, None));
        let resets = |resets| of(Some(1.0), Some(resets)).unwrap().resets_at;
        assert_eq!(resets(Timestamp::parse("9999-01-01T00:00:00Z").unwrap()), None);
        assert_eq!(resets(Timestamp::from_micros(-5)), None);
        assert_eq!(resets(at(-100)), Some(at(-100)), "passed");
        assert_eq!(of(None, None), None);
        assert_eq!(of(Some(-3.0), Timestamp::parse("9999-01-01T00:00:00Z")), None);
        for name in ["", "five hour", "a\u{1b}[2J", "ä", &"a".repeat(41)] {
            assert_eq!(LimitWindow::new(name, Some(1.0), None, at(0)), None, "{name}");
        }
    }

    #[test]
    fn account_is_safe_to_show_and_holds_no_secret() {
        assert_eq!(account_name("dev@example.com").as_deref(), Some("dev@example.com"));
        assert_eq!(account_name("a\u{1b}[2J\nb\u{202e}").map(|name| name.chars().any(is_unsafe)), Some(false));
        assert_eq!(account_name(" \n"), None);
        assert!(account_name(&"x".repeat(100_000)).unwrap().chars().count() <= MAX_ACCOUNT);
        let secret = "ghp_abcdefghijklmnopqrstuvwxyz0123456789";
        assert!(!account_name(&format!("me {secret}")).unwrap().contains(secret));
    }

    #[test]
    fn shared_limits_are_read_as_they_were_written() {
        let mut all = vec![limit(41.5, 9000, 0), limit(0.0, 9000, 1)];
        all[1].account = Some("dev@example.com".into());
        assert_eq!(from_foreign_json(&to_json(&all)), all);
    }

    #[test]
    fn foreign_limits_are_made_safe_and_bounded() {
        let item = |window: &str, used: &str, account: &str| {
            format!(
                r#"{{"uid": 1, "account": {account}, "window": "{window}", "used_percent": {used}, "resets_at": null,
                    "observed_at": "2026-01-30T12:00:00Z", "newer": true}}"#
            )
        };
        let read = |items: &[String]| from_foreign_json(&format!("[{}]", items.join(",")));
        let some =
            read(&[item("a", "1e9", "null"), item("b\\u001b", "1", "null"), "7".into(), item("c", "\"1\"", "null")]);
        assert_eq!(some.len(), 1);
        assert_eq!(some[0].window.used_percent, Some(100.0));
        let hostile = read(&[item("a", "1", "\"\\u001b[2J\\u202e\"")]);
        assert!(!hostile[0].account.as_deref().unwrap_or_default().chars().any(is_unsafe));
        assert_eq!(read(&vec![item("a", "1", "null"); 600]).len(), 512);
        for broken in ["", "null", "{}", "[", "7"] {
            assert_eq!(from_foreign_json(broken), [], "{broken}");
        }
        let too_large = format!("[{}]", vec![item("a", "1", "null"); 6000].join(","));
        assert_eq!(from_foreign_json(&too_large), []);
    }
}
