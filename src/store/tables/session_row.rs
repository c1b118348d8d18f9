//! The columns of a session, each once: its name, where it is read, and what is written into it.
//!
//! Statements that write are made from lists of these columns, and bind the values of the same lists.

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row};
use uuid::Uuid;

use crate::domain::{
    InstanceId, InstanceType, MachineName, Process, Project, Session, Status, TimedSession, Timestamp,
};
use crate::store::error::StoreError;
use crate::store::tables::columns::columns;
use crate::store::tables::session_columns::ColumnChanges;
use crate::store::tables::session_record::Record;
use crate::store::tables::{session_columns, session_work};

columns! {
    /// The columns of the table `sessions` that a [`Record`] holds.
    Column of "s." {
        InstanceId = "instance_id",
        Project = "project",
        InstanceType = "instance_type",
        Status = "status",
        ContextPercent = "context_percent",
        CurrentEpic = "current_epic",
        LastHeartbeat = "last_heartbeat",
        CreatedAt = "created_at",
        ClosedAt = "closed_at",
        HostMachine = "host_machine",
        ClaudeSessionUuid = "claude_session_uuid",
        ClaudeSessionPath = "claude_session_path",
        ResumedFrom = "resumed_from",
        WorkingDir = "working_dir",
        OwnerUid = "owner_uid",
        Pid = "pid",
        PidStarted = "pid_started",
        Version = "version",
        UnsyncedSince = "unsynced_since",
        MirrorGeneration = "mirror_generation",
        ColumnChanges = "column_changes",
        SyncedVersion = "synced_version",
        VouchedBy = "vouched_by",
        ReadAt = "read_at",
    }
    "CASE WHEN s.mirror_generation IS NOT NULL \
         THEN (SELECT last_seen FROM hosts h WHERE h.host_machine = s.host_machine) END"
    "CASE WHEN s.vouched_by IS NOT NULL AND s.status = 'active' \
         THEN (SELECT max(last_seen) FROM hosts h WHERE h.host_id = s.vouched_by) END"
    "(SELECT old_id FROM aliases a WHERE a.instance_id = s.instance_id ORDER BY made_at LIMIT 1)"
    "(SELECT summary FROM session_work w WHERE w.instance_id = s.instance_id)"
}

/// What is selected behind the columns.
const MACHINE_SEEN: usize = Column::ALL.len();
const ALIVE_AS_OF: usize = MACHINE_SEEN + 1;
const FORMER_ID: usize = ALIVE_AS_OF + 1;
const SUMMARY: usize = FORMER_ID + 1;

/// What [`read_record`] reads of `sessions s`.
pub(in crate::store) const COLUMNS: &str = Column::LIST;

pub(in crate::store) fn read_record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let time = |at: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(at)?.map(Timestamp::from_micros));
    let pid: Option<i32> = row.get(Column::Pid as usize)?;
    let started: Option<i64> = row.get(Column::PidStarted as usize)?;
    let session = read_session(row)?;
    Ok(Record {
        columns: session_columns::read(row.get_ref(Column::ColumnChanges as usize)?, session.last_heartbeat),
        synced_version: row.get(Column::SyncedVersion as usize)?,
        session,
        owner_uid: row.get(Column::OwnerUid as usize)?,
        process: pid.zip(started).map(|(pid, started)| Process { pid, started }),
        version: row.get(Column::Version as usize)?,
        unsynced_since: time(Column::UnsyncedSince as usize)?,
        mirrored: row.get_ref(Column::MirrorGeneration as usize)? != ValueRef::Null,
        machine_seen: time(MACHINE_SEEN)?,
        vouched_by: row.get::<_, Option<[u8; 16]>>(Column::VouchedBy as usize)?.map(Uuid::from_bytes),
        alive_as_of: time(ALIVE_AS_OF)?,
        read_at: time(Column::ReadAt as usize)?,
        former_id: row.get(FORMER_ID)?,
        checkpoint_due: false,
        conflicts: Vec::new(),
        work: row.get_ref(SUMMARY)?.as_str_or_null()?.and_then(session_work::read_summary),
    })
}

