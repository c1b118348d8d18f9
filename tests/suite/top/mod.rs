//! `sessiond top` in a real terminal.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use testkit::daemon::Host;
use testkit::eventually;
use testkit::postgres::{Server, Stop};
use testkit::tmux::Tmux;

const SOON: Duration = Duration::from_secs(30);

fn register(host: &Host, activity: &str) -> String {
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    if !activity.is_empty() {
        host.ok(&["heartbeat", &id, "--activity", activity]);
    }
    id
}

/// The ids in the order of the lines that have them.
fn order<'a>(screen: &[String], ids: &'a [String]) -> Vec<&'a str> {
    let found = screen.iter().filter_map(|line| ids.iter().find(|id| line.contains(id.as_str())));
    found.map(String::as_str).collect()
}

/// The process of `sessiond top` in the pane.
fn process(tmux: &Tmux) -> Pid {
    let shell = tmux.property("pane_pid");
    let children = eventually("top runs", SOON, || {
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).ok()?;
        children.split_whitespace().next_back().map(str::to_owned)
    });
    Pid::from_raw(children.parse().unwrap()).unwrap()
}

#[test]
fn keys_work_at_each_size() {
    let host = Host::new("odin3").started();
    let ids = [register(&host, "working"), register(&host, "waiting"), register(&host, "idle")];
    for (columns, lines) in [(60, 15), (100, 30), (200, 60)] {
        let Some(tmux) = Tmux::of_host("keys_work_at_each_size", &host, columns, lines) else { return };
        tmux.line("sessiond top; echo exit $?");
        let screen = tmux.await_screen("all sessions", |screen| order(screen, &ids).len() == 3);
        assert_eq!(order(&screen, &ids), [&ids[1], &ids[2], &ids[0]], "{screen:#?}");
        assert!(screen[0].starts_with(" odin3  central off") && screen[1].contains("! 1 waiting"), "{screen:#?}");
        assert!(screen[3].starts_with(">!"), "{screen:#?}");
        tmux.press(&["Down"]);
        tmux.await_screen("the second is selected", |screen| screen[4].starts_with(">-"));
        tmux.press(&["g"]);
        tmux.await_text("odin3  1 waiting, 1 idle, 1 working");
        tmux.press(&["g", "g", "s"]);
        tmux.await_text("by project");
        tmux.press(&["/"]);
        tmux.press(
            &ids[0]
                .chars()
                .rev()
                .take(6)
                .map(String::from)
                .collect::<Vec<_>>()
                .iter()
                .rev()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        );
        tmux.await_screen("the filter leaves one", |screen| order(screen, &ids) == [&ids[0]]);
        tmux.press(&["Enter", "Enter"]);
        tmux.await_text("this host)");
        tmux.press(&["End"]);
        tmux.await_text("Next steps");
        tmux.press(&["Escape"]);
        tmux.await_screen("the table is back", |screen| !screen.iter().any(|line| line.contains("this host)")));
        tmux.press(&["Escape", "?"]);
        tmux.await_text("Up, Down, k, j");
        tmux.press(&["q"]);
        tmux.await_screen("three sessions again", |screen| order(screen, &ids).len() == 3);
        tmux.run(&["resize-window", "-x", "70", "-y", "20"]);
        tmux.await_screen("the new size", |screen| screen.len() == 20 && screen[19].contains("? help"));
        tmux.press(&["q"]);
        tmux.await_text("exit 0");
        tmux.assert_sane();
    }
}

#[test]
fn changes_are_shown_at_once_and_sessions_are_closed_after_a_question() {
    let host = Host::new("odin3").started();
    let id = register(&host, "working");
    let Some(tmux) = Tmux::of_host("changes_are_shown_at_once", &host, 100, 20) else { return };
    tmux.line("sessiond top --bell");
    tmux.await_screen("it works", |screen| screen.iter().any(|line| line.starts_with(">*") && line.contains(&id)));
    host.ok(&["heartbeat", &id, "--activity", "waiting", "--waiting-for", "plan", "--context", "85"]);
    let screen = tmux.await_text("waiting");
    assert!(screen[3].contains("85% ") && screen[3].starts_with(">!"), "{screen:#?}");
    tmux.press(&["c"]);
    tmux.await_text(&format!("close {id} permanently? y/n"));
    tmux.press(&["n"]);
    tmux.await_text("stays open");
    assert_eq!(host.ask("GET", &format!("/v1/sessions/{id}"), None).1["status"], "active");
    tmux.press(&["c", "y"]);
    tmux.await_text("no session is open");
    assert_eq!(host.ask("GET", &format!("/v1/sessions/{id}"), None).1["status"], "closed");
    tmux.press(&["a"]);
    tmux.await_screen("the closed one", |screen| screen.iter().any(|line| line.contains(&id)));
}

