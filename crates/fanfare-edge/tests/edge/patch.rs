//! A live connection's channels change, and its token is renewed.

use std::time::{Duration, SystemTime};

use fanfare_auth::{AuthConfig, Patterns, Secrets, TokenOrder};
use fanfare_backbone::Backbone;
use fanfare_edge::EdgeConfig;
use fanfare_protocol::{Channel, Partitions, Pattern, UserId};
use serde_json::{Value, json};

use crate::support::{RETENTION, Subscriber, TestEdge, ask, client_id};

const SECRET: &str = "a secret of thirty-two characters";

async fn guarded() -> TestEdge {
    let config = AuthConfig {
        secret: Some(Secrets::parse(SECRET).expect("a secret")),
        anonymous_channels: Patterns::parse("public:*").expect("patterns"),
        ..AuthConfig::default()
    };
    let access = config.edge_access().expect("there is a secret");
    let config = EdgeConfig { heartbeat_interval: Duration::from_millis(500), ..EdgeConfig::default() };
    TestEdge::guarded(Backbone::in_process(Partitions::ONE, RETENTION), config, access).await
}

/// A token that ends after so many seconds, and a header with it.
fn token(user: &str, channels: &[&str], seconds: u64) -> (String, String) {
    let order = TokenOrder {
        user: Some(UserId::parse(user).expect("valid")),
        channels: channels.iter().map(|pattern| Pattern::parse(pattern).expect("valid")).collect(),
        follow: Vec::new(),
        ttl: Duration::from_secs(seconds),
    };
    let secrets = Secrets::parse(SECRET).expect("a secret");
    let token = order.mint(&secrets, SystemTime::now()).expect("mints").token;
    let header = format!("Authorization: Bearer {token}\r\n");
    (token, header)
}

async fn patch(edge: &TestEdge, target: &str, headers: &str, body: Value) -> (u16, Value) {
    ask(edge.address, "PATCH", target, headers, &body.to_string()).await
}

async fn subscribed(subscriber: &mut Subscriber) -> Vec<String> {
    let message = subscriber.expect("subscribed").await;
    assert!(!message.id.is_empty(), "{message:?}");
    let data: Value = serde_json::from_str(&message.data).expect("JSON");
    serde_json::from_value(data["channels"].clone()).expect("channels")
}

#[tokio::test]
async fn a_patched_connection_follows_its_new_channels_also_after_coming_back_with_its_first_url() {
    for partitions in [1, 8] {
        let backbone = Backbone::in_process(Partitions::new(partitions).expect("1 to 64"), RETENTION);
        let edge = TestEdge::on(backbone.clone(), EdgeConfig::default()).await;
        let other = TestEdge::on(backbone, EdgeConfig::default()).await;
        let url = "/events?user=42&channels=a,b";
        // From the connection's own edge, and from another one.
        for by in [&edge, &other] {
            let mut subscriber = edge.subscribe(url).await;
            let id = client_id(&subscriber.expect("connected").await);
            edge.publish("c", None, "before it is followed").await;
            let body = json!({"subscribe": ["c", "b"], "unsubscribe": ["a", "unknown"]});
            let (status, answer) = patch(by, &format!("/events/{id}?user=42"), "", body).await;
            let now = ["user:42", "broadcast", "b", "c"];
            assert_eq!((status, &answer["channels"]), (200, &json!(now)), "{answer}");
            assert_eq!(subscribed(&mut subscriber).await, now);
            for channel in ["a", "b", "c"] {
                edge.publish(channel, None, channel).await;
            }
            assert_eq!((subscriber.data().await, subscriber.data().await), ("b".to_owned(), "c".to_owned()));

            // Gone, and back with what a browser has: the first URL and the last id.
            let last_id = subscriber.reset();
            for channel in ["a", "b", "c"] {
                edge.publish(channel, None, &format!("{channel} again")).await;
            }
            let headers = format!("Last-Event-ID: {last_id}\r\n");
            let mut subscriber = Subscriber::get(other.address, url, &headers).await;
            let connected = subscriber.expect("connected").await;
            let data: Value = serde_json::from_str(&connected.data).expect("JSON");
            assert_eq!((&data["channels"], &data["resumed"]), (&json!(now), &json!(true)));
            let mut missed = [subscriber.data().await, subscriber.data().await];
            missed.sort();
            assert_eq!(missed, ["b again", "c again"]);

            // Back to what the URL says, and nothing is left in the ids.
            let id = client_id(&connected);
            let body = json!({"subscribe": ["a"], "unsubscribe": ["c"]});
            assert_eq!(patch(by, &format!("/events/{id}?user=42"), "", body).await.0, 200);
            let mut now = subscribed(&mut subscriber).await;
            now.sort(); // Over several partitions they come in no order.
            assert_eq!(now, ["a", "b", "broadcast", "user:42"]);
            edge.publish("a", None, "a").await;
            let message = subscriber.next().await.expect("an event");
            assert!(message.data == "a" && !message.id.contains(';'), "{message:?}");
        }
        edge.stop().await;
        other.stop().await;
    }
}

