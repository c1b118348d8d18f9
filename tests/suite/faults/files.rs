//! Damage to the daemon's files at run time.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use testkit::daemon::Host;
use testkit::skip::skip;
use testkit::{campaign, eventually, random::Random};

const LIMIT: Duration = Duration::from_secs(30);

fn database(host: &Host) -> PathBuf {
    host.state_dir().join("sessiond.db")
}

fn log(host: &Host) -> PathBuf {
    host.state_dir().join("sessiond.db-wal")
}

fn flip(path: &Path, bit: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).unwrap();
    byte[0] ^= 1 << (bit % 8);
    file.write_all_at(&byte, bit / 8).unwrap();
}

/// Registers sessions, gives each a context; answers what was acknowledged, by id.
fn fill(host: &Host, sessions: u64) -> Vec<(String, u64)> {
    let register = |n| {
        let (status, session) = host.ask("POST", "/v1/sessions", Some(&json!({"project": "odin"})));
        assert_eq!(status, 201, "{session}");
        let id = session["instance_id"].as_str().unwrap().to_owned();
        let (status, answer) =
            host.ask("POST", &format!("/v1/sessions/{id}/heartbeat"), Some(&json!({"context_percent": n % 101})));
        assert_eq!(status, 200, "{answer}");
        (id, n % 101)
    };
    (0..sessions).map(register).collect()
}

fn kept(host: &Host, filled: &[(String, u64)]) -> usize {
    let has = |(id, context): &&(String, u64)| matches!(host.ask("GET", &format!("/v1/sessions/{id}"), None), (200, s) if s["context_percent"] == *context);
    filled.iter().filter(has).count()
}

/// Damage was noticed: it stands in the status and in the log, and the damaged file lies beside.
fn check_said(host: &Host) {
    let damage = host.status()["store"]["damage"].clone();
    let Value::String(damage) = damage else { panic!("the status says nothing: {}", host.log()) };
    let aside = damage.split_whitespace().find(|word| word.starts_with("sessiond.db.damaged-")).unwrap();
    assert!(host.state_dir().join(aside).exists(), "{damage}");
    assert!(host.log().contains("damaged"), "{}", host.log());
    assert!(host.ok(&["status"]).contains(aside));
    fs::remove_file(host.state_dir().join(aside)).unwrap();
    assert_eq!(host.status()["store"]["damage"], Value::Null, "no damage is left once the copies are removed");
}

#[test]
fn flipped_bit_in_the_log_is_reported_and_corrected() {
    let mut random = Random::from_clock("bits of the log");
    let mut host = Host::new("odin3").started();
    let (mut repaired, rounds) = (0, campaign(8, 200));
    for round in 0..rounds {
        let filled = fill(&host, 8);
        host.kill();
        let said = host.log().len();
        let length = fs::metadata(log(&host)).unwrap().len();
        assert!(length > 0, "a crash leaves a log");
        // What lies behind the newest frames is left over from an older log, and may well be damaged.
        let whole = fs::read(log(&host)).unwrap();
        let frames = (0..(length - 32) / 4120).take_while(|n| {
            let at = 32 + *n as usize * 4120 + 8;
            whole[at..at + 8] == whole[16..24]
        });
        let used = 32 + frames.count() as u64 * 4120;
        flip(&log(&host), random.below(used * 8));
        host.start();
        // Where one bit fits as well as another, the page is taken over with it.
        let exact = host.log()[said..].contains("nothing is lost");
        repaired += u64::from(exact);
        if exact {
            assert_eq!(kept(&host, &filled), filled.len(), "round {round}: {}", host.log());
        }
        check_said(&host);
    }
    println!("{repaired} of {rounds} flipped bits were flipped back");
    assert!(repaired * 2 >= rounds, "only {repaired} of {rounds}");
}

#[test]
fn flipped_bit_in_the_database_is_survived() {
    let mut random = Random::from_clock("bits of the database");
    for _ in 0..campaign(6, 200) {
        let mut host = Host::new("odin3").started();
        let filled = fill(&host, 40);
        assert_eq!(host.stop(), Some(0));
        let length = fs::metadata(database(&host)).unwrap().len();
        flip(&database(&host), random.below(length * 8));
        host.start();
        // SQLite has no checksums of pages: a bit within a value is another value. But all the others are there, at
        // the latest when the store has been looked over to the end.
        eventually("all but one is there, or it is said why not", LIMIT, || {
            let said = host.status()["store"]["damage"].is_string();
            (kept(&host, &filled) + 1 >= filled.len() || said).then_some(())
        });
        fill(&host, 1);
    }
}

