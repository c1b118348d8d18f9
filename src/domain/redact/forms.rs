//! Finds secrets that are recognized by their form alone.

use std::ops::Range;

use super::MARK;
use super::bytes::{is_blank, is_word, run};
use super::names::Name;
use super::plain_words::{ADJECTIVES, CONSTANTS, TYPES};
use super::rules::{CRYPT, TOKENS, Tail, WEBHOOK_HOSTS, WEBHOOKS};
use super::value::{is_cmdlet, is_placeholder, is_random};

/// `user:password@` of a URL or a connection string; a user without a password only where it is a token.
pub(super) fn user_info(bytes: &[u8], start: usize) -> Option<Range<usize>> {
    const LONGEST: usize = 512;
    let limit = bytes.len().min(start + LONGEST);
    let ends = |byte: u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'<' | b'>' | b'`' | b'\\' | 0);
    let length = run(&bytes[..limit], start, |byte| !ends(byte));
    let place = &bytes[start..start + length];
    let authority = run(place, 0, |byte| !matches!(byte, b'/' | b'?' | b'#'));
    let at_sign = |part: &[u8]| part.iter().rposition(|byte| *byte == b'@');
    let end = at_sign(&place[..authority]).or_else(|| {
        // A password may have a slash in it that should have been escaped; a port has digits alone.
        let colon = place[..authority].iter().position(|byte| *byte == b':')?;
        let port = place[colon + 1..authority].iter().all(u8::is_ascii_digit);
        if port { None } else { at_sign(place) }
    })?;
    let secret = start..start + end;
    let user_info = std::str::from_utf8(&bytes[secret.clone()]).ok()?;
    let is_secret = match user_info.split_once(':') {
        Some((_, password)) => !password.is_empty() && !is_placeholder(password),
        None => user_info.len() >= 16 && is_random(user_info),
    };
    (is_secret && user_info != MARK).then_some(secret)
}

/// A private key in PEM, up to its end or that of the text.
pub(super) fn private_key(text: &str, word: &str, at: usize) -> Option<Range<usize>> {
    const BEGIN: &str = "-----BEGIN";
    let start = at + word.strip_suffix(BEGIN)?.len();
    let head = text.as_bytes()[start + BEGIN.len()..].iter().take(80).take_while(|byte| **byte != b'-');
    let head = head.copied().collect::<Vec<_>>();
    if !head.ends_with(b"PRIVATE KEY") && !head.ends_with(b"PRIVATE KEY BLOCK") {
        return None;
    }
    let end = text[start..].find("-----END ").map(|end| start + end + 9);
    let end = end.and_then(|end| text[end..].find("-----").map(|more| end + more + 5));
    Some(start..end.unwrap_or(text.len()))
}

/// A token recognized by its prefix, one of JSON with its signature, or one of a bot.
pub(super) fn token(text: &str, word: &str, at: usize) -> Option<Range<usize>> {
    if word.len() < 11 {
        return None;
    }
    let fits = |(prefix, tail): &(&str, Tail)| {
        let Some(rest) = word.strip_prefix(prefix) else { return false };
        match *tail {
            Tail::Any(least) => rest.len() >= least,
            Tail::Hex(least) => run(rest.as_bytes(), 0, |byte| byte.is_ascii_hexdigit()) >= least,
            Tail::Mixed(least) => rest.len() >= least && has_mixed_part(rest),
        }
    };
    let jwt = word.starts_with("eyJ") && word.len() >= 20 && word.matches('.').count() >= 2;
    let known = jwt || is_discord(word) || is_airtable(word) || TOKENS.iter().any(fits);
    let end = at + word.len();
    let more = run(text.as_bytes(), end, |byte| is_word(byte) || matches!(byte, b'%' | b'+' | b'/' | b'='));
    // A full stop ends the sentence, not the token.
    known.then(|| at..at + text[at..end + more].trim_end_matches('.').len())
}

