//! What `check` finds: every mistake by its name, and nothing where all is well.

mod support;

use fanfare_backbone::{Finding, RedisConfig, RedisError, Secret, Weight, check};
use redis::Value;
use support::{FLAVOURS, Flavour, Server};

/// The rights that Fanfare needs, as docs/redis.md has them.
const RIGHTS: &str = "on >secret resetkeys resetchannels ~fanfare:* &fanfare:* -@all +ping +info +time +script|load \
                      +evalsha +hmget +hget +hset +zscore +zmscore +zadd +zrem +zrangebyscore +rpush +ltrim +llen \
                      +lindex +lrange +lpop +pexpireat +persist +get +set +publish +subscribe +unsubscribe +unwatch \
                      +hdel +pexpire +unlink +zrange +zrangebylex +zremrangebyscore";

fn config(url: &str) -> RedisConfig {
    RedisConfig { url: Secret::new(url), ..RedisConfig::default() }
}

async fn found(config: &RedisConfig) -> Vec<RedisError> {
    let findings = check(config).await;
    for Finding { error, .. } in &findings {
        let text = error.to_string();
        assert!(!text.ends_with('.') && !text.contains('\n') && text.len() < 300, "one sentence: {text}");
    }
    findings.into_iter().map(|finding| finding.error).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_server_is_left_as_it_was_found() {
    for flavour in FLAVOURS {
        let Some(server) = Server::start(flavour).await else { continue };
        assert_eq!(found(&config(&server.url())).await, []);
        assert_eq!(
            server.command("EXISTS fanfare:{0}:m fanfare:{0}:x").await,
            Value::Int(0),
            "no partition is settled"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_rights_are_enough_and_each_of_them_is_needed() {
    for flavour in FLAVOURS {
        let Some(server) = Server::start(flavour).await else { continue };
        // Before 7.0 a right to one subcommand comes by adding it.
        server.command(&format!("ACL SETUSER app {RIGHTS}")).await;
        let user = RedisConfig {
            username: Some("app".to_owned()),
            password: Some(Secret::new("secret")),
            ..config(&server.url())
        };
        assert_eq!(found(&user).await, [], "{flavour:?}");
        for (less, again) in [
            ("-evalsha", "+evalsha"),
            ("-rpush", "+rpush"),
            ("-zmscore", "+zmscore"),
            ("-subscribe", "+subscribe"),
            ("-publish", "+publish"),
            ("-pexpireat", "+pexpireat"),
            ("-hdel", "+hdel"),
            ("-pexpire", "+pexpire"),
            ("-unlink", "+unlink"),
            ("-zrange", "+zrange"),
            ("-zrangebylex", "+zrangebylex"),
            ("-zremrangebyscore", "+zremrangebyscore"),
            ("resetkeys ~other:*", "resetkeys ~fanfare:*"),
            ("resetchannels", "&fanfare:*"),
        ] {
            server.command(&format!("ACL SETUSER app {less}")).await;
            let errors = found(&user).await;
            assert!(
                errors.iter().any(|error| matches!(error, RedisError::NoRight(_))),
                "{flavour:?} {less}: {errors:?}"
            );
            server.command(&format!("ACL SETUSER app {again}")).await;
        }
        server.command("ACL SETUSER app -info").await;
        let errors = found(&user).await;
        assert!(errors.iter().any(|error| matches!(error, RedisError::InfoRefused(_))), "{flavour:?}: {errors:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_and_a_wrong_password_are_told_apart() {
    let unreachable = check(&config("redis://127.0.0.1:1")).await;
    assert!(matches!(&unreachable[..], [Finding { error: RedisError::Unreachable { .. }, weight: Weight::Passing }]));
    let unreachable = check(&config("redis://no-such-host.invalid")).await;
    assert!(matches!(&unreachable[..], [Finding { error: RedisError::Unreachable { .. }, .. }]), "{unreachable:?}");
    for flavour in FLAVOURS {
        let Some(server) = Server::start_with(flavour, &["--requirepass", "secret"]).await else { continue };
        let with = |password: &str| RedisConfig { password: Some(Secret::new(password)), ..config(&server.url()) };
        assert_eq!(found(&config(&server.url())).await, [RedisError::PasswordMissing]);
        assert_eq!(found(&with("wrong")).await, [RedisError::PasswordWrong]);
        assert_eq!(found(&with("secret")).await, []);
        assert_eq!(found(&config(&format!("redis://:secret@{}", server.address()))).await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_is_told_at_once() {
    for flavour in FLAVOURS {
        let policy = ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"];
        let Some(server) = Server::start_with(flavour, &policy).await else { continue };
        server.command("HSET fanfare:{0}:m v 2 P 8").await;
        let errors = found(&config(&server.url())).await;
        let expected = [
            RedisError::Layout("2".to_owned()),
            RedisError::Partitions { stored: "8".to_owned(), configured: 1 },
            RedisError::Evicts("allkeys-lru".to_owned()),
        ];
        assert_eq!(errors, expected);
        server.command("CONFIG SET maxmemory 0").await;
        server.command("DEL fanfare:{0}:m").await;
        let findings = check(&config(&server.url())).await;
        let evicts = RedisError::Evicts("allkeys-lru".to_owned());
        assert_eq!(
            findings,
            [Finding { error: evicts, weight: Weight::Warning }],
            "nothing is evicted without a limit"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_not_where_events_go() {
    let Some(server) = Server::start(Flavour::Redis7).await else { return };
    server.command("REPLICAOF 127.0.0.1 1").await;
    assert_eq!(found(&config(&server.url())).await, [RedisError::Replica]);
}
