//! What `show` prints of a session's work, below its fields.

use crate::cli::style::{OutputStyle, Tone};
use crate::cli::text::{age_since, time_with_age};
use crate::domain::text::escaped_lines;
use crate::domain::work::{Dated, TodoStatus};
use crate::wire::WorkBody;

/// The recorded work as text; empty if nothing is recorded.
pub(super) fn render(work: &WorkBody, style: &OutputStyle) -> String {
    let mut sheet = Sheet { text: String::new(), style };
    let snapshot = &work.work;
    if let Some(last) = &work.last_activity {
        let words = [Some(last.activity.as_str()), last.waiting_for.as_deref(), last.activity_detail.as_deref()];
        let words = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
        sheet.part("last activity", &last.activity_since, &words);
    }
    if let Some(repository) = &snapshot.repository {
        sheet.part("repository", &repository.at.to_string(), &describe(&repository.value));
    }
    sheet.dated("last prompt", snapshot.last_prompt.as_ref());
    sheet.dated("last answer", snapshot.last_answer.as_ref());
    sheet.dated("compact summary", snapshot.compact_summary.as_ref());
    if let Some(error) = &snapshot.last_error {
        let text = [error.value.kind.as_str(), &error.value.message].join(": ");
        sheet.part("last error", &error.at.to_string(), text.trim_end_matches([':', ' ']));
    }
    if let Some(todos) = &snapshot.todos {
        let line = |todo: &crate::domain::work::Todo| {
            let mark = match todo.status {
                TodoStatus::Completed => "x",
                TodoStatus::InProgress => ">",
                TodoStatus::Pending => " ",
            };
            format!("[{mark}] {}", todo.text)
        };
        let lines = todos.value.iter().map(line).collect::<Vec<_>>().join("\n");
        sheet.part("to-dos", &todos.at.to_string(), &lines);
    }
    if let Some(newest) = snapshot.files.first() {
        let names = snapshot.files.iter().map(|file| file.value.as_str()).collect::<Vec<_>>().join("\n");
        sheet.part("files", &newest.at.to_string(), &names);
    }
    sheet.text
}

fn describe(repository: &crate::domain::work::Repository) -> String {
    let mut text = repository.name.clone();
    text.push_str(&match (&repository.branch, &repository.head) {
        (Some(branch), _) => format!(", branch {branch}"),
        (None, Some(head)) => format!(", detached at {}", head.get(..12).unwrap_or(head)),
        (None, None) => String::new(),
    });
    for (count, words) in [(repository.ahead, "ahead"), (repository.behind, "behind")] {
        if let Some(count) = count.filter(|count| *count > 0) {
            text.push_str(&format!(", {count} {words}"));
        }
    }
    if repository.dirty == Some(true) {
        text.push_str(", uncommitted changes");
    }
    text
}

struct Sheet<'a> {
    text: String,
    style: &'a OutputStyle,
}

impl Sheet<'_> {
    fn dated(&mut self, name: &str, part: Option<&Dated<String>>) {
        if let Some(part) = part {
            self.part(name, &part.at.to_string(), &part.value);
        }
    }

    /// A heading with its age, and the text below it, indented.
    fn part(&mut self, name: &str, at: &str, text: &str) {
        let age =
            age_since(at, self.style.now).map_or_else(|| time_with_age(at, self.style.now), |age| format!("{age} ago"));
        let heading = self.style.paint(&format!("{name} ({age})"), Tone::Dim);
        self.text.push_str(&format!("\n{heading}\n"));
        for line in escaped_lines(&text.replace('\t', "    ")).lines() {
            self.text.push_str(&format!("  {line}\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    #[test]
    fn work_is_shown_with_its_age_and_without_controls() {
        let at = r#""at": "2026-01-30T12:00:00.000000Z""#;
        let work = format!(
            r#"{{"instance_id": "x", "last_activity": {{"activity": "waiting", "waiting_for": "permission",
                "activity_detail": "Bash", "activity_since": "2026-01-30T12:00:00.000000Z", "activity_source": "hook"}},
                "recorded_at": null, "last_prompt": {{"value": "Fix it\n\u001b[2Jnow", {at}}},
                "todos": {{"value": [{{"text": "look", "status": "completed"}}], {at}}}}}"#
        );
        let now = Timestamp::parse("2026-01-30T12:04:00Z").unwrap();
        let style = OutputStyle { now, ..OutputStyle::plain() };
        let expected = "
last activity (4m ago)
  waiting permission Bash

last prompt (4m ago)
  Fix it
  \\u{1b}[2Jnow

to-dos (4m ago)
  [x] look
";
        assert_eq!(render(&serde_json::from_str(&work).unwrap(), &style), expected);
    }
}
