//! The lines by which two texts differ, by Myers' algorithm: time and memory grow with the number of differences, not
//! with the length of the texts.

/// With more differences than this the parts that differ are shown as a whole.
const MAX: usize = 1000;

/// The lines that are removed (`-`) and added (`+`), each with its number.
pub fn difference(before: &str, after: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let same_start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[same_start..], &new[same_start..]);
    let same_end = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old_part, new_part) = (&old_rest[..old_rest.len() - same_end], &new_rest[..new_rest.len() - same_end]);
    let mut edits = edits(old_part, new_part).unwrap_or_else(|| {
        let removed = (0..old_part.len()).map(Edit::Remove);
        removed.chain((0..new_part.len()).map(Edit::Add)).collect()
    });
    let mut text = String::new();
    for edit in edits.drain(..) {
        let (at, sign, line) = match edit {
            Edit::Remove(at) => (at, '-', old_part[at]),
            Edit::Add(at) => (at, '+', new_part[at]),
        };
        text.push_str(&format!("{:>4} {sign} {line}\n", same_start + at + 1));
    }
    text
}

#[derive(Clone, Copy, Debug)]
enum Edit {
    /// The line of the old text.
    Remove(usize),
    /// The line of the new text.
    Add(usize),
}

/// The shortest way from one to the other in order; `None`: it is longer than [`MAX`].
fn edits(old: &[&str], new: &[&str]) -> Option<Vec<Edit>> {
    // For each number of edits, how far into `old` each diagonal (place in old - place in new) gets with them. The
    // diagonals of a step are every second one from -step to step.
    let mut reached: Vec<Vec<usize>> = Vec::new();
    for step in 0..=MAX.min(old.len() + new.len()) {
        let mut furthest = Vec::with_capacity(step + 1);
        for index in 0..=step {
            let (mut x, _) = reached.last().map_or((0, false), |before| from(before, index));
            let mut y = new_place(x, index, step)?;
            while x < old.len() && y < new.len() && old[x] == new[y] {
                (x, y) = (x + 1, y + 1);
            }
            furthest.push(x);
            if x >= old.len() && y >= new.len() {
                reached.push(furthest);
                return Some(way_back(&reached, old.len(), new.len()));
            }
        }
        reached.push(furthest);
    }
    None
}

/// Where diagonal `index` of a step begins, by the step before it: how far in `old`, and whether by a removal.
fn from(before: &[usize], index: usize) -> (usize, bool) {
    let removal = index.checked_sub(1).map(|below| before[below] + 1);
    let addition = before.get(index).copied();
    match (removal, addition) {
        (Some(removed), Some(added)) if added >= removed => (added, false),
        (Some(removed), _) => (removed, true),
        (None, added) => (added.unwrap_or(0), false),
    }
}

/// The place in the new text for one in the old text, on the diagonal `2 * index - step`.
fn new_place(x: usize, index: usize, step: usize) -> Option<usize> {
    (x + step).checked_sub(2 * index)
}

fn way_back(reached: &[Vec<usize>], old_len: usize, new_len: usize) -> Vec<Edit> {
    let last = reached.len() - 1;
    let mut index = (old_len + last - new_len) / 2;
    let mut edits = Vec::with_capacity(last);
    for step in (1..=last).rev() {
        let (x, is_removal) = from(&reached[step - 1], index);
        match is_removal {
            true => {
                edits.push(Edit::Remove(x - 1));
                index -= 1;
            }
            false => edits.push(Edit::Add(new_place(x, index, step).unwrap_or(1) - 1)),
        }
    }
    edits.reverse();
    edits
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
    fn many_lines_with_few_differences_take_little_memory() {
        let line = |number: usize| format!("  \"Bash(command {number})\",\n");
        let old: String = (0..20_000).map(line).collect();
        let new = format!("first\n{}last\n", old.replacen("command 9000)", "changed)", 1));
        assert_eq!(difference(&old, &new).lines().count(), 4);
        let other: String = (20_000..40_000).map(line).collect();
        assert_eq!(difference(&old, &other).lines().count(), 40_000, "nothing in common");
    }
}
