//! Redis in trouble: what is published is answered within its deadline, what isn't sure to be whole ends the link, and
//! nothing is written by half.

#[path = "support/links.rs"]
mod links;
#[path = "support/scripted.rs"]
mod scripted;
mod support;

use std::time::Duration;

use fanfare_backbone::{
    Backbone, BackboneError, Link, LinkEvent, PublishError, Receipt, RedisConfig, RedisError, Secret,
};
use fanfare_protocol::{
    ByNamespace, Draft, Idempotency, Keep, Marker, PageLimit, Partition, Point, Position, Query, Retention,
};
use links::{arrivals, channel, draft};
use redis::Value;
use support::{FLAVOURS, PATIENCE, Server};
use tokio::time::{Instant, sleep, timeout};

const RETENTION: Retention = Retention {
    history: ByNamespace::everywhere(Keep { events_max: 100, age: Some(Duration::from_secs(300)) }),
    forget_age: Duration::from_secs(600),
    idempotency_window: Duration::from_secs(300),
};
const LIMIT: PageLimit = PageLimit { events_max: 1_000, bytes_max: 1 << 20 };
const PARTITION: Partition = 0;

/// A publish is answered within five seconds; here is some room for a busy machine.
const DEADLINE: Duration = Duration::from_millis(6_500);

struct Bed {
    server: Server,
    backbone: Backbone,
}

impl Bed {
    fn on(server: Server, config: RedisConfig) -> Self {
        let config = RedisConfig { url: Secret::new(server.url()), ..config };
        Self { backbone: Backbone::redis(&config, RETENTION).expect("a good configuration"), server }
    }

    /// With a user that has the rights of docs/redis.md and no more.
    async fn with_user(server: Server) -> Self {
        let rights = "+@read +@write +@pubsub +@scripting +@connection +info +time";
        server.command(&format!("ACL SETUSER app on >secret resetchannels ~fanfare:* &fanfare:* {rights}")).await;
        let (username, password) = (Some("app".to_owned()), Some(Secret::new("secret")));
        Self::on(server, RedisConfig { username, password, ..RedisConfig::default() })
    }

    /// A link that is subscribed to some channels and to its markers.
    async fn link(&self, channels: &[&str]) -> Link {
        let begin = Instant::now();
        let mut link = loop {
            match self.backbone.connect(PARTITION).await {
                Ok(link) => break link,
                Err(error) => assert!(begin.elapsed() < PATIENCE, "{error}"),
            }
            sleep(Duration::from_millis(20)).await;
        };
        link.subscribe(channels.iter().map(|name| channel(name)).collect());
        link.subscribe_marker();
        arrivals(&mut link, channels.len() + 1).await;
        link
    }

    async fn publish(&self, data: &str) -> Result<Receipt, PublishError> {
        self.backbone.publish(vec![draft("a", data)]).await.remove(0)
    }

