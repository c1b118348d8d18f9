use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::Timestamp;

const PROGRAM: &str = "/opt/my tools/sessiond";

/// Settings that users have.
const SETTINGS: [&str; 9] = [
    "",
    "{}\n",
    "\u{feff}{}\n",
    "{\n  \"version\": 1,\n  \"hooks\": {}\n}\n",
    "{\r\n  // mine\r\n  \"theme\": \"dark\",\r\n  \"hooks\": { \"Stop\": [] },\r\n}\r\n",
    "{\"hooks\":{\"Stop\":[{\"hooks\":[{\"type\":\"command\",\"command\":\"say done\"}]}],\"stop\":[{\"command\":\"say done\"}]}}",
    "{\n  \"hooks\": {\n    \"sessionStart\": [\n      {\n        \"command\": \"a | b\"\n      }\n    ]\n  }\n}",
    "{\"theme\": 1, \"theme\": 2, \"hooks\": {\"SessionStart\": []}, \"hooks\": {\"SessionEnd\": [ ]}}",
    "{\n\t\"a\": [1, 2], /* b */\n\t\"hooks\": {\n\t\t\"PreCompact\": [\n\t\t]\n\t}\n}\n",
];

fn with_lists() -> impl Iterator<Item = &'static Adapter> {
    ADAPTERS.into_iter().filter(|adapter| !matches!(adapter.format, SettingsFormat::Plugin(_)))
}

#[test]
fn uninstalling_restores_every_byte() {
    for adapter in with_lists() {
        for before in SETTINGS {
            let installed = adapter.installed(before, PROGRAM).unwrap();
            assert_eq!(adapter.missing_hooks(&installed).unwrap(), Vec::<&str>::new(), "{installed}");
            assert_eq!(adapter.installed(&installed, PROGRAM).unwrap(), installed, "a second time changes nothing");
            let after = adapter.uninstalled(&installed).unwrap();
            if before.is_empty() {
                assert!(adapter.is_empty_file(&after), "{after}");
            } else {
                assert_eq!(after, before, "{:?}", adapter.name);
            }
            assert_eq!(adapter.missing_hooks(before).unwrap().len(), adapter.hook_count(), "{before}");
        }
        for broken in ["{", "[]", "{\"hooks\": 7}", "{\"hooks\": {\"SessionStart\": 7, \"sessionStart\": 7}}"] {
            assert!(adapter.installed(broken, PROGRAM).is_err(), "{broken}");
        }
    }
}

#[test]
fn installed_hooks_run_this_program_once() {
    for adapter in with_lists() {
        let elsewhere = adapter.installed("", "/usr/bin/sessiond").unwrap();
        let here = adapter.installed(&elsewhere, PROGRAM).unwrap();
        let programs = adapter.programs(&here);
        assert_eq!(programs.len(), adapter.hooks.len(), "{here}");
        assert!(programs.iter().all(|program| program == PROGRAM), "{programs:?}");
        // The hook of Claude Code is another one.
        let plain = here.replace(&format!("--agent {} ", adapter.name.as_str()), "");
        assert_eq!(adapter.programs(&plain), Vec::<String>::new());
    }
}

#[test]
fn plugin_of_opencode_is_a_file_of_its_own() {
    let adapter = Adapter::of(AgentName::Opencode);
    let plugin = adapter.installed("", "/opt/\"quoted\"/sessiond").unwrap();
    assert_eq!(adapter.programs(&plugin), ["/opt/\"quoted\"/sessiond"]);
    assert_eq!(adapter.installed(&plugin, PROGRAM).unwrap(), adapter.installed("", PROGRAM).unwrap());
    assert_eq!(adapter.uninstalled(&plugin).unwrap(), "");
    let foreign = "export const Mine = async () => ({});\n";
    assert!(adapter.installed(foreign, PROGRAM).is_err());
    assert_eq!(adapter.uninstalled(foreign).unwrap(), foreign);
}

#[test]
fn trusted_hooks_of_codex_are_those_with_a_hash() {
    let config = "model = \"m\"\n[hooks.state.\"/h/hooks.json:stop:0:0\"]\ntrusted_hash = \"sha256:00\"\n\
        [hooks.state.\"/h/hooks.json:session_start:1:0\"]\nenabled = false\ntrusted_hash = \"sha256:00\"\n\
        [hooks.state.\"/h/hooks.json:session_end:0:0\"]\n";
    assert_eq!(trusted_hooks(config).unwrap(), ["/h/hooks.json:stop:0:0"]);
    assert_eq!(trusted_hooks("").unwrap(), Vec::<String>::new());
    assert_eq!(trusted_hooks("hooks = 7").unwrap(), Vec::<String>::new());
    assert_eq!(trusted_hooks("{"), None);
}

