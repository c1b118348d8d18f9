//! The API does what /v1/openapi.json says of it, and nothing else: schemathesis makes requests of its own from the
//! document, right and wrong ones, and compares the answers with it.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use testkit::campaign;
use testkit::daemon::Host;
use testkit::python;
use testkit::random::Random;
use testkit::skip::skip;

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,negative_data_rejection,\
                      unsupported_method,allow_header_conformance";
/// Pinned: another version has other checks.
const VERSION: &str = "schemathesis==4.32.5";

/// The program, installed below target/ if it is not there yet; none where it cannot be had.
fn schemathesis() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("schemathesis");
    Some(python::with_package(&folder, VERSION, "schemathesis")?.with_file_name("st"))
}

/// Carries TCP connections to the daemon's socket; answers the port.
fn bridge(socket: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port on the loopback");
    let port = listener.local_addr().expect("it has an address").port();
    // It ends with the test's process.
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(daemon) = UnixStream::connect(&socket) else { return };
            thread::spawn(move || carry(&client, &daemon));
        }
    });
    port
}

fn carry(client: &TcpStream, daemon: &UnixStream) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut from, mut to) = (client, daemon);
            let _ = io::copy(&mut from, &mut to);
            let _ = daemon.shutdown(Shutdown::Write);
        });
        let (mut from, mut to) = (daemon, client);
        let _ = io::copy(&mut from, &mut to);
        let _ = client.shutdown(Shutdown::Both);
    });
}

#[test]
fn api_conforms_to_its_openapi_document() {
    let Some(schemathesis) = schemathesis() else {
        return skip("api_conforms_to_its_openapi_document", format_args!("python3 and {VERSION}"));
    };
    let host = Host::new("odin3").started();
    for project in ["odin", "odin", "freya"] {
        host.ok(&["register", "--project", project, "--epic", "003"]);
    }
    let port = bridge(host.socket());
    let output = Command::new(schemathesis)
        .args(["run", "--no-color", "--wait-for-schema", "5", "--continue-on-failure", "--warnings", "off"])
        .args(["--phases", "examples,coverage,fuzzing", "--checks", CHECKS, "--suppress-health-check", "all"])
        // Its answer has no end; e2e::mirror asks for it.
        .args(["--exclude-path", "/v1/watch"])
        // Longer than any request may take, on a machine that has much else to do.
        .args(["--request-timeout", "30"])
        .args(["--max-examples", &campaign(20, 2000).to_string()])
        .args(["--seed", &(Random::of_campaign("schemathesis").next() % 1_000_000).to_string()])
        .arg(format!("http://127.0.0.1:{port}/v1/openapi.json"))
        .current_dir(host.dir())
        .output()
        .expect("schemathesis can be run");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{}", said.lines().rev().take(12).collect::<Vec<_>>().join("\n"));
}
