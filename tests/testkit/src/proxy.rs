//! A TCP proxy between a daemon and its central that injects faults.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

/// How often a thread checks the mode.
const LOOK: Duration = Duration::from_millis(2);

/// What the proxy does to connections. A change affects open connections at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// New connections are refused and open ones closed.
    Refuse,
    /// Connections stay open, and no data is forwarded.
    Hang,
    /// All data is delayed by this time, without a limit of the rate.
    Delay(Duration),
    /// The rate of each direction of a connection, in bytes per second.
    Rate(u64),
    /// Each connection is closed after this number of bytes in this direction.
    CutAfter(Direction, u64),
    /// The commit after `pass` others on a connection reaches central, but its answer is lost with the connection.
    CutAtCommit {
        pass: u64,
    },
    /// Open connections forward no more data and stay open; new ones work.
    HalfOpen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToCentral,
    FromCentral,
}

struct Shared {
    /// The Unix socket that the connections lead to.
    upstream: PathBuf,
    mode: Mutex<Mode>,
    /// Counts changes of the mode.
    epoch: AtomicU64,
    ended: AtomicBool,
    commits_cut: AtomicU64,
    connections: AtomicU64,
    refusing: AtomicBool,
}

pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
    /// Reserves the port while the proxy does not listen.
    _port: OwnedFd,
}

impl Proxy {
    pub fn to_socket(path: &Path) -> Self {
        let holder = reusable(0);
        let port = match rustix::net::getsockname(&holder).map(SocketAddr::try_from) {
            Ok(Ok(address)) => address.port(),
            other => panic!("the proxy has no port: {other:?}"),
        };
        let shared = Arc::new(Shared {
            upstream: path.to_owned(),
            mode: Mutex::new(Mode::Pass),
            epoch: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            commits_cut: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            refusing: AtomicBool::new(false),
        });
        let listener = listener(port);
        let acceptor = thread::spawn({
            let shared = shared.clone();
            move || accept(&shared, port, listener)
        });
        Self { port, shared, acceptor: Some(acceptor), _port: holder }
    }

    /// The URL of a database behind the proxy.
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// Returns once the mode is in force.
    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        let refuse = mode == Mode::Refuse;
        crate::eventually("the proxy follows", Duration::from_secs(10), || {
            (self.shared.refusing.load(Ordering::SeqCst) == refuse).then_some(())
        });
    }

    /// How many answers to a commit were dropped.
    pub fn commits_cut(&self) -> u64 {
        self.shared.commits_cut.load(Ordering::SeqCst)
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        if let Some(acceptor) = self.acceptor.take() {
            _ = acceptor.join();
        }
    }
}

/// A socket bound to a port that others bound like this share.
fn reusable(port: u16) -> OwnedFd {
    // A program that a test starts must not go on listening in place of the proxy.
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).expect("a socket");
    sockopt::set_socket_reuseport(&socket, true).expect("a port can be shared");
    sockopt::set_socket_reuseaddr(&socket, true).expect("a port can be used again");
    bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port))).expect("a port");
    socket
}

fn listener(port: u16) -> TcpListener {
    let socket = reusable(port);
    listen(&socket, 128).expect("the proxy can listen");
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true).expect("the proxy can look");
    listener
}

fn accept(shared: &Arc<Shared>, port: u16, first: TcpListener) {
    let mut listening = Some(first);
    let mut pumps: Vec<JoinHandle<()>> = Vec::new();
    while !shared.ended.load(Ordering::SeqCst) {
        let refuse = shared.mode() == Mode::Refuse;
        if refuse {
            listening = None;
        } else if listening.is_none() {
            listening = Some(listener(port));
        }
        shared.refusing.store(refuse, Ordering::SeqCst);
        match listening.as_ref().map(TcpListener::accept) {
            Some(Ok((client, _))) => {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                pumps.extend(connect(shared, client));
                pumps.retain(|pump| !pump.is_finished());
            }
            _ => thread::sleep(LOOK),
        }
    }
    drop(listening);
    pumps.into_iter().for_each(|pump| _ = pump.join());
}

