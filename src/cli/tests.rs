//! Runs whole command lines against a daemon with prepared answers.

use super::*;
use crate::client::fake_daemon::FakeDaemon;
use crate::domain::Timestamp;
use crate::wire::ErrorCode;

/// 2026-01-30T12:04:00Z, four minutes after everything in the answers below.
const NOW: Timestamp = Timestamp::from_micros(1_769_774_640_000_000);

const IDENTITY: &str =
    r#"{"name": "laptop", "host_id": "h1", "pinned_at": "2026-01-30T12:00:00.000000Z", "conflict": null}"#;

fn session(id: &str, status: &str) -> String {
    format!(
        r#"{{"instance_id": "{id}", "project": "odin", "instance_type": "PS", "status": "{status}",
        "context_percent": 42, "current_epic": "003", "last_heartbeat": "2026-01-30T12:00:00.000000Z",
        "created_at": "2026-01-30T12:00:00.000000Z", "closed_at": null, "host_machine": "odin3",
        "claude_session_uuid": null, "claude_session_path": "/t/x.jsonl", "resumed_from": null, "working_dir": null, "age_seconds": 240, "local": true,
        "as_of": "2026-01-30T12:00:00.000000Z", "synced": false}}"#
    )
}

fn list(total: u64, active: u64, stale: u64, instances: &[String]) -> String {
    format!(
        r#"{{"instances": [{}], "total_count": {total}, "active_count": {active}, "stale_count": {stale},
        "as_of": "2026-01-30T12:04:00.000000Z"}}"#,
        instances.join(",")
    )
}

fn central(state: &str, error: &str) -> String {
    format!(
        r#"{{"configured": {}, "state": "{state}", "since": "2026-01-30T12:00:00.000000Z", "last_error": {error},
        "last_sync_at": null, "round_trip_ms": 1.25}}"#,
        state != "off"
    )
}

fn sync(state: &str, error: &str, sessions: u64, records: u64) -> String {
    format!(
        r#"{{"central": {}, "backlog": {{"sessions": {sessions}, "records": {records}, "oldest_at": null}}, "parked": 0}}"#,
        central(state, error)
    )
}

/// Fakes the operations of the binary.
struct FakeLocal;

impl LocalOperations for FakeLocal {
    fn run(&self, args: &RunArgs) -> Result<(), CliError> {
        assert_eq!(args.settings.machine.as_deref(), Some("laptop"));
        Err(CliError::new(ErrorCode::Configuration, "two names disagree", "rename it"))
    }

    fn migrate(&self, args: &MigrateArgs) -> Result<String, CliError> {
        Ok(format!("dry run: {}\n", args.dry_run))
    }

    fn recording(&self) -> Result<Recording, CliError> {
        Ok(Recording::Full)
    }

    fn identity(&self, _: &IdentityVerb) -> Result<MachineIdentity, CliError> {
        Ok(serde_json::from_str(&IDENTITY.replace("laptop", "local")).unwrap())
    }

    fn install(&self, args: &InstallArgs) -> Result<Vec<String>, CliError> {
        Ok(vec![format!("dry run: {}", args.dry_run)])
    }

    fn uninstall(&self, args: &UninstallArgs) -> Result<Vec<String>, CliError> {
        Ok(vec![format!("of the system: {}", args.scope.system)])
    }

    fn doctor(&self, _: &DaemonOptions, _: &Client) -> Result<Vec<Finding>, CliError> {
        Ok(vec![Finding::good("config", "valid"), Finding::wrong("disk", "full", "make room")])
    }

