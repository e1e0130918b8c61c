//! Between a client and the edge, anything may happen to the bytes: what the client gets in the end is the same.

use std::time::Duration;

use fanfare_testkit::{Fanfare, Fault, FaultProxy, Subscribe, Subscriber};

const PATH: &str = "/events?user=42&channel=server:7";

/// Reads until so many events of a channel have come, and tells their data.
async fn events(subscriber: &mut Subscriber, count: usize) -> Vec<String> {
    let mut events = Vec::new();
    while events.len() < count {
        let message = subscriber.next().await;
        assert!(!["gap", "closing"].contains(&&*message.event), "{message:?}");
        if message.event == "message" {
            events.push(message.data);
        }
    }
    events
}

#[tokio::test]
async fn a_client_that_is_cut_off_at_any_byte_comes_back_to_exactly_what_was_missed() {
    let fanfare = Fanfare::dev().start();
    let proxy = FaultProxy::to(fanfare.address()).await;
    let mut publisher = fanfare.publisher();
    let mut subscriber = fanfare.subscribe(PATH).connected().await;
    let start = subscriber.last_id().to_owned();
    subscriber.reset();
    let all = (0..20).map(|number| format!("event {number}\nof several lines")).collect::<Vec<_>>();
    for data in &all {
        publisher.publish("server:7", &**data).await.id();
    }
    for cut_after in (0..2_400).step_by(97) {
        proxy.set(Fault::None);
        let mut subscriber = fanfare.subscribe(PATH).after(&start).connected().await;
        subscriber.reset();
        proxy.set(Fault::CutAfter(450 + cut_after)); // The head passes.
        subscriber.reconnect_to(proxy.address()).await;
        let before = subscriber.ended_or(20).await;
        proxy.set(Fault::None);
        let mut got = before;
        let missing = 20 - got.len();
        subscriber.reconnect().await;
        got.extend(events(&mut subscriber, missing).await);
        assert_eq!(got, all, "cut off after {cut_after} bytes");
    }
}

/// What tests of this file want of a subscriber besides.
trait EndedOr {
    async fn ended_or(&mut self, count: usize) -> Vec<String>;
}

impl EndedOr for Subscriber {
    /// The data of the events until the stream breaks off, or until so many have come.
    async fn ended_or(&mut self, count: usize) -> Vec<String> {
        let mut events = Vec::new();
        while events.len() < count
            && let Ok(Some(message)) = self.next_within(Duration::from_secs(5)).await
        {
            if message.event == "message" {
                events.push(message.data);
            }
        }
        events
    }
}

#[tokio::test]
async fn an_event_that_arrives_byte_by_byte_is_the_same_event() {
    let fanfare = Fanfare::dev().start();
    let proxy = FaultProxy::to(fanfare.address()).await;
    proxy.set(Fault::Drip { bytes: 3, pause: Duration::from_micros(100) });
    let mut subscriber = Subscribe::new(proxy.address(), PATH).connected().await;
    let id = fanfare.publisher().publish("server:7", "größer\nals ein Byte").await.id();
    let message = subscriber.next().await;
    assert_eq!((&*message.data, message.id), ("größer\nals ein Byte", format!("{id}@server:7")));
}

#[tokio::test]
async fn a_client_behind_a_stall_gets_everything_after_it() {
    let fanfare = Fanfare::dev().start();
    let proxy = FaultProxy::to(fanfare.address()).await;
    let mut subscriber = Subscribe::new(proxy.address(), PATH).connected().await;
    proxy.set(Fault::Stall);
    let mut publisher = fanfare.publisher();
    for data in ["a", "b", "c"] {
        publisher.publish("server:7", data).await.id();
    }
    proxy.set(Fault::None);
    assert_eq!(events(&mut subscriber, 3).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn an_http_1_0_client_gets_a_stream_without_chunks() {
    let fanfare = Fanfare::dev().start();
    let mut subscriber = fanfare.subscribe(PATH).http_1_0().connected().await;
    assert_eq!(subscriber.header("transfer-encoding"), None);
    fanfare.publisher().publish("server:7", "hi").await.id();
    assert_eq!(subscriber.next_data().await, "hi");
    assert!(subscriber.received().ends_with("data: hi\n\n"), "{}", subscriber.received());
}
