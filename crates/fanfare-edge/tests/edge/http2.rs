//! Streams over HTTP/2 keep every promise that those over HTTP/1 keep, many of them on one connection.

use std::time::{Duration, Instant};

use fanfare_edge::EdgeConfig;
use fanfare_protocol::sse::{Decoder, Message};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::calls::{Backend, channel_of};
use crate::support::{Subscriber, TestEdge};

const PATIENCE: Duration = Duration::from_secs(20);

/// A connection, as a proxy has it: a window for each stream, a larger one for all.
struct Proxy(SendRequest<Full<Bytes>>);

/// One of its streams.
struct Stream {
    status: StatusCode,
    headers: HeaderMap,
    body: Incoming,
    read: Vec<u8>,
    decoder: Decoder,
}

impl Proxy {
    async fn connect(edge: &TestEdge) -> Self {
        Self::with_window(edge, 8 << 20).await
    }

    /// One whose streams together have so many bytes.
    async fn with_window(edge: &TestEdge, bytes: u32) -> Self {
        let socket = TcpStream::connect(edge.address).await.expect("the edge listens");
        let mut builder = Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(64 * 1024).initial_connection_window_size(bytes);
        let (sender, connection) = builder.handshake(TokioIo::new(socket)).await.expect("the edge speaks HTTP/2");
        TaskTracker::new().spawn(connection);
        Self(sender)
    }

