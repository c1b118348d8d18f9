//! One host's connection to the fake central: the calls of the port.

use super::*;

/// One host's connection to a [`FakeCentral`].
pub struct FakeLink {
    pub(super) central: FakeCentral,
    pub(super) me: Option<RegisteredHost>,
}

impl FakeLink {
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
        self.me = None;
        let accepted = self.central.transact(host.host_id, |state| calls::handshake(state, host))?;
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
        let me = self.me()?;
        let answer = self.central.transact(me.host_id, |state| calls::push(state, &me, batch));
        self.finish_call(answer)
    }

    async fn locked_rows(&mut self, ids: &[InstanceId]) -> Result<Vec<InstanceId>, CentralError> {
        let me = self.me()?;
        let locked = |state: &mut CentralState| {
            let rows = &state.tables.sessions;
            let is_locked = |id: &&InstanceId| state.locked.contains(id.as_str()) && rows.contains_key(id.as_str());
            Ok(ids.iter().filter(is_locked).cloned().collect())
        };
        let answer = self.central.transact(me.host_id, locked);
        self.finish_call(answer)
    }

    async fn history_tables(&mut self) -> Result<HistoryTables, CentralError> {
        let me = self.me()?;
        let answer = self.central.transact(me.host_id, |state| Ok(state.tables.history.tables.clone()));
        self.finish_call(answer)
    }

    fn last_clock(&self) -> Option<Timestamp> {
        self.me.as_ref().map(|_| self.central.now())
    }

    async fn sweep(&mut self, stale_after: Duration, interval: Duration) -> Result<SweepResult, CentralError> {
        let me = self.me()?;
        let answer = self.central.transact(me.host_id, |state| Ok(calls::sweep(state, stale_after, interval)));
        self.finish_call(answer)
    }

    async fn pull(&mut self, reading: &PullQuery) -> Result<ChangePage, CentralError> {
        let me = self.me()?;
        let answer = self.central.transact(me.host_id, |state| match state.restored == me.restored {
            true => Ok(reading::pull(state, &me, reading)),
            // A restore closes all connections.
            false => Err(CentralError::Retry("the connection broke".into())),
        });
        self.finish_call(answer)
    }

    async fn find(&mut self, question: &Question) -> Result<Found, CentralError> {
        let me = self.me()?;
        let answer = self.central.transact(me.host_id, |state| Ok(reading::find(&state.tables, question)));
        self.finish_call(answer)
    }

    async fn share_limits(&mut self, limits: &[AccountLimit]) -> Result<(), CentralError> {
        let me = self.me()?;
        let answer = self.central.transact(me.host_id, |state| calls::share_limits(&mut state.tables, &me, limits));
        self.finish_call(answer)
    }

    async fn take_leases(&mut self, names: &[String], length: Duration) -> Result<Vec<String>, CentralError> {
        let me = self.me()?;
        let answer = self.central.transact(me.host_id, |state| calls::take_leases(state, &me, names, length));
        self.finish_call(answer)
    }

    async fn hosts(&mut self, only: Option<&[Uuid]>) -> Result<Vec<HostSeen>, CentralError> {
        let me = self.me()?;
        let answer = self.central.transact(me.host_id, |state| Ok(calls::hosts(&state.tables, only)));
        self.finish_call(answer)
    }

    async fn disown(&mut self, ids: &[InstanceId]) -> Result<(), CentralError> {
        let me = self.me()?;
        let answer = self.central.transact(me.host_id, |state| calls::disown(&mut state.tables, &me, ids));
        self.finish_call(answer)
    }

    async fn listen(&mut self) -> bool {
        false
    }

    async fn next_notification(&mut self) -> Notification {
        std::future::pending().await
    }
}
