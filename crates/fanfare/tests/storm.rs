//! What many clients do at once: they come back together, or stand still together. With `FANFARE_FULL=1` there are more
//! of them.

mod support;

use std::time::{Duration, Instant};

use fanfare_testkit::{Publisher, Subscriber};
use support::PATIENCE;
use support::redis::Redis;
use support::role::{KEY, Role, token};
use tokio_util::task::TaskTracker;

/// Events that are published while nobody is there.
const MISSED: usize = 5;

/// What a reader that stands still may cost in the memory of the edge.
const STALLED_BYTES_MAX: f64 = 64.0 * 1024.0;

/// What an edge's memory may grow by besides, whoever reads: buffers of its own, and what the allocator keeps.
const SLACK_BYTES: f64 = 3.0 * 1024.0 * 1024.0;

fn is_full() -> bool {
    std::env::var_os("FANFARE_FULL").is_some()
}

/// An edge with room for all of one user's connections, over a Redis, and somebody who publishes.
struct Scene {
    publisher: Publisher,
    _publish: Role,
    edge: Role,
    redis: Redis,
    /// Opens any room.
    token: String,
}

impl Scene {
    fn start() -> Option<Self> {
        let redis = Redis::start(&[])?;
        let edge = Role::start_with("edge", &redis.url(), &[("FANFARE_MAX_CONNECTIONS_PER_USER", "20000")]);
        let publish = Role::start("publish", &redis.url());
        let token = token(&["--user", "42", "--channel", "room:*"]);
        Some(Self { publisher: publish.publisher(KEY), _publish: publish, edge, redis, token })
    }
}

/// How often Redis was asked for history.
fn history_reads(redis: &Redis) -> u64 {
    let stats = redis.command(&["INFO", "commandstats"]);
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_lrange:calls=")?.split(',').next());
    calls.map_or(0, |calls| calls.parse().expect("a number"))
}

/// Waits for a metric to say so; there is nothing else to wait for.
async fn turns(role: &Role, metric: &str, is_so: impl Fn(f64) -> bool) {
    let begin = Instant::now();
    while !is_so(role.metric(metric)) {
        assert!(begin.elapsed() < 2 * PATIENCE, "{metric} is {}", role.metric(metric));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Comes back, and reads what was missed.
async fn come_back(mut subscriber: Subscriber) -> (Subscriber, Vec<String>) {
    subscriber.reconnect().await;
    let mut heard = Vec::new();
    while heard.len() < MISSED {
        let message = subscriber.next().await;
        assert!(!["gap", "closing"].contains(&&*message.event), "{message:?}");
        if message.event == "message" {
            heard.push(message.data);
        }
    }
    (subscriber, heard)
}

#[tokio::test]
async fn everybody_is_cut_off_and_comes_back_at_once_and_is_replayed_from_memory() {
    let Some(mut scene) = Scene::start() else { return };
    let Scene { publisher, edge, redis, token, .. } = &mut scene;
    let mut subscribers = Vec::new();
    for n in 0..if is_full() { 5_000 } else { 200 } {
        let path = format!("/events?channel=room:{}", n % 10);
        subscribers.push(edge.subscribe(&path, token).connected().await);
    }
    for round in 0..3 {
        subscribers.iter_mut().for_each(Subscriber::reset);
        turns(edge, "fanfare_connections", |open| open == 0.0).await;
        let missed: Vec<_> = (0..MISSED).map(|n| format!("round {round}, event {n}")).collect();
        for data in &missed {
            publisher.publish("broadcast", &**data).await.id();
        }
        let reads = history_reads(redis);
        let clients = TaskTracker::new();
        let coming: Vec<_> = subscribers.into_iter().map(|subscriber| clients.spawn(come_back(subscriber))).collect();
        subscribers = Vec::new();
        for client in coming {
            let (subscriber, heard) = client.await.expect("it comes back");
            assert_eq!(heard, missed);
            subscribers.push(subscriber);
        }
        assert_eq!(history_reads(redis), reads, "what everybody missed is in memory");
    }
    // Nothing came twice: the next that anybody hears is the next that there is.
    publisher.publish("broadcast", "at last").await.id();
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.next().await.data, "at last");
    }
}

#[tokio::test]
async fn readers_that_stand_still_cost_little_and_are_closed_and_another_one_hears_everything() {
    let Some(mut scene) = Scene::start() else { return };
    let Scene { publisher, edge, token, .. } = &mut scene;
    let count = if is_full() { 200 } else { 50 };
    let mut quick = edge.subscribe("/events/room:quick", token).connected().await;
    let mut stalled = Vec::new();
    for n in 0..count {
        // Each on a channel of its own: what waits for one is shared with nobody.
        let subscribe = edge.subscribe(&format!("/events/room:{n}"), token).receive_buffer(4096);
        stalled.push(subscribe.connected().await);
    }
    let before = edge.metric("process_resident_memory_bytes");
    let (mut largest, data) = (before, "x".repeat(2_000));
    let closed = || edge.metric("fanfare_connections_closed_total{reason=\"too-slow\"}");
    for round in 0.. {
        assert!(round < 400, "only {} of {count} are closed", closed());
        for n in 0..count {
            publisher.publish(&format!("room:{n}"), &*data).await.id();
        }
        let told = format!("round {round}");
        publisher.publish("room:quick", &*told).await.id();
        assert_eq!(quick.next().await.data, told);
        largest = edge.metric("process_resident_memory_bytes").max(largest);
        if closed() == f64::from(count) {
            break;
        }
    }
    let each = (largest - before - SLACK_BYTES) / f64::from(count);
    assert!(each <= STALLED_BYTES_MAX, "a reader that stands still costs {each} bytes");
}
