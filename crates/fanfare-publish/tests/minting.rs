//! `POST /tokens`: a token that opens what was asked for and no more than its key, and a cursor of all that is now.

mod kit;

use std::time::{Duration, SystemTime};

use fanfare_auth::{AuthConfig, Secrets, Subscriber};
use fanfare_http::Query;
use fanfare_protocol::{Channel, Cursor, Partitions};
use http::HeaderMap;
use kit::{Answer, TestApi};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const KEYS: &str = "all=ALL,scoped=SCOPED;channels=server:*,mute=MUTE;rights=publish|read";

async fn api(partitions: u16) -> TestApi {
    TestApi::guarded(Partitions::new(partitions).expect("valid"), KEYS, Some(SECRET)).await
}

async fn mint(api: &TestApi, key: &str, body: &str) -> Answer {
    let headers = format!("Authorization: Bearer {key}\r\nContent-Type: application/json\r\n");
    api.post_with("/tokens", &headers, body).await
}

/// The bearer of what was made, as an edge sees them.
fn bearer(answer: &Answer) -> Subscriber {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let config = AuthConfig { secret: Some(Secrets::parse(SECRET).expect("a secret")), ..AuthConfig::default() };
    let access = config.edge_access().expect("a secret");
    let mut headers = HeaderMap::new();
    let bearer = format!("Bearer {}", answer.json()["token"].as_str().expect("a token"));
    headers.insert("authorization", bearer.parse().expect("a value"));
    let none = Query::parse(None).expect("nothing");
    access.authorise(&headers, &none, SystemTime::now()).expect("a good token").subscriber
}

fn channels(names: &[&str]) -> Vec<Channel> {
    names.iter().map(|name| Channel::parse(name).expect(name)).collect()
}

#[tokio::test]
async fn a_token_is_what_was_asked_for_and_says_when_it_ends() {
    let api = api(1).await;
    let before = SystemTime::now();
    let answer = mint(&api, "ALL", r#"{"userId":42,"channels":["server:*"],"follow":["lobby"],"ttl":60}"#).await;
    let subscriber = bearer(&answer);
    assert_eq!(subscriber.user().expect("named").as_str(), "42");
    assert_eq!(subscriber.unasked(), channels(&["user:42", "broadcast", "lobby"]));
    assert!(subscriber.may_follow(&channels(&["server:7"])[0]) && !subscriber.may_follow(&channels(&["other"])[0]));
    let ends = SystemTime::UNIX_EPOCH + Duration::from_millis(answer.json()["expiresAt"].as_u64().expect("ms"));
    assert_eq!(subscriber.expires_at(), Some(ends));
    assert!(ends >= before + Duration::from_secs(60) && ends <= SystemTime::now() + Duration::from_secs(61));
    assert_eq!(answer.header("cache-control"), Some("no-store"));

    let plain = mint(&api, "ALL", r#"{"userId":"42"}"#).await;
    let hour = Duration::from_secs(60 * 60);
    assert!(bearer(&plain).expires_at().expect("it ends") >= before + hour, "an hour where nothing is said");
}

#[tokio::test]
async fn the_cursor_names_every_partition_as_it_stands_now() {
    for count in [1, 8, 64] {
        let api = api(count).await;
        let partitions = Partitions::new(count).expect("valid");
        let cursor = |answer: &Answer| {
            let json = answer.json();
            Cursor::parse(json["cursor"].as_str().expect("a cursor")).expect("a good one")
        };
        let first = cursor(&mint(&api, "ALL", r#"{"userId":"42"}"#).await);
        let headers = "Authorization: Bearer ALL\r\nContent-Type: application/json\r\n";
        let published = api.post_with("/publish", headers, r#"{"channel":"server:7","data":1}"#).await.id();
        let second = cursor(&mint(&api, "ALL", r#"{"userId":"42"}"#).await);
        let own = partitions.of(&channels(&["server:7"])[0]);
        for partition in partitions.all() {
            let (before, after) = (first.point(partition).expect("named"), second.point(partition).expect("named"));
            assert_eq!(before.epoch, after.epoch);
            assert_eq!(before.pos < after.pos, partition == own, "partition {partition} of {count}");
        }
        assert_eq!(second.point(own), Cursor::parse(&published).expect("an id").point(own), "as far as the event");
    }
}

#[tokio::test]
async fn a_token_reaches_no_further_than_its_key() {
    let api = api(1).await;
    let within = bearer(&mint(&api, "SCOPED", r#"{"userId":"42","channels":["server:7"]}"#).await);
    assert!(within.may_follow(&channels(&["server:7"])[0]) && !within.may_follow(&channels(&["user:42"])[0]));
    for (key, body, detail) in [
        ("SCOPED", r#"{"channels":["server:1","other:*"]}"#, "does not reach other:*"),
        ("SCOPED", r#"{"follow":["broadcast"]}"#, "does not reach broadcast"),
        ("SCOPED", r#"{"userId":"42"}"#, "would open nothing"),
        ("MUTE", r#"{"userId":"42"}"#, "the key mute has no right to mint"),
    ] {
        mint(&api, key, body).await.is_problem(403, "FORBIDDEN", detail);
    }
    mint(&api, "nobody", r#"{"userId":"42"}"#).await.is_problem(401, "AUTHENTICATION_FAILED", "unknown");
}

#[tokio::test]
async fn a_body_that_is_not_understood_makes_no_token() {
    let api = api(1).await;
    for (body, detail) in [
        ("", "the body is empty"),
        ("[]", "not an array"),
        ("{}", "would open nothing"),
        (r#"{"userId":"42","chanels":["a"]}"#, "unknown field `chanels`"),
        (r#"{"userId":""}"#, "userId: "),
        (r#"{"channels":"server:*"}"#, "expected a sequence"),
        (r#"{"channels":["a","a*b"]}"#, "channels[1]: "),
        (r#"{"channels":["$call:*"]}"#, "can't be subscribed to"),
        (r#"{"follow":["server:*"]}"#, "follow[0]: "),
        (r#"{"userId":"42","ttl":0}"#, "ttl: it is 1 to 31536000 seconds, not 0"),
        (r#"{"userId":"42","ttl":31536001}"#, "ttl: it is 1 to 31536000 seconds"),
        (r#"{"userId":"42","ttl":"1h"}"#, "expected f64"),
    ] {
        mint(&api, "ALL", body).await.is_problem(400, "INVALID_INPUT", detail);
    }
    let many: Vec<_> = (0..1000).map(|number| format!("server:{number}")).collect();
    let body = serde_json::json!({ "channels": many }).to_string();
    mint(&api, "ALL", &body).await.is_problem(413, "PAYLOAD_TOO_LARGE", "bytes");
    let form = api.post_with("/tokens", "Authorization: Bearer ALL\r\n", r#"{"userId":"42"}"#).await;
    form.is_problem(415, "UNSUPPORTED_MEDIA_TYPE", "");
    let get = api.request("GET /tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ALL\r\n\r\n").await;
    get.is_problem(405, "METHOD_NOT_ALLOWED", "");
    assert_eq!(get.header("allow"), Some("post, options"));
}

#[tokio::test]
async fn without_a_secret_no_tokens_are_made_and_the_hint_names_the_setting() {
    let api = TestApi::guarded(Partitions::ONE, KEYS, None).await;
    let answer = mint(&api, "ALL", r#"{"userId":"42"}"#).await;
    answer.is_problem(404, "NOT_FOUND", "no secret");
    assert!(answer.json()["hint"].as_str().expect("a hint").contains("FANFARE_AUTH_SECRET"), "{}", answer.body);
}
