//! The activity history of a session: when it changed what it does, and how full its context was then.
//!
//! It holds changes, not heartbeats. [`next_change`] and [`context_point`] are the only places that decide what is one.

use std::time::Duration;

use super::activity::{Activity, ActivityState, WaitingFor};
use super::text::safe_line;
use super::{Timestamp, activity};

/// So long is a change kept.
pub const KEPT: Duration = Duration::from_secs(7 * 86_400);
/// So many changes of a session are kept, the newest.
pub const MAX_CHANGES: usize = 2_000;
/// The context alone adds a change at most this often.
pub const CONTEXT_INTERVAL: Duration = Duration::from_secs(60);

/// What a session did from a time on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivityChange {
    /// When it happened.
    pub at: Timestamp,
    /// `None`: nothing vouched for an activity from then on, as after the end of its process.
    pub activity: Option<ActivityState>,
    /// Only while waiting.
    pub waiting_for: Option<WaitingFor>,
    /// The tool, the error's kind or the number of background tasks; one line.
    pub detail: Option<String>,
    /// How much of the context window was used then, in percent.
    pub context_percent: u8,
}

impl ActivityChange {
    fn new(at: Timestamp, activity: Option<&Activity>, context_percent: u8) -> Self {
        Self {
            at,
            activity: activity.map(|activity| activity.state),
            waiting_for: activity.and_then(|activity| activity.waiting_for),
            detail: activity.and_then(|activity| activity.detail.clone()),
            context_percent,
        }
    }

    fn is_of(&self, activity: Option<&Activity>) -> bool {
        self.is_of_state(activity) && self.detail.as_ref() == activity.and_then(|activity| activity.detail.as_ref())
    }

    fn is_of_state(&self, activity: Option<&Activity>) -> bool {
        self.activity == activity.map(|activity| activity.state)
            && self.waiting_for == activity.and_then(|activity| activity.waiting_for)
    }

    /// The same with a text from another machine safe to show.
    pub fn with_safe_text(mut self) -> Self {
        self.detail = self.detail.map(|detail| safe_line(detail, activity::MAX_DETAIL));
        self
    }

    /// Its size on the way to central, in bytes, roughly.
    pub fn size(&self) -> usize {
        64 + self.detail.as_ref().map_or(0, String::len)
    }
}

/// The change to record when a session does this at `now`; `None` if the newest change says so already.
pub fn next_change(
    newest: Option<&ActivityChange>,
    activity: Option<&Activity>,
    context_percent: u8,
    now: Timestamp,
) -> Option<ActivityChange> {
    if newest.map_or(activity.is_none(), |newest| newest.is_of(activity)) {
        return None;
    }
    // A detail may change while the activity continues, as the number of background tasks does.
    let continues = newest.is_some_and(|newest| newest.is_of_state(activity));
    let since = activity.filter(|_| !continues).map_or(now, |activity| activity.since);
    let at = match newest {
        Some(newest) if newest.at == since => Timestamp::from_micros(since.micros().saturating_add(1)),
        _ => since,
    };
    Some(ActivityChange::new(at, activity, context_percent))
}

/// The change to record when the context of a session becomes this full at `now`, while it does `activity`.
pub fn context_point(
    newest: Option<&ActivityChange>,
    activity: Option<&Activity>,
    context_percent: u8,
    now: Timestamp,
) -> Option<ActivityChange> {
    let is_due = newest.is_none_or(|newest| {
        // A time in the future says that the clock was set back since.
        let is_late = newest.at > now || now.since(newest.at) >= CONTEXT_INTERVAL;
        is_late && newest.context_percent != context_percent
    });
    is_due.then(|| ActivityChange::new(now, activity, context_percent))
}

/// How long sessions did what in an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HourOfActivity {
    /// The time of each activity, summed over sessions, in the order working, waiting, idle, failed.
    pub spent: [Duration; 4],
}

