//! The counts that were found before, in a file of a line for each path.

use std::path::Path;
use std::process::Command;
use std::{fs, io};

#[derive(Default)]
pub struct Baseline {
    /// What they were counted on: other processors and other compilers count differently.
    of: String,
    counts: Vec<(String, u64)>,
}

impl Baseline {
    pub fn new(of: String) -> Self {
        Self { of, counts: Vec::new() }
    }

    /// What counts are counted on here.
    pub fn header() -> String {
        let compiler = Command::new("rustc").arg("--version").output().map(|output| output.stdout).unwrap_or_default();
        let compiler = String::from_utf8_lossy(&compiler);
        let version = compiler.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        format!("{} {version}", std::env::consts::ARCH)
    }

    /// What a file says; nothing, if there is none.
    pub fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap_or_default();
        let mut lines = text.lines();
        let of = lines.next().unwrap_or_default().to_owned();
        let counts = lines.filter_map(|line| line.split_once(' '));
        Self { of, counts: counts.filter_map(|(path, n)| Some((path.into(), n.parse().ok()?))).collect() }
    }

    pub fn of(&self) -> &str {
        if self.of.is_empty() { "nothing" } else { &self.of }
    }

    pub fn is_of(&self, here: &str) -> bool {
        self.of == here
    }

    pub fn count(&self, path: &str) -> Option<u64> {
        self.counts.iter().find(|(known, _)| known == path).map(|(_, count)| *count)
    }

    pub fn note(&mut self, path: &str, count: u64) {
        self.counts.push((path.into(), count));
    }

    pub fn write(&self, file: &Path) -> io::Result<()> {
        let counts = self.counts.iter().map(|(path, count)| format!("{path} {count}\n")).collect::<String>();
        fs::write(file, format!("{}\n{counts}", self.of))
    }
}
