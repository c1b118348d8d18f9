//! Target 2: the throughput of many clients, compared with fixed responses of the same HTTP stack.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio::task::JoinSet;

use crate::Scale;
use crate::client::{HttpConnection, body_range, heartbeat};
use crate::floors::{OneRowDatabase, StaticServer};
use crate::report::{Goal, Report, Unit};
use crate::stats::median;
use testkit::daemon::Host;

const CLIENTS: usize = 64;

pub fn measure(scale: &Scale, report: &mut Report) {
    let host = Host::new("busy").started();
    let ids: Vec<String> = (0..CLIENTS).map(|_| host.ok(&["register", "--project", "odin", "--id-only"])).collect();
    let questions: Vec<Vec<u8>> = ids.iter().map(|id| heartbeat(id, 42)).collect();
    let answer = HttpConnection::open(&host.socket()).send(&questions[0]).to_vec();
    let echo = StaticServer::of(&answer);

    let round = scale.time(Duration::from_secs(3), Duration::from_millis(300));
    let (mut beats, mut echoes) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        echoes.push(rate(&echo.socket(), &questions, round));
        beats.push(rate(&host.socket(), &questions, round));
    }
    let (beats, echoes) = (median(beats), median(echoes));
    report.ratio(2, "durable heartbeats of 64 clients", Unit::Rate, beats, ("echoes", echoes), Goal::AtLeast(0.6));
    report.ratio(2, "  beside", Unit::Rate, beats, ("commits one by one", one_by_one(host.dir(), round)), Goal::None);
}

/// Requests per second; each client sends a request as soon as it has the previous response.
fn rate(socket: &Path, questions: &[Vec<u8>], lasts: Duration) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let began = Instant::now();
        let mut clients = JoinSet::new();
        for question in questions {
            let question = question.clone();
            let stream = UnixStream::connect(socket).await.expect("the server listens");
            clients.spawn(async move {
                let mut answers = 0u64;
                while began.elapsed() < lasts {
                    exchange(&stream, &question).await;
                    answers += 1;
                }
                answers
            });
        }
        let answers: u64 = clients.join_all().await.into_iter().sum();
        answers as f64 / began.elapsed().as_secs_f64()
    })
}

async fn exchange(stream: &UnixStream, question: &[u8]) {
    stream.writable().await.expect("the server listens");
    assert_eq!(stream.try_write(question).expect("it fits into the socket's buffer"), question.len());
    let mut answer = vec![0; 4096];
    let mut length = 0;
    while body_range(&answer[..length]).is_none() {
        stream.readable().await.expect("the server answers");
        match stream.try_read(&mut answer[length..]) {
            Ok(0) => panic!("the server hung up"),
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("no answer: {error}"),
        }
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..length]));
}

/// Commits per second, each synced separately.
fn one_by_one(beside: &Path, lasts: Duration) -> f64 {
    let row = OneRowDatabase::beside(beside);
    let (began, mut commits) = (Instant::now(), 0u64);
    while began.elapsed() < lasts {
        row.commit();
        commits += 1;
    }
    commits as f64 / began.elapsed().as_secs_f64()
}
