//! The files in which running agents describe themselves: `sessions/PID.json` in Claude Code's folder. Their format is not
//! documented.
//!
//! A process first writes its file with a temporary id and without a `status`, and replaces it within about 60 ms by the one
//! of the conversation that it resumes; so a file without a status is ignored. A process that exits normally removes its
//! file; a killed one leaves it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::input::Input;
use super::{activity, background_job, project};
use crate::domain::activity::ActivityEvent;
use crate::domain::agent::AgentKind;
use crate::domain::session::{valid_claude_path, valid_claude_uuid, valid_working_dir};
use crate::domain::{Project, Timestamp};
use crate::platform::small_file;
use crate::wire::ActivityReport;

const WANTED: [&str; 12] = [
    "pid",
    "sessionId",
    "procStart",
    "cwd",
    "status",
    "statusUpdatedAt",
    "waitingFor",
    "name",
    "nameSource",
    "kind",
    "entrypoint",
    "jobId",
];

/// The largest file that is read, in bytes.
const MAX: u64 = 64 << 10;
/// The largest number of files that are read.
const MAX_FILES: usize = 1000;

/// An agent that its file describes as running.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunningAgent {
    /// The owner of the file.
    pub uid: u32,
    pub(crate) pid: i32,
    /// When the process started, in the platform's own unit; `None` if the file does not have it.
    pub started: Option<i64>,
    pub(crate) session_id: String,
    pub(crate) cwd: Option<String>,
    pub(crate) transcript: Option<String>,
    pub(crate) kind: Option<AgentKind>,
    /// The name of a background session's job.
    pub job: Option<String>,
    pub(crate) state: AgentState,
}

/// What changes while an agent runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AgentState {
    pub(crate) status: Option<AgentStatus>,
    /// The title that the user or the agent gave to the session; not one that is made of the folder's name.
    pub title: Option<String>,
}

/// What the agent does, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AgentStatus {
    name: String,
    waiting_for: Option<String>,
    pub(crate) at: Timestamp,
}

impl AgentStatus {
    /// `None`: it is a status of a later version.
    pub fn activity(&self) -> Option<ActivityReport> {
        activity::of_status_file(&self.name, self.waiting_for.as_deref())
    }
}

impl RunningAgent {
    /// The project of the folder that it works in.
    pub fn project(&self) -> Project {
        project::of(Path::new(self.cwd.as_deref().unwrap_or("/")))
    }

    /// What it does by its file.
    pub fn activity(&self) -> Option<ActivityEvent> {
        let status = self.state.status.as_ref()?;
        status.activity()?.validate(status.at).ok()
    }

    /// Whether the job that it runs continues, perhaps in another process; `None` if that is not known.
    pub fn job_continues(&self, home: &Path) -> Option<bool> {
        background_job::continues(&home.join("jobs").join(self.job.as_ref()?))
    }
}

/// The folder of the files.
pub fn folder(home: &Path) -> PathBuf {
    home.join("sessions")
}

/// The agents of all files; unreadable files are skipped, as they may be incomplete.
pub fn all(home: &Path) -> Vec<RunningAgent> {
    let entries = fs::read_dir(folder(home)).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = entries.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
    files.take(MAX_FILES).filter_map(|path| read(home, &path)).collect()
}

/// Whether the file of this process is there.
pub fn has_file(home: &Path, pid: i32) -> bool {
    folder(home).join(format!("{pid}.json")).symlink_metadata().is_ok()
}

fn read(home: &Path, path: &Path) -> Option<RunningAgent> {
    let (about, reader) = small_file::open(path, MAX)?;
    let input = Input::read(reader, &WANTED);
    let status = input.text("status")?;
    let pid = number(&input, "pid").and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0)?;
    let session_id = valid_claude_uuid(input.text("sessionId")?).ok()?;
    let cwd = input.text("cwd").and_then(|cwd| valid_working_dir(cwd).ok());
    Some(RunningAgent {
        uid: about.uid(),
        pid,
        started: started(&input)?,
        transcript: cwd.as_deref().and_then(|cwd| transcript(home, cwd, &session_id)),
        session_id,
        cwd,
        kind: kind(&input),
        job: input.text("jobId").filter(|job| is_name(job)).map(str::to_owned),
        state: state(&input, status),
    })
}

