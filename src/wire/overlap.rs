//! Sessions that may get in each other's way.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::SessionBody;

/// Live sessions that share a working tree, a branch or an epic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OverlapBody {
    /// `worktree`, `branch` or `epic`.
    pub kind: String,
    /// Which one: `odin3:/srv/app`, `github.com/team/app main`, `odin 003`.
    pub place: String,
    /// Two or more.
    pub sessions: Vec<SessionBody>,
}
