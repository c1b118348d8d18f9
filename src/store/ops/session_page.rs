//! Lists of sessions in pages.
//!
//! A page follows a cursor, the place of the last session of the page before. The order is that of whole lists: by
//! project, most recent heartbeat first. Heartbeats change that order while a client reads page after page, so the
//! cursor also holds the time of the first page: a session with a later heartbeat comes at the end of its project,
//! ordered by its id, which does not change. So every session that exists throughout is on some page, the reading ends,
//! and a session may come twice only if its heartbeat changed in between.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rusqlite::params;

use crate::domain::{InstanceId, Invalid, Project, Status, Timestamp};
use crate::store::error::StoreError;
use crate::store::op::Op;
use crate::store::ops::conflicts;
use crate::store::ops::lookup::{Counts, Filter};
use crate::store::tables::columns::{OURS, columns};
use crate::store::tables::session_record::Record;
use crate::store::tables::{session_work, sessions};

/// A place between two pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// When the first page was read.
    began: Timestamp,
    last: Place,
}

/// Where a session stands in the order of the pages.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    project: String,
    /// Its heartbeat is later than the first page.
    has_moved: bool,
    last_heartbeat: i64,
    instance_id: String,
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_heartbeat = || match self.has_moved {
            true => Ordering::Equal,
            false => other.last_heartbeat.cmp(&self.last_heartbeat),
        };
        self.project
            .cmp(&other.project)
            .then_with(|| self.has_moved.cmp(&other.has_moved))
            .then_with(by_heartbeat)
            .then_with(|| self.instance_id.cmp(&other.instance_id))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Stands between the parts of a cursor; none of them can contain it.
const BETWEEN: char = '~';

impl Cursor {
    /// Reads what [`Cursor::to_text`] wrote.
    ///
    /// # Errors
    /// It is no cursor.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let read = || {
            let mut parts = text.split(BETWEEN);
            let mut part = || parts.next();
            let began = Timestamp::from_micros(part()?.parse().ok()?);
            let project = Project::parse(part()?).ok()?.to_string();
            let has_moved = match part()? {
                "0" => false,
                "1" => true,
                _ => return None,
            };
            let last_heartbeat = part()?.parse().ok()?;
            let instance_id = InstanceId::parse(part()?).ok()?.to_string();
            parts
                .next()
                .is_none()
                .then_some(Self { began, last: Place { project, has_moved, last_heartbeat, instance_id } })
        };
        read().ok_or_else(|| Invalid::new("after", "it must be the `next` of the page before, as it is"))
    }

    /// The cursor for the client, which passes it back as it is.
    pub fn to_text(&self) -> String {
        let Place { project, has_moved, last_heartbeat, instance_id } = &self.last;
        let moved = u8::from(*has_moved);
        [
            self.began.micros().to_string(),
            project.clone(),
            moved.to_string(),
            last_heartbeat.to_string(),
            instance_id.clone(),
        ]
        .join(&BETWEEN.to_string())
    }
}

/// A page, and how many sessions there are on all pages.
#[derive(Clone, Debug)]
pub struct SessionPage {
    pub(crate) records: Vec<Record>,
    pub(crate) counts: Counts,
    /// Where the next page begins, if there is one.
    pub next: Option<Cursor>,
}

columns! {
    /// What orders and counts a session.
    Column of "" {
        Row = "rowid",
        Project = "project",
        LastHeartbeat = "last_heartbeat",
        InstanceId = "instance_id",
        Status = "status",
    }
    "(SELECT max(last_seen) FROM hosts WHERE hosts.host_id = vouched_by)"
    "iif(?5, (SELECT summary FROM session_work w WHERE w.instance_id = sessions.instance_id), NULL)"
}

/// When the host that vouches for the session last contacted central.
const ALIVE_AS_OF: usize = Column::ALL.len();
/// What is selected behind it, where the activity is asked for.
const SUMMARY: usize = ALIVE_AS_OF + 1;

