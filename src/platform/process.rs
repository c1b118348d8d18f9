//! Whether a process still lives, and is still the same one: a pid alone may have been given away again.

use std::time::Duration;

use crate::store::Process;

/// How often a process is looked at where the kernel cannot tell of its end.
const POLL: Duration = Duration::from_secs(1);

/// When the process with this pid started; nothing if there is none, or only a zombie.
///
/// On Linux in clock ticks since the machine booted. A process that /proc hides (the mount option hidepid,
/// systemd's ProtectProc=) counts as none.
#[cfg(target_os = "linux")]
pub fn started(pid: i32) -> Option<i64> {
    linux::start_time(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// When the process with this pid started; nothing if there is none, or only a zombie.
///
/// On macOS in microseconds since 1970. A process of another user counts as none, unless root asks.
#[cfg(target_os = "macos")]
pub fn started(pid: i32) -> Option<i64> {
    macos::start_time(pid)
}

/// What the kernel keeps of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    pub parent: i32,
    /// As far as it is kept.
    pub name: String,
    /// As in [`started`].
    pub started: Option<i64>,
}

/// What there is to know of the process with this pid.
pub fn about(pid: i32) -> Option<About> {
    #[cfg(target_os = "linux")]
    return linux::about(&std::fs::read(format!("/proc/{pid}/stat")).ok()?);
    #[cfg(target_os = "macos")]
    return macos::about(pid);
}

/// Whether this very process still runs.
pub fn lives(process: Process) -> bool {
    started(process.pid) == Some(process.started)
}

/// Whether this process ignores a signal, as one that nohup started does, and all it starts should.
pub fn ignores(signal: i32) -> bool {
    #[cfg(target_os = "linux")]
    return std::fs::read_to_string("/proc/self/status").is_ok_and(|status| linux::ignores(&status, signal));
    // macOS does not tell; no signal has a number below 1.
    #[cfg(target_os = "macos")]
    return signal < 1;
}

/// Returns when this process has ended, at once if it has already. Needs a tokio runtime with I/O and time.
pub async fn exited(process: Process) {
    #[cfg(target_os = "linux")]
    if linux::exited(process).await.is_ok() {
        return;
    }
    // No pidfd here: another system, an old kernel, or no descriptor left.
    exited_by_polling(process, POLL).await;
}

async fn exited_by_polling(process: Process, period: Duration) {
    while started(process.pid) == Some(process.started) {
        tokio::time::sleep(period).await;
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;

    use rustix::io::Errno;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::{About, Process, started};

    /// Reads /proc/PID/stat: the state in field 3, the start time in field 22.
    pub(super) fn start_time(stat: &[u8]) -> Option<i64> {
        // Field 2 is the command in parentheses, and may itself contain spaces and parentheses.
        let behind_command = stat.iter().rposition(|&byte| byte == b')')? + 1;
        let mut fields = std::str::from_utf8(stat.get(behind_command..)?).ok()?.split_ascii_whitespace();
        let state = fields.next()?;
        if matches!(state, "Z" | "X" | "x") {
            return None;
        }
        fields.nth(18)?.parse().ok()
    }

    /// Reads /proc/PID/status: a mask of what is ignored, in hexadecimal.
    pub(super) fn ignores(status: &str, signal: i32) -> bool {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        u32::try_from(signal - 1).ok().and_then(|bit| mask.checked_shr(bit)).is_some_and(|mask| mask & 1 == 1)
    }

    /// Reads /proc/PID/stat: besides the start, the command in field 2 and the parent in field 4.
    pub(super) fn about(stat: &[u8]) -> Option<About> {
        let text = String::from_utf8_lossy(stat);
        let (before, behind) = text.rsplit_once(')')?;
        let name = before.split_once('(')?.1.to_owned();
        let parent = behind.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some(About { parent, name, started: start_time(stat) })
    }

    /// # Errors
    /// The kernel gives no pidfd, or none that can be waited for.
    pub(super) async fn exited(process: Process) -> io::Result<()> {
        let Some(pid) = Some(process.pid).filter(|&pid| pid > 0).and_then(Pid::from_raw) else { return Ok(()) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(()),
            opened => opened?,
        };
        // Opened first, compared then: from here on the descriptor cannot come to mean another process.
        if started(process.pid) != Some(process.started) {
            return Ok(());
        }
        let pidfd = crate::platform::readable(pidfd)?;
        pidfd.readable().await.map(drop)
    }
}

#[cfg(target_os = "macos")]
mod macos {
    use std::mem::{MaybeUninit, size_of};

    use super::About;

    pub(super) fn start_time(pid: i32) -> Option<i64> {
        start(&info(pid)?)
    }

    pub(super) fn about(pid: i32) -> Option<About> {
        let info = info(pid)?;
        let name = info.pbi_comm.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte as u8)).collect();
        Some(About { parent: i32::try_from(info.pbi_ppid).ok()?, name, started: start(&info) })
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
            Process { pid, started: started(pid).unwrap() }
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

    /// Whether each variant, for itself, sees that the process has ended within the time.
    fn seen_dead(process: Process, within: Duration) -> Vec<bool> {
        run(async {
            let polled =
                tokio::time::timeout(within, exited_by_polling(process, Duration::from_millis(5))).await.is_ok();
            let seen = tokio::time::timeout(within, exited(process)).await.is_ok();
            #[cfg(target_os = "linux")]
            let by_pidfd = tokio::time::timeout(within, linux::exited(process)).await.map(|told| told.unwrap()).is_ok();
            #[cfg(not(target_os = "linux"))]
            let by_pidfd = seen;
            vec![polled, seen, by_pidfd]
        })
    }

    const SOON: Duration = Duration::from_millis(60);

    #[test]
    fn a_living_process_is_waited_for() {
        let sleeper = Sleeper::start();
        assert_eq!(seen_dead(sleeper.process(), SOON), [false; 3]);
    }

    #[test]
    fn a_dead_process_is_seen_at_once() {
        let mut sleeper = Sleeper::start();
        let process = sleeper.process();
        sleeper.0.kill().unwrap();
        sleeper.0.wait().unwrap();
        assert_eq!(started(process.pid), None);
        assert_eq!(seen_dead(process, SOON), [true; 3]);
    }

    #[test]
    fn a_zombie_is_dead() {
        let mut sleeper = Sleeper::start();
        let process = sleeper.process();
        sleeper.0.kill().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while started(process.pid).is_some() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(started(process.pid), None, "nobody has waited for it, so it is a zombie by now");
        assert_eq!(seen_dead(process, SOON), [true; 3]);
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let sleeper = Sleeper::start();
        let process = sleeper.process();
        assert_eq!(seen_dead(Process { started: process.started - 1, ..process }, SOON), [true; 3]);
    }

    #[test]
    fn numbers_that_are_no_pid_are_no_process() {
        for pid in [0, -1, i32::MIN, i32::MAX] {
            assert_eq!(started(pid), None);
            assert_eq!(seen_dead(Process { pid, started: 1 }, SOON), [true; 3], "{pid}");
        }
    }

    #[test]
    fn the_end_is_told_while_waiting() {
        let mut sleeper = Sleeper::start();
        let process = sleeper.process();
        run(async {
            let waiting = tokio::spawn(exited(process));
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(!waiting.is_finished());
            sleeper.0.kill().unwrap();
            tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
        });
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_command_may_contain_anything() {
        let line = |command: &str, state: &str| {
            format!("42 ({command}) {state} 1 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 10 11\n")
        };
        for command in ["sleep", "a b", "a) S 1 (b", ") Z", "("] {
            assert_eq!(linux::start_time(line(command, "S").as_bytes()), Some(987_654), "{command}");
            assert_eq!(linux::start_time(line(command, "Z").as_bytes()), None, "{command}");
        }
        assert_eq!(linux::start_time(b"42 (\xff\xfe) S 1 42 42 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 7 10"), Some(7));
        for torn in ["", "42 (sleep", "42 (sleep)", "42 (sleep) S 1 2"] {
            assert_eq!(linux::start_time(torn.as_bytes()), None, "{torn}");
        }
    }
}
