//! Secrets that are found, and text that is kept.

use super::*;
use proptest::prelude::*;
use serde_json::json;
use std::time::{Duration, Instant};

/// Of no shape that any rule knows.
const SECRET: &str = "Hunter2xyz";

#[test]
fn redacts_secrets_in_text() {
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
        ("connect<T>(password=aAAa0AaAA0Aaa00AA0aaA0A0 x", "connect<T>(password=[redacted] x"),
        ("password=Hunter2xyz)x[)=y z", "password=[redacted])x[)=y z"),
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
fn ordinary_text_is_kept() {
    for harmless in [
        "",
        "max_tokens=4096, input_tokens: 17",
        "PWD=/home/me/odin",
        "http://localhost:8080/a@b and https://github.com/o/r#x",
        "a bearer token is needed; the bearer carries it",
        "let password = getUserV2TokenFromCache;",
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
fn redacts_fields_with_names_of_secrets() {
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
            |(secret, form, before, after)| {
                let leaf = match form {
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
    fn keeps_only_parts_of_any_text(before in ".{0,200}") {
        let after = text(&before).unwrap_or_else(|| before.clone());
        let mut rest = before.as_str();
        for kept in after.split(MARK).flat_map(|part| part.split('\u{fffd}')) {
            let found = rest.find(kept);
            prop_assert!(found.is_some(), "{kept:?} is not of {before:?}");
            rest = &rest[found.unwrap() + kept.len()..];
        }
    }

    #[test]
    fn scans_text_made_of_the_rules_own_pieces(
        pieces in prop::collection::vec(
            prop::sample::select(vec!["password", "=", ": ", "\"", "\\", "'", "://", "@", "Bearer ", "-----BEGIN ", "PRIVATE KEY-----",
                "eyJ", ".", "--token", "<<", "<", "EOF", "echo ", "|", "sudo -S ", "mstsc /p:", "send \"", "\\r", "net use ", "set ",
                "ConvertTo-SecureString", "auth=(", "', '", "use ", " as the ", "é", ">", ")", " ", "ä", "[redacted]", "\n", "AKIA", "a", "\0", "/", "Cookie"]), 0..40)
    ) {
        let before = pieces.concat();
        if let Some(after) = text(&before) {
            prop_assert!(!after.contains('\0'));
        }
    }
}

#[test]
fn time_is_linear_in_the_length() {
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
        "a <<EOF ",
        "sudo -S <<<",
        "echo a|sudo ",
        "send \"",
        "\"a\" |",
        "mstsc /p ",
        "net use a ",
        "<password>",
        "| token ",
        "use a as the ",
    ] {
        let text_of = |size: usize| piece.repeat(size / piece.len());
        let began = Instant::now();
        text(&text_of(1 << 17));
        // Quadratic time would be hours.
        assert!(began.elapsed() < Duration::from_secs(100), "{piece:?}: {:?}", began.elapsed());
    }
}
