//! Connections that only read: they neither wait for the writer nor make it wait.
//!
//! SQLite restarts its log only when no read is under way. Reads that overlap all the time would let it grow
//! without bound, so they can be paused: new ones wait until those under way have ended and the log was restarted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};

use crate::domain::Reason;
use crate::store::error::StoreError;
use crate::store::sqlite::connection::DatabaseFiles;

/// How many idle connections are kept; each holds a page cache.
const KEPT: usize = 4;

#[derive(Clone)]
pub(in crate::store) struct Readers {
    files: Arc<DatabaseFiles>,
    idle: Arc<Mutex<Idle>>,
    /// Read by each read while it lasts; written by who pauses them.
    gate: Arc<RwLock<()>>,
    /// The connection of a store without threads: reads run on it at once, in the calling thread.
    #[cfg(test)]
    inline: Option<Arc<Mutex<Connection>>>,
}

/// No read is under way while this exists.
pub(in crate::store) struct Paused(#[expect(dead_code, reason = "it is held")] OwnedRwLockWriteGuard<()>);

/// Connections of an older generation belong to a database that has been quarantined.
struct Idle {
    generation: u64,
    connections: Vec<Connection>,
}

impl Readers {
    pub(in crate::store) fn new(files: DatabaseFiles) -> Self {
        Self {
            files: Arc::new(files),
            idle: Arc::new(Mutex::new(Idle { generation: 0, connections: Vec::new() })),
            gate: Arc::default(),
            #[cfg(test)]
            inline: None,
        }
    }

    /// The reads of a store without threads, all on one connection.
    #[cfg(test)]
    pub(in crate::store) fn inline(files: DatabaseFiles, connection: Connection) -> Self {
        Self { inline: Some(Arc::new(Mutex::new(connection))), ..Self::new(files) }
    }

    /// Keeps new reads waiting and has those under way end. `None`, and reads continue, if one of them takes
    /// longer than `patience`.
    pub(in crate::store) async fn pause(&self, patience: Duration) -> Option<Paused> {
        tokio::time::timeout(patience, self.gate.clone().write_owned()).await.ok().map(Paused)
    }

    /// Runs `work` on a thread that may block, with one consistent view of the database.
    pub(in crate::store) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        #[cfg(test)]
        if let Some(connection) = &self.inline {
            return work(&connection.lock().unwrap_or_else(PoisonError::into_inner));
        }
        let readers = self.clone();
        let pass = self.gate.clone().read_owned().await;
        let blocking = tokio::task::spawn_blocking(move || {
            let (generation, connection) = readers.take()?;
            let result = connection.unchecked_transaction().map_err(StoreError::from).and_then(|view| work(&view));
            readers.give_back(generation, connection);
            drop(pass);
            result.map_err(|error| readers.files.name_holder(error))
        });
        blocking.await.unwrap_or_else(|error| {
            Err(StoreError::Bug(Reason::from(format!("a reader failed: {error}")).caused_by(error)))
        })
    }

    /// Lets go of all idle connections: the database under them has been replaced.
    pub(in crate::store) fn forget(&self) {
        let mut idle = self.lock();
        idle.generation += 1;
        idle.connections.clear();
    }

    /// How many databases have been replaced.
    pub(in crate::store) fn generation(&self) -> u64 {
        self.lock().generation
    }

    fn take(&self) -> Result<(u64, Connection), StoreError> {
        let (generation, idle) = {
            let mut idle = self.lock();
            (idle.generation, idle.connections.pop())
        };
        Ok((generation, idle.map_or_else(|| self.files.open_reader(), Ok)?))
    }

    fn give_back(&self, generation: u64, connection: Connection) {
        let mut idle = self.lock();
        if idle.generation == generation && idle.connections.len() < KEPT {
            idle.connections.push(connection);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
