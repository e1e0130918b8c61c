//! A listener and its connections.
//!
//! Whoever owns the server tells it to stop and waits for its connections: both handles are the owner's.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{Ties, Timing, serve};
use crate::{Handler, Peer};

/// Pause after an accept that failed for want of something: descriptors come back when connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time between two log lines about failing accepts.
const ACCEPT_COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// Serves HTTP/1.1 (and 1.0) in the clear, and HTTP/2 to clients that begin with its preface.
#[derive(Clone)]
pub struct Server {
    handler: Arc<dyn Handler>,
    timing: Timing,
    leave: Option<CancellationToken>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("timing", &self.timing).finish_non_exhaustive()
    }
}

impl Server {
    /// A server that asks `handler`.
    pub fn new(handler: Arc<dyn Handler>) -> Self {
        Self { handler, timing: Timing::default(), leave: None }
    }

    /// Once `leave` is cancelled, the connections that are there are told to open no more streams, as far as their
    /// HTTP has a word for that (`GOAWAY`); their streams go on. Who comes later is served as ever.
    pub fn leave_on(self, leave: CancellationToken) -> Self {
        Self { leave: Some(leave), ..self }
    }

    /// Accepts connections until `stop`, then closes the listener and returns. Each connection is a task of
    /// `connections`, and so is each stream of HTTP/2; after `stop` what runs is answered, and nothing further. The
    /// owner waits with [`TaskTracker::close`] and [`TaskTracker::wait`], as long as it likes.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken, connections: TaskTracker) {
        let mut complaint = Complaint::default();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, address)) => {
                    if let Some(peer) = prepare(&socket, address) {
                        let leave = self.leave.as_ref().filter(|leave| !leave.is_cancelled()).unwrap_or(&stop);
                        let (stop, leave, tasks) = (stop.clone(), leave.clone(), connections.clone());
                        let ties = Ties { stop, leave, tasks };
                        connections.spawn(serve(socket, peer, self.handler.clone(), self.timing, ties));
                    }
                }
                Err(error) if of_one_connection(&error) => {}
                Err(error) => {
                    complaint.about(&error);
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    }
                }
            }
        }
    }
}

/// None: the client has left already.
fn prepare(socket: &TcpStream, address: std::net::SocketAddr) -> Option<Peer> {
    socket.set_nodelay(true).ok()?;
    let local = socket.local_addr().ok()?;
    Some(Peer { address, local })
}

/// Whether it concerns the client that left while it was waiting, and nobody else.
fn of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Logs once in a while.
#[derive(Default)]
struct Complaint {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaint {
    fn about(&mut self, error: &io::Error) {
        if self.last.is_some_and(|last| last.elapsed() < ACCEPT_COMPLAINT_INTERVAL) {
            self.unsaid += 1;
            return;
        }
        tracing::warn!(%error, failures_unlogged = self.unsaid, "connections can't be accepted just now");
        *self = Self { last: Some(Instant::now()), unsaid: 0 };
    }
}
