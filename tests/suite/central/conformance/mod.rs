//! The conformance suite that every implementation of central must pass.

pub mod columns;
mod hosts;
mod pushing;
mod reading;
mod sweeping;
mod vouching;

use sessiond::domain::mirror::{ChangePage, Continuation, PageSize, PullQuery};
use sessiond::domain::{
    ColumnTimes, InstanceId, InstanceType, MachineName, Project, Session, SharedColumn, Status, TimedSession, Timestamp,
};
use sessiond::sync::central::{Batch, Central, CentralError, HostRegistration, RowOutcome, SweepResult};
use std::time::Duration;

use uuid::Uuid;

pub const STALE_AFTER: Duration = Duration::from_secs(120);

const MINUTE: Duration = Duration::from_secs(60);

const HOUR: Duration = Duration::from_secs(3600);

/// A lock that is released when it is dropped.
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
    /// Changes the project of a row as another client would.
    fn move_to(&self, id: &str, project: &str);
    /// Deletes a row as another client would.
    fn delete(&self, id: &str);
    /// Moves the last contact of all hosts, and the last sweep, back by this long.
    fn silence(&self, by: Duration);
    fn last_seen(&self, host: Uuid) -> Timestamp;
    /// Has central reject the session of this id.
    fn reject(&self, id: &str);
    /// Another transaction locks a row, until what this returns is dropped.
    fn lock_row<'a>(&'a self, id: &str) -> Box<dyn Lock + 'a>;
}

/// Runs every case, each in a world of its own.
pub async fn all<W: World>(fresh: impl Fn() -> W) {
    macro_rules! cases {
        ($($case:path),* $(,)?) => {$(
            eprintln!("case {}", stringify!($case));
            $case(fresh()).await;
        )*};
    }
    cases!(
        pushing::inserts_and_updates,
        pushing::older_heartbeat_changes_nothing,
        pushing::heartbeat_from_the_future_is_cut,
        pushing::heartbeat_in_centrals_future_is_replaced,
        pushing::stale_and_active_follow_the_newer_heartbeat,
        pushing::closed_stays_closed,
        pushing::late_close_is_applied,
        pushing::other_session_keeps_its_id,
        pushing::row_of_another_machine_is_not_changed,
        pushing::renamed_host_keeps_its_rows,
        pushing::batch_is_applied_once,
        pushing::lost_answer_is_resolved_by_the_ledger,
        pushing::empty_batch_counts_as_a_sign_of_the_host,
        pushing::rejected_row_rolls_the_batch_back,
        pushing::locked_row_is_found_and_others_are_pushed,
        pushing::each_push_returns_centrals_clock,
        hosts::second_host_of_a_name_is_rejected,
        hosts::copied_state_folder_is_rejected,
        hosts::restored_ledger_with_an_unknown_claim_is_no_copy,
        hosts::replaced_host_is_rejected,
        hosts::replaced_and_renamed_host_keeps_its_rows,
        sweeping::sessions_of_vanished_hosts_are_swept,
        sweeping::sessions_of_live_hosts_are_not_swept,
        sweeping::session_is_swept_by_its_hosts_stale_after,
        sweeping::row_without_a_live_host_is_swept,
        sweeping::sweeping_is_throttled,
        hosts::hosts_are_listed_with_their_last_contact,
        reading::first_pull_returns_all_and_the_next_one_the_changes,
        reading::host_does_not_pull_its_own_changes,
        vouching::bare_heartbeat_is_read_by_no_other_host,
        vouching::last_writer_vouches,
        vouching::joined_hosts_are_read_alone,
        vouching::sessions_that_a_host_lacks_are_disowned,
        columns::heartbeat_keeps_changes_of_other_clients,
        columns::change_of_one_column_keeps_the_others,
        columns::later_change_of_a_column_wins,
        columns::column_changed_in_the_future_is_cut,
        reading::host_pulls_what_others_changed_before_its_push,
        reading::restored_session_is_not_reported_as_deleted,
        reading::lower_transaction_numbers_restart_the_pull,
        reading::small_page_is_followed_by_the_rest,
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

/// A host that central accepted; counts its batches.
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
async fn with_one_session<W: World>(world: &W) -> (Member<W::Central>, Session) {
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
