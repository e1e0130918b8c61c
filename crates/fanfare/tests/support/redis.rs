//! A real Redis, on a port and in a directory of its own, gone when the test is.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::Lines;

/// A server that can die and come back.
pub(crate) struct Redis {
    process: Child,
    pub(crate) port: u16,
    settings: Vec<String>,
    pub(crate) out: Lines,
    directory: TempDir,
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
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect::<Vec<_>>();
        let (process, out) = serve(port, directory.path(), &settings)?;
        Ok(Self { process, port, settings, out, directory })
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Runs a command with `redis-cli`, and tells its answer.
    pub(crate) fn command(&self, words: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        let output = cli.args(["-e", "-p", &self.port.to_string()]).args(words).output().expect("redis-cli runs");
        let answer = super::stdout(&output);
        assert!(output.status.success(), "{words:?}: {answer}{}", super::stderr(&output));
        answer
    }

    /// Dies without a word.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("a child of ours");
        self.process.wait().expect("a child of ours");
    }

    /// Comes back after [`Redis::kill`], with what it had written to its directory.
    pub(crate) fn restart(&mut self) {
        let serve = || serve(self.port, self.directory.path(), &self.settings);
        // A connection that tried to reach it may hold its port for a moment.
        let served = std::iter::repeat_with(serve).take(20).find_map(Result::ok);
        (self.process, self.out) = served.expect("it starts again on its port");
    }

    /// Loses everything that it had written.
    pub(crate) fn forget(&mut self) {
        self.directory = tempfile::tempdir().expect("a directory");
    }

    /// Sends a signal by its name, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        super::signal(self.process.id(), name);
    }

    /// Closes all subscriptions, as a failing network would.
    pub(crate) fn kill_subscriptions(&self) {
        self.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    }
}

fn serve(port: u16, directory: &Path, settings: &[String]) -> std::io::Result<(Child, Lines)> {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]);
    command.args(["--appendonly", "no", "--dir"]).arg(directory).args(settings);
    let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut out = Lines::of(process.stdout.take().expect("piped"));
    while let Some(line) = out.next() {
        if line.contains("Ready to accept connections") {
            return Ok((process, out));
        }
    }
    process.wait()?;
    Err(std::io::Error::other("it ended instead of starting")) // Somebody else may have taken the port.
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
