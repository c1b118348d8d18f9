//! The one place that runs clients beside a fault. They stop when the fault is over, and also when it panics: otherwise the
//! test would wait for them forever instead of failing.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Sets a flag when it is dropped.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a thread for each client, which calls `step` again and again, until `work` returns or panics. Returns the result of
/// `work`, and the clients.
pub fn run_beside<C: Send, T>(clients: Vec<C>, step: impl Fn(&mut C) + Sync, work: impl FnOnce() -> T) -> (T, Vec<C>) {
    let stop = AtomicBool::new(false);
    let run = |mut client: C| {
        while !stop.load(Ordering::Relaxed) {
            step(&mut client);
        }
        client
    };
    thread::scope(|scope| {
        let guard = SetOnDrop(&stop);
        let run = &run;
        let threads: Vec<_> = clients.into_iter().map(|client| scope.spawn(move || run(client))).collect();
        let result = work();
        drop(guard);
        let join = |thread: thread::ScopedJoinHandle<'_, C>| thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        (result, threads.into_iter().map(join).collect())
    })
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn clients_stop_when_the_work_panics() {
        let steps = AtomicU64::new(0);
        let step = |_: &mut ()| _ = steps.fetch_add(1, Ordering::Relaxed);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            run_beside(vec![(), ()], step, || {
                crate::eventually("a client runs", crate::LIMIT, || (steps.load(Ordering::Relaxed) > 0).then_some(()));
                panic!("the fault failed");
            })
        }));
        let message = *outcome.unwrap_err().downcast::<&str>().unwrap();
        assert_eq!(message, "the fault failed");
    }

    #[test]
    fn panic_of_a_client_reaches_the_test() {
        let outcome = catch_unwind(|| run_beside(vec![()], |()| panic!("a refused request"), || ()));
        // The work may be over before the client's first step.
        if let Err(panic) = outcome {
            assert_eq!(*panic.downcast::<&str>().unwrap(), "a refused request");
        }
    }

    #[test]
    fn clients_are_returned_with_what_they_gathered() {
        let steps = AtomicU64::new(0);
        let step = |count: &mut u64| {
            *count += 1;
            steps.fetch_add(1, Ordering::Relaxed);
        };
        let work =
            || crate::eventually("five steps", crate::LIMIT, || (steps.load(Ordering::Relaxed) >= 5).then_some("done"));
        let (result, counts) = run_beside(vec![0, 0], step, work);
        assert_eq!((result, counts.iter().sum::<u64>()), ("done", steps.into_inner()));
    }
}
