//! Calls, as far as an edge alone can show them; with real backends they are in `fanfare/tests/calls.rs`.

use std::time::{Duration, Instant};

use fanfare_backbone::{Backbone, RedisConfig, Secret};
use fanfare_edge::{EdgeConfig, RouteConfig, Routes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::{PATIENCE, RETENTION, Subscriber, TestEdge};

/// A backend that is asked, and answers when and how a test says.
pub(crate) struct Backend(TcpListener);

impl Backend {
    pub(crate) async fn listen() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.expect("a free port"))
    }

    /// An edge's settings with calls to it, on `/sse`.
    pub(crate) fn config(&self) -> EdgeConfig {
        let forward = Some(format!("http://{}/run", self.0.local_addr().expect("bound")));
        let route = RouteConfig { path: "/sse".to_owned(), forward, ..RouteConfig::default() };
        EdgeConfig { routes: Routes::new(&[route]).expect("no mistakes"), ..EdgeConfig::default() }
    }

    /// Waits for a call's head, and gives its connection.
    pub(crate) async fn asked(&self) -> TcpStream {
        let (mut socket, _) = self.0.accept().await.expect("it listens");
        let mut head = Vec::new();
        while !head.windows(4).any(|window| window == b"\r\n\r\n") {
            head.push(socket.read_u8().await.expect("a head"));
        }
        socket
    }

    pub(crate) async fn accepts(&self) {
        let mut socket = self.asked().await;
        socket.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await.expect("the edge reads");
    }
}

fn call(body: &str) -> String {
    format!("POST /sse HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

async fn until(edge: &TestEdge, metric: &str, value: f64) {
    let begin = Instant::now();
    while edge.metric(metric) != value {
        assert!(begin.elapsed() < PATIENCE, "{metric} is {} and not {value}", edge.metric(metric));
        tokio::task::yield_now().await;
    }
}

/// The channel that `connected` names.
pub(crate) fn channel_of(connected: &str) -> String {
    let begin = connected.find("$call:").expect("a call's channel");
    connected[begin..].split('"').next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn an_event_that_ends_a_call_is_its_last_and_what_comes_later_goes_nowhere() {
    let backend = Backend::listen().await;
    let edge = TestEdge::with(4, backend.config()).await;
    for version in ["1.1", "1.0"] {
        let request = call("{}").replace("HTTP/1.1", &format!("HTTP/{version}"));
        let mut stream = Subscriber::request(edge.address, &request).await;
        let channel = channel_of(&stream.expect("connected").await.data);
        backend.accepts().await;
        for (event_type, data) in [(None, "unnamed"), (Some("result"), "the end"), (Some("result"), "too late")] {
            edge.publish(&channel, event_type, data).await;
        }
        assert_eq!((stream.data().await, stream.data().await), ("unnamed".to_owned(), "the end".to_owned()));
        assert!(stream.next().await.is_none(), "and no closing: nobody comes back to a call");
    }
    until(&edge, "fanfare_connections", 0.0).await;
    edge.stop().await;
}

#[tokio::test]
async fn a_call_that_finds_no_room_is_refused_before_any_stream() {
    let backend = Backend::listen().await;
    let edge = TestEdge::with(1, EdgeConfig { calls_max: 1, ..backend.config() }).await;
    let mut first = Subscriber::request(edge.address, &call("{}")).await;
    first.expect("connected").await;
    let refused = Subscriber::request(edge.address, &call("{}")).await;
    assert!(refused.head.starts_with("HTTP/1.1 503") && refused.head.contains("retry-after: "), "{}", refused.head);
    let socket = backend.asked().await;
    drop(first);
    drop(socket);
    // The place is free again when the first one has gone.
    let begin = Instant::now();
    while !Subscriber::request(edge.address, &call("{}")).await.head.starts_with("HTTP/1.1 200") {
        assert!(begin.elapsed() < PATIENCE, "its place is not given back");
    }
    edge.stop().await;
}

#[tokio::test]
async fn bodies_that_do_not_come_take_no_more_than_their_share_of_memory() {
    let backend = Backend::listen().await;
    let edge = TestEdge::with(1, backend.config()).await;
    let mut waiting = Vec::new();
    for count in 1..=64 {
        let mut socket = TcpStream::connect(edge.address).await.expect("the edge listens");
        let head = b"POST /sse HTTP/1.1\r\nHost: t\r\nContent-Length: 1048576\r\n\r\n";
        socket.write_all(head).await.expect("the edge reads");
        waiting.push(socket);
        until(&edge, "fanfare_connections", f64::from(count)).await;
    }
    let refused = Subscriber::request(edge.address, &call("{}")).await;
    assert!(refused.head.starts_with("HTTP/1.1 503"), "{}", refused.head);
    drop(waiting);
    until(&edge, "fanfare_connections", 0.0).await;
    let accepted = Subscriber::request(edge.address, &call("{}")).await;
    assert!(accepted.head.starts_with("HTTP/1.1 200"), "{}", accepted.head);
    edge.stop().await;
}

#[tokio::test]
async fn an_edge_that_drains_takes_no_more_calls() {
    let backend = Backend::listen().await;
    let edge = TestEdge::with(1, backend.config()).await;
    edge.edge.begin_drain();
    let refused =
        Subscriber::request(edge.address, &call("{}").replace("Host: t", "Host: t\r\nAccept: text/event-stream")).await;
    assert!(refused.head.starts_with("HTTP/1.1 503") && refused.head.contains("retry-after: "), "{}", refused.head);
    edge.stop().await;
}

#[tokio::test]
async fn without_the_backbone_a_call_is_an_error_and_its_backend_hears_nothing() {
    let backend = Backend::listen().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = Secret::new(format!("redis://{}", nobody.local_addr().expect("bound")));
    drop(nobody);
    let backbone = Backbone::redis(&RedisConfig { url, ..RedisConfig::default() }, RETENTION).expect("an address");
    let config = EdgeConfig {
        join_timeout: Duration::from_millis(300),
        heartbeat_interval: Duration::from_millis(100),
        ..backend.config()
    };
    let edge = TestEdge::on(backbone, config).await;
    let mut stream = Subscriber::request(edge.address, &call("{}")).await;
    assert!(stream.head.starts_with("HTTP/1.1 200"), "{}", stream.head);
    let error = stream.expect("error").await.data;
    assert!(error.contains(r#""code":"BACKBONE_UNAVAILABLE""#) && error.contains("Idempotency-Key"), "{error}");
    assert!(stream.next().await.is_none());
    assert!(timeout(Duration::ZERO, backend.0.accept()).await.is_err(), "nobody has called it");
    edge.stop().await;
}
