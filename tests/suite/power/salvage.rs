//! Power cuts during the salvage of a damaged store.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{damaged, names, pass};
use testkit::campaign;
use testkit::daemon::Host;
use testkit::random::Random;
use testkit::volume::{Kind, Volume};

const SESSIONS: usize = 60;
const PAGE: usize = 4096;

/// A store whose log holds what its damaged file does not, as the bytes of its files.
struct Damaged {
    files: Vec<(String, Vec<u8>)>,
}

impl Damaged {
    fn new() -> Self {
        let mut host = Host::new("odin3").started();
        register(&host, SESSIONS);
        host.stop();
        host.start();
        register(&host, 5);
        host.kill();
        let read = |name: &str| (name.to_owned(), fs::read(host.state_dir().join(name)).expect("a file of the store"));
        let mut files = ["sessiond.db", "sessiond.db-wal", "identity.json"].map(read).to_vec();
        // A page in the middle of the sessions' rows. Without the schema, which also lies on several pages, nothing is left.
        let has_sessions = |page: &&mut [u8]| page.windows(250).any(|bytes| bytes == [b'e'; 250]);
        let mut pages: Vec<_> = files[0].1.chunks_exact_mut(PAGE).filter(has_sessions).collect();
        let middle = pages.len() / 2;
        pages[middle].fill(0xA5);
        Self { files }
    }

    fn put_into(&self, state: &Path) {
        fs::create_dir(state).expect("a state folder");
        for (name, bytes) in &self.files {
            let path = state.join(name);
            fs::write(&path, bytes).and_then(|()| File::open(&path)?.sync_all()).expect("a file can be written");
        }
        File::open(state).and_then(|dir| dir.sync_all()).expect("a folder can be synced");
    }

    /// The damaged files, each under its own name, whole, and under one date.
    fn check_quarantined(&self, state: &Path) {
        let aside = damaged(state);
        let stem = aside.iter().find(|name| name.ends_with('Z')).unwrap_or_else(|| panic!("nothing aside: {aside:?}"));
        assert_eq!(aside.iter().filter(|name| name.ends_with('Z')).count(), 1, "{aside:?}");
        assert!(aside.iter().all(|name| name.starts_with(stem)), "the damaged files have several dates: {aside:?}");
        for (name, bytes) in &self.files[..2] {
            let path = state.join(name.replace("sessiond.db", stem));
            let kept = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(kept == *bytes, "{name} was changed before it was set aside");
        }
    }
}

fn register(host: &Host, count: usize) {
    for _ in 0..count {
        let body = json!({"project": "odin", "current_epic": "e".repeat(250)});
        assert_eq!(host.ask("POST", "/v1/sessions", Some(&body)).0, 201);
    }
}

fn sessions(host: &Host) -> BTreeSet<String> {
    let (_, list) = host.ask("GET", "/v1/sessions", None);
    let ids = list["instances"].as_array().expect("a list").iter();
    ids.map(|session| session["instance_id"].as_str().expect("an id").to_owned()).collect()
}

fn host_on(state: &Path) -> Host {
    Host::new("odin3").keeping_state_in(PathBuf::from(state))
}

/// Waits until the copy is begun. Nothing else is done meanwhile: the moments to cut are few.
fn salvage_begins(host: &Host) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !names(&host.state_dir()).iter().any(|name| name.starts_with("sessiond.db.")) {
        assert!(Instant::now() < deadline, "no salvage began: {}", host.log());
        std::thread::yield_now();
    }
}

fn how_long_a_salvage_takes(host: &mut Host) -> Duration {
    host.launch();
    salvage_begins(host);
    let begin = Instant::now();
    while host.connect().is_none() {
        std::thread::yield_now();
    }
    begin.elapsed()
}

fn is_finished_by_the_next_start(test: &str, kind: Kind) {
    let Some(volume) = Volume::for_test(test, kind) else { return };
    let mut random = Random::from_clock(test);
    let store = Damaged::new();

    let state = volume.path().join("uncut");
    store.put_into(&state);
    let mut host = host_on(&state);
    let at_most = how_long_a_salvage_takes(&mut host) * 5 / 4;
    let readable = sessions(&host);
    assert!(readable.len() > SESSIONS / 2, "only {} of {SESSIONS} can be read", readable.len());
    store.check_quarantined(&state);
    drop(host);

    let cuts = campaign(15, 500);
    let (mut before, mut meanwhile) = (0, 0);
    for number in 0..cuts {
        let state = volume.path().join(number.to_string());
        store.put_into(&state);
        let mut host = host_on(&state);
        host.launch();
        salvage_begins(&host);
        pass(&mut random, at_most);
        volume.cut();
        host.kill();
        volume.restore();
        let copied = names(&state).iter().any(|name| name.starts_with("sessiond.db.salvaged-"));
        meanwhile += u64::from(copied);
        before += u64::from(!copied && damaged(&state).is_empty());
        host.start();
        assert_eq!(sessions(&host), readable);
        store.check_quarantined(&state);
        host.kill();
        fs::remove_dir_all(&state).expect("the folder can be removed");
    }
    println!("{test}: {cuts} cuts, {before} before the copy was whole, {meanwhile} before it was in its place");
}

#[test]
fn salvage_survives_power_cuts_on_ext4() {
    is_finished_by_the_next_start("power::salvage_survives_power_cuts_on_ext4", Kind::Ext4);
}

#[test]
fn salvage_survives_power_cuts_on_xfs() {
    is_finished_by_the_next_start("power::salvage_survives_power_cuts_on_xfs", Kind::Xfs);
}

/// The salvage's cuts must not be luck: a disk that is full meanwhile leaves the damaged store where it is.
#[test]
fn full_disk_during_salvage_keeps_the_damaged_store() {
    let Some(volume) = Volume::for_test("power::a_full_disk_while_salvaging", Kind::Ext4) else { return };
    let store = Damaged::new();
    let state = volume.path().join("state");
    store.put_into(&state);
    let ballast = volume.path().join("ballast");
    fill(&ballast);
    let mut host = host_on(&state);
    let (code, said) = host.refuses();
    assert_ne!(code, 0);
    assert!(said.contains("full") || said.contains("space"), "{said}");
    assert_eq!(damaged(&state), [""; 0]);

    fs::remove_file(&ballast).expect("room can be made");
    host.start();
    assert!(sessions(&host).len() > SESSIONS / 2);
    store.check_quarantined(&state);
}

/// Takes all the room but enough for the pin and an empty database.
fn fill(ballast: &Path) {
    use std::io::Write;
    let mut file = File::create(ballast).expect("a file");
    let mut size = 0;
    while file.write_all(&[0xA5; PAGE]).is_ok() {
        size += PAGE as u64;
    }
    file.set_len(size - 40 * PAGE as u64).and_then(|()| file.sync_all()).expect("room for a little");
}
