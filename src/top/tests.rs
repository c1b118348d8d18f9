//! The view as a whole: what is drawn, and what keys change.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier};
use serde_json::{Value, json};

use super::draw::{self, Ages, Palette};
use super::fleet::Facts;
use super::keys::{Action, Focus};
use super::row::{MAX_TREND, Row};
use super::view::{Effect, View};
use crate::domain::Timestamp;
use crate::domain::text::is_unsafe;
use crate::domain::text_width::width;

const NOW: &str = "2026-01-30T12:04:00.000000Z";
const COLOURS: Palette = Palette { has_colour: true };

fn now() -> Timestamp {
    Timestamp::parse(NOW).unwrap()
}

/// A session with these fields instead of the default ones.
fn row(id: &str, fields: Value) -> Row {
    let mut session = json!({
        "instance_id": id, "project": "odin", "instance_type": "PS", "status": "active", "context_percent": 42,
        "current_epic": null, "last_heartbeat": "2026-01-30T12:03:00.000000Z", "closed_at": null,
        "created_at": "2026-01-30T11:00:00.000000Z", "host_machine": "odin3", "claude_session_uuid": null,
        "claude_session_path": null, "age_seconds": 60, "local": true, "as_of": NOW, "synced": true,
    });
    session.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    Row::from(serde_json::from_value::<crate::wire::SessionBody>(session).unwrap())
}

fn doing(id: &str, activity: &str) -> Row {
    row(id, json!({"activity": activity, "activity_since": "2026-01-30T12:00:00.000000Z"}))
}

fn facts(machines: &[(&str, Option<bool>)]) -> Facts {
    let machines = machines.iter().map(|(name, reachable)| {
        json!({"host_machine": name, "total_sessions": 1, "active_sessions": 1, "stale_sessions": 0, "closed_sessions": 0,
            "last_activity": null, "projects": "odin", "reachable": reachable, "as_of": NOW,
            "last_seen": "2026-01-30T11:59:00.000000Z"})
    });
    let status = json!({
        "daemon": {"version": "0", "pid": 1, "started_at": NOW, "uptime_seconds": 1},
        "machine": {"name": "odin3", "host_id": "x", "pinned_at": NOW, "conflict": null},
        "central": {"configured": true, "state": "connected", "since": "2026-01-30T12:00:00.000000Z", "last_error": null,
            "last_sync_at": null, "round_trip_ms": null},
        "backlog": {"sessions": 2, "records": 1, "oldest_at": "2026-01-30T12:03:50.000000Z"},
        "parked": 0, "sessions": {"active": 1, "stale": 0, "closed": 0},
        "store": {"path": "/x", "bytes": 1, "durability": "full"}, "config": {"path": null, "error": null},
    });
    let limit = |window: &str, left: f64| {
        json!({"host_machine": "odin3", "local": true, "uid": 1, "account": "dev", "window": window, "used_percent": 1.0,
            "headroom_percent": left, "resets_at": null, "reset_passed": false, "observed_at": NOW, "age_seconds": 1,
            "as_of": NOW})
    };
    Facts {
        status: serde_json::from_value(status).unwrap(),
        limits: serde_json::from_value(json!([limit("five_hour", 58.5), limit("seven_day", 12.0)])).unwrap(),
        machines: serde_json::from_value(machines.collect()).unwrap(),
    }
}

fn view_of(rows: Vec<Row>) -> View {
    let mut view = View::default();
    view.set_facts(facts(&[("odin3", Some(true)), ("laptop", Some(false))]));
    view.list(rows);
    view.update_lines();
    view
}

fn sample() -> View {
    view_of(vec![
        row("odin-PS-00000a", json!({"status": "stale"})),
        doing("odin-PS-00000b", "working"),
        row(
            "odin-PS-00000c",
            json!({"activity": "waiting", "waiting_for": "permission", "activity_detail": "Bash", "title": "Fix the login",
                "activity_since": "2026-01-30T12:00:00.000000Z", "branch": "main"}),
        ),
        doing("odin-PS-00000d", "idle"),
        doing("odin-PS-00000e", "failed"),
        row("odin-PS-00000f", json!({"status": "closed"})),
        row(
            "odin-PS-000010",
            json!({"host_machine": "laptop", "local": false, "activity": "working", "project": "atlas"}),
        ),
    ])
}

