//! One slow reader never slows others, and costs bounded memory.

use fanfare_edge::EdgeConfig;

use crate::support::{Subscriber, TestEdge};

fn narrow() -> EdgeConfig {
    EdgeConfig { backlog_bytes_max: 64 * 1024, ..EdgeConfig::default() }
}

#[tokio::test]
async fn a_slow_subscriber_is_closed_and_the_others_miss_nothing() {
    let edge = TestEdge::with(1, narrow()).await;
    let (mut quick, mut stalled) = (edge.subscribe("/events/c").await, edge.subscribe("/events/c").await);
    quick.expect("connected").await;
    stalled.expect("connected").await;
    let data = "x".repeat(30_000);
    let mut published = 0;
    while edge.metric("fanfare_connections") > 1.0 || published < 20 {
        assert!(published < 3_000, "a stalled reader is closed before {published} events");
        edge.publish("c", None, &format!("{published} {data}")).await;
        assert!(quick.data().await.starts_with(&format!("{published} ")));
        published += 1;
        if published >= 20 && edge.metric("fanfare_connections_closed_total") > 0.0 {
            break;
        }
    }
    let mut read = Vec::new();
    let goodbye = loop {
        let message = stalled.next().await.expect("a goodbye comes before the end");
        if message.event == "closing" {
            break message;
        }
        read.push(message.data);
    };
    assert_eq!(goodbye.data, r#"{"reason":"too-slow"}"#);
    assert!(stalled.next().await.is_none(), "nothing goes out after the goodbye");
    assert!(read.len() < published);
    assert!(edge.metric("fanfare_events_dropped_total") >= 1.0);

    // Its return is the catching up, as far as history goes.
    let header = format!("Last-Event-ID: {}\r\n", stalled.last_id());
    let mut back = Subscriber::get(edge.address, "/events/c", &header).await;
    back.expect("connected").await;
    let mut next = read.len();
    while next < published {
        let message = back.next().await.expect("the rest");
        if message.event == "gap" {
            assert!(published - next > 100, "history holds a hundred events");
            next = published - 100;
            continue;
        }
        assert!(message.data.starts_with(&format!("{next} ")), "{next}: {}", &message.data[..10]);
        next += 1;
    }
    edge.stop().await;
}

#[tokio::test]
async fn an_event_larger_than_the_bound_is_still_delivered() {
    let config = EdgeConfig { backlog_bytes_max: 1, ..EdgeConfig::default() };
    let edge = TestEdge::with(1, config).await;
    let mut subscriber = edge.subscribe("/events/c").await;
    subscriber.expect("connected").await;
    let data = "x".repeat(500_000);
    edge.publish("c", None, &data).await;
    assert_eq!(subscriber.data().await, data);
    edge.stop().await;
}

#[tokio::test]
async fn a_hang_up_is_noticed_at_once_without_any_event() {
    let edge = TestEdge::start().await;
    let mut subscribers = Vec::new();
    for _ in 0..10 {
        let mut subscriber = edge.subscribe("/events/c").await;
        subscriber.expect("connected").await;
        subscribers.push(subscriber);
    }
    assert_eq!(edge.metric("fanfare_connections"), 10.0);
    for (n, subscriber) in subscribers.into_iter().enumerate() {
        if n % 2 == 0 {
            drop(subscriber.reset());
        }
    }
    let begin = std::time::Instant::now();
    while edge.metric("fanfare_connections") > 0.0 {
        assert!(begin.elapsed().as_secs() < 10, "hang-ups are noticed long before a heartbeat");
        tokio::task::yield_now().await;
    }
    assert_eq!(edge.metric("fanfare_connections_closed_total"), 10.0);
    edge.stop().await;
}

#[tokio::test]
async fn a_client_that_talks_into_its_stream_is_ignored_and_one_that_floods_is_cut_off() {
    use tokio::io::AsyncWriteExt;
    let edge = TestEdge::start().await;
    let mut subscriber = edge.subscribe("/events/c").await;
    subscriber.expect("connected").await;
    subscriber.socket.write_all(b"GET /events HTTP/1.1\r\n\r\n").await.expect("it is read");
    edge.publish("c", None, "heard").await;
    assert_eq!(subscriber.data().await, "heard");
    let mut result = Ok(());
    for _ in 0..10_000 {
        result = subscriber.socket.write_all(&[b'x'; 4096]).await;
        if result.is_err() {
            break;
        }
    }
    assert!(result.is_err(), "a flood is not read for ever");
    edge.stop().await;
}
