//! Reads the newest records of sessions, in pages that are bounded by their bytes.
//!
//! The sizes of the records are read first, so that neither side ever holds more than a page of them. If the
//! records of a session do not fit, the next page continues, newest records first.

use serde_json::Value;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::page::{skip, timestamp, value};
use super::{bind_position, has_projects};
use crate::domain::history::safe_body;
use crate::domain::mirror::{ChangePage, PageSize, PartialHistory, PullPart, PullPosition, PullQuery};
use crate::domain::text::safe_line;
use crate::domain::{HistoryRecord, InstanceId, RecordKind};
use crate::sync::central::CentralError;
use crate::sync::postgres::link::{Link, column};
use crate::sync::postgres::registered_host::RegisteredHost;
use crate::sync::postgres::sql;

/// The longest type of a record, in characters.
const RECORD_TYPE: usize = 64;

/// A page whose sessions have so few records is followed by one that looks up more sessions.
const FEW_RECORDS: usize = 500;

/// The statements of each kind: its records, and their sizes.
const KINDS: [(RecordKind, &str, &str); 3] = [
    (RecordKind::Event, sql::READ_EVENTS, sql::EVENT_SIZES),
    (RecordKind::Command, sql::READ_COMMANDS, sql::COMMAND_SIZES),
    (RecordKind::Checkpoint, sql::READ_CHECKPOINTS, sql::CHECKPOINT_SIZES),
];

/// Reads a page of history. If the page already holds something, slow queries are left to the next.
pub(super) async fn read(
    link: &mut Link,
    host: &RegisteredHost,
    reading: &PullQuery,
    position: &PullPosition,
    changes: &mut ChangePage,
) -> Result<Option<PullPosition>, CentralError> {
    let limit = position.histories.unwrap_or(reading.page.histories()).clamp(1, reading.page.rows);
    let keys = keys(link, host, reading, position, limit).await?;
    if keys.is_empty() {
        return Ok(None);
    }
    if !changes.is_empty() {
        return Ok(Some(position.clone()));
    }
    let plan = records_of(link, &keys, position, reading.page.bytes, changes).await?;
    let complete = plan.partly.is_none() && keys.len() < limit as usize;
    Ok((!complete).then(|| plan.next(position, reading.page)))
}

/// Reads the newest records of these sessions, of as many of them as fit into so many bytes, in this order.
pub(in crate::sync::postgres) async fn of_sessions(
    link: &mut Link,
    ids: &[String],
    bytes: u32,
    changes: &mut ChangePage,
) -> Result<(), CentralError> {
    let keys: Vec<_> = ids.iter().map(|id| (id.clone(), 0)).collect();
    let start = PullPosition::start(PullPart::History, 0, 0);
    records_of(link, &keys, &start, bytes, changes).await.map(drop)
}

/// Reads the records of these sessions behind a position, up to the limit of bytes.
async fn records_of(
    link: &mut Link,
    keys: &[(String, u64)],
    position: &PullPosition,
    bytes: u32,
    changes: &mut ChangePage,
) -> Result<PagePlan, CentralError> {
    let wanted: Vec<&str> = keys.iter().map(|(id, _)| id.as_str()).collect();
    let tables = tables(link).await?;
    let sizes = sizes(link, tables, &wanted).await?;
    let plan = PagePlan::of(keys, &sizes, position, bytes);
    for (index, (kind, sql, _)) in KINDS.into_iter().enumerate() {
        if tables[index] {
            records(link, kind, sql, &plan.spans(index), changes).await?;
        }
    }
    changes.history.sort_by(|a, b| (&a.instance_id, a.at).cmp(&(&b.instance_id, b.at)));
    Ok(plan)
}

/// Skips the history of the one session of a page.
pub(super) async fn skip_one(
    link: &mut Link,
    host: &RegisteredHost,
    reading: &PullQuery,
    position: &PullPosition,
    changes: &mut ChangePage,
) -> Result<Option<PullPosition>, CentralError> {
    let Some((instance_id, transaction)) = keys(link, host, reading, position, 1).await?.into_iter().next() else {
        return Ok(None);
    };
    skip("the history of a session", &instance_id, &mut changes.unreadable);
    Ok(Some(PullPosition { partly: None, ..position.behind((instance_id, transaction)) }))
}

