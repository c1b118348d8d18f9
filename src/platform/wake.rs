//! Tells when the machine woke from sleep or its wall clock was set: the moment to look at everything again.

use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior};

use crate::clock::Clock;
use crate::domain::Timestamp;

/// How often the clocks are compared where the kernel cannot tell.
const PERIOD: Duration = Duration::from_secs(10);
/// By how much the wall clock may drift within a period: a clock being slewed stays far below this.
const TOLERANCE: Duration = Duration::from_secs(5);

/// Watches for wakes of the machine and jumps of its wall clock.
pub struct Wakes {
    /// None where the kernel offers no such timer.
    #[cfg(target_os = "linux")]
    timer: Option<linux::ClockTimer>,
    comparison: Comparison,
}

impl Wakes {
    /// Must be called within a tokio runtime with I/O and time.
    pub fn new(clock: Clock) -> Self {
        Self {
            #[cfg(target_os = "linux")]
            timer: linux::ClockTimer::new().ok(),
            comparison: Comparison::new(clock, PERIOD),
        }
    }

    /// Waits for the next wake or jump. A call that is dropped loses none.
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

/// The portable way: the monotonic clock stands still in sleep and is never set, the wall clock is.
struct Comparison {
    clock: Clock,
    ticks: Interval,
    last: (Timestamp, Instant),
}

impl Comparison {
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

/// Whether the wall clock went elsewhere than the `elapsed` time on the monotonic clock would have taken it.
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

    /// A timer that never expires, and is cancelled when the wall clock is set, as it is on waking too.
    pub(super) struct ClockTimer(AsyncFd<OwnedFd>);

    impl ClockTimer {
        pub(super) fn new() -> io::Result<Self> {
            Self::expiring_at(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
        }

        pub(super) fn expiring_at(moment: Timespec) -> io::Result<Self> {
            let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
            let never_again = Timespec { tv_sec: 0, tv_nsec: 0 };
            let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
            timerfd_settime(&timer, flags, &Itimerspec { it_interval: never_again, it_value: moment })?;
            Ok(Self(crate::platform::readable(timer)?))
        }

        /// # Errors
        /// The timer cannot be read: another way to learn it is needed.
        pub(super) async fn clock_was_set(&self) -> io::Result<()> {
            loop {
                let mut ready = self.0.readable().await?;
                match ready.try_io(|timer| Ok(read(timer, &mut [0; 8]))) {
                    // Expired is as good as cancelled; either way the timer goes on telling.
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
    fn only_a_jump_of_more_than_five_seconds_counts() {
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
    fn the_comparison_tells_of_a_jump_once() {
        run(async {
            let wall = Arc::new(AtomicI64::new(1_000 * SECOND));
            let reading = wall.clone();
            let clock: Clock = Arc::new(move || Timestamp::from_micros(reading.load(Ordering::Relaxed)));
            let mut comparison = Comparison::new(clock, Duration::from_millis(5));
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
    fn nothing_is_told_while_nothing_happens() {
        run(async {
            let mut wakes = Wakes::new(crate::clock::system());
            #[cfg(target_os = "linux")]
            assert!(wakes.timer.is_some());
            assert!(tokio::time::timeout(Duration::from_millis(50), wakes.next()).await.is_err());
        });
    }

    /// No test may set the clock of the machine, so the timer's other event stands in for the cancelling.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_timer_tells_once() {
        run(async {
            let past = rustix::time::Timespec { tv_sec: 1, tv_nsec: 0 };
            let timer = linux::ClockTimer::expiring_at(past).unwrap();
            assert!(tokio::time::timeout(Duration::from_secs(5), timer.clock_was_set()).await.unwrap().is_ok());
            assert!(tokio::time::timeout(Duration::from_millis(50), timer.clock_was_set()).await.is_err());
        });
    }
}
