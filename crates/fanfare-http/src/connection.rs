//! One connection: its requests, its deadlines, and how its socket is given away or closed.
//!
//! hyper parses and answers; this drives it. A handler that wants the socket leaves a note (see `wire`) and its
//! future parks for ever, so hyper goes no further; the driver reads the note once everything earlier is with the
//! kernel, takes hyper apart and hands the socket on. All of that lives in one box: wakers that still point to the
//! task afterwards keep only a few bytes of it.

use std::convert::Infallible;
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Method, Version, header::CONTENT_LENGTH};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http2::{self, PREFACE};
use crate::request_id::{REQUEST_ID, request_id};
use crate::wire::{Phase, Serving, Socket, Traffic, Wire};
use crate::{Body, BodyError, Code, Handler, Peer, Problem, Reply, Request, Response, TakeOver, Taken, full};

/// Bytes of a request's head at most: a URL of [`URI_BYTES_MAX`], a cursor, and a proxy's headers and cookies.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a URL at most. Proxies take 8 KiB as a rule; what is longer belongs into a body.
const URI_BYTES_MAX: usize = 16 * 1024;

/// Bytes that are read of a connection before it is known what it speaks: the whole head, as a rule.
const BEGIN_BYTES: usize = 4 * 1024;

/// What a closed connection may still send before its socket goes, see [`linger`].
const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long clients may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// For a request's head, from its first byte, or from the start of the connection.
    pub(crate) head: Duration,
    /// Between requests. Longer than the idle timeout of usual load balancers (60 s), so that it is them who close
    /// and no request meets a socket that is just closing.
    pub(crate) idle: Duration,
    /// To take some of what was written.
    pub(crate) write: Duration,
    /// To close after a response that ended the connection.
    pub(crate) linger: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            write: Duration::from_secs(30),
            linger: Duration::from_secs(2),
        }
    }
}

impl Timing {
    fn limit(&self, phase: Phase) -> Option<Duration> {
        match phase {
            Phase::Head(_) => Some(self.head),
            Phase::Idle(_) => Some(self.idle),
            Phase::Blocked(_) => Some(self.write),
            Phase::Serving => None,
        }
    }
}

/// What a connection has of its server.
#[derive(Clone, Debug)]
pub(crate) struct Ties {
    /// No further request is answered.
    pub(crate) stop: CancellationToken,
    /// Clients that can be told so should open no more streams here.
    pub(crate) leave: CancellationToken,
    /// Where tasks belong.
    pub(crate) tasks: TaskTracker,
}

/// Begins to serve a connection. The request is there as a rule: then all is done by now, where it took the socket
/// over. None: it is. Else what is left to do, to be run as a task.
pub(crate) fn begin(
    socket: TcpStream,
    peer: Peer,
    handler: Arc<dyn Handler>,
    timing: Timing,
    ties: Ties,
) -> Option<impl Future<Output = ()> + Send + 'static> {
    let mut driving = Box::pin(drive(Socket::Plain(socket), peer, handler, timing, ties));
    // Whoever polls it next says whom to wake.
    let first = AssertUnwindSafe(|| driving.as_mut().poll(&mut Context::from_waker(Waker::noop())));
    let first = match catch_unwind(first) {
        Ok(Poll::Ready(Ended::Cut)) | Err(_) => return None,
        Ok(Poll::Ready(Ended::TakenOver(take_over, taken))) => {
            take_over.call(taken);
            return None;
        }
        Ok(Poll::Ready(ended @ Ended::Done(_))) => Ok(ended),
        Ok(Poll::Pending) => Err(driving),
    };
    Some(async move {
        let ended = match first {
            Ok(ended) => ended,
            Err(driving) => driving.await, // The box is gone after this statement.
        };
        match ended {
            Ended::Cut => {}
            Ended::Done(socket) => Box::pin(linger(socket, timing.linger)).await,
            Ended::TakenOver(take_over, taken) => take_over.call(taken),
        }
    })
}

enum Ended {
    /// HTTP says that it is over.
    Done(Socket),
    /// A deadline passed.
    Cut,
    /// A handler takes the socket over.
    TakenOver(TakeOver, Taken),
}

enum Step {
    Done,
    Cut,
    TakeOver(TakeOver),
}

