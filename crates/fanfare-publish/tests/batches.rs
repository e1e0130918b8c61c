//! Arrays are published whole or not at all, and answered in order.

mod kit;

use kit::TestApi;

#[tokio::test]
async fn an_array_is_published_in_order_and_each_entry_answered() {
    let api = TestApi::start().await;
    let body =
        r#" [{"channel":"a","data":"1"}, {"channel":["b","a"],"data":2.0,"event":"e"}, {"channel":"a","data":"3"}]"#;
    let answer = api.post("/publish", body).await.json();
    assert_eq!(answer["success"], true);
    let results = answer["results"].as_array().expect("several");
    assert_eq!(results.len(), 3);
    assert_eq!((&results[0]["channel"], &results[0]["success"]), (&"a".into(), &true.into()));
    assert_eq!(results[1]["results"][0]["channel"], "b");
    assert_eq!(results[1]["results"][1]["channel"], "a");
    assert!(results[2]["id"].is_string());
    assert_eq!(api.data("a").await, ["1", "2.0", "3"]);
}

#[tokio::test]
async fn one_bad_entry_keeps_the_whole_array_back() {
    let api = TestApi::with_payload_bytes_max(10).await;
    for (bad, status, code, detail) in [
        (r#"{"channel":"a"}"#, 400, "INVALID_INPUT", "entry 1: missing field `data`"),
        (r#"{"channel":"a b","data":1}"#, 400, "INVALID_INPUT", "entry 1: channel: "),
        (r#"{"channel":"a","data":1,"x":1}"#, 400, "INVALID_INPUT", "entry 1: unknown field `x`"),
        ("7", 400, "INVALID_INPUT", "entry 1: invalid type: integer `7`"),
        (r#"{"channel":"$ctl","data":1}"#, 403, "FORBIDDEN", "entry 1: "),
        (r#"{"channel":"a","data":"12345678901"}"#, 413, "PAYLOAD_TOO_LARGE", "entry 1: "),
        ("{", 400, "INVALID_INPUT", "the body is not JSON"),
    ] {
        let body = format!(r#"[{{"channel":"a","data":"1"}},{bad}]"#);
        api.post("/publish", &body).await.is_problem(status, code, detail);
        assert!(api.events("a").await.is_empty(), "{bad}");
    }
}

#[tokio::test]
async fn an_array_has_a_thousand_entries_and_events_at_most() {
    let api = TestApi::start().await;
    let array = |entry: &str, count| format!("[{}]", vec![entry; count].join(","));
    let answer = api.post("/publish", &array(r#"{"channel":"a","data":1}"#, 1000)).await.json();
    assert_eq!(answer["results"].as_array().map(Vec::len), Some(1000));
    let more = api.post("/publish", &array(r#"{"channel":"b","data":1}"#, 1001)).await;
    more.is_problem(400, "INVALID_INPUT", "1000 entries, this one has 1001");
    let wide = api.post("/publish", &array(r#"{"channel":["b","c"],"data":1}"#, 501)).await;
    wide.is_problem(400, "INVALID_INPUT", "1000 events at most, this one asks for 1002");
    assert!(api.events("b").await.is_empty());
}

#[tokio::test]
async fn an_array_has_a_mebibyte_at_most() {
    let api = TestApi::with_payload_bytes_max(4 << 20).await;
    let body = format!(r#"[{{"channel":"a","data":"{}"}}]"#, "x".repeat(1 << 20));
    api.post("/publish", &body).await.is_problem(413, "PAYLOAD_TOO_LARGE", "an array may have 1048576 bytes");
    api.post("/publish", &body[1..body.len() - 1]).await.id();
}
