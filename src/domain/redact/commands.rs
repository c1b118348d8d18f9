//! Passwords in the arguments of programs.

use std::ops::Range;

use super::names::Name;
use super::rules::{FLAGS, Takes};
use super::scan::{is_blank, run, skip_quote};
use super::value::{How, is_placeholder, is_random, is_secret};

/// Which rows of [`FLAGS`] apply in a line: those whose program was named in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Programs {
    rows: u64,
}

const _: () = assert!(FLAGS.len() <= 64);

impl Programs {
    /// Notes a word of the line.
    pub fn note(&mut self, word: &str) {
        if !matches!(word.len(), 2..=17) {
            return;
        }
        for (row, (programs, ..)) in FLAGS.iter().enumerate() {
            if programs.contains(&word) {
                self.rows |= 1 << row;
            }
        }
    }

    /// The secret behind a flag.
    pub fn secret(&self, text: &str, word: &str, at: usize) -> Option<Range<usize>> {
        if !word.starts_with('-') {
            return None;
        }
        FLAGS.iter().enumerate().find_map(|(row, (programs, flag, takes))| {
            let known = self.rows & (1 << row) != 0;
            (known || programs.is_empty()).then(|| flag_value(text, word, at, flag, *takes, known))?
        })
    }
}

fn flag_value(text: &str, word: &str, at: usize, flag: &str, takes: Takes, known: bool) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let end = at + word.len();
    let attached = word.starts_with(flag)
        && (word.len() > flag.len() || bytes.get(end).is_some_and(|byte| !byte.is_ascii_whitespace()));
    let next = word == flag && bytes.get(end).is_some_and(|byte| is_blank(*byte) || *byte == b'=');
    let start = match takes {
        Takes::Attached if attached => at + flag.len(),
        Takes::Both if attached && !flag.starts_with("--") && !next => at + flag.len(),
        Takes::Next | Takes::Both | Takes::UserColon | Takes::UserPercent if next => {
            let blanks = run(bytes, end, |byte| is_blank(byte) || byte == b'=');
            end + blanks
        }
        Takes::UserColon if attached && known => at + flag.len(),
        _ => return None,
    };
    let quoted = skip_quote(bytes, start);
    let ends = |byte: u8| match quoted > start {
        true => byte == bytes[quoted - 1] || byte == b'\n',
        false => byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'`' | b'|' | b'>'),
    };
    let value = quoted..quoted + run(bytes, quoted, |byte| !ends(byte));
    let shown = text.get(value.clone())?;
    let how = How { quoted: true, tight: true, ..How::default() };
    let split = |sign: char| {
        let (user, secret) = shown.split_once(sign)?;
        let fits = !user.is_empty() && !secret.is_empty() && !secret.starts_with('/') && !is_placeholder(secret);
        let fits = fits && !secret.bytes().all(|byte| byte.is_ascii_digit() && !known) && (known || is_random(secret));
        fits.then_some(value.end - secret.len()..value.end)
    };
    match takes {
        Takes::UserColon => split(':'),
        Takes::UserPercent => split('%'),
        _ if shown.starts_with('-') || shown.is_empty() => None,
        _ => is_secret(Name::Password, shown, how).then_some(value),
    }
}
