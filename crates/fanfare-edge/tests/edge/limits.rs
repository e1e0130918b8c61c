//! Limits are answered so that a browser's EventSource survives them.

use fanfare_edge::{AddressLimit, AtUserLimit, EdgeConfig};
use fanfare_http::TrustedProxies;

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
    assert_eq!(edge.metric("fanfare_connections_limit"), 1.0);
    edge.publish("c", None, "the first goes on").await;
    assert_eq!(first.data().await, "the first goes on");
    edge.stop().await;
}

#[tokio::test]
async fn without_a_limit_of_its_own_an_edge_takes_what_the_file_limit_allows() {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("a process has limits");
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("of files, too");
    let files: f64 = files.split_whitespace().next().and_then(|soft| soft.parse().ok()).expect("a number");
    let edge = TestEdge::start().await;
    let limit = edge.metric("fanfare_connections_limit");
    assert!(limit > files / 2.0 && limit < files, "{limit} connections of {files} files");
    edge.stop().await;
}

#[tokio::test]
async fn the_oldest_connection_of_a_user_goes_for_a_new_one_where_that_is_wanted() {
    let at_user_limit = AtUserLimit::ReplaceOldest;
    let config = EdgeConfig { connections_per_user_max: 2, at_user_limit, ..EdgeConfig::default() };
    let edge = TestEdge::with(1, config).await;
    let mut other = edge.subscribe("/events?user=43").await;
    other.expect("connected").await;
    let mut held = std::collections::VecDeque::new();
    for _ in 0..6 {
        let mut subscriber = edge.subscribe("/events?user=42").await;
        subscriber.expect("connected").await;
        held.push_back(subscriber);
        if held.len() > 2 {
            let mut oldest = held.pop_front().expect("three");
            assert_eq!(oldest.expect("closing").await.data, r#"{"reason":"replaced"}"#);
            assert!(oldest.decoder.retry().expect("a pause").as_secs() >= 15, "they must not take turns for ever");
            assert!(oldest.next().await.is_none());
        }
    }
    // Who left by itself is not closed again for somebody else.
    drop(held.pop_front());
    while edge.metric("fanfare_connections") > 2.0 {
        tokio::task::yield_now().await;
    }
    let mut again = edge.subscribe("/events?user=42").await;
    again.expect("connected").await;
    edge.publish("user:42", None, "to both").await;
    edge.publish("user:43", None, "to the other").await;
    assert_eq!(held[0].data().await, "to both");
    assert_eq!(again.data().await, "to both");
    assert_eq!(other.data().await, "to the other");
    edge.stop().await;
}

#[tokio::test]
async fn an_address_may_have_so_many_connections_and_proxies_say_whose_they_are() {
    let trusted_proxies = TrustedProxies::of(["127.0.0.0/8"]).expect("a network");
    let connections_per_address_max = AddressLimit::Max(1);
    let config = EdgeConfig { trusted_proxies, connections_per_address_max, ..EdgeConfig::default() };
    let edge = TestEdge::with(1, config.clone()).await;
    let from = |client: &str| format!("X-Forwarded-For: 9.9.9.9, {client}\r\n");
    let mut held = Vec::new();
    for client in ["203.0.113.1", "203.0.113.2", "2001:db8:0:1::1", "2001:db8:0:2::1"] {
        let mut subscriber = Subscriber::get(edge.address, "/events/c", &from(client)).await;
        subscriber.expect("connected").await;
        held.push(subscriber);
    }
    for client in ["203.0.113.1", "203.0.113.2, 127.0.0.9", "2001:db8:0:1::2"] {
        let refused = Subscriber::get(edge.address, "/events/c", &from(client)).await;
        assert!(refused.head.starts_with("HTTP/1.1 429"), "{client}: {}", refused.head);
    }
    held.clear();
    while edge.metric("fanfare_connections") > 0.0 {
        tokio::task::yield_now().await;
    }
    let mut again = Subscriber::get(edge.address, "/events/c", &from("203.0.113.1")).await;
    again.expect("connected").await;
    edge.stop().await;

    // Without trusted proxies it is the peer that counts, whatever the header says.
    let edge = TestEdge::with(1, EdgeConfig { trusted_proxies: TrustedProxies::default(), ..config }).await;
    let mut first = Subscriber::get(edge.address, "/events/c", &from("203.0.113.1")).await;
    first.expect("connected").await;
    let second = Subscriber::get(edge.address, "/events/c", &from("203.0.113.2")).await;
    assert!(second.head.starts_with("HTTP/1.1 429"), "{}", second.head);
    edge.stop().await;
}
