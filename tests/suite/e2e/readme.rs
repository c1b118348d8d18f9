//! The commands of README and docs, run exactly as printed there.

use std::fs;
use std::path::Path;
use std::process::Command;

use testkit::daemon::Host;

/// The shell blocks under a heading of a document.
fn blocks(document: &str, heading: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
    let section = text.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_else(|| panic!("no heading {heading}"));
    let section = section.split("\n## ").next().unwrap();
    section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

fn run(host: &Host, script: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_sessiond")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh")
        .args(["-e", "-c", script])
        .env("PATH", path)
        .env("SESSIOND_SOCKET", host.socket())
        .env("XDG_RUNTIME_DIR", host.dir())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_curl_examples_run_as_written() {
    let host = Host::new("odin3").started();
    let examples = blocks("docs/api.md", "With curl");
    assert!(!examples.is_empty());
    let printed: String = examples.iter().map(|example| run(&host, example)).collect();
    assert!(printed.contains("Instance: odin-PS-"), "{printed}");
    assert!(!printed.contains("\"error\""), "{printed}");
    assert_eq!(host.status()["sessions"]["closed"], 1, "the examples register a session and close it");
}

#[test]
fn the_first_steps_run_as_written() {
    let host = Host::new("odin3").started();
    let printed: String = blocks("README.md", "First steps").iter().map(|example| run(&host, example)).collect();
    assert!(printed.contains("Instance: odin-PS-"), "{printed}");
}
