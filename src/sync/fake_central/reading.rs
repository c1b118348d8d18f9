//! The calls of the fake central that read sessions.

use super::*;
use crate::domain::on_demand::{MAX_FOUND, MAX_OF_PROJECT};
use crate::domain::{Hint, MirrorScope};

pub(super) fn pull(state: &mut CentralState, me: &RegisteredHost, reading: &PullQuery) -> ChangePage {
    state.pages.push(reading.clone());
    let (tables, page) = (&state.tables, state.page);
    let oldest_running = tables.held.unwrap_or(tables.transaction + 1);
    if reading.after.is_none() && reading.since > oldest_running {
        return ChangePage { rest: Continuation::Restart, ..ChangePage::default() };
    }
    let next_since = reading.after.as_ref().map_or(oldest_running, |position| position.next_since);
    let (mut part, mut transaction, mut after) = reading.position();
    let mut changes = ChangePage::default();
    if reading.after.is_none() {
        let running = tables.held.into_iter().collect();
        changes.snapshot = Some(Transactions { below: tables.transaction + 1, running });
    }
    let is_read = |at: u64| reading.read.as_ref().is_some_and(|read| read.contain(at));
    if part == PullPart::Deletions {
        let mut gone = deletions(tables, me, &reading.scope, (transaction, after));
        gone.retain(|(at, _)| !is_read(*at));
        gone.truncate(page);
        changes.gone = gone.iter().map(|(_, gone)| gone.clone()).collect();
        if let Some((transaction, gone)) = gone.last().filter(|_| gone.len() == page) {
            return next_page(changes, (part, *transaction, &gone.instance_id), next_since);
        }
        (part, transaction, after) = (PullPart::Sessions, reading.since, "");
    }
    if part == PullPart::Sessions {
        let mut found = sessions(tables, me, reading, (transaction, after));
        found.retain(|(at, _)| reading.is_whole() || !is_read(*at));
        found.truncate(page);
        changes.sessions = found.iter().map(|(_, id)| timed(tables, me, id)).collect();
        add_entered(tables, reading, &mut changes);
        if let Some((transaction, id)) = found.last().filter(|_| found.len() == page) {
            return next_page(changes, (part, *transaction, id), next_since);
        }
        (part, transaction, after) = (PullPart::OutOfScope, reading.since, "");
    }
    if part == PullPart::OutOfScope {
        let mut left = out_of_scope(tables, me, reading, (transaction, after));
        left.retain(|(at, _)| !is_read(*at));
        left.truncate(page);
        let gone = |id: &str| DeletedSession { instance_id: id.into(), created_at: tables.sessions[id].created_at };
        changes.gone.extend(left.iter().map(|(_, id)| gone(id)));
        if let Some((transaction, id)) = left.last().filter(|_| left.len() == page) {
            return next_page(changes, (part, *transaction, id), next_since);
        }
        (part, transaction, after) = (PullPart::Work, reading.since, "");
    }
    if part == PullPart::Work && tables.history.tables.work == TableState::Usable {
        let mut found = changed_work(tables, me, reading, (transaction, after));
        found.retain(|(at, _)| reading.is_whole() || !is_read(*at));
        found.truncate(page);
        changes.work.extend(found.iter().map(|(_, work)| with_changes(tables, work, reading.since)));
        if let Some((transaction, work)) = found.last().filter(|_| found.len() == page) {
            return next_page(changes, (part, *transaction, work.instance_id.as_str()), next_since);
        }
    }
    ChangePage { rest: Continuation::Complete { next_since }, ..changes }
}

/// Adds the work of the sessions of a page that may be new in the scope.
fn add_entered(tables: &Tables, reading: &PullQuery, changes: &mut ChangePage) {
    if reading.is_whole() || reading.scope.is_all() || tables.history.tables.work != TableState::Usable {
        return;
    }
    let entered = changes.sessions.iter().filter(|session| tables.moved.contains(session.instance_id.as_str()));
    let work = entered.filter_map(|session| tables.work.get(session.instance_id.as_str()));
    changes.work.extend(work.map(|work| with_changes(tables, work, 0)));
}

