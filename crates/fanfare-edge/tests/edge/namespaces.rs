//! What a namespace has of its own, what is hidden from replay, and what is emptied.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use fanfare_backbone::Backbone;
use fanfare_edge::EdgeConfig;
use fanfare_protocol::{ByNamespace, Channel, Content, Draft, Keep, Partitions, Retention};
use tokio::time::timeout;

use crate::support::{RETENTION, Subscriber, TestEdge};

const PATIENCE: Duration = Duration::from_secs(20);

/// `prices` is a board: the last value of each channel, for as long as it takes, to everyone who comes.
async fn board(partitions: u16) -> TestEdge {
    let mut retention = Retention { ..RETENTION };
    retention.history.own.insert("prices".into(), Keep { events_max: 1, age: None });
    let mut replay = ByNamespace::everywhere(0);
    replay.own.insert("prices".into(), 1);
    let config = EdgeConfig { replay: Arc::new(replay), ..EdgeConfig::default() };
    TestEdge::on(Backbone::in_process(Partitions::new(partitions).expect("1 to 64"), retention), config).await
}

async fn come_back(edge: &TestEdge, target: &str, id: &str) -> Subscriber {
    let mut subscriber = Subscriber::get(edge.address, target, &format!("Last-Event-ID: {id}\r\n")).await;
    subscriber.expect("connected").await;
    subscriber
}

#[tokio::test]
async fn who_comes_to_a_board_gets_its_last_values_unless_they_ask_otherwise() {
    for partitions in [1, 8] {
        let edge = board(partitions).await;
        for (channel, data) in [("prices:eur", "1.0"), ("news", "old"), ("prices:usd", "2.0"), ("prices:eur", "1.1")] {
            edge.publish(channel, None, data).await;
        }
        let target = "/events?channels=prices:eur,prices:usd,news";
        let replayed = async |query: &str| {
            let mut subscriber = edge.subscribe(&format!("{target}{query}")).await;
            subscriber.expect("connected").await;
            edge.publish("news", None, "now").await;
            let mut heard = Vec::new();
            loop {
                match subscriber.data().await {
                    now if now == "now" => break heard,
                    data => heard.push(data),
                }
            }
        };
        let sorted = |mut heard: Vec<String>| {
            heard.sort();
            heard
        };
        assert_eq!(sorted(replayed("").await), ["1.1", "2.0"], "each channel as its namespace has it");
        assert_eq!(replayed("&replay=0").await, [""; 0], "who wants none gets none");

        let mut subscriber = edge.subscribe(&format!("{target}&replay=100")).await;
        subscriber.expect("connected").await;
        let mut heard = Vec::new();
        while heard.len() < 5 {
            heard.push(subscriber.data().await);
        }
        assert_eq!(sorted(heard), ["1.1", "2.0", "now", "now", "old"], "what is asked for counts everywhere");

        // Only once: who comes back gets what was missed.
        let id = subscriber.reset();
        edge.publish("prices:usd", None, "2.1").await;
        assert_eq!(come_back(&edge, target, &id).await.data().await, "2.1");
        edge.stop().await;
    }
}

#[tokio::test]
async fn an_event_past_its_time_to_live_is_hidden_without_a_gap() {
    // From memory, where others are on the channel, and from history.
    for others in [2, 0] {
        let edge = TestEdge::start().await;
        let mut staying = Vec::new();
        for _ in 0..others {
            let mut other = edge.subscribe("/events/a").await;
            other.expect("connected").await;
            staying.push(other);
        }
        let id = edge.publish("a", None, "first").await;
        let ttl = NonZeroU32::new(1);
        let content = Content { name: None, key: None, ttl, data: "short".into() };
        let draft = Draft { channel: Channel::parse("a").expect("valid"), content, idempotency: None };
        edge.backbone.publish(vec![draft]).await.remove(0).expect("published");
        edge.publish("a", None, "long").await;
        let hidden = async {
            loop {
                let mut subscriber = come_back(&edge, "/events/a", &id.to_string()).await;
                match subscriber.next().await.expect("an event") {
                    message if message.data == "short" => assert_eq!(subscriber.data().await, "long"),
                    message => break message,
                }
            }
        };
        let next = timeout(PATIENCE, hidden).await.expect("hidden after a second");
        assert_eq!((next.event.as_str(), next.data.as_str()), ("message", "long"), "no gap is told");
        let mut fresh = edge.subscribe("/events/a?replay=2").await;
        fresh.expect("connected").await;
        assert_eq!(fresh.data().await, "long");
        for mut other in staying {
            assert_eq!([other.data().await, other.data().await, other.data().await], ["first", "short", "long"]);
        }
        edge.stop().await;
    }
}

#[tokio::test]
async fn a_history_that_is_emptied_is_told_to_who_comes_back_and_nobody_else_notices() {
    for others in [2, 1] {
        let edge = TestEdge::start().await;
        let target = "/events?channels=a,b";
        let mut staying = Vec::new();
        for _ in 0..others {
            let mut other = edge.subscribe(target).await;
            other.expect("connected").await;
            staying.push(other);
        }
        let seen = edge.publish("a", None, "one").await;
        edge.publish("a", None, "secret").await;
        edge.publish("b", None, "other").await;
        for other in &mut staying {
            assert_eq!([other.data().await, other.data().await, other.data().await], ["one", "secret", "other"]);
        }
        let purged = edge.backbone.purge(&Channel::parse("a").expect("valid")).await.expect("in process");

        // Whatever has been in memory or in history: it is gone, and whoever may have missed it is told.
        let mut back = come_back(&edge, target, &seen.to_string()).await;
        let gap = back.expect("gap").await;
        assert!(gap.data.contains(r#""channels":["a"]"#) && gap.data.contains(r#""reason":"expired""#), "{}", gap.data);
        assert_eq!(back.data().await, "other");
        let mut fresh = edge.subscribe(&format!("{target}&replay=10")).await;
        fresh.expect("connected").await;
        assert_eq!(fresh.data().await, "other");

        edge.publish("a", None, "two").await;
        let mut after = come_back(&edge, "/events/a", &purged.to_string()).await;
        for subscriber in staying.iter_mut().chain([&mut back, &mut fresh, &mut after]) {
            assert_eq!(subscriber.data().await, "two", "who was there, or knows of it, hears no gap");
        }
        edge.stop().await;
    }
}
