//! What Fanfare is held beside: other servers of events, each started here, on free ports, and spoken to in its own
//! words.
//!
//! A [`Peer`] is one row of a table: how it is started, and what a subscription and a publish look like. Whatever it
//! sends, a payload of ours is found in it, so the swarm that checks and times is the same for all. How each is
//! configured, and why, stands in its file in `loadtest/peers`; what isn't installed is skipped by name.

mod better_sse;
mod fanfare;
mod floor; // The yardstick: a bare loop of writes.
mod listeners; // The clients, the same for all.
mod measure; // What is measured of each.
mod mercure;
mod meter;
mod nchan;
mod payload;
mod process; // Their processes, gone when the measurement is.
mod publishers;
mod run; // All of them, in turn.

use std::path::{Path, PathBuf};

pub use floor::{FLOOR, serve_floor};
pub use measure::{Options, Scenario, measure};
pub use process::{Servers, StartError};
pub use run::{Comparison, new_results};

/// Whom an event is for, and what a client follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// A channel that everybody follows.
    Everybody,
    /// A channel that one user follows.
    User(u32),
}

/// The request of a client that begins or resumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Path and query.
    pub target: String,
    /// Headers besides `Host` and `Accept: text/event-stream`, each ended with CRLF.
    pub headers: String,
}

/// A request that publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// Path and query.
    pub target: String,
    /// Headers besides `Host` and `Content-Length`, each ended with CRLF.
    pub headers: String,
    /// The body.
    pub body: String,
}

/// A server that is held beside others.
#[derive(Debug)]
pub struct Peer {
    /// What it is called in results.
    pub name: &'static str,
    /// What is worth knowing of how it runs here, in a few words.
    pub how: &'static str,
    /// Starts it.
    pub start: fn(&Ground) -> Result<Servers, StartError>,
    /// How a client subscribes: with its number and what it follows, and the id that it came to.
    pub subscribe: fn(u32, Audience, Option<&str>) -> Subscription,
    /// How so many events are published in one request; at most [`Peer::batch_max`].
    pub publish: fn(&[(Audience, &str)]) -> Post,
    /// Events that one request takes.
    pub batch_max: u32,
    /// Whether a client that comes back with its last id is given what it missed.
    pub resumes: bool,
}

/// All of them but the floor, Fanfare first.
pub const PEERS: [Peer; 7] = [
    fanfare::IN_MEMORY,
    fanfare::WITH_REDIS,
    nchan::IN_MEMORY,
    nchan::WITH_REDIS,
    better_sse::PEER,
    mercure::IN_MEMORY,
    mercure::ON_DISK,
];

/// Where things are found, and where servers may write.
#[derive(Clone, Debug)]
pub struct Ground {
    /// What `loadtest/peers/install` filled.
    pub tools: PathBuf,
    /// The binary of Fanfare.
    pub fanfare: PathBuf,
    /// This program's own, which is the floor as well.
    pub own: PathBuf,
}

impl Ground {
    /// The repository's own tools, and the binary beside this program's own.
    ///
    /// # Errors
    /// Where this program can't tell its own path.
    pub fn of_repository() -> std::io::Result<Self> {
        let own = std::env::current_exe()?;
        Ok(Self {
            tools: Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/peers"),
            fanfare: own.with_file_name("fanfare"),
            own,
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

/// A body of plain text to a channel in the query, the form that two of them share.
fn plain_post(events: &[(Audience, &str)]) -> Post {
    let [(audience, payload)] = events else { unreachable!("one event a request") };
    Post {
        target: format!("/pub?id={}", audience.name()),
        headers: "Content-Type: text/plain\r\n".to_owned(),
        body: (*payload).to_owned(),
    }
}

/// The subscription that goes with it.
fn plain_subscription(_client: u32, audience: Audience, last_id: Option<&str>) -> Subscription {
    Subscription { target: format!("/sub?id={}", audience.name()), headers: last_event_id(last_id) }
}

fn last_event_id(last_id: Option<&str>) -> String {
    last_id.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"))
}

impl Audience {
    /// The channel's name where names are free.
    fn name(self) -> String {
        match self {
            Self::Everybody => "all".to_owned(),
            Self::User(user) => format!("u{user}"),
        }
    }
}
