//! A user's connections are closed: what is remembered of it, and who may do it.

mod kit;

use std::time::{Duration, SystemTime};

use fanfare_protocol::Partitions;
use kit::TestApi;

async fn disconnect(api: &TestApi, user: &str, headers: &str, body: &str) -> kit::Answer {
    let length = body.len();
    let request = format!("DELETE /users/{user}/connections HTTP/1.1\r\nHost: x\r\n{headers}");
    api.request(&format!("{request}Content-Length: {length}\r\n\r\n{body}")).await
}

const JSON: &str = "Content-Type: application/json\r\n";

#[tokio::test]
async fn a_disconnect_is_remembered_for_as_long_as_it_says() {
    let api = TestApi::start().await;
    let began = SystemTime::now() - Duration::from_millis(1);
    for (user, headers, body, seconds) in [
        ("42", JSON, r#"{"blockSeconds":5}"#, 5),
        ("alice%40example.com", "", "", 60),
        ("43", JSON, "{}", 60),
        ("44", JSON, r#"{"blockSeconds":0}"#, 0),
    ] {
        let answer = disconnect(&api, user, headers, body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.json()["blockSeconds"], seconds);
        let blocks = api.backbone.blocks().await.expect("in process");
        let block = blocks.last().expect("remembered");
        assert_eq!(answer.json()["userId"], block.user.as_str());
        assert!(began <= block.before && block.before <= SystemTime::now());
        assert_eq!(block.until, block.before + Duration::from_secs(seconds));
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let api = TestApi::start().await;
    for (user, headers, body, status, code, detail) in [
        ("42", JSON, r#"{"blockSeconds":-1}"#, 400, "INVALID_INPUT", "0 to 2592000 seconds, not -1"),
        ("42", JSON, r#"{"blockSeconds":2592001}"#, 400, "INVALID_INPUT", "0 to 2592000 seconds"),
        ("42", JSON, r#"{"block":60}"#, 400, "INVALID_INPUT", "unknown field `block`"),
        ("42", "", r#"{"blockSeconds":60}"#, 415, "UNSUPPORTED_MEDIA_TYPE", "application/json"),
        ("%0a", "", "", 400, "INVALID_INPUT", "the user in the path"),
    ] {
        disconnect(&api, user, headers, body).await.is_problem(status, code, detail);
    }
    api.get("/users/42/connections").await.is_problem(405, "METHOD_NOT_ALLOWED", "DELETE");
    assert!(api.backbone.blocks().await.expect("in process").is_empty());
}

#[tokio::test]
async fn only_a_key_with_the_right_that_reaches_the_inbox_may() {
    let keys = "all=0123456789,some=abcdefghij;channels=user:4*,publishes=klmnopqrst;rights=publish";
    let api = TestApi::guarded(Partitions::ONE, keys, None).await;
    for (key, user, status) in [
        ("0123456789", "x", 200),
        ("abcdefghij", "42", 200),
        ("abcdefghij", "52", 403),
        ("klmnopqrst", "42", 403),
        ("unknown", "42", 401),
    ] {
        let answer = disconnect(&api, user, &format!("Authorization: Bearer {key}\r\n"), "").await;
        assert_eq!(answer.status, status, "{key} {user}: {}", answer.body);
    }
}
