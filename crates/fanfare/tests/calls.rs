//! Calls: a backend's answers as streams. The backend is a process of its own, a tool server in `calls/backend.py`
//! that records everything it gets; edge, publish API and Redis are the real ones.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fanfare_testkit::{FaultProxy, Message, Subscribe, Subscriber};
use serde_json::{Value, json};
use support::clients::{is_missing, tools};
use support::redis::{Redis, free_port};
use support::role::{KEY, Role, token};
use support::{Dev, PATIENCE, Process};

const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];
const HEADER_SECRET: &str = "a-secret-of-fanfare-and-the-backend";

/// An edge with calls, a publish API, the Redis between them, and the backend.
struct Stage {
    edge: Role,
    publisher: Role,
    backend: Process,
    backend_port: u16,
    redis: Redis,
    directory: tempfile::TempDir,
}

impl Stage {
    fn start() -> Option<Self> {
        Self::start_with("", "20s")
    }

    /// With further settings, and a timeout of `/sse`.
    fn start_with(settings: &str, timeout: &str) -> Option<Self> {
        let redis = Redis::start(&[])?;
        let publisher = Role::start("publish", &redis.url());
        let (backend, backend_port) = start_backend(&publisher.url());
        let directory = tempfile::tempdir().expect("a directory");
        let edge = start_edge(&directory, &redis.url(), settings, timeout, backend_port);
        Some(Self { edge, publisher, backend, backend_port, redis, directory })
    }

    fn call_at(&self, path: &str, tool: &str, input: Value) -> Subscribe {
        self.edge.subscribe(path, &token(&["--user", "42"])).post(&body(tool, input))
    }

    fn call(&self, tool: &str) -> Subscribe {
        self.call_at("/sse", tool, json!({}))
    }

    /// The next line of the backend that is about this.
    fn hears(&mut self, what: &str) -> Value {
        let line = self.backend.out.find(&format!("\"{what}\": "));
        serde_json::from_str(&line).expect("JSON")
    }
}

fn body(tool: &str, input: Value) -> Value {
    json!({ "tool": tool, "input": input, "apiVersion": "1.0.0" })
}

fn start_backend(publish: &str) -> (Process, u16) {
    let mut command = Command::new("python3");
    command.arg(script("backend.py")).env("FANFARE_PUBLISH", publish).env("FANFARE_KEY", KEY);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut backend = Process::start(&mut command);
    let listens: Value = serde_json::from_str(&backend.out.find("listens")).expect("JSON");
    (backend, listens["listens"].as_u64().and_then(|port| port.try_into().ok()).expect("a port"))
}

fn routes(timeout: &str, backend_port: u16) -> String {
    let forward = |path: &str, address: &str, timeout: &str| {
        format!(
            "[[routes]]\npath = \"{path}\"\nmethods = [\"POST\"]\nforward = \"{address}\"\ntimeout = \"{timeout}\"\n\
             forward_headers = {{ \"X-Fanfare-Secret\" = \"{HEADER_SECRET}\" }}\nheartbeat = \"event\"\n"
        )
    };
    let backend = format!("http://127.0.0.1:{backend_port}/run?from=fanfare");
    let nowhere = format!("http://127.0.0.1:{}/", free_port());
    [("/sse", &backend, timeout), ("/brief", &backend, "1s"), ("/nowhere", &nowhere, "20s")]
        .map(|(path, address, timeout)| forward(path, address, timeout))
        .concat()
}

fn start_edge(directory: &tempfile::TempDir, redis: &str, settings: &str, timeout: &str, backend_port: u16) -> Role {
    let file = directory.path().join("edge.toml");
    let routes = routes(timeout, backend_port);
    let settings = format!("heartbeat_interval = \"1s\"\n{settings}\n{routes}");
    std::fs::write(&file, settings).expect("a file");
    Role::with_file("edge", redis, &file)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/calls").join(name)
}

/// Opens a call's stream, reads it to its end, and tells what it had after `connected` that is about the call.
async fn answer(call: Subscribe) -> Vec<Message> {
    let mut stream = call.connected().await;
    rest(&mut stream).await
}

async fn rest(stream: &mut Subscriber) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(message) = stream.next_within(PATIENCE).await.expect("it goes on, or ends") {
        messages.push(message);
    }
    messages.retain(|message| !["heartbeat", "expiring"].contains(&&*message.event));
    messages
}

fn types(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| &*message.event).collect()
}