/// Reads what central has of a session too. Earlier versions kept text of central as it was: what is read is made safe
/// here too.
fn read_session(row: &Row<'_>) -> rusqlite::Result<Session> {
    let session = Session {
        instance_id: parsed(row, Column::InstanceId as usize, InstanceId::parse)?,
        project: parsed(row, Column::Project as usize, Project::parse)?,
        instance_type: parsed(row, Column::InstanceType as usize, InstanceType::parse)?,
        status: parsed(row, Column::Status as usize, Status::parse)?,
        context_percent: row.get(Column::ContextPercent as usize)?,
        current_epic: row.get(Column::CurrentEpic as usize)?,
        last_heartbeat: Timestamp::from_micros(row.get(Column::LastHeartbeat as usize)?),
        created_at: Timestamp::from_micros(row.get(Column::CreatedAt as usize)?),
        closed_at: row.get::<_, Option<i64>>(Column::ClosedAt as usize)?.map(Timestamp::from_micros),
        host_machine: parsed(row, Column::HostMachine as usize, MachineName::parse)?,
        claude_session_uuid: row.get(Column::ClaudeSessionUuid as usize)?,
        claude_session_path: row.get(Column::ClaudeSessionPath as usize)?,
        resumed_from: match row.get_ref(Column::ResumedFrom as usize)? {
            ValueRef::Null => None,
            _ => Some(parsed(row, Column::ResumedFrom as usize, InstanceId::parse)?),
        },
        working_dir: row.get(Column::WorkingDir as usize)?,
    };
    Ok(session.with_safe_text())
}

pub(in crate::store) fn parsed<T, E: std::error::Error + Send + Sync + 'static>(
    row: &Row<'_>,
    column: usize,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    parse(text).map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(e)))
}

/// A row as it is written.
#[derive(Clone, Copy)]
pub(in crate::store) struct SessionRow<'a> {
    session: &'a Session,
    owner_uid: u32,
    process: Option<Process>,
    version: i64,
    unsynced_since: Option<Timestamp>,
    mirror_generation: Option<i64>,
    columns: Option<&'a ColumnChanges>,
    synced_version: i64,
    vouched_by: Option<&'a Uuid>,
    read_at: Option<Timestamp>,
}

impl<'a> SessionRow<'a> {
    /// A session of this host.
    pub(in crate::store) fn own(record: &'a Record) -> Self {
        Self {
            session: &record.session,
            owner_uid: record.owner_uid,
            process: record.process,
            version: record.version,
            unsynced_since: record.unsynced_since,
            mirror_generation: None,
            columns: Some(&record.columns),
            synced_version: record.synced_version,
            vouched_by: None,
            read_at: None,
        }
    }

    /// A session of another host, as the reading with this number found it in central.
    pub(in crate::store) const fn mirrored(session: &'a TimedSession, mirror_generation: i64) -> Self {
        Self {
            session: &session.session,
            owner_uid: 0,
            process: None,
            version: 0,
            unsynced_since: None,
            mirror_generation: Some(mirror_generation),
            columns: None,
            synced_version: 0,
            vouched_by: session.vouched_by.as_ref(),
            read_at: None,
        }
    }

    /// The same, read at this time because somebody asked for it.
    pub(in crate::store) const fn on_demand(mut self, read_at: Option<Timestamp>) -> Self {
        self.read_at = read_at;
        self
    }

