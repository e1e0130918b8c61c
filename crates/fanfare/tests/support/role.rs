//! The roles as processes of their own, with the credentials that all tests share.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use fanfare_testkit::{Publisher, Subscribe};

use super::{FANFARE, PATIENCE, Process, fanfare, program, stderr, stdout};

/// Signs subscribers' tokens.
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// A publish key for everything …
pub(crate) const KEY: &str = "0123456789abcdef";
/// … and one for `other:*` alone.
pub(crate) const SCOPED_KEY: &str = "fedcba9876543210";
const KEYS: &str = "all=0123456789abcdef,scoped=fedcba9876543210;channels=other:*";

/// A role on ports of its own.
pub(crate) struct Role {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Role {
    pub(crate) fn start(role: &str, redis: &str) -> Self {
        Self::start_with(role, redis, &[])
    }

    pub(crate) fn start_with(role: &str, redis: &str, environment: &[(&str, &str)]) -> Self {
        Self::launch(FANFARE.as_ref(), role, redis, &[], environment)
    }

    /// The same of another version.
    pub(crate) fn of(binary: &Path, role: &str, redis: &str, environment: &[(&str, &str)]) -> Self {
        Self::launch(binary, role, redis, &[], environment)
    }

    /// The same with a configuration file.
    pub(crate) fn with_file(role: &str, redis: &str, file: &Path) -> Self {
        Self::launch(FANFARE.as_ref(), role, redis, &["--config", file.to_str().expect("UTF-8")], &[])
    }

    fn launch(binary: &Path, role: &str, redis: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let free = "127.0.0.1:0";
        let mut command = program(binary, &[role, "--listen", free, "--admin-listen", free, "--redis", redis]);
        command.args(arguments);
        command.envs(credentials()).envs([("FANFARE_DRAIN_DELAY", "0s"), ("FANFARE_DRAIN_TIMEOUT", "300ms")]);
        let mut process = Process::start(command.envs(environment.iter().copied()));
        let line = process.err.find("\"listening\"");
        let log: serde_json::Value = serde_json::from_str(&line).expect("a JSON log line");
        let address = |field: &str| log[field].as_str().expect("an address").parse().expect("an address");
        Self { address: address("address"), admin: address("admin_address"), process }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn subscribe(&self, path: &str, token: &str) -> Subscribe {
        Subscribe::new(self.address, path).header("Authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn publisher(&self, key: &str) -> Publisher {
        Publisher::new(self.address).header("Authorization", &format!("Bearer {key}"))
    }

    pub(crate) async fn readiness(&self) -> u16 {
        Publisher::new(self.admin).get("/readyz").await.status
    }

    /// A metric's value now; its name has its labels with it, as `/metrics` says them.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(self.admin).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: {}\r\n\r\n", self.admin).expect("it reads");
        let mut metrics = String::new();
        stream.read_to_string(&mut metrics).expect("an answer");
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {metrics}"))
    }

    /// Waits until it is as ready as that. There is nothing to wait for but its word.
    pub(crate) async fn turns(&self, status: u16) -> Duration {
        let start = Instant::now();
        while self.readiness().await != status {
            assert!(start.elapsed() < 2 * PATIENCE, "/readyz is not {status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        start.elapsed()
    }
}

pub(crate) fn credentials() -> [(&'static str, &'static str); 2] {
    [("FANFARE_AUTH_SECRET", SECRET), ("FANFARE_PUBLISH_KEYS", KEYS)]
}

/// Mints a token with `fanfare token`.
pub(crate) fn token(arguments: &[&str]) -> String {
    let output = fanfare(&["token"]).args(arguments).envs(credentials()).output().expect("it runs");
    assert!(output.status.success(), "{}", stderr(&output));
    let token = stdout(&output);
    assert_eq!(token.trim().lines().count(), 1, "{token}");
    token.trim().to_owned()
}
