//! The recorded day of a real agent on one machine, as another machine sees it, with central gone for half of it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use testkit::agent::{Agent, feed};
use testkit::daemon::Host;
use testkit::eventually;
use testkit::postgres::{Server, Stop};

const SOON: Duration = Duration::from_secs(20);
const RECORDED: &str = "tests/data/agents/claude-code/2.1.332";

/// The recorded input of a hook, by its number in the event's file; the activity after it.
const MORNING: [(&str, usize, &str); 13] = [
    ("SessionStart", 0, "idle"),
    ("UserPromptSubmit", 0, "working"),
    ("Stop", 0, "idle"),
    ("UserPromptSubmit", 1, "working"),
    ("PreToolUse", 0, "working"),
    ("PermissionRequest", 0, "waiting permission Bash"),
    ("Notification", 0, "waiting permission Bash"),
    ("PostToolUse", 0, "working"),
    ("Stop", 1, "idle"),
    ("SubagentStart", 0, "idle"),
    ("Stop", 2, "working 1 background task"),
    // What a sub-agent does is no change of its parent.
    ("PostToolUse", 2, "working 1 background task"),
    ("SubagentStop", 0, "working 1 background task"),
];

/// Central is gone.
const AFTERNOON: [(&str, usize, &str); 11] = [
    // The agent tells itself that its task has ended.
    ("UserPromptSubmit", 2, "working"),
    ("PreToolUse", 3, "waiting question"),
    ("PermissionRequest", 1, "waiting question"),
    ("PostToolUse", 3, "working"),
    ("StopFailure", 0, "failed rate_limit"),
    // Its message says 529.
    ("StopFailure", 1, "failed overloaded"),
    ("StopFailure", 2, "failed authentication_failed"),
    ("PreCompact", 0, "working"),
    ("SubagentStop", 1, "working"),
    ("SessionStart", 1, "idle"),
    ("PostCompact", 0, "idle"),
];

struct Day<'a> {
    host: &'a Host,
    agent: &'a Agent,
}

impl Day<'_> {
    /// Runs the hook as it was recorded, but in a folder of this machine.
    fn hook(&self, event: &str, number: usize) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(RECORDED).join(format!("{event}.jsonl"));
        let text = fs::read_to_string(path).unwrap();
        let mut input: Value = serde_json::from_str(text.lines().nth(number).expect("it is recorded")).unwrap();
        input["cwd"] = json!(self.host.dir());
        let mut command = self.host.sessiond();
        command.args(["hook", event]).env("CLAUDE_PID", self.agent.pid().to_string());
        command.env("CLAUDE_CODE_ENTRYPOINT", "cli");
        let output = feed(command, input.to_string().as_bytes());
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

/// The one session that the host knows.
fn session(host: &Host) -> Option<Value> {
    let list = host.ask("GET", "/v1/sessions", None).1;
    assert!(list["instances"].as_array()?.len() <= 1, "{list}");
    list["instances"].get(0).cloned()
}

fn activity(session: &Value) -> String {
    let words = ["activity", "waiting_for", "activity_detail"].into_iter().filter_map(|name| session[name].as_str());
    words.collect::<Vec<_>>().join(" ")
}

fn expect(host: &Host, step: &str, expected: &str) -> Value {
    let mut last = String::new();
    let reached = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually(expected, SOON, || {
            let session = session(host)?;
            last = activity(&session);
            (last == expected).then_some(session)
        })
    }));
    reached.unwrap_or_else(|_| panic!("after {step}: {last}, not {expected}"))
}

fn in_milliseconds(times: &mut [Duration], share: usize) -> u128 {
    times.sort();
    times[(times.len() - 1) * share / 100].as_millis()
}

#[test]
fn recorded_day_is_known_on_both_machines() {
    let mut server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    let odin3 = Host::with_central("odin3", &url);
    odin3.ok(&["migrate", "--central-url", &url]);
    let (odin3, laptop) = (odin3.started(), Host::with_central("laptop", &url).started());
    for host in [&odin3, &laptop] {
        eventually("it listens", SOON, || (host.status()["central"]["listening"] == true).then_some(()));
    }
    let agent = Agent::new(odin3.dir(), "");
    let day = Day { host: &odin3, agent: &agent };
    for (event, number, expected) in MORNING {
        day.hook(event, number);
        expect(&odin3, event, expected);
        expect(&laptop, event, expected);
    }
    // How soon the other machine knows: from before the hook's start.
    let mut times = Vec::new();
    for (event, number, expected) in [MORNING[3], MORNING[5]].iter().cycle().take(20) {
        let began = Instant::now();
        day.hook(event, *number);
        expect(&laptop, event, expected);
        times.push(began.elapsed());
    }
    let [p50, p99] = [50, 99].map(|share| in_milliseconds(&mut times, share));
    println!("an activity is seen on another machine after {p50} ms (p50), {p99} ms (p99), hook and poll included");
    day.hook("PostToolUse", 0);
    let noon = expect(&laptop, "PostToolUse", "working");

    server.stop(Stop::Fast);
    for host in [&odin3, &laptop] {
        host.await_central("unreachable");
    }
    let mut known_as_of = None;
    for (event, number, expected) in AFTERNOON {
        day.hook(event, number);
        expect(&odin3, event, expected);
        let there = session(&laptop).unwrap();
        assert_eq!(activity(&there), "working", "as it was last known");
        assert_eq!((&there["activity_since"], &there["synced"]), (&noon["activity_since"], &json!(true)));
        let as_of = there["as_of"].as_str().unwrap().to_owned();
        assert_eq!(known_as_of.get_or_insert(as_of.clone()), &as_of, "its age is shown");
    }
    server.resume();
    let there = expect(&laptop, "the evening", "idle");
    assert_eq!(there["instance_id"], noon["instance_id"]);
    let handoff = laptop.ok(&["context", there["instance_id"].as_str().unwrap(), "--handoff"]);
    for words in ["build the flux capacitor", "Pending: test it", "authentication"] {
        assert!(handoff.contains(words), "{words}: {handoff}");
    }
    day.hook("SessionEnd", 2);
    eventually("it is closed on both", SOON, || {
        [&odin3, &laptop].iter().all(|host| session(host).is_some_and(|s| s["status"] == "closed")).then_some(())
    });
}
