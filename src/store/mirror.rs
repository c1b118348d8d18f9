//! The mirror: the sessions of all other machines, and what others did to this host's own.
//!
//! A mirrored session is a row like any other, with the round of reading in which central last had it.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::sessions::{self, Record};
use super::turns::Budget;
use super::{Renamed, StoreError, mirror_share, outbox};
use crate::domain::mirror::{Changes, Gone, HostSeen, Reading, Rest};
use crate::domain::{HistoryRecord, Kind, Session, Status, TimedSession, Timestamp};

/// How much of a mirrored session's history is kept: as much as reconstructing its context takes.
const KEPT_EVENTS: u32 = 50;
const KEPT_COMMANDS: u32 = 20;
const KEPT_CHECKPOINTS: u32 = 1;

/// Random numbers for new ids, should sessions here have to give theirs up.
pub type Draws = [u64; 64];

/// Notes of which timeline of central this is the mirror; that of another has to be read anew.
pub(super) fn of(db: &Connection, timeline: &str) -> Result<(), StoreError> {
    let known: Option<String> = db
        .prepare_cached("SELECT value FROM facts WHERE name = 'mirror_timeline'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    if known.as_deref() == Some(timeline) {
        return Ok(());
    }
    db.execute(
        "INSERT INTO facts (name, value) VALUES ('mirror_timeline', ?1) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        [timeline],
    )?;
    read_anew(db)
}

/// For so long central remembers which sessions were deleted; less than it really does.
const REMEMBERED: Duration = Duration::from_secs(29 * 86_400);

/// Where the next reading begins; 0: everything is to be read.
pub(super) fn since(db: &Connection, now: Timestamp) -> Result<u64, StoreError> {
    let recent = as_of(db)?.is_some_and(|as_of| now.since(as_of) < REMEMBERED);
    Ok(fact(db, "mirror_since")?.filter(|_| recent).map_or(0, i64::unsigned_abs))
}

/// When the mirror was last known to be true.
pub(super) fn as_of(db: &Connection) -> Result<Option<Timestamp>, StoreError> {
    Ok(fact(db, "mirror_as_of")?.map(Timestamp::from_micros))
}

pub(super) fn set_as_of(db: &Connection, at: Timestamp) -> Result<(), StoreError> {
    set_fact(db, "mirror_as_of", at.micros())
}

/// Central is another, or was restored: everything is read anew.
pub(super) fn read_anew(db: &Connection) -> Result<(), StoreError> {
    set_fact(db, "mirror_since", 0)
}

/// What the import of a page goes by.
pub(super) struct Importing {
    /// Is everything read, not only what changed?
    pub whole: bool,
    pub draws: Box<Draws>,
    pub at: Timestamp,
    pub stale_after: Duration,
}

/// What came of an import.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PageResult {
    /// The sessions of this host that had to give up their ids to somebody else's.
    pub renamed: Vec<Renamed>,
    /// How many rows were written, of any table. Rows that are here as central has them are not.
    pub written: u64,
}

impl PageResult {
    pub(super) fn add(&mut self, other: Self) {
        self.renamed.extend(other.renamed);
        self.written += other.written;
    }
}

/// So many rows are imported in one job of the writer: whoever else writes waits no longer.
const TURN: usize = 250;
/// A session is deleted with its history.
const DELETED_AT_ONCE: usize = 25;
/// How much older than the truth the time on disk may be.
const TIME_WRITTEN_EVERY: Duration = Duration::from_secs(60);

/// A part of a page, small enough for one job of the writer.
#[derive(Default)]
pub(super) struct Turn {
    /// It begins a reading of everything.
    begins: bool,
    gone: Vec<Gone>,
    sessions: Vec<TimedSession>,
    history: Vec<HistoryRecord>,
    /// It ends the reading: where the next one begins.
    next_since: Option<u64>,
}

