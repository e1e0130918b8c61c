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

/// Between two looks at who has ended.
const LOOK: Duration = Duration::from_millis(5);

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
        self.0.iter().for_each(terminate);
        see_off(&mut self.0, END_TIMEOUT);
    }
}

/// Asks a process to end.
pub(crate) fn terminate(child: &Child) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // Where it fails, it is gone already.
    _ = pid.map(|pid| kill_process(pid, Signal::TERM));
}

/// Waits for processes that were asked to end. All of them together have so long; who is there after it is killed. Says
/// how many that were.
pub(crate) fn see_off<'a>(children: impl IntoIterator<Item = &'a mut Child>, timeout: Duration) -> usize {
    let until = now() + nanos(timeout);
    let mut left = children.into_iter().collect::<Vec<_>>();
    loop {
        left.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        if left.is_empty() || now() >= until {
            break;
        }
        wait_until(now() + nanos(LOOK));
    }
    // All of them before the first is waited for: the kernel closes what they had open side by side.
    for child in &mut left {
        _ = child.kill();
    }
    for child in &mut left {
        _ = child.wait();
    }
    left.len()
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

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn who_ends_is_waited_for_and_who_does_not_is_killed() {
        let start = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::piped()).spawn().expect("a program of every system")
        };
        let mut ending = [start("cat", &[]), start("cat", &[]), start("sleep", &["600"])];
        (ending[0].stdin, ending[1].stdin) = (None, None);
        terminate(&ending[2]);
        assert_eq!(see_off(&mut ending, Duration::from_secs(600)), 0);
        let ended = ending.map(|mut child| child.wait().expect("it has ended"));
        assert_eq!(
            ended.map(|status| (status.code(), status.signal())),
            [(Some(0), None), (Some(0), None), (None, Some(Signal::TERM.as_raw()))]
        );

        let mut staying = [start("sleep", &["600"]), start("sleep", &["600"])];
        assert_eq!(see_off(&mut staying, Duration::ZERO), 2);
        let killed = staying.map(|mut child| child.wait().expect("it has ended").signal());
        assert_eq!(killed, [Some(Signal::KILL.as_raw()); 2]);
    }
}
