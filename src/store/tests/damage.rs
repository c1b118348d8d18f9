//! Damaged, cut off, full and foreign files: what is lost, what is kept, and that the store goes on.

use super::*;

#[test]
fn two_daemons_cannot_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let lock = FolderLock::take(dir.path()).unwrap();
    let error = FolderLock::take(dir.path()).unwrap_err().to_string();
    assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
    drop(lock);
    FolderLock::take(dir.path()).unwrap();
}

#[tokio::test]
async fn room_in_the_log_is_no_damage_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = open(dir.path());
    let first = register(&store, 1, 0).await;
    store.make_room().await.unwrap();
    let log = dir.path().join("sessiond.db-wal");
    let length = std::fs::metadata(&log).unwrap().len();
    let second = register(&store, 2, 1).await;
    assert_eq!(std::fs::metadata(&log).unwrap().len(), length, "it does not grow any more");

    // What a crash leaves.
    let crashed = tempfile::tempdir().unwrap();
    for file in ["sessiond.db", "sessiond.db-wal"] {
        std::fs::copy(dir.path().join(file), crashed.path().join(file)).unwrap();
    }
    shut((store, writer));
    assert_eq!(std::fs::metadata(&log).unwrap().len(), 0);
    let (store, writer) = open(crashed.path());
    for record in [first, second] {
        assert_eq!(only(&store, &record.session.instance_id).await, record);
    }
    assert_eq!(quarantined(crashed.path()), 0);
    shut((store, writer));
}

#[tokio::test]
async fn a_log_that_is_cut_off_is_copied_once_and_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = open(dir.path());
    for n in 0..10 {
        register(&store, n, 10 * i64::try_from(n).unwrap()).await;
    }
    let names = ["sessiond.db", "sessiond.db-wal"];
    let files = names.map(|name| (name, std::fs::read(dir.path().join(name)).unwrap()));
    shut((store, writer));
    let crashed = tempfile::tempdir().unwrap();
    for cut in [2000, 2000, 1000, 3000] {
        for (name, bytes) in &files {
            let mut bytes = bytes.clone();
            if name.ends_with("-wal") {
                let sound = bytes.iter().rposition(|byte| *byte != 0).unwrap();
                bytes[sound - cut..].fill(0);
            }
            std::fs::write(crashed.path().join(name), bytes).unwrap();
        }
        let (store, writer) = open(crashed.path());
        assert_eq!(store.damage(), None, "nothing that was acknowledged is missing");
        shut((store, writer));
        let copies: Vec<_> = std::fs::read_dir(crashed.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains("cut-off") || name.contains("damaged"))
            .collect();
        assert_eq!(copies, ["sessiond.db.cut-off-wal"]);
    }
}

#[tokio::test]
async fn a_newer_store_is_refused_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    shut(open(dir.path()));
    let path = dir.path().join("sessiond.db");
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(try_open(dir.path(), OPTIONS), Err(OpenError::Newer { found: 99, .. })));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_state_folder_is_made_together_with_those_above_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("var/lib/state");
    drop(FolderLock::take(&state).unwrap());
    assert_eq!(std::fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert!(matches!(FolderLock::take(&dir.path().join("file/state")), Err(OpenError::Folder { .. })));
}

async fn filled(dir: &Path, sessions: u64) -> Vec<Record> {
    let (store, writer) = open(dir);
    let mut records = Vec::new();
    for i in 0..sessions {
        records.push(register(&store, i, i as i64).await);
    }
    shut((store, writer));
    records
}

fn quarantined(dir: &Path) -> usize {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("sessiond.db.damaged-") && name.ends_with('Z')).count()
}

