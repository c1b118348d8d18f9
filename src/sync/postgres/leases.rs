//! Writes `sessiond_leases`: which host does something that only one of them may do.

use std::time::Duration;

use super::link::{Link, column, micros_of};
use super::registered_host::RegisteredHost;
use super::sql;
use crate::domain::TableState;
use crate::sync::central::CentralError;

pub(super) async fn take(
    link: &mut Link,
    host: &RegisteredHost,
    names: &[String],
    length: Duration,
) -> Result<Vec<String>, CentralError> {
    if host.shapes.tables.leases != TableState::Usable {
        return Err(CentralError::schema_missing(
            "central has no usable table sessiond_leases; run `sessiond migrate`",
        ));
    }
    link.begin().await?;
    let query = sqlx::query(sql::TAKE_LEASES).bind(host.host_id).bind(host.claim).bind(names).bind(micros_of(length));
    let taken = link.rows(query).await?;
    link.commit().await?;
    taken.iter().map(|row| column(row, 0)).collect()
}