fn buffer(view: &mut View, columns: u16, lines: u16) -> Buffer {
    let mut buffer = Buffer::empty(Rect::new(0, 0, columns, lines));
    draw::frame(&mut buffer, view, &Ages::at(now()), COLOURS);
    buffer
}

fn lines(view: &mut View, columns: u16, lines: u16) -> Vec<String> {
    let buffer = buffer(view, columns, lines);
    let line = |y| (0..columns).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..lines).map(line).collect()
}

fn press(view: &mut View, actions: &[Action]) -> Option<Effect> {
    let effects: Vec<_> = actions.iter().filter_map(|action| view.update(*action)).collect();
    view.update_lines();
    effects.last().cloned()
}

#[test]
fn frame_has_header_sessions_by_attention_and_keys() {
    assert_eq!(
        lines(&mut sample(), 100, 12),
        [
            " odin3  central connected 4m  backlog 3 (10s)  limits 12% left (seven_day of dev)",
            " ! 1 waiting  x 1 failed  - 1 idle  * 2 working  ~ 1 stale  2 machines, 1 away (?)",
            "    ACTIVITY          MACHINE  TITLE                    PROJECT  BRANCH   CONTEXT    TREND    AGE",
            ">!  waiting 4m: perm… odin3    Fix the login            odin     main      42% ██▌··          1m",
            " x  failed 4m         odin3    odin-PS-00000e           odin               42% ██▌··          1m",
            " -  idle 4m           odin3    odin-PS-00000d           odin               42% ██▌··          1m",
            " *  working 4m        odin3    odin-PS-00000b           odin               42% ██▌··          1m",
            " *? working           laptop   odin-PS-000010           atlas              42% ██▌··          1m",
            " ~  stale             odin3    odin-PS-00000a           odin               42% ██▌··          1m",
            "",
            "",
            " ? help  q quit  Enter details  y copy  r resume  c close  / filter  g group  s…  by attention  1/6",
        ]
    );
    let narrow = lines(&mut sample(), 60, 15);
    assert_eq!(narrow[3], ">!  waiting 4m odin3    Fix the login   odin      42% 1m");
    assert_eq!(lines(&mut sample(), 200, 60)[4].split_whitespace().last(), Some("odin-PS-00000e"), "the id is shown");
}

#[test]
fn every_size_is_drawn_in_every_state() {
    let opened =
        [Action::Details, Action::Back, Action::Filter, Action::Back, Action::Help, Action::Back, Action::Close];
    for (columns, height) in
        (0..45).flat_map(|w| (0..35).step_by(3).map(move |h| (w, h))).chain([(200, 60), (500, 300)])
    {
        let mut view = sample();
        for action in [Action::Group].iter().chain(&opened) {
            view.update(*action);
            if let Some(id) = view.opened().map(str::to_owned) {
                view.show_details(&id, "id  x\n\nlong text ".repeat(50));
            }
            view.report("a long message about what failed and what to do");
            buffer(&mut view, columns, height);
            view.message = None;
            for row in lines(&mut view, columns, height) {
                assert!(width(&row) <= usize::from(columns), "{columns}x{height}: {row}");
            }
        }
    }
}

#[test]
fn hostile_text_is_harmless() {
    let nasty = "\u{1b}[2J\u{9b}31m\u{202e}evil\u{2028}\n\r\t\u{7}日本\u{1f468}\u{200d}\u{1f469} a\u{300}\u{300}";
    let long = "w".repeat(1_000_000);
    let hostile = |text: &str| {
        let fields = json!({"title": text, "branch": text, "project": text, "host_machine": text, "activity": "waiting",
            "activity_detail": text, "current_epic": text});
        row(text, fields)
    };
    let mut view = view_of(vec![hostile(nasty), hostile(&long), hostile("<b>&amp;\u{7f}")]);
    for action in [Action::Group, Action::Sort, Action::Details, Action::Back, Action::Close] {
        view.update(action);
        if let Some(id) = view.opened().map(str::to_owned) {
            view.show_details(&id, nasty.repeat(20));
        }
        let buffer = buffer(&mut view, 120, 40);
        assert!(buffer.content.iter().all(|cell| !cell.symbol().contains(is_unsafe)), "{action:?}");
    }
}

