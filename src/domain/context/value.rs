//! Reads JSON without a fixed schema: clients name fields differently.

use serde_json::{Map, Value};

use crate::domain::text::inline;

/// The longest text taken from a record, in bytes.
const MAX_TEXT: usize = 240;
/// The fields of an object that may contain its text.
const TEXT_FIELDS: [&str; 8] = ["title", "message", "text", "summary", "description", "name", "id", "content"];
/// How many levels of objects are searched.
const MAX_DEPTH: usize = 3;

/// The first of these fields that has text. Names may be in snake or in camel case.
pub(super) fn text(fields: &Map<String, Value>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| as_text(field(fields, name)?))
}

/// The text of a value, if it has any.
pub(super) fn as_text(value: &Value) -> Option<String> {
    let text = inline(&raw(value, MAX_DEPTH)?, MAX_TEXT);
    (!text.is_empty()).then_some(text)
}

fn raw(value: &Value, depth: usize) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Object(fields) if depth > 0 => TEXT_FIELDS.iter().find_map(|name| raw(field(fields, name)?, depth - 1)),
        _ => None,
    }
}

/// The texts of a list; a single text is a list of one.
pub(super) fn list(fields: &Map<String, Value>, names: &[&str], most: usize) -> Vec<String> {
    match names.iter().find_map(|name| field(fields, name)) {
        Some(Value::Array(items)) => items.iter().filter_map(as_text).take(most).collect(),
        Some(value) => as_text(value).into_iter().collect(),
        None => Vec::new(),
    }
}

/// The field of this name, in snake case or in camel case; none if it is null.
pub(super) fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.get(name).or_else(|| fields.get(&camel(name))).filter(|value| !value.is_null())
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let mut letters = word.chars();
        name + &letters.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn finds_text_under_every_name_and_in_objects() {
        for (value, found) in [
            (json!({"current_epic": "003"}), Some("003")),
            (json!({"currentEpic": "003"}), Some("003")),
            (json!({"current_epic": null, "epic": 3}), Some("3")),
            (json!({"epic": {"id": "003", "title": "Login"}}), Some("Login")),
            (json!({"epic": {"meta": {"id": "003"}}}), None),
            (json!({"epic": ""}), None),
            (json!({"epic": ["a"]}), None),
            (json!({"epic": "a\nb"}), Some("a b")),
        ] {
            assert_eq!(text(&map(value.clone()), &["current_epic", "epic"]).as_deref(), found, "{value}");
        }
    }

    #[test]
    fn lists_are_bounded_and_single_texts_are_lists() {
        let steps = map(json!({"nextSteps": ["a", {"title": "b"}, 7, [], "c", "d"]}));
        assert_eq!(list(&steps, &["next_steps"], 4), ["a", "b", "7", "c"]);
        assert_eq!(list(&map(json!({"todo": "a"})), &["next_steps", "todo"], 4), ["a"]);
        assert_eq!(list(&map(json!({})), &["todo"], 4), [""; 0]);
    }
}
