//! The lines by which two texts differ.

use std::time::Duration;

use similar::{ChangeTag, TextDiff};

/// The time for finding the smallest difference; after it, larger parts are shown as changed.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The lines that are removed (`-`) and added (`+`), each with its number.
pub fn difference(before: &str, after: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let difference = TextDiff::configure().timeout(TIMEOUT).diff_slices(&old, &new);
    let line = |change: similar::Change<&str>| {
        let (index, sign) = match change.tag() {
            ChangeTag::Equal => return None,
            ChangeTag::Delete => (change.old_index()?, '-'),
            ChangeTag::Insert => (change.new_index()?, '+'),
        };
        Some(format!("{:>4} {sign} {}\n", index + 1, change.value()))
    };
    difference.iter_all_changes().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_lines_are_shown_with_their_numbers() {
        assert_eq!(difference("a\nb\nc\n", "a\nx\nc\nd\n"), "   2 - b\n   2 + x\n   4 + d\n");
        assert_eq!(difference("a\n", "a\n"), "");
        assert_eq!(difference("", "a\n"), "   1 + a\n");
        assert_eq!(difference("a\nb\n", ""), "   1 - a\n   2 - b\n");
    }

    /// Applies what is shown, and sees whether it leads to the other text.
    fn assert_leads(old: &[&str], new: &[&str]) {
        let shown = difference(&old.join("\n"), &new.join("\n"));
        let (mut kept, mut added): (Vec<Option<&str>>, Vec<(usize, &str)>) =
            (old.iter().map(|line| Some(*line)).collect(), Vec::new());
        for line in shown.lines() {
            let (number, rest) = line.trim_start().split_once(' ').unwrap();
            let at = number.parse::<usize>().unwrap() - 1;
            match rest.split_once(' ').unwrap() {
                ("-", text) => assert_eq!(kept[at].take(), Some(text), "{shown}"),
                (_, text) => added.push((at, text)),
            }
        }
        let mut result: Vec<_> = kept.into_iter().flatten().collect();
        added.into_iter().for_each(|(at, text)| result.insert(at, text));
        assert_eq!(result, new, "{old:?}\n{shown}");
    }

    #[test]
    fn differences_lead_from_one_text_to_the_other() {
        let mut random = 7_u64;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % below
        };
        for _ in 0..500 {
            let mut text = |length: usize| (0..length).map(|_| ["a", "b", "c"][next(3)]).collect::<Vec<_>>();
            let (old, new) = (text(9), text(7));
            assert_leads(&old, &new);
        }
    }

    #[test]
    fn large_texts_are_compared() {
        let line = |number: usize| format!("  \"Bash(command {number})\",\n");
        let old: String = (0..20_000).map(line).collect();
        let new = format!("first\n{}last\n", old.replacen("command 9000)", "changed)", 1));
        assert_eq!(difference(&old, &new).lines().count(), 4);
        let other: String = (20_000..40_000).map(line).collect();
        assert_eq!(difference(&old, &other).lines().count(), 40_000, "nothing in common");
    }
}