fn with_changes(tables: &Tables, work: &SessionWork, since: u64) -> SessionWork {
    SessionWork { changes: tables.activity.since(&work.instance_id, since), ..work.clone() }
}

fn is_in_scope(tables: &Tables, me: &RegisteredHost, scope: &MirrorScope, id: &str) -> bool {
    tables.sessions.get(id).is_some_and(|session| scope.includes(&session.project)) || is_own(tables, me, id)
}

/// The sessions that changed after a place, are out of scope, and may have been in it.
fn out_of_scope<'a>(
    tables: &'a Tables,
    me: &RegisteredHost,
    reading: &PullQuery,
    place: (u64, &str),
) -> Vec<(u64, &'a str)> {
    if reading.is_whole() || !matches!(reading.scope, MirrorScope::Projects(_)) {
        return Vec::new();
    }
    let changed = tables.changed.iter().map(|(id, last)| (last.transaction, id.as_str()));
    let mut left: Vec<_> = changed.filter(|(at, id)| (*at, *id) > place && *at <= tables.transaction).collect();
    left.retain(|(_, id)| tables.moved.contains(*id) && !is_in_scope(tables, me, &reading.scope, id));
    left.sort_unstable();
    left
}

fn is_own(tables: &Tables, me: &RegisteredHost, id: &str) -> bool {
    let machine = tables.sessions.get(id).map(|session| &session.host_machine);
    machine.is_some_and(|machine| *machine == me.name || me.former_names.contains(machine))
}

fn timed(tables: &Tables, me: &RegisteredHost, id: &str) -> TimedSession {
    let times = tables.times.get(id).filter(|_| is_own(tables, me, id)).copied().unwrap_or_default();
    let vouched_by = tables.changed.get(id).and_then(|last| last.by);
    TimedSession { times, vouched_by, ..TimedSession::untimed(tables.sessions[id].clone()) }
}

fn next_page(changes: ChangePage, (part, transaction, after): (PullPart, u64, &str), next_since: u64) -> ChangePage {
    let position = PullPosition { instance_id: after.to_owned(), ..PullPosition::start(part, transaction, next_since) };
    ChangePage { rest: Continuation::More(position), ..changes }
}

/// The deletions after a place, without sessions that were restored.
fn deletions<'a>(
    tables: &'a Tables,
    me: &RegisteredHost,
    scope: &MirrorScope,
    place: (u64, &str),
) -> Vec<&'a (u64, DeletedSession)> {
    let is_there = |gone: &DeletedSession| {
        let session = tables.sessions.get(&gone.instance_id).filter(|session| session.created_at == gone.created_at);
        session.is_some() && is_in_scope(tables, me, scope, &gone.instance_id)
    };
    let mut gone: Vec<_> = tables.tombstones.iter().collect();
    gone.sort_by_key(|(at, gone)| (*at, gone.instance_id.clone()));
    gone.retain(|(at, gone)| (*at, gone.instance_id.as_str()) > place && *at <= tables.transaction && !is_there(gone));
    gone
}

/// The sessions that changed after a place, or all of them by id.
fn sessions<'a>(
    tables: &'a Tables,
    me: &RegisteredHost,
    reading: &PullQuery,
    place: (u64, &str),
) -> Vec<(u64, &'a str)> {
    if reading.is_whole() {
        let all = tables.sessions.keys().map(|id| (0, id.as_str())).filter(|(_, id)| *id > place.1);
        return all.filter(|(_, id)| is_in_scope(tables, me, &reading.scope, id)).collect();
    }
    let mut changed = tables.changed.iter().map(|(id, last)| (last.transaction, id.as_str(), last)).collect::<Vec<_>>();
    changed.sort_by_key(|(at, id, _)| (*at, *id));
    changed.retain(|(at, id, _)| (*at, *id) > place && *at <= tables.transaction);
    changed.retain(|(_, id, _)| is_in_scope(tables, me, &reading.scope, id));
    changed.retain(|(_, id, last)| {
        let unread = (reading.since..=tables.transaction).contains(&last.others);
        last.by != Some(me.host_id) || !is_own(tables, me, id) || unread
    });
    changed.into_iter().map(|(at, id, _)| (at, id)).collect()
}

