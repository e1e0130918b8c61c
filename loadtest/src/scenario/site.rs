//! Whom a scenario is run against.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::dialect::Dialect;
use crate::endpoint::Endpoint;
use crate::floor::Floor;
use crate::machine::established;
use crate::speak::{Http, Speaker};

/// Bytes of an answer at most.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// A server, or several that belong together.
#[derive(Debug)]
pub struct Site {
    /// What it is called in results: `fanfare`, `floor`, or a peer's name.
    pub name: String,
    /// How it was set up, in a sentence; empty where that isn't known.
    pub setup: String,
    /// How it is spoken to.
    pub dialect: Dialect,
    /// Base URLs of what clients connect to, evenly.
    pub edges: Vec<String>,
    /// Where events are published.
    pub publish: Endpoint,
    /// Signs the clients' tokens.
    pub secret: Option<String>,
    /// Its processes, as far as they are on this machine.
    pub pids: Vec<u32>,
    /// The process behind it, where it is the floor.
    floor: Option<Floor>,
}

impl Site {
    /// A deployment of which these are the URLs.
    pub fn new(name: &str, dialect: Dialect, edges: &[Endpoint], publish: Endpoint) -> Self {
        Self {
            name: name.to_owned(),
            setup: String::new(),
            dialect,
            edges: edges.iter().map(ToString::to_string).collect(),
            publish,
            secret: None,
            pids: Vec::new(),
            floor: None,
        }
    }

    /// Starts the floor; it ends with this.
    ///
    /// # Errors
    /// The process can't be started.
    pub fn floor() -> io::Result<Self> {
        let floor = Floor::start()?;
        let endpoint = floor.url().parse::<Endpoint>().map_err(io::Error::other)?;
        let mut site =
            Self::new("floor", Dialect::fanfare(None, true), std::slice::from_ref(&endpoint), endpoint.clone());
        site.setup = "a bare send(2) loop over the sockets".to_owned();
        site.pids = vec![floor.pid()];
        site.floor = Some(floor);
        Ok(site)
    }

    /// Whether it is the floor.
    pub(crate) fn is_floor(&self) -> bool {
        self.floor.is_some()
    }

    /// Somebody who publishes. The floor has one voice only.
    pub(crate) fn speaker(&self, run: u32, payload_bytes: usize) -> io::Result<Speaker> {
        match &self.floor {
            Some(floor) => Ok(Speaker::Floor(floor.voice(run, payload_bytes)?)),
            None => {
                let http = Http::new(self.publish.clone(), self.dialect.clone(), run, payload_bytes);
                Ok(Speaker::Http(Box::new(http)))
            }
        }
    }

    /// What Fanfare says of its version, where its first edge tells it to everybody, as in `fanfare dev`.
    pub fn version(&self) -> Option<String> {
        #[derive(serde::Deserialize)]
        struct Version {
            version: String,
        }
        let edge = self.edges.first()?.parse::<Endpoint>().ok()?;
        let mut stream = TcpStream::connect_timeout(&edge.address(), Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        let (path, host) = (edge.path(), edge.authority());
        write!(stream, "GET {path}/version HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n").filter(|(head, _)| head.starts_with("HTTP/1.1 200 "))?;
        serde_json::from_str::<Version>(body).ok().map(|answer| answer.version)
    }

    /// Connections that its edges have, where they are on this machine.
    pub(crate) fn established(&self) -> usize {
        let addresses = self.edges.iter().filter_map(|url| Some(url.parse::<Endpoint>().ok()?.address()));
        addresses.map(established).sum()
    }
}
