//! Bad input gets a clear error and harms nothing.

use crate::support::{Subscriber, TestEdge};

#[tokio::test]
async fn each_mistake_gets_its_own_status_and_sentence() {
    let edge = TestEdge::start().await;
    let long = format!("/events?channel={}", "x".repeat(9_000));
    let many = format!("/events?channels={}", (0..100).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    let post = |body: &str, content_type: &str| {
        let length = body.len();
        format!(
            "POST /events HTTP/1.1\r\nHost: t\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n");
    for (request, status, sentence) in [
        (get("/events?channel=a%20b"), 400, "not ' '"),
        (get("/events?channel=prices*"), 400, "wildcards"),
        (get("/events/.."), 400, "can't be named"),
        (get("/events?channel=$internal"), 403, "can't be subscribed to"),
        (get("/events?user=%0a"), 400, "no control characters"),
        (get("/events?user="), 400, "can't be empty"),
        (get("/events?channel=%zz"), 400, "two hex digits"),
        (get("/events?replay=lots"), 400, "replay is a number"),
        (get("/events?replay=1001"), 400, "replay is a number"),
        (get("/events?heartbeat=loud"), 400, "comment or event"),
        (get("/events?unnamed=perhaps"), 400, "true or false"),
        (get("/events?types=a*b"), 400, "types"),
        (get(&long), 414, "POST /events"),
        (get(&many), 400, "a connection may follow 100"),
        (post("{", "application/json"), 400, "not JSON"),
        (post(r#"{"channel":"a"}"#, "application/json"), 400, "unknown field `channel`"),
        (post(r#"{"channels":["a"]}"#, "text/plain"), 415, "application/json"),
        (post(&format!(r#"{{"channels":["{}"]}}"#, "x".repeat(70_000)), "application/json"), 413, "65536"),
        ("DELETE /events HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(), 405, "DELETE"),
        ("POST /events/c HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n".to_owned(), 405, "POST"),
        (get("/elsewhere"), 404, "/elsewhere"),
    ] {
        let mut answer = Subscriber::request(edge.address, &request).await;
        let first = request.lines().next().unwrap_or_default();
        let first = &first[..first.len().min(60)];
        assert!(answer.head.starts_with(&format!("HTTP/1.1 {status} ")), "{first}: {}", answer.head);
        assert!(answer.head.contains("content-type: application/problem+json"), "{first}: {}", answer.head);
        let body = answer.text_until("}").await;
        assert!(body.contains(sentence), "{first}: {body}");
    }
    let mut subscriber = edge.subscribe("/events/c").await;
    subscriber.expect("connected").await;
    edge.stop().await;
}

#[tokio::test]
async fn head_and_options_are_answered() {
    let edge = TestEdge::start().await;
    let head = Subscriber::request(edge.address, "HEAD /events HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert!(head.head.starts_with("HTTP/1.1 200") && head.head.contains("text/event-stream"), "{}", head.head);
    let options = Subscriber::request(edge.address, "OPTIONS /events HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert!(options.head.contains("allow: GET, HEAD, POST, OPTIONS"), "{}", options.head);
    edge.stop().await;
}
