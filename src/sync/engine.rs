//! The policy of sync: what to do next, decided from what happened, without doing any of it.
//!
//! Time is the duration since some moment in the past, from a clock that only moves forward;
//! randomness is handed in. The worker carries out each [`Step`] and reports back.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::domain::backoff::{CAP_FOR_A_PERSON, full_jitter};
use crate::store::BatchLimit;

/// A reading of a monotonic clock.
pub type Tick = Duration;

/// How often what is done while the link is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// At the latest this long after the last push central hears that this host lives.
    pub heartbeat_interval: Duration,
    /// How often central is read where it does not tell of changes, and for heartbeats, of which it never tells.
    pub pull_interval: Duration,
    /// How often vanished hosts are looked for.
    pub sweep_interval: Duration,
    /// The longest wait before a new attempt where that may help by itself.
    pub longest_wait: Duration,
}

/// How often central is asked whether a table that could not be used for records can be by then.
const TABLES_AGAIN: Duration = Duration::from_secs(10);

/// Pushes are at least this far apart, so that a busy host costs central one transaction a second.
const PUSH_GAP: Duration = Duration::from_secs(1);

/// Readings are at least this far apart, however often central tells of changes.
const PULL_GAP: Duration = Duration::from_millis(250);

/// How much longer than a reading took the next one waits, at least: a central that many hosts read, each what all
/// the others change, is asked less often and not more and more.
const PULL_SHARE: u32 = 10;

/// How many times the usual interval a slow central is left alone at most.
const PULL_PATIENCE: u32 = 3;

/// Central could not tell of changes; perhaps it can by then.
const LISTEN_AGAIN: Duration = Duration::from_secs(300);

/// The same where it could before.
const LISTEN_SOON: Duration = Duration::from_secs(15);

/// Sweeps of one backlog are at least this far apart, so that pushes and reads get their turn.
const SWEEP_GAP: Duration = Duration::from_secs(1);

/// How long to leave the store alone after it failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Signs of life that say nothing else are pushed so many times in a heartbeat interval, together.
const QUIET_PUSHES: u32 = 2;

/// Rows of one push: what a slow central is brought down to, and what a fast one, be it far away, is given.
pub const BATCHES: RangeInclusive<usize> = 50..=8000;

/// Bytes of one push, likewise: a line of 64 kbit/s carries the least of it in a second.
const BATCH_BYTES: RangeInclusive<usize> = 8 << 10..=1 << 20;

/// The first batch is this part of the largest.
const BATCH_BEGINS: usize = 8;

/// Batches that take longer than this do not grow any more: the way there and back is little of it by then.
const BATCH_LONG: Duration = Duration::from_secs(1);

/// What the worker is to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Connect, and announce this host.
    Hello,
    /// Push what is pending, up to so much; with nothing pending, say that this host lives.
    Push { limit: BatchLimit },
    /// Ask whether the tables for records can be used by now.
    CheckTables,
    /// Read what changed in central.
    Pull,
    /// Have central tell of changes.
    Listen,
    /// Turn the sessions of vanished hosts stale.
    Sweep,
    /// Nothing before that moment, unless something happens.
    Wait { until: Tick },
}

/// What waits for central.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    Nothing,
    /// Signs of life that say nothing else.
    Quiet,
    News,
}

/// How an attempt failed, as far as the policy cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Trying again may help.
    Retry,
    /// Only a person can help.
    NeedsAPerson,
    /// Announcing anew helps.
    OutOfStep,
    /// This host's own store failed; central is not to blame.
    Store,
}

#[derive(Clone, Debug)]
enum Link {
    Down {
        retry_at: Tick,
    },
    /// `retry_at`: when something that central did not take is pushed again. `tables_at`: when its tables are checked.
    Up {
        push_at: Tick,
        quiet_at: Tick,
        beat_at: Tick,
        retry_at: Tick,
        tables_at: Tick,
        pull_at: Tick,
        pull_gap: Tick,
        listen_at: Tick,
        sweep_at: Tick,
    },
}