/// Digits among letters within one part, or letters of both cases in no order.
fn has_mixed_part(rest: &str) -> bool {
    rest.split(['-', '_', '.']).any(|part| part.len() >= 8 && is_random(part))
}

/// The id of a bot in base64, a time, and a signature.
fn is_discord(word: &str) -> bool {
    let mut parts = word.split('.').map(str::len);
    let lengths = [parts.next(), parts.next(), parts.next(), parts.next()];
    matches!(lengths, [Some(23..=28), Some(6 | 7), Some(27..=38), None])
        && word.starts_with(['M', 'N', 'O'])
        && word.bytes().any(|byte| byte.is_ascii_digit())
}

fn is_airtable(word: &str) -> bool {
    let parts = word.strip_prefix("pat").and_then(|rest| rest.split_once('.'));
    parts.is_some_and(|(id, secret)| {
        id.len() == 14 && secret.len() >= 60 && secret.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

/// `123456789:AA...` of Telegram.
pub(super) fn bot_token(bytes: &[u8], word: &str, at: usize) -> Option<Range<usize>> {
    let digits = word.strip_prefix("bot").unwrap_or(word);
    let end = at + word.len();
    let fits = matches!(digits.len(), 8..=10)
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && bytes.get(end) == Some(&b':');
    let length = if fits { run(bytes, end + 1, is_word) } else { 0 };
    (matches!(length, 33..=37) && bytes[end + 1].is_ascii_uppercase()).then(|| end - digits.len()..end + 1 + length)
}

/// The path of a webhook's address.
pub(super) fn webhook(text: &str, word: &str, at: usize) -> Option<Range<usize>> {
    if text.as_bytes()[at..].get(word.len()).is_none_or(|byte| *byte != b'/') || !word.contains('.') {
        return None;
    }
    let address = &text[at..];
    let known = WEBHOOKS.iter().find(|known| address.starts_with(**known)).map(|known| known.len());
    let known = known
        .or_else(|| WEBHOOK_HOSTS.iter().any(|host| format!("{word}/").ends_with(host)).then_some(word.len() + 1))?;
    let start = at + known;
    let length = run(text.as_bytes(), start, |byte| {
        is_word(byte) || matches!(byte, b'/' | b':' | b'@' | b'%' | b'=' | b'?' | b'&')
    });
    let path = &text[start..start + length];
    (length >= 8 && path.bytes().any(|byte| byte.is_ascii_digit())).then_some(start..start + length)
}

/// The hash of a password.
pub(super) fn crypt_hash(text: &str, at: usize) -> Option<Range<usize>> {
    let rest = &text[at..];
    CRYPT.iter().find(|begins| rest.starts_with(**begins))?;
    let length = run(rest.as_bytes(), 0, |byte| is_word(byte) || matches!(byte, b'$' | b'/' | b'+' | b'=' | b','));
    (length >= 24).then_some(at..at + length)
}

/// A secret access key: exactly forty characters of base64, well mixed.
pub(super) fn aws_secret(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    const LENGTH: usize = 40;
    let part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'+');
    if at > 0 && matches!(bytes[at - 1], b'/' | b'+') {
        return None;
    }
    let limit = bytes.len().min(at + LENGTH + 1);
    if run(&bytes[..limit], at, part) != LENGTH || bytes.get(at + LENGTH).is_some_and(|b| is_word(*b) && *b != b'.') {
        return None;
    }
    let key = &bytes[at..at + LENGTH];
    let count = |such: fn(&u8) -> bool| key.iter().filter(|byte| such(byte)).count();
    let mixed =
        count(u8::is_ascii_digit) >= 2 && count(u8::is_ascii_uppercase) >= 5 && count(u8::is_ascii_lowercase) >= 5;
    // Paths have words in them.
    let words = key.split(|byte| !byte.is_ascii_lowercase()).any(|run| run.len() > 7);
    (mixed && !words).then_some(at..at + LENGTH)
}

/// `host:port:database:user:password`, alone in its line.
pub(super) fn pgpass(text: &str, at: usize, line: usize) -> Option<Range<usize>> {
    const LONGEST: usize = 300;
    let before = text.get(line..at)?;
    if !matches!(before, "" | "+" | "-" | "*:") && !before.trim_start().is_empty() {
        return None;
    }
    let bytes = text.as_bytes();
    let limit = bytes.len().min(at + LONGEST);
    let length = run(&bytes[..limit], at, |byte| !byte.is_ascii_whitespace() && byte != b'"');
    let mut fields = text.get(at..at + length)?.splitn(5, ':');
    let (host, port, database, user, password) =
        (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let is_port = port == "*" || (matches!(port.len(), 4 | 5) && port.bytes().all(|byte| byte.is_ascii_digit()));
    let is_name = |name: &str| name == "*" || (!name.is_empty() && name.bytes().all(is_word));
    let fits = is_port
        && is_name(host)
        && is_name(database)
        && is_name(user)
        && password.len() >= 3
        && !is_placeholder(password);
    fits.then(|| at + length - password.len()..at + length)
}

/// `IDENTIFIED BY '...'` of SQL.
pub(super) fn identified_by(text: &str, word: &str, at: usize) -> Option<Range<usize>> {
    if !word.eq_ignore_ascii_case("by") || !text.get(at.checked_sub(11)?..at)?.eq_ignore_ascii_case("identified ") {
        return None;
    }
    let bytes = text.as_bytes();
    let mark = at + word.len() + run(bytes, at + word.len(), is_blank);
    let quote = *bytes.get(mark).filter(|byte| matches!(byte, b'\'' | b'"'))?;
    let length = run(bytes, mark + 1, |byte| byte != quote && byte != b'\n');
    (!is_placeholder(&text[mark + 1..mark + 1 + length])).then_some(mark + 1..mark + 1 + length)
}

/// `Bearer` or `Basic` and what follows.
pub(super) fn scheme(text: &str, word: &str, at: usize) -> Option<Range<usize>> {
    let basic = word.eq_ignore_ascii_case("basic");
    if !basic && !word.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let bytes = text.as_bytes();
    let blanks = run(bytes, at + word.len(), is_blank);
    let start = at + word.len() + blanks;
    let length = run(bytes, start, |byte| is_word(byte) || matches!(byte, b'~' | b'+' | b'/' | b'='));
    let secret = text.get(start..start + length)?;
    let is_secret = if basic {
        is_user_and_password(secret)
    } else {
        // Prose has bearer tokens, too.
        (length >= 16 && !secret.bytes().all(|b| b.is_ascii_lowercase() || b == b'-' || b == b'_'))
            || (length >= 6 && is_random(secret))
    };
    (is_secret && blanks > 0).then_some(start..start + length)
}

/// Whether a header's value is a scheme followed by credentials.
pub(super) fn is_credentials(line: &str) -> bool {
    const SCHEMES: [&str; 12] = [
        "basic",
        "bearer",
        "token",
        "digest",
        "negotiate",
        "ntlm",
        "apikey",
        "api-key",
        "aws4-hmac-sha256",
        "hawk",
        "sso-key",
        "genie-key",
    ];
    let Some((scheme, rest)) = line.trim().split_once(' ') else { return false };
    let known = SCHEMES.contains(&scheme.to_ascii_lowercase().as_str());
    let secret = rest.trim_start_matches("token=").trim_matches(['"', '\'']);
    let first = secret.split([' ', ',']).next().unwrap_or_default();
    known && !is_placeholder(first) && (is_random(first) || is_user_and_password(first) || first.contains('='))
}

/// Base64 of `user:password`.
fn is_user_and_password(base64: &str) -> bool {
    let plain = base64.trim_end_matches('=');
    if plain.len() < 8 {
        return false;
    }
    let mut decoded = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in plain.bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return false,
        };
        (bits, count) = (bits << 6 | u32::from(digit), count + 6);
        if count >= 8 {
            count -= 8;
            decoded.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    decoded.contains(&b':') && decoded.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

/// The value in the words after a noun: "password is X", "password for the database is X", "password X".
pub(super) fn named_in_words(kind: Name, rest: &str) -> Option<Range<usize>> {
    if !rest.starts_with([' ', '\t', '\'', '"']) {
        return None;
    }
    let line = rest.lines().next()?;
    let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty()).take(8).enumerate();
    let place = |word: &str| word.as_ptr() as usize - rest.as_ptr() as usize;
    let (_, first) = words.next()?;
    let link = |word: &str| {
        matches!(
            word.trim_end_matches(':'),
            "is" | "was" | "are" | "to" | "as" | "becomes" | "will" | "=" | "->" | "=>"
        )
    };
    let (mut word, mut linked) = (first, None);
    // "password for the database is X", "the key you asked for: X"
    let joins = |word: &str| {
        matches!(
            word,
            "for" | "of" | "on" | "at" | "in" | "there" | "here" | "you" | "we" | "i" | "I" | "that" | "from"
        )
    };
    for (index, next) in words {
        let filler =
            |word: &str| matches!(word, "be" | "now" | "set" | "to" | "currently" | "is" | "still" | "is:" | "just");
        if let Some((link, _)) = linked {
            linked = Some((link, next));
        } else if link(word) || (index > 1 && word.ends_with(':')) {
            linked = Some((word, next));
        } else if index > 6 || (index == 1 && !joins(first)) {
            break;
        }
        if linked.is_some_and(|(_, value)| !filler(value)) {
            break;
        }
        word = next;
    }
    let (value, form) = match linked {
        Some((link, value)) => (value, link.trim_end_matches(':')),
        None => (first, ""),
    };
    let begin = place(value);
    let inner = value.trim_start_matches(['"', '\'', '`', '(']);
    let start = begin + (value.len() - inner.len());
    let quoted = value.starts_with(['"', '\'', '`']);
    let inner = inner.trim_end_matches(['"', '\'', '`', ')', ',', ';', '.', '!', '?']);
    let range = start..start + inner.len();
    let last =
        line[range.end.min(line.len())..].trim_matches(['"', '\'', '`', '.', ',', ';', '!', ')', ' ']).is_empty();
    is_said(kind, inner, form, quoted, last).then_some(range)
}

fn is_said(kind: Name, value: &str, link: &str, quoted: bool, last: bool) -> bool {
    let lower = value.to_ascii_lowercase();
    let says_nothing = [CONSTANTS, TYPES, ADJECTIVES].iter().any(|words| words.contains(&lower.as_str()));
    let algorithm = ["sha", "md5", "bcrypt", "argon", "utf", "base64", "oauth", "http", "aes", "rsa"]
        .iter()
        .any(|a| lower.starts_with(a));
    let is_code = value.contains(['(', '[', '{', '/', '<'])
        || value.contains("::")
        || value.contains(".rs")
        || value.contains(".py");
    if value.len() < 3
        || says_nothing
        || algorithm
        || is_placeholder(value)
        || value.starts_with('-')
        || is_cmdlet(value)
    {
        return false;
    }
    let random = is_random(value) && (!is_code || value.len() >= 8 && !value.contains(['(', '/', '<']));
    let word = value.bytes().all(|byte| byte.is_ascii_alphabetic());
    let inflected =
        ["ed", "ing", "able", "ible", "ly", "ive", "ous", "ful", "al", "less"].iter().any(|end| lower.ends_with(end));
    match (kind, link) {
        (Name::Header, _) => false,
        (Name::Token, "") => value.len() >= 16 && random,
        (Name::Token, _) => random && value.len() >= 10,
        (_, "") => random && !value.contains(['=', ':']) && !lower.ends_with("-bit"),
        (_, "is" | "was") => random || (!is_code && (quoted || (word && last && !inflected)) && value.len() >= 4),
        _ => random || (quoted && !is_code && value.len() >= 4),
    }
}
