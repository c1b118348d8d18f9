use super::Remaining::{More, Nothing};
use super::*;
use crate::domain::backoff::CAP;
use crate::sync::pacing::MAX_SLOWNESS;

const INTERVALS: SyncIntervals = SyncIntervals {
    heartbeat_interval: Duration::from_secs(30),
    refresh_after: Duration::from_secs(60),
    pull_interval: Duration::from_secs(15),
    sweep_interval: Duration::from_secs(60),
    longest_wait: CAP,
};

fn at(seconds: u64) -> Tick {
    Duration::from_secs(seconds)
}

fn up(now: Tick) -> Scheduler {
    let mut scheduler = Scheduler::new(INTERVALS, BATCH_ROWS);
    scheduler.handshake_accepted(now, 0);
    scheduler.pushed(Nothing, now, now);
    scheduler.hosts_read(Tick::MAX);
    if let Connection::Up(timers) = &mut scheduler.connection {
        timers.refresh_at = Tick::MAX;
    }
    scheduler.listen_succeeded(now);
    scheduler.pulled(Nothing, (now, now), 1);
    scheduler.swept(Nothing, now);
    scheduler
}

#[test]
fn handshake_comes_first_then_push_pull_and_sweep() {
    let mut scheduler = Scheduler::new(INTERVALS, BATCH_ROWS);
    assert_eq!(scheduler.next_action(at(0), Unsynced::Urgent), SyncAction::Handshake);
    scheduler.handshake_accepted(at(0), 0);
    assert_eq!(scheduler.next_action(at(0), Unsynced::Nothing), SyncAction::Refresh);
    scheduler.refreshed(false, at(0));
    assert!(matches!(scheduler.next_action(at(0), Unsynced::Nothing), SyncAction::Push { .. }));
    scheduler.pushed(Nothing, at(0), at(0));
    assert_eq!(scheduler.next_action(at(0), Unsynced::Nothing), SyncAction::ReadHosts);
    scheduler.hosts_read(at(30));
    assert_eq!(scheduler.next_action(at(0), Unsynced::Nothing), SyncAction::Pull);
    scheduler.pulled(More, (at(0), at(0)), 1);
    assert_eq!(scheduler.next_action(at(0), Unsynced::Nothing), SyncAction::Pull);
    scheduler.pulled(Nothing, (at(0), at(0)), 1);
    assert_eq!(scheduler.next_action(at(0), Unsynced::Nothing), SyncAction::Listen);
    scheduler.listen_succeeded(at(0));
    assert_eq!(
        scheduler.next_action(at(0), Unsynced::Nothing),
        SyncAction::Pull,
        "what changed before the subscription"
    );
    scheduler.pulled(Nothing, (at(0), at(0)), 1);
    assert_eq!(scheduler.next_action(at(0), Unsynced::Nothing), SyncAction::Sweep);
    scheduler.swept(Nothing, at(0));
    assert_eq!(scheduler.next_action(at(0), Unsynced::Nothing), SyncAction::Wait { until: at(15) });
}

#[test]
fn sessions_that_are_due_are_pushed_at_once_and_checked_twice_in_an_interval() {
    let mut scheduler = up(at(0));
    scheduler.refreshed(true, at(3));
    assert!(matches!(scheduler.next_action(at(3), Unsynced::HeartbeatsOnly), SyncAction::Push { .. }));
    // However often something urgent is pushed.
    for second in 3..18 {
        scheduler.pushed(Nothing, at(second), at(second));
    }
    assert_eq!(scheduler.next_action(at(18), Unsynced::Nothing), SyncAction::Refresh);
}

