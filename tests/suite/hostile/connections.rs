//! Hostile connections of every kind and number: the daemon keeps serving others.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::targets::assert_tidy;
use testkit::daemon::Host;
use testkit::skip::skip;
use testkit::{campaign, eventually};

/// How long an honest client may wait while others do their worst.
const PROMPT: Duration = Duration::from_secs(6);

/// An honest client is served, at once.
fn serves(host: &Host) {
    let asked = Instant::now();
    let (status, answer) = host.ask("GET", "/v1/status", None);
    assert_eq!(status, 200, "{answer}");
    assert!(asked.elapsed() < PROMPT, "it took {:?}", asked.elapsed());
}

/// Room in this process for that many connections.
fn room_for(connections: u64) -> bool {
    let limit = sessiond::platform::limits::raise_open_files().ok();
    limit.is_some_and(|limit| limit.is_none_or(|limit| limit >= connections + 6000))
}

/// What the kernel says of the daemon's memory, in KiB.
fn resident(host: &Host) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn open_files(host: &Host) -> usize {
    fs::read_dir(format!("/proc/{}/fd", host.pid().as_raw_nonzero())).unwrap().count()
}

fn connections(host: &Host, count: usize) -> Vec<UnixStream> {
    (0..count).map(|_| host.connect().expect("the daemon takes connections")).collect()
}

/// Everything the daemon sends until it hangs up, or falls silent for a while.
fn said(stream: &mut UnixStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn exchange(host: &Host, request: &[u8]) -> String {
    let mut stream = host.connect().unwrap();
    let _ = stream.write_all(request);
    said(&mut stream)
}

/// The statuses of the answers in what was said.
fn statuses(said: &str) -> Vec<u16> {
    said.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].parse().unwrap()).collect()
}

#[test]
fn ten_thousand_idle_connections() {
    const COUNT: usize = 10_000;
    if !room_for(COUNT as u64) {
        return skip("ten_thousand_idle_connections", "a hard limit of 16,000 open files");
    }
    let host = Host::new("odin3").started();
    let idle = connections(&host, COUNT);
    serves(&host);
    assert!(open_files(&host) < 1200, "{} files are open", open_files(&host));
    assert!(resident(&host) < 256 << 10, "{} KiB", resident(&host));
    // The newest are the ones that stayed.
    let mut newest = idle.last().unwrap().try_clone().unwrap();
    newest.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(statuses(&said(&mut newest)), [200]);
    drop(idle);
    eventually("their places are free", Duration::from_secs(20), || (open_files(&host) < 100).then_some(()));
}

#[test]
fn ten_thousand_short_connections() {
    let host = Host::new("odin3").started();
    for number in 0..10_000 {
        let mut stream = host.connect().unwrap();
        if number % 2 == 0 {
            let _ = stream.write_all(b"GET /v1/sessions HTTP/1.1\r\nHost: x\r\n\r\n");
        }
    }
    // What they asked for before they went may still be under way.
    eventually("others are served", 2 * PROMPT, || (host.try_ask("GET", "/v1/status", None)?.0 == 200).then_some(()));
    eventually("their files are closed", Duration::from_secs(20), || (open_files(&host) < 100).then_some(()));
    assert!(resident(&host) < 256 << 10, "{} KiB", resident(&host));
}

/// Sends `text` byte by byte on all connections at once, while another client works.
fn drip(host: &Host, streams: &mut [UnixStream], text: &[u8]) {
    let until = Instant::now() + Duration::from_secs(campaign(3, 60));
    for byte in text.iter().cycle() {
        for stream in streams.iter_mut() {
            let _ = stream.write_all(&[*byte]);
        }
        serves(host);
        if Instant::now() > until {
            return;
        }
    }
}

#[test]
fn heads_sent_byte_by_byte() {
    let host = Host::new("odin3").started();
    let began = Instant::now();
    let mut streams = connections(&host, 1500);
    for stream in &mut streams {
        let _ = stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    }
    drip(&host, &mut streams, b"x");
    // Going on does not help: the head has a time in which it must have come.
    let last = streams.last_mut().unwrap();
    eventually("the last one is cut off", Duration::from_secs(30), || last.write_all(b"x").is_err().then_some(()));
    assert!(began.elapsed() > Duration::from_secs(5), "it was cut off before its time");
    serves(&host);
}

