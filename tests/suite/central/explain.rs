//! Every statement of `src/sync/postgres/sql` is planned with the indexes that serve it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use testkit::postgres::Server;

use super::history;
use super::postgres::Database;

/// Either of the two indexes that supervisor_sessions has on the id.
const SESSION_ID: &[&str] = &["supervisor_sessions_pkey", "idx_supervisor_sessions_instance_id"];
/// Either of the two indexes that have the status as their second column.
const SESSION_STATUS: &[&str] = &["idx_supervisor_sessions_machine_status", "idx_supervisor_sessions_project_status"];
/// Either of the two indexes that begin with the project.
const OF_PROJECT: &[&str] = &["idx_supervisor_sessions_project_status", "idx_supervisor_sessions_project_heartbeat"];
const SESSIONS_CHANGED: &[&str] = &["idx_supervisor_sessions_changed"];
const HOST_ID: &[&str] = &["sessiond_hosts_pkey"];
const HOST_NAME: &[&str] = &["sessiond_hosts_machine_name"];
const EVENT_ID: &[&str] = &["event_store_pkey"];
const EVENT_NUMBER: &[&str] = &["event_store_instance_id_sequence_num_key"];
const COMMANDS_OF_SESSION: &[&str] = &["idx_sessiond_command_log"];
const CHECKPOINTS_OF_SESSION: &[&str] = &["idx_sessiond_checkpoints"];

/// Each file, and the indexes of its plan: of each group at least one. No group: the statement reads no table that
/// grows, or only the catalog, or no index can serve it, which its file explains.
const PLANS: &[(&str, &[&[&str]])] = &[
    ("advance_ledger", &[HOST_ID]),
    ("all_session_keys", &[SESSION_ID]),
    ("all_sessions", &[SESSION_ID]),
    ("all_work", &[&["session_work_pkey"], SESSION_ID]),
    ("all_work_keys", &[&["session_work_pkey"], SESSION_ID]),
    ("changed_histories", &[&["sessiond_history_pkey"], SESSION_ID]),
    ("changed_session_keys", &[SESSIONS_CHANGED]),
    ("changed_sessions", &[SESSIONS_CHANGED]),
    (
        "changed_parts",
        &[&["sessiond_tombstones_pkey"], SESSIONS_CHANGED, &["session_work_changed"], &["sessiond_history_pkey"]],
    ),
    ("changed_work", &[&["session_work_changed"], SESSION_ID]),
    ("changed_work_keys", &[&["session_work_changed"], SESSION_ID]),
    ("checkpoint_sizes", &[CHECKPOINTS_OF_SESSION]),
    ("claim_sweep", &[]),
    ("command_sizes", &[COMMANDS_OF_SESSION]),
    ("delete_history_marks", &[&["sessiond_history_added_at"]]),
    ("delete_tombstones", &[&["sessiond_tombstones_pkey"]]),
    ("delete_old_activity", &[&["sessiond_activity_at"], &["sessiond_activity_pkey"]]),
    ("deleted_sessions", &[&["sessiond_tombstones_pkey"], SESSION_ID]),
    ("disown_sessions", &[SESSION_ID]),
    ("engine", &[]),
    ("entered_histories", &[&["sessiond_history_pkey"], SESSIONS_CHANGED, SESSION_ID]),
    ("event_lineages", &[EVENT_ID]),
    ("event_sizes", &[EVENT_NUMBER]),
    ("existing_sessions", &[SESSION_ID]),
    ("find_sessions_by_part", &[]),
    ("find_sessions_of_epic", &[]),
    ("find_sessions_of_project", &[OF_PROJECT]),
    ("find_rivals", &[HOST_ID, HOST_NAME]),
    ("first_migration", &[&["sessiond_migrations_pkey"]]),
    ("former_names", &[HOST_ID]),
    ("history_tables", &[]),
    ("host_columns", &[]),
    ("hosts", &[]),
    ("hosts_with_limits", &[]),
    ("insert_activity", &[]),
    ("insert_checkpoints", &[&["checkpoints_pkey"], CHECKPOINTS_OF_SESSION]),
    ("insert_commands", &[]),
    ("insert_events", &[EVENT_ID, EVENT_NUMBER]),
    ("insert_events_with_lineage", &[EVENT_ID, EVENT_NUMBER]),
    ("known_commands", &[&["idx_sessiond_command_record"]]),
    ("ledger_row", &[HOST_ID]),
    ("limits_of_hosts", &[&["sessiond_limits_pkey"]]),
    ("mark_history_changed", &[]),
    ("may_lock_table", &[]),
    ("missing_triggers", &[]),
    ("session_key", &[]),
    ("notify_host_joined", &[]),
    ("oldest_transaction", &[]),
    ("out_of_scope_sessions", &[SESSIONS_CHANGED]),
    ("read_activity", &[&["sessiond_activity_pkey"]]),
    ("read_checkpoints", &[CHECKPOINTS_OF_SESSION]),
    ("read_commands", &[COMMANDS_OF_SESSION]),
    ("read_events", &[EVENT_NUMBER]),
    ("readable_history_tables", &[]),
    ("recent_histories", &[SESSION_ID]),
    ("register_host", &[HOST_ID]),
    ("reopen_sweep", &[]),
    (
        "restore_heartbeats",
        &[&[
            "idx_supervisor_sessions_last_heartbeat",
            "supervisor_sessions_pkey",
            "idx_supervisor_sessions_instance_id",
        ]],
    ),
    ("retire_former_hosts", &[HOST_ID]),
    ("retire_namesakes", &[HOST_NAME]),
    ("schema_check", &[]),
    ("server_process", &[]),
    ("session_owners", &[SESSION_ID]),
    ("sessions_by_id", &[SESSION_ID]),
    ("set_stale_after", &[HOST_ID]),
    ("set_vouching_claim", &[HOST_ID]),
    ("share_limits", &[HOST_ID, &["sessiond_limits_pkey"]]),
    ("take_leases", &[HOST_ID, &["sessiond_leases_pkey", "sessiond_leases_expires_at"]]),
    ("sweep_sessions", &[SESSION_STATUS, SESSION_ID]),
    ("timeline", &[]),
    ("unlocked_sessions", &[SESSION_ID]),
    ("upsert_sessions", &[&["supervisor_sessions_pkey"]]),
    ("work_by_id", &[&["session_work_pkey", "session_work_changed"]]),
    ("upsert_work", &[&["session_work_pkey"]]),
    ("upsert_work_with_agent", &[&["session_work_pkey"]]),
];

