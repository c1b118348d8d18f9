//! Blanking secrets before anything is stored: passwords, keys, tokens, connection strings.
//!
//! Text is read once from left to right, word by word; at each word a few rules look whether a secret
//! begins there. Rather too much is blanked than too little. What central's JSON cannot hold, NUL, goes too.

use std::ops::Range;

use serde_json::{Map, Value};

/// What stands in a secret's place.
pub const MARK: &str = "[redacted]";

/// Blanks the secrets in the values of an object, at any depth; and any value whose name says that it is one.
pub fn object(fields: &mut Map<String, Value>) {
    for (name, value) in std::mem::take(fields) {
        let directory = compressed(&name) == "pwd" && value.as_str().is_some_and(|path| path.starts_with('/'));
        let value = if is_secret_name(&name) && !directory { blanked(value) } else { redacted(value) };
        fields.insert(text(&name).unwrap_or(name), value);
    }
}

fn redacted(mut value: Value) -> Value {
    match &mut value {
        Value::String(string) => {
            if let Some(redacted) = text(string) {
                *string = redacted;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = redacted(item.take())),
        Value::Object(fields) => object(fields),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    value
}

/// A secret's own value: all that is in it but the shape.
fn blanked(value: Value) -> Value {
    match value {
        Value::String(empty) if empty.is_empty() => Value::String(empty),
        Value::String(_) | Value::Number(_) => Value::String(MARK.into()),
        Value::Array(items) => items.into_iter().map(blanked).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, blanked(value))).collect(),
        Value::Null | Value::Bool(_) => value,
    }
}

/// The text without its secrets; none if there are none in it.
pub fn text(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut kept = String::new();
    let mut copied = 0;
    let mut at = 0;
    while at < bytes.len() {
        if let Some(secret) = secret_at(text, at) {
            kept.push_str(&text[copied..secret.start]);
            kept.push_str(if bytes[secret.start] == 0 { "\u{fffd}" } else { MARK });
            copied = secret.end;
            at = secret.end;
        } else if is_word(bytes[at]) {
            at += run(bytes, at, is_word);
        } else {
            at += 1;
        }
    }
    if copied == 0 && kept.is_empty() {
        return None;
    }
    kept.push_str(&text[copied..]);
    Some(kept)
}

