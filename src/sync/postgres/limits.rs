//! Writes `sessiond_limits`: the rate limits that each host shares, one row for each host.
//!
//! A row of its own, and not a column of `sessiond_hosts`: each push writes that row again.

use super::link::Link;
use super::registered_host::RegisteredHost;
use super::sql;
use crate::domain::TableState;
use crate::domain::limits::{self, AccountLimit};
use crate::sync::central::CentralError;

pub(super) async fn share(link: &mut Link, host: &RegisteredHost, limits: &[AccountLimit]) -> Result<(), CentralError> {
    if host.shapes.tables.limits != TableState::Usable {
        return Ok(());
    }
    link.begin().await?;
    let query = sqlx::query(sql::SHARE_LIMITS).bind(host.host_id).bind(host.claim).bind(limits::to_json(limits));
    link.rows(query).await?;
    link.commit().await
}
