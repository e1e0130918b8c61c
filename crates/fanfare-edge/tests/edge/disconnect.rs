//! A user who is disconnected goes, everywhere, and stays out for a while with what they had.

use std::time::{Duration, SystemTime};

use fanfare_auth::{AuthConfig, Secrets, TokenOrder};
use fanfare_backbone::{Backbone, Block, all_edges};
use fanfare_edge::EdgeConfig;
use fanfare_protocol::{Partitions, UserId};
use serde_json::json;

use crate::support::{RETENTION, Subscriber, TestEdge, ask, client_id};

const SECRET: &str = "a secret of thirty-two characters";

async fn guarded(backbone: &Backbone) -> TestEdge {
    let secret = Some(Secrets::parse(SECRET).expect("a secret"));
    let access = AuthConfig { secret, ..AuthConfig::default() }.edge_access().expect("there is a secret");
    TestEdge::guarded(backbone.clone(), EdgeConfig::default(), access).await
}

/// A token that was issued then.
fn token(user: &str, issued_at: SystemTime) -> String {
    let ttl = Duration::from_secs(3_600);
    let order = TokenOrder { user: Some(UserId::parse(user).expect("valid")), ttl, ..TokenOrder::default() };
    order.mint(&Secrets::parse(SECRET).expect("a secret"), issued_at).expect("mints").token
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

async fn disconnect(backbone: &Backbone, user: &str, seconds: u64) {
    let user = UserId::parse(user).expect("valid");
    let block = Block::new(user, SystemTime::now(), Duration::from_secs(seconds));
    backbone.disconnect(&block).await.expect("it is remembered");
}

#[tokio::test]
async fn a_disconnected_user_goes_from_every_edge_and_comes_back_only_with_a_newer_token() {
    let backbone = Backbone::in_process(Partitions::new(8).expect("1 to 64"), RETENTION);
    let edges = [guarded(&backbone).await, guarded(&backbone).await];
    let before = SystemTime::now() - Duration::from_secs(1);
    let (old, other) = (token("42", before), token("43", before));
    let mut held = Vec::new();
    for edge in &edges {
        for _ in 0..3 {
            let mut subscriber = Subscriber::get(edge.address, "/events", &bearer(&old)).await;
            let id = client_id(&subscriber.expect("connected").await);
            held.push((subscriber, id));
        }
    }
    let mut bystander = Subscriber::get(edges[0].address, "/events", &bearer(&other)).await;
    bystander.expect("connected").await;

    disconnect(&backbone, "42", 60).await;
    for (subscriber, _) in &mut held {
        assert_eq!(subscriber.expect("closing").await.data, r#"{"reason":"disconnected"}"#);
        assert!(subscriber.decoder.retry().expect("a pause") <= Duration::from_secs(3), "it comes and is told to stop");
        assert!(subscriber.next().await.is_none());
    }
    let new = token("42", SystemTime::now() + Duration::from_millis(1)); // However quick all this was.
    for edge in &edges {
        for headers in ["", "Accept: text/event-stream\r\n", "Last-Event-ID: abcdef-1\r\n"] {
            let refused = Subscriber::get(edge.address, "/events", &(bearer(&old) + headers)).await;
            assert!(refused.head.starts_with("HTTP/1.1 204 "), "{}", refused.head);
        }
        let mut back = Subscriber::get(edge.address, "/events", &bearer(&new)).await;
        let id = client_id(&back.expect("connected").await);
        // The old token doesn't help on an open connection either.
        for (headers, body) in
            [(bearer(&old), json!({"unsubscribe": ["broadcast"]})), (String::new(), json!({"token": old}))]
        {
            let target = format!("/events/{id}");
            let (status, answer) = ask(edge.address, "PATCH", &target, &headers, &body.to_string()).await;
            assert_eq!(status, 401, "{answer}");
            assert!(answer["detail"].as_str().expect("a problem").contains("was disconnected"), "{answer}");
        }
        let (status, _) = ask(edge.address, "GET", "/channels/broadcast/history", &bearer(&old), "").await;
        assert_eq!(status, 401);
        edge.publish("broadcast", None, "hello").await;
        assert_eq!((back.data().await, bystander.data().await), ("hello".to_owned(), "hello".to_owned()));
    }
    for edge in edges {
        edge.stop().await;
    }
}

#[tokio::test]
async fn an_edge_that_starts_later_knows_who_was_disconnected() {
    let backbone = Backbone::in_process(Partitions::ONE, RETENTION);
    let old = token("42", SystemTime::now() - Duration::from_secs(1));
    disconnect(&backbone, "42", 60).await;
    // What was said is gone by then: only the table is left.
    for _ in 0..RETENTION.history.elsewhere.events_max + 1 {
        disconnect(&backbone, "nobody", 0).await;
    }
    let edge = guarded(&backbone).await;
    loop {
        let mut early = Subscriber::get(edge.address, "/events", &bearer(&old)).await;
        if early.head.starts_with("HTTP/1.1 204 ") {
            break;
        }
        // It came before the edge had read the table: it goes when it has.
        while early.next().await.expect("a goodbye").event != "closing" {}
    }
    edge.stop().await;
}

#[tokio::test]
async fn in_dev_a_user_who_is_named_counts_as_old_and_without_a_block_may_come_right_back() {
    let edge = TestEdge::start().await;
    let mut subscriber = edge.subscribe("/events?user=42").await;
    subscriber.expect("connected").await;
    disconnect(&edge.backbone, "42", 0).await;
    assert_eq!(subscriber.expect("closing").await.data, r#"{"reason":"disconnected"}"#);
    let mut subscriber = edge.subscribe("/events?user=42").await;
    subscriber.expect("connected").await;
    disconnect(&edge.backbone, "42", 60).await;
    assert_eq!(subscriber.expect("closing").await.data, r#"{"reason":"disconnected"}"#);
    let refused = edge.subscribe("/events?user=42").await;
    assert!(refused.head.starts_with("HTTP/1.1 204 "), "{}", refused.head);
    edge.subscribe("/events?user=43").await.expect("connected").await;
    edge.stop().await;
}

#[tokio::test]
async fn what_another_version_says_is_ignored() {
    let edge = TestEdge::start().await;
    let mut subscriber = edge.subscribe("/events?user=42").await;
    subscriber.expect("connected").await;
    let channel = all_edges();
    for text in
        ["", "no JSON", r#"{"v":2,"kind":"disconnect","user":"42"}"#, r#"{"v":1,"kind":"rebalance","share":0.5}"#]
    {
        edge.publish(channel.as_str(), None, text).await;
    }
    edge.publish("broadcast", None, "still there").await;
    assert_eq!(subscriber.data().await, "still there");
    disconnect(&edge.backbone, "42", 0).await;
    assert_eq!(subscriber.expect("closing").await.data, r#"{"reason":"disconnected"}"#);
    assert_eq!(edge.metric("fanfare_control_ignored_total"), 4.0);
    edge.stop().await;
}
