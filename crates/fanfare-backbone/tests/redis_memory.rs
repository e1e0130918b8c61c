//! What a notified user costs Redis: one event of 200 bytes in an inbox of its own. `FANFARE_FULL=1` for a million.

mod support;

use std::time::{Duration, Instant};

use fanfare_backbone::{Backbone, RedisConfig, Secret};
use fanfare_protocol::{ByNamespace, Content, Draft, EventType, Keep, Retention, UserId};
use redis::Value;
use support::{FLAVOURS, Server};

const RETENTION: Retention = Retention {
    history: ByNamespace::everywhere(Keep { events_max: 100, age: Some(Duration::from_secs(3_600)) }),
    forget_age: Duration::from_secs(7_200),
    idempotency_window: Duration::from_secs(300),
};

/// A number that stands after something in what the server tells of itself.
async fn told(server: &Server, section: &str, before: &str) -> u64 {
    let Value::BulkString(info) = server.command(&format!("INFO {section}")).await else { panic!("it tells") };
    let info = String::from_utf8(info).expect("text");
    let (_, rest) = info.split_once(before).expect("Redis tells it");
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notified_user_costs_less_than_a_kibibyte() {
    #[expect(clippy::disallowed_methods, reason = "a test asks how long it may take")]
    let users: u64 = if std::env::var("FANFARE_FULL").is_ok() { 1_000_000 } else { 100_000 };
    for flavour in FLAVOURS {
        let Some(server) = Server::start(flavour).await else { continue };
        let config = RedisConfig { url: Secret::new(server.url()), ..RedisConfig::default() };
        let backbone = Backbone::redis(&config, RETENTION).expect("a good configuration");
        let draft = |user: u64| {
            let name = Some(EventType::parse("notification").expect("valid"));
            let content = Content { name, key: None, ttl: None, data: "x".repeat(200).into() };
            let channel = UserId::parse(&user.to_string()).expect("valid").inbox();
            Draft { channel, content, idempotency: None }
        };
        backbone.publish(vec![draft(0)]).await.remove(0).expect("published");
        let before = told(&server, "memory", "used_memory:").await;
        let begin = Instant::now();
        for batch in 0..users / 1_000 {
            let drafts = (1..=1_000).map(|n| draft(batch * 1_000 + n)).collect();
            for outcome in backbone.publish(drafts).await {
                outcome.expect("published");
            }
        }
        let rate = users as f64 / begin.elapsed().as_secs_f64();
        let bytes = (told(&server, "memory", "used_memory:").await - before) / users;
        let stats = told(&server, "commandstats", "cmdstat_evalsha:calls=").await;
        let micros = told(&server, "commandstats", &format!("cmdstat_evalsha:calls={stats},usec=")).await;
        let micros = micros as f64 / users as f64;
        println!(
            "{flavour:?}: {bytes} bytes per notified user of {users}, published at {rate:.0} a second, \
             {micros:.1} µs of the server's time each"
        );
        assert!(bytes < 1_024, "{flavour:?}: {bytes} bytes");
    }
}
