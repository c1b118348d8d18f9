//! Properties of the domain's rules for arbitrary values.

use std::time::Duration;

use proptest::prelude::*;
use sessiond::domain::footer::{FooterForm, footer};
use sessiond::domain::session::valid_epic;
use sessiond::domain::{
    Heartbeat, InstanceId, InstanceType, MachineName, Project, Registration, Session, Status, Timestamp,
};

fn session(created_at: i64) -> Session {
    let project = Project::parse("odin").unwrap();
    let id = InstanceId::generate(&project, InstanceType::Ps, 1);
    let what = Registration {
        project,
        instance_type: InstanceType::Ps,
        host_machine: MachineName::guess(),
        context_percent: 0,
        current_epic: None,
        claude_session_uuid: None,
        claude_session_path: None,
        resumed_from: None,
        working_dir: None,
    };
    Session::register(id, what, Timestamp::from_micros(created_at))
}

proptest! {
    /// For any clocks there is a footer, in its one or two lines.
    #[test]
    fn a_footer_for_any_time(created in any::<i64>(), now in any::<i64>(), percent in 0..=100_u8, separator: bool) {
        let session = Session { context_percent: percent, ..session(created) };
        let form = if separator { FooterForm::Separated } else { FooterForm::Plain };
        let text = footer(&session, Timestamp::from_micros(now), form);
        prop_assert_eq!(text.lines().count(), 1 + usize::from(separator) + usize::from(percent > 30));
        let context = format!("| Context: {percent}% | Active: ");
        prop_assert!(text.contains(&context));
    }

    #[test]
    fn an_epic_is_1_to_256_characters_without_control(epic in "\\PC{0,260}|.{0,5}") {
        let right = (1..=256).contains(&epic.chars().count()) && !epic.contains(char::is_control);
        prop_assert_eq!(valid_epic(&epic).is_ok(), right);
    }

    /// Heartbeats in any order, at any time, against the rule: the newest counts, except that
    /// one from a future that a corrected clock has taken away is left behind.
    #[test]
    fn heartbeats_against_a_model(
        times in prop::collection::vec(prop_oneof![0..1000_i64, any::<i64>()], 1..20),
        stale_seconds in 5..86_400_u64,
        closes_at in prop::option::of(0..20_usize),
    ) {
        let stale_after = Duration::from_secs(stale_seconds);
        let mut session = session(0);
        let mut newest = 0_i128;
        for (number, time) in times.into_iter().enumerate() {
            let at = Timestamp::from_micros(time);
            if closes_at == Some(number) {
                session.close(at);
            }
            let before = session.clone();
            let beaten = session.heartbeat(&Heartbeat::default(), at, stale_after);
            prop_assert_eq!(beaten.is_err(), before.status == Status::Closed);
            if beaten.is_err() {
                prop_assert_eq!(&session, &before, "closed is for good");
                continue;
            }
            let wrong_future = newest - i128::from(time) >= i128::from(stale_seconds) * 1_000_000;
            newest = if wrong_future { i128::from(time) } else { newest.max(i128::from(time)) };
            prop_assert_eq!(i128::from(session.last_heartbeat.micros()), newest);
            prop_assert_eq!(session.status_at(session.last_heartbeat, stale_after), Status::Active);
        }
        if let Some(closed_at) = session.closed_at {
            prop_assert!(closed_at >= session.created_at && session.status == Status::Closed);
        }
    }
}
