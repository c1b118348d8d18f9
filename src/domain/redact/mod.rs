//! Redacts secrets before anything is stored: passwords, keys, tokens, connection strings.
//!
//! Text is read once from left to right, word by word. At each word, rules check whether a secret begins there: by how a
//! token begins (`rules`), by the name before a value (`names`, `value`), by the flag of a program, by the form of an
//! address or a file. Each rule reads a bounded stretch or no further than the secret that it finds, so the time grows with
//! the length of the text. What the rules know is data in `rules`, after gitleaks' published rule set.
//!
//! `redact::corpus` measures both kinds of error on tests/data/redact: secrets that are missed, and ordinary text that is
//! redacted. NUL, which central's JSON cannot hold, is replaced too.

mod arguments;
mod bytes;
mod commands;
#[cfg(test)]
mod corpus;
mod forms;
mod names;
mod plain_words;
mod programs;
mod rules;
mod scan;
#[cfg(test)]
mod tests;
mod value;

use serde_json::{Map, Value};

use names::{Name, kind_of};
use scan::Scanner;
use value::ValueForm;

/// The replacement for a secret.
pub const MARK: &str = "[redacted]";

/// Redacts the secrets in the values of an object, at any depth, and each value whose name is that of a secret.
pub fn object(fields: &mut Map<String, Value>) {
    for (name, value) in std::mem::take(fields) {
        let value = if is_secret_field(&name, &value) { blanked(value) } else { redacted(value) };
        fields.insert(text(&name).unwrap_or(name), value);
    }
}

/// Whether the field's name is that of a secret, and its value may be one.
fn is_secret_field(name: &str, value: &Value) -> bool {
    let form = ValueForm { quoted: true, ..ValueForm::default() };
    match (kind_of(name), value) {
        (None, _) => false,
        (Some(Name::Header), Value::String(text)) => forms::is_credentials(text) || value::is_random(text),
        (Some(kind), Value::String(text)) => {
            value::is_secret(kind, text, form) || text.contains(' ') && !text.contains("://")
        }
        (Some(Name::Pass), Value::Number(_)) => false,
        (Some(_), _) => true,
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

/// Redacts everything in a secret value except its structure.
fn blanked(value: Value) -> Value {
    match value {
        Value::String(empty) if empty.is_empty() => Value::String(empty),
        Value::String(_) | Value::Number(_) => Value::String(MARK.into()),
        Value::Array(items) => items.into_iter().map(blanked).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, blanked(value))).collect(),
        Value::Null | Value::Bool(_) => value,
    }
}

/// Returns the text with its secrets redacted; none if it contains no secret.
pub fn text(text: &str) -> Option<String> {
    Scanner::new(text).redacted()
}