#[tokio::test]
async fn a_damaged_page_costs_at_most_what_was_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let records = filled(dir.path(), 400).await;
    spoil_a_page(dir.path());

    let (store, writer) = open(dir.path());
    assert_eq!(quarantined(dir.path()), 1);
    let kept = store.list(Filter::default(), by(OWNER, at(0))).await.unwrap();
    assert!(kept.len() > 300, "only {} of 400 came over", kept.len());
    for record in &kept {
        let original = records.iter().find(|r| r.session.instance_id == record.session.instance_id).unwrap();
        assert_eq!(record.session, original.session);
    }
    assert_eq!(store.backlog().await.unwrap().sessions, kept.len() as u64, "all of it is offered to central again");
    shut((store, writer));
}

#[tokio::test]
async fn a_file_that_is_no_database_is_quarantined() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sessiond.db");
    std::fs::write(&path, vec![b'x'; 10_000]).unwrap();
    let (store, writer) = open(dir.path());
    register(&store, 1, 0).await;
    assert_eq!(quarantined(dir.path()), 1);
    shut((store, writer));
}

#[tokio::test]
async fn damage_found_by_the_writer_is_repaired_at_run_time() {
    let dir = tempfile::tempdir().unwrap();
    let records = filled(dir.path(), 400).await;
    let (store, writer) = open(dir.path());
    spoil_a_page(dir.path());
    meet_damage(&store).await;
    register(&store, 1000, 1).await;
    assert_eq!(quarantined(dir.path()), 1);
    let kept = store.list(Filter::default(), by(OWNER, at(0))).await.unwrap();
    assert!(kept.len() > records.len() * 3 / 4, "only {} of 400 came over", kept.len());
    shut((store, writer));
}

async fn meet_damage(store: &Store) {
    let damage = store.writer.submit(|_| Err::<(), _>(StoreError::Damaged("met by chance".into()))).await;
    assert!(matches!(damage, Err(StoreError::Damaged(_))));
}

/// Overwrites a page in the last third of the database, where its rows are; the schema comes first.
fn spoil_a_page(dir: &Path) {
    let path = dir.join("sessiond.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let page = bytes.len() / 4096 * 2 / 3 * 4096;
    bytes[page..page + 4096].fill(0xA5);
    std::fs::write(&path, &bytes).unwrap();
}

/// Changes the id of a store's one session in the index, where it is found by.
fn spoil_the_index(dir: &Path, id: &InstanceId) {
    let path = dir.join("sessiond.db");
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_sessions_1'";
    let page: u32 = Connection::open(&path).unwrap().query_row(root, [], |row| row.get(0)).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let leaf = &mut bytes[(page as usize - 1) * 4096..][..4096];
    let at = leaf.windows(id.as_str().len()).position(|bytes| bytes == id.as_str().as_bytes()).unwrap();
    leaf[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
}

#[tokio::test]
async fn an_index_that_disagrees_with_its_table_is_found_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let record = filled(dir.path(), 1).await.remove(0);
    let id = record.session.instance_id.clone();
    spoil_the_index(dir.path(), &id);

    let (store, writer) = open(dir.path());
    let beat = || store.heartbeat(id.to_string(), Heartbeat::default(), by(OWNER, at(1)));
    assert!(matches!(beat().await, Err(StoreError::NotFound(_))), "the start does not look so closely");
    let new = register(&store, 2, 1).await;
    store.verify().await.unwrap();
    assert_eq!(quarantined(dir.path()), 1);
    assert_eq!(only(&store, &id).await.session, record.session);
    assert_eq!(only(&store, &new.session.instance_id).await.session, new.session, "nor is lost what came meanwhile");
    beat().await.unwrap();
    store.verify().await.unwrap();
    assert_eq!(quarantined(dir.path()), 1);
    shut((store, writer));
}

#[tokio::test]
async fn damage_that_a_second_check_does_not_find_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let records = filled(dir.path(), 10).await;
    let (store, writer) = open(dir.path());
    meet_damage(&store).await;
    register(&store, 1000, 1).await;
    assert_eq!(quarantined(dir.path()), 0);
    assert_eq!(store.list(Filter::default(), by(OWNER, at(0))).await.unwrap().len(), records.len() + 1);
    shut((store, writer));
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_again_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 1).await;
    let (store, writer) = open(dir.path());
    let (path, elsewhere) = (dir.path().join("sessiond.db"), dir.path().join("elsewhere"));
    std::fs::rename(&path, &elsewhere).unwrap();
    std::fs::create_dir(&path).unwrap();
    meet_damage(&store).await;
    assert!(matches!(store.ping().await, Err(StoreError::Io(_))), "nothing can be written, and it says so");
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&elsewhere, &path).unwrap();
    register(&store, 1000, 1).await;
    assert_eq!(store.list(Filter::default(), by(OWNER, at(0))).await.unwrap().len(), 2);
    shut((store, writer));
}

