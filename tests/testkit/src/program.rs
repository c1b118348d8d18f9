//! Programs that a test writes and then runs.
//!
//! A file that some process has open for writing cannot be executed (ETXTBSY). What a test opens is inherited for a
//! moment by each program that another test starts at the same time; so another program does the writing.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes an executable script.
pub fn write_script(path: &Path, text: &str) {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "cat >\"$0\" && chmod 755 \"$0\""]).arg(path).stdin(Stdio::piped());
    let mut shell = shell.spawn().expect("a shell can be started");
    shell.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("the shell reads the script");
    assert!(shell.wait().is_ok_and(|status| status.success()), "{} cannot be written", path.display());
}

/// Copies a program.
pub fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").arg(from).arg(to).status();
    assert!(status.is_ok_and(|status| status.success()), "{} cannot be copied to {}", from.display(), to.display());
}