#[test]
fn hosts_are_read_once_in_an_interval_and_soon_after_one_joined() {
    let mut scheduler = up(at(0));
    scheduler.hosts_read(at(30));
    scheduler.change_notified(at(1), 0);
    assert_eq!(scheduler.next_action(at(1), Unsynced::Nothing), SyncAction::Pull, "a notification reads no hosts");
    scheduler.pulled(Nothing, (at(1), at(1)), 1);
    scheduler.hosts_joined(at(3));
    assert_eq!(scheduler.next_action(at(2), Unsynced::Nothing), SyncAction::Wait { until: at(3) });
    assert_eq!(scheduler.next_action(at(3), Unsynced::Nothing), SyncAction::ReadHosts);
    scheduler.hosts_read(at(30));
    scheduler.hosts_joined(at(40));
    assert_eq!(scheduler.next_action(at(3), Unsynced::Nothing), SyncAction::Wait { until: at(16) });
}

#[test]
fn incomplete_sweep_continues_soon() {
    let mut scheduler = up(at(0));
    scheduler.swept(More, at(5));
    assert_eq!(scheduler.next_action(at(5), Unsynced::Nothing), SyncAction::Wait { until: at(5) + SWEEP_GAP });
    assert_eq!(scheduler.next_action(at(6), Unsynced::Nothing), SyncAction::Sweep);
}

#[test]
fn urgent_change_waits_for_the_push_gap_and_an_idle_host_pushes_an_empty_batch() {
    let mut scheduler = up(at(100));
    assert_eq!(scheduler.next_action(at(100), Unsynced::Urgent), SyncAction::Wait { until: at(101) });
    assert!(matches!(scheduler.next_action(at(101), Unsynced::Urgent), SyncAction::Push { .. }));
    scheduler.pulled(Nothing, (at(120), at(120)), 1);
    assert!(matches!(scheduler.next_action(at(129), Unsynced::Nothing), SyncAction::Wait { .. }));
    assert!(matches!(scheduler.next_action(at(130), Unsynced::Nothing), SyncAction::Push { .. }));
}

#[test]
fn heartbeats_are_pushed_twice_per_interval() {
    let mut scheduler = up(at(0));
    scheduler.pulled(Nothing, (at(14), at(14)), 1);
    assert_eq!(scheduler.next_action(at(14), Unsynced::HeartbeatsOnly), SyncAction::Wait { until: at(15) });
    assert!(matches!(scheduler.next_action(at(14), Unsynced::Urgent), SyncAction::Push { .. }));
    assert!(matches!(scheduler.next_action(at(15), Unsynced::HeartbeatsOnly), SyncAction::Push { .. }));
    scheduler.pushed(More, at(15), at(15));
    assert!(
        matches!(scheduler.next_action(at(15), Unsynced::HeartbeatsOnly), SyncAction::Push { .. }),
        "the remaining rows"
    );
}

#[test]
fn full_batch_doubles_the_limit_and_a_failure_halves_it() {
    let mut scheduler = up(at(0));
    let SyncAction::Push { limit } = scheduler.next_action(at(30), Unsynced::Urgent) else { panic!("a push is due") };
    scheduler.pushed(More, at(30), at(30));
    let double = BatchLimit { rows: limit.rows * 2, bytes: limit.bytes * 2 };
    assert_eq!(scheduler.next_action(at(30), Unsynced::Urgent), SyncAction::Push { limit: double });
    scheduler.pushed(More, at(30), at(30) + SLOW_BATCH);
    assert_eq!(
        scheduler.next_action(at(31), Unsynced::Urgent),
        SyncAction::Push { limit: double },
        "the batch was slow"
    );
    scheduler.failed(FailureKind::Transient, at(31), 0);
    scheduler.handshake_accepted(at(31), 0);
    scheduler.refreshed(false, at(31));
    assert_eq!(scheduler.next_action(at(31), Unsynced::Urgent), SyncAction::Push { limit });
}

#[test]
fn notification_causes_a_pull_at_most_once_per_gap() {
    let mut scheduler = up(at(0));
    scheduler.pushed(Nothing, at(10), at(10));
    scheduler.change_notified(at(10), 0);
    assert_eq!(scheduler.next_action(at(10), Unsynced::Nothing), SyncAction::Pull);
    scheduler.pulled(Nothing, (at(10), at(10)), 1);
    scheduler.change_notified(at(10), 0);
    assert_eq!(scheduler.next_action(at(10), Unsynced::Nothing), SyncAction::Wait { until: at(10) + PULL_GAP });
}

