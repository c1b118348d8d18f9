//! Seeded simulation: the store, the writer's commit and all of sync run on one thread, in a world that sets clocks wrong,
//! crashes hosts, fills disks, cuts connections and restores old backups. A model checks the guarantees after each step.
//! The same seed gives the same run; a failure prints its seed and all events.
//!
//! | module | purpose |
//! |---|---|
//! | `mixed_fleet` | a day of present and earlier daemons beside clients without one, and how each judges sessions |
//! | `world` | the events, the checks, and the end of a run |
//! | `model` | the states that each session may have |
//! | `host` | a machine with its daemon |
//! | `network` | the calls between the hosts and central |
//! | `replica` | what the worker of a host uses of its store |
//! | `command` | the calls of the store |
//! | `setup`, `bugs` | settings; planted bugs that have to be detected |
//! | `stampede` | by itself: the schedulers of many hosts, and what they cost central |
//!
//! Modules import only from modules below them in this table.

mod bugs;
mod command;
mod host;
mod mixed_fleet;
mod model;
mod network;
mod replica;
mod setup;
mod stampede;
mod world;

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bugs::Bug;
use setup::Violation;
use world::World;

/// The least number of steps of a run; the largest is half as many more.
const STEPS: u64 = 70;
/// The seeds of the short form.
const SEEDS: u64 = 500;
/// The long campaign runs at least so many seeds, and for so long.
const LONG_SEEDS: u64 = 2_000;
const LONG_CAMPAIGN: Duration = Duration::from_secs(3600);

/// A run that broke a guarantee.
struct FailedRun {
    step: u64,
    violation: Violation,
    log: Vec<String>,
}

/// Runs one seed. Returns the events.
fn run(seed: u64, bug: Option<Bug>) -> Result<Vec<String>, Box<FailedRun>> {
    let name = format!("{seed}-{bug:?}-{:?}", thread::current().id());
    let mut world = World::new(seed, &name, bug);
    let steps = STEPS + seed % (STEPS / 2);
    let broken = (0..=steps).find_map(|step| {
        let outcome = if step < steps { world.step() } else { world.finish() };
        outcome.err().map(|violation| (step, violation))
    });
    match broken {
        None => Ok(world.log()),
        Some((step, violation)) => Err(Box::new(FailedRun { step, violation, log: world.log() })),
    }
}

/// Runs one seed and panics with its events if a guarantee does not hold.
fn assert_guarantees_hold(seed: u64) {
    let Err(failure) = run(seed, None) else { return };
    let FailedRun { step, violation, log } = *failure;
    for line in log {
        println!("{}", line.replace(&"e".repeat(64), "e.."));
    }
    panic!(
        "seed {seed}, step {step}: {} does not hold: {}\nrun it again: SESSIOND_TEST_SEED={seed} cargo test --lib \
         simulation",
        violation.guarantee, violation.what
    );
}

/// Calls `work` with each number, on all processors: whichever is free takes the next one.
fn for_each_in_parallel(numbers: Range<u64>, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(numbers.start);
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let take_next = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|number| numbers.contains(number));
    thread::scope(|scope| {
        let run = || std::iter::from_fn(take_next).for_each(&work);
        let threads: Vec<_> = (0..processors).map(|_| scope.spawn(run)).collect();
        for thread in threads {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

fn chosen_seed() -> Option<u64> {
    std::env::var("SESSIOND_TEST_SEED").ok()?.parse().ok()
}

#[test]
fn every_guarantee_holds_in_every_run() {
    if let Some(seed) = chosen_seed() {
        return assert_guarantees_hold(seed);
    }
    let began = Instant::now();
    if std::env::var_os("SESSIOND_TEST_LONG").is_none() {
        for_each_in_parallel(0..SEEDS, assert_guarantees_hold);
        return println!("{SEEDS} seeds in {:?}", began.elapsed());
    }
    let mut seeds = 0;
    while seeds < LONG_SEEDS || began.elapsed() < LONG_CAMPAIGN {
        for_each_in_parallel(seeds..seeds + SEEDS, assert_guarantees_hold);
        seeds += SEEDS;
    }
    println!("{seeds} seeds in {:?}", began.elapsed());
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        let (first, second) = (run(seed, None).ok(), run(seed, None).ok());
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn every_planted_bug_is_caught() {
    const WITHIN: u64 = 5_000;
    // A single one, by its name.
    let chosen = std::env::var("SESSIOND_TEST_BUG").ok();
    let bugs: Vec<_> =
        Bug::ALL.into_iter().filter(|bug| chosen.as_ref().is_none_or(|name| *name == format!("{bug:?}"))).collect();
    let missed = Mutex::new(Vec::new());
    for_each_in_parallel(0..bugs.len() as u64, |index| {
        let bug = bugs[index as usize];
        let caught = (0..WITHIN).find_map(|seed| run(seed, Some(bug)).err().map(|failure| (seed, failure)));
        match caught {
            Some((seed, failure)) => {
                let Violation { guarantee, what } = &failure.violation;
                println!("{bug:?}: caught by {guarantee} after {} seeds: {what}", seed + 1);
            }
            None => missed.lock().unwrap().push(bug),
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not caught by {WITHIN} seeds: {missed:?}");
}
