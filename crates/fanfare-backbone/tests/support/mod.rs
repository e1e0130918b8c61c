//! Real Redis servers for tests: each on a free port, in a directory of its own, gone when the test is.
//!
//! A server that isn't installed is skipped, and said so; in CI (`CI` is set) it is a failure. `scripts/install-test-tools`
//! installs all three.

#![allow(dead_code, reason = "every test file uses another part of it")]

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::Value;
use redis::aio::MultiplexedConnection;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// For anything that a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A kind of server that Fanfare must work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    Redis6,
    Redis7,
    Valkey,
}

pub(crate) const FLAVOURS: [Flavour; 3] = [Flavour::Redis6, Flavour::Redis7, Flavour::Valkey];

impl Flavour {
    fn binary(self) -> Option<PathBuf> {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/redis");
        match self {
            Self::Redis6 => Some(tools.join("redis-server-6.2")).filter(|path| path.exists()),
            Self::Valkey => Some(tools.join("valkey-server-8.1")).filter(|path| path.exists()),
            Self::Redis7 => ["/usr/bin/redis-server", "/usr/local/bin/redis-server", "/opt/homebrew/bin/redis-server"]
                .into_iter()
                .map(PathBuf::from)
                .find(|path| path.exists()),
        }
    }
}

/// A server.
pub(crate) struct Server {
    process: Option<Child>,
    binary: PathBuf,
    directory: TempDir,
    pub(crate) port: u16,
    arguments: Vec<String>,
}

impl Server {
    /// Starts one. None: it isn't installed.
    pub(crate) async fn start(flavour: Flavour) -> Option<Self> {
        Self::start_with(flavour, &[]).await
    }

    /// Starts one with settings.
    pub(crate) async fn start_with(flavour: Flavour, arguments: &[&str]) -> Option<Self> {
        let Some(binary) = flavour.binary() else {
            #[expect(clippy::disallowed_methods, reason = "a test asks where it runs")]
            let in_ci = std::env::var("CI").is_ok();
            assert!(!in_ci, "{flavour:?} is not installed: run scripts/install-test-tools");
            eprintln!("skipped on {flavour:?}, which is not installed: run scripts/install-test-tools");
            return None;
        };
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut server = Self { process: None, binary, directory, port: free_port(), arguments };
        server.run().await;
        Some(server)
    }

    async fn run(&mut self) {
        for _ in 0..5 {
            let mut command = Command::new(&self.binary);
            command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]);
            command.args(["--appendonly", "no", "--dir"]).arg(self.directory.path());
            command
                .args(["--enable-debug-command", "yes"].iter().filter(|_| !self.binary.ends_with("redis-server-6.2")));
            command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut process = command.spawn().expect("the server starts");
            let begin = Instant::now();
            while begin.elapsed() < PATIENCE && process.try_wait().is_ok_and(|ended| ended.is_none()) {
                if tokio::net::TcpStream::connect(self.address()).await.is_ok() {
                    self.process = Some(process);
                    return;
                }
                sleep(Duration::from_millis(5)).await;
            }
            _ = process.kill();
            _ = process.wait();
            self.port = free_port(); // Somebody else was quicker.
        }
        panic!("{} does not start", self.binary.display());
    }

    pub(crate) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Ends it as a machine does that loses power.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            _ = process.kill();
            _ = process.wait();
        }
    }

    /// Starts it again, on the same port, with what it saved.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.process.is_none(), "it runs");
        self.run().await;
    }

    /// Stops it without a word, until [`Server::resume`].
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs");
        kill_process(Pid::from_child(process), signal).expect("it can be signalled");
    }

    /// A connection for the test itself.
    pub(crate) async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).expect("a URL");
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        let begin = Instant::now();
        loop {
            match client.get_multiplexed_async_connection_with_config(&config).await {
                Ok(connection) => return connection,
                Err(error) => assert!(begin.elapsed() < PATIENCE, "{error}"),
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Runs a command, its words separated by spaces.
    pub(crate) async fn command(&self, words: &str) -> Value {
        let mut cmd = redis::Cmd::new();
        for word in words.split(' ') {
            cmd.arg(word);
        }
        cmd.query_async(&mut self.connection().await).await.unwrap_or_else(|error| panic!("{words}: {error}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.resume();
        }
        self.kill();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
