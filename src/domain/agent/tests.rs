//! Which session an agent's report belongs to.

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

fn open(id: &str) -> SessionCandidate {
    let id = InstanceId::parse(id).unwrap();
    SessionCandidate {
        id,
        closed: false,
        same_process: None,
        is_current: true,
        is_left: false,
        runs_elsewhere: false,
        same_project: true,
    }
}

fn closed(id: &str, same_process: Option<bool>) -> SessionCandidate {
    SessionCandidate { closed: true, same_process, ..open(id) }
}

const A: &str = "odin-PS-aaaaaa";
const B: &str = "odin-PS-bbbbbb";
const C: &str = "odin-PS-cccccc";
const BEGIN: Resolution = Resolution::Begin { resumed_from: None };
const RESUME: AgentSignal = AgentSignal::Start(StartSource::Resume);

fn id(id: &str) -> InstanceId {
    InstanceId::parse(id).unwrap()
}

fn by_conversation(session: SessionCandidate) -> SessionCandidates {
    SessionCandidates { by_conversation: Some(session), ..SessionCandidates::default() }
}

fn by_process(session: SessionCandidate) -> SessionCandidates {
    SessionCandidates { by_process: Some(session), ..SessionCandidates::default() }
}

#[test]
fn agent_keeps_its_session() {
    let all = SessionCandidates {
        by_conversation: Some(open(A)),
        by_process: Some(open(B)),
        outer: Some(open(C)),
        by_folder: Some(open(B)),
    };
    let starts =
        [StartSource::Startup, StartSource::Resume, StartSource::Clear, StartSource::Compact, StartSource::Fork]
            .map(AgentSignal::Start);
    for sign in starts.into_iter().chain([AgentSignal::Heartbeat, AgentSignal::Found]) {
        assert_eq!(resolve(sign, true, all.clone()), Resolution::Adopt(id(A)), "{sign:?}");
        if sign != AgentSignal::Start(StartSource::Fork) {
            let by_process = SessionCandidates { by_conversation: None, ..all.clone() };
            assert_eq!(resolve(sign, true, by_process), Resolution::Adopt(id(B)), "{sign:?}");
            let outer = SessionCandidates { by_conversation: None, by_process: None, ..all.clone() };
            assert_eq!(resolve(sign, true, outer), Resolution::Adopt(id(C)), "{sign:?}");
        }
        assert_eq!(resolve(sign, true, SessionCandidates::default()), BEGIN, "{sign:?}");
    }
    let fork = resolve(AgentSignal::Start(StartSource::Fork), true, by_process(open(A)));
    assert_eq!(fork, Resolution::Begin { resumed_from: Some(id(A)) }, "a fork is another session");
    let folder = SessionCandidates { by_folder: Some(open(A)), ..SessionCandidates::default() };
    assert_eq!(resolve(AgentSignal::Start(StartSource::Clear), true, folder.clone()), Resolution::Adopt(id(A)));
    for sign in [RESUME, AgentSignal::Start(StartSource::Startup), AgentSignal::Heartbeat] {
        assert_eq!(resolve(sign, true, folder.clone()), BEGIN, "the folder alone does not identify: {sign:?}");
    }
}

#[test]
fn resume_of_an_unknown_conversation_is_a_new_session() {
    let left = SessionCandidate { is_left: true, is_current: false, ..open(A) };
    assert_eq!(resolve(RESUME, true, by_process(left.clone())), BEGIN);
    assert_eq!(resolve(AgentSignal::Start(StartSource::Clear), true, by_process(left)), Resolution::Adopt(id(A)));
    let throw_away = SessionCandidate { is_current: false, ..open(A) };
    assert_eq!(resolve(RESUME, true, by_process(throw_away)), Resolution::Adopt(id(A)), "a start under two ids");
}

#[test]
fn start_in_another_project_is_another_session() {
    let elsewhere = SessionCandidate { same_project: false, ..open(A) };
    assert_eq!(resolve(AgentSignal::Start(StartSource::Startup), true, by_process(elsewhere.clone())), BEGIN);
    assert_eq!(
        resolve(AgentSignal::Heartbeat, true, by_process(elsewhere)),
        Resolution::Adopt(id(A)),
        "it works elsewhere"
    );
}

#[test]
fn end_closes_only_the_session_that_it_names() {
    for (sign, ends) in [
        (AgentSignal::End, Resolution::Close(id(A))),
        (AgentSignal::Interrupted, Resolution::Abandon(id(A))),
        (AgentSignal::Exited, Resolution::Close(id(A))),
    ] {
        assert_eq!(resolve(sign, true, by_conversation(open(A))), ends);
        let former = SessionCandidate { is_current: false, ..open(A) };
        assert_eq!(resolve(sign, true, by_conversation(former)), Resolution::Ignore(id(A)), "a former id");
        let elsewhere = SessionCandidate { runs_elsewhere: true, ..open(A) };
        assert_eq!(
            resolve(sign, true, by_conversation(elsewhere)),
            Resolution::Ignore(id(A)),
            "another process runs it"
        );
        assert_eq!(resolve(sign, true, by_process(open(A))), Resolution::Unknown, "another conversation");
    }
    let reported = SessionCandidate { is_left: true, ..open(A) };
    assert_eq!(
        resolve(AgentSignal::Exited, true, by_conversation(reported)),
        Resolution::Ignore(id(A)),
        "a hook said how it ended"
    );
}

#[test]
fn late_reports_under_a_former_id_change_nothing() {
    let left = SessionCandidate { is_left: true, ..open(A) };
    let known = SessionCandidates { by_process: Some(open(B)), ..by_conversation(left.clone()) };
    assert_eq!(resolve(AgentSignal::Heartbeat, true, known.clone()), Resolution::Ignore(id(A)));
    assert_eq!(resolve(RESUME, true, known), Resolution::Adopt(id(A)), "it returns to that conversation");
    assert_eq!(resolve(AgentSignal::Heartbeat, true, by_conversation(left)), Resolution::Adopt(id(A)));
    assert_eq!(resolve(AgentSignal::Leave, true, SessionCandidates::default()), Resolution::Unknown);
}

#[test]
fn close_is_permanent() {
    let begins = Resolution::Begin { resumed_from: Some(id(A)) };
    assert_eq!(resolve(RESUME, true, by_conversation(closed(A, None))), begins);
    for sign in
        [AgentSignal::Heartbeat, AgentSignal::End, AgentSignal::Interrupted, AgentSignal::Exited, AgentSignal::Leave]
    {
        assert_eq!(resolve(sign, true, by_conversation(closed(A, None))), Resolution::Ignore(id(A)), "{sign:?}");
    }
    assert_eq!(
        resolve(AgentSignal::Heartbeat, true, by_conversation(closed(A, Some(true)))),
        Resolution::Ignore(id(A))
    );
    assert_eq!(
        resolve(AgentSignal::Found, true, by_conversation(closed(A, Some(false)))),
        begins,
        "another process continues it"
    );
    assert_eq!(
        resolve(AgentSignal::Start(StartSource::Compact), true, by_conversation(closed(A, Some(true)))),
        Resolution::Ignore(id(A))
    );
    assert_eq!(resolve(AgentSignal::End, true, SessionCandidates::default()), Resolution::Unknown);
    assert_eq!(resolve(AgentSignal::Heartbeat, false, SessionCandidates::default()), Resolution::Unknown);
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
