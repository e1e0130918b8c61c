//! A listener and its connections.
//!
//! Whoever owns the server tells it to stop and waits for its connections: both handles are the owner's.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{Ties, Timing, begin};
use crate::{Handler, Peer};

/// Pause after an accept that failed for want of something: descriptors come back when connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time between two log lines about failing accepts.
const ACCEPT_COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// Connections that are accepted before others get a turn.
const ACCEPTS_MAX: usize = 32;

/// Connections that may wait to be accepted: after a restart everybody comes back at once, and whoever finds no room
/// is a second late. The kernel's own bound (`net.core.somaxconn`) holds too.
const ACCEPT_BACKLOG: u32 = 65_535;

/// Unacknowledged bytes or an unanswered keepalive for so long mean that the peer is gone.
const PEER_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes that the kernel takes for one connection before they can be sent; past it a write has to wait. So a reader
/// that stands still is found out after some 40 kB instead of 4 MB, and unlike a small send buffer it bounds nothing
/// that is under way to a reader far away. Less would not help: the kernel fills 32 KiB at a time.
const UNSENT_BYTES_MAX: u32 = 16 * 1024;

/// Listens on an address. What accepted sockets are to be like is set here, once: they inherit it.
///
/// # Errors
/// The address can't be had.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?; // Else a restart would have to wait for the connections of before.
    socket.set_nodelay(true)?;
    let options = socket2::SockRef::from(&socket);
    // Where one of these isn't known, the rest works all the same.
    _ = options.set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
    _ = options.set_tcp_user_timeout(Some(PEER_TIMEOUT));
    _ = options.set_keepalive(true);
    socket.bind(address)?;
    socket.listen(ACCEPT_BACKLOG)
}

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

    /// Accepts connections until `stop`, then closes the listener and returns. A connection that isn't done with at
    /// once is a task of `connections`, and so is each stream of HTTP/2; after `stop` what runs is answered, and nothing
    /// further. The owner waits with [`TaskTracker::close`] and [`TaskTracker::wait`], as long as it likes.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken, connections: TaskTracker) {
        let listener = match listener.into_std().and_then(watch) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "a listener can't be watched"),
        };
        let mut complaint = Complaint::default();
        loop {
            let ready = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                ready = listener.readable() => ready,
            };
            let Ok(mut ready) = ready else { break }; // The runtime ends.
            let accepted = self.accept(listener.get_ref(), &stop, &connections);
            match accepted {
                Ok(()) => tokio::task::yield_now().await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
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

    /// Accepts what waits, up to [`ACCEPTS_MAX`].
    ///
    /// # Errors
    /// `WouldBlock`: nobody waits any more. Else no connection can be accepted just now.
    fn accept(
        &self,
        listener: &mio::net::TcpListener,
        stop: &CancellationToken,
        connections: &TaskTracker,
    ) -> io::Result<()> {
        for _ in 0..ACCEPTS_MAX {
            let (socket, address) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if of_one_connection(&error) => continue,
                Err(error) => return Err(error),
            };
            let leave = self.leave.as_ref().filter(|leave| !leave.is_cancelled()).unwrap_or(stop);
            let ties = Ties { stop: stop.clone(), leave: leave.clone(), tasks: connections.clone() };
            if let Some(rest) = begin(socket.into(), Peer { address }, self.handler.clone(), self.timing, ties) {
                connections.spawn(rest);
            }
        }
        Ok(())
    }
}

/// Lets tokio say when somebody waits to be accepted; the sockets themselves are not made known to it (see `wire`).
#[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor that no type can give yet")]
fn watch(listener: std::net::TcpListener) -> io::Result<AsyncFd<mio::net::TcpListener>> {
    // SAFETY: the listener owns its descriptor, closes it when it is dropped, and always gives this one.
    let watched = unsafe {
        AsyncFd::register_with_interest(mio::net::TcpListener::from_std(listener), tokio::io::Interest::READABLE)
    };
    watched.map_err(|error| error.into_parts().1)
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
