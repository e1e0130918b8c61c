//! Who can't hold a stream polls, and gets what a stream would have had: once, in order, or a gap told.

use std::time::{Duration, SystemTime};

use fanfare_backbone::Backbone;
use fanfare_edge::EdgeConfig;
use fanfare_protocol::{ByNamespace, Keep, Partitions, Retention};
use serde_json::{Value, json};

use crate::overload::unreachable_backbone;
use crate::support::{RETENTION, Subscriber, TestEdge};

/// A poll that is under way.
struct Poll(Subscriber);

/// What a client keeps of an answer.
#[derive(Debug)]
struct Answer {
    events: Vec<Value>,
    cursor: String,
    more: bool,
}

impl Poll {
    async fn begin(edge: &TestEdge, target: &str) -> Self {
        let before = edge.metric("fanfare_connections_opened_total");
        let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n");
        let poll = Self(Subscriber::send(edge.address, &request).await);
        while edge.metric("fanfare_connections_opened_total") == before {
            tokio::task::yield_now().await;
        }
        poll
    }

    async fn head(&mut self) -> &str {
        self.0.read_head().await;
        &self.0.head
    }

    async fn answer(mut self) -> Answer {
        self.0.read_head().await;
        assert!(self.0.head.starts_with("HTTP/1.1 200"), "{}", self.0.head);
        let mut body: Value = serde_json::from_str(&self.0.text().await).expect("JSON");
        let Value::Array(events) = body["events"].take() else { panic!("{body} has events") };
        let cursor = body["cursor"].as_str().expect("a cursor").to_owned();
        Answer { events, cursor, more: body["more"].as_bool().expect("more or not") }
    }
}

