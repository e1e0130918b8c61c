//! Who comes back gets exactly what was missed, or is told that there is a gap.

use std::time::Duration;

use fanfare_backbone::Backbone;
use fanfare_edge::EdgeConfig;
use fanfare_protocol::{ByNamespace, Keep, Partitions, Retention};

use crate::support::{RETENTION, Subscriber, TestEdge};

#[tokio::test]
async fn a_client_that_was_cut_off_gets_exactly_what_it_missed_over_all_its_channels() {
    for partitions in [1, 8] {
        let edge = TestEdge::with(partitions, EdgeConfig::default()).await;
        let target = "/events?user=42&channels=a,b,c";
        let mut subscriber = edge.subscribe(target).await;
        subscriber.expect("connected").await;
        edge.publish("a", None, "seen").await;
        assert_eq!(subscriber.data().await, "seen");
        let id = subscriber.reset();

        let mut missed = Vec::new();
        for n in 0..20 {
            for channel in ["a", "b", "c", "user:42", "broadcast", "other"] {
                let data = format!("{channel} {n}");
                edge.publish(channel, None, &data).await;
                if channel != "other" {
                    missed.push(data);
                }
            }
        }
        let mut subscriber = Subscriber::get(edge.address, target, &format!("Last-Event-ID: {id}\r\n")).await;
        let connected = subscriber.expect("connected").await;
        assert!(connected.data.contains(r#""resumed":true"#));
        let mut heard = Vec::new();
        for _ in 0..missed.len() {
            heard.push(subscriber.data().await);
        }
        if partitions > 1 {
            let order = |data: &String| data.split_once(' ').map(|(c, n)| (c.to_owned(), n.parse::<u32>().ok()));
            assert!(heard.is_sorted_by_key(|data| data.starts_with("a ").then(|| order(data))) || heard.len() == 100);
            heard.sort_by_key(order);
            missed.sort_by_key(order);
        }
        assert_eq!(heard, missed);
        edge.publish("b", None, "live").await;
        assert_eq!(subscriber.data().await, "live");
        edge.stop().await;
    }
}

#[tokio::test]
async fn the_id_works_in_the_query_and_in_the_body_and_the_header_wins() {
    let edge = TestEdge::start().await;
    let first = edge.publish("c", None, "one").await;
    let second = edge.publish("c", None, "two").await;
    edge.publish("c", None, "three").await;
    for name in ["last_event_id", "lastEventId"] {
        let mut subscriber = edge.subscribe(&format!("/events/c?{name}={first}@c")).await;
        subscriber.expect("connected").await;
        assert_eq!(subscriber.data().await, "two");
    }
    let body = format!(r#"{{"channels":["c"],"lastEventId":"{first}@c"}}"#);
    let mut subscriber = Subscriber::post(edge.address, &body).await;
    subscriber.expect("connected").await;
    assert_eq!(subscriber.data().await, "two");
    let header = format!("Last-Event-ID: {second}\r\n");
    let mut subscriber = Subscriber::get(edge.address, &format!("/events/c?last_event_id={first}"), &header).await;
    subscriber.expect("connected").await;
    assert_eq!(subscriber.data().await, "three");
    edge.stop().await;
}

#[tokio::test]
async fn who_resumes_gets_its_own_cursor_back_and_no_replay_beside_what_it_missed() {
    let edge = TestEdge::start().await;
    edge.publish("c", None, "zero").await;
    let first = edge.publish("c", None, "one").await;
    edge.publish("c", None, "two").await;
    let mut back = edge.subscribe(&format!("/events/c?replay=10&last_event_id={first}@c")).await;
    let connected = back.expect("connected").await;
    assert_eq!((&*connected.id, connected.data.contains(r#""resumed":true"#)), (&*first.to_string(), true));
    assert_eq!(back.data().await, "two");

    // A fresh one has a cursor too, from which nothing is missed that came after.
    let mut fresh = edge.subscribe("/events/c").await;
    let begin = fresh.expect("connected").await.id;
    drop(fresh.reset());
    edge.publish("c", None, "three").await;
    let mut back = edge.subscribe(&format!("/events/c?last_event_id={begin}")).await;
    back.expect("connected").await;
    assert_eq!(back.data().await, "three");
    edge.stop().await;
}

#[tokio::test]
async fn what_history_no_longer_has_is_told_as_a_gap_before_what_it_has() {
    let retention = Retention { history: ByNamespace::everywhere(Keep { events_max: 3, age: None }), ..RETENTION };
    let edge = TestEdge::on(Backbone::in_process(Partitions::ONE, retention), EdgeConfig::default()).await;
    let mut subscriber = edge.subscribe("/events?channels=busy,calm").await;
    subscriber.expect("connected").await;
    edge.publish("calm", None, "seen").await;
    subscriber.data().await;
    let id = subscriber.reset();
    edge.publish("calm", None, "calm").await;
    for n in 0..10 {
        edge.publish("busy", None, &n.to_string()).await;
    }
    let header = format!("Last-Event-ID: {id}\r\n");
    let mut subscriber = Subscriber::get(edge.address, "/events?channels=busy,calm", &header).await;
    subscriber.expect("connected").await;
    let gap = subscriber.expect("gap").await;
    let data: serde_json::Value = serde_json::from_str(&gap.data).expect("JSON");
    assert_eq!((&data["channels"], &data["reason"]), (&serde_json::json!(["busy"]), &"expired".into()));
    assert!(data["from"].as_u64() <= data["to"].as_u64() && data["retryInMs"].is_u64());
    assert_eq!(gap.id.split('@').next(), id.split('@').next(), "the gap's id is where replay goes on from");
    let mut heard = Vec::new();
    for _ in 0..4 {
        heard.push(subscriber.data().await);
    }
    assert_eq!(heard, ["calm", "7", "8", "9"]);
    edge.stop().await;
}

#[tokio::test]
async fn a_cursor_that_is_none_of_ours_is_told_a_gap_and_goes_on_from_now() {
    for partitions in [1, 8] {
        let edge = TestEdge::with(partitions, EdgeConfig::default()).await;
        edge.publish("a", None, "before").await;
        for id in ["nonsense", "4:0=abcdef-1", "%00", "12345"] {
            let mut subscriber = edge.subscribe(&format!("/events?channels=a,b,c&last_event_id={id}")).await;
            let connected = subscriber.expect("connected").await;
            assert_eq!(connected.id, "", "there is no id to come back with until the gap is told");
            let gap = subscriber.expect("gap").await;
            assert!(gap.data.contains(r#""reason":"unknown-cursor""#), "{}", gap.data);
            assert!(gap.data.contains(r#"["broadcast","a","b","c"]"#) || partitions > 1, "{}", gap.data);
            edge.publish("a", None, "live").await;
            assert_eq!(subscriber.data().await, "live");
        }
        edge.stop().await;
    }
}

#[tokio::test]
async fn those_who_are_told_a_gap_together_do_not_refetch_together() {
    let edge = TestEdge::start().await;
    let mut pauses = std::collections::BTreeSet::new();
    for _ in 0..10 {
        let mut subscriber = edge.subscribe("/events/a?last_event_id=zzzzzzzz-1795229237926600").await;
        subscriber.expect("connected").await;
        let gap: serde_json::Value = serde_json::from_str(&subscriber.expect("gap").await.data).expect("JSON");
        pauses.insert(gap["retryInMs"].as_u64().expect("a pause"));
    }
    assert!(pauses.len() > 1, "{pauses:?}");
    edge.stop().await;
}

#[tokio::test]
async fn another_history_is_told_as_lost() {
    let edge = TestEdge::start().await;
    edge.publish("a", None, "of this server").await;
    let mut subscriber = edge.subscribe("/events/a?last_event_id=zzzzzzzz-1795229237926600").await;
    assert!(subscriber.expect("connected").await.id.starts_with("zzzzzzzz-"), "the client's own cursor");
    let gap = subscriber.expect("gap").await;
    assert!(gap.data.contains(r#""reason":"lost""#) && !gap.id.starts_with("zzzzzzzz"));
    assert_eq!(subscriber.data().await, "of this server");
    edge.stop().await;
}

#[tokio::test]
async fn a_long_replay_arrives_whole_however_slowly_it_is_read() {
    let config = EdgeConfig { backlog_bytes_max: 1024, ..EdgeConfig::default() };
    let edge = TestEdge::with(1, config).await;
    let first = edge.publish("c", None, "first").await;
    let data = "x".repeat(20_000);
    for n in 0..99 {
        edge.publish("c", None, &format!("{n} {data}")).await;
    }
    let mut subscriber = edge.subscribe(&format!("/events/c?last_event_id={first}")).await;
    subscriber.expect("connected").await;
    for n in 0..99 {
        let heard = subscriber.data().await;
        assert!(heard.starts_with(&format!("{n} ")), "{n}: {}", &heard[..20]);
        if n % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    edge.publish("c", None, "live").await;
    assert_eq!(subscriber.data().await, "live");
    edge.stop().await;
}

#[tokio::test]
async fn what_has_outlived_its_time_is_not_replayed_and_leaves_no_gap() {
    use fanfare_protocol::{Channel, Content, Draft};
    let edge = TestEdge::start().await;
    let first = edge.publish("c", None, "first").await;
    let brief = Content { name: None, key: None, ttl: std::num::NonZeroU32::new(1), data: "brief".into() };
    let channel = Channel::parse("c").expect("a valid channel");
    edge.backbone.publish(vec![Draft { channel, content: brief, idempotency: None }]).await;
    edge.publish("c", None, "lasting").await;
    let target = format!("/events/c?last_event_id={first}");
    for expected in [&["brief", "lasting"][..], &["lasting"]] {
        let mut subscriber = edge.subscribe(&target).await;
        subscriber.expect("connected").await;
        for data in expected {
            assert_eq!(subscriber.data().await, *data);
        }
        tokio::time::sleep(Duration::from_millis(1_100)).await; // Its time to live is a second at least.
    }
    edge.stop().await;
}
