//! Finds passwords after the flags of programs.

use std::ops::Range;

use super::bytes::{is_blank, run, skip_quote};
use super::names::Name;
use super::programs::{FLAGS, SLASH_FLAGS, Takes};
use super::value::{ValueForm, is_placeholder, is_random, is_secret, is_strong};

/// Which rows of [`FLAGS`] and [`SLASH_FLAGS`] apply in a line: those whose program was named in it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Programs {
    rows: u64,
}

const _: () = assert!(FLAGS.len() + SLASH_FLAGS.len() <= 64);

impl Programs {
    /// Records a word of the line.
    pub(super) fn note(&mut self, word: &str) {
        if !matches!(word.len(), 2..=21) {
            return;
        }
        let word = word.strip_suffix(".exe").unwrap_or(word);
        let programs = FLAGS.iter().map(|row| row.0).chain(SLASH_FLAGS.iter().map(|row| row.0));
        for (row, programs) in programs.enumerate() {
            if programs.iter().any(|program| program.eq_ignore_ascii_case(word)) {
                self.rows |= 1 << row;
            }
        }
    }

    /// The secret after a flag.
    pub(super) fn secret(&self, text: &str, word: &str, at: usize) -> Option<Range<usize>> {
        if !word.starts_with('-') && (self.rows == 0 || !word.ends_with("_pw")) {
            return None;
        }
        FLAGS.iter().enumerate().find_map(|(row, (programs, flags, takes))| {
            let known = self.rows & (1 << row) != 0;
            let applies = known || programs.is_empty();
            flags.iter().filter(|_| applies).find_map(|flag| flag_value(text, word, at, flag, *takes, known))
        })
    }

    /// The secret after `/p:` or `/p`, whose slash is at `at`.
    pub(super) fn slash_secret(&self, text: &str, at: usize) -> Option<Range<usize>> {
        let bytes = text.as_bytes();
        let opened = at == 0 || is_blank(bytes[at - 1]) || matches!(bytes[at - 1], b'"' | b'\'');
        if self.rows >> FLAGS.len() == 0 || !opened {
            return None;
        }
        let length = run(bytes, at + 1, |byte| byte.is_ascii_alphabetic());
        let (flag, end) = (&text[at + 1..at + 1 + length], at + 1 + length);
        let known = SLASH_FLAGS.iter().enumerate().any(|(row, (_, flags))| {
            self.rows & (1 << (FLAGS.len() + row)) != 0 && flags.iter().any(|known| known.eq_ignore_ascii_case(flag))
        });
        let gap = match bytes.get(end) {
            Some(b':') => 1,
            _ => run(bytes, end, is_blank),
        };
        if !known || gap == 0 {
            return None;
        }
        let value = value_of_flag(bytes, end + gap);
        let shown = text.get(value.clone())?;
        let form = ValueForm { quoted: true, tight: true, ..ValueForm::default() };
        (!shown.starts_with('/') && is_secret(Name::Password, shown, form)).then_some(value)
    }
}

/// The value at `start`, between quotation marks or up to a blank.
fn value_of_flag(bytes: &[u8], start: usize) -> Range<usize> {
    let quoted = skip_quote(bytes, start);
    let ends = |byte: u8| match quoted > start {
        true => byte == bytes[quoted - 1] || byte == b'\n',
        false => byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'`' | b'|' | b'>'),
    };
    quoted..quoted + run(bytes, quoted, |byte| !ends(byte))
}

fn flag_value(text: &str, word: &str, at: usize, flag: &str, takes: Takes, known: bool) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let end = at + word.len();
    let attached = word.starts_with(flag)
        && (word.len() > flag.len() || bytes.get(end).is_some_and(|byte| !byte.is_ascii_whitespace()));
    let next = word == flag && bytes.get(end).is_some_and(|byte| is_blank(*byte) || *byte == b'=');
    let splits = matches!(takes, Takes::UserColon | Takes::UserPercent | Takes::UserComma);
    let start = match takes {
        _ if next && takes != Takes::Attached => end + run(bytes, end, |byte| is_blank(byte) || byte == b'='),
        Takes::Attached if attached => at + flag.len(),
        Takes::Both if attached && !flag.starts_with("--") => at + flag.len(),
        _ if splits && attached && known => at + flag.len(),
        _ => return None,
    };
    let value = value_of_flag(bytes, start);
    let shown = text.get(value.clone())?;
    let form = ValueForm { quoted: true, tight: true, ..ValueForm::default() };
    let split = |sign: char| {
        let (user, secret) = shown.split_once(sign)?;
        let fits = !user.is_empty() && !secret.is_empty() && !secret.starts_with('/') && !is_placeholder(secret);
        let fits = fits && !secret.bytes().all(|byte| byte.is_ascii_digit() && !known) && (known || is_random(secret));
        fits.then_some(value.end - secret.len()..value.end)
    };
    match takes {
        Takes::UserColon => split(':'),
        Takes::UserPercent => split('%'),
        Takes::UserComma => split(','),
        Takes::Cookie => (shown.contains('=') && !shown.contains('$')).then_some(value),
        _ if shown.starts_with('-') || shown.is_empty() => None,
        Takes::Random => (is_strong(shown) && is_secret(Name::Password, shown, form)).then_some(value),
        _ => {
            // OpenSSL's `pass:VALUE`; its `env:`, `file:` and `fd:` are no secrets.
            let source = ["env:", "file:", "fd:", "stdin", "@"].iter().any(|source| shown.starts_with(source));
            let secret = shown.strip_prefix("pass:").unwrap_or(shown);
            (!source && is_secret(Name::Password, secret, form)).then_some(value.end - secret.len()..value.end)
        }
    }
}
