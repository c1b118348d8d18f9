//! Escapes recorded text for Markdown, so that it cannot change the document's structure.

use crate::domain::text::inline;

/// The longest code span, in bytes.
const MAX_CODE: usize = 4096;

/// Text within a line, or at the beginning of a list item.
pub(super) fn escaped(text: &str, longest: usize) -> String {
    let line: Vec<char> = inline(text, longest).chars().collect();
    // Markers of lists and headings are special only at the beginning.
    let digits = line.iter().take_while(|c| c.is_ascii_digit()).count();
    let is_word = |index: Option<usize>| index.and_then(|i| line.get(i)).is_some_and(|c| c.is_alphanumeric());
    let mut safe = String::with_capacity(line.len() + 8);
    for (index, &c) in line.iter().enumerate() {
        let special = match c {
            '\\' | '`' | '*' | '[' | ']' | '<' | '>' | '#' | '|' | '~' | '!' | '&' => true,
            '_' => !(is_word(index.checked_sub(1)) && is_word(Some(index + 1))),
            '-' | '+' | '=' => index == 0,
            '.' | ')' => digits > 0 && index == digits,
            _ => false,
        };
        if special {
            safe.push('\\');
        }
        safe.push(c);
    }
    safe
}

/// The most lines of a quotation.
const MAX_QUOTED: usize = 80;
/// The longest line of a quotation, in bytes.
const MAX_QUOTED_LINE: usize = 2000;

/// Text of several lines as a quotation.
pub(super) fn quoted(text: &str) -> String {
    let line = |line: &str| format!("> {}", escaped(line, MAX_QUOTED_LINE)).trim_end().to_owned() + "\n";
    let mut quotation: String = text.lines().take(MAX_QUOTED).map(line).collect();
    if text.lines().nth(MAX_QUOTED).is_some() {
        quotation.push_str("> \u{2026}\n");
    }
    quotation
}

/// A code span.
pub(super) fn code(text: &str) -> String {
    let text = inline(text, MAX_CODE);
    let fence = "`".repeat(longest_run(&text) + 1);
    // One blank at each end is not part of the code; without it a backtick at an end would join the fence.
    let edge = if text.starts_with('`') || text.ends_with('`') || text.is_empty() { " " } else { "" };
    format!("{fence}{edge}{text}{edge}{fence}")
}

/// A code block with one line of shell.
pub(super) fn block(line: &str) -> String {
    let fence = "`".repeat((longest_run(line) + 1).max(3));
    format!("{fence}sh\n{line}\n{fence}\n")
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}
