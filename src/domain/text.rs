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

fn bounded(text: &str, longest: usize) -> String {
    const CUT: &str = "...";
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
}
