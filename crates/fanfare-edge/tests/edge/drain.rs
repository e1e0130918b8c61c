//! An edge that goes away lets its connections go in good order.

use std::time::{Duration, Instant};

use crate::support::{Subscriber, TestEdge};

#[tokio::test]
async fn a_drain_says_goodbye_to_everyone_and_spreads_that_over_its_window() {
    let edge = TestEdge::start().await;
    let mut subscribers = Vec::new();
    for n in 0..50 {
        let mut subscriber = edge.subscribe(&format!("/events/c{n}")).await;
        subscriber.expect("connected").await;
        subscribers.push(subscriber);
    }
    assert!(edge.edge.is_ready());
    let drain = edge.edge.drain(Duration::from_secs(2));
    let readers = async {
        let begin = Instant::now();
        let mut waves = std::collections::BTreeSet::new();
        let mut tasks = tokio::task::JoinSet::new();
        for mut subscriber in subscribers {
            tasks.spawn(async move {
                let goodbye = subscriber.expect("closing").await;
                let at = begin.elapsed();
                assert_eq!(goodbye.data, r#"{"reason":"draining"}"#);
                let retry = subscriber.decoder.retry().expect("a pause");
                assert!((1..=3).contains(&retry.as_secs()), "{retry:?}");
                assert!(subscriber.next().await.is_none());
                at
            });
        }
        while let Some(at) = tasks.join_next().await {
            waves.insert(at.expect("no reader fails").as_millis() / 250);
        }
        waves.len()
    };
    let ((), waves) = tokio::join!(drain, readers);
    assert!(waves >= 3, "the goodbyes came in {waves} waves");
    assert!(!edge.edge.is_ready());
    assert_eq!(edge.metric("fanfare_connections"), 0.0);
    edge.stop().await;
}

#[tokio::test]
async fn who_comes_during_a_drain_is_told_to_come_back_in_a_form_that_it_survives() {
    let edge = TestEdge::start().await;
    edge.edge.begin_drain();
    let mut browser = Subscriber::get(edge.address, "/events/c", "Accept: text/event-stream\r\n").await;
    assert!(browser.head.starts_with("HTTP/1.1 200"), "{}", browser.head);
    assert_eq!(browser.expect("closing").await.data, r#"{"reason":"draining"}"#);
    let script = Subscriber::get(edge.address, "/events/c", "Accept: */*\r\n").await;
    assert!(script.head.starts_with("HTTP/1.1 503") && script.head.contains("retry-after: "), "{}", script.head);
    edge.stop().await;
}
