//! Changes of single columns by several clients.

use super::*;

/// What another client writes into each column.
pub const EDITS: [(SharedColumn, &str); 6] = [
    (SharedColumn::ContextPercent, "77"),
    (SharedColumn::CurrentEpic, "E2"),
    (SharedColumn::ClaudeSessionUuid, "c-9"),
    (SharedColumn::ClaudeSessionPath, "/other.jsonl"),
    (SharedColumn::WorkingDir, "/other"),
    (SharedColumn::ResumedFrom, "odin-PS-00000q"),
];

/// Writes the value that [`EDITS`] has for a column into a session.
pub fn set(session: &mut Session, column: SharedColumn, value: &str) {
    match column {
        SharedColumn::ContextPercent => session.context_percent = value.parse().unwrap(),
        SharedColumn::CurrentEpic => session.current_epic = Some(value.into()),
        SharedColumn::ClaudeSessionUuid => session.claude_session_uuid = Some(value.into()),
        SharedColumn::ClaudeSessionPath => session.claude_session_path = Some(value.into()),
        SharedColumn::WorkingDir => session.working_dir = Some(value.into()),
        SharedColumn::ResumedFrom => session.resumed_from = Some(InstanceId::parse(value).unwrap()),
    }
}

pub fn edited(session: &Session) -> Session {
    let mut edited = session.clone();
    EDITS.iter().for_each(|(column, value)| set(&mut edited, *column, value));
    edited
}

/// A session as it is offered with the change of one column.
pub fn changed(session: &Session, column: SharedColumn, at: Timestamp) -> TimedSession {
    TimedSession { times: [(column, at)].into_iter().collect(), ..TimedSession::untimed(session.clone()) }
}

pub async fn heartbeat_keeps_changes_of_other_clients<W: World>(world: W) {
    let (mut member, mut session) = with_one_session(&world).await;
    for (column, value) in EDITS {
        world.edit(ID, column, value);
        session.last_heartbeat = world.now();
        let heartbeat = TimedSession::untimed(session.clone());
        assert_eq!(member.offer(&[heartbeat]).await, Ok(vec![RowOutcome::Stored]));
    }
    let row = only(&world);
    assert_eq!(row, Session { last_heartbeat: row.last_heartbeat, ..edited(&session) });
}

pub async fn change_of_one_column_keeps_the_others<W: World>(world: W) {
    for (own, _) in EDITS {
        let id = format!("odin-PS-00000{}", own as usize);
        let mut member = Member::join(world.link(), &host("odin3", 1)).await;
        member.batch = own as i64 * 2;
        let mut session = session(&id, "odin3", world.now().minus(HOUR));
        member.push(&session).await;
        EDITS.iter().filter(|(column, _)| *column != own).for_each(|(column, value)| world.edit(&id, *column, value));
        let expected = edited(&session);
        set(&mut session, own, EDITS[own as usize].1);
        session.last_heartbeat = world.now();
        member.offer(&[changed(&session, own, world.now())]).await.unwrap();
        let row = world.rows().into_iter().find(|row| row.instance_id.as_str() == id).unwrap();
        assert_eq!(row, Session { last_heartbeat: row.last_heartbeat, ..expected }, "{own:?}");
    }
}

pub async fn later_change_of_a_column_wins<W: World>(world: W) {
    let (mut member, session) = with_one_session(&world).await;
    for (column, value) in EDITS {
        let mut own = session.clone();
        set(&mut own, column, if column == SharedColumn::ContextPercent { "5" } else { "odin-PS-0000xx" });
        let before = world.now();
        world.edit(ID, column, value);
        own.last_heartbeat = world.now();
        // Pushed later, but changed earlier: it must not come back, at whatever heartbeat.
        member.offer(&[changed(&own, column, before)]).await.unwrap();
        assert!(!column.differs(&only(&world), &edited(&session)), "{column:?}");
        member.offer(&[changed(&own, column, world.now())]).await.unwrap();
        assert!(!column.differs(&only(&world), &own), "{column:?}");
        // Offered once more, as after a lost answer, it does not undo what was changed since.
        let at = world.now();
        world.edit(ID, column, value);
        member.offer(&[changed(&own, column, at)]).await.unwrap();
        assert!(!column.differs(&only(&world), &edited(&session)), "{column:?}");
    }
}

pub async fn column_changed_in_the_future_is_cut<W: World>(world: W) {
    let (mut member, mut session) = with_one_session(&world).await;
    session.current_epic = Some("tomorrow".into());
    session.last_heartbeat = world.now();
    let offered = changed(&session, SharedColumn::CurrentEpic, world.now().plus(HOUR * 24));
    member.offer(std::slice::from_ref(&offered)).await.unwrap();
    assert_eq!(only(&world).current_epic.as_deref(), Some("tomorrow"));
    world.edit(ID, SharedColumn::CurrentEpic, "E2");
    assert_eq!(only(&world).current_epic.as_deref(), Some("E2"));
    session.current_epic = Some("E3".into());
    member.offer(&[changed(&session, SharedColumn::CurrentEpic, world.now())]).await.unwrap();
    assert_eq!(only(&world).current_epic.as_deref(), Some("E3"), "the cut change is not later than everything");
}
