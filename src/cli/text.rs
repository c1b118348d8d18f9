//! Formatting of ages, times and counts, and cutting text to a width.

use std::time::Duration;

use chrono::DateTime;
use unicode_width::UnicodeWidthChar;

use crate::domain::Timestamp;
pub(super) use crate::domain::time::age;

/// The width of a text in terminal columns.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// Cuts the end of a text to `columns`, with an ellipsis in its place.
pub(super) fn cut_end(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let (kept, _) = take_columns(text.chars(), columns.saturating_sub(1));
    format!("{}…", kept.into_iter().collect::<String>().trim_end())
}

/// Cuts the middle of a text to `columns`, with an ellipsis in its place: ids differ at their ends.
pub(super) fn cut_middle(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let tail_columns = columns.saturating_sub(1).div_ceil(2);
    let (tail, used) = take_columns(text.chars().rev(), tail_columns);
    let (head, _) = take_columns(text.chars(), columns.saturating_sub(1 + used));
    head.into_iter().chain(['…']).chain(tail.into_iter().rev()).collect()
}

/// As many characters as fit, and their width.
fn take_columns(chars: impl Iterator<Item = char>, columns: usize) -> (Vec<char>, usize) {
    let mut used = 0;
    let mut kept = Vec::new();
    for c in chars {
        if used + char_width(c) > columns {
            break;
        }
        used += char_width(c);
        kept.push(c);
    }
    (kept, used)
}

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
    fn cut_text_fits_the_width() {
        assert_eq!(cut_end("hello", 5), "hello");
        assert_eq!(cut_end("hello", 4), "hel…");
        assert_eq!(cut_end("日本語", 4), "日…");
        assert_eq!(cut_end("a b", 1), "…");
        assert_eq!(cut_middle("my-long-project-PS-8f4a2b", 14), "my-lon…-8f4a2b");
        assert_eq!(cut_middle("日本語日本語", 6), "日…本語".replace("本語", "語"));
        assert_eq!(cut_middle("abc", 1), "…");
    }

    #[test]
    fn counts_agree_with_their_noun() {
        assert_eq!(count(1, "session"), "1 session");
        assert_eq!(count_with_verb(2, "session", "waits", "wait"), "2 sessions wait");
    }
}
