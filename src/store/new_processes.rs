//! Which processes came with sessions since the liveness check last asked, so that a registration costs it one
//! process and not all.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::InstanceId;
use crate::store::tables::session_record::Process;

/// If nobody asks, the list ends here, and everything has to be read instead.
const LONGEST: usize = 4096;

#[derive(Clone, Default)]
pub struct NewProcesses(Arc<Shared>);

#[derive(Default)]
struct Shared {
    news: Mutex<ProcessChanges>,
    added: Notify,
}

/// What to watch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ProcessChanges {
    pub added: Vec<(InstanceId, Process)>,
    /// Others changed that are not listed: all sessions with a process have to be read.
    pub others: bool,
}

impl NewProcesses {
    /// Waits for news and takes it. Cancelling loses none.
    pub async fn next(&self) -> ProcessChanges {
        self.0.added.notified().await;
        std::mem::take(&mut *self.lock())
    }

    pub(in crate::store) fn add(&self, id: &InstanceId, process: Process) {
        let mut news = self.lock();
        if news.added.len() == LONGEST {
            *news = ProcessChanges { added: Vec::new(), others: true };
        }
        if !news.others {
            news.added.push((id.clone(), process));
        }
        drop(news);
        self.0.added.notify_one();
    }

    /// Some process may have come or changed.
    pub(in crate::store) fn add_others(&self) {
        self.lock().others = true;
        self.0.added.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, ProcessChanges> {
        self.0.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn news_is_taken_once_and_bounded() {
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