    /// Publishes until it works again.
    async fn publish_again(&self, data: &str) -> Point {
        let begin = Instant::now();
        loop {
            match self.publish(data).await {
                Ok(receipt) => return receipt.point,
                Err(error) => assert!(begin.elapsed() < PATIENCE, "{error:?}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn retained(&self) -> Vec<String> {
        let history = self.backbone.history(&channel("a"), None, LIMIT).await.expect("reads");
        history.events.iter().map(|event| event.content.data.to_string()).collect()
    }

    async fn standing(&self) -> Marker {
        self.backbone.standing(&channel("a")).await.expect("stands")
    }
}

/// Waits for the link's end and says why it came.
async fn ended(link: &mut Link) -> BackboneError {
    let mut arrived = Vec::new();
    while timeout(PATIENCE, link.arrivals(&mut arrived, 1_000)).await.expect("it ends").is_some() {}
    link.broken_by().expect("it says why")
}

/// A marker comes back through the subscription, with what was asked.
async fn marker(link: &mut Link, nonce: u64) -> Marker {
    link.barrier(nonce, vec![channel("a")]);
    let arrived = arrivals(link, 2).await;
    let marker = arrived.iter().find_map(|event| match event {
        LinkEvent::Marker(marker) => Some((**marker).clone()),
        _ => None,
    });
    marker.expect("it comes")
}

/// Runs a test on every server that is installed, one after another.
macro_rules! on_each {
    ($($test:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            for flavour in FLAVOURS {
                if let Some(server) = Server::start(flavour).await {
                    body::$test(server).await;
                }
            }
        }
    )*};
}

on_each! {
    a_restart_with_data_ends_the_link_and_begins_an_epoch_that_knows_the_one_before,
    a_restart_without_data_begins_anew,
    killed_subscriptions_end_the_link_and_nothing_else,
    a_server_that_hangs_ends_the_link_and_publishes_are_answered_in_time,
    a_paused_server_is_answered_for_in_time,
    rights_that_are_taken_away_end_the_link_and_refuse_whole_events,
    forgotten_scripts_are_loaded_again,
    a_server_out_of_memory_refuses_whole_events,
    a_foreign_key_under_our_name_fails_its_own_event_alone,
    a_script_that_fails_half_way_leaves_a_partition_that_goes_on,
    another_number_of_partitions_and_another_layout_are_refused,
    a_replica_takes_no_events,
    a_promotion_begins_an_epoch_without_a_restart,
}

mod body {
    use super::*;

    pub(super) async fn a_restart_with_data_ends_the_link_and_begins_an_epoch_that_knows_the_one_before(
        server: Server,
    ) {
        let mut bed = Bed::on(server, RedisConfig::default());
        let first = bed.publish_again("one").await;
        let mut link = bed.link(&["a"]).await;
        bed.server.command("SAVE").await;
        bed.server.kill();
        assert!(matches!(ended(&mut link).await, BackboneError::Redis(RedisError::Closed)));
        let begin = Instant::now();
        let refused = bed.publish("nobody there").await.expect_err("nobody there");
        assert!(matches!(&refused, PublishError::Unavailable(_)), "{refused:?}");
        assert!(begin.elapsed() < DEADLINE);
        assert!(bed.backbone.connect(PARTITION).await.is_err());

        bed.server.start_again().await;
        let second = bed.publish_again("two").await;
        let standing = bed.standing().await;
        assert_ne!(first.epoch, second.epoch);
        assert_eq!((standing.previous, standing.base), (Some(first.epoch), first.pos));
        let mut link = bed.link(&["a"]).await;
        assert_eq!(marker(&mut link, 5).await.lasts, [(channel("a"), Some(second.pos))]);
        let history = bed.backbone.history(&channel("a"), Some(first), LIMIT).await.expect("reads");
        assert!(history.gap, "what the first server still took may be lost");
    }

    pub(super) async fn a_restart_without_data_begins_anew(server: Server) {
        let mut bed = Bed::on(server, RedisConfig::default());
        let first = bed.publish_again("one").await;
        let mut link = bed.link(&["a"]).await;
        bed.server.kill();
        bed.server.start_again().await;
        ended(&mut link).await;
        // A barrier, before anything is published, already tells the new epoch.
        let mut link = bed.link(&["a"]).await;
        let found = marker(&mut link, 1).await;
        assert!(found.epoch != first.epoch && found.previous.is_none() && found.floor > first.pos);
        assert_eq!(found.lasts, [(channel("a"), None)]);
        bed.publish_again("two").await;
        assert_eq!(bed.retained().await, ["two"]);
    }

    pub(super) async fn killed_subscriptions_end_the_link_and_nothing_else(server: Server) {
        let bed = Bed::on(server, RedisConfig::default());
        bed.publish_again("one").await;
        let mut link = bed.link(&["a"]).await;
        bed.server.command("CLIENT KILL TYPE pubsub").await;
        assert!(matches!(ended(&mut link).await, BackboneError::Redis(RedisError::Closed)));
        bed.publish("two").await.expect("publishers are not concerned");
        // And the other half.
        let mut link = bed.link(&["a"]).await;
        bed.server.command("CLIENT KILL TYPE normal").await;
        assert!(matches!(ended(&mut link).await, BackboneError::Redis(RedisError::Closed)));
    }

    pub(super) async fn a_server_that_hangs_ends_the_link_and_publishes_are_answered_in_time(server: Server) {
        let bed = Bed::on(server, RedisConfig::default());
        bed.publish_again("one").await;
        let mut link = bed.link(&["a"]).await;
        bed.server.freeze();
        let begin = Instant::now();
        let publish = async {
            let outcomes = futures_util::future::join_all((0..50).map(|_| bed.publish("hangs"))).await;
            assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(PublishError::Unavailable(_)))));
            begin.elapsed()
        };
        let (answered, reason) = tokio::join!(publish, ended(&mut link));
        assert!(matches!(reason, BackboneError::Redis(RedisError::TimedOut)), "{reason:?}");
        assert!(answered < DEADLINE, "answered after {answered:?}");
        assert!(begin.elapsed() < DEADLINE + Duration::from_secs(1), "noticed after {:?}", begin.elapsed());
        assert!(timeout(DEADLINE, bed.backbone.connect(PARTITION)).await.expect("it gives up").is_err());
        bed.server.resume();
        bed.publish_again("two").await;
        bed.link(&["a"]).await;
    }

    pub(super) async fn a_paused_server_is_answered_for_in_time(server: Server) {
        let bed = Bed::on(server, RedisConfig::default());
        bed.publish_again("one").await;
        bed.server.command("CLIENT PAUSE 7000").await;
        let begin = Instant::now();
        let once = Idempotency { digest: [1; 16], body: [1; 16] };
        let draft = Draft { idempotency: Some(once), ..draft("a", "two") };
        let outcome = bed.backbone.publish(vec![draft.clone()]).await.remove(0);
        assert!(matches!(outcome, Err(PublishError::Unavailable(_))) && begin.elapsed() < DEADLINE);
        // The outcome is unknown, so it is repeated, and published once whatever became of the first.
        while bed.backbone.publish(vec![draft.clone()]).await.remove(0).is_err() {
            assert!(begin.elapsed() < PATIENCE);
        }
        assert_eq!(bed.retained().await, ["one", "two"]);
    }

    pub(super) async fn rights_that_are_taken_away_end_the_link_and_refuse_whole_events(server: Server) {
        let bed = Bed::with_user(server).await;
        bed.publish_again("one").await;
        let stood = bed.standing().await;

        // No channels: also the subscription's.
        bed.server.command("ACL SETUSER app resetchannels").await;
        let refused = bed.publish("never").await.expect_err("no right to the channel");
        assert!(
            matches!(&refused, PublishError::Unavailable(BackboneError::Redis(RedisError::NoRight(_)))),
            "{refused:?}"
        );
        assert_eq!((bed.retained().await, bed.standing().await.last), (vec!["one".to_owned()], stood.last));
        let mut link = bed.backbone.connect(PARTITION).await.expect("connects");
        link.subscribe(vec![channel("a")]);
        let reason = ended(&mut link).await;
        assert!(matches!(reason, BackboneError::Redis(RedisError::NoRight(_))), "{reason:?}");

        // A live link: no scripts any more.
        bed.server.command("ACL SETUSER app &fanfare:*").await;
        let mut link = bed.link(&["a"]).await;
        bed.server.command("ACL SETUSER app -evalsha").await;
        link.barrier(1, vec![channel("a")]);
        let reason = ended(&mut link).await;
        assert!(matches!(reason, BackboneError::Redis(RedisError::NoRight(_))), "{reason:?}");
        bed.publish("never").await.expect_err("no right to scripts");

        // No keys.
        bed.server.command("ACL SETUSER app +evalsha resetkeys").await;
        bed.publish("never").await.expect_err("no right to the keys");
        bed.server.command("ACL SETUSER app ~fanfare:*").await;

        // A live link whose user is gone, password and all.
        let mut link = bed.link(&["a"]).await;
        bed.server.command("ACL DELUSER app").await;
        ended(&mut link).await;
        let reason = bed.backbone.connect(PARTITION).await.expect_err("no such user");
        assert!(matches!(reason, BackboneError::Redis(RedisError::PasswordWrong)), "{reason:?}");
        bed.publish("never").await.expect_err("no such user");
    }

    pub(super) async fn forgotten_scripts_are_loaded_again(server: Server) {
        let bed = Bed::on(server, RedisConfig::default());
        bed.publish_again("one").await;
        let mut link = bed.link(&["a"]).await;
        bed.server.command("SCRIPT FLUSH").await;
        bed.publish("two").await.expect("it is loaded again");
        bed.server.command("SCRIPT FLUSH").await;
        link.read(0, 1, Query::After(channel("a"), Position(0), LIMIT));
        link.read(0, 2, Query::Newest(channel("a"), LIMIT));
        link.read(0, 3, Query::Lasts(vec![channel("a")]));
        assert!(matches!(arrivals(&mut link, 1).await[0], LinkEvent::Event(..)));
        let mut tags: Vec<_> = arrivals(&mut link, 3).await.iter().map(tag).collect();
        tags.sort_unstable();
        assert_eq!(tags, [1, 2, 3]);
        bed.server.command("SCRIPT FLUSH").await;
        marker(&mut link, 9).await;
        bed.server.command("SCRIPT FLUSH").await;
        bed.standing().await;
    }

    pub(super) async fn a_server_out_of_memory_refuses_whole_events(server: Server) {
        let bed = Bed::on(server, RedisConfig::default());
        bed.server.command("CONFIG SET maxmemory 1").await;
        let refused = bed.publish("never").await.expect_err("no room");
        assert!(matches!(refused, PublishError::Unavailable(BackboneError::Full)), "{refused:?}");
        assert_eq!(bed.server.command("DBSIZE").await, Value::Int(0), "not even a new epoch");
        bed.server.command("CONFIG SET maxmemory 0").await;
        let first = bed.publish_again("one").await;
        let mut link = bed.link(&["a"]).await;

        bed.server.command("CONFIG SET maxmemory 1").await;
        let once = Some(Idempotency { digest: [1; 16], body: [1; 16] });
        let drafts = vec![draft("a", "never"), Draft { idempotency: once, ..draft("b", "never") }, draft("a", "never")];
        for outcome in bed.backbone.publish(drafts).await {
            assert!(matches!(outcome, Err(PublishError::Unavailable(BackboneError::Full))), "{outcome:?}");
        }
        assert_eq!(marker(&mut link, 1).await.last, first.pos, "edges go on, and nothing was published");
        assert_eq!(bed.retained().await, ["one"]);
        bed.server.command("CONFIG SET maxmemory 0").await;
        let second = bed.publish_again("two").await;
        let arrived = arrivals(&mut link, 1).await;
        let LinkEvent::Event(_, event) = &arrived[0] else { panic!("{arrived:?}") };
        assert_eq!((event.pos, event.prev.pos, event.prev.exact), (second.pos, first.pos, true), "nothing in between");
    }

    pub(super) async fn a_foreign_key_under_our_name_fails_its_own_event_alone(server: Server) {
        let bed = Bed::on(server, RedisConfig::default());
        bed.server.command("SET fanfare:{0}:h:foreign x").await;
        let drafts = vec![draft("a", "one"), draft("foreign", "never"), draft("a", "two")];
        let outcomes = bed.backbone.publish(drafts).await;
        assert!(outcomes[0].is_ok() && outcomes[1].is_err() && outcomes[2].is_ok(), "{outcomes:?}");
        assert_eq!(bed.retained().await, ["one", "two"]);
    }

    pub(super) async fn a_script_that_fails_half_way_leaves_a_partition_that_goes_on(server: Server) {
        let bed = Bed::on(server, RedisConfig::default());
        let mut link = bed.link(&["a"]).await;
        bed.server.command(&format!("LPUSH fanfare:{{0}}:d:{} x", "07".repeat(16))).await;
        let once = Some(Idempotency { digest: [7; 16], body: [7; 16] });
        let drafts = vec![draft("a", "one"), Draft { idempotency: once, ..draft("a", "never") }, draft("a", "never")];
        for outcome in bed.backbone.publish(drafts).await {
            outcome.expect_err("nobody knows how far it came");
        }
        let arrived = arrivals(&mut link, 1).await;
        let LinkEvent::Event(_, one) = &arrived[0] else { panic!("{arrived:?}") };
        let stood = marker(&mut link, 1).await;
        assert_eq!((stood.last, &stood.lasts[0].1), (one.pos, &Some(one.pos)), "what was sent counts");
        bed.publish("two").await.expect("it goes on");
        let arrived = arrivals(&mut link, 1).await;
        let LinkEvent::Event(_, two) = &arrived[0] else { panic!("{arrived:?}") };
        assert_eq!((two.prev.pos, two.prev.exact), (one.pos, true));
        assert_eq!(bed.retained().await, ["one", "two"]);
    }

    pub(super) async fn another_number_of_partitions_and_another_layout_are_refused(server: Server) {
        let bed = Bed::on(server, RedisConfig::default());
        bed.publish_again("one").await;
        let config = RedisConfig { url: Secret::new(bed.server.url()), partitions: 2, ..RedisConfig::default() };
        let other = Backbone::redis(&config, RETENTION).expect("a good configuration");
        let expected = RedisError::Partitions { stored: "1".to_owned(), configured: 2 };
        // Whatever lies in the first partition, since it is the one that both have.
        let partitions = other.partitions();
        let name = (0..).map(|n| format!("c:{n}")).find(|name| partitions.of(&channel(name)) == 0).expect("some");
        let refused = other.publish(vec![draft(&name, "never")]).await.remove(0).expect_err("refused");
        let PublishError::Unavailable(BackboneError::Redis(reason)) = refused else { panic!("{refused:?}") };
        assert_eq!(reason, expected);
        let mut link = other.connect(0).await.expect("connects");
        link.barrier(1, vec![]);
        assert!(matches!(ended(&mut link).await, BackboneError::Redis(reason) if reason == expected));

        bed.server.command("HSET fanfare:{0}:m v 2").await;
        let refused = bed.publish("never").await.expect_err("refused");
        let PublishError::Unavailable(BackboneError::Redis(reason)) = refused else { panic!("{refused:?}") };
        assert_eq!(reason, RedisError::Layout("2".to_owned()));
    }

    pub(super) async fn a_replica_takes_no_events(server: Server) {
        let bed = Bed::on(server, RedisConfig::default());
        bed.publish_again("one").await;
        let mut link = bed.link(&["a"]).await;
        bed.server.command("REPLICAOF 127.0.0.1 1").await;
        let refused = bed.publish("never").await.expect_err("a replica");
        assert!(matches!(refused, PublishError::Unavailable(BackboneError::Redis(RedisError::Replica))), "{refused:?}");
        link.barrier(1, vec![]);
        assert!(matches!(ended(&mut link).await, BackboneError::Redis(RedisError::Replica)));
    }

    pub(super) async fn a_promotion_begins_an_epoch_without_a_restart(server: Server) {
        let bed = Bed::on(server, RedisConfig::default());
        let first = bed.publish_again("one").await;
        bed.server.command("REPLICAOF 127.0.0.1 1").await;
        bed.server.command("REPLICAOF NO ONE").await;
        let mut link = bed.link(&["a"]).await;
        let found = marker(&mut link, 1).await;
        assert!(found.epoch != first.epoch);
        assert_eq!((found.previous, found.base), (Some(first.epoch), first.pos));
        assert_eq!(marker(&mut link, 2).await.epoch, found.epoch, "once");
    }
}