/// Statements that read a page in the order of an index. A sort would read all that is behind the position, for each page.
/// ORDER BY a bare name is enough to cause one: if the answer has a cast column of that name, the server sorts by the cast.
/// Not listed: statements that return so few of the rows behind the position that sorting them is no worse.
const PAGES: &[&str] = &[
    "all_session_keys",
    "all_sessions",
    "all_work",
    "all_work_keys",
    "changed_histories",
    "changed_parts",
    "changed_session_keys",
    "changed_sessions",
    "changed_work",
    "changed_work_keys",
    "deleted_sessions",
    "recent_histories",
];

/// Enough rows that the planner prefers indexes, and no index over another by chance.
const ROWS: &str = "\
    ALTER TABLE event_store ADD COLUMN parent_uuid UUID, ADD COLUMN root_uuid UUID, ADD COLUMN depth INT; \
    INSERT INTO supervisor_sessions (instance_id, project, instance_type, status, host_machine) \
        SELECT 'odin-PS-' || lpad(n::text, 6, '0'), 'odin' || n % 50, 'PS', 'active', 'host' || n % 50 \
        FROM generate_series(1, 5000) n; \
    INSERT INTO event_store (instance_id, event_type, sequence_num) \
        SELECT instance_id, 'task_spawned', n FROM supervisor_sessions, generate_series(1, 3) n; \
    INSERT INTO command_log (instance_id, command_type, action, context_data) \
        SELECT instance_id, 'explicit', 'a', CASE n WHEN 1 THEN jsonb_build_object('record_id', gen_random_uuid()) END \
        FROM supervisor_sessions, generate_series(1, 3) n; \
    INSERT INTO checkpoints (instance_id, checkpoint_type, sequence_num, work_state) \
        SELECT instance_id, 'manual', n, '{}' FROM supervisor_sessions, generate_series(1, 3) n; \
    INSERT INTO sessiond_activity (instance_id, at, activity, context_percent) \
        SELECT instance_id, now() - n * interval '1 hour', 'idle', 1 FROM supervisor_sessions, generate_series(1, 3) n; \
    INSERT INTO sessiond_hosts (host_id, machine_name, claim, version) \
        SELECT gen_random_uuid(), 'host' || n, gen_random_uuid(), '1' FROM generate_series(1, 500) n; \
    INSERT INTO sessiond_tombstones (changed_xid, instance_id, created_at) \
        SELECT n::text::xid8, 'gone-PS-' || lpad(n::text, 6, '0'), now() FROM generate_series(1, 5000) n; \
    ANALYZE";

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sync/postgres/sql")
}

/// Words for which a name in lower case is inserted: columns that not every central has, and a type.
const INSERTED: [&str; 4] = ["AGENT", "CHECKPOINT_TYPE", "STALE_AFTER", "VOUCHING_CLAIM"];

/// The plan of a statement for any values of its parameters.
fn plan(db: &Database<'_>, sql: &str) -> String {
    let is_used = |number: &usize| sql.contains(&format!("${number}"));
    let parameters = (1..=20).filter(is_used).max().unwrap_or(0);
    let values = if parameters == 0 { String::new() } else { format!("({})", vec!["NULL"; parameters].join(", ")) };
    db.psql(&format!(
        "SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan; \
         PREPARE statement AS {sql}; EXPLAIN (COSTS OFF) EXECUTE statement{values}"
    ))
}