/// Finds out which HTTP the client speaks, and serves it.
async fn drive(mut socket: Socket, peer: Peer, handler: Arc<dyn Handler>, timing: Timing, ties: Ties) -> Ended {
    let head_until = Instant::now() + timing.head;
    let answering = Answering { handler, peer, traffic: Arc::default() };
    let begin = tokio::select! {
        biased; // Where the request is there already, nothing is waited for.
        begin = read_begin(&mut socket) => begin,
        () = ties.stop.cancelled() => Ok(Bytes::new()),
        () = sleep_until(head_until) => return Ended::Cut,
    };
    match begin {
        Ok(begin) if begin.starts_with(PREFACE) => {
            Box::pin(http2::drive(socket, begin, answering, timing, ties)).await;
            Ended::Cut
        }
        Ok(begin) => Box::pin(drive_http1(socket, begin, answering, timing, head_until, ties.stop)).await,
        Err(_) => Ended::Cut, // It left without a word.
    }
}

/// Reads what there is, and on while it could be the preface of HTTP/2.
async fn read_begin(socket: &mut Socket) -> std::io::Result<Bytes> {
    let mut begin = Vec::new();
    while begin.len() < PREFACE.len() && PREFACE.starts_with(&begin) {
        match read_more(socket, &mut begin) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => socket.readable().await?,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(begin.into())
}

/// Not part of a future, which would be so much larger.
fn read_more(socket: &Socket, begin: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut buffer = [0; BEGIN_BYTES];
    let read = socket.try_read(&mut buffer)?;
    begin.extend_from_slice(&buffer[..read]);
    Ok(read)
}

async fn drive_http1(
    socket: Socket,
    begin: Bytes,
    answering: Answering,
    timing: Timing,
    head_until: Instant,
    stop: CancellationToken,
) -> Ended {
    let (traffic, peer) = (answering.traffic.clone(), answering.peer);
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None) // Ours tells a slow head from an idle connection.
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(Wire::new(socket, begin, traffic.clone()), answering);

    let mut phase = traffic.phase();
    let mut deadline = pin!(sleep_until(head_until));
    let mut stopped = pin!(stop.cancelled());
    let mut stopping = false;
    let step = std::future::poll_fn(|cx| {
        loop {
            if !stopping && stop.is_cancelled() {
                stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            if let Poll::Ready(ended) = connection.poll_without_shutdown(cx) {
                if let Err(error) = ended {
                    tracing::debug!(peer = %peer.address, %error, "a connection ended in the middle of something");
                }
                return Poll::Ready(Step::Done);
            }
            if let Some(take_over) = traffic.due() {
                return Poll::Ready(Step::TakeOver(take_over));
            }
            if !traffic.wait() {
                continue; // Now it is worth it to be woken.
            }
            let now = traffic.phase();
            if now != phase {
                phase = now;
                if let Some(limit) = timing.limit(phase) {
                    deadline.as_mut().reset(Instant::now() + limit);
                }
            }
            if timing.limit(phase).is_some() && deadline.as_mut().poll(cx).is_ready() {
                tracing::debug!(peer = %peer.address, ?phase, "a client took too long and is cut off");
                return Poll::Ready(Step::Cut);
            }
            if stopping || stopped.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await;
    match step {
        Step::Cut => Ended::Cut,
        Step::Done => Ended::Done(connection.into_parts().io.into_socket()),
        Step::TakeOver(take_over) => {
            let parts = connection.into_parts();
            match parts.io.into_socket().into_plain() {
                Ok(stream) => Ended::TakenOver(take_over, Taken { stream, read_ahead: parts.read_buf }),
                Err(_) => Ended::Cut,
            }
        }
    }
}

/// Says that nothing more comes and waits a little for the client to do the same: a socket that is closed while
/// something of the client's is unread resets the connection, and the client may never see the response.
async fn linger(mut socket: Socket, time_max: Duration) {
    let closing = async {
        let socket = socket.registered()?.inner_mut();
        socket.shutdown().await?;
        let mut waste = vec![0; 16 * 1024];
        let mut wasted = 0;
        while wasted < LINGER_BYTES_MAX {
            match socket.read(&mut waste).await? {
                0 => break,
                read => wasted += read,
            }
        }
        std::io::Result::Ok(())
    };
    _ = timeout(time_max, closing).await; // Whatever happens, the socket goes now.
}

/// The handler, as hyper calls it.
pub(crate) struct Answering {
    handler: Arc<dyn Handler>,
    pub(crate) peer: Peer,
    pub(crate) traffic: Arc<Traffic>,
}

impl Service<Request> for Answering {
    type Response = http::Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Answer>, Infallible>> + Send>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let serving = Serving::begin(self.traffic.clone());
        let (handler, peer) = (self.handler.clone(), self.peer);
        let http2 = request.version() == Version::HTTP_2;
        let body_unwanted = http2 && request.method() == Method::HEAD; // With HTTP/1 hyper sees to that.
        Box::pin(async move {
            let mut response = match answer(handler, request, peer).await {
                Ok(response) => response,
                Err(_) if http2 => {
                    tracing::error!("a handler wants the socket of a stream, its request is answered with 500");
                    Problem::new(Code::Internal, "this can't be had over HTTP/2").into_response()
                }
                Err(take_over) => {
                    serving.traffic.offer(take_over);
                    // The driver drops this future with everything around it.
                    std::future::pending().await
                }
            };
            if body_unwanted {
                leave_body_out(&mut response);
            }
            let serving = serving.answered();
            Ok(response.map(|body| Answer { body, _serving: serving }))
        })
    }
}

/// The answer to HEAD: what GET would answer, but for the body.
fn leave_body_out(response: &mut Response) {
    let body = std::mem::replace(response.body_mut(), full(""));
    if let Some(len) = hyper::body::Body::size_hint(&body).exact() {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(len.into());
    }
}

/// A response's body. The request is served when it is written, or given up.
pub(crate) struct Answer {
    body: Body,
    _serving: Serving,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn answer(handler: Arc<dyn Handler>, mut request: Request, peer: Peer) -> Result<Response, TakeOver> {
    let id = request_id(request.headers());
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let mut response = match reply(handler, request, peer).await {
        Reply::Response(response) => response,
        Reply::TakeOver(take_over) => return Err(take_over),
    };
    response.headers_mut().entry(REQUEST_ID).or_insert(id);
    Ok(response)
}

async fn reply(handler: Arc<dyn Handler>, request: Request, peer: Peer) -> Reply {
    if uri_len(request.uri()) > URI_BYTES_MAX {
        let detail = format!("the URL may have {URI_BYTES_MAX} bytes, this one has more");
        return Problem::new(Code::UriTooLong, detail).hint("put what makes it long into a body").into();
    }
    let id = request.headers()[REQUEST_ID].clone();
    // A handler is dropped with its request, so nobody meets what the panic left half-done in it.
    let working = AssertUnwindSafe(async move { handler.handle(request, peer).await });
    match working.catch_unwind().await {
        Ok(reply) => reply,
        Err(_) => {
            tracing::error!(request_id = ?id, "a handler panicked, its request is answered with 500");
            Problem::new(Code::Internal, "something went wrong here, and it is not the request")
                .hint("X-Request-Id finds it in the log")
                .into()
        }
    }
}

fn uri_len(uri: &http::Uri) -> usize {
    uri.path_and_query().map_or(0, |path| path.as_str().len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ReplyFuture, text};
    use http::StatusCode;
    use tokio::net::{TcpListener, TcpStream};

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(60);
    const PATIENT: Timing = Timing { head: LONG, idle: LONG, write: LONG, linger: LONG };

    fn large(_: Request, _: Peer) -> ReplyFuture {
        Box::pin(async { Reply::Response(Response::new(full(vec![b'x'; 16 << 20]))) })
    }

    fn slow(_: Request, _: Peer) -> ReplyFuture {
        Box::pin(async {
            tokio::time::sleep(3 * SHORT).await;
            Reply::Response(text(StatusCode::OK, "done"))
        })
    }

    fn untied() -> Ties {
        Ties { stop: CancellationToken::new(), leave: CancellationToken::new(), tasks: TaskTracker::new() }
    }

    /// A client and the connection that serves it.
    async fn connect(
        timing: Timing,
        handler: fn(Request, Peer) -> ReplyFuture,
    ) -> (TcpStream, impl Future<Output = ()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let local = listener.local_addr().expect("bound");
        let client = TcpStream::connect(local).await.expect("listening");
        let (socket, address) = listener.accept().await.expect("connected");
        let socket = socket.into_std().expect("a socket");
        let connection = begin(socket, Peer { address }, Arc::new(handler), timing, untied());
        let connection = async {
            if let Some(connection) = connection {
                connection.await
            }
        };
        (client, TaskTracker::new().spawn(connection).map(|ended| ended.expect("no panic")))
    }

    async fn read_some(client: &mut TcpStream) -> String {
        let mut buffer = vec![0; 4096];
        let count = client.read(&mut buffer).await.expect("not reset");
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    #[tokio::test]
    async fn a_head_that_drips_is_cut_off() {
        let (mut client, connection) = connect(Timing { head: SHORT, ..PATIENT }, slow).await;
        let dripping = async {
            for byte in b"GET / HTTP/1.1\r\nHost: example.com\r\n".iter().cycle() {
                if client.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(SHORT / 10).await;
            }
        };
        tokio::select! {
            () = dripping => {}
            () = connection => {}
        }
    }

    #[tokio::test]
    async fn a_connection_without_a_request_is_cut_off() {
        let (mut client, connection) = connect(Timing { head: SHORT, ..PATIENT }, slow).await;
        connection.await;
        assert_eq!(read_some(&mut client).await, "");
    }

    #[tokio::test]
    async fn neither_a_slow_handler_nor_a_pause_between_requests_is_a_slow_head() {
        let (mut client, _connection) = connect(Timing { head: SHORT, ..PATIENT }, slow).await;
        for _ in 0..2 {
            client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("open");
            assert!(read_some(&mut client).await.ends_with("done"));
            tokio::time::sleep(3 * SHORT).await;
        }
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed_in_the_end() {
        let (mut client, connection) = connect(Timing { idle: SHORT, ..PATIENT }, slow).await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("open");
        assert!(read_some(&mut client).await.ends_with("done"));
        connection.await;
        assert_eq!(read_some(&mut client).await, "");
    }

    #[tokio::test]
    async fn the_second_head_of_a_connection_may_not_drip_either() {
        let (mut client, connection) = connect(Timing { head: SHORT, ..PATIENT }, slow).await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("open");
        assert!(read_some(&mut client).await.ends_with("done"));
        client.write_all(b"GET / HTT").await.expect("open");
        connection.await;
        assert_eq!(read_some(&mut client).await, "");
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_cut_off() {
        let (mut client, connection) = connect(Timing { write: SHORT, ..PATIENT }, large).await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("open");
        connection.await;
    }

    /// Frames of HTTP/2, by their types and payloads, for the stream 0 but for HEADERS, which open the stream 1.
    fn http2(frames: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = PREFACE.to_vec();
        for (kind, payload) in frames {
            let whole = u8::from(*kind == HEADERS);
            bytes.extend_from_slice(&[0, 0, payload.len() as u8, *kind, 0b101 * whole, 0, 0, 0, whole]);
            bytes.extend_from_slice(payload);
        }
        bytes
    }

    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const WINDOW_UPDATE: u8 = 8;

    #[tokio::test]
    async fn an_idle_connection_over_http2_is_told_and_closed_in_the_end() {
        let (mut client, connection) = connect(Timing { idle: SHORT, linger: SHORT, ..PATIENT }, slow).await;
        client.write_all(&http2(&[(SETTINGS, b"")])).await.expect("open");
        connection.await;
        let (mut bytes, mut kinds) = (Vec::new(), Vec::new());
        client.read_to_end(&mut bytes).await.expect("closed in good order");
        let mut rest = &bytes[..];
        while let [_, high, low, kind, ..] = rest {
            kinds.push(*kind);
            rest = &rest[9 + usize::from(u16::from_be_bytes([*high, *low]))..];
        }
        assert!(kinds.contains(&GOAWAY), "{kinds:?}");
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_what_its_windows_allow_is_cut_off() {
        let (mut client, connection) = connect(Timing { write: SHORT, ..PATIENT }, large).await;
        let every_window_is_open = [
            (SETTINGS, &b"\0\x04\x7f\xff\xff\xff"[..]),
            (WINDOW_UPDATE, b"\x7f\xff\0\0"),
            (HEADERS, b"\x82\x86\x84\x41\x01x"),
        ];
        client.write_all(&http2(&every_window_is_open)).await.expect("open");
        connection.await;
    }

    #[tokio::test]
    async fn wakers_that_stay_behind_keep_little_of_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let local = listener.local_addr().expect("bound");
        let socket = TcpStream::connect(local).await.expect("listening").into_std().expect("a socket");
        let connection = begin(socket, Peer { address: local }, Arc::new(slow), PATIENT, untied());
        let connection = connection.expect("there is no request yet");
        assert!(size_of_val(&connection) <= 256, "{} bytes", size_of_val(&connection));
    }
}