#[test]
fn selection_stays_with_its_session() {
    let mut view = sample();
    press(&mut view, &[Action::Down]);
    assert_eq!(view.selected(), Some("odin-PS-00000e"));
    view.apply_row(doing("odin-PS-00000e", "working"));
    view.apply_row(doing("odin-PS-0000ff", "waiting"));
    view.update_lines();
    assert_eq!(view.selected(), Some("odin-PS-00000e"), "it moved down");
    view.apply_row(row("odin-PS-00000e", json!({"status": "closed"})));
    view.update_lines();
    assert!(view.selected().is_some_and(|id| id != "odin-PS-00000e"), "a neighbour is selected");
    view.list(Vec::new());
    view.update_lines();
    assert_eq!(press(&mut view, &[Action::Close]), None);
    assert_eq!(view.selected(), None);
    assert_eq!(view.focus(), Focus::Table);
}

#[test]
fn moving_scrolls_and_stops_at_the_ends() {
    let mut view = view_of((0..100).map(|n| row(&format!("odin-PS-{n:06}"), json!({}))).collect());
    lines(&mut view, 80, 14);
    for (actions, at) in [
        (vec![Action::Up], 1),
        (vec![Action::PageDown], 10),
        (vec![Action::End, Action::Down], 100),
        (vec![Action::PageUp], 91),
        (vec![Action::Home], 1),
    ] {
        press(&mut view, &actions);
        assert_eq!(view.position(), (at, 100), "{actions:?}");
        let shown = lines(&mut view, 80, 14);
        let selected: Vec<_> = shown.iter().filter(|line| line.starts_with('>')).collect();
        assert_eq!(selected.len(), 1, "{shown:#?}");
        assert!(selected[0].contains(&format!("{:06}", at - 1)), "{shown:#?}");
    }
}

#[test]
fn groups_have_headings_that_cannot_be_selected() {
    let mut view = sample();
    press(&mut view, &[Action::Group, Action::End]);
    let shown = lines(&mut view, 100, 16);
    assert!(shown[3].starts_with("odin3  1 waiting, 1 failed, 1 idle, 1 working, 1 stale"), "{shown:#?}");
    assert_eq!(shown[9], "laptop  1 working");
    assert!(shown[10].starts_with(">*? working"), "{shown:#?}");
    press(&mut view, &[Action::Home]);
    assert_eq!(view.selected(), Some("odin-PS-00000c"));
    press(&mut view, &[Action::Up]);
    assert_eq!((view.selected(), view.position()), (Some("odin-PS-00000c"), (1, 6)));
    press(&mut view, &[Action::Group]);
    assert!(lines(&mut view, 100, 16)[3].starts_with("odin  "));
    press(&mut view, &[Action::Group]);
    assert!(lines(&mut view, 100, 16)[3].starts_with(">!"));
}

#[test]
fn filter_matches_all_words_in_any_field() {
    let mut view = sample();
    let typed = |view: &mut View, text: &str| {
        view.update(Action::Filter);
        text.chars().for_each(|c| _ = view.update(Action::Type(c)));
        view.update_lines();
    };
    typed(&mut view, "LOGIN odin3");
    assert_eq!(view.position(), (1, 1));
    assert!(lines(&mut view, 100, 12)[11].starts_with(" /LOGIN odin3_"));
    assert_eq!(press(&mut view, &[Action::Accept]), None);
    assert_eq!(view.selected(), Some("odin-PS-00000c"));
    assert_eq!(press(&mut view, &[Action::Back]), None, "Esc clears the filter first");
    assert_eq!(view.position().1, 6);
    typed(&mut view, "nowhere");
    assert!(lines(&mut view, 100, 12)[3].contains("no session matches the filter"));
    press(&mut view, &[Action::EraseAll, Action::Back]);
    assert_eq!(press(&mut view, &[Action::Back]), Some(Effect::Quit), "then it quits");
}

