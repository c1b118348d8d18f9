//! Detects that the machine woke from sleep or that its wall clock was set, after which all deadlines are checked again.

use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior};

use crate::clock::Clock;
use crate::domain::Timestamp;

/// How often the clocks are compared where the kernel cannot report it.
const PERIOD: Duration = Duration::from_secs(10);
/// How far the wall clock may drift within a period; far more than a clock that NTP slews.
const TOLERANCE: Duration = Duration::from_secs(5);

/// Watches for wakes of the machine and jumps of its wall clock.
pub struct WakeDetector {
    /// None where the kernel offers no such timer.
    #[cfg(target_os = "linux")]
    timer: Option<linux::ClockTimer>,
    comparison: ClockComparison,
}

impl WakeDetector {
    /// Must be called within a tokio runtime with I/O and time.
    pub fn new(clock: Clock) -> Self {
        Self {
            #[cfg(target_os = "linux")]
            timer: linux::ClockTimer::new().ok(),
            comparison: ClockComparison::new(clock, PERIOD),
        }
    }

    /// Waits for the next wake or jump. Cancel-safe.
    pub async fn next(&mut self) {
        #[cfg(target_os = "linux")]
        if let Some(timer) = &self.timer {
            if timer.clock_was_set().await.is_ok() {
                return;
            }
            self.timer = None;
        }
        self.comparison.next().await;
    }
}

/// The portable detection: unlike the wall clock, the monotonic clock stops during sleep and is never set.
struct ClockComparison {
    clock: Clock,
    ticks: Interval,
    last: (Timestamp, Instant),
}

impl ClockComparison {
    fn new(clock: Clock, period: Duration) -> Self {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let last = (clock(), Instant::now());
        Self { clock, ticks, last }
    }

    async fn next(&mut self) {
        loop {
            self.ticks.tick().await;
            let now = ((self.clock)(), Instant::now());
            let before = std::mem::replace(&mut self.last, now);
            if jumped(before.0, now.0, now.1.duration_since(before.1)) {
                return;
            }
        }
    }
}

/// Whether the wall clock moved differently from the monotonic clock, on which `elapsed` passed.
fn jumped(before: Timestamp, now: Timestamp, elapsed: Duration) -> bool {
    let expected = before.plus(elapsed);
    expected.since(now).max(now.since(expected)) > TOLERANCE
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;

    use rustix::io::{Errno, read};
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    /// A timer that never expires, and that the kernel cancels when the wall clock is set or the machine wakes.
    pub(super) struct ClockTimer(AsyncFd<OwnedFd>);

    impl ClockTimer {
        pub(super) fn new() -> io::Result<Self> {
            Self::expiring_at(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
        }

        pub(super) fn expiring_at(expiry: Timespec) -> io::Result<Self> {
            let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
            let never_again = Timespec { tv_sec: 0, tv_nsec: 0 };
            let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
            timerfd_settime(&timer, flags, &Itimerspec { it_interval: never_again, it_value: expiry })?;
            Ok(Self(crate::platform::readable(timer)?))
        }

        /// # Errors
        /// The timer cannot be read.
        pub(super) async fn clock_was_set(&self) -> io::Result<()> {
            loop {
                let mut ready = self.0.readable().await?;
                match ready.try_io(|timer| Ok(read(timer, &mut [0; 8]))) {
                    // Expiry, which only tests use, counts as cancellation; the timer stays usable after both.
                    Ok(Ok(Ok(_) | Err(Errno::CANCELED))) => return Ok(()),
                    Ok(Ok(Err(Errno::AGAIN))) => ready.clear_ready(),
                    Ok(Ok(Err(Errno::INTR))) | Err(_) => {}
                    Ok(Ok(Err(other))) => return Err(other.into()),
                    Ok(Err(other)) => return Err(other),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    const SECOND: i64 = 1_000_000;

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn detects_jumps_of_more_than_five_seconds() {
        let before = Timestamp::from_micros(1_000 * SECOND);
        let ten = Duration::from_secs(10);
        for (wall, expected) in [(10, false), (15, false), (16, true), (5, false), (4, true), (3_600, true), (-9, true)]
        {
            let now = Timestamp::from_micros((1_000 + wall) * SECOND);
            assert_eq!(jumped(before, now, ten), expected, "{wall} s on the wall in 10 s");
        }
        assert!(!jumped(before, before.plus(Duration::from_secs(60)), Duration::from_secs(60)));
    }

    #[test]
    fn the_comparison_reports_a_jump_once() {
        run(async {
            let wall = Arc::new(AtomicI64::new(1_000 * SECOND));
            let reading = wall.clone();
            let clock: Clock = Arc::new(move || Timestamp::from_micros(reading.load(Ordering::Relaxed)));
            let mut comparison = ClockComparison::new(clock, Duration::from_millis(5));
            let soon = Duration::from_millis(50);
            assert!(tokio::time::timeout(soon, comparison.next()).await.is_err());
            for step in [3_600, -3_600] {
                wall.fetch_add(step * SECOND, Ordering::Relaxed);
                assert!(tokio::time::timeout(Duration::from_secs(5), comparison.next()).await.is_ok());
                assert!(tokio::time::timeout(soon, comparison.next()).await.is_err());
            }
        });
    }

    #[test]
    fn reports_nothing_without_a_jump() {
        run(async {
            let mut wakes = WakeDetector::new(crate::clock::system());
            #[cfg(target_os = "linux")]
            assert!(wakes.timer.is_some());
            assert!(tokio::time::timeout(Duration::from_millis(50), wakes.next()).await.is_err());
        });
    }

    /// A test may not set the machine's clock, so the timer's expiry replaces its cancellation.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_timer_reports_once() {
        run(async {
            let past = rustix::time::Timespec { tv_sec: 1, tv_nsec: 0 };
            let timer = linux::ClockTimer::expiring_at(past).unwrap();
            assert!(tokio::time::timeout(Duration::from_secs(5), timer.clock_was_set()).await.unwrap().is_ok());
            assert!(tokio::time::timeout(Duration::from_millis(50), timer.clock_was_set()).await.is_err());
        });
    }
}
