//! What a snapshot keeps of the updates, and how large it gets.

use proptest::prelude::*;

use super::*;
use crate::domain::text::is_unsafe;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn prompt(text: &str) -> WorkUpdate {
    WorkUpdate { prompt: Some(text.to_owned()), ..WorkUpdate::default() }
}

fn after(updates: impl IntoIterator<Item = (WorkUpdate, i64)>) -> WorkSnapshot {
    let mut snapshot = WorkSnapshot::default();
    updates.into_iter().for_each(|(update, seconds)| snapshot.apply(update, at(seconds)));
    snapshot
}

#[test]
fn title_is_the_agents_own_or_else_the_first_prompts_first_line() {
    let title = |updates: Vec<(WorkUpdate, i64)>| after(updates).title.map(|title| title.value.text);
    let own = |text: &str| WorkUpdate { title: Some(text.into()), ..WorkUpdate::default() };
    assert_eq!(title(vec![(prompt("\n  Fix  the login \nplease"), 1), (prompt("Next"), 2)]).unwrap(), "Fix the login");
    assert_eq!(title(vec![(prompt("second"), 2), (prompt("first"), 1)]).unwrap(), "first", "out of order");
    assert_eq!(title(vec![(own("Login"), 1), (prompt("x"), 2)]).unwrap(), "Login");
    assert_eq!(title(vec![(prompt("x"), 1), (own("new"), 3), (own("old"), 2)]).unwrap(), "new");
    assert_eq!(title(vec![(prompt(" \n "), 1)]), None);
}

#[test]
fn cleared_conversation_has_no_data_of_the_former_one() {
    let cleared = WorkUpdate { cleared: true, ..WorkUpdate::default() };
    let model = WorkUpdate { model: Some("m".into()), ..prompt("old") };
    let snapshot = after([(model, 1), (prompt("new"), 5), (cleared, 3), (prompt("late"), 2)]);
    assert_eq!(snapshot.title.unwrap().value.text, "new");
    assert_eq!(snapshot.first_prompt.unwrap().value, "new");
    assert_eq!(snapshot.model.unwrap().value, "m");
}

#[test]
fn newest_files_are_kept_once() {
    let file = |name: &str| WorkUpdate { files: vec![name.to_owned()], ..WorkUpdate::default() };
    let snapshot = after((0..30).map(|n| (file(&format!("/f{}", n % 25)), n)));
    let names: Vec<_> = snapshot.files.iter().map(|file| file.value.as_str()).collect();
    assert_eq!(names.len(), MAX_FILES);
    assert_eq!(&names[..6], ["/f4", "/f3", "/f2", "/f1", "/f0", "/f24"]);
}

#[test]
fn titles_only_records_no_text_of_the_conversation() {
    let update = WorkUpdate {
        answer: Some("the answer".into()),
        files: vec!["/secret/plan".into()],
        error: Some(WorkError { kind: "tool".into(), message: "in /secret".into() }),
        todos: Some(Vec::new()),
        ..prompt("Title\nand details")
    };
    let titles = after([(update.clone().limited_to(Recording::Titles), 1)]).to_json();
    assert!(titles.contains("Title"), "{titles}");
    assert!(!["details", "the answer", "secret"].iter().any(|word| titles.contains(word)), "{titles}");
    assert!(update.limited_to(Recording::None).is_empty());
}

#[test]
fn text_that_json_lengthens_still_fits() {
    let nasty = "\"\\\t".repeat(100_000);
    let update = WorkUpdate {
        answer: Some(nasty.clone()),
        compact_summary: Some(nasty.clone()),
        todos: Some(vec![Todo { text: nasty.clone(), status: TodoStatus::Pending }; 1000]),
        files: (0..100).map(|n| format!("{n}{nasty}")).collect(),
        ..prompt(&nasty)
    };
    let snapshot = after([(update, 1)]);
    assert!(snapshot.to_json().len() <= MAX_BYTES, "{}", snapshot.to_json().len());
    assert!(snapshot.last_answer.unwrap().value.len() > 100);
}

#[test]
fn json_round_trip() {
    let repository = Repository { name: "r".into(), branch: Some("main".into()), ..Repository::default() };
    let update = WorkUpdate { repository: Some(repository), cost_usd: Some(0.25), ..prompt("p") };
    let snapshot = after([(update, 1)]);
    assert_eq!(WorkSnapshot::from_foreign_json(&snapshot.to_json()), Some(snapshot));
    assert_eq!(WorkSnapshot::from_foreign_json("[1]"), None);
}

fn updates() -> impl Strategy<Value = Vec<(WorkUpdate, i64)>> {
    let text = || prop::option::of("\\PC{0,40}|[\u{1b}\u{202e}\r\n\u{7}a]{0,20}");
    let update =
        (text(), text(), text(), prop::collection::vec("[a-e]", 0..3)).prop_map(|(prompt, answer, title, files)| {
            WorkUpdate { prompt, answer, title, files, ..WorkUpdate::default() }
        });
    prop::collection::vec(update, 1..6)
        .prop_map(|updates| updates.into_iter().zip(0..).collect::<Vec<(WorkUpdate, i64)>>())
        .prop_shuffle()
}

proptest! {
    #[test]
    fn order_of_arrival_does_not_matter(mut updates in updates()) {
        let shuffled = after(updates.clone());
        updates.sort_by_key(|(_, at)| *at);
        prop_assert_eq!(shuffled, after(updates));
    }

    #[test]
    fn no_unsafe_character_is_kept(updates in updates()) {
        let snapshot = after(updates);
        let texts = [&snapshot.first_prompt, &snapshot.last_prompt, &snapshot.last_answer];
        for text in texts.into_iter().flatten() {
            prop_assert!(!text.value.chars().any(|c| is_unsafe(c) && !matches!(c, '\n' | '\t')));
        }
        prop_assert!(!snapshot.title.is_some_and(|title| title.value.text.chars().any(is_unsafe)));
    }
}

#[test]
fn to_dos_are_added_and_done_one_by_one() {
    let mut work = WorkSnapshot::default();
    let changed = |text: &str, status| WorkUpdate {
        changed_todos: vec![Todo { text: text.to_owned(), status }],
        ..WorkUpdate::default()
    };
    for (second, text, status) in [
        (1, "look", TodoStatus::Pending),
        (3, "mend", TodoStatus::Completed),
        // Reports that arrive late.
        (2, "mend", TodoStatus::Pending),
        (4, "look", TodoStatus::Completed),
        (5, "test", TodoStatus::Pending),
    ] {
        work.apply(changed(text, status), Timestamp::from_micros(second));
    }
    let (open, done) = work.open_todos();
    assert_eq!((open.iter().map(|todo| todo.text.as_str()).collect::<Vec<_>>(), done), (vec!["test"], 2));
    for n in 0..100 {
        work.apply(changed(&format!("more {n}"), TodoStatus::Pending), Timestamp::from_micros(6 + n));
    }
    assert_eq!((work.todos.as_ref().unwrap().value.len(), work.open_todos().1), (MAX_TODOS, 0));
}