#[test]
fn bodies_sent_byte_by_byte() {
    let host = Host::new("odin3").started();
    let mut streams = connections(&host, 1500);
    for stream in &mut streams {
        let _ = stream.write_all(b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{");
    }
    drip(&host, &mut streams, b" ");
    let answer = eventually("the last one is told why", Duration::from_secs(30), || {
        let answer = said(streams.last_mut().unwrap());
        (!answer.is_empty()).then_some(answer)
    });
    assert_eq!(statuses(&answer), [408], "{answer}");
    assert_eq!(host.status()["sessions"]["active"], 0, "half a request was taken for a whole");
}

#[test]
fn clients_that_never_read_their_answers() {
    let host = Host::new("odin3");
    host.configure("[store]\ndurability = \"normal\"\n");
    let host = host.started();
    let registered = register_many(&host, 2000);
    let before = resident(&host);
    let pipelined = "GET /v1/sessions HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20);
    let mut streams = connections(&host, campaign(120, 700) as usize);
    for stream in &mut streams {
        let _ = stream.write_all(pipelined.as_bytes());
    }
    let mut most = 0;
    let until = Instant::now() + Duration::from_secs(campaign(10, 30));
    while Instant::now() < until {
        most = most.max(resident(&host));
        let (status, _) = host.ask("GET", &format!("/v1/sessions/{registered}"), None);
        assert_eq!(status, 200);
    }
    println!("clients_that_never_read_their_answers: from {before} KiB to {most} KiB");
    assert!(most < before + (128 << 10), "from {before} KiB to {most} KiB");
    drop(streams);
    // Their answers are still made, in turn, and then cannot be sent.
    eventually("lists are given again", Duration::from_secs(90), || {
        (host.try_ask("GET", "/v1/sessions", None)?.0 == 200).then_some(())
    });
}

/// Registers sessions, pipelined; answers the id of one.
fn register_many(host: &Host, count: usize) -> String {
    let body = json!({"project": "odin", "current_epic": "e".repeat(200)}).to_string();
    let request = format!("POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .repeat(count / 10);
    let register = &|| {
        let mut stream = host.connect().unwrap();
        let mut reader = stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ = stream.write_all(request.as_bytes());
                let _ = stream.shutdown(Shutdown::Write);
            });
            std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
        });
    };
    std::thread::scope(|scope| (0..10).for_each(|_| drop(scope.spawn(register))));
    let (_, list) = host.ask("GET", "/v1/sessions", None);
    assert_eq!(list["total_count"], count);
    list["instances"][0]["instance_id"].as_str().unwrap().to_owned()
}

#[test]
fn smuggled_requests_are_rejected() {
    let host = Host::new("odin3").started();
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    let hidden = format!("POST /v1/sessions/{id}/close HTTP/1.1\r\nHost: x\r\n\r\n");
    let length = hidden.len();
    let cases = [
        format!("POST /v1/sync HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nContent-Length: 0\r\n\r\n{hidden}"),
        format!("POST /v1/sync HTTP/1.1\r\nHost: x\r\nContent-Length: 0, {length}\r\n\r\n{hidden}"),
        format!("POST /v1/sync HTTP/1.1\r\nHost: x\r\nContent-Length: +{length}\r\n\r\n{hidden}"),
        format!("POST /v1/sync HTTP/1.1\r\nHost: x\r\nContent-Length : {length}\r\n\r\n{hidden}"),
        format!("POST /v1/sync HTTP/1.1\r\nHost: x\r\nX: y\r\n Content-Length: {length}\r\n\r\n{hidden}"),
        format!("POST /v1/sync HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, x\r\n\r\n{hidden}"),
        format!("POST /v1/sync HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n{hidden}"),
        format!("POST /v1/sync HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n{hidden}"),
        format!("POST /v1/sync HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-0\r\n\r\n{hidden}"),
        format!("POST /v1/sync HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}{hidden}"),
        format!("POST /v1/sync HTTP/1.1\nHost: x\nX: a\rContent-Length: 0\n\n{hidden}"),
        format!("POST /v1/sync HTTP/1.1\r\nHost: x\r\nX: \0\r\n\r\n{hidden}"),
    ];
    for case in cases {
        let said = exchange(&host, case.as_bytes());
        let statuses = statuses(&said);
        assert!(matches!(statuses[..], [] | [400]), "{case:?}: {said}");
        assert_eq!(host.ask("GET", &format!("/v1/sessions/{id}"), None).1["status"], "active", "{case:?}");
    }
    // Both framings: the chunks count, not the length, and the connection ends there.
    let both = format!(
        "POST /v1/sync HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
        5 + length
    );
    let said = exchange(&host, both.as_bytes());
    assert!(statuses(&said) == [200] && said.contains("connection: close"), "{said}");
    assert_eq!(host.ask("GET", &format!("/v1/sessions/{id}"), None).1["status"], "active");
    serves(&host);
}

