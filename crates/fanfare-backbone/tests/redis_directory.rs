//! The directory in Redis: what nodes told ends with their lease, is told anew where it was lost, and what it costs.

mod support;

use std::time::{Duration, Instant};

use fanfare_backbone::{Backbone, Counted, LEASE, Node, NodeId, RedisConfig, ReportError, Secret};
use fanfare_protocol::{ByNamespace, Channel, Keep, Retention, UserId};
use redis::Value;
use support::{FLAVOURS, PATIENCE, Server};
use tokio::time::sleep;

const RETENTION: Retention = Retention {
    history: ByNamespace::everywhere(Keep { events_max: 100, age: Some(Duration::from_secs(300)) }),
    forget_age: Duration::from_secs(600),
    idempotency_window: Duration::from_secs(300),
};

fn backbone(server: &Server) -> Backbone {
    let config = RedisConfig { url: Secret::new(server.url()), ..RedisConfig::default() };
    Backbone::redis(&config, RETENTION).expect("a good configuration")
}

fn channel(name: &str) -> Counted {
    Counted::Channel(Channel::parse(name).expect("valid"))
}

async fn begun(backbone: &Backbone, id: NodeId) -> Node {
    let mut node = backbone.node(id);
    node.begin().await.expect("begins");
    node
}

async fn count(backbone: &Backbone, entry: &Counted) -> u64 {
    backbone.counts(std::slice::from_ref(entry)).await.expect("reads")[0]
}

