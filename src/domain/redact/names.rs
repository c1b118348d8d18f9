//! Determines whether a name is that of a secret.

use super::rules::{ABOUT, COUNTED, FUSED, KEYS, LAST, WITHIN, WORDS};

/// The kind of secret that a name denotes, which decides what may be its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// A password: a word of the language may be one.
    Password,
    /// A password, or a step that passed.
    Pass,
    /// A token or a key: a number or a word is none.
    Token,
    /// A header of HTTP, or a word of prose.
    Header,
}

/// The longest part of a name that is checked, in bytes from its end.
const LONGEST: usize = 64;

/// The kind of secret that the name denotes, if any. `DB_PASS`, `apiKey` and `client-key-data` are names of secrets, `max_token`
/// and `password_file` are not.
pub(super) fn kind_of(name: &str) -> Option<Name> {
    let words = words(name);
    let last = words.last()?.as_str();
    let before = words.len().checked_sub(2).and_then(|index| words.get(index)).map_or("", String::as_str);
    let whole = words.concat();
    if whole.ends_with("accesskeyid") {
        return Some(Name::Token);
    }
    if ABOUT.contains(&last) {
        return None;
    }
    if whole.ends_with("authorization") || whole.ends_with("cookie") || matches!(whole.as_str(), "auth" | "bearer") {
        return Some(Name::Header);
    }
    if words.iter().any(|word| WORDS.contains(&word.as_str())) {
        return (!whole.ends_with("less")).then_some(Name::Password);
    }
    if LAST.contains(&last) {
        return match last {
            _ if COUNTED.contains(&before) => None,
            "token" | "pat" | "jwt" | "apikey" => Some(Name::Token),
            _ if before.is_empty() && last != "pwd" => Some(Name::Pass),
            _ => Some(Name::Password),
        };
    }
    let is_variable = name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    if last == "auth" && !before.is_empty() && is_variable {
        return Some(Name::Token);
    }
    if (last == "key" && KEYS.contains(&before)) || (last == "auth" && before.is_empty() && name.starts_with('_')) {
        return Some(Name::Token);
    }
    if let Some(fused) = FUSED.iter().find(|fused| whole.ends_with(**fused)) {
        return Some(if fused.contains("key") || fused.starts_with("conn") { Name::Token } else { Name::Password });
    }
    let about = |word: &&str| word.len() >= 4 && whole.ends_with(*word);
    let within = WITHIN.iter().any(|part| whole.contains(part)) && !whole.ends_with("less");
    (within && !ABOUT.iter().any(about)).then_some(Name::Password)
}

/// The words of a name, in lower case: `apiKey`, `API_KEY` and `api-key` are `api` and `key`.
fn words(name: &str) -> Vec<String> {
    let start = name.len().saturating_sub(LONGEST);
    let mut words: Vec<String> = Vec::new();
    let mut before = b' ';
    for byte in name.bytes().skip(start) {
        let begins = !before.is_ascii_alphabetic() || (before.is_ascii_lowercase() && byte.is_ascii_uppercase());
        if byte.is_ascii_alphabetic() {
            match words.last_mut() {
                Some(word) if !begins => word.push(char::from(byte.to_ascii_lowercase())),
                _ => words.push(char::from(byte.to_ascii_lowercase()).to_string()),
            }
        }
        before = byte;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinguishes_names_of_secrets_from_names_about_them() {
        for (name, kind) in [
            ("DB_PASS", Some(Name::Password)),
            ("dbPwd", Some(Name::Password)),
            ("DB_PWD", Some(Name::Password)),
            ("pw", Some(Name::Pass)),
            ("pass", Some(Name::Pass)),
            ("APP_KEY", Some(Name::Token)),
            ("apiKey", Some(Name::Token)),
            ("client-key-data", Some(Name::Token)),
            ("AWS_SECRET_ACCESS_KEY", Some(Name::Password)),
            ("mysql_root_password", Some(Name::Password)),
            ("session.token", Some(Name::Token)),
            ("Authorization", Some(Name::Header)),
            ("set-cookie", Some(Name::Header)),
            ("max_token", None),
            ("max_tokens", None),
            ("password_file", None),
            ("tokenType", None),
            ("passwordless", None),
            ("bypass", None),
            ("render_pass", None),
            ("public_key", None),
            ("primaryKey", None),
            ("client-certificate-data", None),
            ("", None),
        ] {
            assert_eq!(kind_of(name), kind, "{name}");
        }
    }
}
