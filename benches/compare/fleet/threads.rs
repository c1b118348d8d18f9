//! The threads on which the hosts of a fleet run. On a single one they would wait for each other before central makes them
//! wait.

use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// As many threads as the hosts and central have processors.
const THREADS: usize = 2;

/// The threads of stores that serve queries, of all hosts of a thread together.
const BLOCKING_THREADS: usize = 4;

/// How long the work that is under way may take to end.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

pub struct HostThreads(Vec<HostThread>);

/// A thread with its own runtime. It ends when this is dropped.
struct HostThread {
    handle: Handle,
    _stop: oneshot::Sender<()>,
}

impl HostThreads {
    pub fn start() -> Self {
        Self((0..THREADS).map(|_| HostThread::start()).collect())
    }

    /// Where this host runs.
    pub fn of_host(&self, number: usize) -> &Handle {
        &self.0[number % self.0.len()].handle
    }
}

impl HostThread {
    fn start() -> Self {
        let mut builder = Builder::new_current_thread();
        let runtime = builder.max_blocking_threads(BLOCKING_THREADS).enable_all().build().expect("a runtime");
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::spawn(move || {
            _ = runtime.block_on(stopped);
            runtime.shutdown_timeout(SHUTDOWN_LIMIT);
        });
        Self { handle, _stop: stop }
    }
}
