//! Servers that this program starts itself, and stops whatever becomes of it.
//!
//! They are children of a **keeper**, which is this program again: it stops them when its standard input ends, and that
//! ends with the program that started it, be it by Ctrl-C or worse.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write, stdin, stdout};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::clock::{nanos, now, wait_until};

/// The argument that makes a process of this program a keeper.
pub const KEEPER: &str = "keeper";

/// How long servers may take to end before they are killed.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// A server's command. It gets no other environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Server {
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
}

/// Runs a keeper: reads commands as a line of JSON, starts them, tells their process ids as another line, and stops
/// them at the end of its input.
///
/// # Errors
/// Where the commands can't be understood, or one of them not be started.
pub fn run() -> io::Result<()> {
    let mut lines = BufReader::new(stdin());
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let servers = serde_json::from_str::<Vec<Server>>(&line).map_err(io::Error::other)?;
    let mut kept = Kept(Vec::new());
    for server in servers {
        let mut command = Command::new(&server.program);
        command.args(&server.arguments).env_clear().envs(&server.environment);
        // What they have to say at last is said on the terminal: why they can't go on.
        kept.0.push(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
    }
    let pids = kept.0.iter().map(Child::id).collect::<Vec<_>>();
    let mut line = serde_json::to_vec(&pids).map_err(io::Error::other)?;
    line.push(b'\n');
    stdout().write_all(&line)?;
    lines.read_line(&mut String::new())?;
    Ok(())
}

struct Kept(Vec<Child>);

impl Drop for Kept {
    fn drop(&mut self) {
        for child in &self.0 {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        }
        let until = now() + nanos(END_TIMEOUT);
        for child in &mut self.0 {
            while matches!(child.try_wait(), Ok(None)) && now() < until {
                wait_until(now() + 10_000_000);
            }
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// Servers that are kept for as long as this is.
#[derive(Debug)]
pub(crate) struct Keeper {
    child: Child,
    pids: Vec<u32>,
}

impl Keeper {
    /// Starts them.
    ///
    /// # Errors
    /// One can't be started.
    pub(crate) fn start(servers: &[Server]) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let child = command.arg(KEEPER).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = serde_json::to_vec(servers).map_err(io::Error::other)?;
        line.push(b'\n');
        // A keeper that is dropped from here on stops what it has started.
        let mut keeper = Self { child, pids: Vec::new() };
        child_stdin(&mut keeper.child)?.write_all(&line)?;
        let words = keeper.child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut line = String::new();
        BufReader::new(words).read_line(&mut line)?;
        keeper.pids = serde_json::from_str(&line).map_err(|_| io::Error::other("a server can't be started"))?;
        Ok(keeper)
    }

    /// Their process ids, in the order of their commands.
    pub(crate) fn pids(&self) -> &[u32] {
        &self.pids
    }
}

fn child_stdin(child: &mut Child) -> io::Result<&mut std::process::ChildStdin> {
    child.stdin.as_mut().ok_or_else(|| io::ErrorKind::BrokenPipe.into())
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.child.stdin = None;
        _ = self.child.wait();
    }
}