/// Adds what one session did within the hours that begin at `from`, the last of which may be cut off by `now`. `changes`:
/// its changes in order of time, perhaps from before.
pub fn add_hours(hours: &mut [HourOfActivity], from: Timestamp, changes: &[ActivityChange], now: Timestamp) {
    for (index, change) in changes.iter().enumerate() {
        let Some(state) = change.activity else { continue };
        let end = changes.get(index + 1).map_or(now, |next| next.at).min(now);
        let mut begin = change.at.max(from);
        while begin < end {
            let hour = (begin.since(from).as_secs() / HOUR.as_secs()) as usize;
            let Some(entry) = hours.get_mut(hour) else { break };
            let until = from.plus(HOUR * (hour as u32 + 1)).min(end);
            entry.spent[state as usize] += until.since(begin);
            begin = until;
        }
    }
}

/// One hour.
pub const HOUR: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::activity::ActivitySource;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    fn doing(state: ActivityState, detail: Option<&str>, since: i64) -> Activity {
        let detail = detail.map(str::to_owned);
        Activity { state, waiting_for: None, detail, since: at(since), source: ActivitySource::Hook }
    }

    #[test]
    fn only_what_differs_is_a_change() {
        let working = doing(ActivityState::Working, None, 5);
        assert_eq!(next_change(None, None, 0, at(9)), None, "nothing was known, and nothing is");
        let first = next_change(None, Some(&working), 7, at(9)).unwrap();
        assert_eq!((first.at, first.activity, first.context_percent), (at(5), Some(ActivityState::Working), 7));
        assert_eq!(next_change(Some(&first), Some(&working), 8, at(10)), None);
        let ended = next_change(Some(&first), None, 8, at(11)).unwrap();
        assert_eq!((ended.at, ended.activity), (at(11), None));
        assert_eq!(next_change(Some(&ended), None, 8, at(12)), None);
    }

    #[test]
    fn another_detail_of_the_same_activity_is_a_change_at_the_time_of_its_report() {
        let first = next_change(None, Some(&doing(ActivityState::Working, Some("1"), 5)), 0, at(5)).unwrap();
        let second = next_change(Some(&first), Some(&doing(ActivityState::Working, Some("2"), 5)), 0, at(8)).unwrap();
        assert_eq!((second.at, second.detail.as_deref()), (at(8), Some("2")));
    }

    #[test]
    fn time_is_counted_in_the_hours_in_which_it_was_spent() {
        let change = |second: i64, state| {
            let activity = doing(state, None, second);
            ActivityChange::new(at(second), Some(&activity), 0)
        };
        let changes = [change(-500, ActivityState::Working), change(4_000, ActivityState::Idle)];
        let mut hours = [HourOfActivity::default(); 3];
        add_hours(&mut hours, at(0), &changes, at(5_000));
        let spent = |hour: usize, state: ActivityState| hours[hour].spent[state as usize].as_secs();
        assert_eq!((spent(0, ActivityState::Working), spent(1, ActivityState::Working)), (3_600, 400));
        assert_eq!((spent(1, ActivityState::Idle), spent(2, ActivityState::Idle)), (1_000, 0));
    }

    #[test]
    fn no_two_successive_changes_have_the_same_time() {
        let first = next_change(None, Some(&doing(ActivityState::Working, None, 5)), 0, at(5)).unwrap();
        let second = next_change(Some(&first), Some(&doing(ActivityState::Idle, None, 5)), 0, at(5)).unwrap();
        assert_eq!(second.at.micros(), at(5).micros() + 1);
    }

    #[test]
    fn context_is_recorded_once_a_minute_when_it_changed() {
        let first = context_point(None, None, 10, at(100)).unwrap();
        let due = |percent, second| context_point(Some(&first), None, percent, at(second)).is_some();
        assert!(!due(11, 101) && !due(90, 159) && !due(10, 500));
        assert!(due(11, 160) && due(9, 400));
        assert!(due(11, 50), "the clock was set back");
    }
}