/// Either end of a connection.
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

macro_rules! each {
    ($stream:expr, $name:ident => $what:expr) => {
        match $stream {
            Stream::Tcp($name) => $what,
            Stream::Unix($name) => $what,
        }
    };
}

impl Stream {
    fn again(&self) -> Self {
        match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone().expect("a descriptor")),
            Self::Unix(stream) => Self::Unix(stream.try_clone().expect("a descriptor")),
        }
    }
}

impl Shared {
    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap()
    }
}

/// What both directions of a connection know.
struct Connection {
    shared: Arc<Shared>,
    /// The mode when it was opened.
    epoch: u64,
    commits: AtomicU64,
    /// The next thing that central says is the answer to a commit that shall be lost.
    lose: AtomicBool,
    over: AtomicBool,
}

fn connect(shared: &Arc<Shared>, client: TcpStream) -> Vec<JoinHandle<()>> {
    client.set_nonblocking(false).expect("a connection can block");
    client.set_nodelay(true).expect("a connection does not wait");
    let connection = Arc::new(Connection {
        shared: shared.clone(),
        epoch: shared.epoch.load(Ordering::SeqCst),
        commits: AtomicU64::new(0),
        lose: AtomicBool::new(false),
        over: AtomicBool::new(false),
    });
    if shared.mode() == Mode::Hang {
        return vec![thread::spawn(move || connection.hold(&client))];
    }
    // Where central is not, the client is hung up on, as by a gateway.
    let Ok(central) = UnixStream::connect(&shared.upstream) else { return Vec::new() };
    let (client, central) = (Stream::Tcp(client), Stream::Unix(central));
    let (from, to) = (client.again(), central.again());
    let other = connection.clone();
    vec![
        thread::spawn(move || connection.pump(Direction::ToCentral, from, to)),
        thread::spawn(move || other.pump(Direction::FromCentral, central, client)),
    ]
}

impl Connection {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst) && !self.shared.ended.load(Ordering::SeqCst)
    }

    /// Forwards nothing until the mode changes.
    fn hold(&self, _client: &TcpStream) {
        while self.goes_on() && self.shared.epoch.load(Ordering::SeqCst) == self.epoch {
            thread::sleep(LOOK);
        }
    }

    fn pump(&self, direction: Direction, mut from: Stream, mut to: Stream) {
        _ = each!(&from, s => s.set_read_timeout(Some(LOOK)));
        let mut buffer = [0; 16 * 1024];
        let mut frontend = Frontend::default();
        let mut line = Line::default();
        let mut passed = 0;
        while self.goes_on() {
            let mode = self.shared.mode();
            match mode {
                Mode::Refuse => break,
                Mode::Hang => {
                    thread::sleep(LOOK);
                    continue;
                }
                Mode::HalfOpen if self.epoch < self.shared.epoch.load(Ordering::SeqCst) => {
                    return self.forget();
                }
                _ => {}
            }
            let delayed = matches!(mode, Mode::Delay(_));
            if line.pass_on(&mut to, delayed).is_err() {
                break;
            }
            if !line.waits_for(&from) {
                continue;
            }
            let read = match each!(&mut from, s => s.read(&mut buffer)) {
                Ok(0) => {
                    _ = line.empty_into(&mut to);
                    break;
                }
                Ok(read) => read,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(_) => break,
            };
            let mut bytes = &buffer[..read];
            let mut cut = false;
            match mode {
                Mode::CutAfter(which, most) if which == direction => {
                    cut = passed + read as u64 >= most;
                    bytes = &bytes[..bytes.len().min(usize::try_from(most.saturating_sub(passed)).unwrap_or(0))];
                }
                _ => {}
            }
            if direction == Direction::ToCentral {
                self.mind_commits(frontend.commits(bytes));
            } else if self.lose.load(Ordering::SeqCst) {
                self.shared.commits_cut.fetch_add(1, Ordering::SeqCst);
                break;
            }
            passed += bytes.len() as u64;
            if let Mode::Rate(bytes_a_second) = mode {
                thread::sleep(Duration::from_secs_f64(bytes.len() as f64 / bytes_a_second as f64));
            }
            if let Mode::Delay(by) = mode {
                line.take(bytes, by);
            } else if each!(&mut to, s => s.write_all(bytes)).is_err() || cut {
                break;
            }
        }
        self.over.store(true, Ordering::SeqCst);
        _ = each!(&from, s => s.shutdown(Shutdown::Both));
        _ = each!(&to, s => s.shutdown(Shutdown::Both));
    }

    /// The peer of a half open connection hears nothing, not even of its end.
    fn forget(&self) {
        while self.goes_on() {
            thread::sleep(LOOK);
        }
    }

    fn mind_commits(&self, seen: u64) {
        if seen == 0 {
            return;
        }
        let before = self.commits.fetch_add(seen, Ordering::SeqCst);
        if let Mode::CutAtCommit { pass } = self.shared.mode()
            && before >= pass
        {
            self.lose.store(true, Ordering::SeqCst);
        }
    }
}

