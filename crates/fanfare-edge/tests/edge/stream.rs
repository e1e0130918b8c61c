//! What a subscriber gets: the stream's head and first event, the events of its channels, and no others.

use crate::support::{Subscriber, TestEdge};
use fanfare_edge::EdgeConfig;

#[tokio::test]
async fn a_stream_begins_with_connected_and_then_has_the_events_of_its_channels() {
    let edge = TestEdge::start().await;
    let mut subscriber = edge.subscribe("/events?user=42&channel=server:7").await;
    let connected = subscriber.expect("connected").await;
    let data: serde_json::Value = serde_json::from_str(&connected.data).expect("JSON");
    assert_eq!(data["userId"], "42");
    assert_eq!(data["channels"], serde_json::json!(["user:42", "broadcast", "server:7"]));
    assert_eq!(data["resumed"], false);
    assert_eq!(data["clientId"].as_str().expect("text").len(), 39);

    edge.publish("server:8", None, "not followed").await;
    let point = edge.publish("server:7", Some("metrics:cpu"), "line one\nline two").await;
    let event = subscriber.expect("metrics:cpu").await;
    assert_eq!(event.data, "line one\nline two");
    assert_eq!(event.id, format!("{point}@server:7"));
    edge.publish("broadcast", None, "to all").await;
    edge.publish("user:42", Some("notification"), "to one").await;
    assert_eq!(subscriber.data().await, "to all");
    assert_eq!(subscriber.data().await, "to one");
    edge.stop().await;
}

#[tokio::test]
async fn the_head_is_what_proxies_and_browsers_need() {
    let edge = TestEdge::start().await;
    let subscriber =
        Subscriber::get(edge.address, "/events", "Accept: text/event-stream\r\nX-Request-Id: abc-1\r\n").await;
    for line in [
        "HTTP/1.1 200 OK\r\n",
        "content-type: text/event-stream; charset=utf-8\r\n",
        "cache-control: no-cache, no-store, no-transform\r\n",
        "x-accel-buffering: no\r\n",
        "x-request-id: abc-1\r\n",
        "transfer-encoding: chunked\r\n",
        "date: ",
    ] {
        assert!(subscriber.head.contains(line), "{line:?} is in {}", subscriber.head);
    }
    let mut pauses = std::collections::BTreeSet::new();
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..10 {
        let mut subscriber = edge.subscribe("/events").await;
        let text = subscriber.text_until("event: connected").await;
        assert!(text.starts_with("retry: "), "{text}");
        subscriber.expect("connected").await;
        pauses.insert(subscriber.decoder.retry().expect("a pause").as_millis());
        let id = subscriber.head.lines().find_map(|line| line.strip_prefix("x-request-id: "));
        ids.insert(id.expect("one is made where none came").to_owned());
    }
    assert!(pauses.len() > 1 && pauses.iter().all(|pause| (1_000..=3_000).contains(pause)), "{pauses:?}");
    assert_eq!(ids.len(), 10);
    edge.stop().await;
}

