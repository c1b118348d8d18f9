//! The store as tests drive it.

pub(crate) mod manual_store;

/// The database with the newest schema.
pub(in crate::store) fn with_schema(db: rusqlite::Connection) -> rusqlite::Connection {
    for migration in super::recovery::open::MIGRATIONS {
        db.execute_batch(migration).expect("each migration can be applied");
    }
    db
}
