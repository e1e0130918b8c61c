//! What edges say to each other: a PATCH by way of another edge, and disconnects, over a Redis that comes and goes.

mod support;

use std::time::{Duration, Instant};

use fanfare_testkit::{Answer, Fault, FaultProxy, Publisher, Subscriber};
use serde_json::{Value, json};
use support::PATIENCE;
use support::redis::Redis;
use support::role::{KEY, Role, token};

async fn patch(by: &Role, client_id: &str, token: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("Content-Type", "application/json"), ("Authorization", &*bearer)];
    Publisher::new(by.address).request("PATCH", &format!("/events/{client_id}"), &headers, body.to_string()).await
}

async fn disconnect(publisher: &Role, user: &str, body: &Value) {
    let path = format!("/users/{user}/connections");
    let headers = [("Content-Type", "application/json")];
    let answer = publisher.publisher(KEY).request("DELETE", &path, &headers, body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Opens a stream of `/events?channel=server:7`; with it the client id.
async fn follow(edge: &Role, token: &str) -> (Subscriber, String) {
    let mut subscriber = edge.subscribe("/events?channel=server:7", token).open().await;
    let connected = subscriber.expect_connected().await;
    let id = connected["clientId"].as_str().expect("a client id").to_owned();
    (subscriber, id)
}

/// The next event of a type. A Redis that came back makes gaps, which are not the matter here.
async fn next_of(subscriber: &mut Subscriber, event_type: &str) -> Value {
    loop {
        let message = subscriber.next().await;
        if message.event == event_type {
            return serde_json::from_str(&message.data).expect("JSON");
        }
        assert_eq!(message.event, "gap", "{message:?}");
    }
}

async fn is_turned_away(edge: &Role, token: &str) -> bool {
    edge.subscribe("/events", token).open().await.status() == 204
}

async fn wait_until_turned_away(edge: &Role, token: &str) {
    let began = Instant::now();
    while !is_turned_away(edge, token).await {
        assert!(began.elapsed() < PATIENCE, "it reads who was disconnected");
    }
}

#[tokio::test]
async fn a_patch_by_way_of_another_edge_holds_also_for_a_client_that_comes_back_there_with_its_first_url() {
    let Some(redis) = Redis::start(&[]) else { return };
    for partitions in ["1", "8"] {
        let environment = [("FANFARE_REDIS_PARTITIONS", partitions), ("FANFARE_REDIS_PREFIX", partitions)];
        let start = |role| Role::start_with(role, &redis.url(), &environment);
        let (first, second, publisher) = (start("edge"), start("edge"), start("publish"));
        let token = token(&["--user", "42", "--channel", "server:*", "--ttl", "5m"]);
        let (mut subscriber, id) = follow(&first, &token).await;
        let body = json!({"subscribe": ["server:8"], "unsubscribe": ["server:7"]});
        let answer = patch(&second, &id, &token, &body).await;
        let now = json!(["user:42", "broadcast", "server:8"]);
        assert_eq!((answer.status, &answer.json()["channels"]), (200, &now), "{}", answer.text());
        assert_eq!(next_of(&mut subscriber, "subscribed").await["channels"], now);

        let mut backend = publisher.publisher(KEY);
        for channel in ["server:7", "server:8"] {
            backend.publish(channel, channel).await.id();
        }
        assert_eq!(subscriber.next_data().await, "server:8");
        subscriber.reset();
        for channel in ["server:7", "server:8"] {
            backend.publish(channel, format!("{channel} again")).await.id();
        }
        subscriber.reconnect_to(second.address).await;
        let connected = subscriber.expect_connected().await;
        assert_eq!((&connected["channels"], &connected["resumed"]), (&now, &json!(true)));
        assert_eq!(subscriber.next_data().await, "server:8 again");
        let other = patch(&first, &id, &token, &body).await;
        assert_eq!(other.status, 404, "the connection of before is gone: {}", other.text());
    }
}

#[tokio::test]
async fn a_patch_that_an_edge_hears_late_is_done_late() {
    let Some(redis) = Redis::start(&[]) else { return };
    let proxy = FaultProxy::to(([127, 0, 0, 1], redis.port).into()).await;
    // However little is kept of events.
    let little = [("FANFARE_HISTORY_SIZE", "1")];
    let slow = Role::start_with("edge", &format!("redis://{}", proxy.address()), &little);
    let other = Role::start_with("edge", &redis.url(), &little);
    let token = token(&["--user", "42", "--channel", "server:*", "--ttl", "5m"]);
    let (mut subscriber, id) = follow(&slow, &token).await;

    proxy.set(Fault::Stall);
    let [eight, nine] = [json!({"subscribe": ["server:8"]}), json!({"subscribe": ["server:9"]})];
    let unanswered = tokio::join!(patch(&other, &id, &token, &eight), patch(&other, &id, &token, &nine));
    assert_eq!((unanswered.0.status, unanswered.1.status), (504, 504), "{}", unanswered.0.text());
    proxy.set(Fault::None);
    proxy.reset_all();
    let mut now = json!([]);
    while now.as_array().is_none_or(|channels| channels.len() < 5) {
        now = next_of(&mut subscriber, "subscribed").await["channels"].take();
    }
    let again = patch(&other, &id, &token, &eight).await;
    assert_eq!((again.status, &again.json()["channels"]), (200, &now), "{}", again.text());
    assert_eq!(next_of(&mut subscriber, "subscribed").await["channels"], now, "to repeat it is harmless");
}

#[tokio::test]
async fn a_patch_while_redis_dies_is_done_or_says_that_it_may_not_be() {
    let Some(redis) = Redis::start(&[]) else { return };
    let (port, url) = (redis.port, redis.url());
    let (first, second, publisher) =
        (Role::start("edge", &url), Role::start("edge", &url), Role::start("publish", &url));
    let token = token(&["--user", "42", "--channel", "server:*", "--ttl", "5m"]);
    let (mut subscriber, id) = follow(&first, &token).await;
    let body = json!({"subscribe": ["server:8"]});
    let (answer, redis) = tokio::join!(patch(&second, &id, &token, &body), async {
        drop(redis);
        Redis::start_at(port, &[]).expect("it starts again")
    });
    assert!([200, 503, 504].contains(&answer.status), "{} {}", answer.status, answer.text());
    if answer.status == 503 {
        assert!(answer.header("retry-after").is_some(), "{}", answer.text());
    }
    // Whatever it was: it can be had, and then it holds.
    let began = Instant::now();
    loop {
        let answer = patch(&second, &id, &token, &body).await;
        if answer.status == 200 {
            break;
        }
        assert!([503, 504].contains(&answer.status) && began.elapsed() < PATIENCE, "{}", answer.text());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let now = json!(["user:42", "broadcast", "server:7", "server:8"]);
    assert_eq!(next_of(&mut subscriber, "subscribed").await["channels"], now);
    publisher.turns(200).await;
    let mut backend = publisher.publisher(KEY);
    while backend.publish("server:8", json!("heard")).await.status != 200 {
        assert!(began.elapsed() < PATIENCE, "the publisher finds Redis again");
    }
    loop {
        let message = subscriber.next().await;
        if message.data == "heard" {
            break;
        }
        assert!(["gap", "subscribed"].contains(&&*message.event), "{message:?}");
    }
    // Without Redis at all it is told at once.
    drop(redis);
    let away = patch(&second, &id, &token, &body).await;
    assert!([503, 504].contains(&away.status), "{} {}", away.status, away.text());
}

#[tokio::test]
async fn a_disconnected_user_goes_from_every_edge_and_a_newer_token_lets_in_again() {
    let Some(redis) = Redis::start(&[]) else { return };
    let start = |role| Role::start(role, &redis.url());
    let (first, second, publisher) = (start("edge"), start("edge"), start("publish"));
    let old = token(&["--user", "42", "--ttl", "5m"]);
    let other = token(&["--user", "43", "--ttl", "5m"]);
    let mut bystander = second.subscribe("/events", &other).connected().await;
    let mut held = Vec::new();
    for edge in [&first, &second, &first] {
        held.push(edge.subscribe("/events", &old).connected().await);
    }
    disconnect(&publisher, "42", &json!({"blockSeconds": 120})).await;
    for subscriber in &mut held {
        assert_eq!(next_of(subscriber, "closing").await, json!({"reason": "disconnected"}));
        assert!(subscriber.ended().await.is_empty());
        // As an EventSource does, with what it has.
        subscriber.reconnect().await;
        assert_eq!(subscriber.status(), 204);
    }
    let new = token(&["--user", "42", "--ttl", "5m"]);
    for edge in [&first, &second] {
        assert!(is_turned_away(edge, &old).await);
        edge.subscribe("/events", &new).connected().await;
    }
    // An edge that wasn't there knows it, too.
    let third = start("edge");
    wait_until_turned_away(&third, &old).await;
    third.subscribe("/events", &new).connected().await;
    publisher.publisher(KEY).broadcast("hello").await;
    assert!(bystander.next_data().await.contains("hello"));
}

#[tokio::test]
async fn a_disconnect_while_an_edge_is_cut_off_from_redis_is_carried_out_when_it_is_back() {
    let Some(redis) = Redis::start(&[]) else { return };
    // With room for one message, what was said meanwhile is gone for good: the table tells.
    for history in ["100", "1"] {
        let environment = [("FANFARE_HISTORY_SIZE", history), ("FANFARE_REDIS_PREFIX", history)];
        let proxy = FaultProxy::to(([127, 0, 0, 1], redis.port).into()).await;
        let publisher = Role::start_with("publish", &redis.url(), &environment);
        let (old, earlier) = (token(&["--user", "42", "--ttl", "5m"]), token(&["--user", "41", "--ttl", "5m"]));
        disconnect(&publisher, "41", &json!({})).await;
        disconnect(&publisher, "nobody", &json!({"blockSeconds": 0})).await;
        let cut_off = Role::start_with("edge", &format!("redis://{}", proxy.address()), &environment);
        let other = Role::start_with("edge", &redis.url(), &environment);
        wait_until_turned_away(&cut_off, &earlier).await; // What the table said at the start it has read.
        let mut on_the_other = other.subscribe("/events", &old).connected().await;
        let mut on_it = cut_off.subscribe("/events", &old).connected().await;

        proxy.set(Fault::BlackHole);
        disconnect(&publisher, "42", &json!({})).await;
        for _ in 0..3 {
            disconnect(&publisher, "nobody", &json!({"blockSeconds": 0})).await;
        }
        assert_eq!(next_of(&mut on_the_other, "closing").await, json!({"reason": "disconnected"}));
        proxy.set(Fault::None);
        proxy.reset_all();
        assert_eq!(next_of(&mut on_it, "closing").await, json!({"reason": "disconnected"}));
        assert!(is_turned_away(&cut_off, &old).await);
    }
}
