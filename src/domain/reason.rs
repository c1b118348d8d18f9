//! Why something failed: a line for people, and the error behind it.

use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A line for people, and the error that it describes, if there is one. Two are equal if their lines are.
#[derive(Clone, Debug)]
pub struct Reason {
    text: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Reason {
    /// The same line, about this error.
    pub(crate) fn caused_by(self, source: impl Error + Send + Sync + 'static) -> Self {
        Self { source: Some(Arc::new(source)), ..self }
    }

    /// Another line about the same error.
    pub(crate) fn with_text(self, text: impl Into<String>) -> Self {
        Self { text: text.into(), ..self }
    }
}

impl<T: Into<String>> From<T> for Reason {
    fn from(text: T) -> Self {
        Self { text: text.into(), source: None }
    }
}

impl Deref for Reason {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Reason {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl PartialEq for Reason {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Reason {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_error_behind_a_line() {
        let reason = Reason::from("the file cannot be read").caused_by(std::io::Error::from_raw_os_error(13));
        let shown = reason.clone().with_text("x: the file cannot be read");
        assert_eq!(shown.to_string(), "x: the file cannot be read");
        let source = shown.source().and_then(|source| source.downcast_ref::<std::io::Error>()).unwrap();
        assert_eq!(source.raw_os_error(), Some(13));
        assert_eq!(reason, Reason::from("the file cannot be read"), "compared by the line");
    }
}
