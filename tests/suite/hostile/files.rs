//! Folders and files: who may read them, and what other users can do through them.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use testkit::daemon::Host;
use testkit::eventually;
use testkit::skip::skip;

const SOON: Duration = Duration::from_secs(20);
const STRANGER: u32 = 54_321;

fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip(test, "root, to become other users");
    }
    root
}

/// Runs a command with nothing taken from the modes of what it makes.
fn with_umask_zero(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.env_clear().args(["-c", "umask 0; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

fn open_to_others(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let about = entry.metadata().unwrap();
        if about.mode() & 0o077 != 0 && !about.file_type().is_symlink() {
            found.push(format!("{:o} {}", about.mode(), entry.path().display()));
        }
        if about.is_dir() {
            open_to_others(&entry.path(), found);
        }
    }
}

#[test]
fn state_folder_is_private_whichever_process_creates_it() {
    for client_first in [true, false] {
        let host = Host::new("odin4");
        let mut register = host.sessiond();
        register.args(["register", "--project", "odin", "--id-only"]);
        let mut hook = host.sessiond();
        hook.args(["hook", "NoSuchEvent"]).stdin(Stdio::null());
        if client_first {
            assert!(with_umask_zero(&register).output().unwrap().status.success());
            assert!(with_umask_zero(&hook).stdin(Stdio::null()).status().unwrap().success());
        }
        let mut run = host.sessiond();
        run.args(["run", "--machine", "odin4"]);
        let mut daemon =
            with_umask_zero(&run).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the daemon serves", SOON, || host.connect());
        assert!(with_umask_zero(&register).output().unwrap().status.success());
        let mut found = Vec::new();
        open_to_others(&host.state_dir(), &mut found);
        let _ = daemon.kill();
        let _ = daemon.wait();
        assert_eq!(found, Vec::<String>::new());
        assert_eq!(fs::metadata(host.state_dir()).unwrap().mode() & 0o777, 0o700);
    }
}

#[test]
fn root_does_not_use_another_users_state_folder() {
    if !is_root("root_does_not_use_another_users_state_folder") {
        return;
    }
    let host = Host::new("odin4");
    let state = host.state_dir();
    fs::create_dir(&state).unwrap();
    chown(&state, Some(STRANGER), Some(STRANGER)).unwrap();
    let (code, said) = host.refuses();
    assert_eq!(code, 77, "{said}");
    assert!(said.contains(&format!("belongs to user {STRANGER}")) && said.contains("chown -R 0"), "{said}");
    assert!(!said.contains("identity rename"), "{said}");
    let (code, said) = host.refused(&["register", "--project", "odin"]);
    assert_eq!(code, 69, "{said}");
    assert!(said.contains(&format!("belongs to user {STRANGER}")), "{said}");
    host.refused(&["identity", "rename", "odin5"]);
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0, "nothing of root's is left in it");
}

#[test]
fn removed_socket_is_bound_again() {
    let mut host = Host::new("odin4").started();
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    for _ in 0..2 {
        fs::remove_file(host.socket()).unwrap();
        eventually("clients reach the daemon again", SOON, || host.connect());
        assert_eq!(host.ask("GET", &format!("/v1/sessions/{id}"), None).0, 200);
    }
    assert_eq!(host.status()["socket"]["error"], serde_json::Value::Null);
    assert!(host.log().contains("bound again"), "{}", host.log());
    assert_eq!(host.stop(), Some(0));
    assert!(!host.socket().exists());
}

/// Every trick with a name in the spool leaves the files that it aims at as they are, and holds up nothing.
#[test]
fn spool_attacks_touch_no_file_outside() {
    let mut host = Host::new("odin4");
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    let spool = host.state_dir().join("spool");
    let victim = host.dir().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("X.json"), "precious").unwrap();
    fs::write(host.dir().join("other.json"), "precious").unwrap();
    // The folder in which older versions kept what they could not read.
    symlink(&victim, spool.join("damaged")).unwrap();
    symlink(victim.join("X.json"), spool.join("link.json")).unwrap();
    fs::hard_link(host.dir().join("other.json"), spool.join("hard.json")).unwrap();
    fs::create_dir(spool.join("folder.json")).unwrap();
    fs::write(spool.join("X.json"), "hostile").unwrap();
    fs::File::create(spool.join("sparse.json")).unwrap().set_len(1 << 36).unwrap();
    assert!(Command::new("mkfifo").arg(spool.join("pipe.json")).status().unwrap().success());
    host.start();
    assert_eq!(host.ask("GET", &format!("/v1/sessions/{id}"), None).0, 200);
    eventually("one is quarantined, the others left alone", SOON, || {
        let status = host.status();
        (status["spool"]["quarantined"] == 1 && status["spool"]["ignored"] == 5).then_some(status)
    });
    for path in [victim.join("X.json"), host.dir().join("other.json")] {
        assert_eq!(fs::read_to_string(path).unwrap(), "precious");
    }
    let quarantine = fs::metadata(host.state_dir().join("quarantine")).unwrap();
    assert_eq!(quarantine.mode() & 0o777, 0o700);
    host.stop();
    // A spool that is itself a link is not read at all.
    fs::remove_dir_all(&spool).unwrap();
    symlink(&victim, &spool).unwrap();
    host.start();
    let reason = host.status()["spool"]["folders"][0]["reason"].clone();
    assert!(reason.as_str().is_some_and(|reason| reason.contains("cannot be read")), "{reason}");
    assert_eq!(fs::read_to_string(victim.join("X.json")).unwrap(), "precious");
}