/// What is under way on a long line, and when each piece of it arrives.
#[derive(Default)]
struct Line {
    pieces: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
}

impl Line {
    /// No more than this is under way; what comes on top has to wait at its sender.
    const HOLDS: usize = 8 << 20;

    fn take(&mut self, bytes: &[u8], delay: Duration) {
        self.bytes += bytes.len();
        self.pieces.push_back((Instant::now() + delay, bytes.to_vec()));
    }

    /// Hands on what has arrived, or all of it if the line is not `long` any more.
    fn pass_on(&mut self, to: &mut Stream, long: bool) -> std::io::Result<()> {
        while let Some((_, piece)) = self.pieces.pop_front_if(|(due, _)| !long || *due <= Instant::now()) {
            self.bytes -= piece.len();
            each!(&mut *to, s => s.write_all(&piece))?;
        }
        Ok(())
    }

    fn empty_into(&mut self, to: &mut Stream) -> std::io::Result<()> {
        while let Some((due, _)) = self.pieces.front() {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            self.pass_on(to, true)?;
        }
        Ok(())
    }

    /// Waits for more to take, no longer than until the next piece arrives. Says whether there is any.
    fn waits_for(&self, from: &Stream) -> bool {
        let due = self.pieces.front().map_or(LOOK, |(due, _)| due.saturating_duration_since(Instant::now()));
        let wait = due.min(LOOK);
        if self.bytes >= Self::HOLDS {
            thread::sleep(wait);
            return false;
        }
        let timeout = Timespec::try_from(wait).expect("a short time");
        each!(from, s => poll(&mut [PollFd::new(s, PollFlags::IN)], Some(&timeout))).is_ok_and(|ready| ready > 0)
    }
}

/// The messages of a client, as far as a COMMIT among them is concerned.
#[derive(Default)]
struct Frontend {
    started: bool,
    pending: Vec<u8>,
}

impl Frontend {
    /// How many commits end in these bytes.
    fn commits(&mut self, bytes: &[u8]) -> u64 {
        self.pending.extend_from_slice(bytes);
        let mut commits = 0;
        // The first message has no type.
        while let Some(head) = self.pending.get(usize::from(self.started)..usize::from(self.started) + 4) {
            let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
            let end = length + usize::from(self.started);
            if self.pending.len() < end {
                break;
            }
            commits += u64::from(self.started && &self.pending[..1] == b"Q" && &self.pending[5..end] == b"COMMIT\0");
            // SSLRequest, which is answered by one byte; the startup message proper comes after it.
            let asks_for_tls = !self.started && length == 8;
            self.started |= !asks_for_tls;
            self.pending.drain(..end);
        }
        commits
    }
}
