//! An agent's signs of life, and which session each belongs to.
//!
//! An agent process tells of itself by whatever it has at hand: its own id of the session, which may change;
//! its process, which a resume changes; the folder it works in. Whichever of its voices (hook, status line,
//! discovery) is heard first begins the session, all others take it up.

use super::{InstanceId, InstanceType, Project};

/// What an agent tells with a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It begins, or goes on.
    Start(Source),
    /// Its process was found running.
    Found,
    /// It lives.
    Beat,
    /// It ends for good.
    End,
    /// Its process is gone, and its work is not done.
    Gone,
}

/// What made an agent start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Startup,
    Resume,
    Clear,
    Compact,
    Fork,
}

impl Source {
    pub fn parse(source: &str) -> Option<Self> {
        Some(match source {
            "startup" => Self::Startup,
            "resume" => Self::Resume,
            "clear" => Self::Clear,
            "compact" => Self::Compact,
            "fork" => Self::Fork,
            _ => return None,
        })
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Resume => "resume",
            Self::Clear => "clear",
            Self::Compact => "compact",
            Self::Fork => "fork",
        }
    }
}

/// What an agent says of itself; every field is valid.
#[derive(Clone, Debug)]
pub struct Report {
    pub sign: Sign,
    pub claude_session_uuid: Option<String>,
    pub claude_session_path: Option<String>,
    pub working_dir: Option<String>,
    pub project: Project,
    pub instance_type: InstanceType,
    /// 0 to 100.
    pub context_percent: Option<u8>,
    /// An id already told to the agent, while no daemon could be asked: it must lead to the session.
    pub promised_id: Option<InstanceId>,
}

/// A session that a report may belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub id: InstanceId,
    pub closed: bool,
    /// Whether the process that reports is the one that used it last; `None`: one of the two is unknown.
    pub same_process: Option<bool>,
}

/// The sessions of the reporting user that a report may belong to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// Goes, or once went, by the agent's own id.
    pub by_uuid: Option<Candidate>,
    /// Is open, and its process is the one that reports.
    pub by_process: Option<Candidate>,
    /// The agent's newest in the same folder, of which no process runs.
    pub by_folder: Option<Candidate>,
}

/// What becomes of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is a sign of life of this session.
    TakeUp(InstanceId),
    /// It ends this session.
    Close(InstanceId),
    /// Nothing runs this session any more.
    Abandon(InstanceId),
    /// It belongs to this session, which is closed and stays so.
    Leave(InstanceId),
    /// A session begins, perhaps going on from another.
    Begin { resumed_from: Option<InstanceId> },
    /// It tells of nothing that is known here.
    Unknown,
}

/// Which session a report belongs to. The agent's own id says most; a process survives a clear; a resume by a
/// new process under a new id leaves only the folder. A session that was closed is never opened again (G4):
/// who goes on from it begins a new one.
pub fn judge(sign: Sign, tells_who: bool, known: Candidates) -> Verdict {
    let Candidates { by_uuid, by_process, by_folder } = known;
    match sign {
        Sign::End => match by_uuid.or(by_process) {
            Some(session) if session.closed => Verdict::Leave(session.id),
            Some(session) => Verdict::Close(session.id),
            None => Verdict::Unknown,
        },
        Sign::Gone => match by_uuid.or(by_process) {
            Some(session) if session.closed => Verdict::Leave(session.id),
            Some(session) => Verdict::Abandon(session.id),
            None => Verdict::Unknown,
        },
        Sign::Found | Sign::Beat => match by_uuid.or(by_process) {
            // Late words of a process that has ended its session are no new session.
            Some(session) if session.closed && session.same_process != Some(false) => Verdict::Leave(session.id),
            Some(session) => go_on(session),
            None if tells_who => Verdict::Begin { resumed_from: None },
            None => Verdict::Unknown,
        },
        Sign::Start(Source::Fork) => match by_uuid {
            Some(session) => go_on(session),
            None => Verdict::Begin { resumed_from: by_process.map(|original| original.id) },
        },
        Sign::Start(Source::Startup) => match by_uuid.or(by_process) {
            Some(session) => go_on(session),
            None => Verdict::Begin { resumed_from: None },
        },
        Sign::Start(Source::Compact) if by_uuid.as_ref().is_some_and(|s| s.closed && s.same_process == Some(true)) => {
            by_uuid.map_or(Verdict::Unknown, |session| Verdict::Leave(session.id))
        }
        Sign::Start(Source::Resume | Source::Clear | Source::Compact) => match by_uuid.or(by_process).or(by_folder) {
            Some(session) => go_on(session),
            None => Verdict::Begin { resumed_from: None },
        },
    }
}