#[test]
fn daemon_may_restart() {
    let mut host = Host::new("odin3").started();
    let first = register(&host, "working");
    let Some(tmux) = Tmux::of_host("daemon_may_restart", &host, 100, 20) else { return };
    tmux.line("sessiond top; echo exit $?");
    tmux.await_text(&first);
    host.kill();
    let screen = tmux.await_text("daemon unreachable since");
    assert!(screen.iter().any(|line| line.contains(&first)), "its sessions stay: {screen:#?}");
    host.start();
    let second = register(&host, "waiting");
    tmux.await_screen("both", |screen| order(screen, &[first.clone(), second.clone()]) == [&second, &first]);
    tmux.await_screen("it is reachable", |screen| screen[0].contains("central off"));
    tmux.press(&["C-c"]);
    tmux.await_text("exit 0");
}

#[test]
fn machines_that_are_away_are_marked() {
    let mut server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    let odin3 = Host::with_central("odin3", &url);
    odin3.ok(&["migrate", "--central-url", &url]);
    let (odin3, laptop) = (odin3.started(), Host::with_central("laptop", &url).started());
    let id = register(&laptop, "waiting");
    let Some(tmux) = Tmux::of_host("machines_that_are_away_are_marked", &odin3, 120, 20) else { return };
    tmux.line("sessiond top; echo exit $?");
    tmux.await_screen("it waits on the laptop", |screen| {
        screen[3].starts_with(">! ") && screen[3].contains("laptop") && screen[3].contains(&id)
    });
    server.stop(Stop::Fast);
    tmux.await_screen("central is away", |screen| {
        screen[0].contains("central unreachable") && screen[1].contains("1 away") && screen[3].starts_with(">!?")
    });
    tmux.press(&["r"]);
    let screen = tmux.await_text("exit 0");
    assert!(screen.iter().any(|line| line.starts_with("ssh laptop -t ")), "{screen:#?}");
    tmux.assert_sane();
}

#[test]
fn signals_leave_a_sane_terminal() {
    let host = Host::new("odin3").started();
    let id = register(&host, "idle");
    // The shell itself ends its line after SIGINT, without the echo.
    for (signal, said) in [(Signal::TERM, "exit 143"), (Signal::INT, "$"), (Signal::HUP, "exit 129")] {
        let Some(tmux) = Tmux::of_host("signals_leave_a_sane_terminal", &host, 80, 24) else { return };
        tmux.line("sessiond top; echo exit $?");
        tmux.await_text(&id);
        kill_process(process(&tmux), signal).unwrap();
        tmux.await_screen(said, |screen| {
            !screen.iter().any(|line| line.contains(&id)) && screen.join("").contains(said)
        });
        tmux.assert_sane();
    }
}

#[test]
fn view_can_be_suspended_and_continued() {
    let host = Host::new("odin3").started();
    let id = register(&host, "idle");
    let Some(tmux) = Tmux::of_host("view_can_be_suspended_and_continued", &host, 80, 24) else { return };
    tmux.line("set -m; sessiond top");
    tmux.await_text(&id);
    let top = process(&tmux);
    for stop in ["signal", "key", "SIGSTOP"] {
        match stop {
            "key" => tmux.press(&["C-z"]),
            "signal" => kill_process(top, Signal::TSTP).unwrap(),
            _ => kill_process(top, Signal::STOP).unwrap(),
        }
        eventually("it stopped", SOON, || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", top.as_raw_nonzero())).ok()?;
            stat.contains(") T ").then_some(())
        });
        if stop != "SIGSTOP" {
            tmux.await_text("Stopped");
            tmux.assert_sane();
        }
        // A shell that reads from a terminal in raw mode gets no line feed for Enter.
        tmux.press(&["fg", "C-j"]);
        tmux.await_screen("the view is back", |screen| {
            screen.iter().any(|line| line.contains(&id)) && screen.last().is_some_and(|line| line.contains("? help"))
        });
        assert_eq!(tmux.property("alternate_on"), "1");
    }
    tmux.press(&["q"]);
    tmux.assert_sane();
}

