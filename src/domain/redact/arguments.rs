//! Finds passwords that a command receives by their position among its arguments, on stdin, or from a script.

use std::ops::Range;

use super::bytes::{closing, is_blank, run, skip_quote};
use super::names::{Name, kind_of};
use super::programs::{ArgumentPlace, LOGINS, OFFERS, PLACES, PROTOCOLS, READERS, SENDERS};
use super::value::{ValueForm, is_placeholder, is_random, is_secret};

/// The longest part of a command that is read, in bytes.
const LONGEST: usize = 400;
/// The longest document (`<<EOF`) that is read, in bytes.
const LONGEST_DOCUMENT: usize = 4096;

/// The password after the first word of a command.
pub(super) fn secret(text: &str, word: &str, at: usize, line: usize) -> Option<Range<usize>> {
    let end = at + word.len();
    match word {
        "echo" | "printf" | "yes" => return written_to_a_reader(text, word, end, line),
        _ if SENDERS.iter().any(|sender| word.ends_with(sender)) => return sent(text, word, end, line),
        _ if PROTOCOLS.contains(&word) => return of_protocol(text, at, end, line),
        _ => {}
    }
    let placed = PLACES.iter().find_map(|(words, place)| argument(text, at, end, words, *place));
    placed.or_else(|| offered(text, word, end)).or_else(|| logged_in(text, word, end))
}

/// `"VALUE" | ConvertTo-SecureString`
pub(super) fn converted(text: &str, at: usize) -> Option<Range<usize>> {
    const CONVERTER: &[u8] = b"ConvertTo-SecureString";
    let bytes = &text.as_bytes()[..text.len().min(at + LONGEST)];
    let length = run(bytes, at + 1, |byte| byte != bytes[at] && byte != b'\n');
    let end = at + 1 + length;
    let pipe = end + 1 + run(bytes, end + 1, is_blank);
    let behind = pipe + 1 + run(bytes, pipe + 1, is_blank);
    let fits = bytes.get(pipe) == Some(&b'|') && bytes.get(behind..).is_some_and(|rest| rest.starts_with(CONVERTER));
    (fits && !is_placeholder(text.get(at + 1..end)?)).then_some(at + 1..end)
}

/// "use VALUE as the password"
fn offered(text: &str, word: &str, end: usize) -> Option<Range<usize>> {
    if !OFFERS.iter().any(|offer| offer.eq_ignore_ascii_case(word)) {
        return None;
    }
    let value = arguments(text, end, LONGEST).next()?;
    let mut rest = text.get(value.end..)?.trim_start_matches(['"', '\'', '`']).split_ascii_whitespace();
    let named = rest.next()? == "as"
        && rest
            .take(3)
            .any(|word| kind_of(word.trim_end_matches(['.', ',', ':', ';'])).is_some_and(|kind| kind != Name::Header));
    (named && is_random(&text[value.clone()])).then_some(value)
}

/// `auth=("USER", "VALUE")`, `HTTPBasicAuth('USER', 'VALUE')`, `login("USER", "VALUE")`
fn logged_in(text: &str, word: &str, end: usize) -> Option<Range<usize>> {
    let bytes = &text.as_bytes()[..text.len().min(end + LONGEST)];
    let lower = word.to_ascii_lowercase();
    let function = LOGINS.iter().find(|login| lower.ends_with(**login))?;
    let open = end + run(bytes, end, |byte| is_blank(byte) || matches!(byte, b'=' | b':' | b'"' | b'\''));
    if !matches!(bytes.get(open), Some(b'(' | b'[')) {
        return None;
    }
    let quoted = |at: usize| {
        let start = skip_quote(bytes, at);
        let end = if start > at { closing(bytes, start, bytes[start - 1], start > at + 1)? } else { return None };
        text.get(start..end).map(|_| start..end)
    };
    let user = quoted(open + 1)?;
    let next = user.end + run(bytes, user.end, |byte| matches!(byte, b'\\' | b'"' | b'\'' | b',') || is_blank(byte));
    // The quotation mark before the value was skipped.
    let value = (user.end + 1..=next).rev().find_map(|at| quoted(at.checked_sub(1)?))?;
    let shown = &text[value.clone()];
    let sure = function.ends_with("auth") || is_random(shown);
    let form = ValueForm { quoted: true, ..ValueForm::default() };
    (sure && value.start > user.end && !shown.contains(' ') && is_secret(Name::Pass, shown, form)).then_some(value)
}

