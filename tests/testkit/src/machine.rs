//! A machine with systemd as its process 1: systemd-nspawn on an overlay of a Debian that tests/run keeps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{PoisonError, RwLockWriteGuard};
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::eventually;
use crate::skip::skip;
use crate::volume::MOUNTS;

const LIMIT: Duration = Duration::from_secs(60);
/// The hierarchies that nspawn needs a group of its own in, where the host still has version 1 of them.
const HIERARCHIES: [&str; 3] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup"];

/// Joins its groups, then becomes the container.
const BOOT: &str = r#"
for group in $JOIN; do echo $$ >"$group/cgroup.procs" || exit 1; done
exec systemd-nspawn --quiet --boot --register=no --keep-unit --private-network \
    --machine="$NAME" --directory="$ROOT" </dev/null
"#;

pub struct Machine {
    dir: TempDir,
    groups: Vec<PathBuf>,
    container: Child,
    leader: Pid,
    _without_volumes: RwLockWriteGuard<'static, ()>,
}

/// Where tests/run keeps the Debian.
pub fn debian() -> PathBuf {
    crate::target_tmp().with_file_name("lab").join("bookworm")
}

impl Machine {
    /// A machine that has booted. Where there can be none, `test` is skipped.
    pub fn for_test(test: &str) -> Option<Self> {
        Self::boot().map_err(|lacking| skip(test, lacking)).ok()
    }

    fn boot() -> Result<Self, String> {
        if !geteuid().is_root() {
            return Err("root, to boot a container".into());
        }
        if !debian().join("usr/lib/systemd/systemd").exists() {
            return Err(format!("a Debian in {}, which tests/run puts there", debian().display()));
        }
        let without_volumes = MOUNTS.write().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().expect("a folder for a machine");
        for part in ["upper", "work", "root"] {
            fs::create_dir(dir.path().join(part)).expect("a folder for a machine");
        }
        mount(dir.path())?;
        let name = dir.path().file_name().unwrap_or_default().to_string_lossy().replace('.', "sessiond-test-");
        let groups: Vec<PathBuf> = hierarchies().map(|hierarchy| hierarchy.join(&name)).collect();
        for group in &groups {
            fs::create_dir(group).map_err(|error| format!("a control group of its own: {error}"))?;
        }
        let console = fs::File::create(dir.path().join("console")).expect("a console");
        let words = groups.iter().map(|group| group.display().to_string()).collect::<Vec<_>>().join(" ");
        let container = Command::new("bash")
            .args(["-c", BOOT])
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .env("JOIN", &words)
            .env("NAME", &name)
            .env("ROOT", dir.path().join("root"))
            .stdout(console.try_clone().expect("a console"))
            .stderr(console)
            .spawn()
            .map_err(|error| format!("bash: {error}"))?;
        let leader = Pid::from_child(&container);
        let mut machine = Self { leader, dir, groups, container, _without_volumes: without_volumes };
        machine.await_boot()?;
        Ok(machine)
    }

    fn await_boot(&mut self) -> Result<(), String> {
        let pid = Pid::from_child(&self.container).as_raw_nonzero();
        let children = format!("/proc/{pid}/task/{pid}/children");
        let console = self.dir.path().join("console");
        let said = move || fs::read_to_string(&console).unwrap_or_default();
        // nspawn's first children do no more than prepare: process 1 is the one that answers.
        eventually("the machine is up", LIMIT, || {
            if let Ok(Some(_)) = self.container.try_wait() {
                return Some(Err(format!("systemd-nspawn, which says: {}", said().trim())));
            }
            let first = fs::read_to_string(&children).ok()?.split_whitespace().next()?.parse().ok();
            self.leader = first.and_then(Pid::from_raw)?;
            let state = self.run("systemctl is-system-running").stdout;
            matches!(String::from_utf8_lossy(&state).trim(), "running" | "degraded").then_some(Ok(()))
        })
    }

    /// A file of the machine, as it is seen from here.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.dir.path().join("root").join(inside.trim_start_matches('/'))
    }

    /// A shell command in the machine, not yet run.
    pub fn command(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--all", "--target", &self.leader.as_raw_nonzero().to_string(), "env", "-i"]);
        command.args(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]);
        command.args(["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "sh", "-c", script]).stdin(Stdio::null());
        command
    }

    pub fn run(&self, script: &str) -> Output {
        self.command(script).output().expect("nsenter can be run")
    }

    /// Runs what is expected to work; answers what it printed, without the last newline.
    pub fn ok(&self, script: &str) -> String {
        let output = self.run(script);
        let [stdout, stderr] =
            [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let journal =
            || String::from_utf8_lossy(&self.run("journalctl -u sessiond -n 40 --no-pager").stdout).into_owned();
        assert!(output.status.success(), "{script}: {}\n{stdout}{stderr}\n{}", output.status, journal());
        stdout.trim_end_matches('\n').to_owned()
    }
}

fn hierarchies() -> impl Iterator<Item = &'static Path> {
    let version_1 = Path::new(HIERARCHIES[0]).is_dir();
    HIERARCHIES.into_iter().map(Path::new).filter(move |path| path.is_dir() && (path.ends_with("cgroup") != version_1))
}

fn mount(dir: &Path) -> Result<(), String> {
    let [lower, upper, work] = [debian(), dir.join("upper"), dir.join("work")].map(|path| path.display().to_string());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let output =
        Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(dir.join("root")).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("to mount an overlay: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("to mount an overlay: {error}")),
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Whatever runs in there ends with its process 1, and that with nspawn.
        _ = kill_process(self.leader, Signal::KILL);
        _ = self.container.kill();
        _ = self.container.wait();
        _ = Command::new("umount").arg("--lazy").arg(self.dir.path().join("root")).output();
        for group in &self.groups {
            remove_group(group);
        }
    }
}

/// A control group is removed once its children and its last process have ended, which takes a while.
fn remove_group(group: &Path) {
    for inner in fs::read_dir(group).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        remove_group(&inner.path());
    }
    for _ in 0..200 {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                std::thread::sleep(Duration::from_millis(10))
            }
            _ => return,
        }
    }
}
