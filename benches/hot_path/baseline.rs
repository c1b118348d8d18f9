//! The baseline: a file with the instruction count of each path.

use std::path::Path;
use std::process::Command;
use std::{fs, io};

#[derive(Default)]
pub struct Baseline {
    /// Processor architecture and compiler, on which the counts depend.
    platform: String,
    counts: Vec<(String, u64)>,
}

impl Baseline {
    pub fn new(platform: String) -> Self {
        Self { platform, counts: Vec::new() }
    }

    /// The architecture and compiler of this machine.
    pub fn current_platform() -> String {
        let compiler = Command::new("rustc").arg("--version").output().map(|output| output.stdout).unwrap_or_default();
        let compiler = String::from_utf8_lossy(&compiler);
        let version = compiler.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        format!("{} {version}", std::env::consts::ARCH)
    }

    /// Reads a file; empty if there is none.
    pub fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap_or_default();
        let mut lines = text.lines();
        let platform = lines.next().unwrap_or_default().to_owned();
        let counts = lines.filter_map(|line| line.split_once(' '));
        Self { platform, counts: counts.filter_map(|(path, n)| Some((path.into(), n.parse().ok()?))).collect() }
    }

    pub fn platform(&self) -> &str {
        if self.platform.is_empty() { "nothing" } else { &self.platform }
    }

    pub fn is_of_platform(&self, here: &str) -> bool {
        self.platform == here
    }

    pub fn count(&self, path: &str) -> Option<u64> {
        self.counts.iter().find(|(known, _)| known == path).map(|(_, count)| *count)
    }

    pub fn add(&mut self, path: &str, count: u64) {
        self.counts.push((path.into(), count));
    }

    pub fn write(&self, file: &Path) -> io::Result<()> {
        let counts = self.counts.iter().map(|(path, count)| format!("{path} {count}\n")).collect::<String>();
        fs::write(file, format!("{}\n{counts}", self.platform))
    }
}