/// The document or string that is the stdin of a program which reads a password there: `<<< VALUE`, `<<EOF`.
pub(super) fn input(text: &str, at: usize, line: usize) -> Option<Range<usize>> {
    if at > line && text.as_bytes()[at - 1] == b'<' {
        return None;
    }
    let start = line.max(at.saturating_sub(LONGEST));
    let rest = text.get(at..)?.lines().next()?;
    let rest = rest.get(..LONGEST).unwrap_or(rest);
    if !text.get(start..at).is_some_and(reads_password) && !reads_password(rest) {
        return None;
    }
    if !rest.starts_with("<<<") {
        return document(text, at);
    }
    let value = arguments(text, at + 3, LONGEST).next()?;
    secret_part(text, value)
}

/// The lines between `<<EOF` and `EOF`.
fn document(text: &str, at: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let mark = skip_quote(bytes, at + 2 + run(bytes, at + 2, |byte| byte == b'-' || is_blank(byte)));
    let mark = &text[mark..mark + run(bytes, mark, |byte| byte.is_ascii_alphanumeric() || byte == b'_')];
    let start = at + run(bytes, at, |byte| byte != b'\n') + 1;
    if mark.is_empty() || start >= text.len() {
        return None;
    }
    let mut end = start;
    while end < bytes.len() && end - start < LONGEST_DOCUMENT {
        let length = run(bytes, end, |byte| byte != b'\n');
        if text[end..end + length].trim() == mark {
            let value = start..end.saturating_sub(1).max(start);
            return (!is_placeholder(text.get(value.clone())?)).then_some(value);
        }
        end += length + 1;
    }
    None
}

/// Whether a command reads a password from its stdin.
fn reads_password(command: &str) -> bool {
    let names = |program: &str| {
        command.match_indices(program).any(|(at, _)| {
            let before = command[..at].chars().next_back();
            let after = command[at + program.len()..].chars().next();
            let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ')' | ';' | '|' | '<' | '\\');
            before.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '_' | '-' | '.'))
                && (program.ends_with(' ') || after.is_none_or(ends))
        })
    };
    READERS.iter().any(|(program, with)| {
        command.contains(with) && (names(program) || program.starts_with('-') && command.contains(program))
    })
}

/// `echo VALUE | sudo -S ...`, from the first argument to the pipe.
fn written_to_a_reader(text: &str, word: &str, end: usize, line: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let limit = text.len().min(end + LONGEST);
    let pipe = end + run(&bytes[..limit], end, |byte| !matches!(byte, b'|' | b'\n'));
    let stop = pipe + run(&bytes[..limit], pipe, |byte| byte != b'\n');
    // `sudo -S ls < <(echo VALUE)`
    let before = text.get(line.max(end.saturating_sub(LONGEST))..end - word.len())?;
    let is_given = before.trim_end().strip_suffix("<(").is_some_and(reads_password);
    let is_piped = bytes.get(pipe) == Some(&b'|') && reads_password(text.get(pipe + 1..stop)?);
    if !is_given && !is_piped {
        return None;
    }
    let mut values = arguments(text, end, pipe - end).filter(|value| !text[value.clone()].starts_with('-'));
    let first = values.next()?;
    let last = values.last();
    match last {
        // What printf writes is behind its format.
        Some(last) if word == "printf" && text[first.clone()].contains('%') => secret_part(text, last),
        Some(last) => text.get(first.start..last.end).map(|_| first.start..last.end),
        None => secret_part(text, first),
    }
}