#[derive(Clone, Debug)]
pub struct Engine {
    pace: Pace,
    link: Link,
    /// Failures since the last push that succeeded.
    attempts: u32,
    batch: BatchLimit,
    batches: RangeInclusive<usize>,
    /// Central could tell of changes at some time.
    listened_once: bool,
}

impl Engine {
    /// Starts out disconnected, with the first attempt due at once. `batches`: how few rows a push may have, and how
    /// many.
    pub fn new(pace: Pace, batches: RangeInclusive<usize>) -> Self {
        let rows = (batches.end() / BATCH_BEGINS).max(*batches.start());
        let batch = BatchLimit { rows, bytes: BATCH_BYTES.end() / BATCH_BEGINS };
        Self { pace, link: Link::Down { retry_at: Tick::ZERO }, attempts: 0, batch, batches, listened_once: false }
    }

    /// How much the next push carries at most.
    pub fn batch(&self) -> BatchLimit {
        self.batch
    }

    pub fn is_up(&self) -> bool {
        matches!(self.link, Link::Up { .. })
    }

    /// What to do at `now`, given what waits for central.
    pub fn next(&self, now: Tick, waiting: Waiting) -> Step {
        match self.link {
            Link::Down { retry_at } if retry_at <= now => Step::Hello,
            Link::Down { retry_at } => Step::Wait { until: retry_at },
            Link::Up { push_at, quiet_at, beat_at, retry_at, tables_at, pull_at, listen_at, sweep_at, .. } => {
                let push_at = match waiting {
                    Waiting::Nothing => beat_at,
                    Waiting::Quiet => quiet_at.min(beat_at),
                    Waiting::News => push_at.min(beat_at),
                }
                .min(retry_at.max(push_at));
                if push_at <= now {
                    Step::Push { limit: self.batch }
                } else if tables_at <= now {
                    Step::CheckTables
                } else if pull_at <= now {
                    Step::Pull
                } else if listen_at <= now {
                    Step::Listen
                } else if sweep_at <= now {
                    Step::Sweep
                } else {
                    Step::Wait { until: push_at.min(tables_at).min(pull_at).min(listen_at).min(sweep_at) }
                }
            }
        }
    }

    /// Central let this host in.
    pub fn welcomed(&mut self, now: Tick) {
        self.link = Link::Up {
            push_at: now,
            quiet_at: now,
            beat_at: now,
            retry_at: Tick::MAX,
            tables_at: Tick::MAX,
            pull_at: now,
            pull_gap: now,
            listen_at: now,
            sweep_at: now,
        };
    }

    /// A push that began then went through; if more may wait, it is followed by the next at once.
    pub fn pushed(&mut self, more: bool, began: Tick, now: Tick) {
        self.attempts = 0;
        if more && now.saturating_sub(began) < BATCH_LONG {
            self.batch.rows = (self.batch.rows * 2).min(*self.batches.end());
            self.batch.bytes = (self.batch.bytes * 2).min(*BATCH_BYTES.end());
        }
        let interval = self.pace.heartbeat_interval;
        if let Link::Up { push_at, quiet_at, beat_at, .. } = &mut self.link {
            *push_at = if more { now } else { now + PUSH_GAP };
            *quiet_at = if more { now } else { now + interval / QUIET_PUSHES };
            *beat_at = now + interval;
        }
    }

    /// Something that central did not take is pushed again then, at the earliest after the usual gap.
    pub fn retry(&mut self, at: Option<Tick>) {
        if let Link::Up { retry_at, .. } = &mut self.link {
            *retry_at = at.unwrap_or(Tick::MAX);
        }
    }

    /// What central has for records is known: whether some of it cannot be used, and whether some can be that could
    /// not before.
    pub fn tables_known(&mut self, blocked: bool, freed: bool, now: Tick) {
        if let Link::Up { push_at, quiet_at, tables_at, .. } = &mut self.link {
            *tables_at = if blocked { now + TABLES_AGAIN } else { Tick::MAX };
            if freed {
                (*push_at, *quiet_at) = (now, now);
            }
        }
    }

