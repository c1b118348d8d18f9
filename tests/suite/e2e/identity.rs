//! Each host has one pinned identity; two hosts of one name are detected.

use std::fs;
use std::process::Command;

use serde_json::json;

use testkit::daemon::Host;
use testkit::postgres::Server;

fn migrated() -> (Server, String) {
    let server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    Host::new("odin3").ok(&["migrate", "--central-url", &url]);
    (server, url)
}

#[test]
fn unconfigured_name_is_guessed_with_a_warning() {
    let host = Host::nameless().started();
    assert_eq!(host.status()["machine"]["name"], "odin3");
    assert!(host.log().contains("GUESSED"), "{}", host.log());
}

#[test]
fn name_and_host_id_are_pinned() {
    let mut host = Host::new("laptop").started();
    let id = host.status()["machine"]["host_id"].clone();
    host.stop();
    // A flag counts for more than the environment, and agrees with the pin.
    let host = host.environment("HOST_MACHINE", "odin4").started();
    assert_eq!(host.status()["machine"]["host_id"], id);
}

#[test]
fn name_mismatch_stops_the_start_with_advice() {
    let mut host = Host::nameless().environment("HOST_MACHINE", "laptop").started();
    let registered = host.ok(&["register", "--project", "odin", "--id-only"]);
    host.stop();
    let mut host = host.environment("HOST_MACHINE", "desk");
    let (code, said) = host.refuses();
    assert_eq!(code, 78);
    for word in ["laptop", "desk", "sessiond identity rename desk"] {
        assert!(said.contains(word), "{said}");
    }
    let state = host.state_dir();
    let state = state.to_str().unwrap();
    host.ok(&["identity", "rename", "desk", "--state-dir", state]);
    host.start();
    assert_eq!(host.status()["machine"]["name"], "desk");
    let (_, session) = host.ask("GET", &format!("/v1/sessions/{registered}"), None);
    assert_eq!(session["host_machine"], "desk", "its sessions move along");
    assert!(host.ok(&["identity", "show"]).contains("desk"));
}

#[test]
fn invalid_names_are_rejected_with_the_rule() {
    for name in ["UPPERCASE", "My-Machine", "machine@host", "@special", "-x", "", &"x".repeat(65)] {
        let host = Host::nameless().environment("HOST_MACHINE", name);
        let (code, said) = host.refuses();
        assert_eq!(code, 78, "{name}: {said}");
        assert!(said.contains("^[a-z0-9][a-z0-9_-]*$"), "{said}");
        assert!(!host.state_dir().join("identity.json").exists());
    }
}

#[test]
fn unreadable_identity_is_never_guessed_again() {
    let mut host = Host::new("laptop").started();
    host.stop();
    fs::write(host.state_dir().join("identity.json"), "{\"machine_name\": ").unwrap();
    let (code, said) = host.refuses();
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("identity.json"), "{said}");
}

#[test]
fn second_host_of_a_name_writes_nothing_until_renamed() {
    let (server, url) = migrated();
    let first = Host::with_central("odin3", &url).started();
    let one = first.ok(&["register", "--project", "first", "--id-only"]);
    first.await_synced();

    let later = Host::with_central("odin3", &url).started();
    let two = later.ok(&["register", "--project", "later", "--id-only"]);
    let status = later.await_central("identity_conflict");
    assert_eq!(status["machine"]["conflict"]["host_id"], first.status()["machine"]["host_id"]);
    assert_eq!(status["backlog"]["sessions"], 1);
    assert!(later.log().contains("odin3"));
    let rows = || server.psql("central", "SELECT instance_id, host_machine FROM supervisor_sessions ORDER BY project");
    assert_eq!(rows(), format!("{one}|odin3"));

    later.ok(&["identity", "rename", "odin4"]);
    later.await_synced();
    assert_eq!(rows(), format!("{one}|odin3\n{two}|odin4"));
    assert_eq!(later.status()["machine"]["conflict"], json!(null));
    first.await_central("connected");
}

#[test]
fn replacing_host_receives_the_name() {
    let (_server, url) = migrated();
    let first = Host::with_central("odin3", &url).started();
    first.await_central("connected");
    let second = Host::with_central("odin3", &url).started();
    second.await_central("identity_conflict");
    second.ok(&["identity", "replace"]);
    second.await_central("connected");
    first.await_central("identity_conflict");
}

#[test]
fn copied_state_folder_is_detected() {
    let (server, url) = migrated();
    let mut original = Host::with_central("odin3", &url).started();
    let id = original.ok(&["register", "--project", "odin", "--id-only"]);
    original.await_synced();
    original.stop();
    let copy = Host::with_central("odin3", &url);
    let copied = Command::new("cp").arg("-a").arg(original.state_dir()).arg(copy.state_dir()).status().unwrap();
    assert!(copied.success());
    original.start();
    original.await_central("connected");

    let copy = copy.started();
    copy.await_central("identity_conflict");
    original.await_central("connected");
    copy.ok(&["identity", "rename", "copy"]);
    copy.await_central("connected");
    // The session that both folders hold stays the original's.
    original.ok(&["heartbeat", &id, "--context", "9"]);
    original.await_synced();
    let rows = server.psql("central", "SELECT instance_id, host_machine, context_percent FROM supervisor_sessions");
    assert_eq!(rows, format!("{id}|odin3|9"));
    assert_eq!(copy.status()["parked"], 1, "the copy's is set apart");
}

#[test]
fn renamed_host_keeps_its_rows() {
    let (server, url) = migrated();
    let host = Host::with_central("odin3", &url).started();
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    host.await_synced();
    host.ok(&["identity", "rename", "desk"]);
    host.await_synced();
    let rows = || server.psql("central", "SELECT instance_id, host_machine FROM supervisor_sessions");
    assert_eq!(rows(), format!("{id}|desk"));
    let newcomer = Host::with_central("odin3", &url).started();
    newcomer.await_central("connected");
}
