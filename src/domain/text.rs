//! Text from outside, as it may stand in a message.

/// No message is longer, in bytes, whatever it quotes.
const MESSAGE: usize = 1000;
/// No quotation within a message is longer, in bytes.
const QUOTATION: usize = 200;

/// A message as one line of bounded length, without control characters.
pub fn one_line(message: &str) -> String {
    bounded(message, MESSAGE)
}

/// What a message quotes, short enough that its own words stay.
pub fn quotation(text: &str) -> String {
    bounded(text, QUOTATION)
}

/// Text of any length and shape as part of a sentence: bounded in bytes, each run of white space a blank, and
/// nothing that a terminal would obey.
pub fn inline(text: &str, longest: usize) -> String {
    // Words further on would be cut off anyway, whatever white space goes.
    let start = text.trim_start();
    let head: String = start.chars().take(longest.saturating_mul(4)).collect();
    let line = head.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().map(|c| if is_unsafe(c) { '\u{fffd}' } else { c }).collect();
    bounded(&line, longest)
}

/// Control characters, and those that change the direction of text without being seen.
pub fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn bounded(text: &str, longest: usize) -> String {
    const CUT: &str = "...";
    if text.len() <= longest && !text.contains(char::is_control) {
        return text.to_owned();
    }
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut line = String::with_capacity(text.len().min(longest));
    for c in text.chars().map(visible) {
        if line.len() + c.len_utf8() > longest - CUT.len() {
            return line + CUT;
        }
        line.push(c);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_it_quotes_a_message_is_a_line() {
        assert_eq!(one_line("no session \"x\""), "no session \"x\"");
        assert_eq!(one_line("a\r\nb\u{1b}[31m\0"), "a\u{fffd}\u{fffd}b\u{fffd}[31m\u{fffd}");
        for long in ["x".repeat(70_000), "\u{1}".repeat(70_000), "\u{1f600}".repeat(70_000)] {
            let line = one_line(&long);
            assert!(line.len() <= MESSAGE && line.ends_with("..."), "{}", line.len());
        }
    }

    #[test]
    fn text_within_a_sentence_is_safe_and_bounded() {
        assert_eq!(inline("  a\r\n\t b\u{1b}[31m\u{202e}c ", 100), "a b\u{fffd}[31m\u{fffd}c");
        assert_eq!(inline("exactly", 7), "exactly");
        assert_eq!(inline("too long", 7), "too ...");
        for long in ["x ".repeat(70_000), "\n".repeat(70_000) + "x", "\u{1f600}".repeat(70_000)] {
            assert!(inline(&long, 200).len() <= 200);
        }
    }
}