#[test]
fn lost_listener_is_replaced_at_once_then_after_a_wait() {
    let mut scheduler = up(at(0));
    scheduler.pushed(Nothing, at(10), at(10));
    scheduler.listener_lost(at(10), 0);
    assert_eq!(scheduler.next_action(at(10), Unsynced::Nothing), SyncAction::Pull, "what was missed");
    scheduler.pulled(Nothing, (at(10), at(10)), 1);
    assert_eq!(scheduler.next_action(at(10), Unsynced::Nothing), SyncAction::Listen);
    scheduler.listen_failed(at(10));
    scheduler.pulled(Nothing, (at(20), at(20)), 1);
    assert_eq!(scheduler.next_action(at(24), Unsynced::Nothing), SyncAction::Wait { until: at(25) });
    assert_eq!(scheduler.next_action(at(25), Unsynced::Nothing), SyncAction::Listen);
}

#[test]
fn slow_central_is_pulled_less_often() {
    let mut scheduler = up(at(0));
    scheduler.pushed(Nothing, at(20), at(20));
    scheduler.pulled(Nothing, (at(18), at(20)), 1);
    assert_eq!(scheduler.next_action(at(21), Unsynced::Nothing), SyncAction::Wait { until: at(20) + at(20) });
    scheduler.pulled(Nothing, (at(20), at(40)), 1);
    scheduler.pushed(Nothing, at(80), at(80));
    scheduler.swept(Nothing, at(80));
    assert_eq!(
        scheduler.next_action(at(80), Unsynced::Nothing),
        SyncAction::Wait { until: at(40) + LONGEST_PULL_WAIT * INTERVALS.pull_interval }
    );
}

#[test]
fn notification_waits_a_few_seconds_after_a_slow_pull_and_longer_while_central_is_slower_than_usual() {
    let mut scheduler = up(at(0));
    let cases = [
        ((19, 20), 1, LONGEST_NOTIFIED_WAIT),
        ((15, 20), 1, at(5)),
        ((19, 20), 2, LONGEST_NOTIFIED_WAIT),
        ((18, 20), 2, at(4)),
        ((15, 20), MAX_SLOWNESS, INTERVALS.pull_interval),
    ];
    for ((began, now), slowness, wait) in cases {
        scheduler.pushed(Nothing, at(20), at(20));
        scheduler.pulled(Nothing, (at(began), at(now)), slowness);
        scheduler.change_notified(at(20), 0);
        let until = at(20) + wait;
        assert_eq!(scheduler.next_action(at(20), Unsynced::Nothing), SyncAction::Wait { until }, "{slowness}");
    }
}

#[test]
fn central_that_answers_slower_than_usual_is_pulled_less_often_until_it_recovers() {
    let mut scheduler = up(at(0));
    scheduler.pushed(Nothing, at(10), at(10));
    let next = |scheduler: &Scheduler| scheduler.next_action(at(10), Unsynced::Nothing);
    for (slowness, intervals) in [(1, 1), (2, 2), (MAX_SLOWNESS, LONGEST_PULL_WAIT), (1, 1)] {
        scheduler.swept(Nothing, at(10));
        scheduler.pulled(Nothing, (at(10), at(10)), slowness);
        let until = (at(10) + INTERVALS.pull_interval * intervals).min(at(40));
        assert_eq!(next(&scheduler), SyncAction::Wait { until }, "{slowness} times slower; at 40 an empty push is due");
    }
}