fn reported(name: AgentName, event: &str, input: &Value) -> AgentReport {
    let input = Input::read(input.to_string().as_bytes(), &WANTED);
    Adapter::of(name).translate(event, &input, &|_| None).report(name, &|_| None)
}

#[test]
fn id_is_found_under_each_of_its_names() {
    for (name, input) in [
        (AgentName::Codex, json!({"session_id": "i"})),
        (AgentName::Copilot, json!({"sessionId": "i"})),
        (AgentName::Cursor, json!({"conversation_id": "i", "session_id": "x"})),
        (AgentName::Other, json!({"conversationId": "i"})),
        (AgentName::Opencode, json!({"input": {"sessionID": "i"}})),
        (AgentName::Opencode, json!({"event": {"properties": {"info": {"id": "i"}}}})),
    ] {
        let report = reported(name, "of a later version", &input);
        assert_eq!((report.claude_session_uuid.as_deref(), report.sign.as_str()), (Some("i"), "beat"), "{name:?}");
        assert_eq!((report.agent.as_deref(), report.activity), (Some(name.as_str()), None));
    }
}

#[test]
fn events_of_a_sub_agent_of_opencode_count_for_its_parent() {
    let child = |event: &str, properties: Value| {
        let event =
            json!({"hook_event_name": event, "parent_session_id": "parent", "event": {"properties": properties}});
        reported(AgentName::Opencode, "", &event)
    };
    let busy = child("event.session.status", json!({"sessionID": "child", "status": {"type": "busy"}}));
    assert_eq!((busy.claude_session_uuid.as_deref(), busy.activity), (Some("parent"), None));
    let asked = child("event.permission.asked", json!({"sessionID": "child", "permission": "bash"}));
    let activity = asked.activity.unwrap();
    assert_eq!((activity.activity.as_str(), activity.actor.as_deref()), ("waiting", Some("child")));
    assert_eq!(asked.claude_session_uuid.as_deref(), Some("parent"));
}

#[test]
fn answers_have_the_shape_that_each_agent_takes() {
    let answer = |name, event: &str| Adapter::of(name).answer(event, &Input::default(), "read \"this\"");
    let nested = |event: &str| {
        json!({"hookSpecificOutput": {"hookEventName": event, "additionalContext": "read \"this\""}}).to_string()
    };
    assert_eq!(answer(AgentName::Codex, "SessionStart"), nested("SessionStart"));
    assert_eq!(answer(AgentName::Gemini, "BeforeAgent"), nested("BeforeAgent"));
    let top = json!({"additionalContext": "read \"this\""}).to_string();
    assert_eq!(answer(AgentName::Copilot, "sessionStart"), top);
    assert_eq!(answer(AgentName::Opencode, ""), top);
    assert_eq!(answer(AgentName::Cursor, "sessionStart"), json!({"additional_context": "read \"this\""}).to_string());
    assert_eq!(Adapter::of(AgentName::Gemini).empty_answer(), Some("{}"));
    assert_eq!(Adapter::of(AgentName::Codex).empty_answer(), None);
}

/// Any JSON.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[\u{0}-\u{ff}\u{202e}]{0,80}".prop_map(Value::from),
        prop::sample::select(vec!["busy", "idle", "error", "clear", "ToolPermission", "MessageAbortedError"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        let name = prop_oneof![
            prop::sample::select(WANTED.to_vec()).prop_map(str::to_owned),
            prop::sample::select(vec!["properties", "info", "id", "status", "type", "name", "data", "args", "parts"])
                .prop_map(str::to_owned),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..6).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn reports_are_always_valid(
        agent in prop::sample::select(AgentName::ALL.to_vec()),
        event in prop_oneof![
            any::<String>(),
            prop::sample::select(vec![
                "SessionStart", "sessionEnd", "Notification", "AfterTool", "ErrorOccurred", "stop", "PreCompress",
                "event.session.error", "event.permission.asked", "chat.message", "todo.updated", "session.status",
            ]).prop_map(str::to_owned),
        ],
        input in prop::collection::vec((prop::sample::select(WANTED.to_vec()), value()), 0..10),
    ) {
        let object = Value::Object(input.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        let report = reported(agent, &event, &object);
        prop_assert!(report.validate(&[], Timestamp::from_micros(7)).is_ok(), "{:?}", report);
    }
}
