//! What a channel retains is read with the token of a stream.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::access::{guarded, token};
use crate::support::Subscriber;

/// The answer's status and body.
async fn read(address: SocketAddr, target: &str, header: &str) -> (String, Value) {
    let mut answer = Subscriber::get(address, target, &format!("Connection: close\r\n{header}")).await;
    let status = answer.head.split(' ').nth(1).expect("a status").to_owned();
    let body = answer.rest().await;
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

#[tokio::test]
async fn who_may_follow_a_channel_reads_its_history_and_goes_on_from_there() {
    let edge = guarded().await;
    let bearer = format!("Authorization: Bearer {}\r\n", token("42", &["server:*"], Duration::from_secs(60)));
    let cookie = bearer.replace("Authorization: Bearer ", "Cookie: fanfare_token=");
    let mut stream = Subscriber::get(edge.address, "/events/server:7", &bearer).await;
    stream.expect("connected").await;
    for data in ["one", "two", "three"] {
        edge.publish("server:7", Some("metrics:cpu"), data).await;
    }
    assert_eq!(stream.data().await, "one");
    let after = stream.last_id();
    stream.data().await;
    let second = stream.last_id();
    for (header, channel) in [(&bearer, "server:7"), (&cookie, "server%3A7")] {
        let (status, page) =
            read(edge.address, &format!("/channels/{channel}/history?after={after}&limit=1"), header).await;
        assert_eq!((status.as_str(), &page["channel"]), ("200", &"server:7".into()), "{page}");
        assert_eq!((&page["more"], &page["gap"]), (&true.into(), &false.into()));
        let event = &page["events"][0];
        assert_eq!((&event["data"], &event["event"]), (&"two".into(), &"metrics:cpu".into()));
        let id = event["id"].as_str().expect("an id");
        assert_eq!(second.strip_suffix("@server:7"), Some(id), "it is the stream's");

        let cursor = page["cursor"].as_str().expect("a cursor");
        let mut on = Subscriber::get(edge.address, &format!("/events/server:7?last_event_id={cursor}"), header).await;
        on.expect("connected").await;
        assert_eq!(on.data().await, "three");
    }
    edge.stop().await;
}

#[tokio::test]
async fn nobody_else_reads_it() {
    let edge = guarded().await;
    edge.publish("server:7", None, "secret").await;
    edge.publish("public:news", None, "for all").await;
    let bearer = format!("Authorization: Bearer {}\r\n", token("42", &["a"], Duration::from_secs(60)));
    for (target, header, status, part) in [
        ("/channels/server:7/history", "", "401", "server:7 is not open without one"),
        ("/channels/server:7/history", &bearer, "403", "does not allow server:7"),
        ("/channels/user:43/history", &bearer, "403", "user:43"),
        ("/channels/$call:1/history", &bearer, "403", "$call:1"),
        ("/channels/public:news/history", "Authorization: Bearer nonsense\r\n", "401", "token"),
        ("/channels/a/history?limit=0", &bearer, "400", "limit: it is a number from 1 to 500"),
        ("/channels/a/history?after=yesterday", &bearer, "400", "after: it is no event id"),
        ("/channels/a/history?before=1", &bearer, "400", "\"before\" is no query parameter"),
        ("/channels/a%20b/history", &bearer, "400", "the path: "),
    ] {
        let (got, problem) = read(edge.address, target, header).await;
        let detail = problem["detail"].as_str().expect("a problem");
        assert!(got == status && detail.contains(part), "{target}: {got} {detail}");
        assert!(!problem.to_string().contains("secret\""), "{problem}");
    }
    let (status, page) = read(edge.address, "/channels/public:news/history", "").await;
    assert_eq!((status.as_str(), &page["events"][0]["data"]), ("200", &"for all".into()), "it is open to all");
    edge.stop().await;
}
