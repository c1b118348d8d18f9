use super::*;
use crate::domain::activity::{Activity, ActivitySource};
use crate::domain::limits::{AccountLimit, LimitWindow};
use crate::domain::{InstanceType, Registration};

fn at(second: u64) -> Timestamp {
    Timestamp::from_micros(1_790_000_000_000_000).plus(Duration::from_secs(second))
}

fn session(id: &str) -> Session {
    let registration = Registration {
        project: Project::parse("odin").unwrap(),
        instance_type: InstanceType::parse("PS").unwrap(),
        host_machine: MachineName::parse("odin3").unwrap(),
        context_percent: 0,
        current_epic: None,
        claude_session_uuid: None,
        claude_session_path: None,
        resumed_from: None,
        working_dir: None,
    };
    Session::register(InstanceId::parse(id).unwrap(), registration, at(0))
}

fn work(state: ActivityState, since: Timestamp) -> WorkSummary {
    let activity = Activity {
        state,
        waiting_for: (state == ActivityState::Waiting).then_some(WaitingFor::Permission),
        detail: Some("Bash".to_owned()),
        since,
        source: ActivitySource::Hook,
    };
    WorkSummary { activity: Some(activity), title: Some("Fix \u{1b}[31mlogin".to_owned()), ..WorkSummary::default() }
}

#[test]
fn transition_is_what_the_user_should_hear_of() {
    let session = session("odin-PS-8f4a2b");
    let of = |state, status| Transition::of_session(&session, Some(&work(state, at(5))), status);
    let waiting = of(ActivityState::Waiting, Status::Active).unwrap();
    assert_eq!((waiting.occasion, waiting.since), (Occasion::Waiting, at(5)));
    assert_eq!(waiting.text, "it waits for a permission: Bash");
    assert!(waiting.title.starts_with("Fix ") && waiting.title.ends_with("login (odin3)"), "{}", waiting.title);
    assert!(!waiting.title.contains('\u{1b}'), "{}", waiting.title);
    assert_eq!(of(ActivityState::Failed, Status::Active).unwrap().text, "its turn failed: Bash");
    assert_eq!(of(ActivityState::Idle, Status::Active), None);
    assert_eq!(of(ActivityState::Working, Status::Active), None);
    // A stale session does not wait any more; it became stale after its last heartbeat.
    let stale = of(ActivityState::Waiting, Status::Stale).unwrap();
    assert_eq!((stale.occasion, stale.since), (Occasion::Stale, at(0)));
    assert_eq!(of(ActivityState::Waiting, Status::Closed), None);
    assert_eq!(Transition::of_session(&session, None, Status::Active), None);
}

#[test]
fn key_tells_transitions_and_channels_apart() {
    let own = session("odin-PS-8f4a2b");
    let waiting =
        |since| Transition::of_session(&own, Some(&work(ActivityState::Waiting, since)), Status::Active).unwrap();
    let (first, second) = (waiting(at(5)), waiting(at(6)));
    assert!(first.is_same(&waiting(at(5))) && !first.is_same(&second));
    assert_eq!(first.key_for("desktop"), waiting(at(5)).key_for("desktop"));
    assert_ne!(first.key_for("desktop"), second.key_for("desktop"));
    assert_ne!(first.key_for("desktop"), first.key_for("ntfy"));
    assert!(!first.key_for("https://host/secret").contains("secret"));
    // Each of two sessions in conflict has the same transition.
    let other = session("odin-PS-000000");
    let one = Transition::conflict(&own, None, &other.instance_id, at(1));
    let same = Transition::conflict(&other, None, &own.instance_id, at(9));
    assert!(one.is_same(&same));
}

#[test]
fn limit_is_notified_once_it_is_nearly_used() {
    let machine = |used: f64, reset: u64| MachineLimits {
        machine: MachineName::parse("odin3").unwrap(),
        is_local: true,
        limits: vec![AccountLimit {
            uid: 1000,
            account: Some("dev@example.com".to_owned()),
            window: LimitWindow::new("five_hour", Some(used), Some(at(reset)), at(0)).unwrap(),
            observed_at: at(0),
        }],
        as_of: at(0),
    };
    assert_eq!(Transition::of_limits(&machine(89.9, 600), at(1)), []);
    let found = Transition::of_limits(&machine(90.0, 600), at(1));
    assert_eq!((found.len(), found[0].text.as_str()), (1, "10 % of five_hour are left"));
    assert!(found[0].is_same(&Transition::of_limits(&machine(99.0, 600), at(30))[0]), "once for a window");
    assert!(!found[0].is_same(&Transition::of_limits(&machine(99.0, 900), at(30))[0]), "again after its reset");
    assert_eq!(Transition::of_limits(&machine(99.0, 600), at(601)), [], "its window was reset");
}

#[test]
fn filter_matches_what_it_names() {
    let session = session("odin-PS-8f4a2b");
    let waiting = Transition::of_session(&session, Some(&work(ActivityState::Waiting, at(5))), Status::Active).unwrap();
    let filter = |projects: &[&str], machines: &[&str], kinds: &[&str]| {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        NotificationFilter {
            on: vec![Occasion::Waiting],
            projects: names(projects),
            machines: names(machines),
            kinds: names(kinds),
        }
    };
    assert!(filter(&[], &[], &[]).matches(&waiting));
    assert!(filter(&["odin", "thor"], &["odin3"], &[]).matches(&waiting));
    assert!(!filter(&["thor"], &[], &[]).matches(&waiting));
    assert!(!filter(&[], &["laptop"], &[]).matches(&waiting));
    assert!(!filter(&[], &[], &["interactive"]).matches(&waiting), "its kind is not known");
    assert!(!NotificationFilter { on: vec![Occasion::Failed], ..filter(&[], &[], &[]) }.matches(&waiting));
    let this = MachineName::parse("odin3").unwrap();
    assert!(filter(&[], &[], &[]).covers_others(&this) && filter(&[], &["laptop"], &[]).covers_others(&this));
    assert!(!filter(&[], &["odin3"], &[]).covers_others(&this));
}

#[test]
fn quiet_hours_may_pass_midnight() {
    let minutes = |minutes: u64| Some(Duration::from_secs(minutes * 60));
    let night = QuietHours { from: 22 * 60, until: 7 * 60 };
    assert_eq!(night.left(22 * 60), minutes(9 * 60));
    assert_eq!(night.left(0), minutes(7 * 60));
    assert_eq!(night.left(7 * 60 - 1), minutes(1));
    assert_eq!(night.left(7 * 60), None);
    assert_eq!(night.left(21 * 60 + 59), None);
    let noon = QuietHours { from: 12 * 60, until: 13 * 60 };
    assert_eq!((noon.left(12 * 60 + 30), noon.left(13 * 60), noon.left(11 * 60)), (minutes(30), None, None));
}
