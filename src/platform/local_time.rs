//! The local time of this machine, by its file /etc/localtime or the variable TZ.

use std::env;

use tz::TimeZone;

const MINUTE: i64 = 60;
const MINUTES_OF_DAY: i64 = 24 * 60;

/// The minute of the local day, from 0, at a time in seconds since 1970. A machine that names no zone is on UTC.
pub fn minute_of_day(unix_seconds: i64) -> u16 {
    let named = env::var("TZ").ok().filter(|name| !name.is_empty());
    let zone = named.map_or_else(TimeZone::local, |name| TimeZone::from_posix_tz(&name));
    let offset = zone.ok().and_then(|zone| Some(zone.find_local_time_type(unix_seconds).ok()?.ut_offset()));
    minute_at(unix_seconds, offset.unwrap_or(0))
}

/// The same at an offset from UTC, in seconds.
fn minute_at(unix_seconds: i64, offset: i32) -> u16 {
    let minute = unix_seconds.saturating_add(i64::from(offset)).div_euclid(MINUTE).rem_euclid(MINUTES_OF_DAY);
    u16::try_from(minute).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minute_follows_the_offset_past_midnight() {
        let noon = 1_790_000_000 / 86_400 * 86_400 + 43_200;
        assert_eq!(minute_at(noon, 0), 12 * 60);
        assert_eq!(minute_at(noon, 5 * 3600 + 1800), 17 * 60 + 30);
        assert_eq!(minute_at(noon + 11 * 3600, 7200), 60);
        assert_eq!(minute_at(0, -3600), 23 * 60);
        assert!(minute_of_day(noon) < 24 * 60);
    }
}
