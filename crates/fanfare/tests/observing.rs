//! What operators see of the roles: metrics by the names that dashboards lean on, and a log line for each connection.

mod support;

use std::process::{Command, Stdio};

use fanfare_testkit::Publisher;
use serde_json::Value;
use support::redis::Redis;
use support::role::{KEY, Role, token};
use support::{Dev, Process};

/// Metrics of an edge, with their labels.
const EDGE: [(&str, Option<&str>); 16] = [
    ("fanfare_build_info", Some("version")),
    ("fanfare_connections", None),
    ("fanfare_connections_limit", None),
    ("fanfare_connections_opened_total", None),
    ("fanfare_connections_closed_total", Some("reason")),
    ("fanfare_connections_refused_total", Some("reason")),
    ("fanfare_events_received_total", None),
    ("fanfare_deliveries_total", None),
    ("fanfare_events_dropped_total", Some("reason")),
    ("fanfare_delivery_seconds_count", None),
    ("fanfare_replayed_events_total", None),
    ("fanfare_gaps_total", Some("reason")),
    ("fanfare_backlog_bytes", None),
    ("fanfare_backbone_up", Some("partition")),
    ("fanfare_backbone_resyncs_total", None),
    ("fanfare_subscriptions", Some("state")),
];

/// Metrics of a publish API.
const PUBLISH: [(&str, Option<&str>); 4] = [
    ("fanfare_build_info", Some("version")),
    ("fanfare_publish_requests_total", Some("code")),
    ("fanfare_publish_seconds_count", None),
    ("fanfare_events_published_total", None),
];

/// Each is there before anything has happened, so that its first increase is seen.
async fn has(address: std::net::SocketAddr, metrics: &[(&str, Option<&str>)]) {
    let page = Publisher::new(address).get("/metrics").await.text();
    for (name, label) in metrics {
        let beginning = match label {
            Some(label) => format!("{name}{{{label}=\""),
            None => format!("{name} "),
        };
        assert!(page.lines().any(|line| line.starts_with(&beginning)), "no {beginning} in\n{page}");
    }
}

#[tokio::test]
async fn every_metric_that_dashboards_lean_on_is_there_from_the_start_on_the_role_that_it_belongs_to() {
    let dev = Dev::start(&[]);
    has(dev.address, &EDGE).await;
    has(dev.address, &PUBLISH).await;
    let Some(redis) = Redis::start(&[]) else { return };
    let (edge, publisher) = (Role::start("edge", &redis.url()), Role::start("publish", &redis.url()));
    has(edge.admin, &EDGE).await;
    has(publisher.admin, &PUBLISH).await;
}

#[test]
fn log_lines_are_text_on_a_terminal_and_json_elsewhere() {
    let mut elsewhere = Dev::start(&[]).process;
    elsewhere.signal("TERM");
    let line = elsewhere.err.find("draining");
    assert!(serde_json::from_str::<Value>(&line).is_ok(), "{line}");

    // `script` runs a command on a terminal of its own.
    let command = format!("{} dev --listen 127.0.0.1:0", env!("CARGO_BIN_EXE_fanfare"));
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &command, "/dev/null"]);
    script.env_remove("FANFARE_FULL"); // It is no setting of the service.
    let mut terminal = Process::start(script.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let line = terminal.out.find("listening");
    assert!(!line.contains('{') && line.contains("INFO"), "{line}");
    terminal.signal("TERM");
}

#[tokio::test]
async fn a_connection_leaves_one_line_in_the_log_that_names_its_request_and_nobody() {
    let Some(redis) = Redis::start(&[]) else { return };
    let (mut edge, publisher) = (Role::start("edge", &redis.url()), Role::start("publish", &redis.url()));
    let token = token(&["--user", "somebody", "--channel", "server:*"]);
    let subscribe = edge.subscribe("/events?channel=server:7", &token).header("X-Request-Id", "from-the-proxy");
    let mut client = subscribe.open().await;
    let client_id = client.expect_connected().await["clientId"].as_str().expect("an id").to_owned();
    publisher.publisher(KEY).publish("server:7", "confidential").await.id();
    assert_eq!(client.next_data().await, "confidential");
    client.reset();

    let line = edge.process.err.find("a connection ended");
    let log: Value = serde_json::from_str(&line).expect("a JSON log line");
    assert_eq!((log["level"].as_str(), log["target"].as_str()), (Some("INFO"), Some("fanfare::access")), "{line}");
    assert_eq!((log["reason"].as_str(), log["request_id"].as_str()), (Some("client-left"), Some("from-the-proxy")));
    assert!(log["events"] == 1 && log["bytes"].as_u64() > Some(100), "{line}");
    assert!(log["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{line}");
    for secret in [&*token, &*client_id, "somebody", "server:7", "confidential"] {
        assert!(!line.contains(secret), "{secret} in {line}");
    }
}