    async fn request(&self, method: Method, target: &str, headers: &[(&str, &str)], body: &'static str) -> Stream {
        let mut request = Request::builder().method(method).uri(format!("http://test{target}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from_static(body.as_bytes()))).expect("valid");
        let response = timeout(PATIENCE, self.0.clone().send_request(request)).await.expect("in time");
        let (head, body) = response.expect("the edge answers").into_parts();
        let decoder = Decoder::new(1 << 20);
        Stream { status: head.status, headers: head.headers, body, read: Vec::new(), decoder }
    }

    async fn get(&self, target: &str) -> Stream {
        self.request(Method::GET, target, &[], "").await
    }

    async fn subscribe(&self, target: &str) -> Stream {
        let mut stream = self.get(target).await;
        stream.expect("connected").await;
        stream
    }
}

impl Stream {
    /// The next event; none when the stream has ended in good order.
    async fn try_next(&mut self) -> Result<Option<Message>, hyper::Error> {
        loop {
            let mut read = &self.read[..];
            let message = self.decoder.next_message(&mut read).expect("events are of reasonable size");
            let taken = self.read.len() - read.len();
            self.read.drain(..taken);
            if message.is_some() {
                return Ok(message);
            }
            match timeout(PATIENCE, self.body.frame()).await.expect("something comes") {
                Some(frame) => self.read.extend_from_slice(&frame?.into_data().expect("no trailers")),
                None => return Ok(None),
            }
        }
    }

    async fn next(&mut self) -> Option<Message> {
        self.try_next().await.expect("the stream ends in good order")
    }

    async fn data(&mut self) -> String {
        self.next().await.expect("an event").data
    }

    async fn expect(&mut self, event_type: &str) -> Message {
        let message = self.next().await.expect("an event");
        assert_eq!(message.event, event_type, "{message:?}");
        message
    }

    async fn text(self) -> String {
        let whole = self.body.collect().await.expect("whole").to_bytes();
        String::from_utf8(whole.to_vec()).expect("UTF-8")
    }
}

async fn until(edge: &TestEdge, metric: &str, value: f64) {
    let begin = Instant::now();
    while edge.metric(metric) != value {
        assert!(begin.elapsed() < PATIENCE, "{metric} is {} and not {value}", edge.metric(metric));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn every_stream_of_a_connection_hears_everything_once_and_in_order() {
    for partitions in [1, 8] {
        let edge = TestEdge::with(partitions, EdgeConfig::default()).await;
        let proxy = Proxy::connect(&edge).await;
        let mut streams = Vec::new();
        for n in 0..200 {
            streams.push(proxy.subscribe(&format!("/events?channel=c{}&channel=all", n % 4)).await);
        }
        for n in 0..50 {
            edge.publish(&format!("c{}", n % 4), None, &n.to_string()).await;
        }
        edge.publish("all", None, "end").await;
        for (index, stream) in streams.iter_mut().enumerate() {
            let own: Vec<_> = (0..50).filter(|n| n % 4 == index % 4).map(|n| n.to_string()).collect();
            let mut heard = Vec::new();
            for _ in 0..=own.len() {
                heard.push(stream.data().await);
            }
            // Channels of several partitions have no order between them.
            let end = heard.iter().position(|data| data == "end").expect("it came");
            assert!(partitions > 1 || end == own.len());
            heard.remove(end);
            assert_eq!(heard, own);
        }
        assert_eq!(edge.metric("fanfare_connections"), 200.0);
        edge.stop().await;
    }
}

#[tokio::test]
async fn a_stream_begins_as_over_http1_without_its_headers() {
    let edge = TestEdge::start().await;
    let proxy = Proxy::connect(&edge).await;
    let id = [("x-request-id", "abc-1")];
    let mut stream = proxy.request(Method::GET, "/events/c?user=42", &id, "").await;
    assert_eq!(stream.status, 200);
    for (name, value) in [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "no-cache, no-store, no-transform"),
        ("x-accel-buffering", "no"),
        ("x-request-id", "abc-1"),
    ] {
        assert_eq!(stream.headers[name], value);
    }
    assert!(stream.headers.contains_key("date"));
    for name in ["connection", "transfer-encoding", "content-length", "keep-alive"] {
        assert!(!stream.headers.contains_key(name), "{name}");
    }
    stream.expect("connected").await;
    assert!((1..=3).contains(&stream.decoder.retry().expect("a pause").as_secs()));

    let head = proxy.request(Method::HEAD, "/events/c", &[], "").await;
    assert_eq!((head.status.as_u16(), &head.headers["x-accel-buffering"]), (200, &"no".parse().expect("valid")));
    assert_eq!(head.text().await, "");
    let mut posted =
        proxy.request(Method::POST, "/events", &[("content-type", "application/json")], r#"{"channels":["c"]}"#).await;
    posted.expect("connected").await;
    let wrong = proxy.get("/events/a*").await;
    assert_eq!(
        (wrong.status.as_u16(), &wrong.headers["content-type"]),
        (400, &"application/problem+json".parse().expect("valid"))
    );
    let other = proxy.request(Method::DELETE, "/events", &[], "").await;
    assert_eq!(
        (other.status.as_u16(), &other.headers["allow"]),
        (405, &"GET, HEAD, POST, OPTIONS".parse().expect("valid"))
    );
    edge.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_closed_and_its_neighbours_miss_nothing() {
    let narrow = EdgeConfig { backlog_bytes_max: 64 * 1024, ..EdgeConfig::default() };
    let edge = TestEdge::with(1, narrow).await;
    let proxy = Proxy::connect(&edge).await;
    let (mut quick, mut stalled) = (proxy.subscribe("/events/c").await, proxy.subscribe("/events/c").await);
    let data = "x".repeat(10_000);
    let mut published = 0;
    while edge.metric("fanfare_connections_closed_total") == 0.0 {
        assert!(published < 90, "its window, two pieces on the way and its backlog are all that is kept for it");
        edge.publish("c", None, &format!("{published} {data}")).await;
        assert!(quick.data().await.starts_with(&format!("{published} ")));
        published += 1;
    }
    // It is given a little time to take its goodbye and does not; then even what waits in buffers is dropped.
    until(&edge, "fanfare_connections", 1.0).await;
    assert_eq!(edge.metric("fanfare_backlog_bytes"), 0.0);
    edge.publish("c", None, "the others go on").await;
    assert_eq!(quick.data().await, "the others go on");
    let mut read = 0;
    loop {
        match stalled.try_next().await {
            Ok(Some(message)) => assert!(message.data.starts_with(&format!("{read} ")), "{message:?}"),
            Ok(None) => panic!("what was not read to its end does not look like an end"),
            Err(_) => break,
        }
        read += 1;
    }
    assert!((1..published).contains(&read));
    let id = stalled.decoder.last_event_id().to_owned();
    let mut back = proxy.request(Method::GET, "/events/c", &[("last-event-id", &id)], "").await;
    assert!(back.expect("connected").await.data.contains(r#""resumed":true"#));
    for n in read..published {
        assert!(back.data().await.starts_with(&format!("{n} ")), "nothing is missing");
    }
    assert_eq!(back.data().await, "the others go on");
    edge.stop().await;
}

#[tokio::test]
async fn a_slow_reader_hears_why_it_is_closed() {
    let narrow = EdgeConfig { backlog_bytes_max: 64 * 1024, ..EdgeConfig::default() };
    let edge = TestEdge::with(1, narrow).await;
    let proxy = Proxy::connect(&edge).await;
    let mut slow = proxy.subscribe("/events/c").await;
    while edge.metric("fanfare_connections_closed_total") == 0.0 {
        edge.publish("c", None, &"x".repeat(10_000)).await;
        tokio::task::yield_now().await;
    }
    let goodbye = loop {
        let message = slow.next().await.expect("a goodbye comes before the end");
        if message.event == "closing" {
            break message;
        }
    };
    assert_eq!(goodbye.data, r#"{"reason":"too-slow"}"#);
    assert_eq!(slow.next().await, None);
    until(&edge, "fanfare_connections", 0.0).await;
    edge.stop().await;
}

#[tokio::test]
async fn a_connection_whose_window_is_taken_up_by_streams_that_stand_still_gets_it_back() {
    let narrow = EdgeConfig { backlog_bytes_max: 64 * 1024, ..EdgeConfig::default() };
    let edge = TestEdge::with(1, narrow).await;
    let proxy = Proxy::with_window(&edge, 96 * 1024).await;
    let stalled = [proxy.subscribe("/events/c").await, proxy.subscribe("/events/c").await];
    let mut quick = proxy.subscribe("/events/c").await;
    let data = "x".repeat(10_000);
    for n in 0..50 {
        edge.publish("c", None, &format!("{n} {data}")).await;
    }
    // Nothing goes to any of them any more, so they are closed and, having taken no goodbye, cut.
    until(&edge, "fanfare_connections", 0.0).await;
    drop(stalled);
    let mut read = 0;
    while let Ok(Some(message)) = quick.try_next().await
        && message.event == "message"
    {
        assert!(message.data.starts_with(&format!("{read} ")));
        read += 1;
    }
    let id = quick.decoder.last_event_id().to_owned();
    drop(quick);
    let mut back = proxy.request(Method::GET, "/events/c", &[("last-event-id", &id)], "").await;
    back.expect("connected").await;
    for n in read..50 {
        assert!(back.data().await.starts_with(&format!("{n} ")), "nothing is missing");
    }
    edge.stop().await;
}

#[tokio::test]
async fn an_event_larger_than_every_window_is_delivered() {
    let edge = TestEdge::with(1, EdgeConfig { backlog_bytes_max: 1, ..EdgeConfig::default() }).await;
    let proxy = Proxy::connect(&edge).await;
    let mut stream = proxy.subscribe("/events/c").await;
    let data = "x".repeat(500_000);
    edge.publish("c", None, &data).await;
    assert_eq!(stream.data().await, data);
    edge.stop().await;
}

#[tokio::test]
async fn who_comes_back_over_another_connection_or_another_http_gets_exactly_what_it_missed() {
    let edge = TestEdge::start().await;
    let mut stream = Proxy::connect(&edge).await.subscribe("/events?channel=a&channel=b").await;
    edge.publish("a", None, "heard").await;
    assert_eq!(stream.data().await, "heard");
    let id = stream.decoder.last_event_id().to_owned();
    drop(stream);
    edge.publish("b", None, "missed").await;
    let mut back =
        Subscriber::get(edge.address, "/events?channel=a&channel=b", &format!("Last-Event-ID: {id}\r\n")).await;
    assert!(back.expect("connected").await.data.contains(r#""resumed":true"#));
    assert_eq!(back.data().await, "missed");
    let id = back.last_id();
    drop(back);
    edge.publish("a", None, "missed, too").await;
    let proxy = Proxy::connect(&edge).await;
    let mut again = proxy.request(Method::GET, "/events?channel=a&channel=b", &[("last-event-id", &id)], "").await;
    assert!(again.expect("connected").await.data.contains(r#""resumed":true"#));
    assert_eq!(again.data().await, "missed, too");
    edge.publish("b", None, "live").await;
    assert_eq!(again.data().await, "live");
    edge.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_reset_and_a_connection_that_is_lost_are_noticed_at_once() {
    let edge = TestEdge::start().await;
    let proxies = [Proxy::connect(&edge).await, Proxy::connect(&edge).await];
    let mut streams = Vec::new();
    for n in 0..20 {
        streams.push(proxies[n % 2].subscribe("/events/c").await);
    }
    streams.truncate(10); // Each of the ten is reset.
    until(&edge, "fanfare_connections", 10.0).await;
    edge.publish("c", None, "heard by the rest").await;
    for stream in &mut streams {
        assert_eq!(stream.data().await, "heard by the rest");
    }
    drop((streams, proxies));
    until(&edge, "fanfare_connections", 0.0).await;
    until(&edge, "fanfare_connections_closed_total", 20.0).await;
    edge.stop().await;
}

#[tokio::test]
async fn streams_count_as_connections() {
    let config = EdgeConfig { connections_max: Some(3), connections_per_user_max: 2, ..EdgeConfig::default() };
    let edge = TestEdge::with(1, config).await;
    let proxy = Proxy::connect(&edge).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(proxy.subscribe("/events?user=42").await);
    }
    let refused = proxy.get("/events?user=42").await;
    assert!(refused.status == 429 && refused.headers.contains_key("retry-after"));
    held.push(proxy.subscribe("/events?user=43").await);
    let mut browser = proxy.request(Method::GET, "/events/c", &[("accept", "text/event-stream")], "").await;
    assert_eq!((browser.status.as_u16(), &*browser.expect("closing").await.data), (200, r#"{"reason":"limit"}"#));
    held.truncate(1);
    until(&edge, "fanfare_connections", 1.0).await;
    proxy.subscribe("/events?user=42").await;
    edge.stop().await;
}

#[tokio::test]
async fn a_drain_says_goodbye_on_every_stream_and_ends_it() {
    let edge = TestEdge::start().await;
    let proxy = Proxy::connect(&edge).await;
    let mut streams = Vec::new();
    for n in 0..50 {
        streams.push(proxy.subscribe(&format!("/events/c{n}")).await);
    }
    let readers = async {
        for stream in &mut streams {
            assert_eq!(stream.expect("closing").await.data, r#"{"reason":"draining"}"#);
            assert_eq!(stream.next().await, None, "it ends in good order");
        }
    };
    tokio::join!(edge.edge.drain(Duration::from_millis(500)), readers);
    assert_eq!(edge.metric("fanfare_connections"), 0.0);
    assert_eq!(proxy.get("/events/c").await.status, 503);
    edge.stop().await;
}

#[tokio::test]
async fn a_call_has_its_events_and_ends_in_good_order() {
    let backend = Backend::listen().await;
    let edge = TestEdge::with(1, backend.config()).await;
    let proxy = Proxy::connect(&edge).await;
    let mut stream = proxy.request(Method::POST, "/sse", &[], "{}").await;
    let channel = channel_of(&stream.expect("connected").await.data);
    backend.accepts().await;
    edge.publish(&channel, Some("progress"), "half").await;
    edge.publish(&channel, Some("result"), "done").await;
    assert_eq!((stream.data().await, stream.data().await), ("half".to_owned(), "done".to_owned()));
    assert!(stream.next().await.is_none());

    // One that is reset takes the backend's request with it.
    let mut stream = proxy.request(Method::POST, "/sse", &[], "{}").await;
    stream.expect("connected").await;
    let mut socket = backend.asked().await;
    drop(stream);
    let mut rest = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut rest)).await.expect("the request is given up").expect("in order");
    edge.stop().await;
}

#[tokio::test]
async fn a_quiet_stream_is_kept_alive() {
    let config = EdgeConfig { heartbeat_interval: Duration::from_millis(100), ..EdgeConfig::default() };
    let edge = TestEdge::with(1, config).await;
    let proxy = Proxy::connect(&edge).await;
    let mut comments = proxy.subscribe("/events/c").await;
    let mut events = proxy.subscribe("/events/c?heartbeat=event").await;
    for _ in 0..3 {
        events.expect("heartbeat").await;
    }
    edge.publish("c", None, "after comments").await;
    let mut text = String::new();
    while !text.contains("after comments") {
        let frame = comments.body.frame().await.expect("more").expect("whole");
        text += &String::from_utf8_lossy(&frame.into_data().expect("no trailers"));
    }
    assert!(text.contains(": heartbeat"), "{text}");
    edge.stop().await;
}

#[tokio::test]
async fn polls_wait_on_the_connection_of_the_others_and_are_whole_answers() {
    let config = EdgeConfig { poll_timeout: Duration::from_secs(2), ..EdgeConfig::default() };
    let edge = TestEdge::with(8, config.clone()).await;
    let proxy = Proxy::connect(&edge).await;
    let answer = async |target: &str| {
        let poll = proxy.get(target).await;
        let (status, length) = (poll.status, poll.headers["content-length"].to_str().expect("digits").to_owned());
        let text = poll.text().await;
        assert_eq!((status, text.len().to_string()), (StatusCode::OK, length));
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON")
    };
    let fresh = answer("/poll?channels=a,b").await;
    let cursor = fresh["cursor"].as_str().expect("a cursor").replace('+', "%2B");
    let target = format!("/poll?channels=a,b&last_event_id={cursor}");
    let (woken, _) = tokio::join!(answer(&target), async {
        until(&edge, "fanfare_connections", 1.0).await;
        edge.publish("b", None, "wakes").await
    });
    assert_eq!(woken["events"][0]["data"], "wakes");
    let large = "x".repeat(600_000);
    edge.publish("a", None, &large).await;
    edge.publish("b", None, &large).await;
    let whole = answer(&target).await;
    assert!(whole["events"].as_array().expect("events").len() >= 2, "one event and a bit more than a window");

    // A client that resets its stream leaves nothing behind.
    let last = whole["cursor"].as_str().expect("a cursor").replace('+', "%2B");
    let abandoned = format!("/poll?channels=c&last_event_id={last}");
    drop(timeout(Duration::from_millis(200), proxy.get(&abandoned)).await);
    until(&edge, "fanfare_connections", 0.0).await;
    edge.stop().await;

    let edge = TestEdge::on(crate::overload::unreachable_backbone(), config).await;
    let poll = Proxy::connect(&edge).await.get("/poll?channel=a").await;
    assert_eq!(poll.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(poll.headers.contains_key("retry-after") && poll.text().await.contains("BACKBONE_UNAVAILABLE"));
    edge.stop().await;
}
