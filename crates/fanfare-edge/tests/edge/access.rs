//! Who may open a stream, to which channels, and until when.

use std::time::{Duration, SystemTime};

use fanfare_auth::{AuthConfig, Patterns, Secrets, TokenOrder};
use fanfare_backbone::Backbone;
use fanfare_edge::EdgeConfig;
use fanfare_protocol::{Channel, Partitions, Pattern, UserId};

use crate::support::{RETENTION, Subscriber, TestEdge};

const SECRET: &str = "a secret of thirty-two characters";

pub(crate) async fn guarded() -> TestEdge {
    let config = AuthConfig {
        secret: Some(Secrets::parse(SECRET).expect("a secret")),
        anonymous_channels: Patterns::parse("public:*").expect("patterns"),
        ..AuthConfig::default()
    };
    let access = config.edge_access().expect("there is a secret");
    let config = EdgeConfig { heartbeat_interval: Duration::from_millis(200), ..EdgeConfig::default() };
    TestEdge::guarded(Backbone::in_process(Partitions::ONE, RETENTION), config, access).await
}

pub(crate) fn token(user: &str, channels: &[&str], ttl: Duration) -> String {
    let order = TokenOrder {
        user: Some(UserId::parse(user).expect("valid")),
        channels: channels.iter().map(|pattern| Pattern::parse(pattern).expect("valid")).collect(),
        follow: vec![Channel::parse("news").expect("valid")],
        ttl,
    };
    order.mint(&Secrets::parse(SECRET).expect("a secret"), SystemTime::now()).expect("mints").token
}

#[tokio::test]
async fn a_token_opens_its_users_inbox_the_broadcast_and_what_it_names() {
    let edge = guarded().await;
    let token = token("42", &["server:*"], Duration::from_secs(60));
    for header in [format!("Authorization: Bearer {token}\r\n"), format!("Cookie: a=b; fanfare_token={token}\r\n")] {
        let mut subscriber = Subscriber::get(edge.address, "/events?channel=server:7", &header).await;
        let connected = subscriber.expect("connected").await;
        assert!(connected.data.contains(r#"["user:42","broadcast","news","server:7"]"#), "{}", connected.data);
        let refused = Subscriber::get(edge.address, "/events?channel=stock-prices", &header).await;
        assert!(refused.head.starts_with("HTTP/1.1 403"), "{}", refused.head);
        let other_inbox = Subscriber::get(edge.address, "/events/user:43", &header).await;
        assert!(other_inbox.head.starts_with("HTTP/1.1 403"), "{}", other_inbox.head);
    }
    edge.stop().await;
}

#[tokio::test]
async fn without_a_good_token_only_what_is_open_to_all_is_open() {
    let edge = guarded().await;
    edge.subscribe("/events/public:news").await.expect("connected").await;
    for (target, header) in [
        ("/events/server:7", String::new()),
        ("/events/public:news", "Authorization: Bearer nonsense\r\n".to_owned()),
        ("/events/server:7?user=42", String::new()),
        ("/events/server:7?token=abc", String::new()),
    ] {
        let refused = Subscriber::get(edge.address, target, &header).await;
        assert!(refused.head.starts_with("HTTP/1.1 401"), "{target}: {}", refused.head);
        assert!(refused.head.contains("www-authenticate: "), "{}", refused.head);
    }
    edge.stop().await;
}

#[tokio::test]
async fn who_would_follow_nothing_is_told_so() {
    let edge = guarded().await;
    let mut nothing = edge.subscribe("/events").await;
    assert!(nothing.head.starts_with("HTTP/1.1 400"), "{}", nothing.head);
    let problem = nothing.text_until("}").await;
    assert!(problem.contains("there is nothing to follow") && problem.contains("/events?channel="), "{problem}");
    edge.subscribe("/events?channel=public:news").await.expect("connected").await;
    edge.stop().await;
}

#[tokio::test]
async fn a_cursor_grants_nothing() {
    let edge = guarded().await;
    let header = format!("Authorization: Bearer {}\r\n", token("42", &["a"], Duration::from_secs(60)));
    let cursor = "/events/a?last_event_id=abcdef12-5;%2Bsecret";
    let refused = Subscriber::get(edge.address, cursor, &header).await;
    assert!(refused.head.starts_with("HTTP/1.1 403"), "{}", refused.head);
    edge.stop().await;
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let edge = guarded().await;
    let header = format!("Authorization: Bearer {}\r\n", token("42", &["c"], Duration::from_secs(2)));
    let mut subscriber = Subscriber::get(edge.address, "/events/c", &header).await;
    subscriber.expect("connected").await;
    edge.publish("c", None, "while it is good").await;
    assert_eq!(subscriber.data().await, "while it is good");
    subscriber.expect("expiring").await;
    assert_eq!(subscriber.expect("closing").await.data, r#"{"reason":"token-expired"}"#);
    assert!(subscriber.next().await.is_none());
    edge.stop().await;
}

#[tokio::test]
async fn a_poll_is_answered_when_its_token_ends_and_loses_nothing() {
    let edge = guarded().await;
    let poll = |token: &str, cursor: &str| {
        let target = format!("/poll?channel=c&last_event_id={cursor}");
        format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n")
    };
    let (brief, long) = (token("42", &["c"], Duration::from_secs(2)), token("42", &["c"], Duration::from_secs(60)));
    let mut cursor = edge.publish("c", None, "first").await.to_string();
    let mut polls = 0;
    loop {
        let mut answer = Subscriber::request(edge.address, &poll(&brief, &cursor)).await;
        let body: serde_json::Value = serde_json::from_str(&answer.text().await).expect("JSON");
        if answer.head.starts_with("HTTP/1.1 401") {
            break;
        }
        assert!(answer.head.starts_with("HTTP/1.1 200") && body["events"] == serde_json::json!([]), "{body}");
        cursor = body["cursor"].as_str().expect("a cursor").to_owned();
        polls += 1;
    }
    assert!(polls <= 2, "it waits until its token ends, or a little less: {polls} polls");
    edge.publish("c", None, "second").await;
    let mut answer = Subscriber::request(edge.address, &poll(&long, &cursor)).await;
    assert!(answer.text().await.contains(r#""data":"second""#));
    edge.stop().await;
}
