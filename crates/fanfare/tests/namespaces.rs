//! One file of namespaces for edges and publish APIs, as processes over a real Redis.

mod support;

use serde_json::json;
use support::redis::Redis;
use support::role::{KEY, Role, SCOPED_KEY, token};

const FILE: &str = r#"
history_age = "1s"

[namespaces.prices]
history_size = 1
history_age = "off"
replay = 1
max_payload = 8
"#;

#[tokio::test]
async fn a_board_shows_its_last_value_to_who_comes_until_it_is_emptied() {
    let Some(redis) = Redis::start(&[]) else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("fanfare.toml");
    std::fs::write(&file, FILE).expect("a file");
    let start = |role| Role::with_file(role, &redis.url(), &file);
    let (first, second, publisher) = (start("edge"), start("edge"), start("publish"));
    let token = token(&["--user", "42", "--channel", "*"]);
    let mut backend = publisher.publisher(KEY);

    let id = backend.publish("prices:eur", "1.0").await.id();
    backend.publish("prices:eur", "1.1").await.id();
    let too_long = backend.publish("prices:eur", "123456789").await;
    assert_eq!((too_long.status, &too_long.json()["code"]), (413, &json!("PAYLOAD_TOO_LARGE")));
    // Long after anything else would have been forgotten.
    let forgotten = publisher.publisher(KEY).publish("news", "x").await.id();
    while backend.get("/channels/news").await.json().get("last").is_some_and(|last| *last == *forgotten) {
        backend.publish("other", "y").await.id();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }

    let path = "/events/prices:eur";
    let mut staying = first.subscribe(path, &token).connected().await;
    assert_eq!(staying.next_data().await, "1.1");
    let mut other = second.subscribe(path, &token).connected().await;
    assert_eq!(other.next_data().await, "1.1");
    let mut back = second.subscribe(path, &token).after(&id).connected().await;
    assert_eq!(back.next_data().await, "1.1", "nothing is missing, and no gap is told");

    let path_of_history = "/channels/prices:eur/history";
    let scoped = publisher.publisher(SCOPED_KEY).request("DELETE", path_of_history, &[], "").await;
    assert_eq!(scoped.status, 403, "who may not publish there may not empty it: {}", scoped.text());
    let emptied = backend.request("DELETE", path_of_history, &[], "").await;
    assert_eq!(emptied.status, 200, "{}", emptied.text());
    let mut late = second.subscribe(path, &token).after(&id).connected().await;
    let gap = late.next().await;
    assert!(gap.event == "gap" && gap.data.contains("expired"), "{gap:?}");
    let mut fresh = first.subscribe(path, &token).connected().await;
    backend.publish("prices:eur", "1.2").await.id();
    for subscriber in [&mut staying, &mut other, &mut back, &mut late, &mut fresh] {
        assert_eq!(subscriber.next_data().await, "1.2", "and nothing else came");
    }
}
