//! One host's connection to the fake central.

use super::*;
use crate::sync::central::{Central, Notification};

#[derive(Clone)]
pub(super) struct RegisteredHost {
    pub host_id: Uuid,
    pub claim: Uuid,
    pub own_claims: Vec<Uuid>,
    pub name: MachineName,
    pub former_names: Vec<MachineName>,
    /// How often central had been restored at the handshake.
    restored: u64,
}

/// One host's connection to a [`FakeCentral`].
pub struct FakeLink {
    central: FakeCentral,
    me: Option<RegisteredHost>,
    /// Its daemon judges sessions by their heartbeats alone.
    is_earlier: bool,
    /// Every host judges sessions by the last contact of their hosts, as of the last reading of hosts.
    heartbeats_unmarked: bool,
}

impl FakeLink {
    pub(super) fn new(central: FakeCentral) -> Self {
        Self { central, me: None, is_earlier: false, heartbeats_unmarked: false }
    }

    pub(super) fn of_earlier_daemon(central: FakeCentral) -> Self {
        Self { is_earlier: true, ..Self::new(central) }
    }

    /// Runs one call as a transaction of this host.
    fn transact<T>(
        &mut self,
        call: impl FnOnce(&mut CentralState, &RegisteredHost) -> Result<T, CentralError>,
    ) -> Result<T, CentralError> {
        let me = self.me()?;
        let answer = self.central.transact(me.host_id, !self.heartbeats_unmarked, |state| call(state, &me));
        self.finish_call(answer)
    }

    fn me(&self) -> Result<RegisteredHost, CentralError> {
        self.me.clone().ok_or_else(|| CentralError::Retry("not connected to central".into()))
    }

    /// Closes the connection after an error that breaks it.
    fn finish_call<T>(&mut self, answer: Result<T, CentralError>) -> Result<T, CentralError> {
        if matches!(answer, Err(CentralError::Retry(_) | CentralError::Conflict(_))) {
            self.me = None;
        }
        answer
    }
}

impl Central for FakeLink {
    async fn handshake(&mut self, host: &HostRegistration) -> Result<Accepted, CentralError> {
        (self.me, self.heartbeats_unmarked) = (None, false);
        let judges_by_hosts = !self.is_earlier;
        let accepted =
            self.central.transact(host.host_id, true, |state| calls::handshake(state, host, judges_by_hosts))?;
        self.me = Some(RegisteredHost {
            host_id: host.host_id,
            claim: host.claim,
            own_claims: host.own_claims.clone(),
            name: host.machine.clone(),
            former_names: accepted.former_names.clone(),
            restored: self.central.lock().restored,
        });
        Ok(accepted)
    }

    async fn push(&mut self, batch: Batch<'_>) -> Result<Vec<RowOutcome>, CentralError> {
        self.transact(|state, me| calls::push(state, me, batch))
    }

    async fn locked_rows(&mut self, ids: &[InstanceId]) -> Result<Vec<InstanceId>, CentralError> {
        self.transact(|state, _| {
            let rows = &state.tables.sessions;
            let is_locked = |id: &&InstanceId| state.locked.contains(id.as_str()) && rows.contains_key(id.as_str());
            Ok(ids.iter().filter(is_locked).cloned().collect())
        })
    }

    async fn history_tables(&mut self) -> Result<HistoryTables, CentralError> {
        self.transact(|state, _| Ok(state.tables.history.tables.clone()))
    }

    fn last_clock(&self) -> Option<Timestamp> {
        self.me.as_ref().map(|_| self.central.now())
    }

    async fn missing_triggers(&mut self) -> Result<Vec<String>, CentralError> {
        self.me().map(|_| Vec::new())
    }

    fn marks_heartbeats(&self) -> bool {
        !self.heartbeats_unmarked
    }

    async fn sweep(&mut self, stale_after: Duration, interval: Duration) -> Result<SweepResult, CentralError> {
        self.transact(|state, _| Ok(calls::sweep(state, stale_after, interval)))
    }

    async fn pull(&mut self, query: &PullQuery) -> Result<ChangePage, CentralError> {
        self.transact(|state, me| match state.restored == me.restored {
            true => Ok(reading::pull(state, me, query)),
            // A restore closes all connections.
            false => Err(CentralError::Retry("the connection broke".into())),
        })
    }

    async fn find(&mut self, question: &Question) -> Result<Found, CentralError> {
        self.transact(|state, _| Ok(reading::find(&state.tables, question)))
    }

    async fn share_limits(&mut self, limits: &[AccountLimit]) -> Result<(), CentralError> {
        self.transact(|state, me| calls::share_limits(&mut state.tables, me, limits))
    }

    async fn take_leases(&mut self, names: &[String], length: Duration) -> Result<Vec<String>, CentralError> {
        self.transact(|state, me| calls::take_leases(state, me, names, length))
    }

    async fn hosts(&mut self, only: Option<&[Uuid]>) -> Result<Vec<HostSeen>, CentralError> {
        let (hosts, all_judge_by_hosts) =
            self.transact(|state, _| Ok((calls::hosts(&state.tables, only), calls::all_judge_by_hosts(state, only))))?;
        self.heartbeats_unmarked = all_judge_by_hosts && (only.is_none() || self.heartbeats_unmarked);
        Ok(hosts)
    }

    async fn disown(&mut self, ids: &[InstanceId]) -> Result<(), CentralError> {
        self.transact(|state, me| calls::disown(&mut state.tables, me, ids))
    }

    async fn listen(&mut self) -> bool {
        false
    }

    async fn next_notification(&mut self) -> Notification {
        std::future::pending().await
    }
}
