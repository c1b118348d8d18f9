//! Scans text word by word, and finds the values after names.

use std::ops::Range;

use super::MARK;
use super::arguments;
use super::bytes::{closing, is_blank, is_word, run, skip_quote};
use super::commands::Programs;
use super::forms;
use super::names::{Name, kind_of};
use super::value::{ValueForm, is_random, is_secret};

/// The largest distance between a name and its value, in bytes.
const NEAR: usize = 200;

pub(super) struct Scanner<'a> {
    pub text: &'a str,
    pub bytes: &'a [u8],
    /// Where the current line begins.
    pub line: usize,
    /// The programs named in that line so far.
    pub programs: Programs,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, bytes: text.as_bytes(), line: 0, programs: Programs::default() }
    }

    pub(super) fn redacted(mut self) -> Option<String> {
        let mut kept = String::new();
        let mut copied = 0;
        let mut at = 0;
        while at < self.bytes.len() {
            if at == 0 || self.bytes[at - 1] == b'\n' {
                self.line = at;
                self.programs = Programs::default();
            }
            let word = if is_word(self.bytes[at]) { run(self.bytes, at, is_word) } else { 0 };
            if let Some(secret) = self.secret_at(at, word) {
                kept.push_str(&self.text[copied..secret.start]);
                kept.push_str(if self.bytes[secret.start] == 0 { "\u{fffd}" } else { MARK });
                copied = secret.end;
                at = secret.end;
            } else {
                self.programs.note(self.text.get(at..at + word).unwrap_or_default());
                at += word.max(1);
            }
        }
        if copied == 0 && kept.is_empty() {
            return None;
        }
        kept.push_str(&self.text[copied..]);
        Some(kept)
    }

    /// The secret found by the word of length `word` at `at`, or by the character there.
    fn secret_at(&self, at: usize, word: usize) -> Option<Range<usize>> {
        let bytes = self.bytes;
        let found = match bytes[at] {
            0 => Some(at..at + 1),
            b':' if bytes[at..].starts_with(b"://") => forms::user_info(bytes, at + 3),
            b'$' => forms::crypt_hash(self.text, at),
            b'*' if at == self.line => forms::pgpass(self.text, at, at),
            b'"' | b'\'' => arguments::converted(self.text, at),
            b'/' => self.programs.slash_secret(self.text, at),
            b'<' if bytes[at..].starts_with(b"<<") => arguments::input(self.text, at, self.line),
            _ if word > 0 => self.secret_by_word(at, &self.text[at..at + word]),
            _ => None,
        };
        found.filter(|secret| !secret.is_empty() && !bytes[secret.start..].starts_with(MARK.as_bytes()))
    }

    fn secret_by_word(&self, at: usize, word: &str) -> Option<Range<usize>> {
        let bytes = self.bytes;
        forms::token(self.text, word, at)
            .or_else(|| forms::private_key(self.text, word, at))
            .or_else(|| forms::webhook(self.text, word, at))
            .or_else(|| forms::bot_token(bytes, word, at))
            .or_else(|| forms::aws_secret(bytes, at))
            .or_else(|| forms::pgpass(self.text, at, self.line))
            .or_else(|| self.named(word, at))
            .or_else(|| self.programs.secret(self.text, word, at))
            .or_else(|| arguments::secret(self.text, word, at, self.line))
            .or_else(|| forms::scheme(self.text, word, at))
            .or_else(|| forms::identified_by(self.text, word, at))
    }

    /// The value after the name of a secret: `password=...`, `"api_key": "..."`, `--token ...`,
    /// `<password>...</password>`, `password: |`, `the password is ...`.
    fn named(&self, word: &str, at: usize) -> Option<Range<usize>> {
        let bytes = self.bytes;
        let end = at + word.len();
        if let Some(value) = self.element(at, word) {
            return Some(value);
        }
        // Most words are followed by a blank and another word: only a few of them are checked.
        let follows = *bytes.get(end)?;
        if matches!(follows, b' ' | b'\t')
            && !may_be_a_noun(word)
            && !word.starts_with('-')
            && !self.is_assigned(end)
            && !self.is_quoted(end)
        {
            return None;
        }
        let query = at > 0 && matches!(bytes[at - 1], b'&' | b'?');
        let named_so = query && is_signature(word) || word == "key" && self.is_api_key(at);
        let kind = kind_of(word).or_else(|| named_so.then_some(Name::Token))?;
        // `${PASSWORD:-}` is a variable.
        if at > 1 && bytes[at - 1] == b'{' && bytes[at - 2] == b'$' {
            return None;
        }
        if word == "password" && is_blank(follows) && self.is_netrc() {
            let start = end + run(bytes, end, is_blank);
            return Some(start..start + run(bytes, start, |byte| !byte.is_ascii_whitespace()));
        }
        // A test of Go that passed.
        if word == "PASS" && self.text[..at].ends_with("--- ") {
            return None;
        }
        if let Some(value) = self.cell(kind, end) {
            return Some(value);
        }
        match follows {
            _ if self.is_assigned(end) => self.assigned(kind, word, at),
            _ => self.assigned(kind, word, at).or_else(|| self.named_in_words(kind, end)),
        }
    }

    /// The cell behind that of the name in a table: `| password | ... |`.
    fn cell(&self, kind: Name, end: usize) -> Option<Range<usize>> {
        let rest = self.text.get(end..self.bytes.len().min(end + NEAR))?;
        let line = self.text.get(self.line..end)?.trim_start();
        let value = rest.trim_start_matches([' ', '\t', '`', '*']).strip_prefix("| ")?.trim_start();
        let start = end + rest.len() - value.len();
        let start = start + usize::from(value.starts_with('`'));
        let length = run(self.bytes, start, |byte| !byte.is_ascii_whitespace() && !matches!(byte, b'|' | b'`'));
        let ends = self.text[start + length..].trim_start_matches([' ', '\t', '`']).starts_with('|');
        let value = start..start + length;
        (line.starts_with('|') && ends && kind != Name::Header && is_random(self.text.get(value.clone())?))
            .then_some(value)
    }

    /// The text of an element of XML: `<password>...</password>`, `<wsse:Password Type="...">...</wsse:Password>`.
    fn element(&self, at: usize, word: &str) -> Option<Range<usize>> {
        let bytes = self.bytes;
        let prefix = self.text.get(self.line.max(at.saturating_sub(16))..at).filter(|before| before.ends_with(':'));
        let space = prefix.and_then(|before| before.rsplit_once('<')).is_some_and(|(_, name)| !name.contains(' '));
        if at == 0 || bytes[at - 1] != b'<' && !space {
            return None;
        }
        let kind = kind_of(word)?;
        let limit = bytes.len().min(at + NEAR);
        let open = at + run(&bytes[..limit], at, |byte| !matches!(byte, b'>' | b'<' | b'\n')) + 1;
        let length = run(bytes, open, |byte| !matches!(byte, b'<' | b'\n'));
        let opens = bytes.get(open - 1) == Some(&b'>') && bytes.get(open - 2) != Some(&b'/');
        let is_element = opens && bytes.get(open + length..).is_some_and(|behind| behind.starts_with(b"</"));
        let form = ValueForm { quoted: true, ..ValueForm::default() };
        if is_element { self.if_secret(kind, open..open + length, form) } else { None }
    }

    fn is_api_key(&self, at: usize) -> bool {
        let before = self.text.get(self.line.max(at.saturating_sub(8))..at).unwrap_or_default();
        let before = before.trim_end().to_ascii_lowercase();
        ["api", "access", "secret", "private"].iter().any(|word| before.ends_with(word))
    }

    /// `machine HOST login USER password PASSWORD`
    fn is_netrc(&self) -> bool {
        let line = self.text[self.line..].trim_start_matches([' ', '\t', '+', '-']);
        ["machine ", "login ", "default login "].iter().any(|word| line.starts_with(word))
    }

    /// Whether `=` or `:` stands behind some blanks.
    fn is_assigned(&self, end: usize) -> bool {
        let blanks = run(&self.bytes[..self.bytes.len().min(end + NEAR)], end, is_blank);
        matches!(self.bytes.get(end + blanks), Some(b'=' | b':'))
    }

    /// Whether a quotation or the word `value` stands behind some blanks.
    fn is_quoted(&self, end: usize) -> bool {
        let blanks = run(&self.bytes[..self.bytes.len().min(end + NEAR)], end, is_blank);
        matches!(self.bytes.get(end + blanks), Some(b'"' | b'\'' | b'v' | b'V'))
    }

    fn assigned(&self, kind: Name, word: &str, at: usize) -> Option<Range<usize>> {
        let bytes = self.bytes;
        let end = at + word.len();
        let behind_quote = skip_quote(bytes, end);
        let mut start = behind_quote;
        start += usize::from(behind_quote > end && bytes.get(start) == Some(&b']'));
        let blanks = run(bytes, start, is_blank);
        start += blanks;
        let separator = run(bytes, start, |byte| matches!(byte, b'=' | b':'));
        if behind_quote > end && bytes.get(start) == Some(&b'>') {
            let length = run(bytes, start + 1, |byte| !matches!(byte, b'<' | b'\n'));
            return self.if_secret(
                kind,
                start + 1..start + 1 + length,
                ValueForm { quoted: true, ..ValueForm::default() },
            );
        }
        let flag = word.starts_with('-') && separator == 0 && blanks > 0;
        let sign = bytes.get(start).copied().unwrap_or_default();
        let passed = separator == 0 && (sign == b',' && behind_quote > end || sign == b'(');
        if separator == 0
            && let Some(value) = self.pair(kind, behind_quote, end)
        {
            return Some(value);
        }
        if separator == 0 && !flag && !passed {
            return self.quoted_behind(kind, start, blanks);
        }
        if at > 0 && separator == 1 && bytes[start - blanks..start] == *b"!" {
            return None;
        }
        start += if passed { 1 } else { separator.min(3) };
        start += usize::from(separator > 0 && bytes.get(start) == Some(&b'>'));
        let gap = run(bytes, start, is_blank);
        start += gap;
        if bytes.get(start) == Some(&b'\n') && separator > 0 {
            return None;
        }
        let colon = sign == b':' && separator == 1;
        if matches!(kind, Name::Header) {
            let opened =
                at.checked_sub(1).map(|before| bytes[before]).filter(|byte| matches!(byte, b'"' | b'\'' | b'`'));
            return self.header(word, start, colon, opened);
        }
        if let Some(block) = self.block(start, separator) {
            return Some(block);
        }
        let leads = self.leads_line(at);
        let is_whole = leads && separator == 1;
        let value = self.value_at(start, if is_whole { ValueEnd::Blank } else { ValueEnd::Punctuation });
        let quoted = value.start > start;
        let behind = bytes.get(value.end..).unwrap_or_default();
        // `"type": "password", "label": ...` and the end of a quotation, as in `expect "password:" { ... }`.
        let is_key = passed && matches!(behind.get(1), Some(b':'));
        let closes = quoted
            && colon
            && bytes.get(value.start).is_some_and(|byte| is_blank(*byte) || matches!(byte, b';' | b')' | b']'))
            && at > 0
            && (gap > 0 || matches!(bytes[at - 1], b'"' | b'\''));
        if passed && !quoted || is_key || closes {
            return None;
        }
        let compared =
            separator > 1 || matches!(bytes.get(end + blanks).copied(), Some(b'!' | b'<')) || self.is_declared(at);
        let tight = (sign == b'=' && blanks == 0 && gap == 0) || flag;
        let form = ValueForm {
            quoted,
            tight,
            colon,
            code: compared
                || (colon && is_assigned_type(behind))
                || matches!(behind.first(), Some(b'(' | b'.'))
                || (behind.first() == Some(&b';') && !leads && !tight),
            more: behind.first() == Some(&b' ') && behind.get(1).is_some_and(u8::is_ascii_alphabetic) && gap > 0,
        };
        let next_flag = flag && bytes.get(value.start) == Some(&b'-');
        if next_flag {
            return None;
        }
        let (start, end) = (value.start, value.end);
        // Up to the next blank it may look like code where a bracket ends it: `password=VALUE)[...`.
        let before_bracket = || {
            let value = self.value_at(start, ValueEnd::Punctuation);
            let is_shorter = is_whole && !quoted && value.end < end && is_random(&self.text[value.clone()]);
            if is_shorter { self.if_secret(kind, value, form) } else { None }
        };
        self.if_secret(kind, value, form)
            .or_else(before_bracket)
            .or_else(|| if quoted { None } else { self.alternative(kind, start, end) })
    }

    /// A text behind what a program computes or a type: `password = env.PW || "..."`, `token: String = "..."`, `a ? "..." : b`.
    fn alternative(&self, kind: Name, start: usize, end: usize) -> Option<Range<usize>> {
        let length = run(&self.bytes[..self.bytes.len().min(end + NEAR)], end, |byte| byte != b'\n');
        let rest = self.text.get(start..end + length)?;
        let opens = |sign: &str| {
            ['"', '\''].iter().find_map(|quote| rest.find(&format!("{sign}{quote}")).map(|at| at + sign.len()))
        };
        let at = [" || ", " ?? ", " or ", " = ", " ? ", " : "].iter().find_map(|sign| opens(sign))?;
        let value = self.value_at(start + at, ValueEnd::Punctuation);
        let shown = self.text.get(value.clone())?;
        let fits = is_random(shown) && !shown.contains(' ');
        if fits { self.if_secret(kind, value, ValueForm { quoted: true, ..ValueForm::default() }) } else { None }
    }

    /// `IDENTIFIED BY PASSWORD '...'`, `password "..."`.
    fn quoted_behind(&self, kind: Name, start: usize, blanks: usize) -> Option<Range<usize>> {
        let value = self.value_at(start, ValueEnd::Punctuation);
        let fits = kind == Name::Password && blanks > 0 && value.start > start;
        fits.then_some(value).filter(|value| is_random(&self.text[value.clone()]))
    }

    /// `{"name": "DB_PASS", "value": "..."}`, `- name: DB_PASS` and `value: ...` in the next line, attributes of XML,
    /// `variable "db_password" { default = "..." }`.
    fn pair(&self, kind: Name, behind_quote: usize, end: usize) -> Option<Range<usize>> {
        let bytes = self.bytes;
        let limit = bytes.len().min(end + NEAR);
        let gap = run(&bytes[..limit], behind_quote, |byte| {
            matches!(byte, b' ' | b',' | b'\n' | b'\r' | b'\t' | b'"' | b'\'' | b'\\')
        });
        let mut start = behind_quote + gap;
        if bytes.get(start) == Some(&b'{') && behind_quote > end {
            let block = self.text.get(start..limit)?.split('}').next()?;
            start += block.find("default").filter(|at| bytes[start + at - 1].is_ascii_whitespace())?;
        }
        let word = &self.text[start..start + run(bytes, start, is_word)];
        if gap == 0 || !["value", "default"].iter().any(|named| word.eq_ignore_ascii_case(named)) {
            return None;
        }
        let start = skip_quote(bytes, start + word.len());
        let start = start + run(bytes, start, is_blank);
        let separator = run(bytes, start, |byte| matches!(byte, b'=' | b':'));
        let start = start + separator + run(bytes, start + separator, is_blank);
        let value = self.value_at(start, ValueEnd::Blank);
        let form = ValueForm { quoted: value.start > start, tight: true, ..ValueForm::default() };
        if separator == 0 { None } else { self.if_secret(kind, value, form) }
    }

    /// A header's value: all of the line where it has a scheme and credentials, or pairs of a cookie.
    fn header(&self, word: &str, start: usize, colon: bool, opened: Option<u8>) -> Option<Range<usize>> {
        let quote = skip_quote(self.bytes, start);
        let mark = if quote > start { Some(self.bytes[quote - 1]) } else { opened };
        let length = run(self.bytes, quote, |byte| !matches!(byte, b'\n' | b'\r' | b'\\') && Some(byte) != mark);
        let line = self.text[quote..quote + length].trim_end();
        let cookie = word.to_ascii_lowercase().ends_with("cookie");
        let first = line.split(' ').next().unwrap_or_default();
        let pair = first.split_once('=').is_some_and(|(name, value)| {
            !name.is_empty() && value.trim_end_matches(';').len() >= 4 && !value.starts_with(['$', '{', '<'])
        });
        let is_secret = match cookie {
            true => pair && (colon || quote > start),
            false => {
                let form = ValueForm { quoted: quote > start, ..ValueForm::default() };
                forms::is_credentials(line) || (!line.contains(' ') && is_secret(Name::Header, line, form))
            }
        };
        is_secret.then_some(quote..quote + line.len())
    }

    /// A block of YAML: the lines below that are indented further.
    fn block(&self, start: usize, separator: usize) -> Option<Range<usize>> {
        let bytes = self.bytes;
        if separator != 1 || !matches!(bytes.get(start), Some(b'|' | b'>')) {
            return None;
        }
        let rest = run(bytes, start + 1, |byte| matches!(byte, b'-' | b'+' | b' ' | b'\r') || byte.is_ascii_digit());
        let first = start + 1 + rest;
        if bytes.get(first) != Some(&b'\n') {
            return None;
        }
        let indent = |at: usize| run(bytes, at, |byte| byte == b' ');
        let own = indent(self.line);
        let mut end = first + 1;
        let mut last = None;
        while end < bytes.len() {
            let (depth, length) = (indent(end), run(bytes, end, |byte| byte != b'\n'));
            if depth <= own && depth < length {
                break;
            }
            if depth < length {
                last = Some(end + length);
            }
            end += length + 1;
        }
        let begin = first + 1 + indent(first + 1);
        last.filter(|last| *last > begin).map(|last| begin..last)
    }

    /// `the password is ...`, `use password ...`.
    fn named_in_words(&self, kind: Name, end: usize) -> Option<Range<usize>> {
        let limit = self.text.len().min(end + NEAR);
        let limit = (end..=limit).rev().find(|at| self.text.is_char_boundary(*at))?;
        forms::named_in_words(kind, &self.text[end..limit]).map(|value| value.start + end..value.end + end)
    }

    fn if_secret(&self, kind: Name, value: Range<usize>, form: ValueForm) -> Option<Range<usize>> {
        is_secret(kind, self.text.get(value.clone())?, form).then_some(value)
    }

    /// Nothing but indentation, the sign of a diff or a list, or `export` stands before it in its line.
    fn leads_line(&self, at: usize) -> bool {
        if at - self.line > NEAR {
            return false;
        }
        let before = self.text[self.line..at].trim_start_matches([' ', '\t', '+', '-', '>', '#']).trim_end();
        matches!(before, "" | "export" | "set" | "ENV" | "ARG" | "env" | "setx" | "declare -x")
            || before.ends_with(['.', '/', '{']) && !before.contains(' ')
    }

    /// A declaration or a condition of a program.
    fn is_declared(&self, at: usize) -> bool {
        let start = self.line.max(at.saturating_sub(NEAR));
        let Some(before) = self.text.get(start..at) else { return false };
        let before = before.trim_end_matches(['(', '.', '&', '*']);
        let last = before.trim_end().rsplit([' ', '\t', '(']).next().unwrap_or_default();
        let last = last.strip_prefix(['+', '-']).unwrap_or(last);
        matches!(
            last,
            "let"
                | "const"
                | "var"
                | "val"
                | "mut"
                | "final"
                | "auto"
                | "if"
                | "while"
                | "fn"
                | "def"
                | "static"
                | "private"
                | "public"
                | "readonly"
                | "self"
                | "this"
                | "return"
                | "pub"
                | "String"
                | "string"
                | "char"
                | "match"
                | "for"
                | "and"
                | "or"
                | "not"
        ) || before.ends_with(['.', '>']) && last.len() > 1
    }

    /// A value: what is between quotation marks, or else a word.
    fn value_at(&self, at: usize, end: ValueEnd) -> Range<usize> {
        let (bytes, whole) = (self.bytes, end == ValueEnd::Blank);
        let start = skip_quote(bytes, at);
        if start > at {
            let (quote, escaped) = (bytes[start - 1], start > at + 1);
            if let Some(end) = closing(bytes, start, quote, escaped) {
                return start..end;
            }
        }
        let ends = |byte: u8| {
            byte.is_ascii_whitespace()
                || byte == 0
                || (!whole
                    && matches!(
                        byte,
                        b',' | b';' | b'&' | b')' | b'}' | b']' | b'"' | b'\'' | b'`' | b'<' | b'>' | b'|' | b'\\'
                    ))
        };
        let length = run(bytes, start, |byte| !ends(byte));
        let is_json = bytes[start..start + length].contains(&b'"');
        if whole && (is_json || run(bytes, start + length, is_blank) > 0) {
            // More follows: it is no line of an environment file.
            return self.value_at(at, ValueEnd::Punctuation);
        }
        start..start + length
    }
}

/// Where a value without quotation marks ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ValueEnd {
    /// At a blank, or punctuation that separates values.
    Punctuation,
    /// At a blank alone.
    Blank,
}

/// `TOKEN: Type = ...`
fn is_assigned_type(behind: &[u8]) -> bool {
    behind.starts_with(b" = ") || behind.starts_with(b" | ")
}

fn may_be_a_noun(word: &str) -> bool {
    matches!(word.len(), 2..=12) && matches!(word.as_bytes()[0] | 0x20, b'p' | b't' | b's' | b'c' | b'k' | b'b' | b'r')
}

fn is_signature(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    matches!(lower.as_str(), "sig" | "signature" | "key" | "code") || lower.ends_with("-signature")
}
