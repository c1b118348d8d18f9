//! The columns of a session that its host and other clients of central may both change.
//!
//! Each is merged by itself: the later change wins. So every change has a time: the host records when it made one, central
//! records when another client did. A heartbeat changes none of these columns; it is merged by its own time. Status and
//! `closed_at` follow the heartbeat and the rule that closed is permanent.
//!
//! To merge a new column of supervisor_sessions this way, add it to the list below.

use std::collections::BTreeMap;
use std::ops::Deref;

use uuid::Uuid;

use super::{Session, SessionWork, Timestamp};

macro_rules! shared_columns {
    ($($column:ident: $field:ident,)*) => {
        /// The columns, in the order in which stores keep their times.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum SharedColumn {
            $(
                #[doc = concat!("`", stringify!($field), "`")]
                $column,
            )*
        }

        impl SharedColumn {
            pub(crate) const ALL: &[Self] = &[$(Self::$column,)*];

            /// Its name in supervisor_sessions.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$column => stringify!($field),)*
                }
            }

            /// Whether the two sessions have other values in this column.
            pub fn differs(self, a: &Session, b: &Session) -> bool {
                match self {
                    $(Self::$column => a.$field != b.$field,)*
                }
            }

            pub(crate) fn copy(self, from: &Session, to: &mut Session) {
                match self {
                    $(Self::$column => to.$field.clone_from(&from.$field),)*
                }
            }
        }
    };
}

// Stores depend on the order: add new columns at the end.
shared_columns! {
    ContextPercent: context_percent,
    CurrentEpic: current_epic,
    ClaudeSessionUuid: claude_session_uuid,
    ClaudeSessionPath: claude_session_path,
    WorkingDir: working_dir,
    ResumedFrom: resumed_from,
}

/// The number of columns.
pub const COLUMNS: usize = SharedColumn::ALL.len();

/// When columns were changed last. Central keeps them as JSON: microseconds since 1970 by name, and under `other` the time
/// that counts for each column that is not named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ColumnTimes([Option<Timestamp>; COLUMNS]);

impl ColumnTimes {
    /// All columns, changed at one time.
    pub const fn all(at: Timestamp) -> Self {
        Self([Some(at); COLUMNS])
    }

    /// When this column was changed last; `None` if that is not known.
    pub fn get(&self, column: SharedColumn) -> Option<Timestamp> {
        self.0[column as usize]
    }

    pub(crate) fn set(&mut self, column: SharedColumn, at: Timestamp) {
        self.0[column as usize] = Some(at);
    }

    /// The columns whose times are known.
    pub fn iter(&self) -> impl Iterator<Item = (SharedColumn, Timestamp)> + '_ {
        SharedColumn::ALL.iter().filter_map(|column| Some((*column, self.get(*column)?)))
    }

    pub(crate) fn newest(&self) -> Option<Timestamp> {
        self.iter().map(|(_, at)| at).max()
    }

    pub(crate) fn to_json(self) -> String {
        let named: BTreeMap<_, _> = self.iter().map(|(column, at)| (column.name(), at.micros())).collect();
        serde_json::to_string(&named).unwrap_or_else(|_| "{}".to_owned())
    }

    /// Reads what `ColumnTimes::to_json` or central wrote. What cannot be parsed counts as unknown.
    pub fn from_json(json: &str) -> Self {
        let named: BTreeMap<String, i64> = serde_json::from_str(json).unwrap_or_default();
        let mut times = Self::default();
        for column in SharedColumn::ALL {
            let at = named.get(column.name()).or_else(|| named.get("other"));
            times.0[*column as usize] = at.copied().map(Timestamp::from_micros);
        }
        times
    }
}

impl FromIterator<(SharedColumn, Timestamp)> for ColumnTimes {
    fn from_iter<I: IntoIterator<Item = (SharedColumn, Timestamp)>>(times: I) -> Self {
        let mut all = Self::default();
        times.into_iter().for_each(|(column, at)| all.set(column, at));
        all
    }
}

/// A session and when its columns were changed. In a push only columns with a time are merged; the others are written only
/// if central has no row of the session.
#[derive(Clone, Debug, PartialEq)]
pub struct TimedSession {
    /// The session.
    pub session: Session,
    /// When its columns were changed.
    pub times: ColumnTimes,
    /// What central lacks of its work. Never read from central with the session.
    pub work: Option<Box<SessionWork>>,
    /// The host whose daemon wrote it last in central, and which therefore vouches for it; none if another client did, and
    /// for what is pushed.
    pub vouched_by: Option<Uuid>,
}

impl TimedSession {
    /// A session whose column times are all unknown.
    pub fn untimed(session: Session) -> Self {
        Self { session, times: ColumnTimes::default(), work: None, vouched_by: None }
    }
}

impl Deref for TimedSession {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_json_and_unnamed_columns_have_the_common_time() {
        let at = Timestamp::from_micros;
        let times: ColumnTimes =
            [(SharedColumn::CurrentEpic, at(7)), (SharedColumn::WorkingDir, at(-1))].into_iter().collect();
        assert_eq!(ColumnTimes::from_json(&times.to_json()), times);
        assert_eq!(ColumnTimes::from_json(&ColumnTimes::default().to_json()), ColumnTimes::default());
        let read = ColumnTimes::from_json(r#"{"other": 3, "current_epic": 9, "a column of tomorrow": 5}"#);
        assert_eq!(
            (read.get(SharedColumn::CurrentEpic), read.get(SharedColumn::ContextPercent)),
            (Some(at(9)), Some(at(3)))
        );
        assert_eq!(ColumnTimes::from_json("[]"), ColumnTimes::default());
    }
}