/// The secret that is to be found by what stands at `at`, which begins a word or is no part of one.
/// Every rule reads no further than the secret it finds, or the word, or a bounded stretch.
fn secret_at(text: &str, at: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    match bytes[at] {
        0 => Some(at..at + 1),
        b':' if text[at..].starts_with("://") => user_info(bytes, at + 3),
        byte if is_word(byte) => {
            let word = &text[at..at + run(bytes, at, is_word)];
            token(word, at)
                .or_else(|| private_key(text, word, at))
                .or_else(|| aws_secret(bytes, at))
                .or_else(|| named(bytes, word, at))
                .or_else(|| bearer(bytes, word, at))
        }
        _ => None,
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// How many bytes from `at` on are such.
fn run(bytes: &[u8], at: usize, such: impl Fn(u8) -> bool) -> usize {
    bytes[at..].iter().take_while(|byte| such(**byte)).count()
}

/// `user:password@` of a URL or a connection string.
fn user_info(bytes: &[u8], start: usize) -> Option<Range<usize>> {
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
    let (secret, mark) = (start..start + end, MARK.as_bytes());
    (!secret.is_empty() && &bytes[secret.clone()] != mark).then_some(secret)
}

/// A private key in PEM, up to its end or that of the text.
fn private_key(text: &str, word: &str, at: usize) -> Option<Range<usize>> {
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

/// What the tokens of well-known services begin with, and how much must follow.
const PREFIXES: [(&str, usize); 41] = [
    ("sk-", 16),
    ("sk_live_", 8),
    ("sk_test_", 8),
    ("rk_live_", 8),
    ("rk_test_", 8),
    ("whsec_", 16),
    ("ghp_", 16),
    ("gho_", 16),
    ("ghu_", 16),
    ("ghs_", 16),
    ("ghr_", 16),
    ("github_pat_", 16),
    ("glpat-", 12),
    ("gldt-", 12),
    ("glrt-", 12),
    ("xoxb-", 8),
    ("xoxp-", 8),
    ("xoxa-", 8),
    ("xoxr-", 8),
    ("xoxs-", 8),
    ("xapp-", 8),
    ("AKIA", 16),
    ("ASIA", 16),
    ("AIza", 30),
    ("ya29.", 16),
    ("GOCSPX-", 16),
    ("npm_", 16),
    ("pypi-", 16),
    ("hf_", 16),
    ("dop_v1_", 16),
    ("SG.", 16),
    ("shpat_", 16),
    ("lin_api_", 16),
    ("tskey-", 12),
    ("gsk_", 16),
    ("xai-", 16),
    ("hvs.", 16),
    ("dapi", 32),
    ("AGE-SECRET-KEY-", 16),
    ("PMAK-", 16),
    ("sntrys_", 16),
];

/// A token known by how it begins, or one of JSON with its signature.
fn token(word: &str, at: usize) -> Option<Range<usize>> {
    let starts = |(prefix, more): &(&str, usize)| word.starts_with(prefix) && word.len() >= prefix.len() + more;
    let jwt = word.starts_with("eyJ") && word.len() >= 20 && word.matches('.').count() >= 2;
    let known = jwt || PREFIXES.iter().any(starts);
    // A full stop ends the sentence, not the token.
    known.then(|| at..at + word.trim_end_matches('.').len())
}

/// A secret access key: exactly forty characters of base64, well mixed.
fn aws_secret(bytes: &[u8], at: usize) -> Option<Range<usize>> {
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
    mixed.then_some(at..at + LENGTH)
}

/// `password=...`, `"api_key": "..."`, `--token ...`, `Authorization: Bearer ...`: the value behind a name
/// that says it is a secret.
fn named(bytes: &[u8], word: &str, at: usize) -> Option<Range<usize>> {
    if !is_secret_name(word) {
        return None;
    }
    let flag = word.starts_with('-');
    let mut start = skip_quote(bytes, at + word.len());
    let blanks = run(bytes, start, is_blank);
    let separator = run(bytes, start + blanks, |byte| matches!(byte, b'=' | b':'));
    start += blanks + separator.min(2);
    if separator == 0 && !(flag && blanks > 0) {
        return None;
    }
    // `=>`
    start += usize::from(separator > 0 && bytes.get(start) == Some(&b'>'));
    start += run(bytes, start, is_blank);
    let value = value_at(bytes, start, is_whole_line(word));
    let harmless = |value: &[u8]| matches!(value, b"" | b"true" | b"false" | b"null" | b"None" | b"undefined");
    let again = bytes[value.start..].starts_with(MARK.as_bytes());
    let directory = compressed(word) == "pwd" && bytes[value.clone()].starts_with(b"/");
    let next_flag = separator == 0 && bytes[value.clone()].starts_with(b"-");
    (!harmless(&bytes[value.clone()]) && !again && !directory && !next_flag).then_some(value)
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Behind a quotation mark, which may be escaped any number of times, as JSON within JSON is.
fn skip_quote(bytes: &[u8], at: usize) -> usize {
    let escapes = run(bytes, at, |byte| byte == b'\\');
    match bytes.get(at + escapes) {
        Some(b'"' | b'\'' | b'`') => at + escapes + 1,
        _ => at,
    }
}

/// A value: what is between quotation marks, or else a word or a line.
fn value_at(bytes: &[u8], at: usize, whole_line: bool) -> Range<usize> {
    let start = skip_quote(bytes, at);
    if start > at {
        let (quote, escaped) = (bytes[start - 1], start > at + 1);
        if let Some(end) = closing(bytes, start, quote, escaped) {
            return start..end;
        }
    }
    let ends = |byte: u8| match whole_line {
        true => matches!(byte, b'\n' | b'\r' | b'"' | b'\'' | b'\\'),
        false => {
            byte.is_ascii_whitespace()
                || matches!(
                    byte,
                    b',' | b';' | b'&' | b')' | b'}' | b']' | b'"' | b'\'' | b'`' | b'<' | b'>' | b'|' | b'\\' | 0
                )
        }
    };
    start..start + run(bytes, start, |byte| !ends(byte))
}

/// Where the quotation ends, before any escapes of the closing mark.
fn closing(bytes: &[u8], start: usize, quote: u8, escaped: bool) -> Option<usize> {
    let mut at = start;
    while at < bytes.len() {
        let escapes = run(bytes, at, |byte| byte == b'\\');
        if bytes.get(at + escapes) == Some(&quote) && (escaped || escapes.is_multiple_of(2)) {
            // Of a mark that is not escaped, backslashes before it belong to what is quoted.
            return Some(if escaped { at } else { at + escapes });
        }
        at += escapes.max(1) + usize::from(escapes > 0);
    }
    None
}

/// `Bearer` and what follows.
fn bearer(bytes: &[u8], word: &str, at: usize) -> Option<Range<usize>> {
    if !word.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let start = at + word.len() + run(bytes, at + word.len(), is_blank);
    let length = run(bytes, start, |byte| is_word(byte) || matches!(byte, b'~' | b'+' | b'/' | b'='));
    let secret = &bytes[start..start + length];
    // Prose speaks of bearer tokens, too.
    let token = length >= 16 || (length >= 6 && secret.iter().any(|byte| !byte.is_ascii_lowercase()));
    token.then_some(start..start + length)
}

/// A name as letters and digits alone, in lower case; of a very long one the end.
fn compressed(name: &str) -> String {
    const LONGEST: usize = 64;
    let mut end = name.bytes().rev().filter(u8::is_ascii_alphanumeric).take(LONGEST).collect::<Vec<_>>();
    end.reverse();
    end.into_iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect()
}

/// Does a field of this name hold a secret? `db_password`, `apiKey`, `AWS_SECRET_ACCESS_KEY` do; counts of
/// `tokens` do not.
pub fn is_secret_name(name: &str) -> bool {
    const WITHIN: [&str; 6] = ["password", "passwd", "passphrase", "secret", "credential", "apikey"];
    const AT_THE_END: [&str; 15] = [
        "token",
        "accesskey",
        "accesskeyid",
        "privatekey",
        "signingkey",
        "encryptionkey",
        "accountkey",
        "sessionkey",
        "masterkey",
        "servicekey",
        "authkey",
        "authorization",
        "connectionstring",
        "connstr",
        "cookie",
    ];
    const WHOLE: [&str; 8] = ["pwd", "passcode", "auth", "bearer", "jwt", "dsn", "pat", "sshkey"];
    let name = compressed(name);
    WITHIN.iter().any(|part| name.contains(part))
        || AT_THE_END.iter().any(|end| name.ends_with(end))
        || WHOLE.contains(&name.as_str())
}

/// Is what such a name stands for more than a word?
fn is_whole_line(name: &str) -> bool {
    let name = compressed(name);
    name.ends_with("authorization") || name.ends_with("cookie")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::time::{Duration, Instant};

    /// Of no shape that any rule knows.
    const SECRET: &str = "Hunter2xyz";

    #[test]
    fn secrets_in_text() {
        for (before, after) in [
            ("postgres://me:Hunter2xyz@db:5432/x?sslmode=require", "postgres://[redacted]@db:5432/x?sslmode=require"),
            ("redis://:Hunter2xyz@cache/0", "redis://[redacted]@cache/0"),
            ("amqp://me:a/Hunter2xyz@mq", "amqp://[redacted]@mq"),
            ("postgres://db/x?user=me&password=Hunter2xyz&a=b", "postgres://db/x?user=me&password=[redacted]&a=b"),
            (
                "Server=db;User Id=me;Password=Hunter2xyz;Pwd=Hunter2xyz;",
                "Server=db;User Id=me;Password=[redacted];Pwd=[redacted];",
            ),
            ("AccountName=a;AccountKey=Hunter2xyz==", "AccountName=a;AccountKey=[redacted]"),
            ("export PGPASSWORD=Hunter2xyz && psql", "export PGPASSWORD=[redacted] && psql"),
            ("mysql --password Hunter2xyz --host db", "mysql --password [redacted] --host db"),
            ("curl --api-key='Hunter2xyz and more'", "curl --api-key='[redacted]'"),
            ("{\"apiKey\": \"Hunter2xyz\", \"n\": 1}", "{\"apiKey\": \"[redacted]\", \"n\": 1}"),
            ("{\\\"secret\\\":\\\"Hunter2xyz\\\",\\\"n\\\":1}", "{\\\"secret\\\":\\\"[redacted]\\\",\\\"n\\\":1}"),
            ("password: \"a\\\"Hunter2xyz\" # why", "password: \"[redacted]\" # why"),
            ("{:password=>\"Hunter2xyz\"}", "{:password=>\"[redacted]\"}"),
            ("-H 'Authorization: Basic SHVudGVyMnh5eg==' -v", "-H 'Authorization: [redacted]' -v"),
            ("Cookie: a=Hunter2xyz; b=Hunter2xyz\nHost: x", "Cookie: [redacted]\nHost: x"),
            ("use Bearer Hunter2xyz.", "use Bearer [redacted]"),
            ("the key is sk-ant-api03-abcdefghijklmnop.", "the key is [redacted]."),
            ("AKIAIOSFODNN7EXAMPLE", "[redacted]"),
            ("(wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKE1)", "([redacted])"),
            ("t=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc_d-e", "t=[redacted]"),
            ("a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nb", "a\n[redacted]\nb"),
            ("x\\n-----BEGIN PRIVATE KEY-----\\nMIIE", "x\\n[redacted]"),
            ("a\0b", "a\u{fffd}b"),
        ] {
            let redacted = text(before);
            assert_eq!(redacted.as_deref(), Some(after), "{before}");
            assert_eq!(text(after), None, "blanked again: {after}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for harmless in [
            "",
            "max_tokens=4096, input_tokens: 17",
            "PWD=/home/me/odin",
            "http://localhost:8080/a@b and https://github.com/o/r#x",
            "a bearer token is needed; the bearer carries it",
            "password = null, token: false, \"secret\": \"\"",
            "356a192b7913b04c54574d18c28d46e6395428ab is a commit",
            "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
            "sk-1, sk-learn, task-based eyJ",
            "Ärger mit dem Passwort: ünïcödé",
        ] {
            assert_eq!(text(harmless), None, "{harmless}");
        }
    }

    #[test]
    fn fields_whose_name_says_secret() {
        let mut fields = json!({
            "db_password": SECRET, "x": {"clientSecret": [SECRET, 7, null, true], "AWS_SECRET_ACCESS_KEY": {"a": SECRET}},
            "list": [{"token": SECRET}, "token=Hunter2xyz"], "tokens": 12, "PWD": "/home", "pin": 4, "password": "",
        });
        object(fields.as_object_mut().unwrap());
        assert_eq!(
            fields,
            json!({
                "db_password": MARK, "x": {"clientSecret": [MARK, MARK, null, true], "AWS_SECRET_ACCESS_KEY": {"a": MARK}},
                "list": [{"token": MARK}, "token=[redacted]"], "tokens": 12, "PWD": "/home", "pin": 4, "password": "",
            })
        );
    }

    /// JSON of any shape, with `leaf` somewhere deep within.
    fn nested(leaf: String) -> impl Strategy<Value = Value> {
        prop::collection::vec((any::<bool>(), "[a-f ]{0,6}"), 0..20).prop_map(move |layers| {
            layers.into_iter().fold(Value::String(leaf.clone()), |inner, (array, name)| match array {
                true => json!([name, inner, 1]),
                false => json!({name: inner}),
            })
        })
    }

    proptest! {
        #[test]
        fn no_secret_survives_at_any_depth(
            (secret, value) in ("[A-Za-z0-9]{24,60}", 0_usize..7, ".{0,20}[ \n(]", "[ \n)\"].{0,20}").prop_flat_map(
                |(secret, how, before, after)| {
                    let leaf = match how {
                        0 => format!("{before}password={secret}{after}"),
                        1 => format!("{before}\"my_api_key\": \"{secret}\"{after}"),
                        2 => format!("{before}postgres://me:{secret}@db/x{after}"),
                        3 => format!("{before}Bearer {secret}{after}"),
                        4 => format!("{before}ghp_{secret}{after}"),
                        5 => format!("{before}eyJ{secret}.{secret}.{secret}{after}"),
                        _ => format!("{before}-----BEGIN EC PRIVATE KEY-----\n{secret}\n-----END EC PRIVATE KEY-----{after}"),
                    };
                    (Just(secret), nested(leaf))
                }
            )
        ) {
            // What stands before could itself open a quotation that ends within; then all of it may be blanked.
            let mut fields = Map::from_iter([("x".to_owned(), value)]);
            object(&mut fields);
            let text = Value::Object(fields.clone()).to_string();
            prop_assert!(!text.contains(&secret), "{text}");
            let once = fields.clone();
            object(&mut fields);
            prop_assert_eq!(once, fields);
        }

        #[test]
        fn any_text_is_read_and_what_is_kept_is_of_it(before in ".{0,200}") {
            let after = text(&before).unwrap_or_else(|| before.clone());
            let mut rest = before.as_str();
            for kept in after.split(MARK).flat_map(|part| part.split('\u{fffd}')) {
                let found = rest.find(kept);
                prop_assert!(found.is_some(), "{kept:?} is not of {before:?}");
                rest = &rest[found.unwrap() + kept.len()..];
            }
        }

        #[test]
        fn text_made_of_the_rules_own_pieces_is_read(
            pieces in prop::collection::vec(
                prop::sample::select(vec!["password", "=", ": ", "\"", "\\", "'", "://", "@", "Bearer ", "-----BEGIN ", "PRIVATE KEY-----",
                    "eyJ", ".", "--token", " ", "ä", "[redacted]", "\n", "AKIA", "a", "\0", "/", "Cookie"]), 0..40)
        ) {
            let before = pieces.concat();
            if let Some(after) = text(&before) {
                prop_assert!(!after.contains('\0'));
            }
        }
    }

    #[test]
    fn long_text_takes_time_in_proportion() {
        for piece in [
            "://",
            "password=\"",
            "a@",
            "://a@",
            "secret:\\\"",
            "-----BEGIN ",
            "-----BEGIN PRIVATE KEY",
            "eyJ.",
            "+/",
            "\\",
            "=",
            "Bearer ",
            "a",
        ] {
            let text_of = |size: usize| piece.repeat(size / piece.len());
            let began = Instant::now();
            text(&text_of(1 << 17));
            // Were it quadratic, it would take hours.
            assert!(began.elapsed() < Duration::from_secs(10), "{piece:?}: {:?}", began.elapsed());
        }
    }
}
