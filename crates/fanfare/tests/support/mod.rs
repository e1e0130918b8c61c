//! The real binary, run as its users run it: started, read line by line, signalled, and never left behind.

#![allow(dead_code, reason = "each test file uses some of it")]

pub(crate) mod clients;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod role;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine. Nothing waits for it to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The binary of this version.
pub(crate) const FANFARE: &str = env!("CARGO_BIN_EXE_fanfare");

/// The binary, with nothing of this process's own settings.
pub(crate) fn fanfare(arguments: &[&str]) -> Command {
    program(FANFARE.as_ref(), arguments)
}

/// The same of another version.
pub(crate) fn program(path: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FANFARE_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    fanfare(arguments).output().expect("the binary runs")
}

/// Runs it to its end, with something on standard input.
pub(crate) fn run_with_input(arguments: &[&str], input: &str) -> Output {
    let mut child = fanfare(arguments).stdin(Stdio::piped()).spawn().expect("the binary runs");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// Sends a signal by its name, such as `TERM`.
pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(status.expect("kill runs").success());
}

/// A running process. Dropped, it is killed.
pub(crate) struct Process {
    child: Child,
    pub(crate) out: Lines,
    pub(crate) err: Lines,
}

/// Lines as they come.
pub(crate) struct Lines {
    arriving: Receiver<String>,
    /// For the message of a test that waits in vain.
    seen: Vec<String>,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, arriving) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { arriving, seen: Vec::new() }
    }

    /// What came so far and was taken.
    pub(crate) fn seen(&self) -> &[String] {
        &self.seen
    }

    /// The next line; None at the end.
    pub(crate) fn next(&mut self) -> Option<String> {
        match self.arriving.recv_timeout(PATIENCE) {
            Ok(line) => {
                self.seen.push(line.clone());
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no further line after:\n{}", self.seen.join("\n")),
        }
    }

    /// The next line that has this in it.
    pub(crate) fn find(&mut self, part: &str) -> String {
        loop {
            match self.next() {
                Some(line) if line.contains(part) => return line,
                Some(_) => {}
                None => panic!("it ended without {part:?}:\n{}", self.seen.join("\n")),
            }
        }
    }
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the binary runs");
        let out = Lines::of(child.stdout.take().expect("piped"));
        let err = Lines::of(child.stderr.take().expect("piped"));
        Self { child, out, err }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its standard input, which must be piped.
    pub(crate) fn write_line(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().expect("piped"), "{line}").expect("it reads");
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        // The pipes' ends come first, so this hardly ever goes round.
        while self.out.next().is_some() {}
        while self.err.next().is_some() {}
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the process does not end");
            std::thread::yield_now();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// `fanfare dev` on a port of its own.
pub(crate) struct Dev {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

impl Dev {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", arguments, &[])
    }

    pub(crate) fn start_at(listen: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = fanfare(&["dev", "--listen", listen]);
        command.args(arguments).envs(environment.iter().copied());
        let mut process = Process::start(&mut command);
        let line = process.err.find("\"listening\"");
        let log: serde_json::Value = serde_json::from_str(&line).expect("a JSON log line");
        let address = log["address"].as_str().expect("an address").parse().expect("an address");
        Self { process, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends a request as it stands, and reads the answer to its end.
    pub(crate) fn ask(&self, request: &str) -> String {
        let mut stream = self.connect(request);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// Sends a request as it stands.
    pub(crate) fn connect(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(request.as_bytes()).expect("it reads");
        stream
    }

    /// GETs a path, with further header lines.
    pub(crate) fn get(&self, path: &str, headers: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\r\n", self.address))
    }

    pub(crate) fn send(&self, arguments: &[&str]) -> Output {
        run(&[&["send", "--url", &self.url()], arguments].concat())
    }

    /// Follows, and is connected.
    pub(crate) fn tail(&self, arguments: &[&str]) -> Process {
        let mut tail = Process::start(&mut fanfare(&[&["tail", "--url", &self.url()], arguments].concat()));
        tail.err.find("connected");
        tail
    }
}
