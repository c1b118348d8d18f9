//! Text that is longer than its place: wrapped to the width, and scrolled. Pure.

use unicode_width::UnicodeWidthChar;

use super::keys::Action;
use crate::domain::text::escaped_line;

/// The most lines that are kept of a text.
const MAX_LINES: usize = 10_000;

#[derive(Debug)]
pub(super) struct TextPane {
    text: String,
    lines: Vec<String>,
    width: usize,
    offset: usize,
    height: usize,
}

impl TextPane {
    pub(super) const fn new(text: String) -> Self {
        Self { text, lines: Vec::new(), width: 0, offset: 0, height: 1 }
    }

    /// Replaces the text; the place in it stays.
    pub(super) fn set_text(&mut self, text: String) {
        self.text = text;
        self.width = 0;
    }

    /// The lines that are in view at this size.
    pub(super) fn visible(&mut self, width: usize, height: usize) -> &[String] {
        if self.width != width {
            self.lines = self.text.lines().flat_map(|line| wrap(line, width)).take(MAX_LINES).collect();
            self.width = width;
        }
        self.height = height.max(1);
        self.offset = self.offset.min(self.lines.len().saturating_sub(self.height));
        let end = (self.offset + self.height).min(self.lines.len());
        &self.lines[self.offset..end]
    }

    /// The number of the last line in view, and how many there are.
    pub(super) fn position(&self) -> (usize, usize) {
        ((self.offset + self.height).min(self.lines.len()), self.lines.len())
    }

    pub(super) fn scroll(&mut self, action: Action) {
        let last = self.lines.len().saturating_sub(self.height);
        let page = self.height.saturating_sub(1).max(1);
        self.offset = match action {
            Action::Up => self.offset.saturating_sub(1),
            Action::Down => self.offset + 1,
            Action::PageUp => self.offset.saturating_sub(page),
            Action::PageDown => self.offset + page,
            Action::Home => 0,
            _ => last,
        }
        .min(last);
    }
}

/// A line as lines of at most `width` columns, broken at blanks where there are any. Its unsafe characters are escaped.
fn wrap(line: &str, width: usize) -> Vec<String> {
    let width = width.max(2);
    let line = escaped_line(&line.replace('\t', "    "));
    let mut lines = Vec::new();
    let (mut start, mut columns, mut blank) = (0, 0, None);
    for (at, c) in line.char_indices() {
        let needed = c.width().unwrap_or(0);
        // The blanks that indent a line are no place to break it.
        if c == ' ' && !line[start..at].trim_start().is_empty() {
            blank = Some(at);
        }
        if columns + needed > width {
            let (end, next) = blank.map_or((at, at), |blank| (blank, blank + 1));
            lines.push(line[start..end].trim_end().to_owned());
            (start, blank) = (next, None);
            columns = line.get(next..at).map_or(0, |rest| rest.chars().filter_map(|c| c.width()).sum());
            if next > at {
                continue;
            }
        }
        columns += needed;
    }
    lines.push(line[start..].trim_end().to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::text::is_unsafe;
    use crate::domain::text_width::width;
    use proptest::prelude::*;

    #[test]
    fn lines_break_at_blanks_and_long_words_anywhere() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(wrap("  indented text", 10), ["  indented", "text"]);
        assert_eq!(wrap("", 10), [""]);
        assert_eq!(wrap("日本語", 5), ["日本", "語"]);
    }

    #[test]
    fn scrolling_stops_at_both_ends() {
        let mut pane = TextPane::new((0..10).map(|n| format!("{n}\n")).collect());
        assert_eq!(pane.visible(20, 3), ["0", "1", "2"]);
        pane.scroll(Action::Up);
        assert_eq!(pane.visible(20, 3)[0], "0");
        pane.scroll(Action::PageDown);
        assert_eq!(pane.visible(20, 3)[0], "2");
        pane.scroll(Action::End);
        pane.scroll(Action::Down);
        assert_eq!(pane.visible(20, 3), ["7", "8", "9"]);
        assert_eq!(pane.visible(20, 20).len(), 10, "a larger place shows more");
    }

    proptest! {
        #[test]
        fn wrapped_text_fits_and_is_safe(text in ".{0,200}", columns in 2usize..40) {
            for line in wrap(&text, columns) {
                prop_assert!(width(&line) <= columns, "{line:?}");
                prop_assert!(!line.contains(is_unsafe));
            }
        }
    }
}
