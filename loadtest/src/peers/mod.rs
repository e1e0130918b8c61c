//! What Fanfare is held beside: other servers of events, each started here, on free ports, and spoken to in its own
//! words.
//!
//! A [`Peer`] is one row of a table: how it is started, and so how it is spoken to. What is measured of it are the
//! scenarios that measure Fanfare, with the very same clients, checks and floor. How each is configured, and why,
//! stands in its file in `loadtest/peers`; what isn't installed is skipped by name.

mod better_sse;
mod fanfare;
mod mercure;
mod nchan;
mod process; // Their processes, gone when the measurement is.
mod run; // All of them, in turn.

use std::path::{Path, PathBuf};

pub use process::{Servers, StartError};
pub use run::{Comparison, PARTS, Part};

use crate::dialect::{Dialect, Post};

/// A server that is held beside others.
#[derive(Debug)]
pub struct Peer {
    /// What it is called in results.
    pub name: &'static str,
    /// What is worth knowing of how it runs here, in a few words.
    pub how: &'static str,
    /// Starts it, for clients that follow what they are said to.
    pub start: fn(&Ground, Follows) -> Result<Servers, StartError>,
    /// Whether a client that comes back with its last id is given what it missed.
    pub resumes: bool,
    /// Whether one request publishes many events.
    pub takes_many: bool,
}

/// What clients follow. Fanfare's have their inbox and the broadcast besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// A channel that others follow as well.
    Channel,
    /// One of their own.
    Inbox,
}

/// All of them, Fanfare first.
pub const PEERS: [Peer; 7] = [
    fanfare::IN_MEMORY,
    fanfare::WITH_REDIS,
    nchan::IN_MEMORY,
    nchan::WITH_REDIS,
    better_sse::PEER,
    mercure::IN_MEMORY,
    mercure::ON_DISK,
];

/// Where things are found.
#[derive(Clone, Debug)]
pub struct Ground {
    /// What `loadtest/peers/install` filled.
    pub tools: PathBuf,
    /// The binary of Fanfare.
    pub fanfare: PathBuf,
}

impl Ground {
    /// The repository's own tools, and the binary beside this program's own.
    ///
    /// # Errors
    /// Where this program can't tell its own path.
    pub fn of_repository() -> std::io::Result<Self> {
        Ok(Self {
            tools: Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/peers"),
            fanfare: std::env::current_exe()?.with_file_name("fanfare"),
        })
    }

    /// A file that `loadtest/peers/install` brings.
    fn tool(&self, path: &str) -> Result<PathBuf, StartError> {
        let found = self.tools.join(path);
        let peer = path.split('/').next().unwrap_or(path);
        let missing = || StartError::NotInstalled(format!("loadtest/peers/install {peer}"));
        found.canonicalize().map_err(|_| missing())
    }

    /// The version that was installed of a peer.
    fn version(&self, peer: &str) -> Result<String, StartError> {
        Ok(std::fs::read_to_string(self.tool(&format!("{peer}/VERSION"))?)?.trim().to_owned())
    }
}

/// How servers are spoken to whose channels are named in a query, `id` at two of them, and published to with a body of
/// plain text. The head of their response is all that says that a subscription stands.
fn by_query(subscribe: &str, publish: &str, follows: Follows) -> Dialect {
    let channel = match follows {
        Follows::Channel => "c{channel}",
        Follows::Inbox => "u{user}",
    };
    let post = |name: &str| Post {
        path: format!("{publish}{name}"),
        headers: "Content-Type: text/plain\r\n".to_owned(),
        ..Post::default()
    };
    Dialect {
        subscribe: format!(
            "GET {{path}}{subscribe}{channel} HTTP/1.1\r\nHost: {{host}}\r\nAccept: text/event-stream\r\n{{resume}}\r\n"
        ),
        resume: "Last-Event-ID: {id}\r\n".to_owned(),
        ready: None,
        to_user: post("u{user}"),
        to_channel: post("c{channel}"),
        to_all: post("all"),
        bulk: None,
    }
}