    /// A page was read, by a reading that began then; the next one follows at once.
    pub fn pulled(&mut self, more: bool, began: Tick, now: Tick) {
        let interval = self.pace.pull_interval;
        let rest = PULL_SHARE * now.saturating_sub(began);
        if let Link::Up { pull_at, pull_gap, .. } = &mut self.link {
            *pull_at = if more { now } else { now + rest.clamp(interval, PULL_PATIENCE * interval) };
            *pull_gap = now + PULL_GAP.max(rest.min(interval));
        }
    }

    /// Central tells of a change.
    pub fn noticed(&mut self, now: Tick) {
        if let Link::Up { pull_at, pull_gap, .. } = &mut self.link {
            *pull_at = (*pull_at).min(now.max(*pull_gap));
        }
    }

    /// Central was asked to tell of changes, and can or cannot. What changed in between is read.
    pub fn listened(&mut self, tells: bool, now: Tick) {
        if let Link::Up { pull_at, listen_at, .. } = &mut self.link {
            let again = if self.listened_once { LISTEN_SOON } else { LISTEN_AGAIN };
            *listen_at = if tells { Tick::MAX } else { now + again };
            self.listened_once |= tells;
            *pull_at = if tells { now } else { *pull_at };
        }
    }

    /// The connection that listened is gone: what it missed is read, and another one opened.
    pub fn stopped_listening(&mut self, now: Tick) {
        if let Link::Up { listen_at, .. } = &mut self.link {
            *listen_at = now;
        }
        self.noticed(now);
    }

    /// A sweep ended, be it with an error; if it left sessions over, the next one follows soon.
    pub fn swept(&mut self, more: bool, now: Tick) {
        if let Link::Up { sweep_at, .. } = &mut self.link {
            *sweep_at = now + if more { SWEEP_GAP.min(self.pace.sweep_interval) } else { self.pace.sweep_interval };
        }
    }

    /// The step failed, and with it the connection. `random` is uniform over all of u64.
    pub fn failed(&mut self, failure: Failure, now: Tick, random: u64) {
        let wait = match failure {
            Failure::OutOfStep if self.attempts == 0 => Duration::ZERO,
            Failure::Store => STORE_PAUSE,
            Failure::OutOfStep | Failure::Retry => full_jitter(self.attempts, self.pace.longest_wait, random),
            // A few attempts ahead: what a person has to mend is not mended within a second.
            Failure::NeedsAPerson => full_jitter(self.attempts.saturating_add(4), CAP_FOR_A_PERSON, random),
        };
        self.attempts = self.attempts.saturating_add(1);
        if failure == Failure::Retry {
            self.batch.rows = (self.batch.rows / 2).max(*self.batches.start());
            self.batch.bytes = (self.batch.bytes / 2).max(*BATCH_BYTES.start());
        }
        self.link = Link::Down { retry_at: now + wait };
    }

    /// Something suggests that the world changed, or somebody asks: do not sit out a wait.
    pub fn hurry(&mut self, now: Tick) {
        match &mut self.link {
            Link::Down { retry_at } => *retry_at = (*retry_at).min(now),
            Link::Up { push_at, beat_at, tables_at, .. } => {
                if *tables_at != Tick::MAX {
                    *tables_at = (*tables_at).min(now);
                }
                *push_at = (*push_at).min(now);
                *beat_at = (*beat_at).min(now);
            }
        }
    }

