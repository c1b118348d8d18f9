//! Exponential backoff with full jitter: how long to wait before a retry.
//!
//! Full jitter chooses from the whole range, so that many hosts do not all reconnect at the same time once central is
//! reachable again.

use std::time::Duration;

const BASE: Duration = Duration::from_millis(250);

/// The longest wait if a retry may succeed without intervention.
pub const CAP: Duration = Duration::from_secs(30);

/// The longest wait if several hosts of central are configured: after a failover another one serves within seconds.
pub const CAP_WITH_FAILOVER: Duration = Duration::from_secs(5);

/// The longest wait if the operator has to act.
pub const CAP_FOR_OPERATOR: Duration = Duration::from_secs(60);

/// The longest wait before attempt number `attempt` (the first retry is 0): `min(cap, BASE * 2^attempt)`.
pub fn longest_wait(attempt: u32, cap: Duration) -> Duration {
    BASE.saturating_mul(2_u32.saturating_pow(attempt.min(20))).min(cap)
}

/// The wait before attempt number `attempt`: uniform over `0..=longest_wait(attempt, cap)`, `random` being uniform over
/// all of u64.
pub fn full_jitter(attempt: u32, cap: Duration, random: u64) -> Duration {
    uniform(longest_wait(attempt, cap), random)
}

/// A duration that is uniform over `0..=longest`, `random` being uniform over all of u64.
pub fn uniform(longest: Duration, random: u64) -> Duration {
    let micros = longest.as_micros() * u128::from(random) / u128::from(u64::MAX);
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_is_capped() {
        assert_eq!(full_jitter(0, CAP, u64::MAX), BASE);
        assert_eq!(full_jitter(3, CAP, u64::MAX), BASE * 8);
        assert_eq!(full_jitter(40, CAP, u64::MAX), CAP);
        assert_eq!(full_jitter(u32::MAX, CAP_FOR_OPERATOR, u64::MAX), CAP_FOR_OPERATOR);
    }

    #[test]
    fn jitters_over_the_whole_range() {
        assert_eq!(full_jitter(10, CAP, 0), Duration::ZERO);
        let middle = full_jitter(10, CAP, u64::MAX / 2);
        assert!(middle > CAP / 3 && middle < CAP * 2 / 3);
    }
}
