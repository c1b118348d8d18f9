//! Reading JSON whose shape nobody promised: clients name fields in their own ways.

use serde_json::{Map, Value};

use crate::domain::text::inline;

/// No text taken from a record is longer, in bytes.
const LONGEST: usize = 240;
/// Where the text lies in an object that stands for one.
const NAMES: [&str; 8] = ["title", "message", "text", "summary", "description", "name", "id", "content"];
/// How deep objects are followed.
const DEPTH: usize = 3;

/// The first of these fields that says anything, as text. Names may be in snake or in camel case.
pub fn text(fields: &Map<String, Value>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| said(field(fields, name)?))
}

/// A value as text, if it is some.
pub fn said(value: &Value) -> Option<String> {
    let text = inline(&raw(value, DEPTH)?, LONGEST);
    (!text.is_empty()).then_some(text)
}

fn raw(value: &Value, depth: usize) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Object(fields) if depth > 0 => NAMES.iter().find_map(|name| raw(field(fields, name)?, depth - 1)),
        _ => None,
    }
}

/// The texts of a list; text alone is a list of one.
pub fn list(fields: &Map<String, Value>, names: &[&str], most: usize) -> Vec<String> {
    match names.iter().find_map(|name| field(fields, name)) {
        Some(Value::Array(items)) => items.iter().filter_map(said).take(most).collect(),
        Some(value) => said(value).into_iter().collect(),
        None => Vec::new(),
    }
}

/// The field of this name in snake case, or the same in camel case; null says as little as none.
pub fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
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
    fn text_is_found_under_many_names_and_in_many_shapes() {
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
    fn lists_are_bounded_and_a_text_is_a_list() {
        let steps = map(json!({"nextSteps": ["a", {"title": "b"}, 7, [], "c", "d"]}));
        assert_eq!(list(&steps, &["next_steps"], 4), ["a", "b", "7", "c"]);
        assert_eq!(list(&map(json!({"todo": "a"})), &["next_steps", "todo"], 4), ["a"]);
        assert_eq!(list(&map(json!({})), &["todo"], 4), [""; 0]);
    }
}