#[test]
fn only_y_closes_the_session_that_was_asked_about() {
    let mut view = sample();
    assert_eq!(press(&mut view, &[Action::Close]), None);
    assert!(lines(&mut view, 60, 15)[14].contains("close odin-PS-00000c permanently? y/n"));
    // Another session comes first meanwhile.
    view.apply_row(row("odin-PS-0000ff", json!({"activity": "waiting", "activity_since": "2026-01-30T01:00:00Z"})));
    view.update_lines();
    assert_eq!(press(&mut view, &[Action::Accept]), Some(Effect::Close("odin-PS-00000c".into())));
    assert_eq!(press(&mut view, &[Action::Close, Action::Back]), None);
    assert_eq!(view.focus(), Focus::Table);
}

#[test]
fn details_are_of_the_session_that_was_opened_last() {
    let mut view = sample();
    assert_eq!(press(&mut view, &[Action::Details]), Some(Effect::FetchDetails("odin-PS-00000c".into())));
    view.show_details("odin-PS-00000b", "late answer".into());
    view.show_details("odin-PS-00000c", "epic  003\n".into());
    let shown = lines(&mut view, 60, 15);
    assert!(shown[2].contains("odin-PS-00000c  Fix the login") && shown[3].contains("epic  003"), "{shown:#?}");
    assert_eq!(press(&mut view, &[Action::Resume]), Some(Effect::Resume("odin-PS-00000c".into())));
    let split = lines(&mut view, 100, 40);
    assert!(split[3].starts_with(">!") && split.iter().any(|line| line.contains("epic  003")), "{split:#?}");
}

#[test]
fn closed_and_headless_sessions_are_shown_on_request() {
    let mut view = sample();
    view.apply_row(row("odin-PS-0000aa", json!({"kind": "headless", "activity": "waiting"})));
    view.update_lines();
    assert_eq!(view.position().1, 6);
    press(&mut view, &[Action::ShowAll]);
    assert_eq!(view.position().1, 8);
}

#[test]
fn daemon_that_is_gone_is_said_with_its_time() {
    let mut view = sample();
    view.lose_daemon(Timestamp::parse("2026-01-30T12:03:00Z").unwrap());
    view.lose_daemon(now());
    assert_eq!(lines(&mut view, 60, 15)[0], " odin3  daemon unreachable since 12:03:00Z (1m)");
    view.list(Vec::new());
    assert!(lines(&mut view, 60, 15)[0].contains("central connected"));
}

#[test]
fn rows_of_machines_that_are_away_are_dimmed() {
    let mut view = sample();
    let buffer = buffer(&mut view, 100, 12);
    assert!(buffer[(4, 7)].modifier.contains(Modifier::DIM) && buffer[(4, 7)].fg == Color::Reset);
    assert!(!buffer[(4, 6)].modifier.contains(Modifier::DIM) && buffer[(4, 6)].fg == Color::Green);
}

