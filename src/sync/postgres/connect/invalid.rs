//! What is wrong with the settings of central.

use crate::domain::text::one_line;

/// What is wrong with a URL; contains no secret of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("central.url: {0}")]
pub struct InvalidOptions(String);

pub(super) fn invalid(why: impl Into<String>) -> InvalidOptions {
    InvalidOptions(one_line(&why.into()))
}

/// What is wrong with a parameter.
pub(super) fn plain(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Configuration(why) => why.to_string(),
        other => other.to_string(),
    }
}
