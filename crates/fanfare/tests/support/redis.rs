//! A real Redis, on a port and in a directory of its own, gone when the test is.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::Lines;

/// A running server.
pub(crate) struct Redis {
    process: Child,
    pub(crate) port: u16,
    _out: Lines,
    _directory: TempDir,
}

impl Redis {
    /// Starts one with settings. None: it isn't installed, which in CI (`CI` is set) is a failure.
    pub(crate) fn start(settings: &[&str]) -> Option<Self> {
        for _ in 0..5 {
            match Self::start_at(free_port(), settings) {
                Ok(redis) => return Some(redis),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    assert!(std::env::var_os("CI").is_none(), "redis-server is not on PATH");
                    eprintln!("skipped: redis-server is not on PATH (scripts/install-test-tools installs it)");
                    return None;
                }
                Err(error) => eprintln!("once more, on another port: {error}"),
            }
        }
        panic!("redis-server does not start");
    }

    /// Starts one on this port.
    pub(crate) fn start_at(port: u16, settings: &[&str]) -> std::io::Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]);
        command.args(["--appendonly", "no", "--dir"]).arg(directory.path()).args(settings);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut out = Lines::of(process.stdout.take().expect("piped"));
        while let Some(line) = out.next() {
            if line.contains("Ready to accept connections") {
                return Ok(Self { process, port, _out: out, _directory: directory });
            }
        }
        process.wait()?;
        Err(std::io::Error::other("it ended instead of starting")) // Somebody else may have taken the port.
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// A port that nobody listens on just now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
