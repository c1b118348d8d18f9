//! The last lines that a program writes to stderr, recorded while everything is passed on.
//!
//! A terminal is left to the program: a pipe in its place would change colours and prompts, so nothing is recorded there.
//! Nor is it where stdout and stderr are the same file, because a pipe for one of them would change the order of the two.
//! Elsewhere the program writes into a pipe, and a thread passes each piece on unchanged as soon as it arrives. If stderr
//! cannot be written, the pipe is closed, so that the program notices it as it would without us.
//!
//! A process that the program left behind may keep the pipe open. A `cat` takes the pipe over then, so that what that process
//! writes still arrives, and `sessiond exec` ends when the program does.

use std::io::{self, IsTerminal, PipeReader, PipeWriter, Read};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::fstat;
use rustix::io::Errno;

use crate::domain::redact;

/// How much of the end is kept, in bytes.
const KEPT: usize = 4096;
/// How many lines of the end are recorded, and how many characters.
const MAX_LINES: usize = 12;
const MAX_CHARS: usize = 440;
/// How long the pipe is read after the program has ended, if another process keeps it open.
const DRAIN: Duration = Duration::from_millis(100);

/// Passes on what a program writes to stderr, until it has ended.
pub(super) struct StderrTail {
    reader: JoinHandle<Vec<u8>>,
    /// Closed when the program has ended.
    running: PipeWriter,
}

impl StderrTail {
    /// Gives the program a pipe for stderr. `None`: it writes to this process's stderr itself, and nothing is recorded.
    pub(super) fn begin(command: &mut Command) -> Option<Self> {
        if io::stderr().is_terminal() || is_one_file() {
            return None;
        }
        let (pipe, program) = io::pipe().ok()?;
        let (ended, running) = io::pipe().ok()?;
        let reader = thread::Builder::new().spawn(move || pass_on(pipe, &ended)).ok()?;
        command.stderr(program);
        Some(Self { reader, running })
    }

    /// The last lines, without secrets. To be called once the program has ended and its `Command` is dropped.
    pub(super) fn end(self) -> String {
        drop(self.running);
        last_lines(&self.reader.join().unwrap_or_default())
    }
}

/// Whether stdout and stderr are one file, or stderr is closed.
fn is_one_file() -> bool {
    let file = |about: rustix::fs::Stat| (about.st_dev, about.st_ino);
    fstat(io::stderr()).map_or(true, |stderr| fstat(io::stdout()).is_ok_and(|stdout| file(stdout) == file(stderr)))
}

/// Passes on until the pipe is closed by all, or by the program and for [`DRAIN`] by no other. Returns the end.
fn pass_on(mut pipe: PipeReader, ended: &PipeReader) -> Vec<u8> {
    let mut tail = Vec::new();
    let mut buffer = [0; 8192];
    let mut until: Option<Instant> = None;
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let (is_readable, has_ended) = match wait(&pipe, ended, left) {
            Ok(ready) => ready,
            Err(_) => return tail,
        };
        if has_ended && until.is_none() {
            until = Some(Instant::now() + DRAIN);
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            hand_over(pipe);
            return tail;
        }
        if is_readable {
            match pipe.read(&mut buffer) {
                Ok(0) => return tail,
                Ok(length) => {
                    keep(&mut tail, &buffer[..length]);
                    if write_to_stderr(&buffer[..length]).is_err() {
                        return tail;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return tail,
            }
        }
    }
}

/// Waits for the pipe, and for the end of the program if no time is set. Returns which of the two happened.
fn wait(pipe: &PipeReader, ended: &PipeReader, left: Option<Duration>) -> rustix::io::Result<(bool, bool)> {
    let mut polled = [PollFd::new(pipe, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
    let count = if left.is_some() { 1 } else { 2 };
    let time = left.map(|left| Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() });
    match poll(&mut polled[..count], time.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error),
    }
    Ok((!polled[0].revents().is_empty(), !polled[1].revents().is_empty()))
}

fn keep(tail: &mut Vec<u8>, piece: &[u8]) {
    tail.extend_from_slice(piece);
    let excess = tail.len().saturating_sub(KEPT);
    tail.drain(..excess);
}

/// Writes all, also if stderr does not block.
fn write_to_stderr(mut piece: &[u8]) -> rustix::io::Result<()> {
    let stderr = io::stderr();
    while !piece.is_empty() {
        match rustix::io::write(&stderr, piece) {
            Ok(written) => piece = &piece[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Has another process pass on the rest.
fn hand_over(pipe: PipeReader) {
    let Ok(stderr) = io::stderr().as_fd().try_clone_to_owned() else { return };
    let mut cat = Command::new("cat");
    let _ = cat.current_dir("/").stdin(pipe).stdout(stderr).stderr(Stdio::null()).spawn();
}

/// The last lines of a text, at most [`MAX_LINES`] and [`MAX_CHARS`], without secrets and colours.
fn last_lines(tail: &[u8]) -> String {
    let text = String::from_utf8_lossy(tail);
    // The first line may be the end of one, whose secret would not be recognised.
    let text = match text.split_once('\n') {
        Some((_, rest)) if tail.len() >= KEPT => rest,
        _ => &text,
    };
    let text = without_colours(text);
    let text = redact::text(&text).unwrap_or(text);
    let lines: Vec<&str> = text.split(['\n', '\r']).map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(MAX_LINES)..].join("\n");
    let excess = last.chars().count().saturating_sub(MAX_CHARS);
    last.chars().skip(excess).collect()
}

/// The text without sequences such as `ESC [ 31 m`.
fn without_colours(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut rest = part.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, ';' | '?')).chars();
        rest.next();
        plain.push_str(rest.as_str());
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines_are_bounded_and_hold_no_secret() {
        assert_eq!(last_lines(b""), "");
        assert_eq!(last_lines(b"\x1b[31merror\x1b[0m: no\r\n\n  at x\n"), "error: no\n  at x");
        let many: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let kept = last_lines(many.as_bytes());
        assert!(kept.starts_with("line 88\n") && kept.ends_with("line 99"), "{kept}");
        let secret = "ghp_abcdefghijklmnopqrstuvwxyz0123456789";
        assert!(!last_lines(format!("token {secret}\n").as_bytes()).contains("abcdefgh"));
        let wide = last_lines("\u{e4}".repeat(5000).as_bytes());
        assert_eq!(wide.chars().count(), MAX_CHARS);
        assert_eq!(last_lines(b"half \xff\x1b["), "half \u{fffd}");
        assert_eq!(without_colours("a\u{1b}[\u{e4}b"), "ab");
    }

    #[test]
    fn only_the_end_is_kept() {
        let mut tail = Vec::new();
        keep(&mut tail, &[b'a'; 5000]);
        keep(&mut tail, b"end");
        assert_eq!((tail.len(), tail.ends_with(b"aend")), (KEPT, true));
    }
}