impl Turn {
    /// The parts of a page, in order: deletions first, the end of the reading last.
    pub fn of(reading: &Reading, changes: Changes) -> Vec<Self> {
        let rows = changes.sessions.len() + changes.gone.len() * (TURN / DELETED_AT_ONCE) + changes.history.len();
        let begins = reading.is_whole() && reading.after.is_none();
        let next_since = match changes.rest {
            Rest::Nothing { next_since } => Some(next_since),
            Rest::More(_) | Rest::Everything => None,
        };
        let Changes { sessions, gone, history, .. } = changes;
        // What a reading of everything did not meet is deleted before its end.
        if rows <= TURN && !(reading.is_whole() && next_since.is_some()) {
            return vec![Self { begins, gone, sessions, history, next_since }];
        }
        let mut turns = vec![Self { begins, ..Self::default() }];
        turns.extend(chunks(gone, DELETED_AT_ONCE).map(|gone| Self { gone, ..Self::default() }));
        turns.extend(chunks(sessions, TURN).map(|sessions| Self { sessions, ..Self::default() }));
        turns.extend(chunks(history, TURN).map(|history| Self { history, ..Self::default() }));
        turns.push(Self { next_since, ..Self::default() });
        turns.retain(|turn| turn.begins || turn.rows() > 0 || turn.finishes());
        turns
    }

    fn rows(&self) -> usize {
        self.gone.len() + self.sessions.len() + self.history.len()
    }

    /// Does it delete sessions?
    pub fn deletes(&self) -> bool {
        !self.gone.is_empty()
    }

    /// Does it end the reading?
    pub fn finishes(&self) -> bool {
        self.next_since.is_some()
    }
}

