//! The daemon's statements, each in a file of its own in `sql/`.
//!
//! A file begins with a comment that says what the statement does and which index serves it; the suite's test
//! `central::explain` runs EXPLAIN on every file and checks the index. The comment is not sent to central.
//!
//! A page is read in the order of an index, so ORDER BY names columns with their table: the name alone is that of the
//! answer's column, which is often a cast, and the server would read and sort all that is behind the position.
//!
//! Times are exchanged as microseconds since 1970, which no setting of the server or the session changes. A time that is
//! read is cut to the years 1 to 9999, so that `infinity` can be read too.
//!
//! The statements of `migrate`, `zone` and `checkup` read the catalog once, and are beside the code that uses them.

// Handshake.
pub(super) const ENGINE: &str = statement(include_str!("sql/engine.sql"));
pub(super) const SESSION_KEY: &str = statement(include_str!("sql/session_key.sql"));
pub(super) const MISSING_TRIGGERS: &str = statement(include_str!("sql/missing_triggers.sql"));
pub(super) const SCHEMA_CHECK: &str = statement(include_str!("sql/schema_check.sql"));
pub(super) const RETIRE_FORMER_HOSTS: &str = statement(include_str!("sql/retire_former_hosts.sql"));
pub(super) const RETIRE_NAMESAKES: &str = statement(include_str!("sql/retire_namesakes.sql"));
pub(super) const FIND_RIVALS: &str = statement(include_str!("sql/find_rivals.sql"));
pub(super) const REGISTER_HOST: &str = statement(include_str!("sql/register_host.sql"));
pub(super) const HOST_COLUMNS: &str = statement(include_str!("sql/host_columns.sql"));
pub(super) const SET_STALE_AFTER: &str = statement(include_str!("sql/set_stale_after.sql"));
pub(super) const SET_VOUCHING_CLAIM: &str = statement(include_str!("sql/set_vouching_claim.sql"));
pub(super) const FORMER_NAMES: &str = statement(include_str!("sql/former_names.sql"));
pub(super) const TIMELINE: &str = statement(include_str!("sql/timeline.sql"));
pub(super) const FIRST_MIGRATION: &str = statement(include_str!("sql/first_migration.sql"));
pub(super) const NOTIFY_HOST_JOINED: &str = statement(include_str!("sql/notify_host_joined.sql"));

// Push: ledger and sessions.
pub(super) const ADVANCE_LEDGER: &str = statement(include_str!("sql/advance_ledger.sql"));
pub(super) const LEDGER_ROW: &str = statement(include_str!("sql/ledger_row.sql"));
pub(super) const UPSERT_SESSIONS: &str = statement(include_str!("sql/upsert_sessions.sql"));
pub(super) const RESTORE_HEARTBEATS: &str = statement(include_str!("sql/restore_heartbeats.sql"));
pub(super) const UPSERT_WORK: &str = statement(include_str!("sql/upsert_work.sql"));
pub(super) const UPSERT_WORK_WITH_AGENT: &str = statement(include_str!("sql/upsert_work_with_agent.sql"));
pub(super) const SESSION_OWNERS: &str = statement(include_str!("sql/session_owners.sql"));
pub(super) const EXISTING_SESSIONS: &str = statement(include_str!("sql/existing_sessions.sql"));
pub(super) const UNLOCKED_SESSIONS: &str = statement(include_str!("sql/unlocked_sessions.sql"));

// Activity history.
pub(super) const INSERT_ACTIVITY: &str = statement(include_str!("sql/insert_activity.sql"));
pub(super) const DELETE_OLD_ACTIVITY: &str = statement(include_str!("sql/delete_old_activity.sql"));
pub(super) const READ_ACTIVITY: &str = statement(include_str!("sql/read_activity.sql"));

// Rate limits.
pub(super) const SHARE_LIMITS: &str = statement(include_str!("sql/share_limits.sql"));

// Leases.
pub(super) const TAKE_LEASES: &str = statement(include_str!("sql/take_leases.sql"));

// Push: records.
pub(super) const HISTORY_TABLES: &str = statement(include_str!("sql/history_tables.sql"));
pub(super) const INSERT_EVENTS: &str = statement(include_str!("sql/insert_events.sql"));
pub(super) const INSERT_EVENTS_WITH_LINEAGE: &str = statement(include_str!("sql/insert_events_with_lineage.sql"));
pub(super) const EVENT_LINEAGES: &str = statement(include_str!("sql/event_lineages.sql"));
pub(super) const KNOWN_COMMANDS: &str = statement(include_str!("sql/known_commands.sql"));
pub(super) const INSERT_COMMANDS: &str = statement(include_str!("sql/insert_commands.sql"));
pub(super) const INSERT_CHECKPOINTS: &str = statement(include_str!("sql/insert_checkpoints.sql"));
pub(super) const MARK_HISTORY_CHANGED: &str = statement(include_str!("sql/mark_history_changed.sql"));
pub(super) const MAY_LOCK_TABLE: &str = statement(include_str!("sql/may_lock_table.sql"));