async fn ask(edge: &TestEdge, target: &str) -> Answer {
    let mut subscriber = Subscriber::send(edge.address, &format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    subscriber.read_head().await;
    Poll(subscriber).answer().await
}

impl Answer {
    fn data(&self) -> Vec<&str> {
        self.events.iter().map(|event| event["data"].as_str().expect("text")).collect()
    }
}

fn encoded(cursor: &str) -> String {
    cursor.replace('%', "%25").replace('+', "%2B").replace(',', "%2C").replace('=', "%3D")
}

/// The head of whatever is answered.
async fn head(edge: &TestEdge, request: &str) -> String {
    Subscriber::request(edge.address, request).await.head
}

#[tokio::test]
async fn without_a_cursor_it_is_answered_at_once_with_the_cursor_of_now() {
    let edge = TestEdge::start().await;
    edge.publish("c", None, "before").await;
    let mut poll = Poll::begin(&edge, "/poll?channel=c").await;
    let head = poll.head().await.to_owned();
    for line in ["HTTP/1.1 200 OK\r\n", "content-type: application/json\r\n", "connection: close\r\n", "date: "] {
        assert!(head.contains(line), "{line:?} is in {head}");
    }
    for line in ["content-length: ", "cache-control: no-store\r\n", "x-request-id: ", "vary: Origin\r\n"] {
        assert!(head.contains(line), "{line:?} is in {head}");
    }
    let fresh = poll.answer().await;
    assert!(fresh.events.is_empty() && !fresh.more, "{fresh:?}");
    edge.publish("c", None, "after").await;
    let answer = ask(&edge, &format!("/poll?channel=c&last_event_id={}", fresh.cursor)).await;
    assert_eq!(answer.data(), ["after"]);
    edge.stop().await;
}

#[tokio::test]
async fn an_answer_has_what_was_missed_and_asking_again_gets_the_same_again() {
    let edge = TestEdge::start().await;
    let first = edge.publish("c", None, "first").await;
    let second = edge.publish("c", Some("metrics:cpu"), "two\r\nlines \u{1}").await;
    edge.publish("other", None, "not followed").await;
    edge.publish("broadcast", None, "to all").await;
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as u64;
    for _ in 0..3 {
        let answer = ask(&edge, &format!("/poll?channel=c&lastEventId={first}")).await;
        assert_eq!(answer.data(), ["two\nlines \u{1}", "to all"]);
        let event = &answer.events[0];
        assert_eq!(event["id"], format!("{second}@c"));
        assert_eq!((&event["event"], &event["channel"]), (&json!("metrics:cpu"), &json!("c")));
        assert_eq!(answer.events[1]["event"], "message");
        assert!(event["timestamp"].as_u64().expect("milliseconds").abs_diff(now) < 60_000);
        assert!(!answer.more);
        // Any event's id is as good a cursor as the answer's own; and the header wins.
        let header = format!("Last-Event-ID: {}\r\n", event["id"].as_str().expect("an id"));
        let target = format!("/poll?channel=c&last_event_id={first}");
        let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\n{header}\r\n");
        let poll = Poll(Subscriber::send(edge.address, &request).await);
        assert_eq!(poll.answer().await.data(), ["to all"]);
    }
    edge.stop().await;
}

#[tokio::test]
async fn with_nothing_to_say_it_waits_and_a_stream_and_a_poll_share_their_cursors() {
    for partitions in [1, 8] {
        let edge = TestEdge::with(partitions, EdgeConfig::default()).await;
        let target = "/poll?channels=a,b,c&user=42";
        let fresh = ask(&edge, target).await;
        let poll = Poll::begin(&edge, &format!("{target}&last_event_id={}", encoded(&fresh.cursor))).await;
        edge.publish("elsewhere", None, "wakes nobody").await;
        edge.publish("b", None, "wakes").await;
        let answer = poll.answer().await;
        assert_eq!(answer.data(), ["wakes"]);

        edge.publish("c", None, "for the stream").await;
        let header = format!("Last-Event-ID: {}\r\n", answer.cursor);
        let mut stream = Subscriber::get(edge.address, "/events?channels=a,b,c&user=42", &header).await;
        stream.expect("connected").await;
        assert_eq!(stream.data().await, "for the stream");
        let id = stream.reset();
        edge.publish("user:42", None, "for the poll").await;
        let answer = ask(&edge, &format!("{target}&last_event_id={}", encoded(&id))).await;
        assert_eq!(answer.data(), ["for the poll"], "{id}");
        edge.stop().await;
    }
}

#[tokio::test]
async fn in_the_end_it_is_answered_with_nothing_and_a_cursor_past_what_was_not_for_it() {
    let edge =
        TestEdge::with(1, EdgeConfig { poll_timeout: Duration::from_millis(600), ..EdgeConfig::default() }).await;
    let target = "/poll?channel=c&types=wanted";
    let fresh = ask(&edge, target).await;
    for _ in 0..2 {
        edge.publish("c", Some("unwanted"), "before").await;
        let poll = Poll::begin(&edge, &format!("{target}&last_event_id={}", fresh.cursor)).await;
        let last = edge.publish("c", Some("unwanted"), "meanwhile").await;
        let answer = poll.answer().await;
        assert!(answer.events.is_empty() && !answer.more, "{answer:?}");
        assert!(answer.cursor >= last.to_string(), "{} is past {last}", answer.cursor);
    }
    let published = edge.publish("c", Some("wanted"), "wanted").await;
    let answer = ask(&edge, &format!("{target}&last_event_id={}", fresh.cursor)).await;
    assert_eq!(answer.data(), ["wanted"], "an earlier cursor still leads to {published}");
    assert_eq!(edge.metric("fanfare_connections"), 0.0, "what is answered is gone");
    edge.stop().await;
}

/// Polls until nothing is left.
async fn all(edge: &TestEdge, target: &str, mut cursor: String) -> Vec<Answer> {
    let mut answers = Vec::new();
    loop {
        let answer = ask(edge, &format!("{target}&last_event_id={}", encoded(&cursor))).await;
        cursor.clone_from(&answer.cursor);
        answers.push(answer);
        if !answers.last().expect("pushed").more {
            return answers;
        }
    }
}

#[tokio::test]
async fn an_answer_has_at_most_five_hundred_events_and_says_that_there_are_more() {
    for partitions in [1, 8] {
        let retention =
            Retention { history: ByNamespace::everywhere(Keep { events_max: 2_000, age: None }), ..RETENTION };
        let backbone = Backbone::in_process(Partitions::new(partitions).expect("1 to 64"), retention);
        let edge = TestEdge::on(backbone, EdgeConfig::default()).await;
        let fresh = ask(&edge, "/poll?channels=a,b").await;
        for n in 0..600 {
            edge.publish("a", None, &format!("a {n}")).await;
            edge.publish("b", None, &format!("b {n}")).await;
        }
        let answers = all(&edge, "/poll?channels=a,b", fresh.cursor).await;
        assert_eq!(answers[0].events.len(), 500, "a first answer is full");
        assert!(answers.iter().all(|answer| answer.events.len() <= 500));
        let heard: Vec<_> = answers.iter().flat_map(Answer::data).collect();
        assert_eq!(heard.len(), 1_200);
        for channel in ["a", "b"] {
            let of_channel: Vec<_> = heard.iter().filter(|data| data.starts_with(channel)).collect();
            let expected: Vec<_> = (0..600).map(|n| format!("{channel} {n}")).collect();
            assert_eq!(of_channel, expected.iter().collect::<Vec<_>>());
        }
        edge.stop().await;
    }
}

#[tokio::test]
async fn an_answers_bytes_are_bounded_but_one_event_always_fits() {
    let edge = TestEdge::start().await;
    let fresh = ask(&edge, "/poll?channel=c").await;
    let large = "x".repeat(300_000);
    for n in 0..10 {
        edge.publish("c", None, &format!("{n} {large}")).await;
    }
    edge.publish("c", None, &"\u{1}".repeat(400_000)).await; // Six times as long in JSON.
    let answers = all(&edge, "/poll?channel=c", fresh.cursor).await;
    let sizes: Vec<_> = answers.iter().map(|answer| answer.events.len()).collect();
    assert_eq!(sizes, [3, 3, 3, 1, 1]);
    let begins = answers.iter().flat_map(Answer::data).take(10).enumerate();
    assert!(begins.into_iter().all(|(n, data)| data.starts_with(&format!("{n} "))));
    edge.stop().await;
}

#[tokio::test]
async fn a_gap_is_among_the_events_and_leads_on() {
    let retention = Retention { history: ByNamespace::everywhere(Keep { events_max: 3, age: None }), ..RETENTION };
    let edge = TestEdge::on(Backbone::in_process(Partitions::ONE, retention), EdgeConfig::default()).await;
    let fresh = ask(&edge, "/poll?channels=busy,calm").await;
    for n in 0..10 {
        edge.publish("busy", None, &n.to_string()).await;
    }
    let answer = ask(&edge, &format!("/poll?channels=busy,calm&last_event_id={}", fresh.cursor)).await;
    let gap = &answer.events[0];
    assert_eq!(gap["event"], "gap");
    let data: Value =
        serde_json::from_str(gap["data"].as_str().expect("text")).expect("JSON in a text, as in a stream");
    assert_eq!((&data["channels"], &data["reason"]), (&json!(["busy"]), &json!("expired")));
    assert_eq!(answer.data()[1..], ["7", "8", "9"]);

    for nonsense in ["nonsense", "4:0=abcdef-1"] {
        let answer = ask(&edge, &format!("/poll?channel=calm&last_event_id={nonsense}")).await;
        assert!(answer.data()[0].contains(r#""reason":"unknown-cursor""#), "{answer:?}");
        edge.publish("calm", None, nonsense).await;
        let answer = ask(&edge, &format!("/poll?channel=calm&last_event_id={}", answer.cursor)).await;
        assert_eq!(answer.data(), [nonsense]);
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_first_poll_can_begin_with_the_newest_events() {
    for partitions in [1, 8] {
        let edge = TestEdge::with(partitions, EdgeConfig::default()).await;
        for n in 0..5 {
            edge.publish("a", None, &format!("a{n}")).await;
            edge.publish("b", None, &format!("b{n}")).await;
        }
        let answer = ask(&edge, "/poll?channels=a,b&replay=2").await;
        let mut heard = answer.data();
        heard.sort_by_key(|data| data[1..].to_owned()); // Between partitions there is no order.
        assert_eq!((heard, answer.more), (vec!["a3", "b3", "a4", "b4"], false));
        edge.publish("a", None, "next").await;
        let answer = ask(&edge, &format!("/poll?channels=a,b&last_event_id={}", encoded(&answer.cursor))).await;
        assert_eq!(answer.data(), ["next"]);
        edge.stop().await;
    }
}

#[tokio::test]
async fn while_the_backbone_is_away_it_says_so_and_the_cursor_stays_good() {
    let config = EdgeConfig { poll_timeout: Duration::from_millis(500), ..EdgeConfig::default() };
    let edge = TestEdge::on(unreachable_backbone(), config).await;
    for target in ["/poll?channel=c", "/poll?channel=c&last_event_id=abcdef-1"] {
        let mut poll = Poll::begin(&edge, target).await;
        let head = poll.head().await;
        assert!(head.starts_with("HTTP/1.1 503") && head.contains("retry-after: "), "{head}");
        assert!(head.contains("application/problem+json"), "{head}");
        let problem: Value = serde_json::from_str(&poll.0.text().await).expect("JSON");
        assert_eq!(problem["code"], "BACKBONE_UNAVAILABLE", "{problem}");
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_drain_answers_those_that_wait_and_refuses_those_that_come() {
    let edge = TestEdge::start().await;
    let fresh = ask(&edge, "/poll?channel=c").await;
    let polls = [
        Poll::begin(&edge, &format!("/poll?channel=c&last_event_id={}", fresh.cursor)).await,
        Poll::begin(&edge, &format!("/poll?channel=d&last_event_id={}", fresh.cursor)).await,
    ];
    let mut stream = edge.subscribe("/events/c").await;
    stream.expect("connected").await; // It came later, so the polls have joined as well.
    edge.edge.drain(Duration::ZERO).await;
    for poll in polls {
        let answer = poll.answer().await;
        assert!(answer.events.is_empty() && answer.cursor >= fresh.cursor, "{answer:?}");
    }
    let refused = Subscriber::get(edge.address, "/poll?channel=c", "Accept: text/event-stream\r\n").await.head;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: "), "{refused}");
    edge.stop().await;
}

#[tokio::test]
async fn it_is_a_get_and_its_parameters_are_checked_like_a_streams() {
    let edge = TestEdge::start().await;
    for (request, status) in [
        ("POST /poll?channel=c HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n", "405"),
        ("GET /poll/c HTTP/1.1\r\nHost: test\r\n\r\n", "404"),
        ("GET /poll?channel=* HTTP/1.1\r\nHost: test\r\n\r\n", "400"),
        ("GET /poll?channel=c&replay=x HTTP/1.1\r\nHost: test\r\n\r\n", "400"),
        ("GET /poll?channel=c&heartbeat=x HTTP/1.1\r\nHost: test\r\n\r\n", "400"),
        ("HEAD /poll?channel=c HTTP/1.1\r\nHost: test\r\n\r\n", "200"),
        ("GET /poll?channel=c HTTP/1.0\r\n\r\n", "200"),
    ] {
        let head = head(&edge, request).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {head}");
    }
    let page = "GET /poll?channel=c HTTP/1.1\r\nHost: test\r\nOrigin: https://app.example.com\r\n\r\n";
    assert!(head(&edge, page).await.contains("access-control-allow-origin: https://app.example.com\r\n"));
    edge.stop().await;
}

#[tokio::test]
async fn who_stops_waiting_leaves_nothing_behind() {
    let edge = TestEdge::start().await;
    let fresh = ask(&edge, "/poll?channel=c").await;
    let polls = [
        Poll::begin(&edge, &format!("/poll?channel=c&last_event_id={}", fresh.cursor)).await,
        Poll::begin(&edge, &format!("/poll?channel=c&last_event_id={}", fresh.cursor)).await,
    ];
    assert_eq!(edge.metric("fanfare_connections"), 2.0);
    drop(polls);
    while edge.metric("fanfare_connections") > 0.0 {
        tokio::task::yield_now().await;
    }
    edge.publish("c", None, "not lost").await;
    let answer = ask(&edge, &format!("/poll?channel=c&last_event_id={}", fresh.cursor)).await;
    assert_eq!(answer.data(), ["not lost"]);
    edge.stop().await;
}