/// The next sessions with new records, each with the transaction that added them.
async fn keys(
    link: &mut Link,
    host: &RegisteredHost,
    reading: &PullQuery,
    position: &PullPosition,
    limit: u32,
) -> Result<Vec<(String, u64)>, CentralError> {
    let query = if reading.is_whole() {
        let query = sqlx::query(sql::RECENT_HISTORIES).bind(&position.instance_id).bind(i64::from(limit));
        query.bind(reading.scope.projects()).bind(host.names())
    } else {
        let sql = if has_projects(reading) { sql::ENTERED_HISTORIES } else { sql::CHANGED_HISTORIES };
        bind_position(sqlx::query(sql), host, reading, position, limit)
    };
    let rows = link.rows(query).await?;
    rows.iter().map(|row| Ok((column(row, 0)?, column::<i64>(row, 1)?.unsigned_abs()))).collect()
}

async fn tables(link: &mut Link) -> Result<[bool; 3], CentralError> {
    match link.rows(sqlx::query(sql::READABLE_HISTORY_TABLES)).await?.first() {
        Some(row) => Ok([column(row, 0)?, column(row, 1)?, column(row, 2)?]),
        None => Ok([false; 3]),
    }
}

/// The size of a record, with the place of its session and of its kind.
struct Size {
    session: usize,
    kind: usize,
    bytes: u64,
}

/// The sizes of the records of these sessions, in order of session and kind, newest first.
async fn sizes(link: &mut Link, tables: [bool; 3], wanted: &[&str]) -> Result<Vec<Size>, CentralError> {
    let parts: Vec<_> = KINDS.iter().zip(tables).filter(|(_, there)| *there).map(|((.., sizes), _)| *sizes).collect();
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    // All three at once would fail if one table is absent.
    let sql = parts.join(" UNION ALL ") + " ORDER BY 1, 2, 3";
    let rows = link.rows(sqlx::query(AssertSqlSafe(sql)).bind(wanted)).await?;
    let size = |row| {
        let session = usize::try_from(column::<i64>(row, 0)? - 1).unwrap_or(0);
        let kind = usize::try_from(column::<i32>(row, 1)?).unwrap_or(0);
        Ok(Size { session, kind, bytes: column::<i64>(row, 3)?.unsigned_abs() })
    };
    rows.iter().map(size).collect()
}

/// Which records of which sessions go into a page.
struct PagePlan {
    spans: Vec<Spans>,
    /// The last session whose records are all in the page.
    last: Option<(String, u64)>,
    /// The session whose records are partly in the page.
    partly: Option<PartialHistory>,
    /// How many sessions are complete in the page.
    whole: u32,
    /// How many records the sessions have that were looked up.
    records: usize,
}

/// The records of one session: how many of each kind are skipped, and how many are read.
struct Spans {
    instance_id: String,
    skipped: [u32; 3],
    taken: [u32; 3],
}

impl PagePlan {
    /// Fills a page with records, at least with one.
    fn of(keys: &[(String, u64)], sizes: &[Size], position: &PullPosition, limit: u32) -> Self {
        let mut plan = Self { spans: Vec::new(), last: None, partly: None, whole: 0, records: sizes.len() };
        let mut bytes = 0;
        for (session, (instance_id, transaction)) in keys.iter().enumerate() {
            let read_before = position.partly.as_ref().filter(|partly| partly.instance_id == *instance_id);
            let skipped = read_before.map_or([0; 3], |partly| partly.read);
            let mut spans = Spans { instance_id: instance_id.clone(), skipped, taken: [0; 3] };
            let mut seen = [0; 3];
            let mut fits = true;
            for size in sizes.iter().filter(|size| size.session == session) {
                seen[size.kind] += 1;
                if seen[size.kind] <= skipped[size.kind] {
                    continue;
                }
                fits = bytes == 0 || bytes + size.bytes <= u64::from(limit);
                if !fits {
                    break;
                }
                bytes += size.bytes;
                spans.taken[size.kind] += 1;
            }
            if !fits {
                let read = std::array::from_fn(|kind| skipped[kind] + spans.taken[kind]);
                plan.partly = Some(PartialHistory { instance_id: instance_id.clone(), read });
                plan.spans.push(spans);
                break;
            }
            plan.spans.push(spans);
            plan.last = Some((instance_id.clone(), *transaction));
            plan.whole += 1;
        }
        plan
    }

    fn spans(&self, kind: usize) -> Vec<(&str, i64, i64)> {
        let spans = self.spans.iter().filter(|spans| spans.taken[kind] > 0);
        spans.map(|s| (s.instance_id.as_str(), i64::from(s.skipped[kind]), i64::from(s.taken[kind]))).collect()
    }

    /// Where the next page begins. It looks up about as many sessions as fit into this one, and more only where sessions have
    /// hardly any records: most of tens of thousands of sessions may have none.
    fn next(self, position: &PullPosition, page: PageSize) -> PullPosition {
        let is_sparse = self.records <= FEW_RECORDS;
        let most = if is_sparse { page.rows } else { page.histories() };
        let (instance_id, transaction) =
            self.last.unwrap_or_else(|| (position.instance_id.clone(), position.transaction));
        let histories = Some((self.whole * 2).clamp(1, most));
        PullPosition { transaction, instance_id, partly: self.partly, histories, ..position.clone() }
    }
}

