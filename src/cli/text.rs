//! Formatting of ages, times and counts.

use std::time::Duration;

use chrono::DateTime;

use crate::domain::Timestamp;
pub(super) use crate::domain::text_width::{cut_end, cut_middle, width};
pub(super) use crate::domain::time::age;

/// The age of an RFC 3339 time, such as `4m`.
pub(super) fn age_since(moment: &str, now: Timestamp) -> Option<String> {
    elapsed_since(moment, now).map(age)
}

/// The time since an RFC 3339 time; `None` if it is not one.
pub(super) fn elapsed_since(moment: &str, now: Timestamp) -> Option<Duration> {
    let then = DateTime::parse_from_rfc3339(moment).ok()?;
    Some(now.since(Timestamp::from_micros(then.timestamp_micros())))
}

/// `2026-01-30T12:00:00Z (4m ago)`.
pub(super) fn time_with_age(moment: &str, now: Timestamp) -> String {
    match (age_since(moment, now), moment.split_once('.')) {
        (Some(age), Some((seconds, _))) => format!("{seconds}Z ({age} ago)"),
        (Some(age), None) => format!("{moment} ({age} ago)"),
        (None, _) => moment.to_owned(),
    }
}

/// `1 session`, `2 sessions`.
pub(super) fn count(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// `1 session is`, `2 sessions are`, of the verb's singular and plural.
pub(super) fn count_with_verb(n: u64, noun: &str, one: &str, many: &str) -> String {
    format!("{} {}", count(n, noun), if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_with_their_age() {
        let now = Timestamp::from_micros(1_769_774_400_000_000 + 240_000_000);
        assert_eq!(time_with_age("2026-01-30T12:00:00.000000Z", now), "2026-01-30T12:00:00Z (4m ago)");
        assert_eq!(time_with_age("2026-01-30T13:00:00+01:00", now), "2026-01-30T13:00:00+01:00 (4m ago)");
        assert_eq!(time_with_age("yesterday", now), "yesterday");
        assert_eq!(age_since("2027-01-30T12:00:00Z", now).as_deref(), Some("0s"), "the future is not long ago");
    }

    #[test]
    fn counts_agree_with_their_noun() {
        assert_eq!(count(1, "session"), "1 session");
        assert_eq!(count_with_verb(2, "session", "waits", "wait"), "2 sessions wait");
    }
}