    fn bugreport(&self, _: &DaemonOptions, _: &Client) -> Result<String, CliError> {
        Ok("everything".into())
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Ran {
    code: u8,
    out: String,
    err: String,
}

impl Ran {
    fn document(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

fn run_with(words: &[&str], style: OutputStyle) -> Ran {
    let args: Vec<OsString> = std::iter::once(&"sessiond").chain(words).map(Into::into).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = execute(&args, &|_| None, &FakeLocal, &mut Output::new(&mut out, &mut err, style));
    Ran { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

fn run(line: &str) -> Ran {
    run_with(&line.split(' ').collect::<Vec<_>>(), OutputStyle { now: NOW, ..OutputStyle::plain() })
}

/// Runs a line against a daemon that gives these answers.
fn asked(line: &str, answers: &[(u16, &str)]) -> (Ran, Vec<String>) {
    let daemon = FakeDaemon::json(answers);
    let ran = run(&format!("{line} --socket {}", daemon.socket.display()));
    (ran, daemon.requests())
}

fn printed(line: &str, answer: &str) -> String {
    let (ran, _) = asked(line, &[(200, answer)]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{line}");
    ran.out
}

#[test]
fn register_prints_the_session() {
    let answer = session("odin-PS-8f4a2b", "active");
    let line = "register --working-dir /w --project odin --epic 003 --pid 7";
    let (ran, requests) = asked(line, &[(201, &answer)]);
    assert_eq!(ran, Ran { code: 0, out: "registered odin-PS-8f4a2b on odin3\n".into(), err: String::new() });
    assert!(requests[0].starts_with("POST /v1/sessions HTTP/1.1"));
    let body: serde_json::Value = serde_json::from_str(requests[0].split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(
        body,
        serde_json::json!({"project": "odin", "instance_type": "PS", "current_epic": "003", "pid": 7, "working_dir": "/w"})
    );
    assert_eq!(printed(&format!("{line} --id-only"), &answer), "odin-PS-8f4a2b\n");
    let document: serde_json::Value = serde_json::from_str(&printed(&format!("{line} --json"), &answer)).unwrap();
    assert_eq!(document["instance_id"], "odin-PS-8f4a2b");
}

#[test]
fn heartbeat_keeps_sets_or_clears_the_epic() {
    let answer = session("x", "active");
    for (flags, body) in [
        ("", "{}"),
        (" --clear-epic", r#"{"current_epic":null}"#),
        (" --epic 004 --context 9", r#"{"context_percent":9,"current_epic":"004"}"#),
    ] {
        let (ran, requests) = asked(&format!("heartbeat x{flags}"), &[(200, &answer)]);
        assert_eq!(ran.out, "x is active, context 42%, epic 003\n");
        assert!(requests[0].starts_with("POST /v1/sessions/x/heartbeat "));
        assert!(requests[0].ends_with(&format!("\r\n\r\n{body}")), "{}", requests[0]);
    }
}

#[test]
fn close_and_footer_print_a_line() {
    assert_eq!(printed("close x", &session("x", "closed")), "closed x\n");
    assert_eq!(printed("footer x --separator", "---\nInstance: x"), "---\nInstance: x\n");
}

#[test]
fn list_is_a_table_and_a_summary() {
    let remote = |id, synced| {
        let here = "\"local\": true";
        session(id, "stale").replace(here, &format!("\"local\": false, \"machine_synced\": {synced}"))
    };
    // The others were known four minutes ago; this one just now, but its machine is silent.
    let silent =
        remote("odin-PS-00000c", false).replace("\"as_of\": \"2026-01-30T12:00", "\"as_of\": \"2026-01-30T12:04");
    let sessions = [session("odin-PS-8f4a2b", "active"), remote("odin-PS-00000b", true), silent];
    assert_eq!(
        printed("list --active --local", &list(3, 1, 1, &sessions)),
        "\
ID              MACHINE  STATUS  CONTEXT  EPIC  HEARTBEAT  KNOWN
odin-PS-8f4a2b  odin3    active      42%  003          4m
odin-PS-00000b  odin3    stale       42%  003          4m  cached 4m
odin-PS-00000c  odin3    stale       42%  003          4m  unreachable

3 sessions, 1 active, 1 stale, 1 closed
"
    );
    let (_, requests) = asked("list --active --local --project a", &[(200, &list(0, 0, 0, &[]))]);
    assert!(requests[0].starts_with("GET /v1/sessions?project=a&active_only=true&local=true "), "{}", requests[0]);
}

#[test]
fn empty_list_is_noted_on_stderr() {
    let (ran, _) = asked("list", &[(200, &list(0, 0, 0, &[]))]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""));
    assert!(ran.err.starts_with("no sessions yet"), "{}", ran.err);
    let (ran, _) = asked("list --json", &[(200, &list(0, 0, 0, &[]))]);
    assert_eq!((ran.document()["total_count"].as_u64(), ran.err.as_str()), (Some(0), ""));
}

#[test]
fn show_is_a_list_of_fields() {
    // A daemon of an earlier version knows no work.
    let (ran, requests) = asked("show x", &[(200, &session("x", "stale")), (404, "{}")]);
    assert!(requests[1].starts_with("GET /v1/sessions/x/work "), "{}", requests[1]);
    assert_eq!(
        ran.out,
        "\
id           x
project      odin
type         PS
machine      odin3 (this host)
status       stale
context      42%
epic         003
heartbeat    2026-01-30T12:00:00Z (4m ago)
created      2026-01-30T12:00:00Z (4m ago)
transcript   /t/x.jsonl
known as of  2026-01-30T12:00:00Z (4m ago)
central      does not have this state yet
"
    );
}

#[test]
fn several_matches_are_listed() {
    let answer = format!(
        r#"{{"matches": [{}, {}]}}"#,
        session("odin-PS-1", "active"),
        session("odin-PS-2", "stale").replace(r#""local": true"#, r#""local": false"#)
    );
    let (ran, _) = asked("show odin", &[(300, &answer)]);
    assert_eq!((ran.code, ran.out.as_str()), (3, ""));
    assert_eq!(
        ran.err,
        "\
sessiond: \"odin\" matches 2 sessions; choose one and give its whole id
   ID         MACHINE  STATUS  EPIC  HEARTBEAT  KNOWN
1  odin-PS-1  odin3    active  003          4m
2  odin-PS-2  odin3    stale   003          4m  cached 4m
"
    );
    let (ran, _) = asked("show odin --json", &[(300, &answer)]);
    assert_eq!(ran.code, 3);
    assert_eq!(ran.document()["matches"][1]["instance_id"], "odin-PS-2");
    assert_eq!(ran.document()["error"]["code"], "ambiguous");
}

#[test]
fn errors_of_the_daemon_are_printed() {
    let answer = r#"{"error": {"code": "session_closed", "message": "x is closed", "hint": "register anew"}}"#;
    let (ran, _) = asked("heartbeat x --json", &[(409, answer)]);
    assert_eq!((ran.code, ran.err.as_str()), (1, "sessiond: x is closed; register anew\n"));
    assert_eq!(ran.document(), serde_json::from_str::<serde_json::Value>(answer).unwrap());
}

#[test]
fn unreachable_daemon_exits_with_69() {
    let ran = run("status --json --socket /nonexistent/s.sock");
    assert_eq!(ran.code, 69);
    assert!(ran.err.starts_with("sessiond: no daemon found"), "{}", ran.err);
    assert_eq!(ran.document()["error"]["code"], "unreachable");
}

#[test]
fn usage_error_exits_with_2_and_prints_json_on_request() {
    let ran = run("lst --json");
    assert_eq!(ran.code, 2);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    assert_eq!(ran.document()["error"]["code"], "usage");
    assert_eq!(run("parked drop").code, 2);
    assert!(run("--help").out.contains("Usage: sessiond"));
    assert_eq!(run("--help").code, 0);
}

#[test]
fn status_is_a_list_of_fields() {
    let status = |central: &str, error: &str| {
        format!(
            r#"{{"daemon": {{"version": "0.1.0", "pid": 7, "started_at": "x", "uptime_seconds": 7600}},
            "machine": {IDENTITY}, "central": {central},
            "backlog": {{"sessions": 3, "records": 1, "oldest_at": "2026-01-30T12:00:00Z"}}, "parked": 2,
            "sessions": {{"active": 2, "stale": 1, "closed": 0}},
            "store": {{"path": "/s/db", "bytes": 4096, "durability": "full"}},
            "config": {{"path": null, "error": {error}}}}}"#
        )
    };
    assert_eq!(
        printed("status", &status(&central("unreachable", "\"no route to host\""), "\"line 3: what is x?\"")),
        "\
daemon    sessiond 0.1.0, pid 7, up 2.1h
machine   laptop, host id h1
central   unreachable for 4m, round trip 1.2 ms
          no route to host
backlog   3 sessions and 1 record are pending, the oldest for 4m
parked    2; see `sessiond parked list`
sessions  2 active, 1 stale, 0 closed
store     /s/db, 4.0 KiB, durability full
config    no file, all defaults
          not in force: line 3: what is x?
"
    );
    assert!(
        printed("status", &status(&central("off", "null"), "null")).contains("central   off: none is configured\n")
    );
    let long = central("connected", "null").replacen('{', r#"{"long_transaction": "transaction 7 is open", "#, 1);
    assert!(printed("status", &status(&long, "null")).contains("\n          transaction 7 is open\n"));
}

fn context(command: &str) -> String {
    format!(
        r#"{{"instance_id": "odin-PS-8f4a2b", "host_machine": "odin4", "working_dir": "/srv/odin",
        "claude_session_path": null, "reachable": false, "machine_synced": false,
        "last_seen": "2026-01-30T12:00:00.000000Z", "command": {command}, "source": "checkpoint", "confidence": 90,
        "reason": "the newest checkpoint (manual) is 10m old",
        "work_state": {{"current_epic": "003", "last_completed_epic": null, "tests_passed": 42, "last_error": "E1"}},
        "recent_actions": [{{"at": "2026-01-30T12:03:00.000000Z", "what": "Began epic 003"}},
            {{"at": "2026-01-30T12:00:00.000000Z", "what": "Registered\u001b"}}],
        "next_steps": ["See to E1", "Go on with epic 003"]}}"#
    )
}

const CONTEXT: &str = "\
session     odin-PS-8f4a2b
machine     odin4, last seen 4m ago
            not synced: later work may be recorded only on odin4
folder      /srv/odin
transcript  —
epic        003
completed   —
tests       42 passed
last error  E1
confidence  90%: the newest checkpoint (manual) is 10m old
recent      1m ago: Began epic 003
            4m ago: Registered\\u{1b}
next        See to E1
            Go on with epic 003
";

#[test]
fn context_is_a_list_of_fields_and_ends_with_the_command() {
    let output = printed("context odin-PS-8f4a2b", &context("\"ssh odin4 -t 'claude --resume u'\""));
    assert_eq!(output, format!("{CONTEXT}continue    ssh odin4 -t 'claude --resume u'\n"));
    let (ran, requests) = asked("context x --handoff", &[(200, "# Handoff of x\n\u{1b}")]);
    assert_eq!(ran.out, "# Handoff of x\n\\u{1b}\n");
    assert!(requests[0].starts_with("GET /v1/sessions/x/context?format=markdown "), "{}", requests[0]);
}

#[test]
fn resume_prints_the_outcome_and_the_context() {
    let answer = |resumed: &str, id: &str, found_by: &str| {
        let (session, from) = (session(id, "active"), session("odin-PS-8f4a2b", "stale"));
        let context = context("null");
        format!(
            r##"{{"session": {session}, "resumed": "{resumed}", "found_by": "{found_by}", "from": {from},
            "context": {context}, "handoff": "# Handoff\n"}}"##
        )
    };
    assert_eq!(
        printed("resume 8f4a2b", &answer("taken_up", "odin-PS-8f4a2b", "hash")),
        format!("resumed odin-PS-8f4a2b in place, found by its hash\n\n{CONTEXT}")
    );
    let new = answer("new_session", "odin-PS-aaaaaa", "newest");
    let (ran, requests) = asked("resume --closed --choose 2 --pid 7 --working-dir /d --handoff", &[(200, &new)]);
    assert_eq!(
        ran,
        Ran {
            code: 0,
            out: "# Handoff\n".into(),
            err: "registered odin-PS-aaaaaa, which continues odin-PS-8f4a2b, the session with the newest heartbeat\n"
                .into()
        }
    );
    let body = r#"{"choice":2,"closed":true,"pid":7,"working_dir":"/d"}"#;
    assert!(requests[0].ends_with(&format!("\r\n\r\n{body}")), "{}", requests[0]);
    let several = format!(r#"{{"matches": [{}, {}]}}"#, session("odin-PS-1", "stale"), session("odin-PS-2", "stale"));
    let (ran, _) = asked("resume odin", &[(300, &several)]);
    assert_eq!((ran.code, ran.out.as_str()), (3, ""));
    let expected = "sessiond: \"odin\" matches 2 sessions; choose one with --choose N, or give its whole id\n";
    assert!(ran.err.starts_with(expected), "{}", ran.err);
}

#[test]
fn machines_are_a_table() {
    let answer = r#"[{"host_machine": "laptop", "total_sessions": 3, "active_sessions": 1, "stale_sessions": 2,
        "closed_sessions": 0, "last_activity": "2026-01-30T12:00:00Z", "projects": "a, b", "reachable": false,
        "last_seen": "2026-01-30T11:04:00Z", "as_of": "2026-01-30T12:00:00Z"}]"#;
    assert_eq!(
        printed("machines", answer),
        "\
MACHINE  ACTIVE  STALE  CLOSED  ACTIVITY  DAEMON     HEADROOM  PROJECTS
laptop        1      2       0        4m  silent 1h         —  a, b
"
    );
}

#[test]
fn sync_requests_a_push_and_returns() {
    let (ran, requests) = asked("sync", &[(200, &sync("connected", "null", 3, 0))]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "push requested; 3 sessions are pending\n"));
    assert!(requests[0].ends_with("\r\n\r\n{}"), "{}", requests[0]);
    assert_eq!(printed("sync", &sync("connected", "null", 0, 0)), "central has everything\n");
    assert_eq!(printed("sync", &sync("unreachable", "null", 0, 0)), "nothing is pending; central is unreachable\n");
    let (ran, _) = asked("sync", &[(200, &sync("off", "null", 3, 0))]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("SESSIOND_CENTRAL_URL"), "{}", ran.err);
}

#[test]
fn sync_waits_until_nothing_is_pending_or_the_timeout() {
    let (left, done) = (sync("connected", "null", 3, 2), sync("connected", "null", 0, 0));
    let (ran, requests) = asked("sync --wait", &[(200, &left), (200, &done)]);
    assert_eq!(ran, Ran { code: 0, out: "central has everything\n".into(), err: String::new() });
    assert!(requests[0].ends_with("{\"wait_ms\":1000}"), "{}", requests[0]);

    let stuck = sync("unreachable", "\"no route to host\"", 1, 2);
    let (ran, _) = asked("sync --wait --timeout 0", &[(200, &stuck)]);
    assert_eq!((ran.code, ran.out.as_str()), (75, ""));
    assert_eq!(
        ran.err,
        "sessiond: 1 session and 2 records are pending after 0 s; central is unreachable: no route to host; \
         nothing is lost, sync continues in the background; see `sessiond status`\n"
    );
}

#[test]
fn progress_is_drawn_only_on_a_terminal_and_cleared() {
    let answers = [sync("connected", "null", 3, 0), sync("connected", "null", 0, 0)];
    let daemon = FakeDaemon::json(&[(200, &answers[0]), (200, &answers[1])]);
    let socket = daemon.socket.display().to_string();
    let ran =
        run_with(&["sync", "--wait", "--socket", &socket], OutputStyle { progress: true, ..OutputStyle::plain() });
    assert_eq!(ran.err, "\r\u{1b}[K3 sessions are pending; central is connected\r\u{1b}[K");
}

#[test]
fn parked_sessions_are_listed_retried_and_dropped() {
    let answer = r#"[{"id": "x", "instance_id": "x", "error": "too\nlong", "parked_at": "2026-01-30T12:00:00Z"},
        {"id": "7", "instance_id": "x", "kind": "event", "type": "odd", "error": "e", "parked_at": "2026-01-30T12:00:00Z"}]"#;
    assert_eq!(
        printed("parked list", answer),
        "ID  WHAT            PARKED  ERROR\nx   session             4m  too\\nlong\n7   event odd of x      4m  e\n"
    );
    assert_eq!(printed("parked retry", r#"{"count": 2}"#), "2 rows retried\n");
    assert_eq!(printed("parked drop --all", r#"{"count": 1}"#), "1 row dropped\n");
    let (_, requests) = asked("parked drop a b", &[(200, r#"{"count": 2}"#)]);
    assert!(requests[0].ends_with("\r\n\r\n{\"ids\":[\"a\",\"b\"]}"), "{}", requests[0]);
}

#[test]
fn identity_is_read_from_the_daemon_else_from_files() {
    assert!(printed("identity show", IDENTITY).starts_with("machine  laptop\n"));
    let (ran, requests) = asked("identity rename laptop", &[(200, IDENTITY)]);
    assert!(ran.out.starts_with("machine now  laptop\n"), "{}", ran.out);
    assert!(requests[0].starts_with("POST /v1/identity/rename "));
    assert!(run("identity show --socket /nonexistent/s.sock").out.starts_with("machine  local\n"));
    assert!(run("identity show --state-dir /s").out.starts_with("machine  local\n"));
    let refused = r#"{"error": {"code": "conflict", "message": "m", "hint": "h"}}"#;
    assert_eq!(asked("identity replace", &[(409, refused)]).0.code, 1);
}

#[test]
fn local_verbs_call_local_operations() {
    let ran = run("run --machine laptop");
    assert_eq!((ran.code, ran.err.as_str()), (78, "sessiond: two names disagree; rename it\n"));
    assert_eq!(run("migrate --dry-run").out, "dry run: true\n");
    assert_eq!(run("install --dry-run").out, "dry run: true\n");
    assert_eq!(run("uninstall --system").out, "of the system: true\n");
}

#[test]
fn doctor_prints_advice_and_fails_if_a_check_failed() {
    let ran = run("doctor");
    assert!(ran.out.contains("config  good: valid\n") && ran.out.contains("-> make room\n"), "{}", ran.out);
    assert_eq!((ran.code, ran.err.as_str()), (1, "sessiond: 1 check failed; see the advice beside each\n"));
    let document = run("doctor --json").document();
    assert_eq!((&document["well"], &document["findings"][1]["advice"]), (&false.into(), &"make room".into()));
}

#[test]
fn bug_report_never_overwrites_a_file_and_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report");
    let line = format!("bugreport {}", file.display());
    assert!(run(&line).out.starts_with("wrote "));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(run(&line).code, 1);
}

#[test]
fn completions_of_each_shell_have_the_verbs() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(&format!("completions {shell}")).out.contains("heartbeat"), "{shell}");
    }
}