/// The work that changed after a place, or all of it by id.
fn changed_work<'a>(
    tables: &'a Tables,
    me: &RegisteredHost,
    reading: &PullQuery,
    place: (u64, &str),
) -> Vec<(u64, &'a SessionWork)> {
    if reading.is_whole() {
        return tables
            .work
            .values()
            .map(|work| (0, work))
            .filter(|(_, work)| work.instance_id.as_str() > place.1)
            .filter(|(_, work)| is_in_scope(tables, me, &reading.scope, work.instance_id.as_str()))
            .collect();
    }
    let of = |(id, (at, by)): (&'a String, &(u64, Option<Uuid>))| {
        let is_read = *by != Some(me.host_id) && (*at, id.as_str()) > place && *at <= tables.transaction;
        (is_read && is_in_scope(tables, me, &reading.scope, id)).then(|| (*at, &tables.work[id]))
    };
    let mut changed: Vec<_> = tables.work_changed.iter().filter_map(of).collect();
    changed.sort_by_key(|(at, work)| (*at, work.instance_id.as_str()));
    changed
}

/// The sessions that a question is about, most recent heartbeat first.
pub(super) fn find(tables: &Tables, question: &Question) -> Found {
    let of = |wanted: &dyn Fn(&Session) -> bool, limit: u32| {
        let mut sessions: Vec<_> = tables.sessions.values().filter(|session| wanted(session)).collect();
        sessions.sort_by_key(|session| (std::cmp::Reverse(session.last_heartbeat), session.instance_id.clone()));
        let more = sessions.len() > limit as usize;
        sessions.truncate(limit as usize);
        found(tables, &sessions, more)
    };
    let is_open = |session: &Session| session.status != Status::Closed;
    match question {
        Question::Id(text) => {
            let exactly = of(&|session| session.instance_id.as_str() == text, MAX_FOUND);
            if exactly.page.sessions.is_empty() {
                return of(&|session| session.instance_id.as_str().starts_with(text.as_str()), MAX_FOUND);
            }
            exactly
        }
        Question::Project { project, closed_since } => {
            let is_recent = |at: Timestamp| closed_since.is_none_or(|since| at >= since);
            of(&|session| session.project == *project && session.closed_at.is_none_or(is_recent), MAX_OF_PROJECT)
        }
        Question::Hint(meanings) => {
            let means = |meaning: &Hint, session: &Session| match meaning {
                Hint::Id(id) => session.instance_id == *id,
                Hint::Hash(part) => {
                    let hash = session.instance_id.as_str().rsplit('-').next();
                    is_open(session) && hash.is_some_and(|hash| hash.contains(part.as_str()))
                }
                Hint::Epic(epic) => is_open(session) && session.current_epic.as_ref() == Some(epic),
                Hint::Project(project) => is_open(session) && session.project == *project,
                Hint::Newest => false,
            };
            let found = meanings.iter().map(|meaning| of(&|session| means(meaning, session), MAX_FOUND));
            found.into_iter().find(|found| !found.page.sessions.is_empty()).unwrap_or_default()
        }
    }
}

fn found(tables: &Tables, sessions: &[&Session], more: bool) -> Found {
    let ids = || sessions.iter().map(|session| session.instance_id.as_str());
    let timed = |session: &&Session| TimedSession {
        vouched_by: tables.changed.get(session.instance_id.as_str()).and_then(|last| last.by),
        ..TimedSession::untimed((*session).clone())
    };
    let mut page = ChangePage { sessions: sessions.iter().map(timed).collect(), ..ChangePage::default() };
    if tables.history.tables.work == TableState::Usable {
        let work = ids().filter_map(|id| tables.work.get(id));
        page.work = work.map(|work| with_changes(tables, work, 0)).collect();
    }
    page.history = ids().flat_map(|id| tables.history.of(id)).map(|row| row.record).collect();
    Found { page, more }
}
