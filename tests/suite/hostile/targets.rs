//! What each parser promises for whatever bytes come in; a broken promise panics.
//!
//! Two drivers use them: `hostile::fuzz` mutates seeds for a few seconds of each test run, and `fuzz/` lets
//! libFuzzer look for new paths through the code for as long as somebody likes.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sessiond::client::http::Response;
use sessiond::config::{self, Environment, Overrides, Settings};
use sessiond::domain::{InstanceId, InstanceType, Invalid, MachineName, Project, Registration, Status};
use sessiond::platform::places::Os;
use sessiond::store::IdentityFile;
use sessiond::sync::postgres::PostgresOptions;
use sessiond::wire::{HeartbeatRequest, IdentityRename, ParkedIds, RegisterRequest, SyncRequest};

pub type Target = fn(&[u8]);

/// Each target, by the name of its folder of seeds.
pub const TARGETS: [(&str, Target); 6] = [
    ("bodies", bodies),
    ("names", names),
    ("answers", answers),
    ("config", config),
    ("identity", identity),
    ("central_url", central_url),
];

/// The password that the seeds carry: it never shows.
const SECRET: &str = "s3cr3t";

/// Every error is one line of bounded length.
pub fn assert_tidy(message: &str) {
    assert!(!message.is_empty(), "an error without words");
    assert!(message.len() <= 1024, "{} bytes of error: {message:.200}...", message.len());
    assert!(!message.contains(char::is_control), "control characters in {message:?}");
}

/// The bodies of requests: from JSON through wire into domain, and back to JSON.
pub fn bodies(data: &[u8]) {
    if let Some(request) = body::<RegisterRequest>(data)
        && let Some(registration) = tidy(request.validate(&MachineName::guess()))
    {
        assert_registration(&registration);
    }
    if let Some(request) = body::<HeartbeatRequest>(data)
        && let Some(beat) = tidy(request.validate())
    {
        assert!(beat.context_percent.is_none_or(|percent| percent <= 100));
        assert_text(beat.current_epic.flatten().as_deref(), 256);
    }
    body::<SyncRequest>(data);
    body::<ParkedIds>(data);
    if let Some(request) = body::<IdentityRename>(data)
        && let Some(name) = tidy(MachineName::parse(&request.name))
    {
        assert_machine(name.as_str());
    }
}

/// A body that is accepted survives its own serialisation; one that is not is refused in a line.
fn body<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(data: &[u8]) -> Option<T> {
    match sessiond::api::parse_body::<T>(data) {
        Err(error) => {
            assert_tidy(&error.detail().message);
            None
        }
        Ok(value) => {
            let again = serde_json::to_vec(&value).expect("what was parsed can be written");
            assert_eq!(sessiond::api::parse_body::<T>(&again).ok().as_ref(), Some(&value));
            Some(value)
        }
    }
}

fn tidy<T>(validated: Result<T, Invalid>) -> Option<T> {
    validated.map_err(|invalid| assert_tidy(&invalid.to_string())).ok()
}

fn assert_registration(what: &Registration) {
    assert_project(what.project.as_str());
    assert_machine(what.host_machine.as_str());
    assert!(what.context_percent <= 100);
    assert_text(what.current_epic.as_deref(), 256);
    assert_text(what.claude_session_uuid.as_deref(), 64);
    assert_text(what.claude_session_path.as_deref(), 4096);
}

fn assert_text(text: Option<&str>, longest: usize) {
    let Some(text) = text else { return };
    assert!((1..=longest).contains(&text.chars().count()) && !text.contains(char::is_control), "{text:?}");
}

const fn lower(c: char) -> bool {
    matches!(c, 'a'..='z' | '0'..='9')
}

fn assert_project(name: &str) {
    assert!((1..=22).contains(&name.len()) && name.chars().all(|c| lower(c) || c == '-'), "{name:?}");
}

fn assert_machine(name: &str) {
    assert!((1..=64).contains(&name.len()) && name.starts_with(lower), "{name:?}");
    assert!(name.chars().all(|c| lower(c) || c == '-' || c == '_'), "{name:?}");
}

/// The names that other programs hold on to.
pub fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(name) = tidy(MachineName::parse(&text)) {
        assert_machine(name.as_str());
        assert_eq!(name.as_str(), text);
    }
    if let Some(project) = tidy(Project::parse(&text)) {
        assert_project(project.as_str());
        let random = data.iter().fold(0_u64, |hash, &byte| hash.rotate_left(9) ^ u64::from(byte));
        let drawn = InstanceId::draw(&project, InstanceType::Ms, random);
        assert_eq!(InstanceId::parse(drawn.as_str()).as_ref(), Ok(&drawn));
    }
    if let Some(id) = tidy(InstanceId::parse(&text)) {
        assert!(id.as_str() == text && text.len() <= 32 && text.is_ascii(), "{text:?}");
    }
    if let Some(kind) = tidy(InstanceType::parse(&text)) {
        assert_eq!(kind.as_str(), text);
    }
    if let Some(status) = tidy(Status::parse(&text)) {
        assert_eq!(status.as_str(), text);
    }
}

