//! A server on a free port and a client that speaks raw HTTP.

#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;

use fanfare_http::{Peer, Reply, Request, Server, listen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) struct TestServer {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) connections: TaskTracker,
    pub(crate) accepting: JoinHandle<()>,
}

impl TestServer {
    pub(crate) async fn start<F>(handler: impl Fn(Request, Peer) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        let listener = listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (stop, connections) = (CancellationToken::new(), TaskTracker::new());
        let handler =
            move |request: Request, peer: Peer| -> fanfare_http::ReplyFuture { Box::pin(handler(request, peer)) };
        let server = Server::new(Arc::new(handler));
        let accepting = TaskTracker::new().spawn(server.serve(listener, stop.clone(), connections.clone()));
        Self { address, stop, connections, accepting }
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.address).await
    }
}

pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: std::net::SocketAddr) -> Self {
        Self { socket: TcpStream::connect(address).await.expect("listening"), buffer: vec![] }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).await.expect("taken");
    }

    /// Reads up to and with the first `end`.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        loop {
            let found = self.buffer.windows(end.len()).position(|window| window == end.as_bytes());
            if let Some(at) = found {
                let rest = self.buffer.split_off(at + end.len());
                return String::from_utf8(std::mem::replace(&mut self.buffer, rest)).expect("UTF-8");
            }
            assert_ne!(self.socket.read_buf(&mut self.buffer).await.expect("open"), 0, "closed before {end:?}");
        }
    }

    /// Reads a response with a `Content-Length`: its head in lower case and its body.
    pub(crate) async fn response(&mut self) -> (String, String) {
        let head = self.until("\r\n\r\n").await.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |length| length.parse::<usize>().expect("a number"));
        while self.buffer.len() < length {
            assert_ne!(self.socket.read_buf(&mut self.buffer).await.expect("open"), 0, "closed in a body");
        }
        let rest = self.buffer.split_off(length);
        (head, String::from_utf8(std::mem::replace(&mut self.buffer, rest)).expect("UTF-8"))
    }

    /// Reads to the end.
    pub(crate) async fn rest(&mut self) -> String {
        self.socket.read_to_end(&mut self.buffer).await.expect("closed in good order");
        String::from_utf8(std::mem::take(&mut self.buffer)).expect("UTF-8")
    }
}
