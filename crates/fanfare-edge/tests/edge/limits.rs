//! Limits are answered so that a browser's EventSource survives them.

use fanfare_edge::EdgeConfig;

use crate::support::{Subscriber, TestEdge};

#[tokio::test]
async fn a_user_with_too_many_connections_is_told_so_and_let_in_when_one_has_gone() {
    let edge = TestEdge::with(1, EdgeConfig { connections_per_user_max: 2, ..EdgeConfig::default() }).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut subscriber = edge.subscribe("/events?user=42").await;
        subscriber.expect("connected").await;
        held.push(subscriber);
    }
    let mut browser = Subscriber::get(edge.address, "/events?user=42", "Accept: text/event-stream\r\n").await;
    assert!(browser.head.starts_with("HTTP/1.1 200"));
    assert_eq!(browser.expect("closing").await.data, r#"{"reason":"limit"}"#);
    assert!(browser.decoder.retry().expect("a pause").as_secs() >= 15);
    let script = Subscriber::get(edge.address, "/events?user=42", "").await;
    assert!(script.head.starts_with("HTTP/1.1 429") && script.head.contains("retry-after: "), "{}", script.head);
    let mut other = edge.subscribe("/events?user=43").await;
    other.expect("connected").await;

    drop(held.pop());
    loop {
        let mut again = edge.subscribe("/events?user=42").await;
        if again.head.starts_with("HTTP/1.1 200") {
            again.expect("connected").await;
            break;
        }
    }
    edge.stop().await;
}

#[tokio::test]
async fn an_edge_that_is_full_says_so() {
    let edge = TestEdge::with(1, EdgeConfig { connections_max: Some(1), ..EdgeConfig::default() }).await;
    let mut first = edge.subscribe("/events/c").await;
    first.expect("connected").await;
    let mut browser = Subscriber::get(edge.address, "/events/c", "Accept: text/event-stream\r\n").await;
    assert_eq!(browser.expect("closing").await.data, r#"{"reason":"limit"}"#);
    assert_eq!(edge.metric("fanfare_connections_refused_total"), 1.0);
    edge.publish("c", None, "the first goes on").await;
    assert_eq!(first.data().await, "the first goes on");
    edge.stop().await;
}
