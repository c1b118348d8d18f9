//! How many columns of a terminal a text takes, and cutting text to that.

use unicode_width::UnicodeWidthChar;

/// The width of a text in terminal columns.
pub fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// Cuts the end of a text to `columns`, with an ellipsis in its place.
pub fn cut_end(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let (kept, _) = take_columns(text.chars(), columns.saturating_sub(1));
    format!("{}…", kept.into_iter().collect::<String>().trim_end())
}

/// Cuts the middle of a text to `columns`, with an ellipsis in its place: ids differ at their ends.
pub fn cut_middle(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let tail_columns = columns.saturating_sub(1).div_ceil(2);
    let (tail, used) = take_columns(text.chars().rev(), tail_columns);
    let (head, _) = take_columns(text.chars(), columns.saturating_sub(1 + used));
    head.into_iter().chain(['…']).chain(tail.into_iter().rev()).collect()
}

/// As many characters as fit, and their width.
fn take_columns(chars: impl Iterator<Item = char>, columns: usize) -> (Vec<char>, usize) {
    let mut used = 0;
    let mut kept = Vec::new();
    for c in chars {
        if used + char_width(c) > columns {
            break;
        }
        used += char_width(c);
        kept.push(c);
    }
    (kept, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_text_fits_the_width() {
        assert_eq!(cut_end("hello", 5), "hello");
        assert_eq!(cut_end("hello", 4), "hel…");
        assert_eq!(cut_end("日本語", 4), "日…");
        assert_eq!(cut_end("a b", 1), "…");
        assert_eq!(cut_middle("my-long-project-PS-8f4a2b", 14), "my-lon…-8f4a2b");
        assert_eq!(cut_middle("日本語日本語", 6), "日…本語".replace("本語", "語"));
        assert_eq!(cut_middle("abc", 1), "…");
    }
}
