//! The page in headless Chromium, driven by playwright-core, and checked by axe-core.
//!
//! `SESSIOND_TEST_SCREENSHOTS=DIR` has it write four pictures into a folder; those in docs/ were made so.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use testkit::daemon::Host;
use testkit::eventually;
use testkit::postgres::Server;
use testkit::skip::skip;

use super::{Page, SOON};

#[test]
fn the_page_is_live_usable_by_keyboard_and_accessible() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let clients = here.join("target/web-clients");
    let chromium = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    let chromium = chromium.into_iter().find(|path| Path::new(path).exists());
    let (Some(chromium), true) = (chromium, clients.join("node_modules/axe-core").is_dir()) else {
        let needs = "chromium, node, and what tests/run installs by npm";
        return skip("the_page_is_live_usable_by_keyboard_and_accessible", needs);
    };
    let server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    // With the default heartbeat_interval: a shorter one delays changes, because there is at most one push a second.
    let config = format!("[central]\nurl = \"{url}\"\n");
    let [odin3, laptop] = ["odin3", "laptop"].map(Host::new);
    odin3.configure(&config);
    laptop.configure(&config);
    odin3.ok(&["migrate", "--central-url", &url]);
    let (odin3, laptop) = (odin3.started(), laptop.started());
    for host in [&odin3, &laptop] {
        eventually("it listens", SOON, || (host.status()["central"]["listening"] == true).then_some(()));
    }
    let begin = |host: &Host, project: &str, context: &str, title: &str, body: serde_json::Value| {
        let id = host.ok(&["register", "--project", project, "--context", context, "--id-only"]);
        let work = json!({"prompt": title, "answer": "Two tests fail: the clock of the second host is ahead.",
            "todos": [{"text": "Find the race", "status": "completed"}, {"text": "Write the test", "status": "in_progress"}]});
        assert_eq!(host.ask("PUT", &format!("/v1/sessions/{id}/work"), Some(&work)).0, 200);
        for body in [json!({"activity": "working"}), body] {
            assert_eq!(host.ask("POST", &format!("/v1/sessions/{id}/heartbeat"), Some(&body)).0, 200);
        }
        id
    };
    begin(&odin3, "odin", "34", "Repair the retry of parked records", json!({"activity": "working"}));
    begin(&odin3, "odin", "81", "Measure the start on a cold disk", json!({"activity": "idle"}));
    begin(
        &odin3,
        "atlas",
        "12",
        "Draw the map <b>of</b> modules",
        json!({"activity": "failed", "activity_detail": "rate_limit"}),
    );
    let remote = begin(&laptop, "odin", "57", "Say why a push was refused", json!({"activity": "working"}));
    begin(&laptop, "notes", "8", "Sort the release notes", json!({"activity": "idle"}));
    let known = || (odin3.ask("GET", "/v1/sessions", None).1["total_count"] == 5).then_some(());
    eventually("all sessions are known on odin3", SOON, known);

    let page = Page::serve(&odin3, &["--allow-actions"]);
    let mut node = Command::new("node");
    node.arg(here.join("tests/suite/web/browser.mjs")).args([clients.to_str().unwrap(), chromium, &page.url, &remote]);
    node.env("LAPTOP_SOCKET", laptop.socket()).env("DAEMON_PID", odin3.pid().as_raw_nonzero().to_string());
    let output = node.stdin(Stdio::null()).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    let expected = ["ok live", "ok keyboard", "ok session", "ok close", "ok accessible", "ok offline"];
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}