fn chunks<T>(mut all: Vec<T>, size: usize) -> impl Iterator<Item = Vec<T>> {
    std::iter::from_fn(move || {
        let rest = all.split_off(all.len().min(size));
        let chunk = std::mem::replace(&mut all, rest);
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Imports a part of what changed in central.
pub(super) fn import(db: &Connection, turn: &Turn, how: &Importing) -> Result<PageResult, StoreError> {
    let before = db.total_changes();
    let mut round = fact(db, "mirror_round")?.unwrap_or(0);
    if turn.begins {
        round += 1;
        set_fact(db, "mirror_round", round)?;
        db.execute("DELETE FROM mirror_seen", [])?;
    }
    turn.gone.iter().try_for_each(|gone| bury(db, gone))?;
    let mut imported = PageResult::default();
    for session in &turn.sessions {
        imported.renamed.extend(take(db, session, round, how)?);
    }
    keep_history(db, &turn.history)?;
    if let Some(next_since) = turn.next_since {
        if how.whole {
            db.execute("DELETE FROM mirror_seen", [])?;
        }
        // What made room for this host's own writes is read again once there is room for it.
        let next_since = if mirror_share::can_be_completed(db)? { 0 } else { next_since };
        set_fact(db, "mirror_since", i64::try_from(next_since).unwrap_or(0))?;
        let recent = as_of(db)?.is_some_and(|written| how.at.since(written) < TIME_WRITTEN_EVERY);
        if db.total_changes() > before || !recent {
            set_as_of(db, how.at)?;
        }
    }
    imported.written = db.total_changes() - before;
    Ok(imported)
}

/// Deletes the history of the sessions that this part deletes, one turn of it: a session with long texts lies on many
/// pages. Says whether there is more.
pub(super) fn delete_history(db: &Connection, part: &Turn) -> Result<bool, StoreError> {
    let mut budget = Budget::new();
    for gone in &part.gone {
        let is_here = db
            .prepare_cached(&format!("SELECT EXISTS (SELECT 1 FROM sessions WHERE {IS_GONE})"))?
            .query_row(params![gone.instance_id, gone.created_at.micros()], |row| row.get(0))?;
        if is_here && !budget.delete_records(db, &gone.instance_id)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Condition on a mirrored session that it is the deleted one.
const IS_GONE: &str = "instance_id = ?1 AND created_at = ?2 AND mirror_round IS NOT NULL";

/// How many sessions one turn of [`drop_unseen`] examines.
const EXAMINED: i64 = 500;

/// Deletes sessions that a reading of everything did not meet, of those behind a row; one turn of it. Returns the row
/// behind which the next turn continues, or none at the end of the table.
pub(super) fn drop_unseen(db: &Connection, after_row: i64) -> Result<Option<i64>, StoreError> {
    let examined: Vec<(i64, String, bool)> = db
        .prepare_cached(
            "SELECT rowid, instance_id, coalesce(mirror_round < (SELECT value FROM facts WHERE name = 'mirror_round'), 0) \
                 AND NOT EXISTS (SELECT 1 FROM mirror_seen WHERE instance_id = s.instance_id) \
             FROM sessions s WHERE rowid > ?1 ORDER BY rowid LIMIT ?2",
        )?
        .query_map([after_row, EXAMINED], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    let is_end = examined.len() < EXAMINED as usize;
    let mut delete = db.prepare_cached("DELETE FROM sessions WHERE rowid = ?1")?;
    let (mut budget, mut deleted, mut last) = (Budget::new(), 0, after_row);
    for (row, id, is_unseen) in examined {
        if is_unseen {
            if deleted == DELETED_AT_ONCE || !budget.delete_records(db, &id)? {
                return Ok(Some(last));
            }
            deleted += delete.execute([row])?;
        }
        last = row;
    }
    Ok((!is_end).then_some(last))
}

fn bury(db: &Connection, gone: &Gone) -> Result<(), StoreError> {
    db.prepare_cached(&format!("DELETE FROM sessions WHERE {IS_GONE}"))?
        .execute(params![gone.instance_id, gone.created_at.micros()])?;
    Ok(())
}

fn take(db: &Connection, session: &TimedSession, round: i64, how: &Importing) -> Result<Option<Renamed>, StoreError> {
    if how.whole {
        db.prepare_cached("INSERT OR IGNORE INTO mirror_seen (instance_id) VALUES (?1)")?
            .execute([session.instance_id.as_str()])?;
    }
    match sessions::exactly(db, session.instance_id.as_str())? {
        Some(own) if !own.mirrored && own.session.created_at == session.created_at => {
            merge(db, own, session, how)?;
            Ok(None)
        }
        Some(own) if !own.mirrored => {
            let renamed = outbox::give_up_id(db, &own.session.instance_id, how.draws.as_slice(), how.at)?;
            sessions::mirror(db, session, round)?;
            Ok(renamed)
        }
        // It may be read any number of times while a transaction in central runs for long.
        Some(known) if known.session == session.session => Ok(None),
        _ => {
            sessions::mirror(db, session, round)?;
            Ok(None)
        }
    }
}

/// What others did to a session of this host: closed it, changed columns of it, or sent a later heartbeat.
fn merge(db: &Connection, own: Record, central: &TimedSession, how: &Importing) -> Result<(), StoreError> {
    let id = own.session.instance_id.clone();
    let closed = |session: &Session| session.status == Status::Closed;
    let mut merged = own.clone();
    // Closed is permanent: a central that lost it, or where somebody opened the session again, is offered it again.
    let mut lost = closed(&own.session) && !closed(central);
    lost |= merged.merge_columns(central, how.whole);
    if !closed(&own.session) && !closed(central) && !how.whole {
        merged.merge_heartbeat(central, how.at, how.stale_after);
    }
    if merged != own {
        sessions::adopt(db, &merged)?;
    }
    if closed(central) && !closed(&own.session) {
        outbox::closed_elsewhere(db, &id, central.closed_at.unwrap_or(how.at))?;
    }
    if lost { outbox::offer_again(db, &id, how.at) } else { Ok(()) }
}

/// History of sessions that are not known here is left out: it comes again with them.
fn keep_history(db: &Connection, history: &[HistoryRecord]) -> Result<(), StoreError> {
    let mut insert = db.prepare_cached(
        "INSERT INTO records (record_id, instance_id, kind, type, at, body) \
         SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM sessions WHERE instance_id = ?2) \
         ON CONFLICT (record_id) DO NOTHING",
    )?;
    for of_session in history.chunk_by(|a, b| a.instance_id == b.instance_id) {
        for record in of_session {
            if is_too_old(db, record)? {
                continue;
            }
            insert.execute(params![
                record.record_id.as_bytes().as_slice(),
                record.instance_id.as_str(),
                record.kind.as_str(),
                record.record_type,
                record.at.micros(),
                serde_json::Value::Object(record.body.clone()).to_string(),
            ])?;
        }
        of_session.first().map_or(Ok(()), |record| forget_old(db, record.instance_id.as_str()))?;
    }
    Ok(())
}

/// Are there as many later records of a mirrored session as are kept? Then this one would be forgotten at once.
fn is_too_old(db: &Connection, record: &HistoryRecord) -> Result<bool, StoreError> {
    let kept = match record.kind {
        Kind::Event => KEPT_EVENTS,
        Kind::Command => KEPT_COMMANDS,
        Kind::Checkpoint => KEPT_CHECKPOINTS,
    };
    let oldest_kept: Option<i64> = db
        .prepare_cached(
            "SELECT r.at FROM records r JOIN sessions s USING (instance_id) \
             WHERE r.instance_id = ?1 AND r.kind = ?2 AND s.mirror_round IS NOT NULL \
             ORDER BY r.at DESC LIMIT 1 OFFSET ?3",
        )?
        .query_row(params![record.instance_id.as_str(), record.kind.as_str(), kept - 1], |row| row.get(0))
        .optional()?;
    Ok(oldest_kept.is_some_and(|oldest| record.at.micros() < oldest))
}

fn forget_old(db: &Connection, mirrored: &str) -> Result<(), StoreError> {
    let mut delete = db.prepare_cached(
        "DELETE FROM records WHERE seq IN (SELECT r.seq FROM records r JOIN sessions s USING (instance_id) \
             WHERE r.instance_id = ?1 AND r.kind = ?2 AND s.mirror_round IS NOT NULL \
             ORDER BY r.at DESC, r.seq DESC LIMIT -1 OFFSET ?3)",
    )?;
    for (kind, kept) in [("event", KEPT_EVENTS), ("command", KEPT_COMMANDS), ("checkpoint", KEPT_CHECKPOINTS)] {
        delete.execute(params![mirrored, kind, kept])?;
    }
    Ok(())
}

/// Replaces what is known of the daemons that report to central; writes only what changed.
pub(super) fn replace_hosts(db: &Connection, hosts: &[HostSeen]) -> Result<(), StoreError> {
    let names = serde_json::Value::from_iter(hosts.iter().map(|host| host.machine.as_str())).to_string();
    db.prepare_cached("DELETE FROM hosts WHERE host_machine NOT IN (SELECT value FROM json_each(?1))")?
        .execute([names])?;
    let mut upsert = db.prepare_cached(
        "INSERT INTO hosts (host_machine, last_seen) VALUES (?1, ?2) \
         ON CONFLICT (host_machine) DO UPDATE SET last_seen = excluded.last_seen \
             WHERE hosts.last_seen <> excluded.last_seen",
    )?;
    for host in hosts {
        upsert.execute(params![host.machine.as_str(), host.last_seen.micros()])?;
    }
    Ok(())
}

fn fact(db: &Connection, name: &str) -> Result<Option<i64>, StoreError> {
    Ok(db.prepare_cached("SELECT value FROM facts WHERE name = ?1")?.query_row([name], |row| row.get(0)).optional()?)
}

fn set_fact(db: &Connection, name: &str, value: i64) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO facts (name, value) VALUES (?1, ?2) \
         ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE facts.value <> excluded.value",
    )?
    .execute(params![name, value])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::mirror::{Part, Position};
    use crate::domain::{Column, ColumnTimes, Heartbeat, InstanceId, InstanceType, MachineName, Project, Registration};
    use crate::store::{Caller, sessions::register};

    const STALE_AFTER: Duration = Duration::from_secs(120);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(1_769_774_400_000_000 + seconds * 1_000_000)
    }

    fn store() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        for migration in crate::store::open::MIGRATIONS {
            db.execute_batch(migration).unwrap();
        }
        db
    }

    fn odin(machine: &str) -> Registration {
        Registration {
            project: Project::parse("odin").unwrap(),
            instance_type: InstanceType::Ps,
            host_machine: MachineName::parse(machine).unwrap(),
            context_percent: 3,
            current_epic: None,
            claude_session_uuid: None,
            claude_session_path: None,
            resumed_from: None,
            working_dir: None,
        }
    }

    fn odin4(id: &str, created: i64) -> Session {
        Session::register(InstanceId::parse(id).unwrap(), odin("odin4"), at(created))
    }

    fn own(db: &Connection, draw: u64, created: i64) -> Session {
        register(db, odin("odin3"), None, Caller { uid: 1 }, &[draw], at(created)).unwrap().session
    }

    fn all(sessions: Vec<Session>) -> Changes {
        let sessions = sessions.into_iter().map(TimedSession::untimed).collect();
        Changes { sessions, rest: Rest::Nothing { next_since: 9 }, ..Changes::default() }
    }

    fn read(db: &Connection, since: u64, changes: &Changes) -> Vec<Renamed> {
        import_page(db, &Reading::since(since), changes, 60).renamed
    }

    fn import_page(db: &Connection, reading: &Reading, changes: &Changes, seconds: i64) -> PageResult {
        let draws = Box::new(std::array::from_fn(|n| 101 + n as u64));
        let how = Importing { whole: reading.is_whole(), draws, at: at(seconds), stale_after: STALE_AFTER };
        let mut imported = PageResult::default();
        for turn in Turn::of(reading, changes.clone()) {
            let mut place = (turn.finishes() && how.whole).then_some(i64::MIN);
            while let Some(from) = place {
                place = drop_unseen(db, from).unwrap();
            }
            imported.add(import(db, &turn, &how).unwrap());
        }
        imported
    }

    fn kept(db: &Connection, id: &str) -> Option<Record> {
        sessions::exactly(db, id).unwrap()
    }

    #[test]
    fn a_whole_reading_replaces_the_mirror_and_leaves_this_hosts_sessions() {
        let db = store();
        let here = own(&db, 7, 0);
        read(&db, 0, &all(vec![odin4("odin-PS-00000a", 0), odin4("odin-PS-00000b", 0)]));
        assert_eq!((since(&db, at(61)).unwrap(), as_of(&db).unwrap()), (9, Some(at(60))));

        let page = Reading::since(0);
        let position = Position::start(Part::Sessions, 1, 12);
        let first = Changes { rest: Rest::More(position.clone()), ..all(vec![odin4("odin-PS-00000b", 0)]) };
        import_page(&db, &page, &first, 70);
        assert!(kept(&db, "odin-PS-00000a").is_some(), "in the middle nothing is gone");
        let second = Reading { after: Some(position), ..page };
        import_page(&db, &second, &all(vec![]), 70);
        assert!(kept(&db, "odin-PS-00000a").is_none() && kept(&db, "odin-PS-00000b").is_some());
        assert!(!kept(&db, here.instance_id.as_str()).unwrap().mirrored);
    }

    #[test]
    fn a_mirror_of_long_ago_or_of_another_central_is_read_anew() {
        let db = store();
        of(&db, "a").unwrap();
        read(&db, 0, &all(vec![]));
        of(&db, "a").unwrap();
        assert_eq!(since(&db, at(61)).unwrap(), 9);
        assert_eq!(since(&db, at(30 * 86_400)).unwrap(), 0);
        of(&db, "b").unwrap();
        assert_eq!(since(&db, at(61)).unwrap(), 0);
    }

    #[test]
    fn somebody_elses_session_with_the_same_id_has_this_hosts_renamed() {
        let db = store();
        let here = own(&db, 7, 0);
        let theirs = odin4(here.instance_id.as_str(), 5);
        let renamed = read(&db, 1, &all(vec![theirs.clone()]));
        assert_eq!(renamed.len(), 1);
        assert_eq!(kept(&db, theirs.instance_id.as_str()).unwrap().session, theirs);
        let mine = sessions::get(&db, here.instance_id.as_str()).unwrap().unwrap();
        assert_eq!((mine.session.instance_id, mine.session.created_at), (renamed[0].to.clone(), here.created_at));
    }

    fn timed(session: &Session, changed: &[(Column, i64)]) -> Changes {
        let mut times = ColumnTimes::all(at(0));
        changed.iter().for_each(|(column, second)| times.set(*column, at(*second)));
        Changes { sessions: vec![TimedSession { session: session.clone(), times }], ..all(vec![]) }
    }

    fn say(db: &Connection, id: &str, second: i64, context_percent: Option<u8>, epic: Option<&str>) -> Record {
        let beat = Heartbeat { context_percent, current_epic: epic.map(|epic| Some(epic.to_owned())) };
        sessions::heartbeat(db, id, &beat, Caller { uid: 1 }, at(second), STALE_AFTER).unwrap().0
    }

    fn acknowledge(db: &Connection, record: &Record) {
        let how = outbox::Settlement::Taken;
        let of = outbox::Settled { instance_id: record.session.instance_id.clone(), version: record.version, how };
        outbox::settle(db, &outbox::Settling { sessions: vec![of], ..Default::default() }, at(60)).unwrap();
    }

    #[test]
    fn changes_of_others_are_adopted_while_a_heartbeat_waits() {
        let db = store();
        let here = own(&db, 7, 0);
        let id = here.instance_id.as_str();
        acknowledge(&db, &kept(&db, id).unwrap());
        say(&db, id, 50, None, None);
        let theirs = Session {
            current_epic: Some("E2".into()),
            claude_session_uuid: Some("c-9".into()),
            claude_session_path: Some("/c-9".into()),
            ..here.clone()
        };
        let changed = [(Column::CurrentEpic, 40), (Column::ClaudeSessionUuid, 40), (Column::ClaudeSessionPath, 40)];
        read(&db, 1, &timed(&theirs, &changed));
        let adopted = kept(&db, id).unwrap();
        assert_eq!(adopted.session, Session { last_heartbeat: at(50), ..theirs });
        assert_eq!(adopted.offered_columns(), ColumnTimes::default(), "nothing of it is offered");
        assert!(adopted.unsynced_since.is_some(), "the heartbeat still waits");
    }

    #[test]
    fn of_two_changes_of_one_column_the_later_is_kept() {
        let db = store();
        let here = own(&db, 7, 0);
        let id = here.instance_id.as_str();
        acknowledge(&db, &kept(&db, id).unwrap());
        say(&db, id, 50, Some(9), Some("mine"));
        let theirs = Session { context_percent: 77, current_epic: Some("theirs".into()), ..here.clone() };
        read(&db, 1, &timed(&theirs, &[(Column::ContextPercent, 55), (Column::CurrentEpic, 45)]));
        let merged = kept(&db, id).unwrap();
        assert_eq!((merged.session.context_percent, merged.session.current_epic.as_deref()), (77, Some("mine")));
        let offered: Vec<_> = merged.offered_columns().iter().map(|(column, _)| column).collect();
        assert_eq!(offered, [Column::CurrentEpic]);
    }

    #[test]
    fn a_whole_reading_replaces_columns_by_later_ones_only_and_offers_what_central_lost() {
        let db = store();
        let here = own(&db, 7, 0);
        let id = here.instance_id.as_str();
        let said = say(&db, id, 30, None, Some("mine"));
        acknowledge(&db, &said);
        let past = Session { context_percent: 44, current_epic: Some("past".into()), ..here.clone() };
        read(&db, 0, &timed(&past, &[(Column::CurrentEpic, 20), (Column::ContextPercent, 40)]));
        let merged = kept(&db, id).unwrap();
        assert_eq!((merged.session.context_percent, merged.session.current_epic.as_deref()), (44, Some("mine")));
        let times = merged.offered_columns();
        assert_eq!((times.get(Column::CurrentEpic), times.get(Column::ContextPercent)), (Some(at(30)), Some(at(40))));
    }

    #[test]
    fn an_acknowledgement_leaves_what_was_changed_during_the_push() {
        let db = store();
        let here = own(&db, 7, 0);
        let id = here.instance_id.as_str();
        let pushed = say(&db, id, 10, None, Some("pushed"));
        let during = say(&db, id, 11, Some(5), None);
        let last = say(&db, id, 12, None, None);
        acknowledge(&db, &pushed);
        let record = kept(&db, id).unwrap();
        let offered: Vec<_> = record.offered_columns().iter().collect();
        assert_eq!(offered, [(Column::ContextPercent, at(11))]);
        acknowledge(&db, &during);
        assert_eq!(kept(&db, id).unwrap().offered_columns(), ColumnTimes::default());
        assert!(kept(&db, id).unwrap().unsynced_since.is_some());
        acknowledge(&db, &last);
        assert_eq!(kept(&db, id).unwrap().unsynced_since, None);
    }

    #[test]
    fn a_later_heartbeat_of_others_is_adopted_and_none_moves_back() {
        let db = store();
        let here = own(&db, 7, 0);
        let id = here.instance_id.as_str();
        let heartbeat = |second| timed(&Session { last_heartbeat: at(second), ..here.clone() }, &[]);
        read(&db, 1, &heartbeat(50));
        assert_eq!(kept(&db, id).unwrap().session.last_heartbeat, at(50), "even while something waits");
        read(&db, 1, &heartbeat(20));
        assert_eq!(kept(&db, id).unwrap().session.last_heartbeat, at(50));
        read(&db, 0, &heartbeat(55));
        assert_eq!(kept(&db, id).unwrap().session.last_heartbeat, at(50), "a whole reading brings the past");
    }

    #[test]
    fn a_store_of_an_older_version_offers_whole_what_waits_and_nothing_else() {
        let db = Connection::open_in_memory().unwrap();
        let (before, since) = crate::store::open::MIGRATIONS.split_at(8);
        before.iter().for_each(|migration| db.execute_batch(migration).unwrap());
        let insert = "INSERT INTO sessions (instance_id, project, instance_type, status, context_percent, last_heartbeat, \
             created_at, host_machine, owner_uid, version, unsynced_since) \
             VALUES (?1, 'odin', 'PS', 'active', 3, ?2, 0, 'odin3', 1, 4, ?3)";
        db.execute(insert, params!["odin-PS-00000a", at(5).micros(), Some(1)]).unwrap();
        db.execute(insert, params!["odin-PS-00000b", at(5).micros(), None::<i64>]).unwrap();
        since.iter().for_each(|migration| db.execute_batch(migration).unwrap());
        assert_eq!(kept(&db, "odin-PS-00000a").unwrap().offered_columns(), ColumnTimes::all(at(5)));
        assert_eq!(kept(&db, "odin-PS-00000b").unwrap().offered_columns(), ColumnTimes::default());
        // The next heartbeat writes down since when the columns are as they are, which it does not change.
        say(&db, "odin-PS-00000a", 9, Some(8), None);
        let offered = kept(&db, "odin-PS-00000a").unwrap().offered_columns();
        assert_eq!((offered.get(Column::CurrentEpic), offered.get(Column::ContextPercent)), (Some(at(5)), Some(at(9))));
    }

    #[test]
    fn of_others_history_as_much_is_kept_as_a_context_takes() {
        let db = store();
        read(&db, 1, &all(vec![odin4("odin-PS-00000a", 0)]));
        let record = |n: u128, kind, id: &str| HistoryRecord {
            record_id: uuid::Uuid::from_u128(n),
            instance_id: InstanceId::parse(id).unwrap(),
            kind,
            record_type: "error".into(),
            at: at(i64::try_from(n).unwrap()),
            body: serde_json::Map::new(),
        };
        let mut history: Vec<_> = (0..60).map(|n| record(n, Kind::Event, "odin-PS-00000a")).collect();
        history.extend((60..63).map(|n| record(n, Kind::Checkpoint, "odin-PS-00000a")));
        history.push(record(99, Kind::Event, "odin-PS-0nobod"));
        let changes = Changes { history, ..all(vec![]) };
        read(&db, 1, &changes);
        read(&db, 1, &changes);
        let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(count("SELECT count(*) FROM records WHERE kind = 'event'"), 50);
        assert_eq!(count("SELECT at FROM records WHERE kind = 'event' ORDER BY at LIMIT 1"), at(10).micros());
        assert_eq!(count("SELECT count(*) FROM records WHERE kind = 'checkpoint'"), 1);
    }

    #[test]
    fn rows_that_did_not_change_are_not_written() {
        let db = store();
        let record = |n: u128, seconds| HistoryRecord {
            record_id: uuid::Uuid::from_u128(n),
            instance_id: InstanceId::parse("odin-PS-00000a").unwrap(),
            kind: Kind::Event,
            record_type: "error".into(),
            at: at(seconds),
            body: serde_json::Map::new(),
        };
        // The newest of them bears the oldest time, as another client may write it.
        let history = (0..50).map(|n| record(n, 100 + n as i64)).chain([record(99, 1)]).collect();
        let changes = Changes { history, ..all(vec![odin4("odin-PS-00000a", 0), odin4("odin-PS-00000b", 0)]) };
        assert!(import_page(&db, &Reading::since(1), &changes, 60).written > 0);
        assert_eq!(import_page(&db, &Reading::since(1), &changes, 61).written, 0, "no row, no position, no time");
        assert_eq!(import_page(&db, &Reading::since(1), &changes, 120).written, 1, "the time, once a minute");
    }

    #[test]
    fn a_whole_reading_writes_no_session_that_did_not_change() {
        let db = store();
        let watched = crate::store::Changes::new();
        watched.follow(&db).unwrap();
        let many: Vec<_> = (0..TURN + 10).map(|n| odin4(&format!("odin-PS-{n:06}"), 0)).collect();
        import_page(&db, &Reading::since(0), &all(many.clone()), 60);
        watched.committed();
        assert_eq!(*watched.newest().borrow(), many.len() as u64);
        import_page(&db, &Reading::since(0), &all(many[..TURN].to_vec()), 70);
        watched.committed();
        assert_eq!(*watched.newest().borrow(), many.len() as u64, "nothing to announce");
        assert!(kept(&db, "odin-PS-000255").is_none() && kept(&db, "odin-PS-000249").is_some());
    }
}
