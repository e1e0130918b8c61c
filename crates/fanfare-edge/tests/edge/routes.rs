//! Paths of an application's own: exactly the channels that they name, with the credentials and checks of `/events`.

use std::time::Duration;

use fanfare_auth::{AuthConfig, Patterns, Secrets, TokenOrder};
use fanfare_backbone::Backbone;
use fanfare_edge::{EdgeConfig, HeartbeatConfig, RouteConfig, Routes};
use fanfare_protocol::{Partitions, Pattern, UserId};

use crate::support::{RETENTION, Subscriber, TestEdge};

const SECRET: &str = "a secret of thirty-two characters";

fn route(path: &str, channels: &[&str]) -> RouteConfig {
    let channels = channels.iter().map(|&channel| channel.to_owned()).collect();
    RouteConfig { path: path.to_owned(), channels, ..RouteConfig::default() }
}

fn config(routes: &[RouteConfig]) -> EdgeConfig {
    let routes = Routes::new(routes).expect("no mistakes");
    EdgeConfig { routes, heartbeat_interval: Duration::from_millis(200), ..EdgeConfig::default() }
}

async fn edge(routes: &[RouteConfig]) -> TestEdge {
    TestEdge::with(1, config(routes)).await
}

#[tokio::test]
async fn a_route_gives_what_it_names_and_neither_inbox_nor_broadcast() {
    let edge = edge(&[route("/api/servers/{id}/events", &["server:{id}", "servers"])]).await;
    let mut subscriber = edge.subscribe("/api/servers/a%3Ab/events?user=42&channel=other").await;
    let connected = subscriber.expect("connected").await.data;
    assert!(connected.contains(r#""userId":"42","channels":["server:a:b","servers"],"#), "{connected}");
    edge.publish("server:a:b", Some("server:online"), "{}").await;
    assert_eq!(subscriber.expect("server:online").await.data, "{}");
    edge.stop().await;
}

#[tokio::test]
async fn a_fresh_connection_is_replayed_and_one_with_a_cursor_resumes() {
    let replaying = RouteConfig { replay: Some(2), ..route("/live/{id}", &["server:{id}"]) };
    let edge = edge(&[replaying]).await;
    for data in ["one", "two", "three"] {
        edge.publish("server:7", None, data).await;
    }
    let mut fresh = edge.subscribe("/live/7").await;
    fresh.expect("connected").await;
    assert_eq!((fresh.data().await, fresh.data().await), ("two".to_owned(), "three".to_owned()));
    let id = fresh.reset();
    edge.publish("server:7", None, "four").await;
    let mut back = Subscriber::get(edge.address, "/live/7", &format!("Last-Event-ID: {id}\r\n")).await;
    assert!(back.expect("connected").await.data.contains(r#""resumed":true"#));
    assert_eq!(back.data().await, "four");
    // What stands in the query is what this client wants.
    let mut asking = edge.subscribe("/live/7?replay=1").await;
    asking.expect("connected").await;
    assert_eq!(asking.data().await, "four");
    edge.stop().await;
}

#[tokio::test]
async fn a_second_question_mark_in_the_query_is_an_ampersand() {
    let edge = edge(&[route("/api/servers/{id}/events", &["server:{id}"])]).await;
    let mut subscriber = edge.subscribe("/api/servers/7/events?types=server:*,metrics:*?auth=token?replay=1").await;
    subscriber.expect("connected").await;
    edge.publish("server:7", Some("logs:app"), "filtered").await;
    edge.publish("server:7", Some("metrics:cpu"), "heard").await;
    assert_eq!(subscriber.expect("metrics:cpu").await.data, "heard");
    edge.stop().await;
}

#[tokio::test]
async fn the_body_of_a_foreign_post_is_ignored_whatever_it_is_but_not_for_ever() {
    let both = RouteConfig { methods: vec!["GET".to_owned(), "POST".to_owned()], ..route("/sse", &["results"]) };
    let edge = edge(&[both, route("/only-get", &["a"])]).await;
    let post = |path: &str, content_type: &str, body: &str| {
        let length = body.len();
        format!("POST {path} HTTP/1.1\r\nHost: t\r\n{content_type}Content-Length: {length}\r\n\r\n{body}")
    };
    for (content_type, body) in [
        ("Content-Type: application/json\r\n", r#"{"tool":"change.open","channels":["other"]}"#),
        ("Content-Type: application/json\r\n", "{"),
        ("Content-Type: text/plain\r\n", "anything"),
        ("Content-Type: application/octet-stream\r\nContent-Encoding: gzip\r\n", "\u{1}\u{2}"),
        ("", ""),
    ] {
        let mut subscriber = Subscriber::request(edge.address, &post("/sse", content_type, body)).await;
        let connected = subscriber.expect("connected").await.data;
        assert!(connected.contains(r#""channels":["results"]"#), "{connected}");
    }
    let long = post("/sse", "", &"x".repeat(70_000));
    let refused = Subscriber::request(edge.address, &long).await;
    assert!(refused.head.starts_with("HTTP/1.1 413 "), "{}", refused.head);
    let refused = Subscriber::request(edge.address, &post("/only-get", "", "")).await;
    assert!(refused.head.starts_with("HTTP/1.1 405 "), "{}", refused.head);
    assert!(refused.head.contains("allow: GET, HEAD, OPTIONS"), "{}", refused.head);
    edge.stop().await;
}

#[tokio::test]
async fn an_applications_own_heartbeat_is_sent_as_it_is() {
    let own = |event: &str, data: &str| HeartbeatConfig::Own { event: event.to_owned(), data: data.to_owned() };
    let ping = r#"{"trigger":"ping"}"#;
    let edge = edge(&[
        RouteConfig { heartbeat: own("message", ping), ..route("/live/campaigns", &["campaigns"]) },
        RouteConfig { heartbeat: own("ping", "still\nhere"), unnamed: true, ..route("/unnamed", &["a"]) },
        RouteConfig { heartbeat: own("ping", "1"), ..route("/named", &["a"]) },
        RouteConfig { heartbeat: HeartbeatConfig::Event, ..route("/own", &["a"]) },
    ])
    .await;
    let mut campaigns = edge.subscribe("/live/campaigns").await;
    let text = campaigns.text_until("trigger").await;
    let beat = text.rsplit("\n\n").next().unwrap_or_default();
    assert!(!beat.contains("event:"), "a browser hears it as a message: {beat}");
    campaigns.expect("connected").await;
    assert_eq!(campaigns.expect("message").await.data, ping);
    assert_eq!(campaigns.expect("message").await.data, ping, "every interval");
    for (path, event, data) in [
        ("/unnamed", "message", "still\nhere"),
        ("/named", "ping", "1"),
        ("/named?heartbeat=event", "heartbeat", "time"),
    ] {
        let mut subscriber = edge.subscribe(path).await;
        subscriber.next().await.expect("connected");
        let beat = subscriber.expect(event).await;
        assert!(beat.data == data || beat.data.contains(data), "{path}: {beat:?}");
        // What is heard comes from where the connection is: it resumes from a heartbeat, too.
        assert!(!subscriber.last_id().is_empty());
    }
    let mut own = edge.subscribe("/own").await;
    own.expect("connected").await;
    assert!(own.expect("heartbeat").await.data.contains("timestamp"));
    edge.stop().await;
}

#[tokio::test]
async fn a_token_must_open_what_a_path_names() {
    let auth = AuthConfig {
        secret: Some(Secrets::parse(SECRET).expect("a secret")),
        query_token: true,
        anonymous_channels: Patterns::parse("public:*").expect("patterns"),
        ..AuthConfig::default()
    };
    let routes = [
        route("/api/servers/{id}/events", &["server:{id}"]),
        route("/api/{any}/live", &["{any}"]),
        route("/two/{id}", &["server:{id}", "secret"]),
    ];
    let backbone = Backbone::in_process(Partitions::ONE, RETENTION);
    let edge = TestEdge::guarded(backbone, config(&routes), auth.edge_access().expect("a secret")).await;
    let order = TokenOrder {
        user: Some(UserId::parse("42").expect("valid")),
        channels: vec![Pattern::parse("server:*").expect("valid")],
        follow: Vec::new(),
        ttl: Duration::from_secs(60),
    };
    let token =
        order.mint(&Secrets::parse(SECRET).expect("a secret"), std::time::SystemTime::now()).expect("mints").token;
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let cookie = format!("Cookie: fanfare_token={token}\r\n");
    for (target, headers) in [
        ("/api/servers/7/events".to_owned(), &*bearer),
        ("/api/servers/7/events".to_owned(), &cookie),
        (format!("/api/servers/7/events?types=a:*?auth={token}"), ""),
        ("/api/public:news/live".to_owned(), ""),
        ("/api/user:42/live".to_owned(), &bearer),
    ] {
        let mut subscriber = Subscriber::get(edge.address, &target, headers).await;
        assert!(subscriber.head.starts_with("HTTP/1.1 200"), "{target}: {}", subscriber.head);
        subscriber.expect("connected").await;
    }
    for (target, headers, status) in [
        ("/api/servers/7/events", "", 401),
        ("/api/servers/7/events?auth=nonsense", "", 401),
        ("/api/user:43/live", &*bearer, 403),
        ("/api/$call:0123/live", &bearer, 403),
        ("/two/7", &bearer, 403),
        ("/api/a%20b/live", &bearer, 400),
        ("/api/../live", &bearer, 400),
        ("/api/servers/7/events?replay=lots", &bearer, 400),
        ("/api/servers/7", &bearer, 404),
    ] {
        let refused = Subscriber::get(edge.address, target, headers).await;
        assert!(refused.head.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {}", refused.head);
    }
    edge.stop().await;
}
