//! Which processes came with sessions since the liveness check last asked, so that a registration costs it one
//! process and not all.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::InstanceId;
use crate::domain::Process;

/// A longer list is discarded, and all sessions with a process have to be read instead.
const LONGEST: usize = 4096;

/// The processes that sessions got since the last call, for the watch of processes.
#[derive(Clone, Default)]
pub struct NewProcesses(Arc<Shared>);

#[derive(Default)]
struct Shared {
    changes: Mutex<ProcessChanges>,
    added: Notify,
}

/// What to watch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ProcessChanges {
    pub(crate) added: Vec<(InstanceId, Process)>,
    /// Others changed that are not listed: all sessions with a process have to be read.
    pub others: bool,
}

impl NewProcesses {
    /// Waits for changes and returns them. Cancelling loses none.
    pub async fn next(&self) -> ProcessChanges {
        self.0.added.notified().await;
        std::mem::take(&mut *self.lock())
    }

    pub(in crate::store) fn add(&self, id: &InstanceId, process: Process) {
        let mut changes = self.lock();
        if changes.added.len() == LONGEST {
            *changes = ProcessChanges { added: Vec::new(), others: true };
        }
        if !changes.others {
            changes.added.push((id.clone(), process));
        }
        drop(changes);
        self.0.added.notify_one();
    }

    /// Some process may have come or changed.
    pub(in crate::store) fn add_others(&self) {
        self.lock().others = true;
        self.0.added.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, ProcessChanges> {
        self.0.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_is_taken_once_and_bounded() {
        let processes = NewProcesses::default();
        let process = |pid| Process { pid, started: 1 };
        let id = InstanceId::parse("odin-PS-00000a").unwrap();
        processes.add(&id, process(1));
        processes.add(&id, process(2));
        let expected = vec![(id.clone(), process(1)), (id.clone(), process(2))];
        assert_eq!(processes.next().await, ProcessChanges { added: expected, others: false });
        for pid in 0..=LONGEST {
            processes.add(&id, process(i32::try_from(pid).unwrap()));
        }
        assert_eq!(processes.next().await, ProcessChanges { added: vec![], others: true });
        processes.add_others();
        assert!(processes.next().await.others);
    }
}
