//! A desktop: the agent of a user's session shows the notifications, over a real D-Bus.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::daemon::Host;
use testkit::skip::skip;
use testkit::{eventually, repository_root};

/// Ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process_group(
            rustix::process::Pid::from_child(&self.0),
            rustix::process::Signal::KILL,
        );
        let _ = self.0.wait();
    }
}

fn shown(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn desktop_shows_notifications_as_soon_as_there_is_one() {
    const TEST: &str = "desktop_shows_notifications_as_soon_as_there_is_one";
    let client = repository_root().join("target/dbus");
    let has = |program: &str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !client.join("node_modules/dbus-next").exists() || !has("dbus-run-session") || !has("busctl") {
        return skip(TEST, "dbus-run-session, busctl and npm's dbus-next");
    }
    let host = Host::new("odin3");
    host.configure("[[notify.rules]]\non = [\"waiting\"]\ndelay = \"0s\"\ndesktop = true\n");
    let host = host.started();
    let id = host.ok(&["register", "--project", "odin", "--id-only"]).trim().to_owned();
    let heartbeat =
        json!({"activity": "waiting", "waiting_for": "permission", "activity_detail": "-rf <b>bold</b> & more"});
    assert_eq!(host.ask("POST", &format!("/v1/sessions/{id}/heartbeat"), Some(&heartbeat)).0, 200);
    let file = host.dir().join("shown.jsonl");
    let script = format!(
        "node {} {} & sleep 1; exec {} notify-agent",
        repository_root().join("tests/suite/notify/desktop.mjs").display(),
        file.display(),
        testkit::program().display()
    );
    let mut session = Command::new("dbus-run-session");
    session.args(["--", "sh", "-c", &script]).env("SESSIOND_SOCKET", host.socket()).env("DBUS_CLIENT", &client);
    session.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    std::os::unix::process::CommandExt::process_group(&mut session, 0);
    let _session = Ended(session.spawn().unwrap());
    let found =
        eventually("it is shown", Duration::from_secs(60), || Some(shown(&file)).filter(|shown| !shown.is_empty()));
    assert_eq!(found[0]["title"], "odin (odin3)");
    assert_eq!(found[0]["text"], "it waits for a permission: -rf &lt;b&gt;bold&lt;/b&gt; &amp; more");
    let output = host.verb(&["notify", "test", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let both =
        eventually("the test is shown", Duration::from_secs(30), || Some(shown(&file)).filter(|all| all.len() == 2));
    assert_eq!(both[1]["title"], "sessiond (odin3)");
}
