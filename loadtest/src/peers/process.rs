//! The processes of a server that was started for a measurement: on free ports of 127.0.0.1, with a directory of their
//! own, gone when this is dropped, or when this program is gone, however it ended.

use std::fs;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::Endpoint;
use crate::publish::{open, read_answer};

/// Longest time until a server takes connections.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest time that a server may take to end before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between two looks whether it has come to that.
const LOOK: Duration = Duration::from_millis(10);

/// Running servers, in the order in which they were started: what the others need comes first.
#[derive(Debug)]
pub struct Servers {
    /// Its version, and that of what it needs.
    pub version: String,
    /// Where clients subscribe.
    pub subscribe: Endpoint,
    /// Where events are published.
    pub publish: Endpoint,
    processes: Vec<Process>,
    // After the processes: they are gone when it is removed.
    _directory: TempDir,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It is to be installed first; the text says how.
    #[error("not installed: {0}")]
    NotInstalled(String),
    /// It ended, or took no connections.
    #[error("{program} does not take connections. It said: {said}")]
    NotListening {
        /// What was started.
        program: String,
        /// What it printed.
        said: String,
    },
    /// The machine refuses.
    #[error("the machine refuses")]
    Io(#[from] io::Error),
}

#[derive(Debug)]
struct Process(Child);

/// Servers that are being started.
pub(super) struct Starting {
    directory: TempDir,
    processes: Vec<Process>,
}

impl Starting {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { directory: tempfile::Builder::new().prefix("fanfare-peer-").tempdir()?, processes: Vec::new() })
    }

    /// Where they may write.
    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file there, and tells its path.
    pub(super) fn file(&self, name: &str, text: &str) -> io::Result<String> {
        let path = self.directory.path().join(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    /// Starts a process, and waits until it takes connections on a port.
    pub(super) fn start(
        &mut self,
        port: u16,
        program: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<(), StartError> {
        let log = fs::File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .append(true)
            .open(self.directory().join(format!("log-{}", self.processes.len())))?;
        // util-linux's: the server goes when this program is gone, even when that was killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(program).args(arguments);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FANFARE_")) {
            command.env_remove(name);
        }
        command.envs(variables.iter().copied()).current_dir(self.directory());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
        self.processes.push(Process(command.spawn()?));
        let process = self.processes.last_mut().expect("pushed just now");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if process.0.try_wait()?.is_some() || began.elapsed() > START_TIMEOUT {
                return Err(StartError::NotListening { program: program.display().to_string(), said: read(log) });
            }
            thread::park_timeout(LOOK);
        }
        Ok(())
    }

    /// Waits until a publish to this port and path is taken: what a server leans on may be there later than itself.
    pub(super) fn wait_until_publishes(&self, port: u16, target: &str) -> Result<(), StartError> {
        let endpoint = format!("http://127.0.0.1:{port}").parse::<Endpoint>().expect("an address and a port are a URL");
        let began = Instant::now();
        loop {
            let mut stream = open(&endpoint)?;
            stream.write_all(format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n.").as_bytes())?;
            let (status, said, _) = read_answer(&mut stream)?;
            if (200..300).contains(&status) {
                return Ok(());
            }
            if began.elapsed() > START_TIMEOUT {
                return Err(StartError::NotListening { program: target.to_owned(), said });
            }
            thread::park_timeout(LOOK);
        }
    }

    /// A Redis of the system's, without anything on disk; tells its URL.
    pub(super) fn start_redis(&mut self) -> Result<String, StartError> {
        let program = system("redis-server", "apt-get install redis-server")?;
        let port = free_port()?;
        let text = port.to_string();
        let arguments = ["--port", &text, "--bind", "127.0.0.1", "--save", "", "--maxmemory-policy", "noeviction"];
        self.start(port, &program, &arguments, &[])?;
        Ok(format!("redis://127.0.0.1:{port}"))
    }

    /// All are started.
    pub(super) fn done(self, version: String, subscribe: u16, publish: u16) -> Servers {
        let endpoint = |port| format!("http://127.0.0.1:{port}").parse().expect("an address and a port are a URL");
        let (subscribe, publish) = (endpoint(subscribe), endpoint(publish));
        Servers { version, subscribe, publish, processes: self.processes, _directory: self.directory }
    }
}

/// A port that is free now.
pub(super) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A program of the system's, or how it is installed.
pub(super) fn system(program: &str, install: &str) -> Result<std::path::PathBuf, StartError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/go/bin".into()]);
    let found = places.map(|place| place.join(program)).find(|path| path.is_file());
    found.ok_or_else(|| StartError::NotInstalled(install.to_owned()))
}

/// The first line that a program prints.
pub(super) fn first_line(program: &Path, arguments: &[&str]) -> Result<String, StartError> {
    let output = Command::new(program).args(arguments).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&said).lines().next().unwrap_or_default().trim().to_owned())
}

fn read(mut log: fs::File) -> String {
    let mut said = String::new();
    // Where it can't be read, nothing is said.
    _ = log.rewind().and_then(|()| log.read_to_string(&mut said));
    said
}

impl Servers {
    /// All its processes, their children and its Redis included: what they take is what the server takes.
    pub fn pids(&self) -> Vec<u32> {
        let mut pids = self.processes.iter().map(|process| process.0.id()).collect::<Vec<_>>();
        let mut next = 0;
        while let Some(pid) = pids.get(next).copied() {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            pids.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            next += 1;
        }
        pids
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).expect("a child has an id");
        // Where it fails, it is gone already.
        _ = kill_process(pid, Signal::TERM);
        let began = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) {
            if began.elapsed() > STOP_TIMEOUT {
                _ = self.0.kill();
            }
            thread::park_timeout(LOOK);
        }
    }
}
