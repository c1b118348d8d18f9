//! A parser of JSON with comments and trailing commas that keeps the position of each value, so that one value is edited
//! and every other byte of the text, comments and spaces too, stays unchanged.
//!
//! Each edit returns a new text, which is parsed again for the next edit.

use std::ops::Range;

use serde_json::Value;

use super::pretty;

/// The deepest nesting that is accepted.
const MAX_DEPTH: usize = 64;

/// Where settings are not JSON with comments.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {what}")]
pub struct SyntaxError {
    line: usize,
    column: usize,
    what: &'static str,
}

/// A value and its position in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    range: Range<usize>,
    kind: NodeKind,
    /// The positions of commas, one after each part, perhaps after the last too.
    commas: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum NodeKind {
    Object(Vec<Member>),
    Array(Vec<Node>),
    Scalar,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    key: String,
    /// The position of the key.
    start: usize,
    value: Node,
}

impl Member {
    pub(super) fn key(&self) -> &str {
        &self.key
    }
}

impl Node {
    /// The number of its members or items.
    pub(super) fn len(&self) -> usize {
        self.members().len() + self.items().len()
    }

    pub(super) const fn is_object(&self) -> bool {
        matches!(self.kind, NodeKind::Object(_))
    }

    pub(super) const fn is_array(&self) -> bool {
        matches!(self.kind, NodeKind::Array(_))
    }

    pub(super) fn members(&self) -> &[Member] {
        if let NodeKind::Object(members) = &self.kind { members } else { &[] }
    }

    pub(super) fn items(&self) -> &[Self] {
        if let NodeKind::Array(items) = &self.kind { items } else { &[] }
    }

    /// The value of a name; the last of several, as in most parsers.
    pub(super) fn member(&self, name: &str) -> Option<&Self> {
        self.members().iter().rfind(|member| member.key == name).map(|member| &member.value)
    }

    pub(super) fn text<'a>(&self, text: &'a str) -> &'a str {
        &text[self.range.clone()]
    }

    /// Its value, if it is a string.
    pub(super) fn string(&self, text: &str) -> Option<String> {
        serde_json::from_str(self.text(text)).ok()
    }

    pub(super) fn replaced(&self, text: &str, value: &Value) -> String {
        splice(text, self.range.clone(), &value.to_string())
    }

    /// Adds a member after all others.
    pub(super) fn with_member(&self, text: &str, name: &str, value: &Value) -> String {
        let indent = self.indent(text);
        self.with_part(text, &format!("{}: {}", Value::from(name), pretty(value, &indent)), &indent)
    }

    /// Adds an item after all others; a string is added on the same line if the array is on one line.
    pub(super) fn with_item(&self, text: &str, value: &Value) -> String {
        if let (true, false, Some(last)) = (value.is_string(), self.text(text).contains('\n'), self.parts().last()) {
            let comma = self.commas.get(self.items().len() - 1);
            return match comma {
                Some(comma) => splice(text, comma + 1..comma + 1, &format!(" {value},")),
                None => splice(text, last.end..last.end, &format!(", {value}")),
            };
        }
        let indent = self.indent(text);
        self.with_part(text, &pretty(value, &indent), &indent)
    }

    fn with_part(&self, text: &str, part: &str, indent: &str) -> String {
        let end = self.range.end - 1;
        let parts = self.parts();
        // Comments after the last part stay with it.
        let inner = parts.last().map_or(self.range.start + 1, |last| last.end);
        let place = inner + text[inner..end].trim_end().len();
        let lines = |added: String| added.replace('\n', line_end(text));
        match parts.last() {
            // Directly before the bracket, by which `was_empty` recognises that the user had it empty.
            None if self.range.start > 0 => splice(text, end..end, &lines(part.to_owned())),
            None => {
                let outer = line_indent(text, self.range.start);
                splice(text, place..end, &lines(format!("\n{indent}{part}\n{outer}")))
            }
            Some(_) if self.commas.len() == parts.len() => {
                splice(text, place..place, &lines(format!("\n{indent}{part},")))
            }
            Some(last) => {
                let more = splice(text, place..place, &lines(format!("\n{indent}{part}")));
                splice(&more, last.end..last.end, ",")
            }
        }
    }

    /// Whether its only part was added to brackets that the user had empty: see [`Self::with_part`].
    pub(super) fn was_empty(&self, text: &str) -> bool {
        let parts = self.parts();
        let [part] = parts.as_slice() else { return false };
        let is_ours = self.is_array() && self.items().iter().all(|item| item.kind == NodeKind::Scalar);
        part.end == self.range.end - 1 && (is_ours || text[part.clone()].contains('\n'))
    }

    /// The index of the member of this name.
    pub(super) fn place_of(&self, name: &str) -> Option<usize> {
        self.members().iter().rposition(|member| member.key == name)
    }

    pub(super) fn without_member(&self, text: &str, name: &str) -> String {
        self.place_of(name).map_or_else(|| text.to_owned(), |place| self.without_part(text, place))
    }

    /// Removes a member or an item, with its comma and the white space before it.
    pub(super) fn without_part(&self, text: &str, index: usize) -> String {
        let Some(part) = self.parts().get(index).cloned() else { return text.to_owned() };
        let start = text[..part.start].trim_end().len();
        let comma_before = index.checked_sub(1).map(|before| self.commas[before]);
        match (self.commas.get(index), comma_before) {
            (Some(comma), _) => splice(text, start..comma + 1, ""),
            (None, Some(comma)) => {
                let less = splice(text, start.max(comma + 1)..part.end, "");
                splice(&less, comma..comma + 1, "")
            }
            (None, None) if self.was_empty(text) => splice(text, part, ""),
            (None, None) => {
                let rest = &text[part.end..];
                splice(text, start..part.end + rest.len() - rest.trim_start().len(), "")
            }
        }
    }

    fn parts(&self) -> Vec<Range<usize>> {
        match &self.kind {
            NodeKind::Object(members) => members.iter().map(|member| member.start..member.value.range.end).collect(),
            NodeKind::Array(items) => items.iter().map(|item| item.range.clone()).collect(),
            NodeKind::Scalar => Vec::new(),
        }
    }

    /// The indentation of its parts: that of the last one, else two blanks more than the line of the opening bracket.
    fn indent(&self, text: &str) -> String {
        let own_line = |part: &Range<usize>| {
            let indent = line_indent(text, part.start);
            let line_start = text[..part.start].rfind('\n').map_or(0, |newline| newline + 1);
            (text[line_start..part.start] == *indent).then_some(indent)
        };
        let outer = line_indent(text, self.range.start);
        self.parts().last().and_then(own_line).unwrap_or_else(|| format!("{outer}  "))
    }
}

