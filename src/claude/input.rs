//! Reads a few fields of a JSON object of any size.
//!
//! The input is written by other programs: it may be truncated, nested deeply, or hold broken text. Fields before a fault
//! are used, and broken text is repaired.

use std::fmt;
use std::io::{self, Read};

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::domain::text::repaired_json;

/// The part of the input that is parsed, in bytes; a user's prompt may have some megabytes. It is read into memory first:
/// skipping fields is ten times as fast there as in a stream.
const MAX_BYTES: u64 = 16 << 20;

/// The wanted fields that were found, and what was wrong with the input.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Input {
    fields: Map<String, Value>,
    /// Why the input is not a JSON object; the fields before the fault are kept.
    pub complaint: Option<String>,
}

impl Input {
    /// Reads to the end, so that the writer does not get a broken pipe, and keeps only the `wanted` fields.
    pub fn read(mut reader: impl Read, wanted: &[&str]) -> Self {
        let mut bytes = Vec::new();
        let read =
            (&mut reader).take(MAX_BYTES).read_to_end(&mut bytes).and_then(|_| io::copy(&mut reader, &mut io::sink()));
        let (mut fields, mut error) = fields_in(&bytes, wanted);
        // Agents cut text in the middle of an emoji: the rest of such text is kept.
        if error.as_ref().is_some_and(serde_json::Error::is_syntax)
            && let Some(bytes) = repaired_json(&bytes)
        {
            (fields, error) = fields_in(&bytes, wanted);
        }
        let complaint = error.map(|error| format!("stdin is not a JSON object: {error}"));
        let complaint = read.err().map(|error| format!("stdin cannot be read: {error}")).or(complaint);
        Self { fields, complaint }
    }

    /// The input of an agent whose fields were brought under other names.
    pub const fn of_fields(fields: Map<String, Value>) -> Self {
        Self { fields, complaint: None }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.as_str().filter(|text| !text.is_empty())
    }

    /// The value at a path of names.
    pub fn at(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.fields.get(*first)?, |value, name| value.get(name))
    }
}

/// The wanted fields of the object in `bytes`, and what is wrong with it.
fn fields_in(bytes: &[u8], wanted: &[&str]) -> (Map<String, Value>, Option<serde_json::Error>) {
    let mut fields = Map::new();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    // Once all are found, the rest is not parsed.
    let error = FieldReader { wanted, fields: &mut fields }.deserialize(&mut json).err();
    let error = error.filter(|_| fields.len() < wanted.len());
    (fields, error)
}

struct FieldReader<'a> {
    wanted: &'a [&'a str],
    fields: &'a mut Map<String, Value>,
}

impl<'de> DeserializeSeed<'de> for FieldReader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldReader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if !self.wanted.contains(&name.as_str()) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = map.next_value()?;
            self.fields.insert(name, value);
            if self.fields.len() == self.wanted.len() {
                return Err(A::Error::custom("enough"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: &[&str] = &["session_id", "cwd"];

    fn read(text: &str) -> Input {
        Input::read(text.as_bytes(), WANTED)
    }

    #[test]
    fn wanted_fields_are_found_among_others() {
        let input = read(r#"{"a": [1, {"cwd": "no"}], "cwd": "/w", "x": null, "session_id": "s", "prompt": 7}"#);
        assert_eq!((input.text("session_id"), input.text("cwd"), &input.complaint), (Some("s"), Some("/w"), &None));
    }

    #[test]
    fn fields_before_a_fault_are_kept() {
        for text in [r#"{"cwd": "/w", "session_id"#, r#"{"cwd": "/w", "session_id": "s"#, r#"{"cwd": "/w", }"#] {
            let input = read(text);
            assert_eq!(input.text("cwd"), Some("/w"), "{text}");
            assert!(input.complaint.is_some(), "{text}");
        }
        for text in ["", "null", "[]", "7", "{", "\u{0}", "{\"session_id\": {}}"] {
            assert_eq!(read(text).text("session_id"), None, "{text}");
        }
        let deep = format!("{{\"cwd\": \"/w\", \"x\": {}", "[".repeat(100_000));
        assert_eq!(read(&deep).text("cwd"), Some("/w"));
    }

    #[test]
    fn half_an_emoji_is_replaced() {
        for (written, read_as) in [
            (r"half \ud83d", "half \u{fffd}"),
            (r"\ude00 half", "\u{fffd} half"),
            (r"\ud83d\ud83d\ude00", "\u{fffd}\u{1f600}"),
            (r"\uD83D\n", "\u{fffd}\n"),
            (r"\\ud83d \ud83dx", "\\ud83d \u{fffd}x"),
            (r"whole \ud83d\ude00", "whole \u{1f600}"),
        ] {
            let input = read(&format!(r#"{{"session_id": "{written}", "cwd": "/w"}}"#));
            assert_eq!((input.text("session_id"), input.text("cwd")), (Some(read_as), Some("/w")), "{written}");
            assert_eq!(input.complaint, None, "{written}");
        }
        let bytes = b"\xef\xbb\xbf{\"session_id\": \"a\xff\xfeb\", \"cwd\": \"/w\"}".as_slice();
        let input = Input::read(bytes, WANTED);
        assert_eq!((input.text("session_id"), input.text("cwd")), (Some("a\u{fffd}\u{fffd}b"), Some("/w")));
    }

    #[test]
    fn input_is_read_to_the_end() {
        let text = format!(r#"{{"session_id": "s", "cwd": "/w", "prompt": "{}"}}"#, "p".repeat(5 << 20));
        let mut reader = text.as_bytes();
        assert_eq!(Input::read(&mut reader, WANTED).complaint, None);
        assert!(reader.is_empty());
    }
}