/// The error that a call ended with, which is all that it had.
async fn error(call: Subscribe) -> Value {
    let messages = answer(call).await;
    assert_eq!(types(&messages), ["error"], "{messages:?}");
    let data: Value = serde_json::from_str(&messages[0].data).expect("JSON");
    assert_eq!(data.as_object().map(|object| object.len()), Some(1), "{data}");
    data["error"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_answers_at_once_is_one_result_and_the_end() {
    let Some(mut stage) = Stage::start() else { return };
    let call = stage.call_at("/sse", "now", json!({ "text": "two\nlines" }));
    let mut stream = call.header("X-Request-Id", "of-the-caller").open().await;
    assert_eq!((stream.status(), stream.header("x-request-id")), (200, Some("of-the-caller")));
    assert_eq!(stream.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let connected = stream.expect_connected().await;
    let channel = connected["channels"][0].as_str().expect("a channel").to_owned();
    assert!(channel.starts_with("$call:") && channel.len() == "$call:".len() + 32, "{connected}");
    assert_eq!(connected["channels"].as_array().map(Vec::len), Some(1), "neither inbox nor broadcast");
    let messages = rest(&mut stream).await;
    assert_eq!(types(&messages), ["result"]);
    let result: Value = serde_json::from_str(&messages[0].data).expect("JSON");
    assert_eq!(result["result"]["content"][0]["text"], "two\nlines");
    assert!(!messages[0].data.contains('\n'), "who reads one data: line has all of it: {}", messages[0].data);

    let got = stage.hears("got");
    assert_eq!(got["path"], "/run?from=fanfare");
    assert_eq!(got["body"], body("now", json!({ "text": "two\nlines" })).to_string());
    let header = |name: &str| {
        let headers = got["headers"].as_array().expect("a list").iter();
        headers.clone().find(|pair| pair[0].as_str().is_some_and(|own| own.eq_ignore_ascii_case(name))).cloned()
    };
    assert_eq!(header("fanfare-channel").expect("where to publish")[1], *channel);
    // Two calls have nothing to do with each other.
    let mut other = stage.call("now").open().await;
    assert_ne!(other.expect_connected().await["channels"][0], *channel);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_backend_publishes_is_the_stream_until_an_event_ends_it() {
    let Some(mut stage) = Stage::start() else { return };
    let messages = answer(stage.call_at("/sse", "later", json!({ "steps": 3 }))).await;
    assert_eq!(types(&messages), ["progress", "progress", "progress", "result"]);
    assert_eq!(messages[2].data, r#"{"step": 2}"#);
    assert_eq!(stage.hears("afterwards")["afterwards"], 200, "what comes too late goes nowhere, harmlessly");

    let messages = answer(stage.call("fails")).await;
    assert_eq!(types(&messages), ["error"]);
    assert!(messages[0].data.contains("TOOL_FAILED"), "{}", messages[0].data);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missed_however_early_it_is_published_and_the_backend_may_end_its_request() {
    let Some(mut stage) = Stage::start() else { return };
    for _ in 0..20 {
        let messages = answer(stage.call("early")).await;
        assert_eq!(types(&messages), ["result"]);
        assert_eq!(stage.hears("answered")["answered"], true, "its request isn't cut off under it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_else_comes_of_it_is_an_error_and_the_end() {
    let Some(stage) = Stage::start() else { return };
    let refused = error(stage.call("refuses")).await;
    let details = json!({ "field": "title", "limit": 1.1 });
    assert_eq!(
        refused,
        json!({ "code": "INVALID_INPUT", "message": "the title is missing", "hint": "set title", "details": details }),
        "as the backend tells it"
    );
    for (path, tool, code, part) in [
        ("/sse", "breaks", "BACKEND_FAILED", "status 500"),
        ("/sse", "text", "BACKEND_FAILED", "not JSON"),
        ("/sse", "cut", "BACKEND_FAILED", "broke off"),
        ("/nowhere", "now", "BACKEND_FAILED", "can't be reached"),
        ("/brief", "never", "TIMEOUT", "within 1s"),
        ("/brief", "silent", "TIMEOUT", "within 1s"),
    ] {
        let error = error(stage.call_at(path, tool, json!({}))).await;
        assert_eq!(error["code"], code, "{tool}: {error}");
        assert!(error["message"].as_str().expect("text").contains(part), "{tool}: {error}");
        assert!(!error.to_string().contains("hunter2"), "the backend's own words are not for everybody: {error}");
    }
    let large = error(stage.call_at("/sse", "large", json!({ "bytes": 1 << 20 }))).await;
    assert!(large["message"].as_str().expect("text").contains("too large"), "{large}");
    let messages = answer(stage.call_at("/sse", "large", json!({ "bytes": (1 << 20) - 1000 }))).await;
    assert_eq!(types(&messages), ["result"], "one that fits comes, though it is far more than may wait for a reader");
    let metric = |reason: &str| stage.edge.metric(&format!("fanfare_connections_closed_total{{reason=\"{reason}\"}}"));
    assert_eq!((metric("answered"), metric("call-failed")), (1.0, 8.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_caller_leaves_the_backend_sees_it() {
    let Some(mut stage) = Stage::start() else { return };
    for reset in [false, true] {
        let mut stream = stage.call("never").header("X-Request-Id", &format!("leaves-{reset}")).connected().await;
        stage.hears("got");
        if reset {
            stream.reset()
        } else {
            stream.close()
        }
        assert_eq!(stage.hears("hung_up")["hung_up"], format!("leaves-{reset}"));
    }
    // One who left while the backend works: what it publishes then goes nowhere, harmlessly.
    let mut stream = stage.call("waits").connected().await;
    stage.hears("got");
    stream.close();
    stage.backend.write_line("go on");
    assert_eq!(stage.hears("published")["published"], 200);
    assert_eq!(types(&answer(stage.call("now")).await), ["result"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_caller_goes_to_the_backend_but_what_is_named() {
    let Some(mut stage) = Stage::start_with("[auth]\nquery_token = true", "20s") else { return };
    let token = token(&["--user", "alice@example.com"]);
    let call = Subscribe::new(stage.edge.address, &format!("/sse?auth={token}&mine=1"))
        .post(&body("now", json!({})))
        .header("Content-Type", "application/vnd.tool+json; charset=utf-8")
        .header("Idempotency-Key", "\"key-1\"")
        .header("X-Request-Id", "request-1")
        .header("Cookie", "fanfare_token=of-the-caller; session=of-the-caller")
        .header("User-Agent", "of-the-caller")
        .header("Origin", "https://of-the-caller.example")
        .header("Referer", "https://of-the-caller.example/")
        .header("X-Forwarded-For", "192.0.2.1")
        .header("Forwarded", "for=192.0.2.1")
        .header("X-Real-Ip", "192.0.2.1")
        .header("X-Fanfare-Secret", "of-the-caller")
        .header("Fanfare-User", "of-the-caller")
        .header("Fanfare-Channel", "$call:of-the-caller");
    assert_eq!(types(&answer(call).await), ["result"]);
    let got = stage.hears("got");
    let mut headers: Vec<(String, String)> = serde_json::from_value(got["headers"].clone()).expect("pairs");
    headers.iter_mut().for_each(|(name, _)| name.make_ascii_lowercase());
    headers.sort();
    let channel = headers.iter().position(|(name, _)| name == "fanfare-channel").expect("it is told where");
    assert!(headers.remove(channel).1.starts_with("$call:") && !got.to_string().contains("of-the-caller"), "{got}");
    let length = body("now", json!({})).to_string().len().to_string();
    let host = format!("127.0.0.1:{}", stage.backend_port);
    let expected = [
        ("content-length", &*length),
        ("content-type", "application/vnd.tool+json; charset=utf-8"),
        ("fanfare-user", "alice@example.com"),
        ("host", &host),
        ("idempotency-key", "\"key-1\""),
        ("x-fanfare-secret", HEADER_SECRET),
        ("x-request-id", "request-1"),
    ];
    let expected: Vec<_> = expected.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    assert_eq!(headers, expected);
    assert!(!got.to_string().contains(&token) && !got.to_string().contains("mine"), "{got}");

    // And nothing of it in the log, at whatever level.
    stage.edge.process.signal("TERM");
    while let Some(line) = stage.edge.process.err.next() {
        for secret in [HEADER_SECRET, &*token, "$call:", "alice"] {
            assert!(!line.contains(secret), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_call_is_refused_before_any_stream() {
    let settings = "max_connections_per_user = 2\nanonymous_channels = \"*,$call:*\"\n\
                    [cors]\norigins = \"https://app.example.com\"";
    let Some(mut stage) = Stage::start_with(settings, "20s") else { return };
    let token = token(&["--user", "42"]);
    let post = |headers: &[(&str, &str)]| {
        let call = Subscribe::new(stage.edge.address, "/sse").post(&body("now", json!({})));
        headers.iter().fold(call, |call, (name, value)| call.header(name, value))
    };
    let cookie = ("Cookie", &*format!("fanfare_token={token}"));
    let bearer = ("Authorization", &*format!("Bearer {token}"));
    let (app, evil) = (("Origin", "https://app.example.com"), ("Origin", "https://evil.example.com"));
    let large = "x".repeat(1 << 20);
    for (call, status, part) in [
        (post(&[]), 401, "no token"),
        (post(&[("Authorization", "Bearer nonsense")]), 401, "Authorization header"),
        (post(&[cookie]), 403, "allowed origin"),
        (post(&[cookie, evil]), 403, "allowed origin"),
        (post(&[cookie, ("Origin", "null")]), 403, "allowed origin"),
        (post(&[bearer]).post(&body("now", json!({ "text": large }))), 413, "1048576"),
        (Subscribe::new(stage.edge.address, "/sse").header(bearer.0, bearer.1), 405, "POST"),
        (post(&[bearer, ("Content-Encoding", "gzip")]), 415, "compressed"),
    ] {
        let mut refused = call.open().await;
        let body = refused.body().await;
        assert!(refused.status() == status && body.contains(part), "{status} {part}: {} {body}", refused.status());
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    }
    for call in [post(&[cookie, app]), post(&[bearer, evil]), post(&[bearer])] {
        let mut stream = call.open().await;
        assert_eq!(stream.status(), 200);
        let allowed = stream.header("access-control-allow-origin").map(str::to_owned);
        assert!(allowed.is_none_or(|origin| origin == "https://app.example.com"));
        stream.expect_connected().await;
        assert_eq!(types(&rest(&mut stream).await), ["result"]);
    }

    // Limits hold for calls, too; and nobody is told with a stream that lasts.
    let held = [stage.call("silent").connected().await, stage.call("silent").connected().await];
    let mut refused = stage.call("now").header("Accept", "text/event-stream").open().await;
    assert_eq!((refused.status(), refused.header("retry-after").is_some()), (429, true), "{}", refused.body().await);
    drop(held);
    for tool in ["now", "now", "now", "silent", "silent"] {
        assert_eq!(stage.hears("got")["got"], tool, "of what is refused the backend hears nothing");
    }
    // Nobody listens to a call but its caller.
    let mut listener = stage.edge.subscribe("/events/$call:0123", &token).open().await;
    assert!(listener.status() == 403 && listener.body().await.contains("Fanfare's own"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_goes_away_and_a_token_that_ends_are_told_as_errors() {
    let Some(mut stage) = Stage::start() else { return };
    let brief = token(&["--user", "42", "--ttl", "2s"]);
    let expired = error(stage.edge.subscribe("/sse", &brief).post(&body("never", json!({})))).await;
    assert_eq!(
        (&expired["code"], &expired["message"]),
        (&json!("AUTHENTICATION_FAILED"), &json!("the token has expired"))
    );
    stage.hears("hung_up");

    let mut stream = stage.call("never").connected().await;
    stage.hears("got");
    stage.edge.process.signal("TERM");
    let messages = rest(&mut stream).await;
    assert_eq!(types(&messages), ["error"], "{messages:?}");
    let data: Value = serde_json::from_str(&messages[0].data).expect("JSON");
    assert_eq!(data["error"]["code"], "OVERLOADED", "{data}");
    assert!(data["error"]["hint"].as_str().expect("a hint").contains("Idempotency-Key"), "{data}");
    stage.hears("hung_up");
    assert_eq!(stage.edge.process.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_outlives_its_token_where_that_is_renewed_and_ends_where_its_user_is_disconnected() {
    let Some(mut stage) = Stage::start() else { return };
    let begin = Instant::now();
    let brief = token(&["--user", "42", "--ttl", "3s"]);
    let mut stream = stage.edge.subscribe("/sse", &brief).post(&body("waits", json!({}))).open().await;
    let client = stream.expect_connected().await["clientId"].as_str().expect("a client id").to_owned();
    let lasting = token(&["--user", "42"]);
    let mut patch = stage.edge.publisher(&brief);
    let renewed =
        patch.request("PATCH", &format!("/events/{client}"), &JSON, json!({ "token": lasting }).to_string()).await;
    assert_eq!(renewed.status, 200, "{}", renewed.text());
    while begin.elapsed() < Duration::from_secs(5) {
        stream.next().await; // A heartbeat: the first token ends meanwhile.
    }
    stage.backend.write_line("go on");
    let messages = rest(&mut stream).await;
    assert_eq!(types(&messages).last(), Some(&"result"), "{messages:?}");

    let mut stream = stage.call_at("/sse", "never", json!({})).connected().await;
    let mut backend = stage.publisher.publisher(KEY);
    let closed = backend.request("DELETE", "/users/42/connections", &JSON, r#"{"blockSeconds":60}"#).await;
    assert_eq!(closed.status, 200, "{}", closed.text());
    let messages = rest(&mut stream).await;
    assert!(types(&messages) == ["error"] && messages[0].data.contains("AUTHENTICATION_FAILED"), "{messages:?}");
    stage.hears("hung_up");
    let mut refused = stage.edge.subscribe("/sse", &lasting).post(&body("now", json!({}))).open().await;
    let told = refused.body().await;
    assert!(refused.status() == 401 && told.contains("disconnected"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_loses_redis_in_the_middle_of_a_call_hears_the_result_when_it_is_back() {
    let Some(mut stage) = Stage::start() else { return };
    // An edge that reaches Redis through a proxy; the backend and the publish API go on as if nothing were.
    let proxy = FaultProxy::to(([127, 0, 0, 1], stage.redis.port).into()).await;
    let url = format!("redis://{}", proxy.address());
    let whole = std::mem::replace(&mut stage.edge, start_edge(&stage.directory, &url, "", "20s", stage.backend_port));
    let mut stream = stage.call("waits").connected().await;
    stage.hears("got");
    proxy.set(fanfare_testkit::Fault::BlackHole);
    proxy.reset_all();
    stage.backend.write_line("go on");
    assert_eq!(stage.hears("published")["published"], 200);
    // The other edge never noticed.
    let token = token(&["--user", "42"]);
    assert_eq!(
        types(&answer(whole.subscribe("/sse", &token).post(&body("later", json!({})))).await).last(),
        Some(&"result")
    );
    proxy.set(fanfare_testkit::Fault::None);
    let messages = rest(&mut stream).await;
    assert_eq!(types(&messages), ["result"], "{messages:?}");
}

/// So many calls at once, each with events of its own: nothing is lost and nothing is mixed up.
#[tokio::test(flavor = "multi_thread")]
async fn many_calls_at_once_are_kept_apart() {
    let count = if std::env::var_os("FANFARE_FULL").is_some() { 1_000 } else { 100 };
    let Some(stage) = Stage::start_with("max_connections_per_user = 2000", "5m") else { return };
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..count {
        let call = stage.call_at("/sse", "later", json!({ "steps": 2 }));
        calls.spawn(async move { answer(call).await });
    }
    while let Some(messages) = calls.join_next().await {
        let messages = messages.expect("no call panics");
        assert_eq!(types(&messages), ["progress", "progress", "result"]);
        let channel = messages[0].id.rsplit('@').next().unwrap_or_default().to_owned();
        assert!(channel.starts_with("$call:") && messages.iter().all(|message| message.id.ends_with(&channel)));
    }
    assert_eq!(stage.edge.metric("fanfare_connections_closed_total{reason=\"answered\"}"), f64::from(count));
    assert!(stage.publisher.metric("fanfare_events_published_total") >= f64::from(count * 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_clients_of_a_tool_server_do_not_notice_that_fanfare_stands_before_it() {
    let Some(stage) = Stage::start_with("", "3s") else { return };
    let token = token(&["--user", "user-123"]);
    let python = tools().join("venv/bin/python");
    for (program, name) in [(Path::new("node"), "fetch.mjs"), (&*python, "client.py")] {
        if name == "client.py" && is_missing("Python with requests", &python) {
            continue;
        }
        let mut command = Command::new(program);
        command.arg(script(name)).env("FANFARE_EDGE", stage.edge.url()).env("FANFARE_USER_TOKEN", &token);
        assert!(command.status().expect("it runs").success(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_work_in_dev_too() {
    let publish = format!("http://127.0.0.1:{}", free_port());
    let (_backend, backend_port) = start_backend(&publish);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("dev.toml");
    std::fs::write(&file, routes("20s", backend_port)).expect("a file");
    let listen = publish.trim_start_matches("http://");
    let dev = Dev::start_at(listen, &["--config", file.to_str().expect("UTF-8")], &[]);
    let call = |tool: &str| Subscribe::new(dev.address, "/sse?user=42").post(&body(tool, json!({})));
    assert_eq!(types(&answer(call("now")).await), ["result"]);
    assert_eq!(types(&answer(call("later")).await), ["progress", "progress", "result"]);
    let mut refused = call("now").header("Origin", "https://evil.example.com").open().await;
    assert_eq!(refused.status(), 403, "{}", refused.body().await);
}

/// Longer than a heartbeat's interval, so that one comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_takes_long_is_kept_alive() {
    let Some(stage) = Stage::start() else { return };
    let mut stream = stage.call("silent").connected().await;
    for _ in 0..2 {
        let beat = stream.next_within(Duration::from_secs(10)).await.expect("it comes").expect("an event");
        assert_eq!(beat.event, "heartbeat");
    }
}
