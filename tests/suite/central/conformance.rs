//! The conformance suite that every implementation of central must pass.

use std::time::Duration;

use sessiond::domain::mirror::{ChangePage, Continuation, PageSize, PullQuery};
use sessiond::domain::{
    ColumnTimes, InstanceId, InstanceType, MachineName, Project, Session, SharedColumn, Status, TimedSession, Timestamp,
};
use sessiond::sync::central::{Batch, Central, CentralError, HostRegistration, RowOutcome, SweepResult};
use uuid::Uuid;

pub const STALE_AFTER: Duration = Duration::from_secs(120);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Something that ends when it is dropped.
pub trait Lock {}

impl<T> Lock for T {}

/// A central and the world around it.
pub trait World {
    type Central: Central;

    /// A link for one host.
    fn link(&self) -> Self::Central;
    /// Central's clock.
    fn now(&self) -> Timestamp;
    /// All sessions in central, by id.
    fn rows(&self) -> Vec<Session>;
    /// Writes a row as another client would.
    fn put(&self, session: &Session);
    /// Changes one column as another client would; those of the agent's context stamp the heartbeat, too.
    fn edit(&self, id: &str, column: SharedColumn, value: &str);
    /// Deletes a row as another client would.
    fn delete(&self, id: &str);
    /// As if no daemon had spoken to central, and no sweep been made, for this long.
    fn silence(&self, by: Duration);
    fn last_seen(&self, host: Uuid) -> Timestamp;
    /// Something in central refuses this very id.
    fn reject(&self, id: &str);
    /// Another transaction locks a row, until what this returns is dropped.
    fn lock_row<'a>(&'a self, id: &str) -> Box<dyn Lock + 'a>;
}

/// Runs every case, each in a world of its own.
pub async fn all<W: World>(fresh: impl Fn() -> W) {
    macro_rules! cases {
        ($($case:ident),* $(,)?) => {$(
            eprintln!("case {}", stringify!($case));
            $case(fresh()).await;
        )*};
    }
    cases!(
        inserts_and_updates,
        an_older_heartbeat_changes_nothing,
        a_heartbeat_from_the_future_is_cut,
        a_heartbeat_in_centrals_future_is_replaced,
        stale_and_active_follow_the_newer_heartbeat,
        closed_stays_closed,
        closing_is_never_late,
        another_session_keeps_its_id,
        another_machines_row_is_left_alone,
        a_renamed_host_keeps_its_rows,
        a_batch_takes_effect_once,
        a_lost_answer_is_found_in_the_ledger,
        an_empty_batch_says_that_the_host_lives,
        one_bad_row_rolls_the_batch_back,
        a_locked_row_is_found_and_the_others_go,
        central_tells_its_clock_with_each_push,
        two_hosts_under_one_name,
        a_copied_state_folder,
        a_restored_ledger_with_a_forgotten_claim_is_no_copy,
        a_replaced_host_may_not_write,
        a_replaced_host_that_is_renamed_keeps_its_rows,
        vanished_hosts_are_swept,
        living_hosts_are_not_swept,
        a_session_is_swept_by_its_own_hosts_stale_after,
        a_row_that_no_live_host_wrote_is_swept,
        sweeping_is_throttled,
        hosts_are_told,
        a_reading_brings_all_and_the_next_one_what_changed,
        a_host_does_not_read_what_it_said_itself,
        a_heartbeat_keeps_what_other_clients_changed,
        a_change_of_one_column_keeps_the_others,
        the_later_change_of_a_column_wins,
        a_column_changed_in_the_future_is_cut,
        a_host_reads_what_others_changed_before_its_push,
        a_session_that_was_brought_back_is_not_deleted,
        lower_transaction_numbers_have_everything_read_anew,
        a_small_page_is_followed_by_the_rest,
    );
}

pub fn host(name: &str, number: u128) -> HostRegistration {
    let claim = Uuid::from_u128(number << 64 | 1);
    HostRegistration {
        host_id: Uuid::from_u128(number),
        machine: machine(name),
        claim,
        own_claims: vec![claim],
        acked_batch: 0,
        former_host_ids: Vec::new(),
        replace: false,
        version: "test",
        stale_after: STALE_AFTER,
    }
}

