//! The table `hosts`: the daemons that report to central, as central last listed them.

use rusqlite::{Connection, Row, params};

use crate::domain::limits;
use crate::domain::mirror::HostSeen;
use crate::domain::{MachineName, Timestamp};
use crate::store::error::StoreError;
use crate::store::tables::sessions;

/// Replaces what is known of the daemons that report to central; writes only what changed.
pub(in crate::store) fn replace(db: &Connection, hosts: &[HostSeen]) -> Result<(), StoreError> {
    let names = serde_json::Value::from_iter(hosts.iter().map(|host| host.machine.as_str())).to_string();
    db.prepare_cached("DELETE FROM hosts WHERE host_machine NOT IN (SELECT value FROM json_each(?1))")?
        .execute([names])?;
    let mut upsert = db.prepare_cached(
        "INSERT INTO hosts (host_machine, last_seen, limits) VALUES (?1, ?2, ?3) \
         ON CONFLICT (host_machine) DO UPDATE SET last_seen = excluded.last_seen, limits = excluded.limits \
             WHERE hosts.last_seen <> excluded.last_seen OR hosts.limits <> excluded.limits",
    )?;
    for host in hosts {
        upsert.execute(params![host.machine.as_str(), host.last_seen.micros(), limits::to_json(&host.limits)])?;
    }
    Ok(())
}

/// The daemons that central knows of.
pub(in crate::store) fn all(db: &Connection) -> Result<Vec<HostSeen>, StoreError> {
    let host = |row: &Row<'_>| {
        let machine = sessions::parsed(row, 0, MachineName::parse)?;
        let limits = limits::from_foreign_json(row.get_ref(2)?.as_str()?);
        Ok(HostSeen { machine, last_seen: Timestamp::from_micros(row.get(1)?), limits })
    };
    Ok(db
        .prepare_cached("SELECT host_machine, last_seen, limits FROM hosts")?
        .query_map([], host)?
        .collect::<Result<_, _>>()?)
}