    fn value(&self, column: Column) -> rusqlite::Result<ToSqlOutput<'a>> {
        let s = self.session;
        Ok(match column {
            Column::InstanceId => s.instance_id.as_str().into(),
            Column::Project => s.project.as_str().into(),
            Column::InstanceType => s.instance_type.as_str().into(),
            Column::Status => s.status.as_str().into(),
            Column::ContextPercent => s.context_percent.into(),
            Column::CurrentEpic => s.current_epic.to_sql()?,
            Column::LastHeartbeat => s.last_heartbeat.micros().into(),
            Column::CreatedAt => s.created_at.micros().into(),
            Column::ClosedAt => optional(s.closed_at.map(Timestamp::micros)),
            Column::HostMachine => s.host_machine.as_str().into(),
            Column::ClaudeSessionUuid => s.claude_session_uuid.to_sql()?,
            Column::ClaudeSessionPath => s.claude_session_path.to_sql()?,
            Column::ResumedFrom => optional(s.resumed_from.as_ref().map(InstanceId::as_str)),
            Column::WorkingDir => s.working_dir.to_sql()?,
            Column::OwnerUid => self.owner_uid.into(),
            Column::Pid => optional(self.process.map(|process| process.pid)),
            Column::PidStarted => optional(self.process.map(|process| process.started)),
            Column::Version => self.version.into(),
            Column::UnsyncedSince => optional(self.unsynced_since.map(Timestamp::micros)),
            Column::MirrorGeneration => optional(self.mirror_generation),
            Column::ColumnChanges => self.columns.map_or(Ok(NULL), ColumnChanges::to_sql)?,
            Column::SyncedVersion => self.synced_version.into(),
            Column::VouchedBy => match self.vouched_by {
                Some(host_id) => ToSqlOutput::Borrowed(ValueRef::Blob(host_id.as_bytes())),
                None => NULL,
            },
            Column::ReadAt => optional(self.read_at.map(Timestamp::micros)),
        })
    }
}

const NULL: ToSqlOutput<'static> = ToSqlOutput::Borrowed(ValueRef::Null);

fn optional<'a>(value: Option<impl Into<ToSqlOutput<'a>>>) -> ToSqlOutput<'a> {
    value.map_or(NULL, Into::into)
}

/// A statement that writes a session, and the columns whose values it binds.
pub(in crate::store) struct WriteStatement {
    sql: String,
    columns: Vec<Column>,
}

impl WriteStatement {
    /// Inserts these columns; the others have their defaults.
    pub(in crate::store) fn insert(columns: &[Column]) -> Self {
        let names: Vec<_> = columns.iter().map(|column| column.name()).collect();
        let values: Vec<_> = (1..=columns.len()).map(|number| format!("?{number}")).collect();
        let sql = format!("INSERT INTO sessions ({}) VALUES ({})", names.join(", "), values.join(", "));
        Self { sql, columns: columns.to_vec() }
    }

    /// The same, or sets those of `update` if there is a row with this id.
    pub(in crate::store) fn upsert(columns: &[Column], update: &[Column]) -> Self {
        let mut statement = Self::insert(columns);
        let set: Vec<_> = update.iter().map(|column| format!("{0} = excluded.{0}", column.name())).collect();
        statement.sql += &format!(" ON CONFLICT (instance_id) DO UPDATE SET {}", set.join(", "));
        statement
    }

    /// Sets these columns in the row with the session's id, if it has the same values in those of `same`.
    pub(in crate::store) fn update(set: &[Column], same: &[Column]) -> Self {
        let assigned: Vec<_> = set.iter().zip(1..).map(|(column, n)| format!("{} = ?{n}", column.name())).collect();
        let key = set.len() + 1;
        let mut sql = format!("UPDATE sessions SET {} WHERE instance_id = ?{key}", assigned.join(", "));
        for (column, number) in same.iter().zip(key + 1..) {
            sql += &format!(" AND {} IS ?{number}", column.name());
        }
        let columns = [set, &[Column::InstanceId], same].concat();
        Self { sql, columns }
    }

    /// The same, if this is true of the row too.
    pub(in crate::store) fn only_if(mut self, condition: &str) -> Self {
        self.sql += &format!(" AND {condition}");
        self
    }

    /// Returns how many rows it wrote.
    pub(in crate::store) fn execute(&self, db: &Connection, row: SessionRow<'_>) -> Result<usize, StoreError> {
        let mut statement = db.prepare_cached(&self.sql)?;
        for (column, number) in self.columns.iter().zip(1..) {
            statement.raw_bind_parameter(number, row.value(*column)?)?;
        }
        Ok(statement.raw_execute()?)
    }
}
