//! Following changes: server-sent events, as far as this daemon sends them.

use std::io::{self, BufRead, BufReader, Read};

use super::http::Request;
use super::{Client, Result, decode, encode, is_success, refusal};
use crate::wire::{SessionBody, WatchQuery};

/// No line of an event is longer.
const MAX_LINE: u64 = 1 << 20;

/// What the daemon tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Session(Box<SessionBody>),
    /// More has changed than can be told: the sessions are to be listed anew.
    Reset,
}

/// Changes as they come.
pub struct Changes {
    lines: BufReader<Box<dyn Read>>,
    /// The id of the newest event; going on after it misses nothing.
    pub last: Option<String>,
}

impl Client {
    /// Watches the sessions that `query` lets through. Waiting for a change ends with an error when the
    /// connection breaks.
    pub fn watch(&self, query: &WatchQuery) -> Result<Changes> {
        let target = target(query);
        let mut response = self.open(&Request { method: "GET", target, body: None, idempotency_key: None })?;
        if !is_success(response.status) {
            let mut body = Vec::new();
            (&mut response.body).take(MAX_LINE).read_to_end(&mut body).map_err(|error| self.broken(&error))?;
            return Err(refusal(response.status, &body));
        }
        let mut changes = Changes { lines: BufReader::new(Box::new(response.body)), last: query.after.clone() };
        // The first thing that comes says that from here on nothing is missed.
        changes.event().map_err(|error| self.broken(&error))?;
        Ok(changes)
    }
}

impl Changes {
    /// Waits for the next change.
    ///
    /// # Errors
    /// The connection broke, or what comes is not understood.
    pub fn next_change(&mut self) -> io::Result<Change> {
        loop {
            let event = self.event()?;
            if !event.id.is_empty() {
                self.last = Some(event.id);
            }
            match event.name.as_str() {
                "reset" => return Ok(Change::Reset),
                "session" => {
                    let session = decode(event.data.as_bytes());
                    return session.map(Change::Session).map_err(|error| io::Error::other(error.message));
                }
                // A comment, or what a newer daemon tells.
                _ => {}
            }
        }
    }

    /// Everything up to an empty line.
    fn event(&mut self) -> io::Result<Event> {
        let mut event = Event::default();
        loop {
            let mut line = String::new();
            (&mut self.lines).take(MAX_LINE).read_line(&mut line)?;
            if !line.ends_with('\n') {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end_matches(['\r', '\n']) {
                "" => return Ok(event),
                line => event.take(line),
            }
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    name: String,
    id: String,
    data: String,
}

impl Event {
    fn take(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.to_owned(),
            "id" => self.id = value.to_owned(),
            "data" => self.data.push_str(value),
            _ => {}
        }
    }
}

fn target(query: &WatchQuery) -> String {
    let WatchQuery { project, machine, local, after } = query;
    let pairs = [
        ("project", project.clone()),
        ("machine", machine.clone()),
        ("local", local.map(|local| local.to_string())),
        ("after", after.clone()),
    ];
    let pairs: Vec<_> =
        pairs.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(&value?)))).collect();
    format!("/v1/watch?{}", pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(text: &'static str) -> Changes {
        Changes { lines: BufReader::new(Box::new(text.as_bytes())), last: None }
    }

    #[test]
    fn comments_and_unknown_events_are_passed_over() {
        let mut changes =
            changes(": watching\nretry: 1000\n\nevent: news\ndata: {}\n\nevent: reset\nid: 5-1\ndata: {}\n\n");
        assert_eq!(changes.next_change().unwrap(), Change::Reset);
        assert_eq!(changes.last.as_deref(), Some("5-1"));
        assert_eq!(changes.next_change().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn half_an_event_is_none() {
        let mut changes = changes("event: reset\nid: 5-1\n");
        assert!(changes.next_change().is_err());
        assert_eq!(changes.last, None);
    }
}