#[test]
fn without_colour_no_cell_has_one() {
    let mut buffer = Buffer::empty(Rect::new(0, 0, 100, 20));
    draw::frame(&mut buffer, &mut sample(), &Ages::at(now()), Palette { has_colour: false });
    assert!(buffer.content.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
}

#[test]
fn alarms_are_waits_and_failures_that_begin() {
    let mut view = sample();
    let mut alarm = |row: Row| view.apply_row(row).is_alarm;
    assert!(!alarm(doing("odin-PS-00000c", "waiting")), "it waited before");
    assert!(alarm(doing("odin-PS-00000b", "waiting")));
    assert!(alarm(doing("odin-PS-00000b", "failed")));
    assert!(!alarm(doing("odin-PS-00000b", "working")));
    assert!(!alarm(row("odin-PS-0000aa", json!({"kind": "headless", "activity": "failed"}))));
    assert!(!View::default().apply_row(doing("x", "waiting")).is_alarm, "before the sessions were listed");
}

#[test]
fn trend_keeps_the_newest_values() {
    let mut view = sample();
    for percent in 0..100 {
        view.apply_row(row("odin-PS-00000b", json!({"context_percent": percent})));
        view.apply_row(row("odin-PS-00000b", json!({"context_percent": percent})));
    }
    let trend = &view.fleet.get("odin-PS-00000b").unwrap().trend;
    assert_eq!((trend.len(), trend.last()), (MAX_TREND, Some(&99)));
    view.list(vec![row("odin-PS-00000b", json!({"context_percent": 7}))]);
    assert_eq!(view.fleet.get("odin-PS-00000b").unwrap().trend.last(), Some(&7), "a new list continues it");
    assert!(lines(&mut view, 100, 12)[3].contains("▇▇▇▇▇▇▇▁"), "{:#?}", lines(&mut view, 100, 12));
}

#[test]
fn sessions_that_turned_stale_silently_are_found_by_the_counts_of_their_machine() {
    let mut view = sample();
    let machines = |stale: i64| {
        let mut machines = facts(&[("odin3", Some(true)), ("laptop", Some(false))]).machines;
        machines[1].active_sessions = Some(1 - stale);
        machines[1].stale_sessions = Some(stale);
        machines
    };
    assert_eq!(view.fleet.differing_machines(&machines(0)), []);
    assert_eq!(view.fleet.differing_machines(&machines(1)).len(), 1);
    let stale = json!({"host_machine": "laptop", "local": false, "status": "stale"});
    view.update_silent(vec![row("odin-PS-000010", stale), row("odin-PS-00000b", json!({"status": "stale"}))]);
    assert_eq!(view.fleet.differing_machines(&machines(1)), []);
    assert_eq!(view.fleet.get("odin-PS-00000b").unwrap().need().as_str(), "working", "own sessions are announced");
}

/// Prints what a frame costs: `cargo test --lib top::tests::cost -- --nocapture --ignored`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_frame() {
    for sessions in [100, 10_000, 100_000] {
        let mut view = view_of((0..sessions).map(|n| doing(&format!("odin-PS-{n:06}"), "working")).collect());
        for (what, changes) in [("unchanged", 0), ("after 1 change", 1), ("after 1000 changes", 1000)] {
            let rows: Vec<Row> =
                (0..changes).map(|n| doing(&format!("odin-PS-{:06}", n % sessions), "waiting")).collect();
            let started = Instant::now();
            rows.into_iter().for_each(|row| _ = view.apply_row(row));
            buffer(&mut view, 200, 60);
            println!("{sessions} sessions, {what}: {:?}", started.elapsed());
        }
    }
}

#[test]
fn frame_of_many_sessions_draws_only_what_is_visible() {
    let mut view = view_of((0..10_000).map(|n| row(&format!("odin-PS-{n:06}"), json!({}))).collect());
    press(&mut view, &[Action::End]);
    let shown = lines(&mut view, 100, 30);
    assert!(shown[28].starts_with(">+") && shown[28].contains("odin-PS-009999"), "{shown:#?}");
    let drawn_again = |view: &mut View| {
        // The fastest of many: a busy machine interrupts some.
        let draw = || {
            let started = Instant::now();
            buffer(view, 100, 30);
            started.elapsed()
        };
        std::iter::repeat_with(draw).take(50).min().unwrap()
    };
    let few = drawn_again(&mut view_of((0..100).map(|n| row(&format!("odin-PS-{n:06}"), json!({}))).collect()));
    let many = drawn_again(&mut view);
    assert!(many < few * 5 + Duration::from_millis(2), "{many:?} for 10,000 sessions, {few:?} for 100");
}

proptest! {
    #[test]
    fn frame_stays_true_until_an_age_changes(seconds in 0_u64..200_000, micros in 0_u64..1_000_000) {
        let mut view = view_of(vec![row("odin-PS-00000a", json!({}))]);
        let then = Timestamp::parse("2026-01-30T12:03:00Z").unwrap().plus(Duration::new(seconds, 0) + Duration::from_micros(micros));
        let text = |view: &mut View, at: Timestamp| {
            let mut buffer = Buffer::empty(Rect::new(0, 0, 100, 10));
            let ages = Ages::at(at);
            draw::frame(&mut buffer, view, &ages, COLOURS);
            (buffer, ages.unchanged_for())
        };
        let (before, left) = text(&mut view, then);
        prop_assert!(left > Duration::ZERO);
        let (still, _) = text(&mut view, then.plus(left - Duration::from_millis(1)));
        prop_assert_eq!(&before, &still);
        let (after, _) = text(&mut view, then.plus(left + Duration::from_millis(2)));
        prop_assert_ne!(&before, &after);
    }
}
