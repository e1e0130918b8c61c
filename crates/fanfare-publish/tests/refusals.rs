//! What can't be published is refused with its code and a sentence, and nothing of it is published.

mod kit;

use kit::TestApi;

#[tokio::test]
async fn mistakes_in_a_body_are_named() {
    let api = TestApi::start().await;
    let long = "x".repeat(201);
    for (path, body, detail) in [
        ("/notify", "", "the body is empty"),
        ("/notify", "userId=42", "the body is not JSON: expected value at line 1 column 1"),
        ("/notify", "{\"userId\":\"42\",\n\"message\":}", "the body is not JSON: expected value at line 2 column 11"),
        ("/notify", r#"{"userId":"42","message":"hi","mesage":1}"#, "unknown field `mesage`"),
        ("/notify", r#"{"userId":"42"}"#, "missing field `message`"),
        ("/notify", r#"{"message":"hi"}"#, "missing field `userId`"),
        ("/notify", r#"{"userId":"42","userId":"43","message":"hi"}"#, "duplicate field `userId`"),
        ("/notify", r#"{"userId":4.2,"message":"hi"}"#, "expected a string or a whole number"),
        ("/notify", r#"{"userId":["1",true],"message":"hi"}"#, "expected a string or a whole number"),
        ("/notify", r#"{"userId":null,"message":"hi"}"#, "invalid type: null"),
        ("/notify", r#"{"userId":"","message":"hi"}"#, "userId: a user id can't be empty"),
        ("/notify", r#"{"userId":["1","a\nb"],"message":"hi"}"#, "userId[1]: a user id has no control characters"),
        ("/notify", r#"{"userId":[],"message":"hi"}"#, "userId: the array is empty"),
        (
            "/notify",
            r#"{"userId":"42","message":"hi","event":"connected"}"#,
            "event: \"connected\" is one of Fanfare's own",
        ),
        ("/notify", r#"[{"userId":"42","message":"hi"}]"#, "it should be an object, not an array"),
        ("/notify", r#"["42","hi",null,null,null,null]"#, "it should be an object, not an array"),
        ("/publish", r#"[["a",1,null,null,null,null]]"#, "entry 0: it should be an object, not an array"),
        ("/broadcast", r#"{"message":"hi","userId":"42"}"#, "unknown field `userId`"),
        ("/broadcast", "42", "expected an object such as {\"message\":\"hi\"}"),
        ("/publish", r#"{"channel":"server:7"}"#, "missing field `data`"),
        ("/publish", r#"{"data":1}"#, "missing field `channel`"),
        ("/publish", r#"{"channel":7,"data":1}"#, "invalid type: integer `7`, expected a string"),
        ("/publish", r#"{"channel":"","data":1}"#, "channel: a channel's name can't be empty"),
        ("/publish", r#"{"channel":["a","b c"],"data":1}"#, "channel[1]: a channel's name is made of"),
        ("/publish", r#"{"channel":[],"data":1}"#, "channel: the array is empty"),
        ("/publish", r#"{"channel":"prices:*","data":1}"#, "not '*'"),
        ("/publish", r#"{"channel":"user:alice/x","data":1}"#, "user:alice%2Fx"),
        ("/publish", r#"{"channel":"a","data":"\ud800"}"#, "data: "),
        ("/publish", r#"{"channel":"a","data":1,"event":""}"#, "event: it has 1 to 100 bytes"),
        ("/publish", r#"{"channel":"a","data":1,"event":"heartbeat"}"#, "event: "),
        ("/publish", r#"{"channel":"a","data":1,"event":"a\nb"}"#, "event: it has no control characters"),
        ("/publish", r#"{"channel":"a","data":1,"key":"\t"}"#, "key: "),
        ("/publish", r#"{"channel":"a","data":1,"ttl":0}"#, "ttl: it is 1 to 31536000 seconds, not 0"),
        ("/publish", r#"{"channel":"a","data":1,"ttl":31536001}"#, "ttl: "),
        ("/publish", r#"{"channel":"a","data":1,"ttl":-1}"#, "ttl: it is 1 to"),
        ("/publish", r#"{"channel":"a","data":1,"ttl":"5m"}"#, "expected f64"),
        ("/publish", r#"{"channel":"a","data":1,"idempotencyKey":""}"#, "idempotencyKey: a key has 1 to 255 bytes"),
        ("/publish", "[]", "the array is empty"),
        ("/publish", r#"{"channel":"a","data":01}"#, "the body is not JSON"),
        ("/publish", r#"{"channel":"a","data":nan}"#, "the body is not JSON"),
        ("/publish", &format!(r#"{{"channel":"{long}","data":1}}"#), "at most 200 bytes, this one has 201"),
    ] {
        api.post(path, body).await.is_problem(400, "INVALID_INPUT", detail);
    }
    let channels = format!(r#"{{"channel":[{}"a"],"data":1}}"#, r#""a","#.repeat(1000));
    api.post("/publish", &channels).await.is_problem(400, "INVALID_INPUT", "channel: the array may have 1000 values");
    let users = format!(r#"{{"userId":[{}1],"message":1}}"#, "1,".repeat(1000));
    api.post("/notify", &users).await.is_problem(400, "INVALID_INPUT", "userId: the array may have 1000 values");
    for channel in ["a", "broadcast", "user:1", "user:42"] {
        assert!(api.events(channel).await.is_empty(), "{channel}");
    }
}

#[tokio::test]
async fn a_type_and_a_key_have_1_to_100_bytes_and_fanfares_own_types_are_its_own() {
    let api = TestApi::start().await;
    let publish = async |field: &str, value: &str| {
        let body = serde_json::json!({ "channel": "a", "data": 1, field: value });
        api.post("/publish", &body.to_string()).await
    };
    let (longest, longer) = ("é".repeat(50), "x".repeat(101));
    for field in ["event", "key"] {
        for value in ["x", "metrics: cpu", &longest] {
            publish(field, value).await.id();
        }
        for value in ["", &longer, "a\nb", "\u{7f}"] {
            publish(field, value).await.is_problem(400, "INVALID_INPUT", field);
        }
    }
    for own in ["connected", "subscribed", "gap", "closing", "expiring", "heartbeat"] {
        publish("event", own).await.is_problem(400, "INVALID_INPUT", "is one of Fanfare's own event types");
        publish("key", own).await.id();
    }
    publish("event", "error").await.id();
}

#[tokio::test]
async fn a_body_that_is_not_utf_8_is_refused() {
    let api = TestApi::start().await;
    let mut client = api.connect().await;
    client
        .send(b"POST /publish HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n")
        .await;
    client.send(b"{\"channel\":\"a\",\"data\":\"\xff\xfe x\"}").await;
    client.answer().await.is_problem(400, "INVALID_INPUT", "the body is not UTF-8: the byte at offset 23");
}

#[tokio::test]
async fn fanfares_own_channels_are_forbidden() {
    let api = TestApi::start().await;
    for channel in ["$ctl", "$call", "$call:", "$x:y"] {
        let body = format!(r#"{{"channel":"{channel}","data":1}}"#);
        api.post("/publish", &body).await.is_problem(403, "FORBIDDEN", channel);
    }
    api.get("/channels/$ctl").await.is_problem(403, "FORBIDDEN", "$ctl");
    api.get("/channels/$ctl/history").await.is_problem(403, "FORBIDDEN", "$ctl");
}

#[tokio::test]
async fn other_methods_are_told_what_is_allowed() {
    let api = TestApi::start().await;
    for (method, path, allow) in [
        ("GET", "/notify", "post, options"),
        ("PUT", "/publish", "post, options"),
        ("HEAD", "/broadcast", "post, options"),
        ("DELETE", "/channels/a", "get, head, options"),
        ("POST", "/channels/a/history", "get, head, delete, options"),
    ] {
        let mut client = api.connect().await;
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")).await;
        let head = client.until("\r\n\r\n").await.to_lowercase();
        assert!(head.starts_with("http/1.1 405"), "{method} {path}: {head}");
        assert!(head.contains(&format!("allow: {allow}\r\n")), "{method} {path}: {head}");
    }
    let get = api.get("/publish").await;
    get.is_problem(405, "METHOD_NOT_ALLOWED", "GET is not allowed here, but POST");
    let options = api.request("OPTIONS /publish HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!((options.status, options.header("allow")), (204, Some("post, options")));
}

#[tokio::test]
async fn head_answers_like_get_without_the_body() {
    let api = TestApi::start().await;
    let mut client = api.connect().await;
    client.send("HEAD /channels/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let head = client.until("\r\n\r\n").await.to_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: application/json"), "{head}");
}

#[tokio::test]
async fn paths_of_others_are_not_found() {
    let api = TestApi::start().await;
    for path in ["/", "/channels/a/listeners", "/users", "/users/42/x", "/tickets", "/publish/", "/events"] {
        api.get(path).await.is_problem(404, "NOT_FOUND", path);
    }
}

#[tokio::test]
async fn bodies_of_other_kinds_are_refused() {
    let api = TestApi::start().await;
    let body = r#"{"channel":"a","data":1}"#;
    for headers in [
        "",
        "Content-Type: text/plain\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
    ] {
        let answer = api.post_with("/publish", headers, body).await;
        answer.is_problem(415, "UNSUPPORTED_MEDIA_TYPE", "the body");
        assert!(
            answer.json()["hint"].as_str().is_some_and(|hint| hint.contains("application/json")),
            "{}",
            answer.body
        );
    }
    let lines = api.post_with("/notify", "Content-Type: application/x-ndjson\r\n", body).await;
    lines.is_problem(415, "UNSUPPORTED_MEDIA_TYPE", "application/x-ndjson");
    api.post_with("/publish", "Content-Type: Application/JSON; charset=utf-8\r\n", body).await.id();
}

#[tokio::test]
async fn data_over_its_limit_is_refused_by_what_is_delivered() {
    let api = TestApi::with_payload_bytes_max(100).await;
    let publish = |text: String| format!(r#"{{"channel":"a","data":{text}}}"#);
    // Written six times as long as it is delivered.
    api.post("/publish", &publish(format!("\"{}\"", "\\u0041".repeat(100)))).await.id();
    let over = api.post("/publish", &publish(format!("\"{}\"", "A".repeat(101)))).await;
    over.is_problem(413, "PAYLOAD_TOO_LARGE", "101 bytes as it is delivered, the limit is 100");
    assert_eq!(over.json()["details"], serde_json::json!({ "size": 101, "limit": 100 }));
    let json = api.post("/publish", &publish(format!("[{}1]", "1, ".repeat(40)))).await;
    json.is_problem(413, "PAYLOAD_TOO_LARGE", "the limit is 100");
    let framed = api.post("/notify", &format!(r#"{{"userId":"42","message":"{}"}}"#, "x".repeat(60))).await;
    framed.is_problem(413, "PAYLOAD_TOO_LARGE", "the limit is 100");
}

#[tokio::test]
async fn a_body_over_its_limit_is_refused_declared_or_not() {
    let api = TestApi::start().await;
    let declared =
        "POST /publish HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9999999\r\n\r\n";
    api.request(declared).await.is_problem(413, "PAYLOAD_TOO_LARGE", "this one has 9999999 bytes");
    let mut client = api.connect().await;
    client
        .send(
            "POST /publish HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        .await;
    for _ in 0..20 {
        client.send_chunk(&" ".repeat(64 * 1024)).await;
    }
    client.answer().await.is_problem(413, "PAYLOAD_TOO_LARGE", "more than that");
}

#[tokio::test]
async fn what_is_no_http_is_answered_and_closed() {
    let api = TestApi::start().await;
    let answer = api.request("\x16\x03\x01\x02 hello\r\n\r\n").await;
    assert_eq!(answer.status, 400);
    api.post("/broadcast", r#"{"message":"still there"}"#).await.id();
}

#[tokio::test]
async fn the_channel_in_a_path_is_checked() {
    let api = TestApi::start().await;
    api.get("/channels/a%20b").await.is_problem(400, "INVALID_INPUT", "the channel in the path");
    api.get("/channels/%zz/history").await.is_problem(400, "INVALID_INPUT", "two hex digits");
    api.get("/channels/a?x=1").await.is_problem(400, "INVALID_INPUT", "\"x\" is no query parameter");
}

#[tokio::test]
async fn a_namespace_has_a_limit_of_its_own() {
    let bytes = |bytes: usize| std::num::NonZeroUsize::new(bytes).expect("not zero");
    let mut config = fanfare_publish::PublishConfig::default();
    config.payload_bytes_max.own.insert("prices".into(), bytes(4));
    config.payload_bytes_max.own.insert("files".into(), bytes(100_000));
    let api = TestApi::with(fanfare_protocol::Partitions::ONE, 100, config).await;
    let publish = |channel: &str, length: usize| format!(r#"{{"channel":{channel},"data":"{}"}}"#, "x".repeat(length));
    api.post("/publish", &publish(r#""prices:eur""#, 4)).await.id();
    api.post("/publish", &publish(r#""files""#, 100_000)).await.id();
    let detail = "the limit is 4 on prices:eur";
    api.post("/publish", &publish(r#""prices:eur""#, 5)).await.is_problem(413, "PAYLOAD_TOO_LARGE", detail);
    // Of several channels the smallest limit counts: one event is published to all of them or to none.
    api.post("/publish", &publish(r#"["files:1","prices:eur"]"#, 5)).await.is_problem(413, "PAYLOAD_TOO_LARGE", detail);
    let elsewhere = api.post("/publish", &publish(r#""a""#, 70_000)).await;
    elsewhere.is_problem(413, "PAYLOAD_TOO_LARGE", "the limit is 65536 on a");
}
