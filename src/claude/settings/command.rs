//! Finds the call of sessiond in a hook's command line, also if the line was edited by hand.
//!
//! The line is split into simple commands and words with their positions, which the crate shlex does not return.

use std::ops::Range;

/// A call of sessiond in a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessiondCall {
    /// The position of the program's path, with its quotes.
    pub program: Range<usize>,
    /// The path of the program, without quotes.
    pub path: String,
    /// Whether the command line runs nothing else.
    pub is_alone: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    place: Range<usize>,
    /// Without quotes.
    text: String,
}

/// Programs that run the command after them.
const WRAPPERS: &[&str] = &["command", "env", "exec", "ionice", "nice", "nohup", "setsid", "stdbuf", "timeout"];
/// Commands without effect, as in `sessiond hook Stop || true`.
const NO_EFFECT: &[&str] = &[":", "exit", "true"];

/// The call of sessiond with these arguments, if the command line has one.
pub(super) fn find(command: &str, words: &[&str]) -> Option<SessiondCall> {
    let parts = parts(command);
    let calls = |part| called(part, words);
    let program = parts.iter().find_map(calls)?;
    let has_no_effect = |part: &Vec<Word>| part.first().is_none_or(|word| NO_EFFECT.contains(&word.text.as_str()));
    let is_alone = parts.iter().all(|part| has_no_effect(part) || calls(part).is_some());
    Some(SessiondCall { program: program.place.clone(), path: program.text.clone(), is_alone })
}

/// The program of a simple command, if it is sessiond with these arguments.
fn called<'a>(part: &'a Vec<Word>, words: &[&str]) -> Option<&'a Word> {
    let mut rest = part.as_slice();
    loop {
        let (first, behind) = rest.split_first()?;
        let name = first.text.rsplit('/').next().unwrap_or_default();
        if name == "sessiond" {
            let arguments: Vec<_> =
                behind.iter().map(|word| word.text.as_str()).filter(|word| !is_redirection(word)).collect();
            // Options may stand before and after them.
            let matches = arguments.windows(words.len()).any(|window| window == words);
            return matches.then_some(first);
        }
        if !is_prefix(&first.text, name) {
            return None;
        }
        rest = behind;
    }
}

/// Whether a word may precede the program: a variable, a wrapper, its options and durations.
fn is_prefix(text: &str, name: &str) -> bool {
    WRAPPERS.contains(&name)
        || text.starts_with('-')
        || text.starts_with(|c: char| c.is_ascii_digit())
        || text.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
}

fn is_redirection(word: &str) -> bool {
    word.contains(['<', '>']) || word == "/dev/null"
}

/// Splits a command line into simple commands of words.
fn parts(command: &str) -> Vec<Vec<Word>> {
    let mut parts = vec![Vec::new()];
    let mut word: Option<Word> = None;
    let mut quote = None;
    let mut letters = command.char_indices().peekable();
    let push = |parts: &mut Vec<Vec<Word>>, word: &mut Option<Word>| {
        if let (Some(part), Some(word)) = (parts.last_mut(), word.take()) {
            part.push(word);
        }
    };
    while let Some((at, letter)) = letters.next() {
        let end = at + letter.len_utf8();
        // In `2>&1` it does not separate commands.
        let is_descriptor = letter == '&' && word.as_ref().is_some_and(|word| word.text.ends_with(['<', '>']));
        match (quote, letter) {
            (None, ' ' | '\t') => push(&mut parts, &mut word),
            (None, ';' | '|' | '&' | '\n' | '\r' | '(' | ')') if !is_descriptor => {
                push(&mut parts, &mut word);
                parts.push(Vec::new());
            }
            _ => {
                let word = word.get_or_insert_with(|| Word { place: at..end, text: String::new() });
                word.place.end = end;
                match (quote, letter) {
                    (None, '\'' | '"') => quote = Some(letter),
                    (Some(open), _) if open == letter => quote = None,
                    (None | Some('"'), '\\') => {
                        if let Some((next, escaped)) = letters.next() {
                            word.text.push(escaped);
                            word.place.end = next + escaped.len_utf8();
                        }
                    }
                    _ => word.text.push(letter),
                }
            }
        }
    }
    push(&mut parts, &mut word);
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &[&str] = &["hook", "Stop"];

    #[test]
    fn edited_calls_are_recognised() {
        for command in [
            "sessiond hook Stop",
            " /usr/bin/sessiond  hook   Stop ",
            "'/My Apps/sessiond' hook Stop",
            "\"$HOME/.local/bin/sessiond\" hook Stop",
            "~/bin/sessiond hook Stop 2>/dev/null",
            "/a/sessiond hook Stop >/dev/null 2>&1 || true",
            "timeout 5 nice -n 10 /a/sessiond hook Stop; exit 0",
            "RUST_LOG=debug exec /a/sessiond --socket /s hook Stop",
            "/a\\ b/sessiond hook Stop",
            "sessiond hook Stop & ",
        ] {
            let call = find(command, WORDS).unwrap_or_else(|| panic!("{command}"));
            assert!(call.is_alone, "{command}");
            assert!(command[call.program].contains("sessiond"), "{command}");
        }
        for command in
            ["say done; sessiond hook Stop", "tee /tmp/log | sessiond hook Stop", "cd /x && sessiond hook Stop"]
        {
            assert!(!find(command, WORDS).unwrap().is_alone, "{command}");
        }
        for command in [
            "sessiond hook Start",
            "sessiond hook StopFailure",
            "echo sessiond hook Stop",
            "/a/not-sessiond hook Stop",
            "sessiond 'hook Stop'",
            "grep 'sessiond hook Stop' log",
            "",
            "'",
        ] {
            assert_eq!(find(command, WORDS), None, "{command}");
        }
    }
}
