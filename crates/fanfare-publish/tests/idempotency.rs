//! Within the window, a key publishes once.

mod kit;

use kit::{Answer, TestApi};

async fn with_key(api: &TestApi, path: &str, key: &str, body: &str) -> Answer {
    api.post_with(path, &format!("Content-Type: application/json\r\nIdempotency-Key: {key}\r\n"), body).await
}

#[tokio::test]
async fn a_repetition_publishes_nothing_and_gets_the_first_id() {
    let api = TestApi::start().await;
    let body = r#"{"channel":"a","data":1,"idempotencyKey":"k"}"#;
    let first = api.post("/publish", body).await.id();
    assert_eq!(api.post("/publish", body).await.id(), first);
    let header = with_key(&api, "/publish", "\"k\"", r#"{"channel":"a","data":1}"#).await;
    assert_eq!(header.id(), first, "in the header, quoted, it is the same key");
    assert_eq!(api.events("a").await.len(), 1);
}

#[tokio::test]
async fn a_notification_is_repeated_though_its_timestamp_differs() {
    let api = TestApi::start().await;
    let body = r#"{"userId":["1","2"],"message":"hi","idempotencyKey":"k"}"#;
    let first = api.post("/notify", body).await;
    tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    assert_eq!(api.post("/notify", body).await.body, first.body);
    assert_eq!(api.events("user:1").await.len(), 1);
}

#[tokio::test]
async fn a_key_counts_per_channel() {
    let api = TestApi::start().await;
    let a = with_key(&api, "/publish", "k", r#"{"channel":"a","data":1}"#).await.id();
    let b = with_key(&api, "/publish", "k", r#"{"channel":"b","data":1}"#).await.id();
    assert_ne!(a, b);
}

#[tokio::test]
async fn a_key_counts_per_publisher() {
    let api = TestApi::guarded(fanfare_protocol::Partitions::ONE, "first=FIRST,second=SECOND", None).await;
    let publish = async |publisher: &str, data: u8| {
        let headers = format!("Authorization: Bearer {publisher}\r\nContent-Type: application/json\r\n");
        let body = format!(r#"{{"channel":"a","data":{data},"idempotencyKey":"k"}}"#);
        api.post_with("/publish", &headers, &body).await.id()
    };
    let first = publish("FIRST", 1).await;
    assert_ne!(publish("SECOND", 2).await, first, "another's key is another key");
    assert_eq!(publish("FIRST", 1).await, first);
    assert_eq!(api.data("a").await, ["1", "2"]);
}

#[tokio::test]
async fn another_body_under_the_same_key_is_a_mistake() {
    let api = TestApi::start().await;
    api.post("/publish", r#"{"channel":"a","data":1,"idempotencyKey":"k"}"#).await.id();
    for other in [
        r#"{"channel":"a","data":2,"idempotencyKey":"k"}"#,
        r#"{"channel":"a","data":1,"event":"e","idempotencyKey":"k"}"#,
        r#"{"channel":"a","data":1,"key":"x","idempotencyKey":"k"}"#,
        r#"{"channel":"a","data":1,"ttl":5,"idempotencyKey":"k"}"#,
    ] {
        api.post("/publish", other).await.is_problem(422, "IDEMPOTENCY_MISMATCH", "a different event");
    }
    assert_eq!(api.data("a").await, ["1"]);
    let mixed = api.post("/publish", r#"{"channel":["a","b"],"data":2,"idempotencyKey":"k"}"#).await;
    assert_eq!(mixed.status, 200, "b was published");
    let mixed = mixed.json();
    assert_eq!(mixed["success"], false);
    assert_eq!(mixed["results"][0]["error"]["code"], "IDEMPOTENCY_MISMATCH");
    assert_eq!(mixed["results"][1]["success"], true);
}

#[tokio::test]
async fn in_an_array_the_header_counts_per_entry() {
    let api = TestApi::start().await;
    let body = r#"[{"channel":"a","data":1},{"channel":"a","data":1},{"channel":"a","data":1,"idempotencyKey":"own"}]"#;
    let first = with_key(&api, "/publish", "k", body).await;
    assert_eq!(with_key(&api, "/publish", "k", body).await.body, first.body);
    assert_eq!(api.events("a").await.len(), 3);
    let own = api.post("/publish", r#"{"channel":"a","data":1,"idempotencyKey":"own"}"#).await.id();
    assert_eq!(first.json()["results"][2]["id"], *own, "an entry's own key wins and has no index");
}

#[tokio::test]
async fn in_ndjson_the_header_counts_per_line() {
    let api = TestApi::start().await;
    let headers = "Content-Type: application/x-ndjson\r\nIdempotency-Key: k\r\n";
    let lines = "{\"channel\":\"a\",\"data\":1}\n\n{\"channel\":\"a\",\"data\":1}\n";
    for _ in 0..2 {
        let mut client = api.connect().await;
        client
            .send(format!(
                "POST /publish HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\n\r\n{lines}",
                lines.len()
            ))
            .await;
        client.until("\r\n0\r\n\r\n").await;
    }
    assert_eq!(api.events("a").await.len(), 2);
}

#[tokio::test]
async fn a_header_that_is_no_key_is_refused() {
    let api = TestApi::start().await;
    let body = r#"{"channel":"a","data":1}"#;
    with_key(&api, "/publish", "", body).await.is_problem(400, "INVALID_INPUT", "the Idempotency-Key header");
    let twice = with_key(&api, "/publish", "a\r\nIdempotency-Key: b", body).await;
    twice.is_problem(400, "INVALID_INPUT", "more than one Idempotency-Key");
    assert!(api.events("a").await.is_empty());
}