#[tokio::test]
async fn what_may_not_be_is_refused_and_changes_nothing() {
    let edge = guarded().await;
    let config = EdgeConfig { channels_max: 40, ..EdgeConfig::default() };
    let other = TestEdge::on(edge.backbone.clone(), config).await;
    let (own, header) = token("42", &["server:*", "*"], 60);
    let mut subscriber = Subscriber::get(edge.address, "/events?channel=server:7", &header).await;
    let id = client_id(&subscriber.expect("connected").await);
    let mut free = edge.subscribe("/events/public:news").await;
    let free_id = client_id(&free.expect("connected").await);

    let other_secret = format!("{}AAAA", &id[..id.len() - 4]);
    let (foreign, foreign_header) = token("43", &["server:*"], 60);
    let many: Vec<_> = (0..99).map(|n| format!("server:{n}")).collect();
    let long: Vec<_> = (0..10).map(|n| format!("server:{n}{}", "x".repeat(150))).collect();
    let anonymous = "";
    let reserved = json!({"subscribe": ["user:43"]});
    for (id, header, body, status, sentence) in [
        (&*id, &*header, json!({}), 400, "nothing to change"),
        (&*id, &*header, json!({"subscribe": ["server:*"]}), 400, "wildcards"),
        (&*id, &*header, json!({"subscribe": ["a b"]}), 400, "not ' '"),
        (&*id, &*header, json!({"channels": ["a"]}), 400, "unknown field `channels`"),
        (&*id, &*header, json!({"subscribe": ["a"], "unsubscribe": ["a"]}), 400, "at once"),
        (&*id, &*header, json!({"subscribe": many}), 400, "it may follow 100"),
        (&*id, &*header, json!({"unsubscribe": ["user:42", "broadcast", "server:7"]}), 400, "nothing would be left"),
        (&*id, &*header, json!({"subscribe": long}), 413, "1024"),
        (&*id, &*header, reserved.clone(), 403, "does not allow user:43"),
        (&*id, &*header, json!({"subscribe": ["$edges"]}), 403, "$edges"),
        (&*id, &*foreign_header, json!({"subscribe": ["server:8"]}), 403, "another user's"),
        (&*id, anonymous, json!({"subscribe": ["public:x"]}), 403, "another user's"),
        (&*id, anonymous, json!({"subscribe": ["server:8"]}), 401, "no token"),
        (&*id, "Authorization: Bearer x\r\n", json!({"subscribe": ["server:8"]}), 401, "malformed"),
        (&*id, anonymous, json!({"token": foreign}), 403, "another user's"),
        (&*id, anonymous, json!({"token": "x"}), 401, "the body"),
        (&*free_id, &*header, json!({"subscribe": ["public:x"]}), 403, "another user's"),
        (&*other_secret, &*header, json!({"subscribe": ["server:8"]}), 404, "no connection"),
        ("server:7", &*header, json!({"subscribe": ["server:8"]}), 404, "no connection"),
    ] {
        let (got, answer) = patch(&edge, &format!("/events/{id}"), header, body.clone()).await;
        assert_eq!(got, status, "{body}: {answer}");
        assert!(answer.to_string().contains(sentence), "{body}: {answer}");
        assert!(!answer.to_string().contains(id) || id == "server:7", "a client id is nobody else's: {answer}");
    }
    // What the connection's edge has to say is said through another one, too.
    let (status, answer) = patch(&other, &format!("/events/{other_secret}"), "", json!({"subscribe": ["a"]})).await;
    assert_eq!(status, 404, "{answer}");
    let (status, answer) = patch(&other, &format!("/events/{id}?user=44"), "", json!({"subscribe": ["a"]})).await;
    assert_eq!(status, 403, "{answer}");

    // Who knows the id of an anonymous connection may change it.
    let (status, answer) = patch(&edge, &format!("/events/{free_id}"), "", json!({"subscribe": ["public:x"]})).await;
    assert_eq!((status, &answer["channels"]), (200, &json!(["public:news", "public:x"])), "{answer}");
    edge.publish("server:7", None, "nothing has changed").await;
    assert_eq!(subscriber.data().await, "nothing has changed");
    // Twice is as good as once.
    for _ in 0..2 {
        let (status, answer) = patch(&edge, &format!("/events/{id}"), "", json!({"token": own})).await;
        assert_eq!((status, &answer["channels"]), (200, &json!(["user:42", "broadcast", "server:7"])), "{answer}");
        assert_eq!(subscribed(&mut subscriber).await, ["user:42", "broadcast", "server:7"]);
    }
    edge.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_connection_of_an_edge_that_is_gone_gets_no_answer() {
    let backbone = Backbone::in_process(Partitions::ONE, RETENTION);
    let (edge, other) = (
        TestEdge::on(backbone.clone(), EdgeConfig::default()).await,
        TestEdge::on(backbone, EdgeConfig::default()).await,
    );
    let mut subscriber = edge.subscribe("/events/a").await;
    let id = client_id(&subscriber.expect("connected").await);
    edge.stop().await;
    let (status, answer) = patch(&other, &format!("/events/{id}"), "", json!({"subscribe": ["b"]})).await;
    assert_eq!((status, answer["code"].as_str()), (504, Some("TIMEOUT")), "{answer}");
    other.stop().await;
}

#[tokio::test]
async fn a_token_that_ends_is_announced_and_a_new_one_takes_its_place() {
    let edge = guarded().await;
    let (_, header) = token("42", &["server:*", "lab"], 3);
    let mut subscriber = Subscriber::get(edge.address, "/events?channels=server:7,lab", &header).await;
    let id = client_id(&subscriber.expect("connected").await);
    let expiring = subscriber.expect("expiring").await;
    let data: Value = serde_json::from_str(&expiring.data).expect("JSON");
    assert!((1..=3_000).contains(&data["expiresInMs"].as_u64().expect("a number")), "{data}");

    // The new one allows less, and something else.
    let (renewed, _) = token("42", &["server:*"], 3);
    let body = json!({"token": renewed, "subscribe": ["server:8"]});
    let (status, answer) = patch(&edge, &format!("/events/{id}"), "", body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(subscribed(&mut subscriber).await, ["user:42", "broadcast", "server:7", "server:8"]);
    edge.publish("lab", None, "left").await;
    edge.publish("server:8", None, "new").await;
    assert_eq!(subscriber.data().await, "new");

    // Its end is announced as well; and one that opens nothing that is followed is no renewal.
    subscriber.expect("expiring").await;
    let nothing = TokenOrder {
        user: Some(UserId::parse("42").expect("valid")),
        follow: vec![Channel::parse("elsewhere").expect("valid")],
        ttl: Duration::from_secs(60),
        ..TokenOrder::default()
    };
    let secrets = Secrets::parse(SECRET).expect("a secret");
    let nothing = nothing.mint(&secrets, SystemTime::now()).expect("mints").token;
    let unsubscribe = json!({"token": nothing, "unsubscribe": ["user:42", "broadcast"]});
    let (status, answer) = patch(&edge, &format!("/events/{id}"), "", unsubscribe).await;
    assert_eq!(status, 403, "{answer}");
    assert_eq!(subscriber.expect("closing").await.data, r#"{"reason":"token-expired"}"#);
    edge.stop().await;
}

#[tokio::test]
async fn a_renewal_counts_from_now_even_where_it_is_shorter() {
    let edge = guarded().await;
    let (_, header) = token("42", &["server:*"], 3_600);
    let mut subscriber = Subscriber::get(edge.address, "/events/server:7", &header).await;
    let id = client_id(&subscriber.expect("connected").await);
    let (short, _) = token("42", &["server:*"], 2);
    assert_eq!(patch(&edge, &format!("/events/{id}"), "", json!({"token": short})).await.0, 200);
    subscriber.expect("subscribed").await;
    subscriber.expect("expiring").await;
    assert_eq!(subscriber.expect("closing").await.data, r#"{"reason":"token-expired"}"#);
    edge.stop().await;
}