/// The password in `USER:VALUE` or in a value alone, without the line ends that printf is given.
fn secret_part(text: &str, value: Range<usize>) -> Option<Range<usize>> {
    let shown = text.get(value.clone())?;
    let shown = shown.strip_suffix("\\n").unwrap_or(shown);
    let secret = shown.split_once(':').filter(|(user, _)| !user.is_empty()).map_or(shown, |(_, secret)| secret);
    let range = value.start + shown.len() - secret.len()..value.start + shown.len();
    let fits = !secret.is_empty() && !is_placeholder(secret) && !secret.starts_with("$(") && !secret.starts_with('/');
    fits.then_some(range)
}

/// `send "VALUE\r"`: a password, unless it could be a command or an answer.
fn sent(text: &str, word: &str, end: usize, line: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let mut start = end + run(bytes, end, |byte| is_blank(byte) || byte == b'(');
    if bytes[start..].starts_with(b"-- ") {
        start += 3 + run(bytes, start + 3, is_blank);
    }
    // Python's strings of bytes and others have a letter before them.
    start += usize::from(matches!(bytes.get(start), Some(b'b' | b'r' | b'u' | b'f' | b'$')));
    let open = skip_quote(bytes, start);
    if open == start {
        return None;
    }
    let limit = text.len().min(open + LONGEST);
    let length = run(&bytes[..limit], open, |byte| !matches!(byte, b'"' | b'\'' | b'\n' | b'\\'));
    let shown = text.get(open..open + length)?;
    let entered = bytes[open + length..].starts_with(b"\\r") || bytes[open + length..].starts_with(b"\\n");
    let asked = text.get(line.max(end.saturating_sub(LONGEST))..end).is_some_and(|before| {
        let before = before.to_ascii_lowercase();
        ["assword", "assphrase", "asscode"].iter().any(|noun| before.contains(noun))
    });
    let fits = (entered || word.to_ascii_lowercase().contains("line"))
        && !shown.contains([' ', '/', '=', '(', '.', ','])
        && !is_placeholder(shown)
        && shown.len() >= 4;
    let strong = is_random(shown) && shown.bytes().any(|byte| !byte.is_ascii_lowercase()) && shown.len() >= 8;
    (fits && (asked || strong && !shown.contains(['-', '_']))).then_some(open..open + length)
}

/// `AUTH VALUE`, `PASS VALUE`, `a1 LOGIN USER VALUE` of Redis, FTP, POP3 and IMAP, and nothing else in the line.
fn of_protocol(text: &str, at: usize, end: usize, line: usize) -> Option<Range<usize>> {
    let before = text.get(line.max(at.saturating_sub(LONGEST))..at)?.trim_end();
    let begins = before.is_empty()
        || before.ends_with("-cli")
        || before.ends_with(['>', ':', '$', '"', '\''])
        || before.len() <= 5 && before.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !text.as_bytes().get(end).copied().is_some_and(is_blank) {
        return None;
    }
    let values: Vec<_> = arguments(text, end, LONGEST).take(3).collect();
    let last = values.last()?.clone();
    let shown = text.get(last.clone())?;
    let fits = begins && values.len() < 3 && is_random(shown) && !is_placeholder(shown) && shown.len() >= 6;
    fits.then_some(last)
}