fn go_on(session: Candidate) -> Verdict {
    match session.closed {
        true => Verdict::Begin { resumed_from: Some(session.id) },
        false => Verdict::TakeUp(session.id),
    }
}

/// Which sessions are those of a meta supervisor: the first rule that fits decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeRule {
    /// The project's name; `None`: any.
    pub project: Option<String>,
    /// This folder and all below it; `None`: any.
    pub folder: Option<String>,
    pub instance_type: InstanceType,
}

impl TypeRule {
    fn fits(&self, project: &Project, folder: Option<&str>) -> bool {
        let below = |top: &String| {
            let top = top.trim_end_matches('/');
            folder
                .and_then(|folder| folder.strip_prefix(top))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.project.as_ref().is_none_or(|name| name == project.as_str()) && self.folder.as_ref().is_none_or(below)
    }
}

/// The type that the rules give a session; without any, a project supervisor.
pub fn type_by(rules: &[TypeRule], project: &Project, folder: Option<&str>) -> InstanceType {
    rules.iter().find(|rule| rule.fits(project, folder)).map_or(InstanceType::Ps, |rule| rule.instance_type)
}

/// The name of a repository or folder, made a project's name: the same on every machine. What cannot be
/// written in its letters is told apart by a hash of the whole name.
pub fn project_named(name: &str) -> Project {
    let mut kept = String::new();
    let mut lost = false;
    for letter in name.chars().flat_map(char::to_lowercase) {
        match letter {
            'a'..='z' | '0'..='9' => kept.push(letter),
            _ => match plain(letter) {
                Some(letters) => kept.push_str(letters),
                None => {
                    lost |= letter.is_alphanumeric();
                    if !kept.is_empty() && !kept.ends_with('-') {
                        kept.push('-');
                    }
                }
            },
        }
    }
    let kept = kept.trim_end_matches('-');
    let hashed = lost || kept.is_empty();
    let hash = if hashed { format!("{:08x}", fnv(name)) } else { String::new() };
    let room = Project::MAX - if hashed { hash.len() + 1 } else { 0 };
    let kept = kept[..kept.len().min(room)].trim_end_matches('-');
    let name = match (kept, hashed) {
        (kept, false) => kept.to_owned(),
        ("", true) => format!("p-{hash}"),
        (kept, true) => format!("{kept}-{hash}"),
    };
    Project::parse(&name).unwrap_or_else(|_| Project::unnamed())
}

/// Letters with marks, as people write them where only plain ones go.
fn plain(letter: char) -> Option<&'static str> {
    Some(match letter {
        'ä' | 'æ' => "ae",
        'ö' | 'œ' => "oe",
        'ü' => "ue",
        'ß' => "ss",
        'å' => "aa",
        'ø' => "o",
        'à' | 'á' | 'â' | 'ã' | 'ā' | 'ă' | 'ą' => "a",
        'ç' | 'ć' | 'č' => "c",
        'ď' | 'đ' => "d",
        'è' | 'é' | 'ê' | 'ë' | 'ē' | 'ę' | 'ě' => "e",
        'ğ' => "g",
        'ì' | 'í' | 'î' | 'ï' | 'ı' => "i",
        'ł' => "l",
        'ñ' | 'ń' | 'ň' => "n",
        'ò' | 'ó' | 'ô' | 'õ' | 'ő' => "o",
        'ř' => "r",
        'ś' | 'š' | 'ş' => "s",
        'ť' => "t",
        'ù' | 'ú' | 'û' | 'ū' | 'ů' | 'ű' => "u",
        'ý' | 'ÿ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        _ => return None,
    })
}

