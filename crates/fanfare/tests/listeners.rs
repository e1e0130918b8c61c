//! Who listens, over processes of their own and a real Redis: right within seconds, whatever ends or dies.

mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use fanfare_testkit::Publisher;
use serde_json::{Value, json};
use support::redis::Redis;
use support::role::{KEY, Role, SCOPED_KEY, token};
use support::{Dev, PATIENCE};

/// Namespaces whose listeners are told, in a file of its own for each test.
fn opted_in(test: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}.toml", std::process::id()));
    std::fs::write(&path, "[namespaces.room]\npresence = true\n").expect("a file");
    path
}

/// Waits until an answer has this in it, and says how long that took. There is nothing else to wait for.
async fn told(api: &mut Publisher, path: &str, expected: &Value) -> Duration {
    let begin = Instant::now();
    loop {
        let answer = api.get(path).await;
        let body = if answer.status == 200 { answer.json() } else { Value::Null };
        let holds = expected.as_object().expect("fields").iter().all(|(name, value)| body[name] == *value);
        if holds {
            return begin.elapsed();
        }
        assert!(begin.elapsed() < PATIENCE, "{path} is {}, not {expected}", answer.text());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn users(listed: &[(&str, u32)]) -> Value {
    listed.iter().map(|(user, connections)| json!({"userId": user, "connections": connections})).collect()
}

#[tokio::test]
async fn an_edge_that_is_killed_leaves_no_ghosts_and_one_that_drains_takes_its_listeners_along() {
    let Some(redis) = Redis::start(&[]) else { return };
    let file = opted_in("ghosts");
    let start = |role| Role::with_file(role, &redis.url(), &file);
    let (mut killed, mut drained, publisher) = (start("edge"), start("edge"), start("publish"));
    let mut api = publisher.publisher(KEY);
    let of = |user: &str| token(&["--user", user, "--channel", "room:*"]);
    let (alice, bob) = (of("alice"), of("bob"));
    let _streams = [
        killed.subscribe("/events?channel=room:1", &alice).connected().await,
        killed.subscribe("/events?channel=room:1", &bob).connected().await,
        drained.subscribe("/events?channel=room:1", &alice).connected().await,
    ];
    let anonymous = drained.subscribe("/events/room:1", &token(&["--channel", "room:*"])).connected().await;
    let everybody = json!({
        "channel": "room:1", "listeners": 4, "anonymous": 1, "users": users(&[("alice", 2), ("bob", 1)]), "more": false
    });
    let took = told(&mut api, "/channels/room:1/presence", &everybody).await;
    println!("who came is listed after {took:?}");
    told(&mut api, "/channels/room:1", &json!({"listeners": 4})).await;
    told(&mut api, "/users/alice", &json!({"connections": 2})).await;
    let active = api.get("/channels?prefix=room").await.json();
    assert_eq!(active, json!({"channels": [{"channel": "room:1", "listeners": 4}], "more": false}));
    let others = publisher.publisher(SCOPED_KEY).get("/channels").await.json();
    assert_eq!(others, json!({"channels": [], "more": false}), "none within the key's reach");

    // With -9 nobody says goodbye, so only the lease ends it; it must not end what lives.
    drop(anonymous);
    killed.process.signal("KILL");
    let took = told(
        &mut api,
        "/channels/room:1/presence",
        &json!({"listeners": 1, "anonymous": 0, "users": users(&[("alice", 1)])}),
    )
    .await;
    println!("the ghosts are gone after {took:?}");
    assert_eq!(api.get("/users/bob").await.json()["connections"], 0);

    drained.process.signal("TERM");
    assert_eq!(drained.process.wait().code(), Some(0));
    let gone = api.get("/channels/room:1/presence").await.json();
    assert_eq!(gone, json!({"channel": "room:1", "listeners": 0, "anonymous": 0, "users": [], "more": false}));
    assert_eq!(redis.command(&["KEYS", "fanfare:{n:*"]).trim(), "", "at once, and nothing is left in Redis");
    killed.process.wait();
    _ = std::fs::remove_file(file);
}

#[tokio::test]
async fn after_redis_has_lost_everything_the_directory_is_back_within_seconds() {
    let Some(redis) = Redis::start(&[]) else { return };
    let (port, file) = (redis.port, opted_in("lost"));
    let start = |role| Role::with_file(role, &redis.url(), &file);
    let (edge, publisher) = (start("edge"), start("publish"));
    let mut api = publisher.publisher(KEY);
    let alice = token(&["--user", "alice", "--channel", "room:*"]);
    let _stream = edge.subscribe("/events?channel=room:1", &alice).connected().await;
    let here = json!({"listeners": 1, "users": users(&[("alice", 1)])});
    told(&mut api, "/channels/room:1/presence", &here).await;

    // Flushed under a running edge, which is not told of it.
    redis.command(&["FLUSHALL"]);
    told(&mut api, "/channels/room:1/presence", &here).await;

    drop(redis);
    assert_eq!(api.get("/channels/room:1/presence").await.status, 503);
    // Who leaves and who comes meanwhile is told when it is back.
    let _other = edge.subscribe("/events?channel=room:2", &alice).open().await;
    let _redis = Redis::start_at(port, &[]).expect("it starts");
    let took = told(&mut api, "/channels/room:1/presence", &here).await;
    told(&mut api, "/channels/room:2/presence", &here).await;
    told(&mut api, "/users/alice", &json!({"connections": 2})).await;
    println!("the directory is back after {took:?}");
    _ = std::fs::remove_file(file);
}

#[tokio::test]
async fn operators_see_an_edge_and_of_its_users_only_who_shows_the_admin_key() {
    const ADMIN_KEY: &str = "an-admin-key-of-26-letters";
    let Some(redis) = Redis::start(&[]) else { return };
    let start = |role| Role::start_with(role, &redis.url(), &[("FANFARE_ADMIN_KEY", ADMIN_KEY)]);
    let (edge, without_key, publisher) = (start("edge"), Role::start("edge", &redis.url()), start("publish"));
    let alice = token(&["--user", "alice"]);
    let _streams = [
        edge.subscribe("/events", &alice).connected().await,
        without_key.subscribe("/events", &alice).connected().await,
    ];
    let ask = async |role: &Role, key: Option<&str>| {
        let bearer = key.map(|key| format!("Bearer {key}"));
        let headers: Vec<_> = bearer.iter().map(|bearer| ("Authorization", bearer.as_str())).collect();
        Publisher::new(role.admin).request("GET", "/stats", &headers, "").await
    };
    let busiest = json!([{"userId": "alice", "connections": 1}]);
    for (role, key, users) in [
        (&edge, Some(ADMIN_KEY), &busiest),
        (&edge, None, &Value::Null),
        (&without_key, None, &Value::Null),
        (&without_key, Some(ADMIN_KEY), &Value::Null),
    ] {
        let answer = ask(role, key).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let stats = answer.json();
        assert_eq!((&stats["connections"], &stats["users"], &stats["busiestUsers"]), (&json!(1), &json!(1), users));
        assert_eq!(answer.text().contains("alice"), users.is_array(), "{}", answer.text());
    }
    let wrong = ask(&edge, Some(KEY)).await;
    assert!(wrong.status == 401 && wrong.text().contains("the admin key is wrong"), "{}", wrong.text());
    let publishers = ask(&publisher, None).await;
    assert!(publishers.status == 404 && publishers.text().contains("edges have /stats"), "{}", publishers.text());
    assert_eq!(Publisher::new(edge.address).get("/stats").await.status, 404, "not for the outside");
}

#[tokio::test]
async fn in_dev_both_apis_answer_on_one_address_and_a_history_is_the_same_whoever_asks() {
    let file = opted_in("dev");
    let dev = Dev::start(&["--config", file.to_str().expect("UTF-8")]);
    let mut api = Publisher::new(dev.address);
    let minted = api.post("/tokens", &json!({"userId": "42"})).await.json();
    let id = api.publish("room:1", "one").await.id();
    let plain = api.get("/channels/room:1/history").await;
    assert_eq!(plain.json()["events"][0]["id"], *id);
    let bearer = format!("Bearer {}", minted["token"].as_str().expect("a token"));
    for (path, header) in [
        ("/channels/room:1/history?user=42", ("Accept", "*/*")),
        ("/channels/room:1/history", ("Authorization", &*bearer)),
        ("/channels/room:1/history", ("Authorization", "Bearer some-key")),
    ] {
        let answer = api.request("GET", path, &[header], "").await;
        assert_eq!(answer.text(), plain.text(), "{path} {header:?}");
    }
    for (path, part) in [("/channels/$call:1/history", "$call:1"), ("/channels/room:1/history?limit=0", "limit")] {
        assert!(api.get(path).await.text().contains(part), "{path}");
    }
    let stream = fanfare_testkit::Subscribe::new(dev.address, "/events?user=42&channel=room:1").connected().await;
    told(&mut api, "/channels/room:1/presence", &json!({"users": users(&[("42", 1)])})).await;
    drop(stream);
    told(&mut api, "/channels/room:1/presence", &json!({"listeners": 0, "users": []})).await;
    _ = std::fs::remove_file(file);
}
