//! How long a connection may live, where somebody has said so.

use std::time::Duration;

use fanfare_edge::EdgeConfig;

use crate::support::TestEdge;

/// Heartbeats that come far more often than anything here ends: they keep nothing alive.
fn config() -> EdgeConfig {
    EdgeConfig { heartbeat_interval: Duration::from_millis(100), shards: Some(1), ..EdgeConfig::default() }
}

#[tokio::test]
async fn a_connection_without_events_is_closed_as_idle_and_a_busy_one_is_not() {
    let edge = TestEdge::with(1, EdgeConfig { idle_timeout: Some(Duration::from_secs(2)), ..config() }).await;
    let mut busy = edge.subscribe("/events/busy").await;
    let mut filtered = edge.subscribe("/events/busy?types=other").await;
    let mut quiet = edge.subscribe("/events/quiet?heartbeat=event").await;
    for subscriber in [&mut busy, &mut filtered, &mut quiet] {
        subscriber.expect("connected").await;
    }
    let published = async {
        for n in 0.. {
            edge.publish("busy", None, &n.to_string()).await;
            assert_eq!(busy.data().await, n.to_string(), "it lives");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let closed = async {
        assert_eq!(filtered.expect("closing").await.data, r#"{"reason":"idle"}"#);
        let retry = filtered.decoder.retry().expect("a pause");
        assert!((1..=3).contains(&retry.as_secs()), "{retry:?}");
        loop {
            match quiet.next().await.expect("an event") {
                message if message.event == "heartbeat" => {}
                message => return assert_eq!(message.data, r#"{"reason":"idle"}"#),
            }
        }
    };
    tokio::select! {
        () = published => {}
        () = closed => {}
    }
    assert!(quiet.next().await.is_none());
    edge.stop().await;
}

#[tokio::test]
async fn every_connection_is_closed_in_the_end_where_there_is_a_maximum_age() {
    let edge = TestEdge::with(1, EdgeConfig { max_age: Some(Duration::from_secs(1)), ..config() }).await;
    let mut subscribers = Vec::new();
    for n in 0..20 {
        let mut subscriber = edge.subscribe(&format!("/events/c{n}")).await;
        subscriber.expect("connected").await;
        subscribers.push(subscriber);
    }
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.expect("closing").await.data, r#"{"reason":"max-age"}"#);
        assert!(subscriber.next().await.is_none());
    }
    assert_eq!(edge.metric("fanfare_connections"), 0.0);
    edge.stop().await;
}

#[tokio::test]
async fn without_either_a_quiet_connection_stays() {
    let edge = TestEdge::with(1, config()).await;
    let mut subscriber = edge.subscribe("/events/c?heartbeat=event").await;
    subscriber.expect("connected").await;
    for _ in 0..30 {
        subscriber.expect("heartbeat").await;
    }
    edge.stop().await;
}