pub fn machine(name: &str) -> MachineName {
    MachineName::parse(name).unwrap()
}

/// A session that began, and had its only heartbeat, at `at`.
pub fn session(id: &str, on: &str, at: Timestamp) -> Session {
    Session {
        instance_id: InstanceId::parse(id).unwrap(),
        project: Project::parse(id.split('-').next().unwrap()).unwrap(),
        instance_type: InstanceType::Ps,
        status: Status::Active,
        context_percent: 10,
        current_epic: Some("003".into()),
        last_heartbeat: at,
        created_at: at,
        closed_at: None,
        host_machine: machine(on),
        claude_session_uuid: Some("c-1".into()),
        claude_session_path: Some("/a/\"b\"'s.jsonl".into()),
        resumed_from: Some(InstanceId::parse("odin-PS-00000r").unwrap()),
        working_dir: Some("/home/me/o d".into()),
    }
}

/// A session whose columns were all changed with its last heartbeat.
pub fn whole(session: &Session) -> TimedSession {
    TimedSession { times: ColumnTimes::all(session.last_heartbeat), ..TimedSession::untimed(session.clone()) }
}

const ID: &str = "odin-PS-000001";

/// A host that has been welcomed, and counts its batches.
struct Member<C> {
    link: C,
    batch: i64,
}

impl<C: Central> Member<C> {
    async fn join(mut link: C, host: &HostRegistration) -> Self {
        let batch = link.handshake(host).await.unwrap().batch;
        Self { link, batch }
    }

    /// Whether central refuses the host.
    async fn is_refused(mut link: C, host: &HostRegistration) -> bool {
        link.handshake(host).await.is_err()
    }

    async fn try_push(&mut self, sessions: &[Session]) -> Result<Vec<RowOutcome>, CentralError> {
        self.offer(&sessions.iter().map(whole).collect::<Vec<_>>()).await
    }

    async fn offer(&mut self, sessions: &[TimedSession]) -> Result<Vec<RowOutcome>, CentralError> {
        let applied =
            self.link.push(Batch { after: self.batch, number: self.batch + 1, sessions, records: &[] }).await?;
        self.batch += 1;
        Ok(applied)
    }

    async fn push(&mut self, session: &Session) -> RowOutcome {
        self.try_push(std::slice::from_ref(session)).await.unwrap().remove(0)
    }
}

/// A world with one member, and a session an hour old that it pushed.
async fn begun<W: World>(world: &W) -> (Member<W::Central>, Session) {
    let mut member = Member::join(world.link(), &host("odin3", 1)).await;
    let session = session(ID, "odin3", world.now().minus(HOUR));
    assert_eq!(member.push(&session).await, RowOutcome::Stored);
    (member, session)
}