#[test]
fn resuming_opens_a_window_of_tmux_or_prints_the_command() {
    let host = Host::new("odin3").started();
    let uuid = "2f1c8c54-0000-4000-8000-000000000001";
    let folder = host.dir().join("it's a folder");
    std::fs::create_dir(&folder).unwrap();
    let folder = folder.to_str().unwrap();
    let id = host.ok(&[
        "register",
        "--project",
        "odin",
        "--claude-session-uuid",
        uuid,
        "--working-dir",
        folder,
        "--id-only",
    ]);
    let Some(tmux) = Tmux::of_host("resuming_opens_a_window_of_tmux", &host, 100, 20) else { return };
    // Stands in for the agent.
    let claude = host.dir().join("claude");
    testkit::program::write_script(&claude, "#!/bin/sh\necho agent \"$@\" in \"$PWD\"; sleep 600\n");
    tmux.line(&format!("clear; PATH={}:$PATH; sessiond top", host.dir().display()));
    tmux.await_text(&id);
    tmux.press(&["y"]);
    tmux.await_text("copied: cd ");
    tmux.press(&["r"]);
    let screen = tmux.await_text("agent --resume");
    let text = screen.join("");
    assert!(text.contains(&format!("agent --resume {uuid}")) && text.contains("it's a folder"), "{screen:#?}");
    tmux.run(&["kill-window"]);
    tmux.await_text(&format!("resumed {id} in a new tmux window"));
    tmux.press(&["q"]);

    tmux.line("clear; TMUX= sessiond top; echo exit $?");
    tmux.await_text(&id);
    tmux.press(&["r"]);
    let screen = tmux.await_text("exit 0");
    let text = screen.join("");
    assert!(text.contains("cd ") && text.contains(&format!("claude --resume {uuid}")), "{screen:#?}");
}

#[test]
fn one_frame_is_printed_as_text() {
    let mut host = Host::new("odin3").environment("COLUMNS", "100").started();
    let ids: Vec<_> = ["working", "waiting", "failed"].iter().map(|activity| register(&host, activity)).collect();
    let work = json!({"prompt": "evil\u{1b}[2J\u{202e} title"});
    assert_eq!(host.ask("PUT", &format!("/v1/sessions/{}/work", ids[0]), Some(&work)).0, 200);
    let text = host.ok(&["top", "--once"]);
    assert_eq!(text.lines().count(), 6, "{text}");
    let rows: Vec<&str> = text.lines().skip(3).map(|line| &line[..12]).collect();
    assert_eq!(rows, [" !  waiting ", " x  failed 0", " *  working "].map(|row| row), "{text}");
    assert!(text.contains("evil") && !text.contains(['\u{1b}', '\u{202e}']), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");

    let (code, error) = host.refused(&["top"]);
    assert_eq!((code, error.lines().count()), (2, 1), "{error}");
    assert!(error.contains("--once"), "{error}");
    host.kill();
    let (code, error) = host.refused(&["top", "--once"]);
    assert_eq!((code, error.lines().count()), (69, 1), "{error}");
    let Some(tmux) = Tmux::of_host("one_frame_is_printed_as_text", &host, 80, 24) else { return };
    tmux.line("sessiond top; echo exit $?");
    tmux.await_text("exit 69");
    tmux.line("TERM=dumb sessiond top; echo dumb $?");
    let screen = tmux.await_text("dumb 2");
    assert!(screen.join("").contains("--once"), "{screen:#?}");
}

#[test]
fn narrow_terminals_and_no_colour_work() {
    let host = Host::new("odin3").started();
    register(&host, "failed");
    let Some(tmux) = Tmux::of_host("narrow_terminals_and_no_colour_work", &host, 20, 6) else { return };
    tmux.line("clear; NO_COLOR=1 sessiond top; echo exit $?");
    tmux.await_text("x  failed");
    let colours = tmux.run(&["capture-pane", "-p", "-e"]);
    assert!(!["[31m", "[32m", "[33m"].iter().any(|code| colours.contains(code)), "{colours:?}");
    tmux.run(&["resize-window", "-x", "2", "-y", "1"]);
    tmux.run(&["resize-window", "-x", "40", "-y", "10"]);
    tmux.await_text("ACTIVITY");
    tmux.press(&["q"]);
    tmux.await_text("exit 0");
}

#[test]
fn bell_rings_when_a_session_begins_to_wait() {
    let host = Host::new("odin3").started();
    let id = register(&host, "working");
    let Some(tmux) = Tmux::of_host("bell_rings", &host, 80, 24) else { return };
    tmux.run(&["set-option", "-g", "monitor-bell", "on"]);
    tmux.line("sessiond top --bell");
    tmux.await_text(&id);
    // The bell of the window that is looked at is not kept.
    tmux.run(&["new-window"]);
    let flag = || tmux.run(&["display-message", "-p", "-t", ":0", "#{window_bell_flag}"]);
    host.ok(&["heartbeat", &id, "--context", "50"]);
    assert_eq!(flag().trim(), "0");
    host.ok(&["heartbeat", &id, "--activity", "waiting"]);
    eventually("the bell rings", SOON, || (flag().trim() == "1").then_some(()));
}
