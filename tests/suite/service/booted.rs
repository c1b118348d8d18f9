//! Real systemd as process 1: installed from the package, used, reloaded, killed, upgraded and removed.

use std::process::{Child, Stdio};
use std::time::Duration;

use super::package;
use testkit::machine::Machine;
use testkit::{campaign, eventually};

const LIMIT: Duration = Duration::from_secs(60);

fn property(machine: &Machine, name: &str) -> String {
    machine.ok(&format!("systemctl show sessiond.service --property {name} --value"))
}

/// A user of the machine, in the group or not.
fn user(machine: &Machine, name: &str, grouped: bool) {
    machine.ok(&format!("useradd --create-home {name}"));
    if grouped {
        machine.ok(&format!("usermod --append --groups sessiond {name}"));
    }
}

/// A user who runs verbs without a pause and records every failure.
struct Load(Child);

impl Load {
    fn start(machine: &Machine, id: &str) -> Self {
        let script = format!(
            "cd /tmp && rm -f stop failed count && while [ ! -e stop ]; do \
                 for verb in 'heartbeat {id} --context 7' 'list --json' 'status --json'; do \
                     sessiond $verb >/dev/null 2>said && echo . >>count || {{ echo \"$verb: $?\"; cat said; }} >>failed; \
                 done; done"
        );
        // The script travels as an argument, so that it need not be quoted.
        let mut command = machine.command("exec runuser -u alice -- sh -c \"$0\"");
        command.arg(script);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// How often it was answered. It was never refused.
    fn stop(mut self, machine: &Machine) -> usize {
        machine.ok("touch /tmp/stop");
        self.0.wait().unwrap();
        assert_eq!(machine.ok("cat /tmp/failed 2>/dev/null || true"), "");
        machine.ok("wc -l </tmp/count").trim().parse().unwrap()
    }
}

/// Waits until another process serves.
fn await_successor(machine: &Machine, of: &str) -> String {
    eventually("another daemon serves", LIMIT, || {
        let pid = property(machine, "MainPID");
        let up = property(machine, "ActiveState") == "active";
        (up && pid != of && pid != "0").then_some(pid)
    })
}

#[test]
fn package_can_be_installed_upgraded_and_removed() {
    const TEST: &str = "package_can_be_installed_upgraded_and_removed";
    let Some([old, new]) = package::packages(TEST) else { return };
    let Some(machine) = Machine::for_test(TEST) else { return };
    for (package, name) in [(&old, "old.deb"), (&new, "new.deb")] {
        std::fs::copy(package, machine.path("/root").join(name)).unwrap();
    }

    machine.ok("dpkg --install /root/old.deb");
    // Under Type=notify it is active only once READY was seen.
    assert_eq!(property(&machine, "Type,ActiveState,SubState,UnitFileState"), "notify\nactive\nrunning\nenabled");
    assert_eq!(
        machine.ok("stat -c '%U %G %a' /run/sessiond/sessiond.sock /var/lib/sessiond"),
        "sessiond sessiond 660\nsessiond sessiond 700"
    );

    let id = members_are_let_in_and_others_are_not(&machine);
    what_is_spooled_while_the_daemon_is_stopped_is_imported(&machine);
    processes_of_others_are_watched(&machine);
    a_change_of_the_configuration_is_taken_over(&machine);
    the_password_reaches_the_daemon(&machine);

    let load = Load::start(&machine, &id);
    for _ in 0..campaign(20, 200) {
        machine.ok("systemctl restart sessiond.service");
    }
    for _ in 0..campaign(3, 20) {
        let pid = property(&machine, "MainPID");
        machine.ok(&format!("kill -9 {pid}"));
        await_successor(&machine, &pid);
    }
    a_daemon_that_hangs_is_replaced(&machine);
    let pid = property(&machine, "MainPID");
    machine.ok("dpkg --install /root/new.deb");
    await_successor(&machine, &pid);
    let answered = load.stop(&machine);
    println!("answered {answered} times, and never refused");
    assert!(answered > 100, "{answered}");

    doctor_finds_it_well(&machine);
    what_agents_started_goes_on(&machine);

    machine.ok("dpkg --remove sessiond");
    machine.ok("test -e /var/lib/sessiond/sessiond.db && test ! -e /run/sessiond/sessiond.sock");
    machine.ok("dpkg --purge sessiond");
    machine.ok("test -e /var/lib/sessiond/sessiond.db && ! systemctl cat sessiond.service");
}

fn members_are_let_in_and_others_are_not(machine: &Machine) -> String {
    // The daemon runs already: a user who joins the group needs no restart of it.
    user(machine, "alice", true);
    user(machine, "bob", false);
    let id = machine.ok("runuser -u alice -- sessiond register --project odin --id-only");
    let refused = machine.run("runuser -u bob -- sessiond register --project odin");
    assert_eq!(refused.status.code(), Some(77), "{}", String::from_utf8_lossy(&refused.stderr));
    let opened = machine.run("chmod 0666 /run/sessiond/sessiond.sock && runuser -u bob -- sessiond list");
    assert_eq!(opened.status.code(), Some(77), "the daemon itself keeps out whom the mode would let in");
    machine.ok("chmod 0660 /run/sessiond/sessiond.sock");
    let others = machine.run(&format!("usermod -aG sessiond bob && runuser -u bob -- sessiond close {id}"));
    assert_eq!(others.status.code(), Some(77), "a session is changed by whoever registered it");
    id
}

/// Requests of members and of root are accepted; those of others are refused.
fn what_is_spooled_while_the_daemon_is_stopped_is_imported(machine: &Machine) {
    assert_eq!(machine.ok("stat -c '%U %G %a' /var/spool/sessiond"), "sessiond sessiond 3730");
    machine.ok("systemctl stop sessiond.socket sessiond.service && useradd --create-home carol");
    let register = "sessiond register --project odin --id-only 2>/dev/null";
    let ids = [machine.ok(&format!("runuser -u alice -- {register}")), machine.ok(register)];
    for context in [41, 42] {
        machine.ok(&format!("runuser -u alice -- sessiond heartbeat {} --context {context}", ids[0]));
    }
    assert_eq!(machine.ok("ls /var/spool/sessiond | wc -l"), "3", "the later heartbeat replaces the earlier one");
    let refused = machine.run("runuser -u carol -- sessiond register --project odin");
    assert_eq!(refused.status.code(), Some(69), "{}", String::from_utf8_lossy(&refused.stderr));
    assert_eq!(machine.run("runuser -u alice -- ls /var/spool/sessiond").status.code(), Some(2));
    machine.ok("systemctl start sessiond.socket sessiond.service");
    for id in &ids {
        machine.ok(&format!("sessiond show {id} --json"));
    }
    let shown = machine.ok(&format!("sessiond show {} --json", ids[0]));
    assert!(shown.contains("\"context_percent\":42"), "{shown}");
    assert_eq!(machine.ok("ls -A /var/spool/sessiond | wc -l"), "0");
    let by_alice = machine.run(&format!("runuser -u alice -- sessiond close {}", ids[1]));
    assert_eq!(by_alice.status.code(), Some(77), "root's request is root's");
}

/// The sandbox leaves the daemon what it needs to see.
fn processes_of_others_are_watched(machine: &Machine) {
    let script = "runuser -u alice -- sh -c 'sleep 600 >/dev/null 2>&1 & echo $!; sessiond register --project odin --pid $! --id-only'";
    let said = machine.ok(&format!("{script} </dev/null 2>&1"));
    let (pid, id) = said.split_once('\n').unwrap();
    let status = || machine.ok(&format!("sessiond show {id} --json"));
    assert!(status().contains("\"status\":\"active\""), "{}", status());
    machine.ok(&format!("kill {pid}"));
    eventually("its session is stale", LIMIT, || status().contains("\"status\":\"stale\"").then_some(()));
}

fn a_change_of_the_configuration_is_taken_over(machine: &Machine) {
    let taken =
        || machine.ok("journalctl -u sessiond -o cat --no-pager | grep -c 'reloaded the configuration' || true");
    let before: u32 = taken().parse().unwrap();
    machine.ok("printf '[log]\\nlevel = \"debug\"\\n' >/etc/sessiond/config.toml && systemctl reload sessiond");
    eventually("it is taken over", LIMIT, || (taken().parse::<u32>().ok()? > before).then_some(()));
    machine.ok("printf '[log]\\nlevel = \"info\"\\n' >/etc/sessiond/config.toml");
    eventually("a change alone is enough", LIMIT, || (taken().parse::<u32>().ok()? > before + 1).then_some(()));
}

/// systemd reads it as root, and hands it to the daemon alone.
fn the_password_reaches_the_daemon(machine: &Machine) {
    machine.ok("mkdir -p /etc/credstore && (umask 077; echo secret >/etc/credstore/sessiond.central-password)");
    machine.ok("systemctl restart sessiond");
    let pid = property(machine, "MainPID");
    let seen = format!(
        "nsenter --target {pid} --mount setpriv --reuid sessiond --clear-groups cat /run/credentials/sessiond.service/central-password"
    );
    assert_eq!(machine.ok(&seen), "secret");
    assert!(
        machine
            .ok(&format!("tr '\\0' '\\n' </proc/{pid}/environ"))
            .contains("CREDENTIALS_DIRECTORY=/run/credentials/sessiond.service")
    );
}

fn a_daemon_that_hangs_is_replaced(machine: &Machine) {
    let folder = "/run/systemd/system/sessiond.service.d";
    machine.ok(&format!(
        "mkdir -p {folder} && printf '[Service]\\nWatchdogSec=2s\\nTimeoutAbortSec=1s\\n' >{folder}/hurry.conf && \
         systemctl daemon-reload && systemctl restart sessiond"
    ));
    let pid = property(machine, "MainPID");
    machine.ok(&format!("kill -STOP {pid}"));
    await_successor(machine, &pid);
    let journal = machine.ok("journalctl -u sessiond -o cat --no-pager");
    assert!(journal.contains("Watchdog timeout"), "{journal}");
    machine.ok(&format!("rm {folder}/hurry.conf && systemctl daemon-reload && systemctl restart sessiond"));
}

fn doctor_finds_it_well(machine: &Machine) {
    let found = machine.ok("sessiond doctor");
    for good in ["the system's sessiond.service is active (running), enabled", "the system's sessiond.socket is active"]
    {
        assert!(found.contains(good), "{found}");
    }
    machine.ok("cd /tmp && sessiond bugreport && grep -q '== log' sessiond-bugreport.txt && ! grep -q secret sessiond-bugreport.txt");
}

fn what_agents_started_goes_on(machine: &Machine) {
    let group = "/sys/fs/cgroup/system.slice/sessiond.service/cgroup.procs";
    let agent = machine.ok(&format!("sleep 600 >/dev/null 2>&1 & echo $! >{group} && echo $!"));
    machine.ok("systemctl stop sessiond.service sessiond.socket");
    machine.ok(&format!("kill -0 {agent} && kill {agent}"));
    machine.ok("systemctl start sessiond.service");
}

#[test]
fn install_command_installs_upgrades_and_removes_the_service() {
    const TEST: &str = "install_command_installs_upgrades_and_removes_the_service";
    let Some(machine) = Machine::for_test(TEST) else { return };
    let place = |from: &str| {
        let target = machine.path("/usr/local/bin/sessiond");
        let draft = target.with_extension("new");
        std::fs::copy(from, &draft).and_then(|_| std::fs::rename(draft, target)).unwrap();
    };
    place(env!("CARGO_BIN_EXE_sessiond"));
    let install = "SESSIOND_CENTRAL_URL=postgres://me:hunter2@127.0.0.1:1/x sessiond install --machine odin4";

    let planned = machine.ok(&format!("{install} --dry-run"));
    assert!(
        planned.contains("write /etc/systemd/system/sessiond.service (0644)") && !planned.contains("hunter2"),
        "{planned}"
    );
    machine.ok("test ! -e /etc/systemd/system/sessiond.service && ! getent group sessiond");

    let done = machine.ok(install);
    assert!(done.contains("answers on /run/sessiond/sessiond.sock"), "{done}");
    assert_eq!(
        machine.ok("cat /etc/credstore/sessiond.central-password; stat -c %a /etc/credstore/sessiond.central-password"),
        "hunter2\n600"
    );
    assert!(!machine.ok("cat /etc/sessiond/config.toml").contains("hunter2"));
    assert!(machine.ok("sessiond status --json").contains("\"name\":\"odin4\""));
    let pid = property(&machine, "MainPID");
    let again = machine.ok(install);
    assert!(again.starts_with("nothing to do"), "{again}");
    assert_eq!(property(&machine, "MainPID"), pid);

    user(&machine, "alice", true);
    machine.ok("systemctl stop sessiond.socket sessiond.service");
    let id = machine.ok("runuser -u alice -- sessiond register --project odin --id-only 2>/dev/null");
    machine.ok(&format!("systemctl start sessiond.socket sessiond.service && sessiond show {id}"));
    let load = Load::start(&machine, &id);
    place(env!("CARGO_BIN_EXE_sessiond"));
    let upgraded = machine.ok(install);
    assert!(upgraded.contains("ran systemctl restart sessiond.service"), "{upgraded}");
    assert_ne!(property(&machine, "MainPID"), pid);
    assert!(load.stop(&machine) > 0);

    let removed = machine.ok("sessiond uninstall");
    assert!(
        removed.contains("left as they are, to be removed by hand: /var/lib/sessiond and /etc/sessiond"),
        "{removed}"
    );
    machine.ok("test -e /var/lib/sessiond/sessiond.db && test ! -e /etc/systemd/system/sessiond.service");
    assert!(machine.ok("sessiond uninstall").starts_with("nothing to do"));
    assert_eq!(machine.run("runuser -u alice -- sessiond uninstall --system").status.code(), Some(77));

    // The same for one user, by the manager that is the user's own.
    let uid = machine.ok("id -u alice");
    // A Debian as small as this one has no PAM of systemd's, which would otherwise say where the runtime folder is.
    machine.ok(&format!(
        "mkdir -p /run/systemd/system/user@.service.d && \
         printf '[Service]\\nPAMName=\\nEnvironment=XDG_RUNTIME_DIR=/run/user/%%i\\n' \
             >/run/systemd/system/user@.service.d/without-pam.conf && \
         systemctl daemon-reload && systemctl start user@{uid}.service"
    ));
    let alice = format!("runuser -u alice -- env XDG_RUNTIME_DIR=/run/user/{uid} HOME=/home/alice sessiond");
    let done = machine.ok(&format!("{alice} install --machine laptop"));
    assert!(done.contains(&format!("answers on /run/user/{uid}/sessiond/sessiond.sock")), "{done}");
    assert!(machine.ok(&format!("{alice} install --machine laptop")).starts_with("nothing to do"));
    assert!(machine.ok(&format!("{alice} status --json")).contains("\"name\":\"laptop\""));
    let removed = machine.ok(&format!("{alice} uninstall"));
    assert!(removed.contains("/home/alice/.local/state/sessiond"), "{removed}");
    machine.ok("test -e /home/alice/.local/state/sessiond/sessiond.db");
}
