//! Where paths run: one thread, a real Redis, real sockets.
//!
//! What runs is in one runtime, which goes on only while it is told to; in between, Redis answers what it was asked. So
//! nothing depends on who is quicker, and the counts are the same each time.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use fanfare_backbone::{Backbone, RedisConfig, Secret};
use fanfare_protocol::{ByNamespace, Keep, Retention};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

use crate::tally::section;

/// How often a runtime looks at its sockets before Redis gets its turn.
const LOOKS: usize = 24;

/// Time in which what was written to a socket is there to be read: at once as a rule, later where a machine is busy.
const ARRIVAL: Duration = Duration::from_millis(20);

/// Turns after which something is stuck.
const TURNS_MAX: usize = 500;

/// For what should come at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a free port, gone when this is.
pub(crate) struct Redis {
    process: Child,
    port: u16,
    connection: TcpStream,
    _directory: TempDir,
    _out: BufReader<ChildStdout>,
}

impl Redis {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let port = free_port();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]);
        command.arg(directory.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("redis-server is on PATH: scripts/install-test-tools installs it");
        let mut out = BufReader::new(process.stdout.take().expect("piped"));
        let mut said = String::new();
        while !said.contains("Ready to accept connections") {
            assert_ne!(out.read_line(&mut said).expect("a log"), 0, "redis-server ended instead of starting: {said}");
        }
        let connection = TcpStream::connect(("127.0.0.1", port)).expect("it has just said so");
        connection.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self { process, port, connection, _directory: directory, _out: out }
    }

    /// A backbone with so many partitions, in a deployment of that name. Needs a runtime around it.
    pub(crate) fn backbone(&self, name: &str, partitions: u16) -> Backbone {
        let retention = Retention {
            history: ByNamespace::everywhere(Keep { events_max: 100, age: Some(Duration::from_secs(300)) }),
            forget_age: Duration::from_secs(600),
            idempotency_window: Duration::from_secs(300),
        };
        let url = Secret::new(format!("redis://127.0.0.1:{}", self.port));
        let config = RedisConfig { url, prefix: name.to_owned(), partitions, ..RedisConfig::default() };
        Backbone::redis(&config, retention).expect("a good configuration")
    }

    /// Waits until everything is answered that was asked before: an answer of ours may overtake those of its own turn,
    /// but the next one doesn't.
    pub(crate) fn catch_up(&self) {
        for _ in 0..2 {
            (&self.connection).write_all(b"PING\r\n").expect("Redis listens");
            let mut answer = [0; 7];
            (&self.connection).read_exact(&mut answer).expect("Redis answers");
            assert_eq!(&answer, b"+PONG\r\n");
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// A runtime that stands still unless it is told to go on.
pub(crate) struct Stage<'a> {
    pub(crate) runtime: Runtime,
    redis: &'a Redis,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(redis: &'a Redis) -> Self {
        Self { runtime: Builder::new_current_thread().enable_all().build().expect("a runtime"), redis }
    }

    /// Goes on until something is so. It counts.
    pub(crate) fn count_until(&self, done: impl FnMut() -> bool) {
        self.until(&mut |work| section(work), done);
    }

    /// Goes on until something is so. It doesn't count.
    pub(crate) fn go_until(&self, done: impl FnMut() -> bool) {
        self.until(&mut |work| work(), done);
    }

    fn until(&self, run: &mut dyn FnMut(&mut dyn FnMut()), mut done: impl FnMut() -> bool) {
        for _ in 0..TURNS_MAX {
            self.redis.catch_up();
            run(&mut || {
                self.runtime.block_on(async {
                    for _ in 0..LOOKS {
                        yield_now().await;
                    }
                });
            });
            let begin = Instant::now();
            while begin.elapsed() < ARRIVAL {
                if done() {
                    return;
                }
            }
        }
        panic!("it doesn't come about");
    }
}

/// A client, which speaks and listens only when it is told to.
pub(crate) struct Client {
    socket: TcpStream,
    heard: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).expect("somebody listens");
        socket.set_nonblocking(true).expect("a socket");
        Self { socket, heard: Vec::new() }
    }

    /// Says something that the kernel has room for.
    pub(crate) fn say(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).expect("the kernel has room");
    }

    /// How often a text has come so far.
    pub(crate) fn heard(&mut self, text: &str) -> usize {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => panic!("it was closed, after: {}", self.text()),
                Ok(read) => self.heard.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.text().matches(text).count()
    }

    /// All that has come since the last [`Client::forget`].
    pub(crate) fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.heard)
    }

    /// Forgets what has come so far.
    pub(crate) fn forget(&mut self) {
        self.heard.clear();
    }
}

/// Whether a text has come to each, so often.
pub(crate) fn all_heard(clients: &mut [Client], text: &str, times: usize) -> bool {
    clients.iter_mut().all(|client| client.heard(text) >= times)
}
