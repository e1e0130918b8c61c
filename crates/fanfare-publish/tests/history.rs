//! What a channel retains can be read, page by page, and what is gone is said.

mod kit;

use fanfare_protocol::Partitions;
use fanfare_publish::PublishConfig;
use kit::TestApi;
use serde_json::{Value, json};

async fn publish(api: &TestApi, channel: &str, data: impl std::fmt::Display) -> String {
    api.post("/publish", &format!(r#"{{"channel":"{channel}","data":"{data}"}}"#)).await.id()
}

async fn read(api: &TestApi, query: &str) -> Value {
    let answer = api.get(&format!("/channels/a/history{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn data(page: &Value) -> Vec<&str> {
    page["events"].as_array().expect("events").iter().map(|event| event["data"].as_str().expect("text")).collect()
}

#[tokio::test]
async fn an_event_is_read_as_it_was_published() {
    let api = TestApi::start().await;
    let body = r#"{"channel":"a","event":"metrics:cpu","data":{"v":1.0},"key":"cpu"}"#;
    let id = api.post("/publish", body).await.id();
    let plain = publish(&api, "a", "text").await;
    let page = read(&api, "").await;
    let timestamp = page["events"][0]["timestamp"].as_u64().expect("ms");
    assert!(id.contains(&timestamp.to_string()));
    assert_eq!(
        page["events"][0],
        json!({ "id": id, "event": "metrics:cpu", "channel": "a", "data": "{\"v\":1.0}", "timestamp": timestamp, "key": "cpu" })
    );
    assert_eq!(
        page["events"][1].as_object().expect("an event").keys().collect::<Vec<_>>(),
        ["channel", "data", "id", "timestamp"]
    );
    assert_eq!((&page["channel"], &page["cursor"]), (&json!("a"), &json!(plain)));
    assert_eq!((&page["more"], &page["gap"]), (&json!(false), &json!(false)));
}

#[tokio::test]
async fn pages_go_on_where_the_last_one_ended() {
    let api = TestApi::start().await;
    let begin = api.get("/channels/a").await.json()["cursor"].as_str().expect("a cursor").to_owned();
    for n in 0..5 {
        publish(&api, "a", n).await;
        publish(&api, "b", n).await;
    }
    let mut seen = Vec::new();
    let mut cursor = begin;
    for (expected, more) in [(&["0", "1"][..], true), (&["2", "3"], true), (&["4"], false), (&[], false)] {
        let page = read(&api, &format!("?after={cursor}&limit=2")).await;
        assert_eq!((data(&page), &page["more"], &page["gap"]), (expected.to_vec(), &json!(more), &json!(false)));
        seen.extend(data(&page).iter().map(|data| (*data).to_owned()));
        cursor = page["cursor"].as_str().expect("a cursor").to_owned();
    }
    assert_eq!(seen.concat(), "01234");
}

#[tokio::test]
async fn without_a_cursor_the_newest_are_read() {
    let api = TestApi::start().await;
    for n in 0..5 {
        publish(&api, "a", n).await;
    }
    let page = read(&api, "?limit=2").await;
    assert_eq!((data(&page), &page["more"]), (vec!["3", "4"], &json!(false)));
    let after = read(&api, &format!("?after={}", page["cursor"].as_str().expect("a cursor"))).await;
    assert_eq!(data(&after), [""; 0]);
}

#[tokio::test]
async fn an_id_from_the_stream_is_a_cursor_as_it_is() {
    let api = TestApi::start().await;
    let first = publish(&api, "a", 1).await;
    publish(&api, "a", 2).await;
    assert_eq!(data(&read(&api, &format!("?after={first}@a")).await), ["2"]);
    assert_eq!(data(&read(&api, &format!("?after={first}@b?limit=5")).await), ["2"]);
}

#[tokio::test]
async fn what_is_trimmed_is_a_gap() {
    let api = TestApi::with(Partitions::ONE, 2, PublishConfig::default()).await;
    let ids = [publish(&api, "a", 0).await, publish(&api, "a", 1).await, publish(&api, "a", 2).await];
    publish(&api, "a", 3).await;
    let gone = read(&api, &format!("?after={}", ids[0])).await;
    assert_eq!((data(&gone), &gone["gap"]), (vec!["2", "3"], &json!(true)));
    let whole = read(&api, &format!("?after={}", ids[1])).await;
    assert_eq!((data(&whole), &whole["gap"]), (vec!["2", "3"], &json!(false)));
}

#[tokio::test]
async fn a_cursor_that_means_nothing_here_is_a_gap() {
    let api = TestApi::start().await;
    publish(&api, "a", 1).await;
    for foreign in ["zzzzzz-1", "8:3=zzzzzz-1"] {
        let page = read(&api, &format!("?after={foreign}")).await;
        assert_eq!(page["gap"], true, "{foreign}");
    }
    assert_eq!(data(&read(&api, "?after=8:3=zzzzzz-1").await), ["1"], "nothing that is retained is held back");
}

#[tokio::test]
async fn events_past_their_time_to_live_are_hidden() {
    let api = TestApi::start().await;
    api.post("/publish", r#"{"channel":"a","data":"short","ttl":1}"#).await.id();
    publish(&api, "a", "long").await;
    assert_eq!(data(&read(&api, "").await), ["short", "long"]);
    let hidden = async {
        while data(&read(&api, "").await) != ["long"] {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), hidden).await.expect("hidden after a second");
}

#[tokio::test]
async fn a_channel_says_where_it_stands() {
    let api = TestApi::start().await;
    let empty = api.get("/channels/a").await.json();
    assert_eq!(empty["channel"], "a");
    assert!(empty["cursor"].is_string() && empty.get("last").is_none(), "{empty}");
    let id = publish(&api, "a", 1).await;
    publish(&api, "b", 1).await;
    let standing = api.get("/channels/a").await.json();
    assert_eq!(standing["last"], *id);
    assert!(standing["cursor"].as_str() > standing["last"].as_str(), "it is of now: {standing}");
}

#[tokio::test]
async fn an_encoded_slash_belongs_to_the_channel() {
    let api = TestApi::start().await;
    publish(&api, "org/1+2", "x").await;
    for path in ["/channels/org%2F1+2/history", "/channels/org%2f1%2B2/history"] {
        assert_eq!(data(&api.get(path).await.json()), ["x"], "{path}");
    }
    publish(&api, "user:alice%40example.com", "y").await;
    assert_eq!(data(&api.get("/channels/user:alice%2540example.com/history").await.json()), ["y"]);
}

#[tokio::test]
async fn a_question_of_a_wrong_shape_is_refused() {
    let api = TestApi::start().await;
    for (query, detail) in [
        ("?limit=0", "limit: it is a number from 1 to 500"),
        ("?limit=501", "limit: "),
        ("?limit=+5", "limit: "),
        ("?limit=", "limit: "),
        ("?after=yesterday", "after: it is no event id and no cursor"),
        ("?after=", "after: "),
        ("?after=k3f9x2-5&after=k3f9x2-6", "after stands in the query more than once"),
        ("?before=k3f9x2-5", "\"before\" is no query parameter"),
        ("?after=%zz", "two hex digits"),
    ] {
        api.get(&format!("/channels/a/history{query}")).await.is_problem(400, "INVALID_INPUT", detail);
    }
}

async fn purge(api: &TestApi, path: &str) -> kit::Answer {
    api.request(&format!("DELETE {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
}

#[tokio::test]
async fn a_history_is_emptied_and_says_so_to_who_reads_on() {
    let api = TestApi::start().await;
    let once = r#"{"channel":"a","data":"secret","idempotencyKey":"k"}"#;
    let first = api.post("/publish", once).await.id();
    publish(&api, "b", "other").await;
    let answer = purge(&api, "/channels/a/history").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let cursor = answer.json()["cursor"].as_str().expect("a cursor").to_owned();
    assert_eq!(answer.json(), json!({ "success": true, "channel": "a", "cursor": cursor }));

    let gone = read(&api, &format!("?after={first}")).await;
    assert_eq!((data(&gone), &gone["gap"]), (vec![], &json!(true)));
    assert_eq!(api.data("b").await, ["other"]);
    // What was published is published: its key still says so.
    assert_eq!(api.post("/publish", once).await.id(), first);
    assert_eq!(api.data("a").await, [""; 0]);

    publish(&api, "a", "new").await;
    let whole = read(&api, &format!("?after={cursor}")).await;
    assert_eq!((data(&whole), &whole["gap"]), (vec!["new"], &json!(false)));
    // Again, and where nothing ever was.
    for path in ["/channels/a/history", "/channels/a/history", "/channels/never/history"] {
        assert_eq!(purge(&api, path).await.status, 200, "{path}");
    }
    assert_eq!(api.data("a").await, [""; 0]);
    purge(&api, "/channels/$node/history").await.is_problem(403, "FORBIDDEN", "");
    purge(&api, "/channels/a/history?after=1").await.is_problem(400, "INVALID_INPUT", "\"after\"");
    purge(&api, "/channels/a").await.is_problem(405, "METHOD_NOT_ALLOWED", "DELETE");
}
