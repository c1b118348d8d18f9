//! Hosts that do not read everything ahead, and that ask for the rest.

use super::*;
use crate::domain::on_demand::Question;
use crate::domain::{MirrorScope, Project};
use crate::requests::Request;

impl SimHost {
    /// Which sessions of others it reads ahead, from this start to the next.
    pub(in crate::simulation) fn scope(&self) -> MirrorScope {
        let of = |name| MirrorScope::of_projects(vec![Project::parse(name).unwrap()]).unwrap();
        match self.starts % 4 {
            _ if !self.scoped => MirrorScope::All,
            0 | 1 => of("odin"),
            2 => of("web"),
            _ => MirrorScope::None,
        }
    }

    /// Asks central, unless sync is in the middle of an action.
    pub(in crate::simulation) fn ask(&mut self, question: Question) {
        let Some(daemon) = &mut self.daemon else { return };
        match daemon.worker.take() {
            Some(WorkerState::Idle(idle)) if idle.1.is_up() => {
                let (reply, _) = tokio::sync::oneshot::channel();
                let request = Request { what: question, reply };
                let (mut driver, scheduler) = *idle;
                daemon.worker = Some(WorkerState::Busy(Box::pin(async move {
                    driver.answer(request).await;
                    (driver, scheduler)
                })));
            }
            worker => daemon.worker = worker,
        }
    }
}
