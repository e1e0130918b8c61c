//! The processes of a server that was started for a measurement: on free ports of 127.0.0.1, with a directory of their
//! own, gone when this is dropped, or when this program is gone, however it ended.

use std::fs;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::answer::{open, read_answer};
use crate::dialect::Dialect;
use crate::endpoint::Endpoint;
use crate::fleet::Fleet;
use crate::keeper::{Keeper, see_off, terminate};
use crate::scenario::Site;

/// Longest time until a server takes connections.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest time that a server may take to end before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between two looks whether it has come to that.
const LOOK: Duration = Duration::from_millis(10);

/// Servers that run.
#[derive(Debug)]
pub struct Servers {
    /// Its version, and that of what it needs.
    pub version: String,
    /// Whom scenarios are run against.
    pub site: Site,
    // In the order in which they end: what the others need goes last, and the directory when all are gone.
    _keeper: Option<Keeper>,
    _processes: Vec<Process>,
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
        let endpoint = local(port);
        let (began, mut buffer, mut body) = (Instant::now(), [0; 4096], Vec::new());
        loop {
            let mut stream = open(&endpoint)?;
            stream.write_all(format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n.").as_bytes())?;
            let (status, _) = read_answer(&mut stream, &mut buffer, &mut body)?;
            if (200..300).contains(&status) {
                return Ok(());
            }
            if began.elapsed() > START_TIMEOUT {
                let said = String::from_utf8_lossy(&body).into_owned();
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

    /// All are started, and clients and publishers are served on this port.
    pub(super) fn done(self, version: String, dialect: Dialect, port: u16) -> Servers {
        let endpoint = local(port);
        self.serving(version, Site::new("peer", dialect, std::slice::from_ref(&endpoint), endpoint.clone()), None)
    }

    /// The same, with a fleet that leans on them.
    pub(super) fn done_with(self, version: String, Fleet { site, keeper }: Fleet) -> Servers {
        self.serving(version, site, Some(keeper))
    }

    fn serving(mut self, version: String, mut site: Site, keeper: Option<Keeper>) -> Servers {
        site.pids.extend(self.pids());
        self.processes.reverse();
        Servers { version, site, _keeper: keeper, _processes: self.processes, _directory: self.directory }
    }

    /// All its processes, their children and its Redis included: what they take is what the server takes.
    fn pids(&self) -> Vec<u32> {
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

fn local(port: u16) -> Endpoint {
    format!("http://127.0.0.1:{port}").parse().expect("an address and a port are a URL")
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

impl Drop for Process {
    fn drop(&mut self) {
        terminate(&self.0);
        see_off([&mut self.0], STOP_TIMEOUT);
    }
}
