//! Runs of characters and quotations, which everything that reads text for secrets counts alike.

pub(super) const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

pub(super) const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// How many bytes from `at` on satisfy `such`.
pub(super) fn run(bytes: &[u8], at: usize, such: impl Fn(u8) -> bool) -> usize {
    bytes.get(at..).unwrap_or_default().iter().take_while(|byte| such(**byte)).count()
}

/// The position after a quotation mark, which may be escaped any number of times, as JSON within JSON is.
pub(super) fn skip_quote(bytes: &[u8], at: usize) -> usize {
    let escapes = run(bytes, at, |byte| byte == b'\\');
    match bytes.get(at + escapes) {
        Some(b'"' | b'\'' | b'`') => at + escapes + 1,
        _ => at,
    }
}

/// Where the quotation ends, before any escapes of the closing mark.
pub(super) fn closing(bytes: &[u8], start: usize, quote: u8, escaped: bool) -> Option<usize> {
    let mut at = start;
    while at < bytes.len() {
        let escapes = run(bytes, at, |byte| byte == b'\\');
        if bytes.get(at + escapes) == Some(&quote) && (escaped || escapes.is_multiple_of(2)) {
            // Of a mark that is not escaped, backslashes before it belong to what is quoted.
            return Some(if escaped { at } else { at + escapes });
        }
        at += escapes.max(1) + usize::from(escapes > 0);
    }
    None
}
