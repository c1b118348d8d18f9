//! Determines whether a value after the name of a secret is one. Code, configuration and prose often name secrets without
//! containing one.

use super::names::{Name, kind_of};
use super::plain_words::{CONSTANTS, TYPES};

/// How a value follows its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ValueForm {
    /// Between quotation marks.
    pub quoted: bool,
    /// `name=value`, without blanks.
    pub tight: bool,
    /// `name: value`, rather than `=`.
    pub colon: bool,
    /// Within code: a comparison, a declaration.
    pub code: bool,
    /// More words follow in the line.
    pub more: bool,
}

/// Whether the value is a secret.
pub(super) fn is_secret(name: Name, value: &str, form: ValueForm) -> bool {
    let value = if form.quoted { value } else { value.trim_end_matches([';', ',', '.']) };
    let lower = value.to_ascii_lowercase();
    if value.is_empty() || is_placeholder(value) || CONSTANTS.contains(&lower.as_str()) {
        return false;
    }
    if TYPES.contains(&lower.as_str()) || is_path_or_address(value) || (!form.quoted && is_code(value)) {
        return false;
    }
    if value.bytes().all(|byte| byte.is_ascii_digit()) {
        return match name {
            Name::Password => value.len() >= 4,
            Name::Pass => value.len() >= 4 && (form.quoted || form.tight),
            Name::Token => value.len() >= 16,
            Name::Header => false,
        };
    }
    if value.contains([' ', '\t']) {
        return form.quoted && !is_label(name, value);
    }
    match name {
        Name::Header => is_random(value),
        // A variable that is named after what it holds.
        _ if value.contains('_') && is_identifier(value) && kind_of(value).is_some() => false,
        _ if is_plain_word(value) => is_secret_word(name, value, form),
        _ if form.code && !form.quoted => is_random(value) && (!is_identifier(value) || is_generated(value)),
        Name::Token => value.len() >= 6 && (is_random(value) || (form.tight && value.len() >= 16)),
        Name::Pass if !form.quoted && !form.tight => is_random(value),
        Name::Pass | Name::Password => true,
    }
}

/// A value of letters alone, which may be an identifier or a word of prose.
fn is_secret_word(name: Name, value: &str, form: ValueForm) -> bool {
    let first = value.as_bytes()[0];
    let is_capital = first.is_ascii_uppercase() && value.bytes().any(|byte| byte.is_ascii_lowercase());
    if is_random(value) {
        return true;
    }
    if kind_of(value).is_some() || (is_capital && !form.quoted && !form.tight) {
        return false;
    }
    match name {
        Name::Token => (form.quoted || form.tight) && value.len() >= 16 && !value.contains('_'),
        Name::Header => false,
        Name::Pass => (form.quoted || form.tight) && !is_capital,
        Name::Password if form.quoted => true,
        // `password: add a meter`, `let password = input;`
        Name::Password => !form.code && !form.more && value.len() >= 3,
    }
}

fn is_plain_word(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_' || byte == b'-')
}

/// Whether the value is a placeholder for a secret: a variable, a template, asterisks.
pub(super) fn is_placeholder(value: &str) -> bool {
    let bytes = value.as_bytes();
    let Some(&first) = bytes.first() else { return true };
    if bytes.iter().all(|byte| *byte == first) && !first.is_ascii_digit() {
        return true;
    }
    if bytes.iter().all(|byte| matches!(byte, b'*' | b'.' | b'x' | b'X' | b'-' | b'_')) {
        return true;
    }
    let is_name = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-'))
    };
    let name = value.get(1..).unwrap_or_default();
    match first {
        b'{' | b'<' | b'[' | b'(' | b'|' | b'>' => true,
        b'$' => {
            name.starts_with(['{', '('])
                || is_name(name) && !name.starts_with(|c: char| c.is_ascii_digit() && name.len() > 2)
        }
        b'%' => name.ends_with('%') || name.starts_with(['(', 's', 'd', 'v', 'q', '@']) && name.len() <= 12,
        b'#' => name.starts_with('{'),
        b'@' | b'&' | b':' | b'!' => is_name(name) && !is_random(name),
        b'?' => name.is_empty(),
        _ if ["env:", "env.", "process.env", "os.environ", "secrets."]
            .iter()
            .any(|begins| value.starts_with(begins)) =>
        {
            true
        }
        _ => {
            let lower = value.to_ascii_lowercase();
            [
                "your",
                "my-",
                "my_",
                "example",
                "dummy",
                "fake",
                "env:",
                "env.",
                "process.env",
                "os.environ",
                "vault:",
                "secret:",
                "secrets.",
                "enc[",
                "insert",
                "replace",
            ]
            .iter()
            .any(|begins| lower.starts_with(begins))
                && !is_random(value.rsplit(['-', '_', ':']).next().unwrap_or_default())
        }
    }
}

