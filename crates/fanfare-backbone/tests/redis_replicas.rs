//! Where replicas must have an event, a publish is confirmed when they do, and in time when they don't.

mod support;

use std::time::Duration;

use fanfare_backbone::{
    Backbone, BackboneError, Finding, PublishError, Receipt, RedisConfig, RedisError, Secret, Weight, check,
};
use fanfare_protocol::{ByNamespace, Channel, Content, Draft, Idempotency, Keep, PageLimit, Retention};
use redis::Value;
use support::{FLAVOURS, Flavour, PATIENCE, Server};
use tokio::time::{Instant, sleep, timeout};

const RETENTION: Retention = Retention {
    history: ByNamespace::everywhere(Keep { events_max: 100, age: Some(Duration::from_secs(300)) }),
    forget_age: Duration::from_secs(600),
    idempotency_window: Duration::from_secs(300),
};

/// A publish is answered within five seconds; here is some room for a busy machine.
const DEADLINE: Duration = Duration::from_millis(6_500);

/// A primary with a replica that follows it. None: it isn't installed.
async fn pair(flavour: Flavour) -> Option<(Server, Server)> {
    let primary = Server::start_with(flavour, &["--repl-diskless-sync-delay", "0"]).await?;
    let replica = Server::start_with(flavour, &["--replicaof", "127.0.0.1", &primary.port.to_string()]).await?;
    // `WAIT` alone takes a replica for one that has everything while it still loads what was there before it.
    let mut connection = primary.connection().await;
    let begin = Instant::now();
    let mut confirmed = 0;
    while confirmed == 0 {
        assert!(begin.elapsed() < PATIENCE, "it does not follow");
        let mut written = redis::pipe();
        written.set("written", 1).ignore().cmd("WAIT").arg(1).arg(100);
        (confirmed,) = written.query_async(&mut connection).await.expect("it writes");
    }
    Some((primary, replica))
}

fn config(primary: &Server, min_replicas: u16) -> RedisConfig {
    RedisConfig { url: Secret::new(primary.url()), min_replicas, ..RedisConfig::default() }
}

/// An event with an idempotency key.
fn draft(data: &str) -> Draft {
    let content = Content { name: None, key: None, ttl: None, data: data.into() };
    let mut digest = [0; 16];
    digest[..data.len()].copy_from_slice(data.as_bytes());
    let idempotency = Some(Idempotency { digest, body: digest });
    Draft { channel: Channel::parse("a").expect("a channel"), content, idempotency }
}

async fn publish(backbone: &Backbone, data: &str) -> Result<Receipt, PublishError> {
    timeout(DEADLINE, backbone.publish(vec![draft(data)])).await.expect("in time").remove(0)
}

/// Publishes until replicas confirm it.
async fn confirmed(backbone: &Backbone, data: &str) -> Receipt {
    let begin = Instant::now();
    loop {
        match publish(backbone, data).await {
            Ok(receipt) => return receipt,
            Err(error) => assert!(begin.elapsed() < PATIENCE, "{error:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn lacks_replicas(outcome: &Result<Receipt, PublishError>, have: u16, wanted: u16) -> bool {
    let expected = RedisError::Replicas { have, wanted };
    matches!(outcome, Err(PublishError::Unavailable(BackboneError::Redis(error))) if *error == expected)
}

async fn retained(server: &Server) -> Value {
    server.command("LLEN fanfare:{0}:h:a").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_replica_has_is_not_confirmed_until_one_does_nor_is_its_repetition() {
    for flavour in FLAVOURS {
        let Some((primary, replica)) = pair(flavour).await else { continue };
        let backbone = Backbone::redis(&config(&primary, 1), RETENTION).expect("a good configuration");
        let first = confirmed(&backbone, "one").await;
        assert_eq!(retained(&replica).await, Value::Int(1), "{flavour:?}: confirmed means that the replica has it");

        replica.freeze();
        for _ in 0..2 {
            let outcome = publish(&backbone, "two").await;
            assert!(lacks_replicas(&outcome, 0, 1), "{flavour:?}: {outcome:?}");
        }
        let outcome = publish(&backbone, "one").await;
        assert!(lacks_replicas(&outcome, 0, 1), "{flavour:?}: it can't be known of this one any more: {outcome:?}");
        // Others who read are not kept waiting behind those who publish.
        let channel = Channel::parse("a").expect("a channel");
        let limit = PageLimit { events_max: 10, bytes_max: 1 << 20 };
        let read = backbone.history(&channel, None, limit);
        assert_eq!(timeout(DEADLINE, read).await.expect("in time").expect("reads").events.len(), 2, "{flavour:?}");

        replica.resume();
        let second = confirmed(&backbone, "two").await;
        assert!(second.repeated && second.point.pos > first.point.pos, "{flavour:?}: it was published, once");
        assert_eq!(retained(&replica).await, Value::Int(2), "{flavour:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_too_few_replicas_everybody_who_publishes_is_answered_in_time() {
    for flavour in FLAVOURS {
        let Some((primary, _replica)) = pair(flavour).await else { continue };
        let backbone = Backbone::redis(&config(&primary, 2), RETENTION).expect("a good configuration");
        let names: Vec<_> = (0..1_000).map(|number| number.to_string()).collect();
        let outcomes = futures_util::future::join_all(names.iter().map(|name| publish(&backbone, name))).await;
        let told = outcomes.iter().filter(|outcome| lacks_replicas(outcome, 1, 2)).count();
        assert!(told >= 256 && outcomes.iter().all(Result::is_err), "{flavour:?}: {told} of {}", outcomes.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_tells_replicas_that_are_not_there_and_a_right_that_is_missing() {
    for flavour in FLAVOURS {
        let Some((primary, _replica)) = pair(flavour).await else { continue };
        assert_eq!(check(&config(&primary, 1)).await, [], "{flavour:?}");
        let error = RedisError::Replicas { have: 1, wanted: 2 };
        let passing = Finding { error, weight: Weight::Passing };
        assert_eq!(check(&config(&primary, 2)).await, [passing], "{flavour:?}: it may come");
        primary.command("ACL SETUSER default -wait").await;
        let found = check(&config(&primary, 1)).await;
        assert!(matches!(&found[..], [Finding { error: RedisError::NoRight(_), .. }]), "{flavour:?}: {found:?}");
        assert_eq!(check(&config(&primary, 0)).await, [], "{flavour:?}: where nothing waits it is not needed");
    }
}