async fn records(
    link: &mut Link,
    kind: RecordKind,
    sql: &'static str,
    spans: &[(&str, i64, i64)],
    changes: &mut ChangePage,
) -> Result<(), CentralError> {
    if spans.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = spans.iter().map(|(id, ..)| *id).collect();
    let skipped: Vec<_> = spans.iter().map(|(_, skipped, _)| *skipped).collect();
    let taken: Vec<_> = spans.iter().map(|(.., taken)| *taken).collect();
    let rows = link.rows(sqlx::query(sql).bind(ids).bind(skipped).bind(taken)).await?;
    for row in rows.iter().rev() {
        match record(row, kind) {
            Ok(record) => changes.history.push(record),
            Err(why) => skip("a record", &why, &mut changes.unreadable),
        }
    }
    Ok(())
}

fn record(row: &PgRow, kind: RecordKind) -> Result<HistoryRecord, String> {
    let instance_id = InstanceId::parse(&value::<String>(row, 0)?).map_err(|error| error.to_string())?;
    let record_id = Uuid::parse_str(&value::<String>(row, 1)?).map_err(|error| error.to_string())?;
    let body = match serde_json::from_str(&value::<String>(row, 4)?) {
        Ok(Value::Object(body)) => safe_body(body),
        Ok(_) => return Err("its body is no object".into()),
        Err(error) => return Err(error.to_string()),
    };
    Ok(HistoryRecord {
        record_id,
        instance_id,
        kind,
        record_type: safe_line(value(row, 2)?, RECORD_TYPE),
        at: timestamp(row, 3)?,
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(ids: &[&str]) -> Vec<(String, u64)> {
        ids.iter().map(|id| ((*id).to_owned(), 7)).collect()
    }

    fn size(session: usize, kind: usize, bytes: u64) -> Size {
        Size { session, kind, bytes }
    }

    #[test]
    fn page_is_bounded_by_bytes_and_the_next_one_continues() {
        let start = PullPosition::start(PullPart::History, 5, 9);
        let sizes = [size(0, 0, 60), size(0, 0, 30), size(1, 0, 20), size(1, 2, 500)];
        let first = PagePlan::of(&keys(&["a", "b"]), &sizes, &start, 120);
        assert_eq!(first.spans(0), [("a", 0, 2), ("b", 0, 1)]);
        assert_eq!(first.spans(2), []);
        let next = first.next(&start, PageSize::LARGEST);
        assert_eq!((next.instance_id.as_str(), next.histories), ("a", Some(2)));
        assert_eq!(next.partly, Some(PartialHistory { instance_id: "b".into(), read: [1, 0, 0] }));

        let rest = [size(0, 0, 20), size(0, 2, 500)];
        let second = PagePlan::of(&keys(&["b"]), &rest, &next, 120);
        assert_eq!((second.spans(0), second.spans(2)), (vec![], vec![("b", 0, 1)]), "one record, however large");
        assert!(second.partly.is_none());
        assert_eq!(second.next(&next, PageSize::LARGEST).instance_id, "b");
    }

    #[test]
    fn sessions_without_records_are_looked_up_in_pages_that_double() {
        let all: Vec<_> = (0..1000).map(|number| (format!("{number:04}"), 7)).collect();
        let position = PullPosition::start(PullPart::History, 5, 9);
        let next = |count: usize, sizes: &[Size]| {
            let plan = PagePlan::of(&all[..count], sizes, &position, 1 << 20);
            plan.next(&position, PageSize::LARGEST).histories
        };
        assert_eq!([next(50, &[]), next(100, &[]), next(800, &[])], [Some(100), Some(200), Some(1000)]);
        let many: Vec<_> = (0..400).flat_map(|session| [size(session, 0, 10), size(session, 1, 10)]).collect();
        assert_eq!(next(400, &many), Some(50), "as many as a page of sessions with full histories has");
    }

    #[test]
    fn records_read_of_one_session_are_not_skipped_in_another() {
        let partly = Some(PartialHistory { instance_id: "b".into(), read: [1, 0, 0] });
        let position = PullPosition { partly, ..PullPosition::start(PullPart::History, 5, 9) };
        let plan = PagePlan::of(&keys(&["a"]), &[size(0, 0, 20)], &position, 120);
        assert_eq!(plan.spans(0), [("a", 0, 1)]);
    }
}
