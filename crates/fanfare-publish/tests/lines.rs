//! NDJSON: lines are published as they come, each is answered, and a bad one holds nothing up.

mod kit;

use kit::{Client, TestApi};
use serde_json::Value;

const HEAD: &str =
    "POST /publish HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";

/// All answers, one by one, to the end.
async fn answers(client: &mut Client) -> Vec<Value> {
    let mut text = String::new();
    loop {
        let chunk = client.chunk().await;
        if chunk.is_empty() {
            break;
        }
        text.push_str(&chunk);
    }
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Sends whole bodies of lines.
async fn publish(api: &TestApi, lines: &str) -> Vec<Value> {
    let mut client = api.connect().await;
    client.send(HEAD).await;
    client.send_chunk(lines).await;
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    answers(&mut client).await
}

#[tokio::test]
async fn a_line_is_published_and_answered_before_the_next_is_sent() {
    let api = TestApi::start().await;
    let mut client = api.connect().await;
    client.send(HEAD).await;
    client.send_chunk("{\"channel\":\"a\",").await;
    client.send_chunk("\"data\":\"1\"}\n").await;
    let head = client.answer().await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("application/x-ndjson")));
    let first: Value = serde_json::from_str(&client.chunk().await).expect("JSON");
    assert_eq!((&first["success"], &first["channel"]), (&true.into(), &"a".into()));
    assert_eq!(api.data("a").await, ["1"]);
    client.send_chunk("{\"channel\":\"a\",\"data\":\"2\"}\r\n").await;
    let second: Value = serde_json::from_str(&client.chunk().await).expect("JSON");
    assert!(second["id"].is_string() && second["id"] != first["id"]);
    client.send("0\r\n\r\n").await;
    assert_eq!(client.chunk().await, "");
    // The connection goes on.
    client.send("GET /channels/a HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn a_bad_line_is_answered_with_an_error_and_the_rest_goes_on() {
    let api = TestApi::with_payload_bytes_max(10).await;
    let lines = [
        r#"{"channel":"a","data":"1"}"#,
        "nonsense",
        "",
        "   ",
        r#"{"channel":["a","b"],"data":2}"#,
        r#"{"channel":"a","data":"12345678901"}"#,
        r#"{"channel":"$ctl","data":1}"#,
        r#"[{"channel":"a","data":1}]"#,
        r#"{"channel":"a","data":"3"}"#,
    ];
    let answers = publish(&api, &lines.join("\n")).await;
    let codes = answers.iter().map(|answer| answer["error"]["code"].as_str().unwrap_or("")).collect::<Vec<_>>();
    assert_eq!(codes, ["", "INVALID_INPUT", "", "PAYLOAD_TOO_LARGE", "FORBIDDEN", "INVALID_INPUT", ""]);
    for answer in &answers {
        assert_eq!(answer["success"], answer["error"].is_null());
    }
    assert_eq!(answers[2]["results"].as_array().map(Vec::len), Some(2));
    assert_eq!(api.data("a").await, ["1", "2", "3"], "the last line needs no end");
}

#[tokio::test]
async fn a_line_that_is_too_long_is_skipped_without_being_kept() {
    let api = TestApi::with_payload_bytes_max(10).await;
    let mut client = api.connect().await;
    client.send(HEAD).await;
    client.send_chunk("{\"channel\":\"a\",\"data\":\"1\"}\n").await;
    for _ in 0..100 {
        client.send_chunk(&"x".repeat(64 * 1024)).await;
    }
    client.send_chunk("\n{\"channel\":\"a\",\"data\":\"2\"}\n").await;
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    let answers = answers(&mut client).await;
    let successes = answers.iter().map(|answer| answer["success"] == true).collect::<Vec<_>>();
    assert_eq!(successes, [true, false, true]);
    assert_eq!(answers[1]["error"]["code"], "PAYLOAD_TOO_LARGE");
    assert_eq!(api.data("a").await, ["1", "2"]);
}

#[tokio::test]
async fn many_lines_are_answered_in_order() {
    let api = TestApi::start().await;
    let mut client = api.connect().await;
    client.send(HEAD).await;
    assert_eq!(api.events("a").await.len(), 0);
    let mut received = Vec::new();
    for batch in 0..20 {
        let lines = (0..100).map(|n| format!("{{\"channel\":\"c{}\",\"data\":{n}}}\n", batch * 100 + n));
        client.send_chunk(&lines.collect::<String>()).await;
        if batch == 0 {
            assert_eq!(client.answer().await.status, 200);
        }
        while received.len() < (batch + 1) * 100 {
            let chunk = client.chunk().await;
            received.extend(chunk.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")));
        }
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.chunk().await, "");
    for (n, answer) in received.iter().enumerate() {
        assert_eq!(answer["channel"], *format!("c{n}"));
    }
}

#[tokio::test]
async fn a_body_without_lines_is_answered_without_lines() {
    let api = TestApi::start().await;
    let mut client = api.connect().await;
    client.send(HEAD).await;
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    assert!(answers(&mut client).await.is_empty());
}

#[tokio::test]
async fn a_client_that_waits_for_continue_is_told_to() {
    let api = TestApi::start().await;
    let mut client = api.connect().await;
    client.send(HEAD.replace("Host: x", "Host: x\r\nExpect: 100-continue")).await;
    assert_eq!(client.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send_chunk("{\"channel\":\"a\",\"data\":\"1\"}\n").await;
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(answers(&mut client).await.len(), 1);
}

#[tokio::test]
async fn half_a_line_of_a_client_that_leaves_is_not_published() {
    let api = TestApi::start().await;
    let mut client = api.connect().await;
    client.send(HEAD).await;
    client.send_chunk("{\"channel\":\"a\",\"data\":\"1\"}\n{\"channel\":\"a\",\"data\":2}").await;
    client.answer().await;
    client.chunk().await;
    drop(client);
    tokio::task::yield_now().await;
    assert_eq!(api.data("a").await, ["1"]);
}
