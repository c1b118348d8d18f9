//! The mirror: the sessions of all other machines, and what others did to this host's own.
//!
//! A mirrored session is a row like any other, with the round of reading in which central last had it.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::sessions::{self, Record};
use super::{Renamed, StoreError, mirror_share, outbox};
use crate::domain::mirror::{Changes, Gone, HostSeen, Reading, Rest};
use crate::domain::session::fresh;
use crate::domain::{HistoryRecord, Kind, Session, Status, Timestamp};

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
    sessions: Vec<Session>,
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

/// Deletes some of what a reading of everything did not meet. Says whether there may be more.
pub(super) fn drop_unseen(db: &Connection) -> Result<bool, StoreError> {
    let dropped = db
        .prepare_cached(
            "DELETE FROM sessions WHERE rowid IN (SELECT rowid FROM sessions s \
                 WHERE mirror_round < (SELECT value FROM facts WHERE name = 'mirror_round') \
                     AND NOT EXISTS (SELECT 1 FROM mirror_seen WHERE instance_id = s.instance_id) LIMIT ?1)",
        )?
        .execute([DELETED_AT_ONCE as i64])?;
    Ok(dropped == DELETED_AT_ONCE)
}

fn bury(db: &Connection, gone: &Gone) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM sessions WHERE instance_id = ?1 AND created_at = ?2 AND mirror_round IS NOT NULL")?
        .execute(params![gone.instance_id, gone.created_at.micros()])?;
    Ok(())
}

fn take(db: &Connection, session: &Session, round: i64, how: &Importing) -> Result<Option<Renamed>, StoreError> {
    if how.whole {
        db.prepare_cached("INSERT OR IGNORE INTO mirror_seen (instance_id) VALUES (?1)")?
            .execute([session.instance_id.as_str()])?;
    }
    match sessions::exactly(db, session.instance_id.as_str())? {
        Some(own) if !own.mirrored && own.session.created_at == session.created_at => {
            merge(db, &own, session, how)?;
            Ok(None)
        }
        Some(own) if !own.mirrored => {
            let renamed = outbox::give_up_id(db, &own.session.instance_id, how.draws.as_slice(), how.at)?;
            sessions::mirror(db, session, round)?;
            Ok(renamed)
        }
        // It may be read any number of times while a transaction in central runs for long.
        Some(known) if known.session == *session => Ok(None),
        _ => {
            sessions::mirror(db, session, round)?;
            Ok(None)
        }
    }
}

/// What others did to a session of this host: closed it, or spoke for it later than anybody here.
fn merge(db: &Connection, own: &Record, central: &Session, taking: &Importing) -> Result<(), StoreError> {
    let id = &own.session.instance_id;
    if own.session.status == Status::Closed {
        // Closed is for good; a central that forgot of it, or was told otherwise, is told again.
        return if central.status == Status::Closed { Ok(()) } else { outbox::offer_again(db, id, taking.at) };
    }
    if central.status == Status::Closed {
        return outbox::closed_elsewhere(db, id, central.closed_at.unwrap_or(taking.at));
    }
    // What central lacks was said here, and acknowledged: it comes first, whatever the clocks say. And a whole
    // reading brings also what this host itself once said.
    let later = own.unsynced_since.is_none()
        && !taking.whole
        && central.last_heartbeat > own.session.last_heartbeat
        && fresh(central.last_heartbeat, taking.at, taking.stale_after);
    if later { sessions::adopt(db, own, central) } else { Ok(()) }
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
    use crate::domain::{InstanceId, InstanceType, MachineName, Project, Registration};
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
            while turn.finishes() && how.whole && drop_unseen(db).unwrap() {}
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

    #[test]
    fn only_what_nobody_here_said_since_is_taken_over() {
        let db = store();
        let here = own(&db, 7, 0);
        let theirs = Session { last_heartbeat: at(50), context_percent: 44, ..here.clone() };
        read(&db, 1, &all(vec![theirs.clone()]));
        assert_eq!(kept(&db, here.instance_id.as_str()).unwrap().session, here, "central lacks what was said here");
        db.execute("UPDATE sessions SET unsynced_since = NULL", []).unwrap();
        read(&db, 0, &all(vec![theirs.clone()]));
        assert_eq!(kept(&db, here.instance_id.as_str()).unwrap().session, here, "a whole reading brings the past");
        read(&db, 1, &all(vec![theirs.clone()]));
        assert_eq!(kept(&db, here.instance_id.as_str()).unwrap().session, theirs);
        let older = Session { last_heartbeat: at(20), context_percent: 1, ..here.clone() };
        read(&db, 1, &all(vec![older]));
        assert_eq!(kept(&db, here.instance_id.as_str()).unwrap().session, theirs, "heartbeats do not move back");
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
