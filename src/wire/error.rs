//! Errors: a code, one line of what failed, and one line of what to do. Each code has an HTTP status and an exit code.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The body of every response that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What failed.
    pub error: ErrorDetail,
}

/// What failed, for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// For programs.
    pub code: ErrorCode,
    /// What failed, in one line.
    pub message: String,
    /// What to do, in one line.
    pub hint: String,
}

/// Each code has one HTTP status and one exit code of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request, or a field of it, is invalid; the message names the field.
    BadRequest,
    /// The user may not do that.
    Forbidden,
    /// There is no such session, record or route.
    NotFound,
    /// The route exists, but not with this method.
    MethodNotAllowed,
    /// It took too long.
    Timeout,
    /// The session is active, and so cannot be resumed.
    SessionActive,
    /// The session is closed, which is permanent.
    SessionClosed,
    /// The session belongs to another machine, which alone changes it.
    SessionElsewhere,
    /// It contradicts something that exists, such as an id, a key or another host's name.
    Conflict,
    /// The request is too large.
    TooLarge,
    /// Too many requests at once; try again later.
    TooManyRequests,
    /// A bug of sessiond.
    Internal,
    /// The store or central cannot be used at present; try again later.
    Unavailable,
    /// The disk, the store's limit or the user's share of it is full: nothing was recorded.
    DiskFull,
    /// Only of the client: the command line is wrong.
    Usage,
    /// Only of the client: several sessions match.
    Ambiguous,
    /// Only of the client: no daemon listens on the socket.
    Unreachable,
    /// Only of the client, and of the daemon's start: the configuration or the identity is wrong.
    Configuration,
    /// A code of a newer version of sessiond.
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// The HTTP status of a response with this code.
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::Usage => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Timeout => 408,
            Self::SessionActive | Self::SessionClosed | Self::SessionElsewhere | Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::TooManyRequests => 429,
            Self::Ambiguous => 300,
            Self::Internal | Self::Unknown => 500,
            Self::Unavailable | Self::Unreachable | Self::Configuration => 503,
            Self::DiskFull => 507,
        }
    }

    /// The exit code of a verb that fails with this code, as docs/operations.md lists them.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::BadRequest | Self::Usage | Self::TooLarge | Self::MethodNotAllowed => 2,
            Self::NotFound
            | Self::SessionActive
            | Self::SessionClosed
            | Self::SessionElsewhere
            | Self::Conflict
            | Self::Internal
            | Self::Unknown => 1,
            Self::Ambiguous => 3,
            Self::Unreachable => 69,
            Self::TooManyRequests | Self::Unavailable | Self::DiskFull | Self::Timeout => 75,
            Self::Forbidden => 77,
            Self::Configuration => 78,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_codes_of_newer_versions() {
        let body: ErrorBody =
            serde_json::from_str(r#"{"error": {"code": "from_the_future", "message": "m", "hint": "h"}}"#).unwrap();
        assert_eq!(body.error.code, ErrorCode::Unknown);
        assert_eq!(serde_json::to_string(&ErrorCode::DiskFull).unwrap(), "\"disk_full\"");
    }
}
