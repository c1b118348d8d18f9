//! Mutates seeds for a few seconds, or for ten minutes each under `--long`.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::targets::{TARGETS, Target};
use testkit::campaign;
use testkit::random::Random;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let files = fs::read_dir(folder("seeds").join(target)).expect("each target has seeds");
    let mut paths: Vec<_> = files.map(|file| file.expect("a seed").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a seed can be read")).collect()
}

/// libFuzzer's dictionary: a quoted word on each line, in which \xNN stands for a byte.
fn dictionary() -> Vec<Vec<u8>> {
    let text = fs::read_to_string(folder("dictionary")).expect("a dictionary");
    text.lines().filter_map(|line| line.strip_prefix('"')?.strip_suffix('"').map(unescaped)).collect()
}

fn unescaped(word: &str) -> Vec<u8> {
    let mut rest = word.as_bytes();
    let mut bytes = Vec::new();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match (byte, tail) {
            (b'\\', [b'x', high, low, tail @ ..]) => {
                let hex = format!("{}{}", char::from(*high), char::from(*low));
                bytes.push(u8::from_str_radix(&hex, 16).expect("two hexadecimal digits"));
                tail
            }
            (b'\\', [escaped, tail @ ..]) => {
                bytes.push(*escaped);
                tail
            }
            _ => {
                bytes.push(byte);
                tail
            }
        };
    }
    bytes
}

struct Mutator {
    seeds: Vec<Vec<u8>>,
    dictionary: Vec<Vec<u8>>,
    random: Random,
}

impl Mutator {
    fn below(&mut self, limit: usize) -> usize {
        self.random.below(limit as u64) as usize
    }

    fn seed(&mut self) -> Vec<u8> {
        let which = self.below(self.seeds.len());
        self.seeds[which].clone()
    }

    /// A seed, changed in a few places.
    fn next(&mut self) -> Vec<u8> {
        let mut bytes = self.seed();
        for _ in 0..=self.below(6) {
            self.change(&mut bytes);
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        let end = at + self.below((bytes.len() - at + 1).min(32));
        match self.below(8) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.insert(at, self.random.next() as u8),
            3 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << self.random.below(8)),
            4 => {
                let word = self.below(self.dictionary.len());
                bytes.splice(at..end, self.dictionary[word].iter().copied());
            }
            5 => {
                let other = self.seed();
                let from = self.below(other.len() + 1);
                bytes.splice(at..end, other[from..].iter().copied());
            }
            6 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ => {
                // Seldom very long: each limit of length is met, and there is time for much else.
                let most = if self.below(16) == 0 { 4000 } else { 40 };
                let part = bytes[at..end].repeat(1 + self.below(most));
                bytes.splice(at..at, part);
            }
        }
    }
}

fn hammer(name: &str, target: Target) {
    let mut mutator =
        Mutator { seeds: seeds(name), dictionary: dictionary(), random: Random::of_campaign(&format!("fuzz {name}")) };
    for seed in mutator.seeds.clone() {
        attempt(name, target, &seed);
    }
    let deadline = Instant::now() + Duration::from_secs(campaign(2, 600));
    let mut tried = 0;
    while Instant::now() < deadline {
        attempt(name, target, &mutator.next());
        tried += 1;
    }
    println!("fuzz {name}: {tried} inputs");
}

fn attempt(name: &str, target: Target, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        let shown = input.escape_ascii().to_string();
        println!("fuzz {name}: an input of {} bytes breaks a promise: {shown:.4000}", input.len());
        resume_unwind(panic);
    }
}

macro_rules! fuzzed {
    ($($name:ident),*) => {$(
        #[test]
        fn $name() {
            let name = stringify!($name);
            let (_, target) = TARGETS.iter().find(|(found, _)| *found == name).expect("a target of that name");
            hammer(name, *target);
        }
    )*};
}
fuzzed!(bodies, names, answers, config, identity, central_url, api);