#[tokio::test]
async fn a_copy_that_cannot_be_written_is_no_copy() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 400).await;
    let mut copy = Connection::open(dir.path().join("copy")).unwrap();
    copy.execute_batch(include_str!("../../../migrations/local/0001_sessions.sql")).unwrap();
    copy.pragma_update(None, "max_page_count", 20).unwrap();
    let damaged = Connection::open(dir.path().join("sessiond.db")).unwrap();
    let carried = recovery::salvage::carry_over(&damaged, &mut copy, at(0));
    assert!(matches!(carried, Err(StoreError::Full(_))), "{carried:?}");
}

#[tokio::test]
async fn a_salvage_that_was_cut_off_is_finished_and_keeps_the_damaged_files_together() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3).await;
    // As left by a power cut after the first of the damaged files was quarantined.
    std::fs::rename(dir.path().join("sessiond.db"), dir.path().join("sessiond.db.salvaged-20260130T120000.000000Z"))
        .unwrap();
    std::fs::write(dir.path().join("sessiond.db.damaged-20260130T120000.000000Z"), "damaged").unwrap();
    for suffix in ["-wal", "-shm", "-journal"] {
        std::fs::write(dir.path().join(format!("sessiond.db{suffix}")), "damaged").unwrap();
    }
    let (store, writer) = open(dir.path());
    assert_eq!(store.list(Filter::default(), by(OWNER, at(0))).await.unwrap().len(), 3);
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let aside = dir.path().join(format!("sessiond.db.damaged-20260130T120000.000000Z{suffix}"));
        assert_eq!(std::fs::read_to_string(aside).unwrap(), "damaged", "{suffix}");
    }
    shut((store, writer));
}

#[tokio::test]
async fn the_writer_syncs_as_its_durability_demands() {
    for (durability, synchronous, fullfsync) in [(Durability::Full, 2, 1), (Durability::Normal, 1, 0)] {
        let dir = tempfile::tempdir().unwrap();
        let (store, writer) = try_open(dir.path(), Options { durability, ..OPTIONS }).unwrap();
        let pragma = async |name| {
            let value = move |db: &Connection| Ok(db.pragma_query_value(None, name, |row| row.get::<_, i64>(0))?);
            store.writer.submit(value).await.unwrap()
        };
        assert_eq!(pragma("synchronous").await, synchronous, "{durability:?}");
        assert_eq!(pragma("fullfsync").await, fullfsync, "{durability:?}");
        assert_eq!(
            pragma("checkpoint_fullfsync").await,
            1,
            "{durability:?}: a checkpoint out of order damages the store"
        );
        let journal = store
            .writer
            .submit(|db| Ok(db.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0))?))
            .await;
        assert_eq!(journal.unwrap(), "wal");
        shut((store, writer));
    }
}

#[tokio::test]
async fn damage_found_only_by_a_reader_is_repaired() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 400).await;
    let (store, writer) = open(dir.path());
    spoil_a_page(dir.path());
    let met = store.read(|_| Err::<(), _>(StoreError::Damaged("met by chance".into()))).await;
    assert!(matches!(met, Err(StoreError::Damaged(_))));
    store.ping().await.unwrap();
    assert_eq!(quarantined(dir.path()), 1);
    assert!(store.list(Filter::default(), by(OWNER, at(0))).await.unwrap().len() > 300);
    shut((store, writer));
}

#[test]
fn sqlite_is_new_enough() {
    assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
}