    /// The settings or the identity changed: announce anew.
    pub fn reconnect(&mut self, pace: Pace, now: Tick) {
        self.pace = pace;
        self.attempts = 0;
        self.link = Link::Down { retry_at: now };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::backoff::CAP;

    const PACE: Pace = Pace {
        heartbeat_interval: Duration::from_secs(30),
        pull_interval: Duration::from_secs(15),
        sweep_interval: Duration::from_secs(60),
        longest_wait: CAP,
    };

    fn at(seconds: u64) -> Tick {
        Duration::from_secs(seconds)
    }

    fn up(now: Tick) -> Engine {
        let mut engine = Engine::new(PACE, BATCHES);
        engine.welcomed(now);
        engine.pushed(false, now, now);
        engine.listened(true, now);
        engine.pulled(false, now, now);
        engine.swept(false, now);
        engine
    }

    #[test]
    fn announces_first_then_pushes_pulls_and_sweeps() {
        let mut engine = Engine::new(PACE, BATCHES);
        assert_eq!(engine.next(at(0), Waiting::News), Step::Hello);
        engine.welcomed(at(0));
        assert!(matches!(engine.next(at(0), Waiting::Nothing), Step::Push { .. }));
        engine.pushed(false, at(0), at(0));
        assert_eq!(engine.next(at(0), Waiting::Nothing), Step::Pull);
        engine.pulled(true, at(0), at(0));
        assert_eq!(engine.next(at(0), Waiting::Nothing), Step::Pull);
        engine.pulled(false, at(0), at(0));
        assert_eq!(engine.next(at(0), Waiting::Nothing), Step::Listen);
        engine.listened(true, at(0));
        assert_eq!(engine.next(at(0), Waiting::Nothing), Step::Pull, "what changed before central told of it");
        engine.pulled(false, at(0), at(0));
        assert_eq!(engine.next(at(0), Waiting::Nothing), Step::Sweep);
        engine.swept(false, at(0));
        assert_eq!(engine.next(at(0), Waiting::Nothing), Step::Wait { until: at(15) });
    }

    #[test]
    fn a_sweep_that_left_sessions_over_is_continued_soon() {
        let mut engine = up(at(0));
        engine.swept(true, at(5));
        assert_eq!(engine.next(at(5), Waiting::Nothing), Step::Wait { until: at(5) + SWEEP_GAP });
        assert_eq!(engine.next(at(6), Waiting::Nothing), Step::Sweep);
    }

    #[test]
    fn a_change_is_pushed_after_a_gap_and_silence_still_beats() {
        let mut engine = up(at(100));
        assert_eq!(engine.next(at(100), Waiting::News), Step::Wait { until: at(101) });
        assert!(matches!(engine.next(at(101), Waiting::News), Step::Push { .. }));
        engine.pulled(false, at(120), at(120));
        assert!(matches!(engine.next(at(129), Waiting::Nothing), Step::Wait { .. }));
        assert!(matches!(engine.next(at(130), Waiting::Nothing), Step::Push { .. }));
    }

    #[test]
    fn signs_of_life_wait_for_one_another_but_not_for_ever() {
        let mut engine = up(at(0));
        engine.pulled(false, at(14), at(14));
        assert_eq!(engine.next(at(14), Waiting::Quiet), Step::Wait { until: at(15) });
        assert!(matches!(engine.next(at(14), Waiting::News), Step::Push { .. }));
        assert!(matches!(engine.next(at(15), Waiting::Quiet), Step::Push { .. }));
        engine.pushed(true, at(15), at(15));
        assert!(matches!(engine.next(at(15), Waiting::Quiet), Step::Push { .. }), "the rest of them");
    }

    #[test]
    fn a_full_batch_is_followed_at_once_and_a_failure_makes_it_smaller() {
        let mut engine = up(at(0));
        let Step::Push { limit } = engine.next(at(30), Waiting::News) else { panic!("a push is due") };
        engine.pushed(true, at(30), at(30));
        let double = BatchLimit { rows: limit.rows * 2, bytes: limit.bytes * 2 };
        assert_eq!(engine.next(at(30), Waiting::News), Step::Push { limit: double });
        engine.pushed(true, at(30), at(30) + BATCH_LONG);
        assert_eq!(engine.next(at(31), Waiting::News), Step::Push { limit: double }, "it takes long as it is");
        engine.failed(Failure::Retry, at(31), 0);
        engine.welcomed(at(31));
        assert_eq!(engine.next(at(31), Waiting::News), Step::Push { limit });
    }

    #[test]
    fn reads_when_told_but_not_all_the_time() {
        let mut engine = up(at(0));
        engine.pushed(false, at(10), at(10));
        engine.noticed(at(10));
        assert_eq!(engine.next(at(10), Waiting::Nothing), Step::Pull);
        engine.pulled(false, at(10), at(10));
        engine.noticed(at(10));
        assert_eq!(engine.next(at(10), Waiting::Nothing), Step::Wait { until: at(10) + PULL_GAP });
    }

    #[test]
    fn a_lost_listener_is_replaced_at_once_and_then_with_patience() {
        let mut engine = up(at(0));
        engine.pushed(false, at(10), at(10));
        engine.stopped_listening(at(10));
        assert_eq!(engine.next(at(10), Waiting::Nothing), Step::Pull, "what was missed");
        engine.pulled(false, at(10), at(10));
        assert_eq!(engine.next(at(10), Waiting::Nothing), Step::Listen);
        engine.listened(false, at(10));
        engine.pulled(false, at(20), at(20));
        assert_eq!(engine.next(at(24), Waiting::Nothing), Step::Wait { until: at(25) });
        assert_eq!(engine.next(at(25), Waiting::Nothing), Step::Listen);
    }

    #[test]
    fn a_central_that_is_slow_to_read_is_read_less_often() {
        let mut engine = up(at(0));
        engine.pushed(false, at(20), at(20));
        engine.pulled(false, at(18), at(20));
        engine.noticed(at(21));
        assert_eq!(engine.next(at(21), Waiting::Nothing), Step::Wait { until: at(20) + PACE.pull_interval });
        engine.pulled(false, at(20), at(40));
        engine.pushed(false, at(80), at(80));
        engine.swept(false, at(80));
        assert_eq!(
            engine.next(at(80), Waiting::Nothing),
            Step::Wait { until: at(40) + PULL_PATIENCE * PACE.pull_interval }
        );
    }

    #[test]
    fn blocked_tables_are_checked_again_and_records_pushed_once_they_are_free() {
        let mut engine = up(at(0));
        engine.tables_known(true, false, at(0));
        assert_eq!(engine.next(at(9), Waiting::Nothing), Step::Wait { until: at(10) });
        assert_eq!(engine.next(at(10), Waiting::Nothing), Step::CheckTables);
        engine.tables_known(true, false, at(10));
        engine.hurry(at(11));
        engine.pushed(false, at(11), at(11));
        assert_eq!(engine.next(at(11), Waiting::Nothing), Step::CheckTables, "at once when asked");
        engine.tables_known(false, true, at(11));
        assert!(matches!(engine.next(at(11), Waiting::Quiet), Step::Push { .. }));
    }

    #[test]
    fn what_central_did_not_take_is_pushed_again_in_time() {
        let mut engine = up(at(0));
        engine.retry(Some(at(5)));
        assert_eq!(engine.next(at(4), Waiting::Nothing), Step::Wait { until: at(5) });
        assert!(matches!(engine.next(at(5), Waiting::Nothing), Step::Push { .. }));
        engine.pushed(false, at(5), at(5));
        engine.retry(Some(at(5)));
        assert_eq!(engine.next(at(5), Waiting::Nothing), Step::Wait { until: at(6) }, "not all the time");
    }

    #[test]
    fn attempts_are_closer_where_several_hosts_are_named() {
        let longest_wait = Duration::from_secs(5);
        let mut engine = Engine::new(Pace { longest_wait, ..PACE }, BATCHES);
        for _ in 0..20 {
            engine.failed(Failure::Retry, at(50), u64::MAX);
        }
        assert_eq!(engine.next(at(50), Waiting::News), Step::Wait { until: at(55) });
    }

    #[test]
    fn backs_off_and_hurries_when_told() {
        let mut engine = up(at(0));
        for _ in 0..20 {
            engine.failed(Failure::Retry, at(50), u64::MAX);
        }
        assert_eq!(engine.next(at(50), Waiting::News), Step::Wait { until: at(50) + CAP });
        engine.hurry(at(51));
        assert_eq!(engine.next(at(51), Waiting::News), Step::Hello);
    }

    #[test]
    fn a_ledger_out_of_step_is_looked_at_once_and_then_with_care() {
        let mut engine = up(at(0));
        engine.failed(Failure::OutOfStep, at(1), u64::MAX);
        assert_eq!(engine.next(at(1), Waiting::News), Step::Hello);
        engine.welcomed(at(1));
        engine.failed(Failure::OutOfStep, at(1), u64::MAX);
        assert!(matches!(engine.next(at(1), Waiting::News), Step::Wait { .. }));
    }
}
