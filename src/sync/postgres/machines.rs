//! All machines, as central knows them.

use std::time::Duration;

use sqlx::postgres::PgRow;

use super::link::{Link, column};
use super::{interval, micros, micros_of};
use crate::domain::{MachineName, MachineSummary, Timestamp};
use crate::sync::central::CentralError;

/// Nobody turns a session stale on time, so what is called active is looked at again.
macro_rules! fresh {
    () => {
        concat!(
            "(last_heartbeat > now() - ",
            interval!("$1::bigint"),
            " AND last_heartbeat < now() + ",
            interval!("$1::bigint"),
            ")"
        )
    };
}

const MACHINES: &str = concat!(
    "SELECT coalesce(s.host_machine, h.machine_name)::text, coalesce(total, 0), coalesce(active, 0), \
         coalesce(total - active - closed, 0), coalesce(closed, 0), ",
    micros!("last_activity"),
    ", coalesce(projects, ''), ",
    micros!("h.last_seen"),
    " FROM (SELECT host_machine, count(*) AS total, count(*) FILTER (WHERE status = 'active' AND ",
    fresh!(),
    ") AS active, count(*) FILTER (WHERE status = 'closed') AS closed, max(last_heartbeat) AS last_activity, \
         string_agg(DISTINCT project, ', ' ORDER BY project) AS projects \
         FROM supervisor_sessions GROUP BY host_machine) s \
     FULL JOIN (SELECT machine_name, last_seen FROM sessiond_hosts WHERE retired_at IS NULL) h \
         ON h.machine_name = s.host_machine \
     ORDER BY s.last_activity DESC NULLS LAST, 1"
);

pub(super) async fn machines(link: &mut Link, stale_after: Duration) -> Result<Vec<MachineSummary>, CentralError> {
    link.begin().await?;
    let rows = link.rows(sqlx::query(MACHINES).bind(micros_of(stale_after))).await?;
    link.commit().await?;
    rows.iter().map(summary).collect()
}

fn summary(row: &PgRow) -> Result<MachineSummary, CentralError> {
    let name: String = column(row, 0)?;
    Ok(MachineSummary {
        host_machine: MachineName::parse(&name).map_err(|error| CentralError::Retry(format!("central: {error}")))?,
        total_sessions: column(row, 1)?,
        active_sessions: column(row, 2)?,
        stale_sessions: column(row, 3)?,
        closed_sessions: column(row, 4)?,
        last_activity: column::<Option<i64>>(row, 5)?.map(Timestamp::from_micros),
        projects: column(row, 6)?,
        last_seen: column::<Option<i64>>(row, 7)?.map(Timestamp::from_micros),
    })
}