fn uses(plan: &str, index: &str) -> bool {
    plan.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == index)
}

#[tokio::test]
async fn every_statement_uses_its_indexes() {
    let server = Server::start(&[]);
    let db = history::migrated(&server, "x").await;
    db.psql(ROWS);
    let mut wrong = Vec::new();
    for (name, indexes) in PLANS {
        let file = fs::read_to_string(folder().join(format!("{name}.sql"))).unwrap();
        let (comment, sql): (Vec<_>, Vec<_>) = file.lines().partition(|line| line.starts_with("--"));
        assert!(comment.iter().any(|line| line.contains("Index: ")), "{name}.sql says which index serves it");
        let mut sql = sql.join("\n");
        for word in INSERTED {
            sql = sql.replace(word, &word.to_lowercase());
        }
        // Another file is inserted there, which has a plan of its own.
        sql = sql.replace("CHANGES", "NULL");
        let plan = plan(&db, &sql);
        if PAGES.contains(name) && plan.contains("Sort") {
            wrong.push(format!("{name}.sql sorts:\n{plan}"));
        }
        for group in *indexes {
            if !group.iter().any(|index| uses(&plan, index)) {
                wrong.push(format!("{name}.sql uses none of {group:?}:\n{plan}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_statement_file_is_explained() {
    let files: BTreeSet<_> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let explained: BTreeSet<_> = PLANS.iter().map(|(name, _)| format!("{name}.sql")).collect();
    assert_eq!(files, explained);
}

/// The text between an opening parenthesis that ends `opening` and its counterpart, for each place.
fn arguments<'a>(sql: &'a str, opening: &str) -> Vec<&'a str> {
    let inside = |start: usize| {
        let mut depth = 1;
        let end = sql[start..].find(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth == 0
        });
        &sql[start..start + end.expect("a closing parenthesis")]
    };
    sql.match_indices(opening).map(|(at, opening)| inside(at + opening.len())).collect()
}

/// The text between each CASE and its END.
fn cases(sql: &str) -> Vec<&str> {
    let words = |word: &'static str| {
        let is_whole = |at: usize| {
            let around = [sql[..at].chars().next_back(), sql[at + word.len()..].chars().next()];
            around.iter().flatten().all(|c| !c.is_alphanumeric() && *c != '_')
        };
        sql.match_indices(word).map(|(at, _)| at).filter(move |at| is_whole(*at))
    };
    let (starts, ends): (Vec<_>, Vec<_>) = (words("CASE").collect(), words("END").collect());
    let end_of = |start: usize| {
        let is_balanced = |end: &&usize| {
            let within = |at: &&usize| **at >= start && **at <= **end;
            starts.iter().filter(within).count() == ends.iter().filter(within).count()
        };
        ends.iter().filter(|end| **end > start).find(is_balanced).expect("an END")
    };
    starts.iter().map(|start| &sql[*start..*end_of(*start)]).collect()
}

/// What engines that distribute tables refuse, and what costs a single server nothing to avoid: a row of parameters that is
/// compared with NULL, a subquery on a row without FROM, and in a CASE, a COALESCE or a merge of rows a function that is
/// not immutable.
#[test]
fn statements_avoid_what_distributed_tables_refuse() {
    const CHANGING: [&str; 4] = ["now()", "clock_timestamp()", "pg_current_xact_id()", "current_setting("];
    let mut wrong = Vec::new();
    for (name, _) in PLANS {
        let file = fs::read_to_string(folder().join(format!("{name}.sql"))).unwrap();
        let sql: String = file.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join(" ");
        let merge = sql.split_once("DO UPDATE SET").map(|(_, rest)| rest.split(" RETURNING ").next().unwrap());
        let merge = merge.map(|merge| merge.rsplit_once("WHERE").map_or(merge, |(assignments, _)| assignments));
        let guarded = arguments(&sql, "coalesce(").into_iter().chain(cases(&sql)).chain(merge);
        for text in guarded {
            let changing = CHANGING.iter().find(|function| text.contains(**function));
            wrong.extend(changing.map(|function| format!("{name}.sql has {function} in: {text}")));
            if text.matches("extract(epoch FROM").count() != text.matches("- timestamptz 'epoch'").count() {
                wrong.push(format!("{name}.sql takes the epoch of a time, which is not immutable, in: {text}"));
            }
        }
        let rows = arguments(&sql, "(").into_iter().filter(|text| text.contains('$') && text.contains(','));
        for row in
            rows.filter(|row| [" IS NOT NULL", " IS NULL"].iter().any(|is| sql.contains(&format!("({row}){is}"))))
        {
            wrong.push(format!("{name}.sql compares a row with NULL: ({row})"));
        }
        for odd in [".*) AS", "SELECT DISTINCT unnest("] {
            if sql.contains(odd) {
                wrong.push(format!("{name}.sql has a subquery without FROM: {odd}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