/// Reads at most `limit` sessions after the cursor. Of the others only what orders and counts them is read.
pub(in crate::store) fn read(
    op: &Op<'_>,
    filter: &Filter,
    limit: usize,
    after: Option<Cursor>,
) -> Result<SessionPage, StoreError> {
    let began = after.as_ref().map_or(op.now, |cursor| cursor.began);
    let mut counts = Counts::default();
    // The first of those behind the cursor, and one that tells whether there is another page; the last one is on top.
    let mut behind = BinaryHeap::new();
    let mut statement = op.db.prepare_cached(&format!(
        "SELECT {} FROM sessions \
             WHERE (?1 IS NULL AND read_at IS NULL OR project = ?1) AND (?2 IS NULL OR host_machine = ?2) \
                 AND (NOT ?3 OR {OURS}) AND (closed_at IS NULL OR ?4 IS NULL OR closed_at >= ?4)",
        Column::LIST
    ))?;
    let mut rows = statement.query(params![
        filter.project.as_ref().map(Project::as_str),
        filter.machine.as_ref().map(|machine| machine.as_str()),
        filter.local,
        filter.closed_since.map(Timestamp::micros),
        filter.activity.is_some(),
    ])?;
    while let Some(row) = rows.next()? {
        let last_heartbeat: i64 = row.get(Column::LastHeartbeat.at())?;
        let recorded = sessions::parsed(row, Column::Status.at(), Status::parse)?;
        let status = op.status(
            recorded,
            Timestamp::from_micros(last_heartbeat),
            row.get::<_, Option<i64>>(ALIVE_AS_OF)?.map(Timestamp::from_micros),
        );
        let summary: Option<String> = row.get(SUMMARY)?;
        let summary = summary.as_deref().and_then(session_work::read_summary);
        if !filter.fits_state(status, summary.as_deref()) {
            continue;
        }
        counts.add(status);
        let has_moved = last_heartbeat > began.micros();
        let place = Place {
            project: row.get(Column::Project.at())?,
            has_moved,
            last_heartbeat,
            instance_id: row.get(Column::InstanceId.at())?,
        };
        if after.as_ref().is_none_or(|cursor| place > cursor.last) {
            behind.push((place, row.get::<_, i64>(Column::Row.at())?));
            if behind.len() > limit + 1 {
                behind.pop();
            }
        }
    }
    let mut behind = behind.into_sorted_vec();
    let is_last = behind.len() <= limit;
    behind.truncate(limit);
    let next = behind.last().filter(|_| !is_last).map(|(place, _)| Cursor { began, last: place.clone() });
    let rows: Vec<_> = behind.iter().map(|(_, row)| (0, *row)).collect();
    let mut records: Vec<_> = sessions::in_rows(op.db, &rows)?.into_iter().map(|(_, record)| record).collect();
    for record in &mut records {
        record.conflicts = conflicts::of(op, record)?;
    }
    Ok(SessionPage { records, counts, next })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(project: &str, has_moved: bool, last_heartbeat: i64, id: &str) -> Place {
        Place { project: project.into(), has_moved, last_heartbeat, instance_id: id.into() }
    }

    #[test]
    fn sessions_that_moved_come_last_in_their_project_by_id() {
        let mut places = [
            place("b", false, 9, "b-PS-aaaaaa"),
            place("a", true, 99, "a-PS-bbbbbb"),
            place("a", true, 100, "a-PS-aaaaaa"),
            place("a", false, 5, "a-PS-dddddd"),
            place("a", false, 7, "a-PS-eeeeee"),
            place("a", false, 5, "a-PS-cccccc"),
        ];
        places.sort();
        let ids: Vec<_> = places.iter().map(|place| place.instance_id.as_str()).collect();
        assert_eq!(ids, ["a-PS-eeeeee", "a-PS-cccccc", "a-PS-dddddd", "a-PS-aaaaaa", "a-PS-bbbbbb", "b-PS-aaaaaa"]);
    }

    #[test]
    fn a_cursor_round_trips_and_other_text_is_rejected() {
        let cursor = Cursor { began: Timestamp::from_micros(17), last: place("my-app", true, -3, "my-app-PS-8f4a2b") };
        assert_eq!(Cursor::parse(&cursor.to_text()), Ok(cursor));
        for text in ["", "x", "1~p~2~3~p-PS-aaaaaa", "1~p~0~3~p-PS-aaaaaa~", "1~P~0~3~p-PS-aaaaaa", "1~p~0~3~'; DROP"] {
            assert_eq!(Cursor::parse(text).unwrap_err().field, "after", "{text}");
        }
    }
}