#[tokio::test]
async fn one_channel_in_the_path_is_exactly_that() {
    let edge = TestEdge::start().await;
    let mut subscriber = edge.subscribe("/events/a%2Fb?user=42").await;
    assert!(subscriber.expect("connected").await.data.contains(r#""channels":["a/b"]"#));
    edge.publish("broadcast", None, "not here").await;
    edge.publish("a/b", None, "here").await;
    assert_eq!(subscriber.data().await, "here");
    edge.stop().await;
}

#[tokio::test]
async fn post_takes_channels_in_the_body() {
    let edge = TestEdge::start().await;
    for n in 0..3 {
        edge.publish("server:7", Some("server:online"), &n.to_string()).await;
    }
    let body = r#"{"channels":["server:7","other"],"types":["server:*"],"replay":2}"#;
    let mut subscriber = Subscriber::post(edge.address, body).await;
    assert!(subscriber.expect("connected").await.data.contains(r#""channels":["broadcast","server:7","other"]"#));
    edge.publish("server:7", Some("metrics:cpu"), "filtered").await;
    edge.publish("other", Some("server:online"), "wanted").await;
    for heard in ["1", "2", "wanted"] {
        assert_eq!(subscriber.data().await, heard);
    }
    edge.stop().await;
}

#[tokio::test]
async fn http_1_0_gets_the_stream_as_it_is_until_the_connection_closes() {
    let edge = TestEdge::start().await;
    let mut subscriber = Subscriber::request(edge.address, "GET /events/c HTTP/1.0\r\n\r\n").await;
    assert!(subscriber.head.contains("connection: close\r\n") && !subscriber.chunked);
    subscriber.expect("connected").await;
    edge.publish("c", None, "plain").await;
    assert_eq!(subscriber.data().await, "plain");
    edge.stop().await;
}

#[tokio::test]
async fn unnamed_streams_have_no_event_lines_and_tell_their_own_events_by_type() {
    let edge = TestEdge::start().await;
    let mut subscriber = edge.subscribe("/events/c?unnamed=true").await;
    assert!(subscriber.expect("message").await.data.contains(r#""type":"connected""#));
    edge.publish("c", Some("metrics:cpu"), "heard").await;
    assert_eq!(subscriber.expect("message").await.data, "heard");
    edge.stop().await;
}

#[tokio::test]
async fn a_quiet_stream_gets_comments_that_move_its_cursor() {
    let heartbeat_interval = std::time::Duration::from_millis(200);
    let edge = TestEdge::with(1, EdgeConfig { heartbeat_interval, ..EdgeConfig::default() }).await;
    let mut subscriber = edge.subscribe("/events/c").await;
    subscriber.expect("connected").await;
    let before = subscriber.last_id();
    let other = edge.publish("elsewhere", None, "moves the partition").await;
    subscriber.text_until(": heartbeat\n\n").await;
    edge.publish("c", None, "next").await;
    let mut saw_comment_id = false;
    while !saw_comment_id {
        let text = subscriber.text_until("data: next").await;
        saw_comment_id = text.contains("id: ");
    }
    subscriber.data().await;
    assert_ne!(subscriber.last_id(), before);
    assert!(subscriber.last_id().as_str() > format!("{other}").as_str());
    edge.stop().await;
}

#[tokio::test]
async fn heartbeat_events_come_every_interval_where_asked_for() {
    let heartbeat_interval = std::time::Duration::from_millis(100);
    let edge = TestEdge::with(1, EdgeConfig { heartbeat_interval, ..EdgeConfig::default() }).await;
    let mut subscriber = edge.subscribe("/events/c?heartbeat=event").await;
    subscriber.expect("connected").await;
    for _ in 0..3 {
        assert!(subscriber.expect("heartbeat").await.data.starts_with(r#"{"timestamp":"#));
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_busy_stream_gets_heartbeat_events_all_the_same_and_no_comments() {
    let heartbeat_interval = std::time::Duration::from_millis(200);
    let edge = TestEdge::with(1, EdgeConfig { heartbeat_interval, ..EdgeConfig::default() }).await;
    let mut watched = edge.subscribe("/events/c?heartbeat=event").await;
    let mut plain = edge.subscribe("/events/c").await;
    watched.expect("connected").await;
    plain.expect("connected").await;
    let (mut published, mut beats, begin) = (0_u32, 0, std::time::Instant::now());
    while beats < 5 {
        assert!(begin.elapsed().as_secs() < 30, "{beats} heartbeats in {published} events");
        published += 1;
        edge.publish("c", None, &format!("event {published}.")).await;
        loop {
            match watched.next().await.expect("an event") {
                message if message.event == "heartbeat" => beats += 1,
                message => break assert_eq!(message.data, format!("event {published}.")),
            }
        }
        // All that it was sent, with comments, which its decoder would pass over.
        let heard = plain.text_until(&format!("event {published}.")).await;
        assert!(!heard.contains(": heartbeat"), "its events are signs of life enough: {heard}");
        assert_eq!(plain.data().await, format!("event {published}."));
    }
    edge.stop().await;
}

#[tokio::test]
async fn an_event_has_one_name_whoever_hears_it_and_says_its_channel() {
    let name = |id: &str| id.split([',', ';', '~', '!', '@']).next().unwrap_or_default().to_owned();
    for partitions in [1, 8] {
        let edge = TestEdge::with(partitions, EdgeConfig::default()).await;
        let mut subscribers = Vec::new();
        for channels in ["a", "a,b", "c,a,b,d"] {
            let mut subscriber = edge.subscribe(&format!("/events?channels={channels}")).await;
            subscriber.expect("connected").await;
            subscribers.push(subscriber);
        }
        let of = edge.backbone.partitions();
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..5 {
            let point = edge.publish("a", None, &n.to_string()).await;
            let partition = of.of(&fanfare_protocol::Channel::parse("a").expect("valid"));
            let told = fanfare_backbone::event_id(of, partition, point);
            for subscriber in &mut subscribers {
                let heard = subscriber.next().await.expect("an event");
                assert_eq!((name(&heard.id), heard.id.rsplit_once('@').map(|id| id.1)), (told.clone(), Some("a")));
            }
            assert!(seen.insert(told), "no two events share a name");
        }
        edge.stop().await;
    }
}

#[tokio::test]
async fn replay_begins_with_the_newest_events_of_each_channel_in_order() {
    for partitions in [1, 8] {
        let edge = TestEdge::with(partitions, EdgeConfig::default()).await;
        for n in 0..5 {
            edge.publish("a", None, &format!("a{n}")).await;
            edge.publish("b", None, &format!("b{n}")).await;
        }
        let mut subscriber = edge.subscribe("/events?channels=a,b&replay=2").await;
        subscriber.expect("connected").await;
        let mut heard = Vec::new();
        for _ in 0..4 {
            heard.push(subscriber.data().await);
        }
        if partitions > 1 {
            heard.sort_by_key(|data| data[1..].to_owned()); // Between partitions there is no order.
        }
        assert_eq!(heard, ["a3", "b3", "a4", "b4"]);
        edge.publish("a", None, "live").await;
        assert_eq!(subscriber.data().await, "live");
        edge.stop().await;
    }
}

#[tokio::test]
async fn type_filters_keep_what_they_name_and_fanfares_own_events() {
    let edge = TestEdge::start().await;
    let mut subscriber = edge.subscribe("/events/c?types=server:*,message").await;
    subscriber.expect("connected").await;
    for event_type in [Some("metrics:cpu"), Some("server:online"), Some("serve"), None, Some("server:")] {
        edge.publish("c", event_type, event_type.unwrap_or("without a type")).await;
    }
    for heard in ["server:online", "without a type", "server:"] {
        assert_eq!(subscriber.data().await, heard);
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_filtered_stream_resumes_where_the_partition_was_and_not_where_it_last_heard() {
    let heartbeat_interval = std::time::Duration::from_millis(100);
    let edge = TestEdge::with(1, EdgeConfig { heartbeat_interval, ..EdgeConfig::default() }).await;
    let mut subscriber = edge.subscribe("/events/c?types=wanted").await;
    subscriber.expect("connected").await;
    let filtered = edge.publish("c", Some("unwanted"), "filtered").await;
    subscriber.text_until(&format!("id: {filtered}\n")).await;
    edge.stop().await;
}

#[tokio::test]
async fn every_metric_that_dashboards_lean_on_is_there_from_the_start() {
    let edge = TestEdge::start().await;
    let mut subscriber = edge.subscribe("/events/c").await;
    subscriber.expect("connected").await;
    edge.publish("c", None, "counted").await;
    subscriber.data().await;
    let families = edge.metrics.gather();
    let names: Vec<_> = families.iter().map(|family| family.name()).collect();
    for name in [
        "fanfare_connections",
        "fanfare_connections_limit",
        "fanfare_connections_opened_total",
        "fanfare_connections_closed_total",
        "fanfare_connections_refused_total",
        "fanfare_events_received_total",
        "fanfare_deliveries_total",
        "fanfare_events_dropped_total",
        "fanfare_delivery_seconds",
        "fanfare_replayed_events_total",
        "fanfare_gaps_total",
        "fanfare_backlog_bytes",
        "fanfare_backbone_up",
        "fanfare_backbone_resyncs_total",
        "fanfare_subscriptions",
    ] {
        assert!(names.contains(&name), "{name} is in {names:?}");
    }
    assert_eq!(edge.metric("fanfare_deliveries_total"), 1.0);
    assert_eq!(edge.metric("fanfare_connections"), 1.0);
    edge.stop().await;
}

#[tokio::test]
async fn what_happens_on_an_edge_is_counted() {
    let edge = TestEdge::with(1, EdgeConfig { connections_max: Some(77), ..EdgeConfig::default() }).await;
    let mut subscriber = edge.subscribe("/events?channels=a,b").await;
    subscriber.expect("connected").await;
    for channel in ["a", "b", "unheard"] {
        edge.publish(channel, None, "counted").await;
    }
    subscriber.data().await;
    subscriber.data().await;
    let id = subscriber.reset();
    while edge.metric("fanfare_connections") > 0.0 {
        tokio::task::yield_now().await;
    }
    edge.publish("a", None, "missed").await;
    let mut back = edge.subscribe(&format!("/events?channels=a,b&last_event_id={id}")).await;
    back.expect("connected").await;
    assert_eq!(back.data().await, "missed");
    edge.subscribe("/events/a?last_event_id=nonsense").await.text_until("event: gap").await;
    for (metric, value) in [
        ("fanfare_connections_limit", 77.0),
        ("fanfare_connections_opened_total", 3.0),
        ("fanfare_events_received_total", 3.0),
        ("fanfare_deliveries_total", 3.0),
        ("fanfare_delivery_seconds", 2.0),
        ("fanfare_replayed_events_total", 1.0),
        ("fanfare_gaps_total", 1.0),
        ("fanfare_backlog_bytes", 0.0),
        ("fanfare_backbone_resyncs_total", 0.0),
    ] {
        assert_eq!(edge.metric(metric), value, "{metric}");
    }
    // Looked at a few times a second; with the two channels that edges talk over.
    while edge.metric("fanfare_subscriptions") < 5.0 || edge.metric("fanfare_backbone_up") < 1.0 {
        tokio::task::yield_now().await;
    }
    while edge.metric("fanfare_connections_closed_total") < 2.0 {
        tokio::task::yield_now().await;
    }
    edge.stop().await;
}

#[tokio::test]
async fn why_connections_end_and_are_refused_is_counted_by_reason() {
    let edge = TestEdge::with(1, EdgeConfig { connections_max: Some(1), ..EdgeConfig::default() }).await;
    let mut subscriber = edge.subscribe("/events/c").await;
    subscriber.expect("connected").await;
    edge.subscribe("/events/c").await;
    assert_eq!(edge.metric_of("fanfare_connections_refused_total", "limit"), 1.0);
    subscriber.reset();
    while edge.metric_of("fanfare_connections_closed_total", "client-left") < 1.0 {
        tokio::task::yield_now().await;
    }
    let mut subscriber = edge.subscribe("/events/c").await;
    subscriber.expect("connected").await;
    edge.edge.drain(std::time::Duration::ZERO).await;
    assert_eq!(edge.metric_of("fanfare_connections_closed_total", "draining"), 1.0);
    edge.subscribe("/events/c").await;
    assert_eq!(edge.metric_of("fanfare_connections_refused_total", "draining"), 1.0);
    assert_eq!(edge.metric("fanfare_connections_closed_total"), 2.0);
    edge.stop().await;
}

#[tokio::test]
async fn events_that_wait_leave_in_one_piece_unless_that_is_switched_off() {
    for (partitions, coalesce) in [(1, true), (1, false), (8, true), (8, false)] {
        let edge = TestEdge::with(partitions, EdgeConfig { coalesce, ..EdgeConfig::default() }).await;
        let mut subscriber = edge.subscribe("/events/c").await;
        subscriber.expect("connected").await;
        let before = subscriber.chunks;
        edge.publish_all("c", (0..50).map(|n| n.to_string())).await;
        let mut ids = std::collections::BTreeSet::new();
        for n in 0..50 {
            let message = subscriber.next().await.expect("an event");
            assert_eq!(message.data, n.to_string());
            ids.insert(message.id);
        }
        assert_eq!(ids.len(), 50, "each has an id of its own");
        let chunks = subscriber.chunks - before;
        assert!(if coalesce { chunks < 50 } else { chunks == 50 }, "{chunks} pieces, coalesce = {coalesce}");
        assert_eq!(edge.metric("fanfare_deliveries_total"), 50.0);
        edge.stop().await;
    }
}