#[test]
fn page_of_everything_waits_for_everything_else() {
    let mut scheduler = up(at(0));
    scheduler.read_all(at(1));
    assert_eq!(scheduler.next_action(at(1), Unsynced::Nothing), SyncAction::ReadAll);
    assert!(matches!(scheduler.next_action(at(1), Unsynced::Urgent), SyncAction::Push { .. }));
    scheduler.change_notified(at(1), 0);
    assert_eq!(scheduler.next_action(at(1), Unsynced::Nothing), SyncAction::Pull);
    scheduler.pulled(Nothing, (at(1), at(1)), 1);
    scheduler.page_read(Some(at(3)));
    scheduler.read_all(at(1));
    assert_eq!(scheduler.next_action(at(1), Unsynced::Nothing), SyncAction::Wait { until: at(3) }, "the pause counts");
    assert_eq!(scheduler.next_action(at(3), Unsynced::Nothing), SyncAction::ReadAll);
    scheduler.page_read(None);
    assert_eq!(scheduler.next_action(at(3), Unsynced::Nothing), SyncAction::Wait { until: at(16) });
}

/// Connected as one of so many hosts, with nothing due.
fn up_in_fleet(hosts: u32) -> Scheduler {
    let mut scheduler = up(at(0));
    scheduler.set_fleet(Fleet::of_size(hosts));
    scheduler
}

#[test]
fn hosts_of_a_large_fleet_reconnect_within_its_window_and_push_before_they_read() {
    let mut scheduler = up_in_fleet(1000);
    scheduler.failed(FailureKind::Transient, at(5), u64::MAX);
    assert_eq!(scheduler.next_action(at(5), Unsynced::Urgent), SyncAction::Wait { until: at(25) });
    scheduler.handshake_accepted(at(25), u64::MAX / 2);
    scheduler.refreshed(false, at(25));
    assert!(matches!(scheduler.next_action(at(25), Unsynced::Urgent), SyncAction::Push { .. }));
    scheduler.pushed(Nothing, at(25), at(25));
    let SyncAction::Wait { until } = scheduler.next_action(at(25), Unsynced::Nothing) else { panic!("it reads") };
    assert!((at(37)..=at(38)).contains(&until), "{until:?}");
    assert_eq!(scheduler.next_action(until, Unsynced::Nothing), SyncAction::ReadHosts);
    scheduler.hosts_read(Tick::MAX);
    assert_eq!(scheduler.next_action(until, Unsynced::Nothing), SyncAction::Pull);
}

#[test]
fn neither_a_start_nor_a_small_fleet_nor_an_operators_request_waits() {
    for mut scheduler in [Scheduler::new(INTERVALS, BATCH_ROWS), up_in_fleet(20)] {
        scheduler.failed(FailureKind::Transient, at(5), u64::MAX);
        let SyncAction::Wait { until } = scheduler.next_action(at(5), Unsynced::Nothing) else { panic!("it retries") };
        assert!(until <= at(6), "{until:?}");
        scheduler.handshake_accepted(at(6), u64::MAX);
        scheduler.refreshed(false, at(6));
        scheduler.pushed(Nothing, at(6), at(6));
        assert_eq!(scheduler.next_action(at(6), Unsynced::Nothing), SyncAction::ReadHosts);
    }
    let mut scheduler = up_in_fleet(1000);
    scheduler.failed(FailureKind::Transient, at(5), u64::MAX);
    scheduler.run_now(at(6));
    assert_eq!(scheduler.next_action(at(6), Unsynced::Nothing), SyncAction::Handshake);
}

#[test]
fn ledger_out_of_step_and_a_failed_store_are_no_outage_of_a_fleet() {
    for kind in [FailureKind::OutOfStep, FailureKind::LocalStore] {
        let mut scheduler = up_in_fleet(1000);
        scheduler.failed(kind, at(5), u64::MAX);
        assert_eq!(scheduler.next_action(at(6), Unsynced::Nothing), SyncAction::Handshake, "{kind:?}");
        scheduler.handshake_accepted(at(6), u64::MAX);
        scheduler.refreshed(false, at(6));
        scheduler.pushed(Nothing, at(6), at(6));
        assert_eq!(scheduler.next_action(at(6), Unsynced::Nothing), SyncAction::ReadHosts, "{kind:?}");
    }
}

