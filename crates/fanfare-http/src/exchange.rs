//! What a handler gets and what it gives: a request and its peer, a response or the wish to have the socket.

use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;

use crate::{Problem, Response};

/// A request as it came. The server has seen to it that it has an [`X-Request-Id`](crate::REQUEST_ID).
pub type Request = http::Request<Incoming>;

/// What a handler works on.
pub type ReplyFuture = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// Answers requests. It is dropped in the middle when the client leaves, and a panic in it is answered with 500.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(self: Arc<Self>, request: Request, peer: Peer) -> ReplyFuture;
}

impl<F> Handler for F
where
    F: Fn(Request, Peer) -> ReplyFuture + Send + Sync + 'static,
{
    fn handle(self: Arc<Self>, request: Request, peer: Peer) -> ReplyFuture {
        self(request, peer)
    }
}

/// Who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The other end of the connection: the client, or the proxy before it.
    pub address: SocketAddr,
}

/// What a handler answers.
#[derive(Debug)]
pub enum Reply {
    /// A response; the connection goes on afterwards.
    Response(Response),
    /// The socket itself, please: whoever takes it over writes the response, its head included. Not to be had over
    /// HTTP/2, where others share it: see [`Pipe`](crate::Pipe).
    TakeOver(TakeOver),
}

impl From<Response> for Reply {
    fn from(response: Response) -> Self {
        Self::Response(response)
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        Self::Response(problem.into_response())
    }
}

/// Takes a socket over, once all earlier responses on it are with the kernel. It is called in the connection's
/// task, as its last act, so it should be short: hand the socket on. Dropped uncalled when the client left before.
pub struct TakeOver(Box<dyn FnOnce(Taken) + Send>);

impl TakeOver {
    /// Calls `with` with the socket. The request's body, if it has one, must have been read before: what was not
    /// is still to come from the socket.
    pub fn new(with: impl FnOnce(Taken) + Send + 'static) -> Self {
        Self(Box::new(with))
    }

    pub(crate) fn call(self, taken: Taken) {
        (self.0)(taken);
    }
}

impl fmt::Debug for TakeOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TakeOver")
    }
}

/// A socket that hyper has let go of.
#[derive(Debug)]
pub struct Taken {
    /// The socket, which doesn't block and which tokio knows nothing of.
    pub stream: TcpStream,
    /// What the client has sent after the request and was read already.
    pub read_ahead: Bytes,
}
