use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::*;
use crate::domain::work::WorkUpdate;
use crate::wire::{ActivityReport, AgentReport, CheckpointRequest, EventRequest, HeartbeatRequest};

fn heartbeat(at: i64, context_percent: Option<i64>, epic: Option<&str>) -> SpooledRequest {
    let current_epic = epic.map(|epic| Some(epic.to_owned()));
    let request = HeartbeatRequest { context_percent, current_epic, ..HeartbeatRequest::default() };
    SpooledRequest {
        at,
        sockets: vec!["/s".into()],
        write: ClientWrite::Heartbeat { id: "odin-PS-8f4a2b".into(), request },
    }
}

fn close(at: i64) -> SpooledRequest {
    SpooledRequest { at, sockets: vec!["/s".into()], write: ClientWrite::Close { id: "odin-PS-8f4a2b".into() } }
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn entries(spool: &Spool) -> Vec<SpoolEntry> {
    let mut entries = Vec::new();
    let folder = spool.open(user()).unwrap().unwrap();
    folder.scan(0, |entry| entries.push(entry)).unwrap();
    entries.sort();
    entries
}

fn read(spool: &Spool) -> Vec<Result<SpooledRequest, ReadError>> {
    let folder = spool.open(user()).unwrap().unwrap();
    entries(spool).iter().map(|entry| folder.read(entry)).collect()
}

#[test]
fn requests_are_read_oldest_first_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::in_folder(&dir.path().join("state"));
    assert!(spool.open(user()).unwrap().is_none());
    for (at, random) in [(30, 1), (9, 2), (10, 3)] {
        spool.write(&close(at), random).unwrap();
    }
    let found: Vec<_> = read(&spool).into_iter().map(|request| request.unwrap().at).collect();
    assert_eq!(found, [9, 10, 30]);
    for (path, mode) in [(spool.dir().parent().unwrap(), 0o700), (spool.dir(), 0o700)] {
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, mode);
    }
    let listed = entries(&spool);
    assert!(listed.iter().all(|entry| entry.uid == user()));
    assert_eq!(listed.iter().map(|entry| entry.written_at).collect::<Vec<_>>(), [9, 10, 30]);
    let folder = spool.open(user()).unwrap().unwrap();
    folder.remove(listed.iter()).unwrap();
    folder.remove(listed.iter()).unwrap();
    assert_eq!(fs::read_dir(spool.dir()).unwrap().count(), 0);
}

#[test]
fn heartbeat_replaces_the_earlier_one_and_keeps_its_values() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let shared = dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(SHARED_MODE)).unwrap();
    let spooled_names = Some(dir.path().join("own/spooled"));
    for spool in [Spool::in_folder(&state), Spool { dir: shared, sharing: Sharing::Shared, spooled_names }] {
        spool.write(&heartbeat(1, Some(42), None), 1).unwrap();
        spool.write(&heartbeat(2, None, Some("004")), 2).unwrap();
        spool.write(&heartbeat(3, None, None), 3).unwrap();
        let only = |spool: &Spool| {
            let mut found = read(spool);
            assert_eq!(found.len(), 1);
            found.remove(0).unwrap()
        };
        assert_eq!(only(&spool).at, 2, "an equal heartbeat is not written again within five seconds");
        spool.write(&heartbeat(5_000_003, None, None), 4).unwrap();
        assert_eq!(only(&spool), heartbeat(5_000_003, Some(42), Some("004")));
    }
}

#[test]
fn redacts_secrets_before_writing() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::in_folder(&dir.path().join("state"));
    let secret = |key: &str| serde_json::json!({ key: "hunter2", "note": "kept" }).as_object().cloned().unwrap();
    let event = EventRequest { event_type: "note".into(), event_data: Some(secret("password")), parent_uuid: None };
    let checkpoint = CheckpointRequest {
        checkpoint_type: "manual".into(),
        work_state: secret("api_key"),
        context_window_percent: None,
    };
    let id = || "odin-PS-8f4a2b".to_owned();
    for (random, write) in
        [ClientWrite::Event { id: id(), request: event }, ClientWrite::Checkpoint { id: id(), request: checkpoint }]
            .into_iter()
            .enumerate()
    {
        spool.write(&SpooledRequest { at: 1, sockets: Vec::new(), write }, random as u64).unwrap();
    }
    for name in spool.names().unwrap() {
        let text = fs::read_to_string(spool.dir().join(name)).unwrap();
        assert!(!text.contains("hunter2") && text.contains("kept"), "{text}");
    }
}

#[test]
fn refuses_files_that_are_not_requests_without_opening_them() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::in_folder(&dir.path().join("state"));
    spool.make().unwrap();
    let at = |name: &str| spool.dir().join(name);
    fs::write(at("1.json"), "{\"at\": 1, \"sockets\": [], \"write\"").unwrap();
    // Sparse: far larger than what is on the disk.
    fs::File::create(at("2.json")).unwrap().set_len(1 << 40).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", at("3.json")).unwrap();
    fs::create_dir(at("4.json")).unwrap();
    fs::write(dir.path().join("other"), serde_json::to_vec(&close(1)).unwrap()).unwrap();
    fs::hard_link(dir.path().join("other"), at("5.json")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("6.json"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("7.json")).unwrap();
    fs::write(at(".8.json"), "a draft").unwrap();
    let read = read(&spool);
    assert!(matches!(&read[0], Err(ReadError::Invalid { content, .. }) if content.starts_with(b"{\"at\"")), "{read:?}");
    assert_eq!(read.len(), 7);
    assert!(read[1..].iter().all(|read| matches!(read, Err(ReadError::Refused(_)))), "{read:?}");
    assert!(entries(&spool)[1..].iter().all(|entry| entry.refusal.is_some()), "known without opening them");
}