fn only<W: World>(world: &W) -> Session {
    let mut rows = world.rows();
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

async fn inserts_and_updates<W: World>(world: W) {
    let (mut member, mut session) = begun(&world).await;
    assert_eq!(only(&world), session);

    session.last_heartbeat = session.last_heartbeat.plus(MINUTE);
    session.context_percent = 42;
    session.current_epic = None;
    session.claude_session_uuid = Some("c-2".into());
    session.claude_session_path = None;
    session.working_dir = None;
    let other = self::session("freya-MS-00000z", "odin3", session.created_at);
    let applied = member.try_push(&[other.clone(), session.clone()]).await.unwrap();
    assert_eq!(applied, [RowOutcome::Stored, RowOutcome::Stored]);
    assert_eq!(world.rows(), [other, session]);
}

async fn an_older_heartbeat_changes_nothing<W: World>(world: W) {
    let (mut member, session) = begun(&world).await;
    let mut newer = session.clone();
    newer.last_heartbeat = session.last_heartbeat.plus(MINUTE);
    newer.context_percent = 50;
    world.put(&newer);

    let mut late = session.clone();
    late.context_percent = 99;
    late.status = Status::Stale;
    late.current_epic = Some("old".into());
    late.claude_session_uuid = None;
    assert_eq!(member.push(&late).await, RowOutcome::Stored);
    assert_eq!(only(&world), newer);
}

async fn a_heartbeat_from_the_future_is_cut<W: World>(world: W) {
    let (mut member, mut session) = begun(&world).await;
    let before = world.now();
    session.last_heartbeat = before.plus(HOUR);
    session.context_percent = 77;
    assert_eq!(member.push(&session).await, RowOutcome::Stored);
    let row = only(&world);
    assert!(row.last_heartbeat >= before && row.last_heartbeat <= world.now(), "{row:?}");
    assert_eq!(row.context_percent, 77);

    session.status = Status::Closed;
    session.closed_at = Some(before.plus(HOUR));
    member.push(&session).await;
    let closed_at = only(&world).closed_at.unwrap();
    assert!(closed_at >= before && closed_at <= world.now());
}

async fn a_heartbeat_in_centrals_future_is_replaced<W: World>(world: W) {
    let (mut member, mut session) = begun(&world).await;
    let mut wrong = session.clone();
    wrong.last_heartbeat = world.now().plus(HOUR);
    world.put(&wrong);

    session.last_heartbeat = session.last_heartbeat.plus(MINUTE);
    assert_eq!(member.push(&session).await, RowOutcome::Stored);
    assert_eq!(only(&world), session);
}

async fn stale_and_active_follow_the_newer_heartbeat<W: World>(world: W) {
    let (mut member, mut session) = begun(&world).await;
    session.status = Status::Stale;
    member.push(&session).await;
    assert_eq!(only(&world).status, Status::Stale);

    session.status = Status::Active;
    session.last_heartbeat = session.last_heartbeat.plus(MINUTE);
    member.push(&session).await;
    assert_eq!(only(&world), session);
}

async fn closed_stays_closed<W: World>(world: W) {
    let (mut member, mut session) = begun(&world).await;
    let closed_at = session.created_at.plus(MINUTE);
    let mut closed = session.clone();
    closed.status = Status::Closed;
    closed.closed_at = Some(closed_at);
    world.put(&closed);

    session.last_heartbeat = session.last_heartbeat.plus(MINUTE * 2);
    assert_eq!(member.push(&session).await, RowOutcome::ClosedElsewhere { closed_at });
    assert_eq!((only(&world).status, only(&world).closed_at), (Status::Closed, Some(closed_at)));

    // Closing it once more is no news, and does not move the time.
    session.status = Status::Closed;
    session.closed_at = Some(closed_at.plus(HOUR / 2));
    assert_eq!(member.push(&session).await, RowOutcome::Stored);
    assert_eq!(only(&world).closed_at, Some(closed_at));
}

async fn closing_is_never_late<W: World>(world: W) {
    let (mut member, mut session) = begun(&world).await;
    let mut newer = session.clone();
    newer.last_heartbeat = session.last_heartbeat.plus(MINUTE);
    world.put(&newer);

    session.status = Status::Closed;
    session.closed_at = Some(session.created_at.plus(MINUTE / 2));
    assert_eq!(member.push(&session).await, RowOutcome::Stored);
    let row = only(&world);
    assert_eq!((row.status, row.closed_at), (Status::Closed, session.closed_at));
    assert_eq!(row.last_heartbeat, newer.last_heartbeat);
}

async fn another_session_keeps_its_id<W: World>(world: W) {
    let mut member = Member::join(world.link(), &host("odin3", 1)).await;
    let theirs = session(ID, "odin4", world.now().minus(HOUR));
    world.put(&theirs);
    let ours = session(ID, "odin3", world.now().minus(MINUTE));
    let other = session("odin-PS-000002", "odin3", world.now().minus(MINUTE));
    let applied = member.try_push(&[ours, other.clone()]).await.unwrap();
    assert_eq!(applied, [RowOutcome::IdCollision, RowOutcome::Stored]);
    assert_eq!(world.rows(), [theirs, other]);
}

async fn another_machines_row_is_left_alone<W: World>(world: W) {
    let mut member = Member::join(world.link(), &host("odin3", 1)).await;
    let theirs = session(ID, "odin4", world.now().minus(HOUR));
    world.put(&theirs);
    let mut copy = theirs.clone();
    copy.host_machine = machine("odin3");
    copy.last_heartbeat = world.now();
    assert_eq!(member.push(&copy).await, RowOutcome::ForeignMachine { machine: "odin4".into() });
    assert_eq!(only(&world), theirs);
}

async fn a_renamed_host_keeps_its_rows<W: World>(world: W) {
    let (_, mut session) = begun(&world).await;
    let old = host("odin3", 1);
    let mut renamed = host("laptop", 2);
    renamed.own_claims.push(old.claim);
    renamed.former_host_ids.push(old.host_id);

    let mut link = world.link();
    let accepted = link.handshake(&renamed).await.unwrap();
    assert_eq!(accepted.former_names, [machine("odin3")]);
    assert_eq!(accepted.batch, 0);
    session.host_machine = machine("laptop");
    let mut member = Member { link, batch: 0 };
    assert_eq!(member.push(&session).await, RowOutcome::Stored);
    assert_eq!(only(&world).host_machine, machine("laptop"));

    // Renamed once more, it still knows both names; and the first is free for others.
    let mut again = host("desk", 3);
    again.own_claims.extend([old.claim, renamed.claim]);
    again.former_host_ids.extend([old.host_id, renamed.host_id]);
    assert_eq!(world.link().handshake(&again).await.unwrap().former_names, [machine("laptop"), machine("odin3")]);
    world.link().handshake(&host("odin3", 9)).await.unwrap();
    // And a restart changes nothing.
    assert_eq!(world.link().handshake(&again).await.unwrap().former_names, [machine("laptop"), machine("odin3")]);
}

async fn a_batch_takes_effect_once<W: World>(world: W) {
    let (mut member, mut session) = begun(&world).await;
    assert_eq!(member.batch, 1);
    session.context_percent = 90;
    let again = Batch { after: 0, number: 1, sessions: &[whole(&session)], records: &[] };
    assert_eq!(member.link.push(again).await, Err(CentralError::OutOfStep));
    let ahead = Batch { after: 2, number: 3, sessions: &[whole(&session)], records: &[] };
    assert_eq!(member.link.push(ahead).await, Err(CentralError::OutOfStep));
    assert_eq!(only(&world).context_percent, 10);

    // The connection is still good, and the ledger where it was.
    assert_eq!(member.push(&session).await, RowOutcome::Stored);
    let mut next = host("odin3", 1);
    next.claim = Uuid::from_u128(99);
    next.own_claims.push(next.claim);
    assert_eq!(world.link().handshake(&next).await.unwrap().batch, 2);
    // The start before it has been overtaken by itself, which is no conflict.
    assert!(member.try_push(&[]).await.is_err());
}

async fn a_lost_answer_is_found_in_the_ledger<W: World>(world: W) {
    let (member, mut session) = begun(&world).await;
    // All that the next connection knows is that batch 1 was sent.
    drop(member);
    let mut link = world.link();
    assert_eq!(link.handshake(&host("odin3", 1)).await.unwrap().batch, 1);
    session.context_percent = 90;
    let again = Batch { after: 0, number: 1, sessions: &[whole(&session)], records: &[] };
    assert_eq!(link.push(again).await, Err(CentralError::OutOfStep));
    assert_eq!(only(&world).context_percent, 10);
}

async fn an_empty_batch_says_that_the_host_lives<W: World>(world: W) {
    let (mut member, _) = begun(&world).await;
    world.silence(HOUR);
    let silent = world.last_seen(Uuid::from_u128(1));
    assert_eq!(member.try_push(&[]).await, Ok(Vec::new()));
    assert!(world.last_seen(Uuid::from_u128(1)).since(silent) >= HOUR);
}

async fn one_bad_row_rolls_the_batch_back<W: World>(world: W) {
    let (mut member, mut session) = begun(&world).await;
    let before = only(&world);
    session.last_heartbeat = session.last_heartbeat.plus(MINUTE);
    let bad = self::session("odin-PS-bad000", "odin3", world.now().minus(MINUTE));
    world.reject(bad.instance_id.as_str());
    let rejected = member.try_push(&[session.clone(), bad]).await;
    assert!(matches!(rejected, Err(CentralError::Reject(_))), "{rejected:?}");
    assert_eq!(only(&world), before);
    // The ledger did not move, and the connection is still good.
    assert_eq!(member.push(&session).await, RowOutcome::Stored);
    assert_eq!(only(&world), session);
}

async fn a_locked_row_is_found_and_the_others_go<W: World>(world: W) {
    let (mut member, session) = begun(&world).await;
    let other = self::session("odin-PS-000002", "odin3", session.created_at);
    let ids = [other.instance_id.clone(), session.instance_id.clone()];
    let lock = world.lock_row(ID);
    let both = member.try_push(&[session.clone(), other.clone()]).await;
    assert!(matches!(both, Err(CentralError::Locked(_))), "{both:?}");
    assert_eq!(member.link.locked_rows(&ids).await.unwrap(), std::slice::from_ref(&session.instance_id));
    // The connection is still good, and the row that is not there yet is not locked.
    assert_eq!(member.push(&other).await, RowOutcome::Stored);
    drop(lock);
    assert_eq!(member.link.locked_rows(&ids).await.unwrap(), []);
    assert_eq!(member.push(&session).await, RowOutcome::Stored);
}

async fn central_tells_its_clock_with_each_push<W: World>(world: W) {
    let before = world.now();
    let (member, _) = begun(&world).await;
    let told = member.link.last_clock().unwrap();
    assert!(told >= before && told <= world.now(), "{told}");
}

fn conflict_of<T: std::fmt::Debug>(result: Result<T, CentralError>) -> sessiond::domain::link::Conflict {
    match result {
        Err(CentralError::Conflict(conflict)) => {
            assert!(conflict.message.contains("sessiond identity rename"), "{}", conflict.message);
            assert!(conflict.message.contains("sessiond identity replace"), "{}", conflict.message);
            assert!(!conflict.message.contains('\n'));
            conflict
        }
        other => panic!("a conflict was due, not {other:?}"),
    }
}

async fn two_hosts_under_one_name<W: World>(world: W) {
    let (mut first, mut session) = begun(&world).await;
    let second = host("odin3", 2);
    let conflict = conflict_of(world.link().handshake(&second).await);
    assert_eq!(conflict.host_id, Uuid::from_u128(1).to_string());
    assert_eq!(conflict.machine_name, "odin3");
    assert!(conflict.last_seen.is_some());
    // The first one goes on, and the second finds another name.
    session.last_heartbeat = session.last_heartbeat.plus(MINUTE);
    assert_eq!(first.push(&session).await, RowOutcome::Stored);
    world.link().handshake(&host("odin4", 2)).await.unwrap();
}

async fn a_copied_state_folder<W: World>(world: W) {
    let (mut original, session) = begun(&world).await;
    let mut copy = host("odin3", 1);
    copy.claim = Uuid::from_u128(77);
    copy.own_claims = vec![copy.claim];
    conflict_of(world.link().handshake(&copy).await);

    // Told to be the one, it is; and the original learns of it.
    copy.replace = true;
    assert_eq!(world.link().handshake(&copy).await.unwrap().batch, 1);
    conflict_of(original.try_push(&[session]).await);
    conflict_of(world.link().handshake(&host("odin3", 1)).await);
}

async fn a_restored_ledger_with_a_forgotten_claim_is_no_copy<W: World>(world: W) {
    let (_, session) = begun(&world).await;
    // Many starts later the host no longer keeps the claim of that time, but knows of later batches than central.
    let mut later = host("odin3", 1);
    later.claim = Uuid::from_u128(77);
    later.own_claims = vec![later.claim];
    later.acked_batch = 5;
    let mut member = Member::join(world.link(), &later).await;
    assert_eq!((member.batch, member.push(&session).await), (1, RowOutcome::Stored));
    // A copy that knows of nothing later is still found out.
    let mut copy = later.clone();
    (copy.claim, copy.own_claims) = (Uuid::from_u128(78), vec![Uuid::from_u128(78)]);
    copy.acked_batch = 2;
    conflict_of(world.link().handshake(&copy).await);
}

async fn a_replaced_host_may_not_write<W: World>(world: W) {
    let (mut first, session) = begun(&world).await;
    let mut second = host("odin3", 2);
    second.replace = true;
    assert_eq!(world.link().handshake(&second).await.unwrap().batch, 0);

    let conflict = conflict_of(first.try_push(std::slice::from_ref(&session)).await);
    assert_eq!(conflict.host_id, Uuid::from_u128(2).to_string());
    conflict_of(world.link().handshake(&host("odin3", 1)).await);

    // What was taken can be taken back, ledger and all.
    let mut back = host("odin3", 1);
    back.replace = true;
    assert_eq!(world.link().handshake(&back).await.unwrap().batch, 1);
    conflict_of(world.link().handshake(&host("odin3", 2)).await);
}

async fn a_replaced_host_that_is_renamed_keeps_its_rows<W: World>(world: W) {
    let (_, mut session) = begun(&world).await;
    let mut rival = host("odin3", 2);
    rival.replace = true;
    world.link().handshake(&rival).await.unwrap();

    let old = host("odin3", 1);
    let mut renamed = host("laptop", 3);
    renamed.own_claims.push(old.claim);
    renamed.former_host_ids.push(old.host_id);
    let mut member = Member::join(world.link(), &renamed).await;
    session.host_machine = machine("laptop");
    assert_eq!(member.push(&session).await, RowOutcome::Stored);
    assert_eq!(only(&world).host_machine, machine("laptop"));
    // The rival keeps the name.
    assert_eq!(world.link().handshake(&rival).await.map(|accepted| accepted.former_names), Ok(Vec::new()));
}

async fn vanished_hosts_are_swept<W: World>(world: W) {
    let (_, session) = begun(&world).await;
    let fresh = self::session("odin-PS-000002", "odin3", world.now());
    world.put(&fresh);
    world.silence(HOUR);

    let mut other = Member::join(world.link(), &host("odin4", 2)).await;
    assert_eq!(turned(&mut other).await, 1);
    let [swept, left] = world.rows().try_into().unwrap();
    assert_eq!(swept, Session { status: Status::Stale, ..session });
    assert_eq!(left, fresh);
}

async fn living_hosts_are_not_swept<W: World>(world: W) {
    let (mut member, session) = begun(&world).await;
    assert_eq!(turned(&mut member).await, 0);
    assert_eq!(only(&world), session);
}

async fn a_session_is_swept_by_its_own_hosts_stale_after<W: World>(world: W) {
    let began = world.now();
    let mut patient = host("odin3", 1);
    patient.stale_after = 2 * HOUR;
    let mut member = Member::join(world.link(), &patient).await;
    let session = session(ID, "odin3", began.minus(HOUR + MINUTE));
    member.push(&session).await;
    // The same silence is too long for rows of no host.
    let earlier = self::session("odin-PS-000002", "gone", began.minus(HOUR));
    world.put(&earlier);
    world.silence(HOUR);
    let mut other = Member::join(world.link(), &host("odin4", 2)).await;
    assert_eq!(turned(&mut other).await, 1);
    let [left, swept] = world.rows().try_into().unwrap();
    assert_eq!((left, swept.status), (session, Status::Stale));
    // Its host vanished for longer than that.
    world.silence(2 * HOUR);
    let aged = self::session("odin-PS-000003", "odin3", began.minus(HOUR));
    world.put(&aged);
    assert_eq!(turned(&mut other).await, 0, "neither is older than two hours");
    let old = self::session("odin-PS-000004", "odin3", began.minus(3 * HOUR));
    world.put(&old);
    world.silence(HOUR);
    assert_eq!(turned(&mut other).await, 1);
}

async fn a_row_that_no_live_host_wrote_is_swept<W: World>(world: W) {
    let (mut member, own) = begun(&world).await;
    // An earlier client's, under the name of a machine whose daemon is live.
    world.put(&session("odin-PS-000002", "odin3", world.now().minus(HOUR)));
    assert_eq!(turned(&mut member).await, 1);
    let [left, swept] = world.rows().try_into().unwrap();
    assert_eq!((left, swept.status), (own, Status::Stale));
}

async fn turned<C: Central>(member: &mut Member<C>) -> u64 {
    member.link.sweep(STALE_AFTER, MINUTE).await.unwrap().sessions
}

async fn sweeping_is_throttled<W: World>(world: W) {
    let (mut member, _) = begun(&world).await;
    let orphan = |id| session(id, "gone", world.now().minus(HOUR));
    assert_eq!(turned(&mut member).await, 0);
    world.put(&orphan("odin-PS-000002"));
    assert_eq!(member.link.sweep(STALE_AFTER, MINUTE).await, Ok(SweepResult::default()), "too early");
    world.silence(MINUTE);
    assert_eq!(turned(&mut member).await, 1);
}

async fn hosts_are_told<W: World>(world: W) {
    let mut member = Member::join(world.link(), &host("odin3", 1)).await;
    let hosts = member.link.hosts().await.unwrap();
    assert_eq!(hosts.len(), 1);
    assert_eq!((hosts[0].machine.as_str(), hosts[0].last_seen), ("odin3", world.last_seen(Uuid::from_u128(1))));
    assert!(Member::is_refused(world.link(), &host("odin3", 2)).await);
    let mut other = host("odin3", 2);
    other.replace = true;
    let mut member = Member::join(world.link(), &other).await;
    let names = member.link.hosts().await.unwrap();
    assert_eq!(names.len(), 1, "who was replaced is none of them: {names:?}");
}

/// Everything there is to read, page by page, and where the next reading begins.
async fn read<C: Central>(link: &mut C, since: u64) -> (Vec<Session>, Vec<String>, u64) {
    let mut reading = PullQuery::since(since);
    let (mut sessions, mut gone) = (Vec::new(), Vec::new());
    loop {
        let changes = link.pull(&reading).await.unwrap();
        sessions.extend(changes.sessions.into_iter().map(|read| read.session));
        gone.extend(changes.gone.into_iter().map(|gone| gone.instance_id));
        match changes.rest {
            Continuation::More(position) => reading.after = Some(position),
            Continuation::Complete { next_since } => {
                sessions.sort_by(|a, b| a.instance_id.cmp(&b.instance_id));
                return (sessions, gone, next_since);
            }
            Continuation::Restart => panic!("central numbers its transactions as before"),
        }
    }
}

async fn a_reading_brings_all_and_the_next_one_what_changed<W: World>(world: W) {
    let then = world.now().minus(HOUR);
    let ids: Vec<_> = (0..7).map(|n| format!("odin-PS-00000{n}")).collect();
    ids.iter().for_each(|id| world.put(&session(id, "odin4", then)));
    let mut laptop = Member::join(world.link(), &host("laptop", 1)).await;
    let (all, gone, since) = read(&mut laptop.link, 0).await;
    assert_eq!((all, gone), (world.rows(), vec![]));
    assert!(since > 0);

    let mut changed = session(&ids[3], "odin4", then);
    changed.context_percent = 77;
    world.put(&changed);
    world.delete(&ids[5]);
    let (news, mut gone, since) = read(&mut laptop.link, since).await;
    // A row may be replaced by deleting and inserting it.
    gone.retain(|id| *id != ids[3]);
    assert_eq!((news, gone), (vec![changed], vec![ids[5].clone()]));

    let (news, gone, _) = read(&mut laptop.link, since).await;
    assert_eq!((news, gone), (vec![], vec![]));
}

async fn a_host_does_not_read_what_it_said_itself<W: World>(world: W) {
    let (mut member, session) = begun(&world).await;
    let (_, _, since) = read(&mut member.link, 0).await;
    let mut beaten = session.clone();
    beaten.last_heartbeat = beaten.last_heartbeat.plus(MINUTE);
    member.push(&beaten).await;
    assert_eq!(read(&mut member.link, since).await.0, []);
    let mut other = Member::join(world.link(), &host("laptop", 2)).await;
    assert_eq!(read(&mut other.link, since).await.0, [beaten.clone()]);

    beaten.close(world.now());
    world.put(&beaten);
    assert_eq!(read(&mut member.link, since).await.0, [beaten], "but what another client did to its session");
}

/// What another client writes into each column.
const EDITS: [(SharedColumn, &str); 6] = [
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

fn edited(session: &Session) -> Session {
    let mut edited = session.clone();
    EDITS.iter().for_each(|(column, value)| set(&mut edited, *column, value));
    edited
}

/// A session as it is offered with the change of one column.
fn changed(session: &Session, column: SharedColumn, at: Timestamp) -> TimedSession {
    TimedSession { times: [(column, at)].into_iter().collect(), ..TimedSession::untimed(session.clone()) }
}

async fn a_heartbeat_keeps_what_other_clients_changed<W: World>(world: W) {
    let (mut member, mut session) = begun(&world).await;
    for (column, value) in EDITS {
        world.edit(ID, column, value);
        session.last_heartbeat = world.now();
        let heartbeat = TimedSession::untimed(session.clone());
        assert_eq!(member.offer(&[heartbeat]).await, Ok(vec![RowOutcome::Stored]));
    }
    let row = only(&world);
    assert_eq!(row, Session { last_heartbeat: row.last_heartbeat, ..edited(&session) });
}

async fn a_change_of_one_column_keeps_the_others<W: World>(world: W) {
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

async fn the_later_change_of_a_column_wins<W: World>(world: W) {
    let (mut member, session) = begun(&world).await;
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

async fn a_column_changed_in_the_future_is_cut<W: World>(world: W) {
    let (mut member, mut session) = begun(&world).await;
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

async fn a_host_reads_what_others_changed_before_its_push<W: World>(world: W) {
    let (mut member, mut session) = begun(&world).await;
    let (_, _, since) = read(&mut member.link, 0).await;
    world.edit(ID, SharedColumn::ClaudeSessionUuid, "c-9");
    session.last_heartbeat = world.now();
    member.offer(&[TimedSession::untimed(session.clone())]).await.unwrap();
    let changes = member.link.pull(&PullQuery::since(since)).await.unwrap();
    let [read_back] = changes.sessions.as_slice() else { panic!("the row is read: {changes:?}") };
    assert_eq!(read_back.claude_session_uuid.as_deref(), Some("c-9"));
    let times = read_back.times;
    assert!(times.get(SharedColumn::ClaudeSessionUuid) > times.get(SharedColumn::CurrentEpic), "{times:?}");

    let (_, _, since) = read(&mut member.link, since).await;
    session.last_heartbeat = world.now();
    member.offer(&[TimedSession::untimed(session)]).await.unwrap();
    assert_eq!(read(&mut member.link, since).await.0, [], "what it changed alone it does not read");
}

async fn a_session_that_was_brought_back_is_not_deleted<W: World>(world: W) {
    let row = session(ID, "odin4", world.now().minus(HOUR));
    world.put(&row);
    let mut laptop = Member::join(world.link(), &host("laptop", 1)).await;
    let (_, _, since) = read(&mut laptop.link, 0).await;
    world.delete(ID);
    world.put(&row);
    assert_eq!(read(&mut laptop.link, since).await.1, [] as [String; 0]);
}

async fn lower_transaction_numbers_have_everything_read_anew<W: World>(world: W) {
    let mut laptop = Member::join(world.link(), &host("laptop", 1)).await;
    let changes = laptop.link.pull(&PullQuery::since(1 << 40)).await.unwrap();
    assert_eq!(changes, ChangePage::default());
    assert_eq!(changes.rest, Continuation::Restart);
}

async fn a_small_page_is_followed_by_the_rest<W: World>(world: W) {
    let then = world.now().minus(HOUR);
    (0..5).for_each(|n| world.put(&session(&format!("odin-PS-00000{n}"), "odin4", then)));
    let mut laptop = Member::join(world.link(), &host("laptop", 1)).await;
    for since in [0, 1] {
        let mut reading = PullQuery { page: PageSize::SMALLEST, ..PullQuery::since(since) };
        let mut ids = Vec::new();
        while let Continuation::More(position) = {
            let changes = laptop.link.pull(&reading).await.unwrap();
            ids.extend(changes.sessions.into_iter().map(|session| session.instance_id.to_string()));
            changes.rest
        } {
            reading.after = Some(position);
        }
        ids.sort();
        assert_eq!(ids, (0..5).map(|n| format!("odin-PS-00000{n}")).collect::<Vec<_>>());
    }
}
