//! The table `hosts`: the daemons that report to central, as central last listed them.

use rusqlite::{Connection, Row, params};
use uuid::Uuid;

use crate::domain::limits;
use crate::domain::mirror::HostSeen;
use crate::domain::{MachineName, Timestamp};
use crate::store::error::StoreError;
use crate::store::tables::sessions;

/// Deletes the daemons of all other machines, once those of these machines are there. No name occurs twice.
pub(in crate::store) fn keep_only(db: &Connection, machines: &[MachineName]) -> Result<(), StoreError> {
    let count: i64 = db.prepare_cached("SELECT count(*) FROM hosts")?.query_row([], |row| row.get(0))?;
    // Nearly always: comparing all names costs as much as writing all rows.
    if count <= machines.len() as i64 {
        return Ok(());
    }
    let names = serde_json::Value::from_iter(machines.iter().map(MachineName::as_str)).to_string();
    db.prepare_cached("DELETE FROM hosts WHERE host_machine NOT IN (SELECT value FROM json_each(?1))")?
        .execute([names])?;
    Ok(())
}

/// Adds daemons that report to central, or what changed of them; writes only that.
pub(in crate::store) fn upsert(db: &Connection, hosts: &[HostSeen]) -> Result<(), StoreError> {
    let mut upsert = db.prepare_cached(
        "INSERT INTO hosts (host_machine, last_seen, limits, host_id) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (host_machine) DO UPDATE SET last_seen = excluded.last_seen, limits = excluded.limits, \
                 host_id = excluded.host_id \
             WHERE hosts.last_seen <> excluded.last_seen OR hosts.limits <> excluded.limits \
                 OR hosts.host_id IS NOT excluded.host_id",
    )?;
    for host in hosts {
        upsert.execute(params![
            host.machine.as_str(),
            host.last_seen.micros(),
            limits::to_json(&host.limits),
            host.host_id.as_bytes()
        ])?;
    }
    Ok(())
}

/// The daemons that central knows of.
pub(in crate::store) fn all(db: &Connection) -> Result<Vec<HostSeen>, StoreError> {
    let host = |row: &Row<'_>| {
        let machine = sessions::parsed(row, 0, MachineName::parse)?;
        let limits = limits::from_foreign_json(row.get_ref(2)?.as_str()?);
        // Not known of hosts that an earlier version listed, until they are listed again.
        let host_id = row.get::<_, Option<[u8; 16]>>(3)?.map_or(Uuid::nil(), Uuid::from_bytes);
        Ok(HostSeen { host_id, machine, last_seen: Timestamp::from_micros(row.get(1)?), limits })
    };
    Ok(db
        .prepare_cached("SELECT host_machine, last_seen, limits, host_id FROM hosts")?
        .query_map([], host)?
        .collect::<Result<_, _>>()?)
}
