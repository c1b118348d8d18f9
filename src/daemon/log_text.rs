//! Log lines that are safe to show, for any text in their fields (names of files, messages of servers).
//!
//! In a text log each unsafe character of a field is escaped by [`safe_fields`], so that no field starts a line or
//! controls a terminal; the escape sequences of the log's own colours stay. In a JSON log [`SafeJson`] writes the
//! characters that JSON allows and [`is_unsafe`] does not as JSON escapes. The journal stores fields with their length,
//! and journalctl escapes them.

use std::fmt;
use std::io::{self, Write};

use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{FormatFields, Writer, debug_fn};

use crate::domain::text::{escaped_line, safe_document};

/// Formats the fields of an event as `name=value`, each value as one line without unsafe characters.
pub(super) fn safe_fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    debug_fn(|writer: &mut Writer<'_>, field: &tracing::field::Field, value: &dyn fmt::Debug| {
        let value = escaped_line(&format!("{value:?}"));
        match field.name() {
            "message" => write!(writer, "{value}"),
            name if writer.has_ansi_escapes() => write!(writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m{value}"),
            name => write!(writer, "{name}={value}"),
        }
    })
    .delimited(" ")
}

/// A writer of JSON lines that escapes the unsafe characters in them.
pub(super) struct SafeJson<W>(pub W);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for SafeJson<M> {
    type Writer = SafeJson<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        SafeJson(self.0.make_writer())
    }
}

impl<W: Write> Write for SafeJson<W> {
    /// Writes one event: the subscriber calls this once for each.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(safe_document(String::from_utf8_lossy(line).into_owned()).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::{Layer, Registry, fmt};

    use super::*;
    use crate::domain::text::is_unsafe;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged of an event whose message and fields hold unsafe characters.
    fn logged<L: Layer<Registry> + Send + Sync>(layer: impl FnOnce(Shared) -> L) -> String {
        let log = Shared::default();
        let subscriber = tracing_subscriber::registry().with(layer(log.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let text = "a\u{1b}[2J\n\u{9b}\u{202e}\u{2028}b";
            tracing::warn!(file = %Path::new(text).display(), text, "it says {text}");
        });
        String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn text_log_escapes_unsafe_characters_of_fields_and_message() {
        let text =
            logged(|log| fmt::layer().fmt_fields(safe_fields()).with_ansi(false).with_writer(move || log.clone()));
        assert!(!text.trim_end_matches('\n').contains(is_unsafe), "{text:?}");
        assert!(text.contains("it says a\\u{1b}[2J\\n") && text.contains(" file=a\\u{1b}[2J"), "{text:?}");
        let coloured =
            logged(|log| fmt::layer().fmt_fields(safe_fields()).with_ansi(true).with_writer(move || log.clone()));
        assert!(coloured.contains("\u{1b}[2m=\u{1b}[0ma\\u{1b}[2J") && !coloured.contains('\u{202e}'), "{coloured:?}");
    }

    #[test]
    fn json_log_escapes_unsafe_characters_and_keeps_the_text() {
        let json = logged(|log| fmt::layer().json().with_writer(SafeJson(move || log.clone())));
        assert!(!json.trim_end_matches('\n').contains(is_unsafe), "{json:?}");
        let event: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(event["fields"]["file"], "a\u{1b}[2J\n\u{9b}\u{202e}\u{2028}b");
    }
}
