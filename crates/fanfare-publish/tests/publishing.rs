//! What is published arrives as it was written, under the id that the publisher is told.

mod kit;

use fanfare_protocol::{EventType, Key, Partitions};
use fanfare_publish::PublishConfig;
use kit::TestApi;
use serde_json::json;

#[tokio::test]
async fn a_user_is_notified() {
    let api = TestApi::start().await;
    let answer = api.post("/notify", r#"{"userId":"42","message":"hi"}"#).await;
    let id = answer.id();
    assert_eq!(answer.json(), json!({ "success": true, "id": id, "channel": "user:42" }));
    let events = api.events("user:42").await;
    let [event] = &events[..] else { panic!("{events:?}") };
    assert!(id.ends_with(&format!("-{}", event.pos)), "{id}");
    assert_eq!(event.content.name.as_ref().map(EventType::as_str), Some("notification"));
    let data: serde_json::Value = serde_json::from_str(&event.content.data).expect("JSON");
    let timestamp = data["timestamp"].as_u64().expect("ms");
    assert!(event.pos.millis().abs_diff(timestamp) < 10_000);
    let expected = format!(r#"{{"type":"notification","userId":"42","message":"hi","timestamp":{timestamp}}}"#);
    assert_eq!(*event.content.data, *expected);
}

#[tokio::test]
async fn everybody_is_told() {
    let api = TestApi::start().await;
    let answer = api.post("/broadcast", r#"{"message":"hi"}"#).await;
    assert_eq!(answer.json()["channel"], "broadcast");
    answer.id();
    api.post("/broadcast", r#"{"message":{"a":1.50},"event":"maintenance"}"#).await.id();
    let data = api.data("broadcast").await;
    assert!(data[0].starts_with(r#"{"type":"announcement","message":"hi","timestamp":"#), "{}", data[0]);
    assert!(data[1].starts_with(r#"{"type":"maintenance","message":{"a":1.50},"timestamp":"#), "{}", data[1]);
}

#[tokio::test]
async fn several_users_are_answered_one_by_one() {
    let api = TestApi::start().await;
    let answer = api.post("/notify", r#"{"userId":["1",2,"alice@example.com"],"message":"hi"}"#).await;
    let answer = answer.json();
    assert_eq!(answer["success"], true);
    let channels = answer["results"].as_array().expect("several").iter().map(|result| result["channel"].clone());
    assert_eq!(channels.collect::<Vec<_>>(), ["user:1", "user:2", "user:alice%40example.com"]);
    assert!(answer["results"].as_array().expect("several").iter().all(|result| result["id"].is_string()));
    assert!(api.data("user:alice%40example.com").await[0].contains(r#""userId":"alice@example.com""#));
    // An array of one is still an array.
    let one = api.post("/notify", r#"{"userId":["1"],"message":null}"#).await.json();
    assert_eq!(one["results"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn whoever_is_named_twice_hears_it_once() {
    let api = TestApi::start().await;
    let answer = api.post("/notify", r#"{"userId":["1","2",1],"message":"hi"}"#).await.json();
    assert_eq!((answer["results"].as_array().map(Vec::len), api.events("user:1").await.len()), (Some(2), 1));
    let answer = api.post("/publish", r#"{"channel":["a","a"],"data":"hi"}"#).await.json();
    assert_eq!((answer["results"].as_array().map(Vec::len), api.events("a").await.len()), (Some(1), 1));
}

#[tokio::test]
async fn a_thousand_users_are_notified_at_once() {
    let api = TestApi::start().await;
    let body = json!({ "userId": (0..1000).collect::<Vec<_>>(), "message": "x".repeat(10_000) });
    let answer = api.post("/notify", &body.to_string()).await.json();
    assert_eq!((&answer["success"], answer["results"].as_array().map(Vec::len)), (&json!(true), Some(1000)));
    assert_eq!(answer["results"][999]["channel"], "user:999");
    assert_eq!(api.events("user:999").await.len(), 1);
}

#[tokio::test]
async fn data_is_delivered_as_it_was_written() {
    let api = TestApi::start().await;
    for (written, delivered) in [
        (r#""plain text""#, "plain text"),
        (r#""line\nbreak \u00fc \ud83d\ude00 \u0000""#, "line\nbreak ü 😀 \0"),
        (r#""""#, ""),
        ("1.10", "1.10"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("1E5", "1E5"),
        ("-0", "-0"),
        ("null", "null"),
        ("false", "false"),
        (r#"{"b": 1.0, "a" :[1,  2.50], "b":2}"#, r#"{"b": 1.0, "a" :[1,  2.50], "b":2}"#),
        (r#"  [ "\u00fc\ud800" ] "#, r#"[ "\u00fc\ud800" ]"#),
        ("{\n  \"a\": 1\n}", "{\n  \"a\": 1\n}"),
    ] {
        api.post("/publish", &format!(r#"{{"channel":"server:7","data":{written}}}"#)).await.id();
        assert_eq!(api.data("server:7").await.last().map(String::as_str), Some(delivered), "{written}");
    }
    api.post("/notify", r#"{"userId":"42","message":  {"price": 10.00,"big":12345678901234567890}  }"#).await.id();
    assert!(api.data("user:42").await[0].contains(r#""message":{"price": 10.00,"big":12345678901234567890},"#));
}

#[tokio::test]
async fn data_may_be_nested_as_deep_as_it_likes() {
    let api = TestApi::start().await;
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    api.post("/publish", &format!(r#"{{"channel":"a","data":{deep}}}"#)).await.id();
    assert_eq!(api.data("a").await, [deep]);
}

#[tokio::test]
async fn type_key_and_time_to_live_go_with_the_event() {
    let api = TestApi::start().await;
    let body = r#"{"channel":"server:7","event":"metrics:cpu","data":{"v":1},"key":"cpu","ttl":31536000}"#;
    api.post("/publish", body).await.id();
    let content = &api.events("server:7").await[0].content;
    assert_eq!(content.name.as_ref().map(EventType::as_str), Some("metrics:cpu"));
    assert_eq!(content.key.as_ref().map(Key::as_str), Some("cpu"));
    assert_eq!(content.ttl.map(|ttl| ttl.get()), Some(31_536_000));
    api.post("/publish", r#"{"channel":"server:7","data":"x","event":null,"key":null,"ttl":null}"#).await.id();
    assert_eq!(api.events("server:7").await[1].content.name, None);
}

#[tokio::test]
async fn one_event_to_several_channels_is_several_events() {
    let api = TestApi::start().await;
    let answer = api.post("/publish", r#"{"channel":["a","b","broadcast","user:42"],"data":"x"}"#).await.json();
    assert_eq!(answer["success"], true);
    let ids = answer["results"].as_array().expect("several").iter().map(|result| result["id"].to_string());
    let ids = ids.collect::<std::collections::HashSet<_>>();
    assert_eq!(ids.len(), 4);
    for channel in ["a", "b", "broadcast", "user:42"] {
        assert_eq!(api.data(channel).await, ["x"], "{channel}");
    }
}

#[tokio::test]
async fn with_several_partitions_an_id_says_which() {
    let partitions = Partitions::new(8).expect("valid");
    let api = TestApi::with(partitions, 100, PublishConfig::default()).await;
    let id = api.post("/publish", r#"{"channel":"server:7","data":"x"}"#).await.id();
    assert!(id.starts_with("8:5="), "{id}");
    let after = api.get(&format!("/channels/server:7/history?after={id}")).await.json();
    assert_eq!((&after["events"], &after["gap"]), (&json!([]), &json!(false)));
    assert_eq!(after["cursor"], *id);
}

#[tokio::test]
async fn calls_are_published_to() {
    let api = TestApi::start().await;
    let body = r#"{"channel":"$call:00112233445566778899aabbccddeeff","event":"result","data":1}"#;
    api.post("/publish", body).await.id();
}

#[tokio::test]
async fn requests_and_events_are_counted() {
    let api = TestApi::start().await;
    api.post("/publish", r#"{"channel":["a","b"],"data":"x"}"#).await;
    api.post("/publish", "nonsense").await;
    api.get("/channels/a").await;
    let value = |name: &str, code: Option<&str>| {
        let families = api.registry.gather();
        let family = families.iter().find(|family| family.name() == name).expect(name);
        let with_code = |metric: &&prometheus::proto::Metric| {
            code.is_none_or(|code| metric.get_label().iter().any(|label| label.value() == code))
        };
        let metric = family.get_metric().iter().find(with_code).expect(name);
        if name.ends_with("_seconds") {
            metric.get_histogram().get_sample_count() as f64
        } else {
            metric.get_counter().get_value()
        }
    };
    assert_eq!(value("fanfare_publish_requests_total", Some("200")), 1.0);
    assert_eq!(value("fanfare_publish_requests_total", Some("400")), 1.0);
    assert_eq!(value("fanfare_publish_seconds", None), 2.0);
    assert_eq!(value("fanfare_events_published_total", None), 2.0);
}

#[tokio::test]
async fn a_whole_number_is_one_however_it_is_written() {
    let api = TestApi::start().await;
    for (user, ttl) in [("42", "60"), ("42.0", "6e1"), ("\"42\"", "60.0")] {
        let body = format!(r#"{{"userId":{user},"message":"hi","ttl":{ttl},"idempotencyKey":"a"}}"#);
        let answer = api.post("/notify", &body).await;
        assert_eq!(answer.json()["channel"], "user:42", "{body}: {}", answer.body);
    }
    assert_eq!(api.events("user:42").await.len(), 1, "they are the same");
}
