//! A connection that speaks HTTP/2, as proxies do to the servers behind them: by prior knowledge, in the clear.
//!
//! Each request is a stream, and hyper makes a task of it. One stream must not cost another: each has a window of its
//! own, and what may wait for each in memory is bounded by the numbers here. What a client does wrong as a whole, such
//! as to give up more than it waits for, ends its connection.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{AbortHandle, Abortable};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::TokioTimer;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::TaskTracker;

use crate::connection::{Answering, HEAD_BYTES_MAX, Ties, Timing};
use crate::wire::{Phase, Socket, Wire};

/// What every HTTP/2 connection begins with, and no HTTP/1 request does.
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Streams of one connection at most; the client is told, and what it opens beyond is refused. Event streams last for
/// hours, so it is many more than for requests that come and go; but they share one TCP connection, in which a lost
/// packet delays them all, and a lock. A proxy opens the next connection by itself.
const STREAMS_MAX: u32 = 1_000;

/// Bytes of a request's body that a client may send before they are read. Bodies are read as they come, so it only has
/// to last for a round trip in a data centre.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// The same for all bodies of a connection together: what its clients can make us hold.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Bytes of a response that h2 keeps for one stream beside the piece it was given last. hyper's 400 KiB would be a
/// second backlog that nobody counts and that no slow reader is closed for.
const SEND_BUFFER_BYTES: usize = 16 * 1024;

/// Pause between two pings, and how long an answer may take: together as long as a silent peer of an event stream over
/// HTTP/1 may take to acknowledge what it was sent.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// Streams that the client reset before we got round to them: more in one go is an attack (CVE-2023-44487). h2's 20
/// could be the browsers of one page that is closed, behind a proxy.
const RESETS_PENDING_MAX: usize = 200;

/// Requests of a connection that the client gave up before they were answered, beyond as many as it waited for. Each
/// costs us its work and the client nothing, so whoever does little else is cut off.
const GIVEN_UP_MAX: u64 = 500;

tokio::task_local! {
    /// The stream that the running task belongs to.
    pub(crate) static STREAM: AbortHandle;
}

/// Runs streams, each of which can be cut.
#[derive(Clone)]
struct Streams(TaskTracker);

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let (handle, registration) = AbortHandle::new_pair();
        // Dropped half-way, a stream is reset: h2 forgets what it kept for it.
        self.0.spawn(STREAM.scope(handle, Abortable::new(stream, registration).map(drop)));
    }
}

/// Serves a connection to its end, from its preface on.
pub(crate) async fn drive(socket: Socket, preface: Bytes, answering: Answering, timing: Timing, ties: Ties) {
    let (traffic, peer) = (answering.traffic.clone(), answering.peer);
    traffic.wait();
    let wire = Wire::new(socket, preface, traffic.clone()).gathering();
    let mut connection = pin!(
        http2::Builder::new(Streams(ties.tasks))
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
            .serve_connection(wire, answering)
    );

    let mut phase = traffic.phase_of_streams();
    let mut deadline = pin!(sleep_until(Instant::now() + timing.idle));
    let mut leaving = pin!(async {
        tokio::select! {
            () = ties.leave.cancelled() => {}
            () = ties.stop.cancelled() => {}
        }
    });
    // It has been told that it will get no more answers here.
    let mut told = false;
    std::future::poll_fn(|cx| {
        if !told && leaving.as_mut().poll(cx).is_ready() {
            told = true;
            connection.as_mut().graceful_shutdown();
            deadline.as_mut().reset(Instant::now() + timing.linger);
        }
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                if let Err(error) = ended {
                    tracing::debug!(peer = %peer.address, %error, "an HTTP/2 connection ended in the middle of something");
                }
                return Poll::Ready(());
            }
            if traffic.given_up_too_often(GIVEN_UP_MAX) {
                tracing::debug!(peer = %peer.address, "a client gives up nearly everything it asks for and is cut off");
                return Poll::Ready(());
            }
            let limit = |phase| match phase {
                Phase::Blocked(_) => Some(timing.write),
                Phase::Idle(_) | Phase::Head(_) => Some(if told { timing.linger } else { timing.idle }),
                Phase::Serving => None,
            };
            let now = traffic.phase_of_streams();
            if now != phase {
                phase = now;
                if let Some(limit) = limit(phase) {
                    deadline.as_mut().reset(Instant::now() + limit);
                }
            }
            if limit(phase).is_none() || deadline.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if told || matches!(phase, Phase::Blocked(_)) {
                tracing::debug!(peer = %peer.address, ?phase, "a client took too long and is cut off");
                return Poll::Ready(());
            }
            told = true; // Idle: it is told, and the loop sees to it that it is.
            connection.as_mut().graceful_shutdown();
            deadline.as_mut().reset(Instant::now() + timing.linger);
        }
    })
    .await;
}
