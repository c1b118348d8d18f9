use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::domain::{MachineName, Timestamp};

const MILLISECOND: Duration = Duration::from_millis(1);

fn seen(hours_ago: i64) -> HostSeen {
    HostSeen {
        host_id: Uuid::from_u128(hours_ago.unsigned_abs().into()),
        machine: MachineName::parse("odin4").unwrap(),
        last_seen: Timestamp::from_micros(1_769_774_400_000_000 - hours_ago * 3_600_000_000),
        limits: Vec::new(),
    }
}

#[test]
fn only_hosts_that_were_in_contact_within_a_day_of_the_newest_count() {
    assert_eq!(Fleet::of(&[]), Fleet::of_size(0));
    assert_eq!(Fleet::of(&[seen(100), seen(101), seen(123), seen(125)]), Fleet::of_size(3));
}

#[test]
fn small_fleet_waits_for_nothing_and_a_large_one_at_most_twenty_seconds() {
    for hosts in [0, 1, 2, 20] {
        let fleet = Fleet::of_size(hosts);
        assert_eq!((fleet.reading_wait(u64::MAX), fleet.notified_wait(u64::MAX)), (Duration::ZERO, Duration::ZERO));
        for backoff in [MILLISECOND, Duration::from_secs(30)] {
            assert_eq!((fleet.retry_wait(backoff, 0), fleet.retry_wait(backoff, u64::MAX)), (Duration::ZERO, backoff));
        }
    }
    assert_eq!(Fleet::of_size(100).window(), Duration::from_secs(2));
    assert_eq!(Fleet::of_size(1000).window(), Duration::from_secs(20));
    assert_eq!(Fleet::of_size(1_000_000).window(), Duration::from_secs(20));
    assert_eq!(Fleet::of_size(1000).notified_wait(u64::MAX), Duration::from_millis(2500));
}

#[test]
fn history_is_read_ahead_up_to_a_thousand_hosts_and_again_when_clearly_fewer_are_left() {
    let reading = |hosts, before| Fleet::of_size(hosts).history_reading(before);
    let (ahead, on_demand) = (HistoryReading::Ahead, HistoryReading::OnDemand);
    assert_eq!([reading(0, ahead), reading(1000, ahead), reading(1001, ahead)], [ahead, ahead, on_demand]);
    assert_eq!(
        [reading(1001, on_demand), reading(901, on_demand), reading(900, on_demand)],
        [on_demand, on_demand, ahead]
    );
}

#[test]
fn pause_grows_with_the_time_of_the_page_and_with_the_hosts_that_may_read() {
    let took = 20 * MILLISECOND;
    assert_eq!(ReadingShare::SmallFleet.pause(took, 1), took);
    assert_eq!(ReadingShare::Slot.pause(took, 1), took * 2);
    assert_eq!(ReadingShare::Slot.pause(took, 3), took * 6);
    assert_eq!(ReadingShare::AllHosts(Fleet::of_size(100)).pause(took, 1), took * 200);
    assert_eq!(ReadingShare::AllHosts(Fleet::of_size(21)).pause(took * 10_000, 4), LONGEST_PAUSE);
}

#[test]
fn slow_answer_counts_at_once_and_is_forgotten_with_the_next_usual_one() {
    let mut times = AnswerTimes::default();
    assert_eq!(times.slowness(), 1, "before the first answer");
    times.record(80 * MILLISECOND, 0);
    assert_eq!(times.slowness(), 1, "it is the usual one");
    times.record(250 * MILLISECOND, 0);
    assert_eq!((times.slowness(), times.last()), (3, 250 * MILLISECOND));
    times.record(90 * MILLISECOND, 0);
    assert_eq!(times.slowness(), 1);
    times.record(Duration::from_secs(3600), 0);
    assert_eq!(times.slowness(), MAX_SLOWNESS);
}

#[test]
fn many_rows_and_fast_answers_are_not_slow() {
    let mut times = AnswerTimes::default();
    times.record(2 * MILLISECOND, 0);
    times.record(40 * MILLISECOND, 0);
    assert_eq!(times.slowness(), 1, "an answer of 40 ms is fast");
    times.record(500 * MILLISECOND, 1000);
    assert_eq!(times.slowness(), 1, "a thousand rows");
}

#[test]
fn central_that_stays_slower_becomes_usual() {
    let mut times = AnswerTimes::default();
    times.record(50 * MILLISECOND, 0);
    let slow = (0..1000).take_while(|_| {
        times.record(400 * MILLISECOND, 0);
        times.slowness() > 1
    });
    let slow = slow.count();
    assert!((20..1000).contains(&slow), "{slow} answers counted as slow");
}

proptest! {
    #[test]
    fn waits_are_bounded_and_grow_with_the_fleet(hosts in 0_u32..100_000, random: u64) {
        let (fleet, larger) = (Fleet::of_size(hosts), Fleet::of_size(hosts + 1));
        prop_assert!(fleet.reading_wait(random) <= Duration::from_secs(25));
        prop_assert!(fleet.window() <= larger.window() && fleet.window() <= LONGEST_WINDOW);
        prop_assert!(fleet.retry_wait(Duration::from_millis(250), random) <= fleet.window().max(Duration::from_millis(250)));
        prop_assert!(fleet.retry_wait(Duration::from_secs(30), random) <= Duration::from_secs(30));
        prop_assert!(fleet.notified_wait(random) <= Duration::from_millis(2500));
        prop_assert!(fleet.slot_wait(random) >= SLOT_WAIT && fleet.slot_wait(random) <= SLOT_WAIT + LONGEST_SLOT_WAIT);
    }

    /// In a fleet in which all hosts read everything, central works on it for at most half of one processor.
    #[test]
    fn pause_leaves_central_to_others(hosts in 21_u32..2000, took in 1_u64..5_000, slowness in 1..=MAX_SLOWNESS) {
        let took = Duration::from_millis(took);
        let pause = ReadingShare::AllHosts(Fleet::of_size(hosts)).pause(took, slowness);
        prop_assert!(pause == LONGEST_PAUSE || took * hosts * 2 <= took + pause);
        for share in [ReadingShare::SmallFleet, ReadingShare::Slot] {
            prop_assert!(share.pause(took, slowness) >= took.min(LONGEST_PAUSE));
        }
    }

    #[test]
    fn slowness_is_bounded_and_recovers(answers in prop::collection::vec((0_u64..100_000, 0_usize..2000), 0..200)) {
        let mut times = AnswerTimes::default();
        for (took, rows) in answers {
            times.record(Duration::from_millis(took), rows);
            prop_assert!((1..=MAX_SLOWNESS).contains(&times.slowness()));
        }
        times.record(MILLISECOND, 0);
        prop_assert_eq!(times.slowness(), 1);
    }
}