fn splice(text: &str, range: Range<usize>, with: &str) -> String {
    format!("{}{with}{}", &text[..range.start], &text[range.end..])
}

/// The line end of a text.
fn line_end(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

/// The indentation of the line at this position.
fn line_indent(text: &str, at: usize) -> String {
    let line = text[..at].rsplit('\n').next().unwrap_or_default();
    line.chars().take_while(|c| *c == ' ' || *c == '\t').collect()
}

/// Parses a whole text.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    // A byte order mark is skipped.
    let at = text.strip_prefix('\u{feff}').map_or(0, |rest| text.len() - rest.len());
    let mut parser = Parser { text, at };
    let node = parser.value(0)?;
    parser.skip_space()?;
    if parser.at < text.len() { Err(parser.error("unexpected text after the end")) } else { Ok(node) }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn error(&self, what: &'static str) -> SyntaxError {
        let before = &self.text[..self.at];
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        SyntaxError { line: before.matches('\n').count() + 1, column, what }
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Skips white space and comments.
    fn skip_space(&mut self) -> Result<(), SyntaxError> {
        loop {
            let rest = self.rest();
            let blanks = rest.len() - rest.trim_start().len();
            self.at += blanks;
            let rest = self.rest();
            if rest.starts_with("//") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if rest.starts_with("/*") {
                self.at += rest.find("*/").ok_or_else(|| self.error("unterminated comment"))? + 2;
            } else if blanks == 0 {
                return Ok(());
            }
        }
    }

    fn consume(&mut self, expected: char) -> bool {
        let found = self.peek() == Some(expected);
        if found {
            self.at += expected.len_utf8();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Result<Node, SyntaxError> {
        self.skip_space()?;
        if depth > MAX_DEPTH {
            return Err(self.error("nested too deeply"));
        }
        let start = self.at;
        let (kind, commas) = match self.peek() {
            Some('{') => self.object(depth)?,
            Some('[') => self.array(depth)?,
            Some('"') => {
                self.string()?;
                (NodeKind::Scalar, Vec::new())
            }
            Some(_) => {
                let word = self.rest().find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)));
                let end = self.at + word.unwrap_or(self.rest().len());
                if serde_json::from_str::<Value>(&self.text[start..end]).is_err() {
                    return Err(self.error("expected a value"));
                }
                self.at = end;
                (NodeKind::Scalar, Vec::new())
            }
            None => return Err(self.error("expected a value, found the end")),
        };
        Ok(Node { range: start..self.at, kind, commas })
    }

    fn string(&mut self) -> Result<String, SyntaxError> {
        let start = self.at;
        let mut escaped = false;
        for (place, c) in self.text[start..].char_indices().skip(1) {
            match c {
                '"' if !escaped => {
                    let end = start + place + 1;
                    let string = serde_json::from_str(&self.text[start..end]);
                    let string = string.map_err(|_| self.error("invalid string"))?;
                    self.at = end;
                    return Ok(string);
                }
                '\\' => escaped = !escaped,
                _ => escaped = false,
            }
        }
        Err(self.error("unterminated string"))
    }

    fn object(&mut self, depth: usize) -> Result<(NodeKind, Vec<usize>), SyntaxError> {
        let mut members = Vec::new();
        let commas = self.parts('{', '}', |parser| {
            let start = parser.at;
            if parser.peek() != Some('"') {
                return Err(parser.error("expected a name in quotes"));
            }
            let key = parser.string()?;
            parser.skip_space()?;
            if !parser.consume(':') {
                return Err(parser.error("expected a colon"));
            }
            members.push(Member { key, start, value: parser.value(depth + 1)? });
            Ok(())
        })?;
        Ok((NodeKind::Object(members), commas))
    }

    fn array(&mut self, depth: usize) -> Result<(NodeKind, Vec<usize>), SyntaxError> {
        let mut items = Vec::new();
        let commas = self.parts('[', ']', |parser| {
            items.push(parser.value(depth + 1)?);
            Ok(())
        })?;
        Ok((NodeKind::Array(items), commas))
    }

    /// Parses parts between brackets, separated by commas, perhaps with one after the last; returns the commas' positions.
    fn parts(
        &mut self,
        open: char,
        close: char,
        mut part: impl FnMut(&mut Self) -> Result<(), SyntaxError>,
    ) -> Result<Vec<usize>, SyntaxError> {
        self.consume(open);
        let mut commas = Vec::new();
        loop {
            self.skip_space()?;
            if self.consume(close) {
                return Ok(commas);
            }
            part(self)?;
            self.skip_space()?;
            let behind = self.at;
            if self.consume(',') {
                commas.push(behind);
            } else if self.peek() != Some(close) {
                return Err(self.error("expected a comma or a closing bracket"));
            }
        }
    }
}