#[test]
fn damage_found_by_a_reader_is_repaired_at_run_time() {
    let mut host = Host::new("odin3").started();
    let filled = fill(&host, 300);
    assert_eq!(host.stop(), Some(0));
    host.start();
    let file = fs::File::options().write(true).open(database(&host)).unwrap();
    let pages = file.metadata().unwrap().len() / 4096;
    for page in 1..pages {
        file.write_all_at(&[0xA5; 4096], page * 4096).unwrap();
    }
    // Nobody writes, and still it is noticed and said.
    eventually("the list can be read", LIMIT, || (host.ask("GET", "/v1/sessions", None).0 == 200).then_some(()));
    assert!(kept(&host, &filled) <= filled.len());
    check_said(&host);
    assert_eq!(fill(&host, 2).len(), 2);
}

#[test]
fn store_rejects_writes_while_it_cannot_be_rebuilt() {
    let mut host = Host::new("odin3").started();
    fill(&host, 100);
    assert_eq!(host.stop(), Some(0));
    host.start();
    // Nothing can be built where this folder stands in the way.
    let in_the_way = host.state_dir().join("sessiond.db.salvaging");
    fs::create_dir_all(in_the_way.join("x")).unwrap();
    let file = fs::File::options().write(true).open(database(&host)).unwrap();
    let pages = file.metadata().unwrap().len() / 4096;
    for page in 1..pages {
        file.write_all_at(&[0xA5; 4096], page * 4096).unwrap();
    }
    let register = || host.ask("POST", "/v1/sessions", Some(&json!({"project": "odin"}))).0;
    host.ask("GET", "/v1/sessions", None);
    assert_eq!(register(), 503);
    assert!(host.log().contains("the store cannot be opened; nothing is recorded"), "{}", host.log());
    fs::remove_dir_all(in_the_way).unwrap();
    eventually("it takes sessions again", LIMIT, || (register() == 201).then_some(()));
}

/// A file system of its own that can be made to fail, unmounted in the end.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    /// `None` without the right to mount.
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (image, mount) = (dir.path().join("image"), dir.path().join("mount"));
        fs::create_dir(&mount).unwrap();
        fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
        let run = |program: &str, arguments: &[&std::ffi::OsStr]| {
            std::process::Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
        };
        let made = run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), image.as_ref()])
            && run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_ref(), mount.as_ref()]);
        made.then_some(Self { dir })
    }

    fn mount(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    /// From here on every access ends with EIO, as on a disk that was pulled out.
    #[allow(unsafe_code, reason = "an ioctl is unsafe in general; this one reads a number")]
    fn fail(&self) {
        /// FS_IOC_SHUTDOWN without flushing the log.
        const SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587D;
        const NO_LOG_FLUSH: u32 = 2;
        let folder = fs::File::open(self.mount()).unwrap();
        // SAFETY: FS_IOC_SHUTDOWN reads a u32, and that is what it gets.
        unsafe { rustix::ioctl::ioctl(&folder, rustix::ioctl::Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH)) }.unwrap();
    }

    fn plug_in_again(&self) {
        self.unmount();
        let mounted = std::process::Command::new("mount")
            .args(["-o", "loop"])
            .args([self.dir.path().join("image"), self.mount()])
            .status();
        assert!(mounted.unwrap().success());
    }

    fn unmount(&self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.mount()).status();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.unmount();
    }
}

#[test]
fn failing_disk_rejects_writes_and_keeps_acknowledged_ones() {
    let Some(disk) = Disk::new() else {
        return skip(
            "failing_disk_rejects_writes_and_keeps_acknowledged_ones",
            "the right to mount, a loop device and mkfs.ext4",
        );
    };
    let mut host = Host::new("odin3");
    std::os::unix::fs::symlink(disk.mount(), host.state_dir()).unwrap();
    host.start();
    let filled = fill(&host, 30);
    disk.fail();
    // Nothing is acknowledged any more; whether it goes on or ends, it says why.
    let answer = host.try_ask("POST", "/v1/sessions", Some(&json!({"project": "odin"})));
    assert!(answer.is_none_or(|(status, _)| matches!(status, 503 | 507)), "it was taken");
    host.kill();
    disk.plug_in_again();
    host.start();
    assert_eq!(kept(&host, &filled), filled.len(), "{}", host.log());
    assert_eq!(fill(&host, 1).len(), 1);
    host.kill();
}