#[test]
fn hosts_of_a_large_fleet_spread_their_answers_to_a_notification() {
    let mut scheduler = up_in_fleet(1000);
    scheduler.pushed(Nothing, at(5), at(5));
    scheduler.change_notified(at(5), u64::MAX);
    let until = Duration::from_millis(7500);
    assert_eq!(scheduler.next_action(at(5), Unsynced::Nothing), SyncAction::Wait { until });
    scheduler.change_notified(at(5), 0);
    assert_eq!(scheduler.next_action(at(5), Unsynced::Nothing), SyncAction::Pull);
}

#[test]
fn blocked_tables_are_checked_again_and_freed_records_are_pushed() {
    let mut scheduler = up(at(0));
    scheduler.tables_checked(UsableTables::Some, at(0));
    assert_eq!(scheduler.next_action(at(9), Unsynced::Nothing), SyncAction::Wait { until: at(10) });
    assert_eq!(scheduler.next_action(at(10), Unsynced::Nothing), SyncAction::CheckTables);
    scheduler.tables_checked(UsableTables::Some, at(10));
    scheduler.run_now(at(11));
    scheduler.pushed(Nothing, at(11), at(11));
    assert_eq!(scheduler.next_action(at(11), Unsynced::Nothing), SyncAction::CheckTables, "run_now includes the check");
    scheduler.tables_checked(UsableTables::All, at(11));
    scheduler.table_freed(at(11));
    assert!(matches!(scheduler.next_action(at(11), Unsynced::HeartbeatsOnly), SyncAction::Push { .. }));
}

#[test]
fn held_rows_are_pushed_again_after_the_gap() {
    let mut scheduler = up(at(0));
    scheduler.retry_held_at(Some(at(5)));
    assert_eq!(scheduler.next_action(at(4), Unsynced::Nothing), SyncAction::Wait { until: at(5) });
    assert!(matches!(scheduler.next_action(at(5), Unsynced::Nothing), SyncAction::Push { .. }));
    scheduler.pushed(Nothing, at(5), at(5));
    scheduler.retry_held_at(Some(at(5)));
    assert_eq!(
        scheduler.next_action(at(5), Unsynced::Nothing),
        SyncAction::Wait { until: at(6) },
        "not before the gap"
    );
}

#[test]
fn longest_wait_limits_the_backoff() {
    let longest_wait = Duration::from_secs(5);
    let mut scheduler = Scheduler::new(SyncIntervals { longest_wait, ..INTERVALS }, BATCH_ROWS);
    for _ in 0..20 {
        scheduler.failed(FailureKind::Transient, at(50), u64::MAX);
    }
    assert_eq!(scheduler.next_action(at(50), Unsynced::Urgent), SyncAction::Wait { until: at(55) });
}

#[test]
fn backs_off_and_run_now_ends_the_wait() {
    let mut scheduler = up(at(0));
    for _ in 0..20 {
        scheduler.failed(FailureKind::Transient, at(50), u64::MAX);
    }
    assert_eq!(scheduler.next_action(at(50), Unsynced::Urgent), SyncAction::Wait { until: at(50) + CAP });
    scheduler.run_now(at(51));
    assert_eq!(scheduler.next_action(at(51), Unsynced::Urgent), SyncAction::Handshake);
}

#[test]
fn out_of_step_reconnects_at_once_the_first_time_only() {
    let mut scheduler = up(at(0));
    scheduler.failed(FailureKind::OutOfStep, at(1), u64::MAX);
    assert_eq!(scheduler.next_action(at(1), Unsynced::Urgent), SyncAction::Handshake);
    scheduler.handshake_accepted(at(1), 0);
    scheduler.failed(FailureKind::OutOfStep, at(1), u64::MAX);
    assert!(matches!(scheduler.next_action(at(1), Unsynced::Urgent), SyncAction::Wait { .. }));
}
