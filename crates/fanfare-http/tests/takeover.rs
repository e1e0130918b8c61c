//! A handler can have the socket itself: nothing is lost before or after, and nothing of hyper stays.

mod kit;

use std::sync::{Arc, Mutex};

use fanfare_http::{Reply, Request, TakeOver, Taken, full, read_body, text};
use http::StatusCode;
use kit::{Client, TestServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

/// A socket that was given away.
struct Given {
    stream: tokio::net::TcpStream,
    read_ahead: bytes::Bytes,
}

impl From<Taken> for Given {
    fn from(taken: Taken) -> Self {
        let stream = tokio::net::TcpStream::from_std(taken.stream).expect("it doesn't block");
        Self { stream, read_ahead: taken.read_ahead }
    }
}

/// A server that gives away sockets of `/events` and answers anything else, `/large` with 8 MiB.
async fn giving() -> (TestServer, mpsc::UnboundedReceiver<Given>) {
    let (sender, taken) = mpsc::unbounded_channel();
    let server = TestServer::start(move |request: Request, _| {
        let sender = sender.clone();
        async move {
            match request.uri().path() {
                "/events" => {
                    read_body(request.into_body(), 1024).await.expect("a small body");
                    Reply::TakeOver(TakeOver::new(move |taken| sender.send(taken.into()).expect("awaited")))
                }
                "/large" => Reply::Response(fanfare_http::Response::new(full(vec![b'x'; 8 << 20]))),
                path => Reply::Response(text(StatusCode::OK, path.to_owned())),
            }
        }
    })
    .await;
    (server, taken)
}

async fn stream(client: &mut Client, taken: &mut mpsc::UnboundedReceiver<Given>) -> Given {
    let mut taken = taken.recv().await.expect("given away");
    taken.stream.write_all(STREAM_HEAD).await.expect("open");
    taken.stream.write_all(b"data: hi\n\n").await.expect("open");
    client.until("\r\n\r\n").await;
    assert_eq!(client.until("\n\n").await, "data: hi\n\n");
    taken
}

#[tokio::test]
async fn the_socket_and_what_was_read_ahead_are_given_away() {
    let (server, mut taken) = giving().await;
    let mut client = server.connect().await;
    client.send("GET /events HTTP/1.1\r\nHost: x\r\n\r\nread ahead").await;
    let mut taken = stream(&mut client, &mut taken).await;
    client.send(" and later").await;
    let mut later = [0; 10];
    // Whether all of it was read ahead is the network's decision, but its order isn't.
    let mut read = taken.read_ahead.to_vec();
    while !read.ends_with(b" and later") {
        let count = taken.stream.read(&mut later).await.expect("open");
        read.extend_from_slice(&later[..count]);
    }
    assert_eq!(read, b"read ahead and later");
}

#[tokio::test]
async fn a_head_may_come_in_pieces_and_a_body_after_it() {
    let (server, mut taken) = giving().await;
    let mut client = server.connect().await;
    for piece in ["POST /eve", "nts HTTP/1.1\r\nHo", "st: x\r\nContent-Length: 4\r\n\r", "\n", "bo", "dy"] {
        client.send(piece).await;
        tokio::task::yield_now().await;
    }
    let taken = stream(&mut client, &mut taken).await;
    assert_eq!(taken.read_ahead, "");
}

#[tokio::test]
async fn http_1_0_has_its_socket_taken_over_too() {
    let (server, mut taken) = giving().await;
    let mut client = server.connect().await;
    client.send("GET /events HTTP/1.0\r\n\r\n").await;
    stream(&mut client, &mut taken).await;
}

#[tokio::test]
async fn earlier_requests_of_the_connection_are_answered_first() {
    let (server, mut taken) = giving().await;
    let mut client = server.connect().await;
    client.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(client.response().await.1, "/a");
    client.send("GET /b HTTP/1.1\r\nHost: x\r\n\r\nGET /c HTTP/1.1\r\nHost: x\r\n\r\nGET /events HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let taken = async { stream_of(&mut taken).await };
    let reading = async {
        assert_eq!(client.response().await.1, "/b");
        assert_eq!(client.response().await.1, "/c");
        client.until("\r\n\r\n").await;
        assert_eq!(client.until("\n\n").await, "data: hi\n\n");
    };
    tokio::join!(taken, reading);
}

/// Writes the stream without waiting for the client.
async fn stream_of(taken: &mut mpsc::UnboundedReceiver<Given>) -> Given {
    let mut taken = taken.recv().await.expect("given away");
    taken.stream.write_all(STREAM_HEAD).await.expect("open");
    taken.stream.write_all(b"data: hi\n\n").await.expect("open");
    taken
}

#[tokio::test]
async fn a_socket_is_given_away_only_when_a_large_response_before_is_written() {
    let (server, mut taken) = giving().await;
    let mut client = server.connect().await;
    client.send("GET /large HTTP/1.1\r\nHost: x\r\n\r\nGET /events HTTP/1.1\r\nHost: x\r\n\r\n").await;
    // The kernel's buffers don't hold 8 MiB, so as long as nobody reads, the response isn't written.
    let early = tokio::time::timeout(std::time::Duration::from_millis(200), taken.recv()).await;
    assert!(early.is_err(), "given away in the middle of a response");
    let taken = async { stream_of(&mut taken).await };
    let reading = async {
        let (_, body) = client.response().await;
        assert_eq!(body.len(), 8 << 20);
        assert!(body.bytes().all(|byte| byte == b'x'));
        client.until("\r\n\r\n").await;
        assert_eq!(client.until("\n\n").await, "data: hi\n\n");
    };
    tokio::join!(taken, reading);
}

#[tokio::test]
async fn nothing_of_the_connection_is_left_once_its_socket_is_given_away() {
    let (given, taken) = oneshot::channel();
    let given = Mutex::new(Some(given));
    let held = Arc::new(());
    let weak = Arc::downgrade(&held);
    let held = Mutex::new(Some(held));
    let server = TestServer::start(move |request: Request, _| {
        let given = given.lock().expect("whole").take().expect("one request");
        // As a handler's future holds what it works with, for as long as it is there.
        let held = held.lock().expect("whole").take();
        async move {
            let (_request, _held) = (request, held);
            let reply = Reply::TakeOver(TakeOver::new(move |taken| given.send(taken).expect("awaited")));
            tokio::task::yield_now().await;
            reply
        }
    })
    .await;
    let mut client = server.connect().await;
    client.send("GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let _taken = taken.await.expect("given away");
    assert_eq!(weak.strong_count(), 0);
    server.connections.close();
    server.connections.wait().await; // The connection's task has ended, though the socket is open.
}

#[tokio::test]
async fn a_client_that_leaves_before_is_not_given_away() {
    struct Told(Option<oneshot::Sender<()>>);
    impl Drop for Told {
        fn drop(&mut self) {
            _ = self.0.take().expect("dropped once").send(());
        }
    }
    let (dropped, told) = oneshot::channel();
    let dropped = Mutex::new(Some(Told(Some(dropped))));
    let (began, working) = oneshot::channel();
    let began = Mutex::new(Some(began));
    let server = TestServer::start(move |_, _| {
        let told = dropped.lock().expect("whole").take().expect("one request");
        _ = began.lock().expect("whole").take().expect("one request").send(());
        async move {
            let _told = told;
            std::future::pending().await
        }
    })
    .await;
    let mut client = server.connect().await;
    client.send("GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await;
    working.await.expect("asked");
    drop(client);
    told.await.expect("the handler is dropped");
}