fn state(input: &Input, status: &str) -> AgentState {
    /// Longer ones are of no known version.
    const LONGEST: usize = 100;
    let short = |text: &str| text.chars().take(LONGEST).collect::<String>();
    let at = number(input, "statusUpdatedAt").and_then(|millis| millis.checked_mul(1000)).filter(|at| *at > 0);
    let is_given = matches!(input.text("nameSource"), Some("user" | "auto"));
    AgentState {
        status: at.map(|at| AgentStatus {
            name: short(status),
            waiting_for: input.text("waitingFor").map(short),
            at: Timestamp::from_micros(at),
        }),
        title: input.text("name").filter(|_| is_given).map(str::to_owned),
    }
}

fn number(input: &Input, name: &str) -> Option<i64> {
    let value = input.at(&[name])?;
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// When the process started, if the file has it in this platform's unit. The outer `None`: its form is unknown, and the file
/// is ignored.
fn started(input: &Input) -> Option<Option<i64>> {
    match input.at(&["procStart"]) {
        None => Some(None),
        Some(value) if value.is_null() => Some(None),
        // On macOS it is a text of `ps`, such as `Wed Nov 25 16:46:36 2026`, and not used.
        Some(_) if !cfg!(target_os = "linux") => Some(None),
        Some(_) => number(input, "procStart").map(Some),
    }
}

fn kind(input: &Input) -> Option<AgentKind> {
    let entrypoint = input.text("entrypoint").unwrap_or_default();
    match input.text("kind") {
        Some("bg") => Some(AgentKind::Background),
        _ if entrypoint.starts_with("sdk") => Some(AgentKind::Headless),
        Some("interactive") => Some(AgentKind::Interactive),
        _ => None,
    }
}

fn is_name(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The longest name of a folder of transcripts, in UTF-16 units. A longer one is cut there, followed by a hyphen and a hash.
const FOLDER_MAX: usize = 200;

/// The transcript of a conversation that started in this folder. The hash in a long name depends on Claude Code's runtime
/// (Bun, Node), so that for long names only an existing transcript is found.
fn transcript(home: &Path, cwd: &str, session_id: &str) -> Option<String> {
    let projects = home.join("projects");
    let name = encoded(cwd);
    let file = format!("{session_id}.jsonl");
    let path = match name.get(..FOLDER_MAX).filter(|_| name.len() > FOLDER_MAX) {
        None => projects.join(name).join(file),
        Some(cut) => {
            let is_cut_so = |name: &str| name.strip_prefix(cut).is_some_and(|rest| rest.starts_with('-'));
            let folders = fs::read_dir(projects).ok()?.flatten();
            let found = folders.filter(|folder| folder.file_name().to_str().is_some_and(is_cut_so));
            found.map(|folder| folder.path().join(&file)).find(|path| path.exists())?
        }
    };
    valid_claude_path(path.to_str()?).ok()
}

/// The folder's name as Claude Code writes it: each UTF-16 unit that is no ASCII letter or digit is a hyphen, so that
/// an emoji is two.
fn encoded(cwd: &str) -> String {
    let one = |c: char| match c.is_ascii_alphanumeric() {
        true => c.to_string(),
        false => "-".repeat(c.len_utf16()),
    };
    cwd.chars().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_and_incomplete_files_are_skipped() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(all(dir.path()), []);
        fs::create_dir(folder(dir.path())).unwrap();
        let write = |name: &str, text: &str| fs::write(folder(dir.path()).join(name), text).unwrap();
        write("1.json", r#"{"pid": 7, "sessionId": "s", "procStart": "99", "cwd": "/My work", "status": "busy"}"#);
        for (name, text) in [
            ("2.json", ""),
            ("3.json", r#"{"pid": 7, "sessionId": "s", "status": "idle", "procSta"#),
            ("4.json", r#"{"pid": -7, "sessionId": "s", "status": "idle"}"#),
            ("5.json", r#"{"pid": 7, "sessionId": "s", "status": "idle", "procStart": "Tue"}"#),
            ("6.json", r#"{"pid": 7, "sessionId": 8, "status": "idle"}"#),
            ("7.txt", r#"{"pid": 7, "sessionId": "s", "status": "idle"}"#),
            ("9.json", r#"{"pid": 7, "sessionId": "throw-away", "procStart": "99", "cwd": "/w"}"#),
            ("10.json", r#"{"pid": 7, "sessionId": "throw-away", "procStart": "99", "cwd": "/w", "status": null}"#),
        ] {
            write(name, text);
        }
        fs::create_dir(folder(dir.path()).join("8.json")).unwrap();
        let found = all(dir.path());
        // The third breaks off within a key, after all that is needed.
        let found: Vec<_> = found.into_iter().filter(|running| running.cwd.is_some()).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].pid, found[0].session_id.as_str()), (7, "s"));
        assert_eq!(found[0].started, cfg!(target_os = "linux").then_some(99));
        assert!(found[0].transcript.as_deref().unwrap().ends_with("/projects/-My-work/s.jsonl"));
    }

    #[test]
    fn recorded_status_files_yield_the_activity() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/agents/claude-code/2.1.332/sessions-PID.jsonl");
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(folder(dir.path())).unwrap();
        let file = folder(dir.path()).join("1.json");
        let mut found = Vec::new();
        for line in fs::read_to_string(path).unwrap().lines() {
            fs::write(&file, line).unwrap();
            for AgentState { status, title } in all(dir.path()).into_iter().map(|agent| agent.state) {
                let status = status.unwrap();
                let report = status.activity().unwrap();
                assert!(report.validate(status.at).is_ok() && report.source.as_deref() == Some("status_file"));
                assert!((1_795_624_000_000_000..1_795_700_000_000_000).contains(&status.at.micros()));
                let parts = [Some(report.activity), report.waiting_for, report.detail, title];
                found.push(parts.into_iter().flatten().collect::<Vec<_>>().join(" "));
            }
        }
        assert_eq!(found[..5], ["idle", "working", "waiting permission", "waiting input", "idle"]);
        for expected in ["waiting input mytask", "working mytask"] {
            assert!(found.iter().any(|found| found == expected), "{found:?}");
        }
        assert!(found.iter().all(|found| !found.contains("app-")), "a name that is made of the folder's");
    }

    #[test]
    fn unknown_status_reports_no_activity() {
        let of =
            |text: &str| state(&Input::read(text.as_bytes(), &WANTED), "busy").status.map(|status| status.at.micros());
        assert_eq!(of(r#"{"statusUpdatedAt": 7}"#), Some(7000));
        for text in ["{}", r#"{"statusUpdatedAt": -7}"#, r#"{"statusUpdatedAt": 9223372036854775807}"#] {
            assert_eq!(of(text), None, "{text}");
        }
        assert_eq!(activity::of_status_file("of a later version", None), None);
        let shell = activity::of_status_file("shell", None).unwrap();
        assert_eq!((shell.activity.as_str(), shell.detail.as_deref()), ("working", Some("shell")));
    }

    #[test]
    fn fifo_in_the_folder_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(folder(dir.path())).unwrap();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, folder(dir.path()).join("7.json"), mode).unwrap();
        assert_eq!(all(dir.path()), []);
    }

    #[test]
    fn kinds_of_sessions_are_recognised() {
        let of = |text: &str| kind(&Input::read(text.as_bytes(), &WANTED));
        assert_eq!(of(r#"{"kind": "interactive", "entrypoint": "cli"}"#), Some(AgentKind::Interactive));
        assert_eq!(of(r#"{"kind": "interactive", "entrypoint": "sdk-cli"}"#), Some(AgentKind::Headless));
        assert_eq!(of(r#"{"kind": "bg", "entrypoint": "cli", "jobId": "fddf4009"}"#), Some(AgentKind::Background));
        assert_eq!(of("{}"), None);
    }

    #[test]
    fn folders_of_transcripts_are_named_as_claude_code_names_them() {
        assert_eq!(encoded("/home/dev/src/app/.claude/worktrees/x"), "-home-dev-src-app--claude-worktrees-x");
        assert_eq!(encoded("/w/Größe"), "-w-Gr--e");
        assert_eq!(encoded("/w/🚀"), "-w---", "two UTF-16 units");
        let dir = tempfile::tempdir().unwrap();
        let long = format!("/{}", "🚀x".repeat(100));
        assert_eq!(transcript(dir.path(), &long, "s"), None, "the hash is not known");
        for folder in [format!("{}-1f2g3h", &encoded(&long)[..FOLDER_MAX]), "-other".to_owned()] {
            let folder = dir.path().join("projects").join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("s.jsonl"), "").unwrap();
        }
        let found = transcript(dir.path(), &long, "s").unwrap();
        assert!(found.ends_with("-1f2g3h/s.jsonl"), "{found}");
        assert_eq!(transcript(dir.path(), &long, "t"), None);
        let exact = format!("/{}", "x".repeat(FOLDER_MAX - 1));
        assert!(transcript(dir.path(), &exact, "s").unwrap().ends_with("x/s.jsonl"));
    }
}
