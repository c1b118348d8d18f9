//! TLS with central, and what is sent in clear.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{await_state, hurried, limited};
use testkit::daemon::Host;
use testkit::network;
use testkit::postgres::Server;

/// An authority, and a certificate of it for a server of this name.
struct Certificates {
    dir: TempDir,
}

impl Certificates {
    fn new(server: &str) -> Self {
        let certificates = Self { dir: tempfile::tempdir().unwrap() };
        let new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let (days, name) = (["-days", "2"], format!("subjectAltName={server}\n"));
        fs::write(certificates.file("names"), name).unwrap();
        certificates
            .openssl(&[&new[..], &["-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca"], &days].concat());
        certificates.openssl(&[&new[..], &["-keyout", "key.pem", "-out", "request", "-subj", "/CN=server"]].concat());
        let sign = ["x509", "-req", "-in", "request", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        certificates.openssl(&[&sign[..], &["-extfile", "names", "-out", "server.pem"], &days].concat());
        certificates
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).current_dir(self.dir.path()).output().unwrap();
        assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn tls_modes_and_wrong_certificates() {
    let ours = Certificates::new("DNS:localhost,IP:127.0.0.1");
    let server = Server::start_with_tls(&ours.file("server.pem"), &ours.file("key.pem"));
    server.create("central");
    let theirs = Certificates::new("DNS:localhost");
    let url = |host: &str, mode: &str, ca: Option<&Path>| {
        let ca = ca.map(|ca| format!("&sslrootcert={}", ca.display())).unwrap_or_default();
        format!("postgres://postgres@{host}:{}/central?sslmode={mode}{ca}", server.port())
    };
    let (our_ca, their_ca) = (ours.file("ca.pem"), theirs.file("ca.pem"));
    Host::new("migrator").ok(&["migrate", "--central-url", &url("localhost", "verify-full", Some(&our_ca))]);
    let host = hurried("odin3", &url("localhost", "verify-full", Some(&our_ca)));
    let host = host.started();
    host.ok(&["register", "--project", "odin"]);
    host.await_synced();

    let switch = |url: &str| {
        host.configure(&format!("[central]\nurl = \"{url}\"\nheartbeat_interval = \"1s\"\nconnect_timeout = \"2s\"\n"));
        host.signal(Signal::HUP);
    };
    let encrypted = || {
        let how = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'sessiond'";
        server.psql("central", how)
    };
    for mode in ["prefer", "require", "verify-ca", "verify-full"] {
        // A refused link in between shows that the next one is new.
        switch(&url("127.0.0.1", "verify-full", Some(&their_ca)));
        let status = await_state(&host, "refused");
        let said = status["central"]["last_error"].as_str().unwrap();
        assert!(said.contains("certificate") && said.contains("check sslrootcert"), "{said}");
        switch(&url("127.0.0.1", mode, Some(&our_ca)));
        await_state(&host, "connected");
        assert_eq!(encrypted(), "t", "{mode}");
    }
    let elsewhere = Certificates::new("DNS:db.example");
    let server = Server::start_with_tls(&elsewhere.file("server.pem"), &elsewhere.file("key.pem"));
    server.create("central");
    let url = |mode: &str| {
        let (port, ca) = (server.port(), elsewhere.file("ca.pem"));
        format!("postgres://postgres@localhost:{port}/central?sslmode={mode}&sslrootcert={}", ca.display())
    };
    switch(&url("verify-full"));
    let status = await_state(&host, "refused");
    assert!(status["central"]["last_error"].as_str().unwrap().contains("the server's name"), "{status}");
    switch(&url("verify-ca"));
    await_state(&host, "schema_missing");
}

#[test]
fn required_tls_rejects_a_server_without_it() {
    let server = Server::start(&[]);
    let proxy = testkit::proxy::Proxy::to_socket(&server.socket());
    let host = hurried("odin3", &format!("{}?sslmode=require", proxy.url("postgres", "postgres"))).started();
    let status = await_state(&host, "refused");
    assert!(status["central"]["last_error"].as_str().unwrap().contains("check sslmode"), "{status}");
}

/// As Postgres's documentation makes a certificate: signed with `x509 -req` and no extensions, which is version 1.
fn version_1(dir: &Path) {
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    openssl(&["req", "-new", "-nodes", "-newkey", "rsa:2048", "-out", "csr", "-keyout", "key.pem", "-subj", "/CN=db"]);
    openssl(&["x509", "-req", "-in", "csr", "-days", "2", "-signkey", "key.pem", "-out", "server.pem"]);
}

fn refusal(host: &Host) -> String {
    let status = await_state(host, "refused");
    status["central"]["last_error"].as_str().unwrap().to_owned()
}

fn finding(host: &Host, check: &str) -> Option<(String, String)> {
    let output = host.verb(&["doctor", "--json", "--state-dir", host.state_dir().to_str().unwrap()]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = document["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["check"] == check)?;
    Some((found["verdict"].as_str()?.to_owned(), found["found"].as_str()?.to_owned()))
}

#[test]
fn version_1_certificate_encrypts_but_is_not_verified() {
    let dir = tempfile::tempdir().unwrap();
    version_1(dir.path());
    let server = Server::start_with_tls(&dir.path().join("server.pem"), &dir.path().join("key.pem"));
    server.create("central");
    let url = |rest: &str| format!("postgres://postgres@localhost:{}/central?{rest}", server.port());
    let ca = format!("sslrootcert={}", dir.path().join("server.pem").display());
    Host::new("migrator").ok(&["migrate", "--central-url", &url("sslmode=require")]);
    let host = limited("odin3", &url("sslmode=require"), "2s").started();
    await_state(&host, "connected");
    host.configure(&format!("[central]\nurl = \"{}\"\n", url(&format!("sslmode=verify-full&{ca}"))));
    host.signal(Signal::HUP);
    let said = refusal(&host);
    assert!(said.contains("X.509 version 1") && said.contains("sslmode=require"), "{said}");
}

#[test]
fn system_authorities_are_the_ones_of_the_system() {
    let ours = Certificates::new("DNS:localhost");
    let server = Server::start_with_tls(&ours.file("server.pem"), &ours.file("key.pem"));
    server.create("central");
    let url = format!("postgres://postgres@localhost:{}/central?sslrootcert=system", server.port());
    Host::new("migrator").environment("SSL_CERT_FILE", ours.file("ca.pem").to_str().unwrap()).ok(&[
        "migrate",
        "--central-url",
        &url,
    ]);
    let theirs = Certificates::new("DNS:localhost");
    let host = limited("odin3", &url, "2s").environment("SSL_CERT_FILE", theirs.file("ca.pem").to_str().unwrap());
    let said = refusal(&host.started());
    assert!(said.contains("certificate"), "{said}");
}

#[test]
fn local_server_that_requires_tls_gets_it() {
    let ours = Certificates::new("DNS:localhost");
    let server = Server::start_with_tls(&ours.file("server.pem"), &ours.file("key.pem"));
    server.create("central");
    server.admit("local all all trust\nhostssl all all all trust\n");
    let url = format!("postgres://postgres@localhost:{}/central", server.port());
    Host::new("migrator").ok(&["migrate", "--central-url", &url]);
    let host = limited("odin3", &url, "2s").started();
    await_state(&host, "connected");
    let how =
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'sessiond'";
    assert_eq!(server.psql("central", how), "t");
}

#[test]
fn password_is_never_sent_in_clear_to_another_machine() {
    network::alone("password_is_never_sent_in_clear_to_another_machine", || {
        let mut server = Server::start(&[&format!("listen_addresses={}", network::ADDRESS)]);
        server.create("central");
        Host::new("migrator").ok(&["migrate", "--central-url", &server.url("central")]);
        server.psql("central", "CREATE ROLE me LOGIN PASSWORD 'hunter2' SUPERUSER");
        let admit = |server: &Server, method: &str| {
            server.admit(&format!("local all all trust\nhost all all all {method}\n"));
        };
        let url = |rest: &str| format!("postgres://me:hunter2@{}:5432/central{rest}", network::ADDRESS);

        // What a stranger at that address would do, too: answer without TLS, and ask for the password.
        admit(&server, "password");
        let host = limited("odin3", &url(""), "2s").started();
        let said = refusal(&host);
        assert!(said.contains("offers no TLS"), "{said}");
        let switch = |rest: &str| {
            host.configure(&format!("[central]\nurl = \"{}\"\nheartbeat_interval = \"1s\"\n", url(rest)));
            host.signal(Signal::HUP);
        };
        for rest in ["?sslmode=disable", "?sslmode=prefer", "?sslmode=allow"] {
            switch("");
            await_state(&host, "refused");
            testkit::eventually("the refusal is that of the mode", std::time::Duration::from_secs(30), || {
                refusal(&host).contains("offers no TLS").then_some(())
            });
            switch(rest);
            testkit::eventually("the password is not sent", std::time::Duration::from_secs(30), || {
                refusal(&host).contains("password in clear text").then_some(())
            });
        }

        // A challenge that does not reveal it may pass, where the URL says so.
        admit(&server, "scram-sha-256");
        switch("?sslmode=disable");
        await_state(&host, "connected");
        let (verdict, found) = finding(&host, "central.tls").unwrap();
        assert!(verdict == "wrong" && found.contains("in clear to another machine"), "{verdict}: {found}");
        switch("?sslmode=disable&require_auth=md5");
        assert!(refusal(&host).contains("require_auth"));
        server.stop(testkit::postgres::Stop::Fast);
    });
}