fn is_path_or_address(value: &str) -> bool {
    let is_path = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '.') && text.contains(['/', '.', '-'])
            || !text.contains(|c: char| !c.is_ascii_lowercase())
    };
    ["/", "./", "../", "~/"]
        .iter()
        .any(|begins| value.strip_prefix(begins).is_some_and(|rest| !rest.is_empty() && is_path(rest)))
        || value.contains("://")
        || value.starts_with("C:\\")
        || [".rs", ".py", ".js", ".ts", ".json", ".toml", ".yml", ".yaml", ".md", ".txt", ".pem", ".key", ".crt"]
            .iter()
            .any(|end| value.ends_with(end) && value.len() > end.len())
}

/// Whether the value is code: calls, paths of modules, members.
fn is_code(value: &str) -> bool {
    let is_member = |text: &str| {
        text.contains('.')
            && text
                .split('.')
                .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_'))
    };
    let call = value.split('(').next().unwrap_or_default();
    let is_call = value.contains('(')
        && call.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'!' | b'&' | b'*'));
    is_call
        || value.contains("::")
        || value
            .split_once('<')
            .is_some_and(|(kind, rest)| is_identifier(kind) && !kind.is_empty() && rest.contains('>'))
        || value.contains("->")
        || value.ends_with("[]")
        || value.starts_with("&[")
        || value.starts_with("0x") && value.len() <= 10
        || value.starts_with(['&', '*']) && is_plain_word(&value[1..])
        || value.starts_with("self.")
        || value.starts_with("this.")
        || (value.contains('[') && value.as_bytes()[0].is_ascii_alphabetic())
        || is_member(value)
        || value.rsplit_once('.').is_some_and(|(owner, name)| is_identifier(owner) && kind_of(name).is_some())
        || is_version(value)
        || is_cmdlet(value)
}

/// `Get-Credential` of PowerShell.
pub(super) fn is_cmdlet(value: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_uppercase())
            && part.len() >= 3
            && part.bytes().all(|byte| byte.is_ascii_alphabetic())
    };
    value.split_once('-').is_some_and(|(verb, noun)| is_part(verb) && is_part(noun))
}

fn is_identifier(value: &str) -> bool {
    !value.starts_with(|c: char| c.is_ascii_digit())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn is_version(value: &str) -> bool {
    let digits = value.strip_prefix('v').unwrap_or(value);
    digits.contains('.')
        && digits.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Quoted text for a user: `"Enter your password"`.
fn is_label(name: Name, value: &str) -> bool {
    const SAID: [&str; 22] = [
        "your", "password", "token", "secret", "must", "cannot", "please", "enter", "required", "invalid", "is", "not",
        "the", "for", "key", "of", "to", "and", "should", "be", "with", "a",
    ];
    let words = || value.split_ascii_whitespace();
    let wordlike = words().all(|word| {
        word.trim_matches(|c: char| c.is_ascii_punctuation()).bytes().all(|byte| byte.is_ascii_alphabetic())
    });
    let said = words().any(|word| SAID.contains(&word.to_ascii_lowercase().as_str()));
    wordlike && (said || name != Name::Password || value.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// Text that is not a word of a language: letters with digits, with other signs, or with mixed cases.
pub(super) fn is_random(value: &str) -> bool {
    let count = |such: fn(&u8) -> bool| value.bytes().filter(&such).count();
    let (digits, letters) = (count(u8::is_ascii_digit), count(u8::is_ascii_alphabetic));
    let signs =
        count(|byte| byte.is_ascii_punctuation() && !matches!(byte, b'_' | b'-' | b'.' | b'/' | b':' | b',' | b'\''));
    let upper = count(u8::is_ascii_uppercase);
    let mixed = value.len() >= 10 && upper >= 2 && letters - upper >= 2 && !is_camel(value);
    !is_version(value) && value.len() >= 6 && letters >= 1 && (digits >= 1 || (signs >= 1 && value.len() >= 8) || mixed)
}

/// Letters with digits and in both cases, or with other signs, such as no word, name or place is.
pub(super) fn is_strong(value: &str) -> bool {
    let has = |such: fn(&u8) -> bool| value.bytes().any(|byte| such(&byte));
    let mixed = has(u8::is_ascii_digit) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase);
    let signs = has(|byte| matches!(byte, b'!' | b'#' | b'%' | b'^' | b'*' | b'+' | b'~' | b'?' | b'@'));
    value.len() >= 8 && is_random(value) && (mixed || signs) && !value.contains(['/', ':', '='])
}

/// A long value that changes between letters, cases and digits more often than a name made of words does.
fn is_generated(value: &str) -> bool {
    let class = |byte: u8| (byte.is_ascii_digit(), byte.is_ascii_uppercase());
    let changes = value.as_bytes().windows(2).filter(|pair| class(pair[0]) != class(pair[1])).count();
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    value.len() >= 16 && is_strong(value) && (digits >= 3 || changes * 2 > value.len())
}

/// Words of three letters and more, written without blanks.
fn is_camel(value: &str) -> bool {
    let mut run = 3;
    for byte in value.bytes() {
        if byte.is_ascii_uppercase() || !byte.is_ascii_alphabetic() {
            if run < 3 {
                return false;
            }
            run = if byte.is_ascii_uppercase() { 1 } else { 3 };
        } else {
            run += 1;
        }
    }
    true
}