/// FNV-1a, folded to 32 bits: stable over versions and machines, which std's hasher is not.
fn fnv(text: &str) -> u32 {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    ((hash >> 32) ^ hash) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> String {
        project_named(name).to_string()
    }

    #[test]
    fn any_name_becomes_a_project() {
        for (name, project) in [
            ("odin", "odin"),
            ("My Project", "my-project"),
            ("Über_Größe.v2", "ueber-groesse-v2"),
            ("--x--", "x"),
            ("a-name-that-is-much-too-long", "a-name-that-is-much-to"),
            ("exactly-22-long--------x", "exactly-22-long-x"),
        ] {
            assert_eq!(named(name), project, "{name}");
        }
        for name in ["проект", "项目", "", "...", "İ", "\u{0}", "проект-x", &"項".repeat(500), &"é".repeat(500)]
        {
            let project = named(name);
            assert_eq!(project, named(name));
            assert!((1..=22).contains(&project.len()), "{name}: {project}");
        }
        assert_ne!(named("проект"), named("项目"));
        assert!(named("проект-x").starts_with("x-"), "{}", named("проект-x"));
    }

    fn candidate(id: &str, closed: bool, same_process: Option<bool>) -> Option<Candidate> {
        Some(Candidate { id: InstanceId::parse(id).unwrap(), closed, same_process })
    }

    const A: &str = "odin-PS-aaaaaa";
    const B: &str = "odin-PS-bbbbbb";

    fn id(id: &str) -> InstanceId {
        InstanceId::parse(id).unwrap()
    }

    #[test]
    fn the_same_agent_keeps_its_session() {
        let all = |uuid, process, folder| Candidates { by_uuid: uuid, by_process: process, by_folder: folder };
        let open = |id| candidate(id, false, None);
        for sign in [Sign::Beat, Sign::Found, Sign::Start(Source::Startup), Sign::Start(Source::Fork)] {
            assert_eq!(judge(sign, true, all(open(A), open(B), open(B))), Verdict::TakeUp(id(A)), "{sign:?}");
        }
        for source in [Source::Resume, Source::Clear, Source::Compact] {
            let sign = Sign::Start(source);
            assert_eq!(judge(sign, true, all(None, open(A), open(B))), Verdict::TakeUp(id(A)), "{sign:?}");
            assert_eq!(judge(sign, true, all(None, None, open(A))), Verdict::TakeUp(id(A)), "{sign:?}");
            assert_eq!(judge(sign, true, all(None, None, None)), Verdict::Begin { resumed_from: None }, "{sign:?}");
        }
        let fork = judge(Sign::Start(Source::Fork), true, all(None, open(A), None));
        assert_eq!(fork, Verdict::Begin { resumed_from: Some(id(A)) }, "a fork is another session");
        let other = judge(Sign::Start(Source::Startup), true, all(None, None, open(A)));
        assert_eq!(other, Verdict::Begin { resumed_from: None }, "in one folder many sessions may run");
    }

    #[test]
    fn closed_stays_closed() {
        let closed = |same| Candidates { by_uuid: candidate(A, true, same), ..Candidates::default() };
        let begins = Verdict::Begin { resumed_from: Some(id(A)) };
        assert_eq!(judge(Sign::Start(Source::Resume), true, closed(None)), begins);
        assert_eq!(judge(Sign::Beat, true, closed(Some(true))), Verdict::Leave(id(A)));
        assert_eq!(judge(Sign::Beat, true, closed(None)), Verdict::Leave(id(A)));
        assert_eq!(judge(Sign::Found, true, closed(Some(false))), begins, "another process goes on from it");
        assert_eq!(judge(Sign::End, true, closed(None)), Verdict::Leave(id(A)));
        assert_eq!(judge(Sign::Gone, true, closed(None)), Verdict::Leave(id(A)));
        assert_eq!(judge(Sign::End, true, Candidates::default()), Verdict::Unknown);
        assert_eq!(judge(Sign::Beat, false, Candidates::default()), Verdict::Unknown);
        assert_eq!(judge(Sign::Start(Source::Compact), true, closed(Some(true))), Verdict::Leave(id(A)));
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rule = |project: Option<&str>, folder: Option<&str>, instance_type| TypeRule {
            project: project.map(str::to_owned),
            folder: folder.map(str::to_owned),
            instance_type,
        };
        let rules = [
            rule(Some("odin"), Some("/w/x"), InstanceType::Ps),
            rule(None, Some("/w/"), InstanceType::Ms),
            rule(Some("meta"), None, InstanceType::Ms),
        ];
        let kind = |project: &str, folder| type_by(&rules, &Project::parse(project).unwrap(), folder);
        assert_eq!(kind("odin", Some("/w/x/y")), InstanceType::Ps);
        assert_eq!(kind("odin", Some("/w/z")), InstanceType::Ms);
        assert_eq!(kind("odin", Some("/wide")), InstanceType::Ps);
        assert_eq!(kind("meta", None), InstanceType::Ms);
        assert_eq!(kind("odin", None), InstanceType::Ps);
    }
}
