//! Watching changes of sessions: reads the daemon's server-sent events.

use std::io::{self, BufRead, BufReader, Read};

use super::http::HttpRequest;
use super::{Client, Result, daemon_error, from_json, is_success, target};
use crate::wire::{NotificationBody, SessionBody, WatchQuery};

/// The longest accepted line of an event, in bytes.
const MAX_LINE: u64 = 1 << 20;

/// A change that the daemon reports.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent {
    /// A session that changed, as it is now.
    Session(Box<SessionBody>),
    /// The changes since the last event are not known any more: the sessions must be listed again.
    Reset,
}

/// A stream of changes.
pub struct WatchStream {
    lines: BufReader<Box<dyn Read>>,
    /// The id of the last event received, after which another watch continues.
    pub last_id: Option<String>,
}

impl Client {
    /// Watches the sessions that match `query`.
    ///
    /// # Errors
    /// The request fails.
    pub fn watch(&self, query: &WatchQuery) -> Result<WatchStream> {
        self.open_stream(target::watch(query), query.after.clone())
    }

    /// Watches the notifications for desktops.
    ///
    /// # Errors
    /// The request fails.
    pub fn notifications(&self) -> Result<WatchStream> {
        self.open_stream("/v1/notifications".to_owned(), None)
    }

    fn open_stream(&self, target: String, last_id: Option<String>) -> Result<WatchStream> {
        let mut response = self.open(&HttpRequest { method: "GET", target, body: None, idempotency_key: None })?;
        if !is_success(response.status) {
            let mut body = Vec::new();
            (&mut response.body)
                .take(MAX_LINE)
                .read_to_end(&mut body)
                .map_err(|error| self.connection_error(&error))?;
            return Err(daemon_error(response.status, &body));
        }
        let mut changes = WatchStream { lines: BufReader::new(Box::new(response.body)), last_id };
        // The first event, a comment, shows that all changes from here on are sent.
        changes.read_event().map_err(|error| self.connection_error(&error))?;
        Ok(changes)
    }
}

impl WatchStream {
    /// Waits for the next change.
    ///
    /// # Errors
    /// The connection broke, or an event is invalid.
    pub fn next_change(&mut self) -> io::Result<WatchEvent> {
        loop {
            let event = self.read_event()?;
            if !event.id.is_empty() {
                self.last_id = Some(event.id);
            }
            match event.name.as_str() {
                "reset" => return Ok(WatchEvent::Reset),
                "session" => {
                    let session = from_json(event.data.as_bytes());
                    return session.map(WatchEvent::Session).map_err(|error| io::Error::other(error.message));
                }
                // A comment, or an event of a newer daemon.
                _ => {}
            }
        }
    }

    /// Waits for the next notification.
    ///
    /// # Errors
    /// The connection broke, or an event is invalid.
    pub fn next_notification(&mut self) -> io::Result<NotificationBody> {
        loop {
            let event = self.read_event()?;
            if event.name == "notification" {
                return from_json(event.data.as_bytes()).map_err(|error| io::Error::other(error.message));
            }
        }
    }

    /// Reads up to an empty line.
    fn read_event(&mut self) -> io::Result<ServerSentEvent> {
        let mut event = ServerSentEvent::default();
        loop {
            let mut line = String::new();
            (&mut self.lines).take(MAX_LINE).read_line(&mut line)?;
            if !line.ends_with('\n') {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end_matches(['\r', '\n']) {
                "" => return Ok(event),
                line => event.add_line(line),
            }
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct ServerSentEvent {
    name: String,
    id: String,
    data: String,
}

impl ServerSentEvent {
    fn add_line(&mut self, line: &str) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(text: &'static str) -> WatchStream {
        WatchStream { lines: BufReader::new(Box::new(text.as_bytes())), last_id: None }
    }

    #[test]
    fn skips_comments_and_unknown_events() {
        let mut changes =
            changes(": watching\nretry: 1000\n\nevent: other\ndata: {}\n\nevent: reset\nid: 5-1\ndata: {}\n\n");
        assert_eq!(changes.next_change().unwrap(), WatchEvent::Reset);
        assert_eq!(changes.last_id.as_deref(), Some("5-1"));
        assert_eq!(changes.next_change().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn ignores_an_incomplete_event() {
        let mut changes = changes("event: reset\nid: 5-1\n");
        assert!(changes.next_change().is_err());
        assert_eq!(changes.last_id, None);
    }
}
