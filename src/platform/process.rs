//! Processes: whether one still runs, and waiting for its exit.
//!
//! A process is identified by pid and start time, since the kernel reuses pids.

use std::time::Duration;

use crate::domain::Process;

/// How often a process is checked where the kernel cannot report its exit.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The start time of the process with this pid, in clock ticks since boot; `None` if there is no such process, it is a
/// zombie, or /proc hides it (the mount option hidepid, systemd's ProtectProc=).
#[cfg(target_os = "linux")]
pub fn start_time(pid: i32) -> Option<i64> {
    linux::parse_start_time(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The start time of the process with this pid, in microseconds since 1970; `None` if there is no such process, it is a
/// zombie, or it is another user's and this process is not root.
#[cfg(target_os = "macos")]
pub fn start_time(pid: i32) -> Option<i64> {
    macos::start_time(pid)
}

/// A process as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    pub(crate) parent: i32,
    /// The name of its program; the kernel may truncate it.
    pub name: String,
    /// As in [`start_time`].
    pub started: Option<i64>,
}

/// Describes the process with this pid.
pub fn process_info(pid: i32) -> Option<ProcessInfo> {
    #[cfg(target_os = "linux")]
    return linux::process_info(&std::fs::read(format!("/proc/{pid}/stat")).ok()?);
    #[cfg(target_os = "macos")]
    return macos::process_info(pid);
}

/// The command line of the process with this pid; `None` where the system does not show it.
pub fn command_line(pid: i32) -> Option<Vec<String>> {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = words.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    Some(words.filter(|word| !word.is_empty()).collect())
}

/// Whether this process still runs; another process that reuses the pid does not count.
pub fn is_running(process: Process) -> bool {
    start_time(process.pid) == Some(process.started)
}

/// Whether the current process ignores a signal. If so (as after nohup), its child processes should ignore it too.
pub fn is_signal_ignored(signal: i32) -> bool {
    #[cfg(target_os = "linux")]
    return std::fs::read_to_string("/proc/self/status").is_ok_and(|status| linux::ignores(&status, signal));
    // macOS does not report it; no signal has a number below 1.
    #[cfg(target_os = "macos")]
    return signal < 1;
}

/// Waits until this process has ended. Must be called within a tokio runtime with I/O and time.
pub async fn wait_for_exit(process: Process) {
    #[cfg(target_os = "linux")]
    if linux::wait_for_exit(process).await.is_ok() {
        return;
    }
    // There is no pidfd: another system, an old kernel, or no free descriptor.
    poll_until_exit(process, POLL_INTERVAL).await;
}

async fn poll_until_exit(process: Process, period: Duration) {
    while start_time(process.pid) == Some(process.started) {
        tokio::time::sleep(period).await;
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;

    use rustix::io::Errno;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::{Process, ProcessInfo, start_time};

    /// Parses /proc/PID/stat: the state in field 3, the start time in field 22.
    pub(super) fn parse_start_time(stat: &[u8]) -> Option<i64> {
        // Field 2 is the command in parentheses, and may itself contain spaces and parentheses.
        let after_command = stat.iter().rposition(|&byte| byte == b')')? + 1;
        let mut fields = std::str::from_utf8(stat.get(after_command..)?).ok()?.split_ascii_whitespace();
        let state = fields.next()?;
        if matches!(state, "Z" | "X" | "x") {
            return None;
        }
        fields.nth(18)?.parse().ok()
    }

    /// Parses /proc/PID/status: the mask of ignored signals, in hexadecimal.
    pub(super) fn ignores(status: &str, signal: i32) -> bool {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        u32::try_from(signal - 1).ok().and_then(|bit| mask.checked_shr(bit)).is_some_and(|mask| mask & 1 == 1)
    }

    /// Parses /proc/PID/stat: the command in field 2, the parent in field 4, the start time in field 22.
    pub(super) fn process_info(stat: &[u8]) -> Option<ProcessInfo> {
        let text = String::from_utf8_lossy(stat);
        let (before, after) = text.rsplit_once(')')?;
        let name = before.split_once('(')?.1.to_owned();
        let parent = after.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some(ProcessInfo { parent, name, started: parse_start_time(stat) })
    }

    /// # Errors
    /// The kernel provides no pidfd, or none that can be polled.
    pub(super) async fn wait_for_exit(process: Process) -> io::Result<()> {
        let Some(pid) = Some(process.pid).filter(|&pid| pid > 0).and_then(Pid::from_raw) else { return Ok(()) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(()),
            opened => opened?,
        };
        // Compared after opening: the pidfd refers to one process, even if the pid is reused later.
        if start_time(process.pid) != Some(process.started) {
            return Ok(());
        }
        let pidfd = crate::platform::readable(pidfd)?;
        pidfd.readable().await.map(drop)
    }
}

#[cfg(target_os = "macos")]
mod macos {
    use std::mem::{MaybeUninit, size_of};

    use super::ProcessInfo;

    pub(super) fn start_time(pid: i32) -> Option<i64> {
        start(&info(pid)?)
    }

    pub(super) fn process_info(pid: i32) -> Option<ProcessInfo> {
        let info = info(pid)?;
        let name = info.pbi_comm.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte as u8)).collect();
        Some(ProcessInfo { parent: i32::try_from(info.pbi_ppid).ok()?, name, started: start(&info) })
    }

    fn start(info: &libc::proc_bsdinfo) -> Option<i64> {
        if info.pbi_status == libc::SZOMB {
            return None;
        }
        let micros = info.pbi_start_tvsec.checked_mul(1_000_000)?.checked_add(info.pbi_start_tvusec)?;
        i64::try_from(micros).ok()
    }

    fn info(pid: i32) -> Option<libc::proc_bsdinfo> {
        let mut info = MaybeUninit::<libc::proc_bsdinfo>::zeroed();
        let size = i32::try_from(size_of::<libc::proc_bsdinfo>()).ok()?;
        // SAFETY: the kernel writes at most `size` bytes to a buffer of that size, and every bit pattern,
        // zeroes among them, is a valid proc_bsdinfo: it is made of integers.
        #[allow(unsafe_code)]
        unsafe {
            let written = libc::proc_pidinfo(pid, libc::PROC_PIDTBSDINFO, 0, info.as_mut_ptr().cast(), size);
            (written == size).then(|| info.assume_init())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::time::Instant;

    use super::*;

    /// Killed and reaped at the end of the test, however it ends.
    struct Sleeper(Child);

    impl Sleeper {
        fn start() -> Self {
            Self(Command::new("sleep").arg("60").spawn().unwrap())
        }

        fn process(&self) -> Process {
            let pid = i32::try_from(self.0.id()).unwrap();
            Process { pid, started: start_time(pid).unwrap() }
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    /// Whether each variant reports the exit within the time.
    fn exit_reported(process: Process, within: Duration) -> Vec<bool> {
        run(async {
            let polled = tokio::time::timeout(within, poll_until_exit(process, Duration::from_millis(5))).await.is_ok();
            let seen = tokio::time::timeout(within, wait_for_exit(process)).await.is_ok();
            #[cfg(target_os = "linux")]
            let by_pidfd =
                tokio::time::timeout(within, linux::wait_for_exit(process)).await.map(|result| result.unwrap()).is_ok();
            #[cfg(not(target_os = "linux"))]
            let by_pidfd = seen;
            vec![polled, seen, by_pidfd]
        })
    }

    const SOON: Duration = Duration::from_millis(60);

    #[test]
    fn waits_while_the_process_runs() {
        let sleeper = Sleeper::start();
        assert_eq!(exit_reported(sleeper.process(), SOON), [false; 3]);
    }

    #[test]
    fn returns_at_once_for_an_ended_process() {
        let mut sleeper = Sleeper::start();
        let process = sleeper.process();
        sleeper.0.kill().unwrap();
        sleeper.0.wait().unwrap();
        assert_eq!(start_time(process.pid), None);
        assert_eq!(exit_reported(process, SOON), [true; 3]);
    }

    #[test]
    fn a_zombie_has_ended() {
        let mut sleeper = Sleeper::start();
        let process = sleeper.process();
        sleeper.0.kill().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while start_time(process.pid).is_some() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(start_time(process.pid), None, "it has not been waited for, so it is a zombie");
        assert_eq!(exit_reported(process, SOON), [true; 3]);
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let sleeper = Sleeper::start();
        let process = sleeper.process();
        assert_eq!(exit_reported(Process { started: process.started - 1, ..process }, SOON), [true; 3]);
    }

    #[test]
    fn invalid_pids_have_no_process() {
        for pid in [0, -1, i32::MIN, i32::MAX] {
            assert_eq!(start_time(pid), None);
            assert_eq!(exit_reported(Process { pid, started: 1 }, SOON), [true; 3], "{pid}");
        }
    }

    #[test]
    fn reports_the_exit_while_waiting() {
        let mut sleeper = Sleeper::start();
        let process = sleeper.process();
        run(async {
            let waiting = tokio::spawn(wait_for_exit(process));
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(!waiting.is_finished());
            sleeper.0.kill().unwrap();
            tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
        });
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn parses_stat_with_any_command_name() {
        let line = |command: &str, state: &str| {
            format!("42 ({command}) {state} 1 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 10 11\n")
        };
        for command in ["sleep", "a b", "a) S 1 (b", ") Z", "("] {
            assert_eq!(linux::parse_start_time(line(command, "S").as_bytes()), Some(987_654), "{command}");
            assert_eq!(linux::parse_start_time(line(command, "Z").as_bytes()), None, "{command}");
        }
        assert_eq!(linux::parse_start_time(b"42 (\xff\xfe) S 1 42 42 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 7 10"), Some(7));
        for truncated in ["", "42 (sleep", "42 (sleep)", "42 (sleep) S 1 2"] {
            assert_eq!(linux::parse_start_time(truncated.as_bytes()), None, "{truncated}");
        }
    }
}
