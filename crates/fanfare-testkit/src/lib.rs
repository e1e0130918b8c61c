//! Real processes, faults and clients for tests: they speak the glossary, so that a refactoring changes the kit and
//! not the tests. A dev-dependency only.
//!
//! Whatever does not come within [`PATIENCE`] fails the test in words, with the server's log where there is one.
//! Nothing here sleeps to wait for the server: it waits for what the server says.

mod process; // `fanfare` itself, as a process.
mod proxy;
mod publisher; // Publishes, and asks for anything else.
mod raw; // Bytes of your own choice.
mod subscriber; // Follows channels. // Stands between a client and an edge, and misbehaves.

use std::time::Duration;

pub use fanfare_loadtest::http::Head;
pub use fanfare_protocol::sse::Message;
pub use process::{Fanfare, Launch, binary};
pub use proxy::{Fault, FaultProxy};
pub use publisher::{Answer, Publisher};
pub use raw::RawConnection;
pub use subscriber::{Subscribe, Subscriber};

/// Longest wait for anything that a server should do at once.
pub const PATIENCE: Duration = Duration::from_secs(10);
