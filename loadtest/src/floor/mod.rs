//! The yardstick: what the kernel makes anybody pay who writes each event to each socket.
//!
//! It runs as a process of its own (`server`), so that its CPU can be told from that of the clients, which are the same
//! as for any other server.

mod control;
mod server;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub use server::{FLOOR, run};

use crate::speak::Saying;
use control::{Hello, Record};

/// How long the floor may take to do what it is told.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The floor, while it runs.
#[derive(Debug)]
pub(crate) struct Floor {
    child: Child,
    port: u16,
    /// As long as it stands, so does the floor.
    control: TcpStream,
}

impl Floor {
    /// Starts it.
    ///
    /// # Errors
    /// The process can't be started.
    pub(crate) fn start() -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg(FLOOR).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line)?;
        let ports = line
            .trim()
            .split_once(' ')
            .and_then(|(one, two)| Some((one.parse::<u16>().ok()?, two.parse::<u16>().ok()?)));
        let Some((port, control_port)) = ports else {
            _ = child.kill();
            return Err(io::Error::other("the floor does not say where it listens"));
        };
        let control = TcpStream::connect((Ipv4Addr::LOCALHOST, control_port))?;
        control.set_nodelay(true)?;
        control.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self { child, port, control })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What tells it what to send.
    ///
    /// # Errors
    /// It doesn't answer.
    pub(crate) fn voice(&self, run: u32, payload_bytes: usize) -> io::Result<Voice> {
        let mut stream = self.control.try_clone()?;
        let mut bytes = Vec::new();
        let payload_bytes = u32::try_from(payload_bytes).expect("payloads have a bound");
        control::write(Record::Hello(Hello { run, payload_bytes }), &mut bytes);
        stream.write_all(&bytes)?;
        Ok(Voice { stream, bytes })
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Tells the floor what to send.
#[derive(Debug)]
pub(crate) struct Voice {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Voice {
    /// Has events sent, and waits until they are.
    ///
    /// # Errors
    /// The floor is gone.
    pub(crate) fn say(&mut self, events: &[Saying]) -> io::Result<()> {
        self.bytes.clear();
        for event in events {
            control::write(Record::Event(event.to, event.seq, event.due), &mut self.bytes);
        }
        self.stream.write_all(&self.bytes)?;
        let mut done = 0;
        while done < events.len() {
            let mut count = [0; 4];
            self.stream.read_exact(&mut count)?;
            done += u32::from_be_bytes(count) as usize;
        }
        Ok(())
    }
}