/// The password at its place behind the words of a command.
fn argument(text: &str, at: usize, end: usize, words: &[&str], place: ArgumentPlace) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let (first, more) = words.split_first()?;
    if !text.as_bytes().get(at..at + first.len())?.eq_ignore_ascii_case(first.as_bytes()) {
        return None;
    }
    let mut start = at + first.len();
    if start < end || bytes.get(start).is_some_and(|byte| !byte.is_ascii_whitespace() && !matches!(byte, b':' | b'"')) {
        return None;
    }
    for word in more {
        let next = arguments(text, start, LONGEST).next()?;
        let shown = &text[next.clone()];
        // `-b` may stand among other letters, as in `-nbB`.
        let short = word.strip_prefix('-').is_some_and(|letter| shown.starts_with('-') && shown.contains(letter));
        if !shown.eq_ignore_ascii_case(word) && !short {
            return None;
        }
        start = next.end;
    }
    start += usize::from(bytes.get(start) == Some(&b':'));
    let values: Vec<_> = arguments(text, start, LONGEST)
        .filter(|value| {
            !(text[value.clone()].starts_with('-') || *first == "net" && text[value.clone()].starts_with('/'))
        })
        .take(8)
        .collect();
    let value = match place {
        // More of them are prose.
        ArgumentPlace::Nth(index) if values.len() == index + 1 => values.last()?.clone(),
        ArgumentPlace::Nth(_) => return None,
        ArgumentPlace::Last(least) if values.len() >= least => values.last()?.clone(),
        ArgumentPlace::Last(_) => return None,
        ArgumentPlace::Only => {
            values.first().filter(|value| values.len() == 1 && is_random(&text[(*value).clone()]))?.clone()
        }
        ArgumentPlace::Named => {
            let [name, value] = values.as_slice() else { return None };
            let name = Some(&text[name.clone()]).filter(|name| !name.contains('='))?;
            kind_of(name).filter(|_| is_random(&text[value.clone()]))?;
            value.clone()
        }
        ArgumentPlace::First(count) => values.first()?.start..values.get(count - 1)?.end,
        ArgumentPlace::UserSlash => return user_slash(text, values.first()?.clone()),
    };
    let shown = text.get(value.clone())?;
    let names_place = shown.starts_with("\\\\") || shown.ends_with(':') || shown == "*";
    let form = ValueForm { quoted: true, tight: true, ..ValueForm::default() };
    let share = *words != ["net", "use"] || values.iter().any(|value| text[value.clone()].starts_with("\\\\"));
    (share && !names_place && is_secret(Name::Password, shown, form)).then_some(value)
}

/// `USER/VALUE@DATABASE`
fn user_slash(text: &str, value: Range<usize>) -> Option<Range<usize>> {
    let shown = text.get(value.clone())?;
    let (user, rest) = shown.split_once('/')?;
    let secret = rest.rsplit_once("@//").or_else(|| rest.rsplit_once('@')).map_or(rest, |(secret, _)| secret);
    let start = value.start + user.len() + 1;
    let fits = !user.is_empty() && !secret.contains('/') && secret.len() >= 3 && !is_placeholder(secret);
    let fits = fits && (is_random(secret) || shown.contains('@'));
    fits.then_some(start..start + secret.len())
}

/// The arguments of a command from `start` on, without their quotation marks, to the end of the command.
fn arguments(text: &str, start: usize, longest: usize) -> impl Iterator<Item = Range<usize>> {
    let bytes = &text.as_bytes()[..text.len().min(start + longest)];
    let mut at = start;
    std::iter::from_fn(move || {
        at += run(bytes, at, is_blank);
        let open = skip_quote(bytes, at);
        let value = if open > at {
            let quote = bytes[open - 1];
            let end = closing(bytes, open, quote, open > at + 1)?;
            at = end + run(bytes, end, |byte| byte == b'\\') + 1;
            open..end
        } else {
            let length = argument_length(&bytes[at.min(bytes.len())..]);
            let value = at..at + length;
            at += length;
            value
        };
        // A document or the end of the text, of the command, or of the quotation around it.
        (!value.is_empty() && text.get(value.clone()).is_some()).then_some(value)
    })
}

fn argument_length(bytes: &[u8]) -> usize {
    let ends = |at: usize, byte: u8| {
        byte.is_ascii_whitespace()
            || matches!(byte, b'|' | b';' | b'&' | b')' | b'"' | b'\'' | b'`' | b'<' | b'>' | 0)
            || byte == b'\\' && matches!(bytes.get(at + 1), Some(b'"' | b'\''))
    };
    bytes.iter().enumerate().take_while(|(at, byte)| !ends(*at, **byte)).count()
}