#[test]
fn file_replaced_after_the_listing_is_neither_read_nor_removed() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::in_folder(&dir.path().join("state"));
    spool.write(&close(1), 1).unwrap();
    let folder = spool.open(user()).unwrap().unwrap();
    let listed = entries(&spool).remove(0);
    let path = spool.dir().join(&listed.name);
    let replace: [&dyn Fn(); 3] =
        [&|| std::os::unix::fs::symlink("/etc/passwd", &path).unwrap(), &|| fs::create_dir(&path).unwrap(), &|| {
            fs::write(&path, serde_json::to_vec(&close(2)).unwrap()).unwrap()
        }];
    for replace in replace {
        if fs::remove_file(&path).is_err() {
            fs::remove_dir(&path).unwrap();
        }
        replace();
        assert!(matches!(folder.read(&listed), Err(ReadError::Changed)));
        folder.remove([&listed].into_iter()).unwrap();
        assert!(fs::symlink_metadata(&path).is_ok());
    }
}

#[test]
fn rejects_a_folder_that_other_users_could_replace() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::in_folder(&dir.path().join("state"));
    spool.make().unwrap();
    let refusal = |spool: &Spool, owner| spool.open(owner).unwrap_err().to_string();
    let with_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();

    with_mode(spool.dir(), 0o770);
    assert!(refusal(&spool, user()).contains("0700"));
    let shared = Spool { sharing: Sharing::Shared, ..spool.clone() };
    assert!(refusal(&shared, user()).contains("sticky"));
    with_mode(spool.dir(), 0o1770);
    assert!(shared.open(user()).unwrap().is_some());
    with_mode(spool.dir(), 0o700);
    assert!(refusal(&spool, 54_321).contains("belongs to user"));

    let link = Spool::in_folder(&dir.path().join("linked"));
    fs::create_dir(dir.path().join("linked")).unwrap();
    std::os::unix::fs::symlink(spool.dir(), link.dir()).unwrap();
    assert!(refusal(&link, user()).contains("a link or a file, not a folder"));
    assert!(link.write(&close(1), 1).is_err(), "a client does not follow it either");

    if rustix::process::geteuid().is_root() {
        with_mode(&dir.path().join("state"), 0o777);
        assert!(refusal(&spool, user()).contains("may be changed by users other than root"));
    }
}

#[test]
fn each_change_of_activity_is_kept_and_uses_of_tools_are_merged() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::in_folder(&dir.path().join("state"));
    let beat = |at: i64, activity: Option<ActivityReport>, work: WorkUpdate| {
        let report = AgentReport {
            sign: "beat".to_owned(),
            claude_session_uuid: Some("u".to_owned()),
            at: Some(at.to_string()),
            activity,
            work: Some(work).filter(|work| !work.is_empty()),
            ..AgentReport::default()
        };
        SpooledRequest { at, sockets: vec!["/s".into()], write: ClientWrite::Agent { report: Box::new(report) } }
    };
    let activity = |activity: &str, actor: Option<&str>| {
        let actor = actor.map(str::to_owned);
        Some(ActivityReport { activity: activity.to_owned(), actor, ..ActivityReport::default() })
    };
    let file = |name: &str| WorkUpdate { files: vec![name.to_owned()], ..WorkUpdate::default() };
    let title = |title: &str| WorkUpdate { title: Some(title.to_owned()), ..WorkUpdate::default() };
    let cost = |cost: f64| WorkUpdate { cost_usd: Some(cost), ..WorkUpdate::default() };
    let prompt = WorkUpdate { prompt: Some("p".to_owned()), ..WorkUpdate::default() };
    for (random, request) in [
        beat(1, activity("working", None), prompt),
        beat(2, activity("working", Some("main")), file("a")),
        beat(3, activity("waiting", Some("main")), WorkUpdate::default()),
        beat(4, activity("working", Some("sub")), file("c")),
        beat(5, activity("working", Some("main")), file("b")),
        beat(6, None, title("t")),
        beat(7, None, cost(0.5)),
        beat(8, activity("idle", None), WorkUpdate::default()),
    ]
    .into_iter()
    .enumerate()
    {
        spool.write(&request, random as u64).unwrap();
    }
    let kept = read(&spool).into_iter().map(|request| {
        let ClientWrite::Agent { report } = request.unwrap().write else { panic!() };
        let work = report.work.unwrap_or_default();
        let activity = report.activity.map(|activity| activity.activity).unwrap_or_default();
        format!("{} {activity} {} {:?}", report.at.unwrap(), work.files.concat(), (work.title, work.cost_usd))
    });
    let expected = [
        "1 working  (None, None)",
        "3 waiting  (None, None)",
        "4 working c (None, None)",
        "5 working ab (None, None)",
        "7   (Some(\"t\"), Some(0.5))",
        "8 idle  (None, None)",
    ];
    assert_eq!(kept.collect::<Vec<_>>(), expected);
}
