//! The lines by which two texts differ.

use std::time::{Duration, Instant};

use similar::{Algorithm, DiffTag, capture_diff_slices_deadline};

/// After this time the rest is shown as removed and added as a whole.
const TIME_LIMIT: Duration = Duration::from_secs(1);

/// The removed (`-`) and added (`+`) lines, each with its number.
pub(super) fn line_diff(before: &str, after: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let numbered = |sign: char, index: usize, line: &str| format!("{:>4} {sign} {line}\n", index + 1);
    let mut text = String::new();
    for op in capture_diff_slices_deadline(Algorithm::Myers, &old, &new, Some(Instant::now() + TIME_LIMIT)) {
        if op.tag() != DiffTag::Equal {
            text.extend(op.old_range().map(|index| numbered('-', index, old[index])));
            text.extend(op.new_range().map(|index| numbered('+', index, new[index])));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_changed_lines_with_their_numbers() {
        assert_eq!(line_diff("a\nb\nc\n", "a\nx\nc\nd\n"), "   2 - b\n   2 + x\n   4 + d\n");
        assert_eq!(line_diff("a\n", "a\n"), "");
        assert_eq!(line_diff("", "a\n"), "   1 + a\n");
        assert_eq!(line_diff("a\nb\n", ""), "   1 - a\n   2 - b\n");
    }

    /// Applies the diff to the old text and compares the result with the new one.
    fn assert_applies(old: &[&str], new: &[&str]) {
        let diff = line_diff(&old.join("\n"), &new.join("\n"));
        let (mut kept, mut added): (Vec<Option<&str>>, Vec<(usize, &str)>) =
            (old.iter().map(|line| Some(*line)).collect(), Vec::new());
        for line in diff.lines() {
            let (number, rest) = line.trim_start().split_once(' ').unwrap();
            let at = number.parse::<usize>().unwrap() - 1;
            match rest.split_once(' ').unwrap() {
                ("-", text) => assert_eq!(kept[at].take(), Some(text), "{diff}"),
                (_, text) => added.push((at, text)),
            }
        }
        let mut result: Vec<_> = kept.into_iter().flatten().collect();
        added.into_iter().for_each(|(at, text)| result.insert(at, text));
        assert_eq!(result, new, "{old:?}\n{diff}");
    }

    #[test]
    fn applying_the_diff_gives_the_new_text() {
        let mut random = 7_u64;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % below
        };
        for _ in 0..500 {
            let mut text = |length: usize| (0..length).map(|_| ["a", "b", "c"][next(3)]).collect::<Vec<_>>();
            let (old, new) = (text(9), text(7));
            assert_applies(&old, &new);
        }
    }

    #[test]
    fn diffs_long_texts() {
        let line = |number: usize| format!("  \"Bash(command {number})\",\n");
        let old: String = (0..20_000).map(line).collect();
        let new = format!("first\n{}last\n", old.replacen("command 9000)", "changed)", 1));
        assert_eq!(line_diff(&old, &new).lines().count(), 4);
        let other: String = (20_000..40_000).map(line).collect();
        assert_eq!(line_diff(&old, &other).lines().count(), 40_000, "nothing in common");
    }
}