#[test]
fn unusual_valid_requests_are_accepted() {
    let host = Host::new("odin3").started();
    let pipelined = (0..200).map(|n| format!("GET /v1/nothing{n} HTTP/1.1\r\nHost: x\r\n\r\n")).collect::<String>();
    let answers = exchange(&host, pipelined.as_bytes());
    assert_eq!(statuses(&answers), [404; 200]);
    let mut from = 0;
    for number in 0..200 {
        from += answers[from..].find(&format!("/v1/nothing{number}\"").replace('"', "")).expect("in order");
    }

    let mut stream = host.connect().unwrap();
    let head = "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 18\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{\"project\":\"odin\"}").unwrap();
    assert_eq!(statuses(&said(&mut stream)), [201]);

    let chunked = "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
                   1\r\n{\r\n11;x=y\r\n\"project\":\"odin\"}\r\n0\r\nTrailer: z\r\n\r\n";
    assert_eq!(statuses(&exchange(&host, chunked.as_bytes())), [201]);
    let head = exchange(&host, b"HEAD /v1/status HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(statuses(&head) == [200] && head.ends_with("\r\n\r\n"), "{head}");
    let absolute = exchange(&host, b"GET http://localhost/v1/status HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(statuses(&absolute), [200]);
    let old = exchange(&host, b"GET /v1/status HTTP/1.0\r\n\r\n");
    assert!(old.contains(" 200 OK"), "{old}");

    // Who has nothing more to say may say so, and still gets the answer.
    let mut half = host.connect().unwrap();
    half.write_all(b"POST /v1/sync HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\n\r\n{\"wait_ms\": 300}").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    assert_eq!(statuses(&said(&mut half)), [200]);
    assert_eq!(host.status()["sessions"]["active"], 2);
}

#[test]
fn unknown_targets_are_rejected() {
    let host = Host::new("odin3").started();
    host.ok(&["register", "--project", "odin"]);
    let long = |n: usize| "x".repeat(n);
    let cases = [
        ("OPTIONS", "*".into(), 404..406),
        ("OPTIONS", "/v1/sessions".into(), 405..406),
        ("CONNECT", "localhost:80".into(), 404..406),
        ("TRACE", "/v1/status".into(), 405..406),
        (&*long(3000), "/v1/status".into(), 400..406),
        ("GET", "/v1/../etc/passwd".into(), 404..405),
        ("GET", "/v1/%2e%2e/status".into(), 404..405),
        ("GET", "//v1/status".into(), 404..405),
        ("GET", "/v1/sessions/".into(), 404..405),
        ("GET", "/v1/sessions/%00".into(), 404..405),
        ("GET", "/v1/sessions/a%0Ab%1b[31m".into(), 404..405),
        ("GET", "/v1/sessions/..%2f..%2fetc%2fpasswd".into(), 404..405),
        ("GET", "/v1/sessions/%".into(), 404..405),
        ("GET", "/v1/sessions/%c0%ae".into(), 400..401),
        ("GET", "/v1/sessions/%F4%8F%BF%BF".into(), 404..405),
        ("GET", "/v1/sessions/'%20OR%201=1--".into(), 404..405),
        ("GET", "/v1/sessions/%25".into(), 404..405),
        ("GET", format!("/v1/sessions/{}", long(10_000)), 400..401),
        ("GET", format!("/v1/nothing/{}", long(10_000)), 404..405),
        ("GET", format!("/v1/sessions?project={}", long(10_000)), 400..401),
        ("GET", format!("/v1/sessions?{}=1", long(10_000)), 400..401),
        ("GET", format!("/v1/sessions?{}", "project=odin&".repeat(700)), 400..401),
        ("GET", "/v1/sessions?a%0Ab=%00".into(), 400..401),
        ("GET", "/v1/sessions?local=%FF".into(), 400..401),
        ("GET", format!("/v1/sessions?x={}", long(20_000)), 400..432),
        ("GET", format!("/v1/sessions?x={}", long(70_000)), 400..432),
    ];
    for (method, target, expected) in cases {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let said = exchange(&host, request.as_bytes());
        let status = statuses(&said);
        assert!(status.len() == 1 && expected.contains(&status[0]), "{method} {target:.100}: {said:.500}");
        let (_, body) = said.split_once("\r\n\r\n").unwrap();
        // Where no request could be made out, there is a status and no more.
        if !body.is_empty() {
            let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {said}"));
            assert_tidy(body["error"]["message"].as_str().unwrap());
        }
    }
    for junk in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET  /v1/status HTTP/1.1\r\n\r\n", "GET /v1/status\r\n\r\n"] {
        let said = exchange(&host, junk.as_bytes());
        assert!(statuses(&said).iter().all(|status| (400..506).contains(status)), "{junk:?}: {said}");
    }
    serves(&host);
}