/// The keys of the directory, and how long they are still kept.
async fn kept(server: &Server) -> Vec<(String, i64)> {
    let mut connection = server.connection().await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("fanfare:{n*").query_async(&mut connection).await.expect("keys");
    let mut kept = Vec::new();
    for key in keys {
        let ms = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.expect("a time");
        kept.push((key, ms));
    }
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_is_forgotten_with_its_lease_and_one_that_reports_is_not() {
    for flavour in FLAVOURS {
        let Some(server) = Server::start(flavour).await else { continue };
        let backbone = backbone(&server);
        let (mut living, mut dying) =
            (begun(&backbone, NodeId::random()).await, begun(&backbone, NodeId::random()).await);
        living.report(&[(channel("a"), 1)]).await.expect("told");
        dying.report(&[(channel("a"), 2)]).await.expect("told");
        let lease = i64::try_from(LEASE.as_millis()).expect("seconds");
        let keys = kept(&server).await;
        assert!(keys.len() == 5 && keys.iter().all(|(_, ms)| (0..=lease).contains(ms)), "{flavour:?}: {keys:?}");

        let begin = Instant::now();
        while count(&backbone, &channel("a")).await != 1 {
            assert!(begin.elapsed() < LEASE + PATIENCE, "{flavour:?}: a ghost");
            living.report(&[]).await.expect("a report without changes renews the lease");
            sleep(Duration::from_millis(500)).await;
        }
        living.report(&[]).await.expect("told");
        let nodes = server.command("ZCARD fanfare:{nodes}").await;
        assert_eq!((kept(&server).await.len(), nodes), (3, Value::Int(1)), "{flavour:?}: nothing is left of it");

        living.leave().await.expect("leaves");
        assert_eq!(kept(&server).await, [], "{flavour:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_does_not_follow_what_redis_knows_changes_nothing_and_says_so() {
    for flavour in FLAVOURS {
        let Some(mut server) = Server::start(flavour).await else { continue };
        let backbone = backbone(&server);
        let id = NodeId::random();
        let mut node = begun(&backbone, id).await;
        node.report(&[(channel("a"), 1)]).await.expect("told");
        let number = server.command(&format!("HGET fanfare:{{n:{id}}}:n v")).await;
        node.report(&[(channel("b"), 1)]).await.expect("told");
        let forgotten = async |node: &mut Node, why: &str| {
            let outcome = node.report(&[(channel("c"), 1)]).await;
            assert!(matches!(outcome, Err(ReportError::Forgotten)), "{flavour:?} {why}: {outcome:?}");
            assert_eq!(count(&backbone, &channel("c")).await, 0, "{flavour:?} {why}");
        };

        // A replica that lacks the last report took over.
        let Value::BulkString(number) = number else { panic!("{number:?}") };
        server.command(&format!("HSET fanfare:{{n:{id}}}:n v {}", String::from_utf8_lossy(&number))).await;
        forgotten(&mut node, "failover").await;
        node.begin().await.expect("begins");
        node.report(&[(channel("a"), 7)]).await.expect("told");
        assert_eq!(backbone.counts(&[channel("a"), channel("b")]).await.expect("reads"), [7, 0]);

        // One that is late comes from before the last beginning.
        let mut anew = begun(&backbone, id).await;
        forgotten(&mut node, "late").await;
        anew.report(&[(channel("a"), 2)]).await.expect("told");

        server.command("FLUSHALL").await;
        forgotten(&mut anew, "flushed").await;
        anew.begin().await.expect("begins");
        anew.report(&[(channel("a"), 2)]).await.expect("told");

        server.kill();
        let outcome = anew.report(&[]).await;
        assert!(matches!(outcome, Err(ReportError::Backbone(_))), "{flavour:?}: {outcome:?}");
        server.start_again().await;
        let begin = Instant::now();
        while let Err(error) = anew.begin().await {
            assert!(begin.elapsed() < PATIENCE, "{error}");
        }
        anew.report(&[(channel("a"), 3)]).await.expect("told");
        assert_eq!(count(&backbone, &channel("a")).await, 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_memory_a_report_is_refused_and_nothing_outlives_its_lease() {
    for flavour in FLAVOURS {
        let Some(server) = Server::start(flavour).await else { continue };
        let backbone = backbone(&server);
        let mut node = begun(&backbone, NodeId::random()).await;
        node.report(&[(channel("a"), 2)]).await.expect("told");
        server.command("CONFIG SET maxmemory 1").await;
        assert!(matches!(node.report(&[(channel("b"), 2)]).await, Err(ReportError::Backbone(_))), "{flavour:?}");
        _ = node.begin().await; // It may find room, since it clears away first.
        let keys = kept(&server).await;
        assert!(keys.iter().all(|(_, ms)| *ms >= 0), "{flavour:?}: kept for ever: {keys:?}");
        server.command("CONFIG SET maxmemory 0").await;
        node.begin().await.expect("begins");
        node.report(&[(channel("b"), 2)]).await.expect("told");
        assert_eq!(count(&backbone, &channel("b")).await, 2);
    }
}

/// Memory, and microseconds in commands since the last look.
async fn used(server: &Server) -> (u64, u64) {
    let Value::BulkString(memory) = server.command("INFO memory").await else { panic!("it tells") };
    let memory = String::from_utf8(memory).expect("text");
    let bytes = memory.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("it tells").trim();
    let Value::BulkString(stats) = server.command("INFO commandstats").await else { panic!("it tells") };
    let stats = String::from_utf8(stats).expect("text");
    // Of the scripts; what they call is in there.
    let script = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:")).unwrap_or("usec=0,");
    let micros = script.split("usec=").nth(1).and_then(|rest| rest.split(',').next()).expect("it tells");
    server.command("CONFIG RESETSTAT").await;
    (bytes.parse().expect("a number"), micros.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_users_who_come_and_go_cost() {
    const USERS: u32 = 10_000;
    for flavour in FLAVOURS {
        let Some(server) = Server::start(flavour).await else { continue };
        let backbone = backbone(&server);
        let mut node = begun(&backbone, NodeId::random()).await;
        // A user on their inbox, the broadcast and a dashboard that lists who looks at it.
        let dashboard = Channel::parse("server:7").expect("valid");
        let everyone = |count: u32| {
            let entries = (0..USERS).flat_map(|n| {
                let user = UserId::parse(&format!("{n:08}")).expect("valid");
                [
                    Counted::Channel(user.inbox()),
                    Counted::User(user.clone()),
                    Counted::Listener(dashboard.clone(), Some(user)),
                ]
            });
            let changes: Vec<_> = entries.map(|entry| (entry, count)).collect();
            let all = [Counted::Channel(Channel::broadcast()), Counted::Channel(dashboard.clone())];
            [changes, all.map(|entry| (entry, count * USERS)).to_vec()].concat()
        };
        let (before, _) = used(&server).await;
        node.report(&everyone(1)).await.expect("told");
        let (after, came) = used(&server).await;
        node.report(&[]).await.expect("told");
        let (_, nothing) = used(&server).await;
        let page = backbone.listeners(&dashboard, None, 500).await.expect("reads");
        assert_eq!(page.entries.len(), 500);
        _ = used(&server).await;
        node.report(&everyone(0)).await.expect("told");
        let (_, went) = used(&server).await;
        let bytes = (after - before) / u64::from(USERS);
        println!(
            "{flavour:?}: {bytes} bytes for a user with an inbox who is listed on one channel; of {USERS} users who \
             came, {came} µs of the server's time, who went, {went} µs; a report without changes {nothing} µs"
        );
        assert!(bytes < 512, "{flavour:?}: {bytes} bytes");
        assert_eq!(backbone.active_channels("", "", 10).await.expect("reads").entries, []);
    }
}
