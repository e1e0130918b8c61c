//! Whoever is refused is told so in a form that it survives, and isn't driven to hammer.

use std::time::{Duration, Instant};

use fanfare_backbone::{Backbone, RedisConfig, Secret};
use fanfare_edge::EdgeConfig;

use crate::support::{RETENTION, Subscriber, TestEdge};

const BROWSER: &str = "Accept: text/event-stream\r\n";

/// An edge for one connection, which somebody has.
async fn full_edge(config: EdgeConfig) -> (TestEdge, Subscriber) {
    let edge = TestEdge::with(1, EdgeConfig { connections_max: Some(1), ..config }).await;
    let mut first = edge.subscribe("/events/c").await;
    first.expect("connected").await;
    (edge, first)
}

/// A backbone that nobody answers for.
pub(crate) fn unreachable_backbone() -> Backbone {
    let url = Secret::new("redis://127.0.0.1:1");
    Backbone::redis(&RedisConfig { url, ..RedisConfig::default() }, RETENTION).expect("a good address")
}

#[tokio::test]
async fn a_refused_event_source_is_held_open_and_counts_for_no_limit() {
    let (edge, first) = full_edge(EdgeConfig::default()).await;
    let mut refused = Subscriber::get(edge.address, "/events/c", BROWSER).await;
    assert!(refused.head.starts_with("HTTP/1.1 200") && refused.head.contains("text/event-stream"), "{}", refused.head);
    assert_eq!(refused.expect("closing").await.data, r#"{"reason":"limit"}"#);
    let retry = refused.decoder.retry().expect("a pause");
    assert!((15..=60).contains(&retry.as_secs()), "{retry:?}");
    assert_eq!((edge.metric("fanfare_connections"), edge.metric("fanfare_connections_opened_total")), (1.0, 1.0));

    // It is still there when others have come and gone; and what is published is not for it.
    drop(first.reset());
    for n in 0..3 {
        let mut next = loop {
            let mut next = edge.subscribe("/events/c").await;
            if next.head.starts_with("HTTP/1.1 200") {
                next.expect("connected").await;
                break next;
            }
        };
        edge.publish("c", None, &n.to_string()).await;
        assert_eq!(next.data().await, n.to_string());
        drop(next.reset());
    }
    edge.edge.drain(Duration::ZERO).await;
    assert!(refused.next().await.is_none(), "a drain lets it go, with nothing more to say");
    edge.stop().await;
}

#[tokio::test]
async fn it_is_let_go_when_it_may_come_back() {
    let refusal_pause = Duration::from_millis(300)..=Duration::from_millis(600);
    let (edge, _first) = full_edge(EdgeConfig { refusal_pause, ..EdgeConfig::default() }).await;
    for _ in 0..3 {
        let begin = Instant::now();
        let mut refused = Subscriber::get(edge.address, "/events/c", BROWSER).await;
        refused.expect("closing").await;
        let pause = refused.decoder.retry().expect("a pause");
        assert!(refused.next().await.is_none());
        assert!(begin.elapsed() >= pause, "a client that comes back at once has waited all the same");
    }
    edge.stop().await;
}

#[tokio::test]
async fn where_there_is_no_room_to_hold_it_the_answer_ends_at_once() {
    let (edge, _first) = full_edge(EdgeConfig { held_max: Some(1), ..EdgeConfig::default() }).await;
    let mut held = Subscriber::get(edge.address, "/events/c", BROWSER).await;
    held.expect("closing").await;
    let mut refused = Subscriber::get(edge.address, "/events/c", &format!("{BROWSER}Connection: close\r\n")).await;
    assert!(refused.head.starts_with("HTTP/1.1 200"), "{}", refused.head);
    assert_eq!(refused.expect("closing").await.data, r#"{"reason":"limit"}"#);
    assert!(refused.next().await.is_none());
    // A client that leaves makes room.
    held.reset();
    loop {
        let mut next = Subscriber::get(edge.address, "/events/c", BROWSER).await;
        next.expect("closing").await;
        if next.chunked {
            break; // It is a stream of the edge's own, and not hyper's whole answer.
        }
    }
    edge.stop().await;
}

#[tokio::test]
async fn everyone_else_gets_a_status_and_is_told_when_to_come_back() {
    let (edge, _first) = full_edge(EdgeConfig::default()).await;
    let status = |head: &str, status: &str| {
        let retry_after = head.lines().find_map(|line| line.strip_prefix("retry-after: ")).expect(head);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
        assert!((15..=60).contains(&retry_after.parse::<u64>().expect("seconds")), "{head}");
    };
    for accept in ["", "Accept: */*\r\n", "Accept: text/event-stream, */*\r\n", "Accept: application/json\r\n"] {
        status(&Subscriber::get(edge.address, "/events/c", accept).await.head, "429");
    }
    let post = format!(
        "POST /events HTTP/1.1\r\nHost: test\r\n{BROWSER}Content-Type: application/json\r\nContent-Length: 18\r\n\r\n{{\"channels\":[\"c\"]}}"
    );
    status(&Subscriber::request(edge.address, &post).await.head, "429");
    edge.edge.begin_drain();
    status(&Subscriber::get(edge.address, "/events/c", "").await.head, "503");
    edge.stop().await;
}

#[tokio::test]
async fn bad_requests_are_refused_for_what_they_are_even_when_there_is_no_place() {
    let (edge, _first) = full_edge(EdgeConfig::default()).await;
    let refused = Subscriber::get(edge.address, "/events?channel=*", BROWSER).await;
    assert!(refused.head.starts_with("HTTP/1.1 400"), "{}", refused.head);
    edge.stop().await;
}

#[tokio::test]
async fn an_edge_whose_shards_take_nothing_more_is_overloaded() {
    let edge = TestEdge::without_services().await;
    let mut browser = Subscriber::get(edge.address, "/events/c", BROWSER).await;
    assert_eq!(browser.expect("closing").await.data, r#"{"reason":"overloaded"}"#);
    assert!(browser.decoder.retry().expect("a pause").as_secs() >= 15);
    let script = Subscriber::get(edge.address, "/events/c", "").await;
    assert!(script.head.starts_with("HTTP/1.1 503") && script.head.contains("retry-after: "), "{}", script.head);
    assert_eq!((edge.metric("fanfare_connections"), edge.metric("fanfare_connections_refused_total")), (0.0, 2.0));
    edge.stop().await;
}

#[tokio::test]
async fn a_stream_that_can_not_join_is_kept_alive_and_then_told_that_the_backbone_is_away() {
    let config = EdgeConfig {
        join_timeout: Duration::from_secs(1),
        heartbeat_interval: Duration::from_millis(100),
        ..EdgeConfig::default()
    };
    let edge = TestEdge::on(unreachable_backbone(), config).await;
    let mut subscriber = edge.subscribe("/events/c").await;
    assert!(subscriber.head.starts_with("HTTP/1.1 200"), "{}", subscriber.head);
    let text = subscriber.text_until("event: closing").await;
    assert!(text.contains(": heartbeat\n"), "{text}");
    assert_eq!(subscriber.expect("closing").await.data, r#"{"reason":"unavailable"}"#);
    assert!(subscriber.decoder.retry().expect("a pause").as_secs() >= 15);
    assert!(subscriber.next().await.is_none());
    edge.stop().await;
}