/// The daemon's answers, as the client reads them: the same in one piece and byte by byte.
pub fn answers(data: &[u8]) {
    let whole = answer(Cursor::new(data));
    let dripped = answer(BufReader::with_capacity(1, data));
    match (&whole, &dripped) {
        (Ok(whole), Ok(dripped)) => assert_eq!(whole, dripped),
        (Err(whole), Err(dripped)) => assert_eq!(whole.kind(), dripped.kind()),
        _ => panic!("{whole:?}, but byte by byte {dripped:?}"),
    }
    match whole {
        Ok((status, body)) => assert!((100..1000).contains(&status) && body.len() <= data.len()),
        Err(error) => assert_tidy(&error.to_string()),
    }
}

fn answer(reader: impl BufRead) -> io::Result<(u16, Vec<u8>)> {
    let mut response = Response::read(reader)?;
    let mut body = Vec::new();
    response.body.read_to_end(&mut body)?;
    Ok((response.status, body))
}

thread_local! {
    static FOLDER: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
}

/// A file in a folder of this thread, with these bytes in it.
fn file(name: &str, data: &[u8]) -> PathBuf {
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| tempfile::tempdir().expect("a folder"));
        let path = folder.path().join(name);
        fs::write(&path, data).expect("the folder can be written");
        path
    })
}

/// The configuration file, through everything between it and settings that are valid.
pub fn config(data: &[u8]) {
    let overrides = Overrides { config: Some(file("config.toml", data)), ..Overrides::default() };
    let variable = |name: &str| (name == "HOME").then(|| OsString::from("/home/me"));
    let environment = Environment { os: Os::Linux, is_root: false, variable: &variable };
    let text = String::from_utf8_lossy(data);
    match config::load(&overrides, &environment) {
        Ok(loaded) => {
            assert_settings(&loaded.settings);
            assert!(!is_password(&text) || !format!("{loaded:?}").contains(SECRET));
        }
        Err(error) => {
            let error = error.to_string();
            assert_tidy(&error);
            assert!(!is_password(&text) || !error.contains(SECRET), "the password shows: {error}");
        }
    }
}

/// Does the secret stand where a password stands in a URL, and nowhere else?
fn is_password(text: &str) -> bool {
    text.matches(SECRET).count() == 1
        && (text.contains(&format!("postgres://me:{SECRET}@")) || text.contains(&format!("?password={SECRET}\"")))
}

fn assert_settings(settings: &Settings) {
    assert!(settings.stale_after > settings.heartbeat_interval);
    assert!(settings.heartbeat_interval.as_secs() >= 1 && settings.stale_after.as_secs() <= 86_400);
    assert!(settings.max_size >= 1 << 20);
    assert!(settings.state_dir.is_absolute() && settings.socket.path.is_absolute());
    assert!(settings.socket.path.as_os_str().len() <= 103);
    assert_eq!(settings.socket.mode & !0o177, 0o600);
    if let Some(name) = &settings.machine.name {
        assert_machine(name.as_str());
    }
}

/// The file that pins the identity: what is read from it can be written and read again.
pub fn identity(data: &[u8]) {
    let path = file("identity.json", data);
    let pin = IdentityFile::in_folder(path.parent().expect("it lies in a folder"));
    match pin.load() {
        Ok(identity) => {
            let identity = identity.expect("the file is there");
            assert_machine(identity.name.as_str());
            pin.save(&identity).expect("the folder can be written");
            assert_eq!(pin.load().ok().flatten(), Some(identity));
        }
        Err(error) => assert_tidy(&error.to_string()),
    }
}

/// The URL of central: whatever becomes of it, its password does not show.
pub fn central_url(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let shown = match PostgresOptions::parse(&text, None) {
        Ok(options) => {
            assert_tidy(options.display());
            format!("{options:?}")
        }
        Err(error) => error.to_string(),
    };
    assert_tidy(&shown);
    let password = [format!("postgres://me:{SECRET}@"), format!("postgresql://me:{SECRET}@")]
        .iter()
        .any(|start| text.starts_with(start) && text.matches(SECRET).count() == 1);
    assert!(!password || !shown.contains(SECRET), "the password shows: {shown}");
}