fn tag(event: &LinkEvent) -> u64 {
    match event {
        LinkEvent::Answered(_, tag, _) => *tag,
        other => panic!("not an answer: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_replica_changes_the_identity_and_not_the_epoch() {
    for flavour in FLAVOURS {
        let (Some(server), Some(replica)) = (Server::start(flavour).await, Server::start(flavour).await) else {
            continue;
        };
        let bed = Bed::on(server, RedisConfig::default());
        let first = bed.publish_again("one").await;
        replica.command(&format!("REPLICAOF 127.0.0.1 {}", bed.server.port)).await;
        let begin = Instant::now();
        while bed.server.command("WAIT 1 100").await != Value::Int(1) {
            assert!(begin.elapsed() < PATIENCE);
        }
        assert_eq!(bed.publish_again("two").await.epoch, first.epoch);
        // But the replica, once it is promoted, is another history.
        while replica.command("LLEN fanfare:{0}:h:a").await != Value::Int(2) {
            assert!(begin.elapsed() < PATIENCE);
        }
        replica.command("REPLICAOF NO ONE").await;
        let bed = Bed::on(replica, RedisConfig::default());
        assert_ne!(bed.publish_again("three").await.epoch, first.epoch);
        assert_eq!(bed.retained().await, ["one", "two", "three"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_redis_cuts_off_for_its_backlog_ends_the_link() {
    for flavour in FLAVOURS {
        let limit = ["--client-output-buffer-limit", "pubsub", "400kb", "100kb", "1"];
        let Some(server) = Server::start_with(flavour, &limit).await else { continue };
        let bed = Bed::on(server, RedisConfig::default());
        let mut link = bed.link(&["a"]).await;
        // One script call, so all of it waits for the subscription at once.
        let data = "x".repeat(300 * 1024);
        for outcome in bed.backbone.publish((0..3).map(|_| draft("a", &data)).collect()).await {
            outcome.expect("published");
        }
        assert!(matches!(ended(&mut link).await, BackboneError::Redis(RedisError::Closed)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unasked_unsubscribe_and_other_surprises_end_the_link() {
    // A server that says what no Redis says.
    for surprise in [
        "*3\r\n$11\r\nunsubscribe\r\n$15\r\nfanfare:{0}:c:a\r\n:0\r\n",
        "*3\r\n$9\r\nsubscribe\r\n$15\r\nfanfare:{0}:c:b\r\n:1\r\n",
        "*3\r\n$7\r\nmessage\r\n$15\r\nfanfare:{0}:c:b\r\n$1\r\nx\r\n",
        "*3\r\n$7\r\nmessage\r\n$15\r\nfanfare:{0}:c:a\r\n$1\r\nx\r\n",
        "*3\r\n$12\r\nsunsubscribe\r\n$1\r\na\r\n:0\r\n",
        "-NOPERM no\r\n",
        "hello\r\n",
        "$99999999999\r\n",
    ] {
        let server = scripted::Scripted::start(surprise).await;
        let config = RedisConfig { url: Secret::new(&*server.url), ..RedisConfig::default() };
        let backbone = Backbone::redis(&config, RETENTION).expect("a good configuration");
        let mut link = backbone.connect(PARTITION).await.expect("connects");
        link.subscribe(vec![channel("a")]);
        let reason = ended(&mut link).await;
        assert!(
            matches!(reason, BackboneError::Redis(RedisError::Unexpected(_) | RedisError::NoRight(_))),
            "{reason:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_differs_is_known_before_a_link_is_used_and_followed_by_its_barriers() {
    let server = scripted::Scripted::start("").await;
    let config = RedisConfig { url: Secret::new(&*server.url), ..RedisConfig::default() };
    let backbone = Backbone::redis(&config, RETENTION).expect("a good configuration");
    let mut link = backbone.connect(PARTITION).await.expect("connects");
    let is_ahead = |link: &Link, expected: Duration| {
        let ahead = u64::try_from(link.clock_ahead_micros()).expect("it is ahead");
        Duration::from_micros(ahead).abs_diff(expected) < PATIENCE
    };
    assert!(is_ahead(&link, scripted::AHEAD), "{}", link.clock_ahead_micros());
    for nonce in 0..16 {
        link.barrier(nonce, vec![]);
        arrivals(&mut link, 1).await;
    }
    assert!(is_ahead(&link, 2 * scripted::AHEAD), "{}", link.clock_ahead_micros());
}
