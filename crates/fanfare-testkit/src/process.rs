//! `fanfare` as a process of its own: the real binary, on a free port, gone when the test is.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{PATIENCE, Publisher, Subscribe};

/// A process that is about to be started.
#[derive(Debug)]
pub struct Launch {
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
}

/// A running process. It is killed when this is dropped.
#[derive(Debug)]
pub struct Fanfare {
    child: Child,
    address: SocketAddr,
    log: Arc<Log>,
    readers: Vec<JoinHandle<()>>,
}

/// What the process says, and a bell for each line.
#[derive(Debug, Default)]
struct Log {
    said: Mutex<Said>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Said {
    text: String,
    open_pipes: usize,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().expect("a reader of the log does not panic")
    }

    fn read(&self, pipe: impl Read) {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            self.lock().text.push_str(&String::from_utf8_lossy(&line));
            line.clear();
            self.more.notify_all();
        }
        self.lock().open_pipes -= 1;
        self.more.notify_all();
    }

    /// Waits until something is found in what was said; `None` when it ended or took too long.
    fn wait_for<T>(&self, patience: Duration, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + patience;
        let mut said = self.lock();
        loop {
            if let Some(found) = find(&said.text) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || said.open_pipes == 0 {
                return None;
            }
            said = self.more.wait_timeout(said, left).expect("a reader of the log does not panic").0;
        }
    }
}

impl Launch {
    /// Any command of the binary: `Launch::command(["edge", "--config", …])`.
    pub fn command<A: Into<OsString>>(arguments: impl IntoIterator<Item = A>) -> Self {
        Self { arguments: arguments.into_iter().map(Into::into).collect(), variables: Vec::new() }
    }

    /// Sets a variable. None of the test's own `FANFARE_…` variables are handed down.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Starts it, and waits for the address that it prints.
    ///
    /// # Panics
    /// Where it doesn't print one in time; with what it printed instead.
    #[must_use]
    pub fn start(self) -> Fanfare {
        let mut child = self.spawn();
        let log = Arc::new(Log::default());
        log.lock().open_pipes = 2;
        let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let reader = |pipe: Box<dyn Read + Send>| {
            let log = log.clone();
            thread::spawn(move || log.read(pipe))
        };
        let readers = vec![reader(Box::new(stdout)), reader(Box::new(stderr))];
        let Some(address) = log.wait_for(PATIENCE, find_address) else {
            _ = child.kill();
            _ = child.wait();
            panic!("fanfare {:?} printed no address. It said:\n{}", self.arguments, log.lock().text);
        };
        Fanfare { child, address, log, readers }
    }

    /// Runs it to its end: tools, and services that refuse to start. Tells status, standard output, standard error.
    ///
    /// # Panics
    /// Where it can't be started.
    #[must_use]
    pub fn run(self) -> (ExitStatus, String, String) {
        let output = self.spawn().wait_with_output().expect("its output can be read");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status, text(output.stdout), text(output.stderr))
    }

    fn spawn(&self) -> Child {
        let binary = binary();
        let mut command = Command::new(&binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("FANFARE_") {
                command.env_remove(name);
            }
        }
        command.args(&self.arguments).envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap_or_else(|error| panic!("{} can't be started: {error}", binary.display()))
    }
}

/// The binary under test: `FANFARE_BIN`, or the one in the target directory that this test was built into.
///
/// # Panics
/// Where it is not built.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("FANFARE_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a test knows its own path");
    let target = test.parent().and_then(|deps| deps.parent()).expect("tests lie in target/…/deps");
    let binary = target.join("fanfare");
    let profile = target.file_name().unwrap_or_default().to_string_lossy();
    assert!(
        binary.is_file(),
        "{} is not built: `cargo build --profile {profile} -p fanfare` builds it, or set FANFARE_BIN",
        binary.display()
    );
    binary
}

/// The first address with a port in what was said.
fn find_address(text: &str) -> Option<SocketAddr> {
    // Only whole lines: half a port is a port as well.
    let whole = &text[..=text.rfind('\n')?];
    whole.match_indices("127.0.0.1:").find_map(|(at, _)| {
        let rest = &whole[at..];
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(rest.len());
        rest[..end].trim_end_matches(['.', ':']).parse::<SocketAddr>().ok().filter(|address| address.port() != 0)
    })
}

impl Fanfare {
    /// `fanfare dev` on a free port.
    pub fn dev() -> Launch {
        Launch::command(["dev", "--listen", "127.0.0.1:0"])
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same, as a base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it printed so far, standard output and standard error.
    pub fn log(&self) -> String {
        self.log.lock().text.clone()
    }

    /// Waits until it has printed a text.
    ///
    /// # Panics
    /// Where it doesn't in time.
    pub fn wait_for_log(&self, text: &str) {
        let found = self.log.wait_for(PATIENCE, |said| said.contains(text).then_some(()));
        assert!(found.is_some(), "fanfare did not say {text:?}, but:\n{}", self.log());
    }

    /// A subscription that is about to be opened: `fanfare.subscribe("/events?channel=server:7")`.
    pub fn subscribe(&self, path: &str) -> Subscribe {
        Subscribe::new(self.address, path)
    }

    /// A publisher with a connection of its own.
    pub fn publisher(&self) -> Publisher {
        Publisher::new(self.address)
    }

    /// Sends a signal: `TERM` drains, `STOP` and `CONT` hang it and let it go on.
    ///
    /// # Panics
    /// Where the process is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the process is there");
    }

    /// Asks it to drain.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// Where it doesn't end in time.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        // Both pipes end with the process; no other has them.
        _ = self.log.wait_for(patience, |_| None::<()>);
        let gone = self.log.lock().open_pipes == 0;
        assert!(gone, "fanfare is still there after {patience:?}. It said:\n{}", self.log());
        self.child.wait().expect("it is our child")
    }

    /// Kills it at once, as a crash would.
    pub fn kill(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Drop for Fanfare {
    fn drop(&mut self) {
        let ended = self.child.try_wait().ok().flatten();
        self.kill();
        for reader in self.readers.drain(..) {
            _ = reader.join();
        }
        if thread::panicking() {
            eprintln!("--- fanfare ({}) said:\n{}", self.address, self.log());
        }
        // A panic ends in SIGABRT or 101.
        let crashed = ended.is_some_and(|status| status.code() == Some(101) || status.signal() == Some(6));
        assert!(!crashed || thread::panicking(), "fanfare crashed. It said:\n{}", self.log());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_what_is_printed() {
        let expected = "127.0.0.1:4711".parse().ok();
        assert_eq!(find_address("Fanfare listens on http://127.0.0.1:4711/.\n"), expected);
        assert_eq!(find_address("asked for 127.0.0.1:0, got \"127.0.0.1:4711\"\n"), expected);
        assert_eq!(find_address("http://127.0.0.1:47"), None, "the line goes on");
        assert_eq!(find_address("nothing\n"), None);
    }
}