// Pull.
pub(super) const OLDEST_TRANSACTION: &str = statement(include_str!("sql/oldest_transaction.sql"));
pub(super) const DELETED_SESSIONS: &str = statement(include_str!("sql/deleted_sessions.sql"));
pub(super) const ALL_SESSIONS: &str = statement(include_str!("sql/all_sessions.sql"));
pub(super) const CHANGED_SESSIONS: &str = statement(include_str!("sql/changed_sessions.sql"));
pub(super) const ALL_SESSION_KEYS: &str = statement(include_str!("sql/all_session_keys.sql"));
pub(super) const CHANGED_SESSION_KEYS: &str = statement(include_str!("sql/changed_session_keys.sql"));
pub(super) const CHANGED_PARTS: &str = statement(include_str!("sql/changed_parts.sql"));
pub(super) const ALL_WORK: &str = statement(include_str!("sql/all_work.sql"));
pub(super) const CHANGED_WORK: &str = statement(include_str!("sql/changed_work.sql"));
pub(super) const ALL_WORK_KEYS: &str = statement(include_str!("sql/all_work_keys.sql"));
pub(super) const CHANGED_WORK_KEYS: &str = statement(include_str!("sql/changed_work_keys.sql"));
pub(super) const OUT_OF_SCOPE_SESSIONS: &str = statement(include_str!("sql/out_of_scope_sessions.sql"));
pub(super) const HOSTS: &str = statement(include_str!("sql/hosts.sql"));
pub(super) const HOSTS_WITH_LIMITS: &str = statement(include_str!("sql/hosts_with_limits.sql"));
pub(super) const LIMITS_OF_HOSTS: &str = statement(include_str!("sql/limits_of_hosts.sql"));
pub(super) const DISOWN_SESSIONS: &str = statement(include_str!("sql/disown_sessions.sql"));

// Pull: history.
pub(super) const CHANGED_HISTORIES: &str = statement(include_str!("sql/changed_histories.sql"));
pub(super) const ENTERED_HISTORIES: &str = statement(include_str!("sql/entered_histories.sql"));
pub(super) const RECENT_HISTORIES: &str = statement(include_str!("sql/recent_histories.sql"));
pub(super) const READABLE_HISTORY_TABLES: &str = statement(include_str!("sql/readable_history_tables.sql"));
pub(super) const READ_EVENTS: &str = statement(include_str!("sql/read_events.sql"));
pub(super) const READ_COMMANDS: &str = statement(include_str!("sql/read_commands.sql"));
pub(super) const READ_CHECKPOINTS: &str = statement(include_str!("sql/read_checkpoints.sql"));
pub(super) const EVENT_SIZES: &str = statement(include_str!("sql/event_sizes.sql"));
pub(super) const COMMAND_SIZES: &str = statement(include_str!("sql/command_sizes.sql"));
pub(super) const CHECKPOINT_SIZES: &str = statement(include_str!("sql/checkpoint_sizes.sql"));

// On demand.
pub(super) const FIND_SESSIONS_OF_PROJECT: &str = statement(include_str!("sql/find_sessions_of_project.sql"));
pub(super) const FIND_SESSIONS_OF_EPIC: &str = statement(include_str!("sql/find_sessions_of_epic.sql"));
pub(super) const FIND_SESSIONS_BY_PART: &str = statement(include_str!("sql/find_sessions_by_part.sql"));
pub(super) const SESSIONS_BY_ID: &str = statement(include_str!("sql/sessions_by_id.sql"));
pub(super) const WORK_BY_ID: &str = statement(include_str!("sql/work_by_id.sql"));

// Sweep.
pub(super) const CLAIM_SWEEP: &str = statement(include_str!("sql/claim_sweep.sql"));
pub(super) const REOPEN_SWEEP: &str = statement(include_str!("sql/reopen_sweep.sql"));
pub(super) const SWEEP_SESSIONS: &str = statement(include_str!("sql/sweep_sessions.sql"));
pub(super) const DELETE_TOMBSTONES: &str = statement(include_str!("sql/delete_tombstones.sql"));
pub(super) const DELETE_HISTORY_MARKS: &str = statement(include_str!("sql/delete_history_marks.sql"));

// Listen.
pub(super) const SERVER_PROCESS: &str = statement(include_str!("sql/server_process.sql"));

/// The statement of a file, without the comment at its beginning.
const fn statement(file: &'static str) -> &'static str {
    let bytes = file.as_bytes();
    let mut start = 0;
    while bytes[start] == b'-' && bytes[start + 1] == b'-' {
        while bytes[start] != b'\n' {
            start += 1;
        }
        start += 1;
    }
    file.split_at(start).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SharedColumn;

    #[test]
    fn comment_is_not_sent() {
        assert!(statement("-- Returns one.\n-- Index: none.\nSELECT 1\n") == "SELECT 1\n");
        assert!(UPSERT_SESSIONS.starts_with("INSERT INTO supervisor_sessions"));
    }

    #[test]
    fn every_shared_column_is_merged_by_its_own_time() {
        let one_line = |sql: &str| sql.split_whitespace().collect::<Vec<_>>().join(" ");
        let sql = one_line(UPSERT_SESSIONS);
        for column in SharedColumn::ALL.iter().map(|column| column.name()) {
            let merged = format!(
                "{column} = CASE WHEN (excluded.column_times->>'{column}')::bigint \
                 > coalesce(coalesce(s.column_times->>'{column}', s.column_times->>'other')::bigint, "
            );
            assert!(sql.contains(&merged), "{column}");
            assert!(sql.contains(&format!(" END, 0) THEN excluded.{column} ELSE s.{column} END")), "{column}");
        }
    }
}
