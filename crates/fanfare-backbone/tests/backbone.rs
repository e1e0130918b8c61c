//! What every backbone does, whatever is behind it: one suite, run against the in-process one, Redis 6.2, Redis 7 and
//! Valkey.

#[path = "support/links.rs"]
mod links;
mod support;

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use fanfare_backbone::{
    Backbone, Block, Counted, LinkEvent, Node, NodeId, PublishError, RedisConfig, Secret, all_edges,
};
use fanfare_protocol::{
    Answer, ByNamespace, Confirmation, Draft, Idempotency, Keep, PageLimit, Partitions, Position, Query, Retention,
    UserId,
};
use links::{arrivals, channel, draft};
use support::{Flavour, PATIENCE, Server};
use tokio::time::timeout;

const RETENTION: Retention = Retention {
    history: ByNamespace::everywhere(Keep { events_max: 5, age: Some(Duration::from_secs(300)) }),
    forget_age: Duration::from_secs(600),
    idempotency_window: Duration::from_secs(300),
};
const LIMIT: PageLimit = PageLimit { events_max: 100, bytes_max: 1 << 20 };

/// A backbone, and the server behind it, if there is one.
struct Bed {
    backbone: Backbone,
    _server: Option<Server>,
}

impl Bed {
    async fn start(flavour: Option<Flavour>, partitions: u16) -> Option<Self> {
        let Some(flavour) = flavour else {
            let partitions = Partitions::new(partitions).expect("1 to 64");
            return Some(Self { backbone: Backbone::in_process(partitions, RETENTION), _server: None });
        };
        let server = Server::start(flavour).await?;
        let config = RedisConfig { url: Secret::new(server.url()), partitions, ..RedisConfig::default() };
        let backbone = Backbone::redis(&config, RETENTION).expect("a good configuration");
        Some(Self { backbone, _server: Some(server) })
    }
}

macro_rules! suite {
    ($($test:ident($partitions:literal)),* $(,)?) => {
        suite!(in_process, None, $($test($partitions)),*);
        suite!(redis_6, Some(Flavour::Redis6), $($test($partitions)),*);
        suite!(redis_7, Some(Flavour::Redis7), $($test($partitions)),*);
        suite!(valkey, Some(Flavour::Valkey), $($test($partitions)),*);
    };
    ($backbone:ident, $flavour:expr, $($test:ident($partitions:literal)),*) => {
        mod $backbone {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    if let Some(bed) = Bed::start($flavour, $partitions).await {
                        super::$test(bed.backbone.clone()).await;
                    }
                }
            )*
        }
    };
}

suite! {
    a_link_hears_its_channels_in_order_between_its_confirmations(1),
    a_marker_stands_in_the_stream_where_the_barrier_ran(1),
    every_marker_divides_what_was_published_before_it_from_what_came_after(1),
    an_idempotency_key_publishes_once_and_tells_a_repetition_from_a_mistake(1),
    history_is_read_from_a_point_on_and_says_where_something_is_gone(1),
    reads_of_a_link_come_back_with_shard_and_tag(1),
    however_many_reads_are_asked_for_at_once_all_are_answered(1),
    a_link_that_is_not_read_breaks_and_holds_nobody_up(1),
    each_partition_is_heard_over_its_own_link(8),
    one_caller_events_keep_their_order(8),
    a_disconnect_is_remembered_and_told_to_all_edges(8),
    thousands_of_channels_are_subscribed_and_each_is_confirmed(1),
    what_nodes_tell_is_added_up_until_they_leave(1),
    the_directory_is_read_in_sorted_pages(1),
}

fn once(name: &str, data: &str, key: u8, body: u8) -> Draft {
    Draft { idempotency: Some(Idempotency { digest: [key; 16], body: [body; 16] }), ..draft(name, data) }
}

async fn a_link_hears_its_channels_in_order_between_its_confirmations(backbone: Backbone) {
    let mut link = backbone.connect(0).await.expect("connects");
    backbone.publish(vec![draft("a", "before")]).await;
    link.subscribe(vec![channel("a")]);
    let confirmed = arrivals(&mut link, 1).await;
    assert!(matches!(&confirmed[0], LinkEvent::Confirmed(c, Confirmation::Subscribed) if *c == channel("a")));
    backbone.publish(vec![draft("a", "one"), draft("b", "other"), draft("a", "two")]).await;
    let arrived = arrivals(&mut link, 2).await;
    let data = |event: &LinkEvent| match event {
        LinkEvent::Event(_, event) => (event.content.data.to_string(), event.pos, event.prev),
        other => panic!("not an event: {other:?}"),
    };
    let ((one, first, prev), (two, _, prev_of_two)) = (data(&arrived[0]), data(&arrived[1]));
    assert_eq!((one.as_str(), two.as_str()), ("one", "two"));
    assert!(prev.exact && prev_of_two.exact && prev_of_two.pos == first, "each names the one before it");

    link.unsubscribe(vec![channel("a")]);
    let left = arrivals(&mut link, 1).await;
    assert!(matches!(&left[0], LinkEvent::Confirmed(_, Confirmation::Unsubscribed)));
    backbone.publish(vec![draft("a", "after")]).await;
    link.subscribe_marker();
    assert!(matches!(arrivals(&mut link, 1).await[0], LinkEvent::MarkerConfirmed), "and nothing else");
}

async fn a_disconnect_is_remembered_and_told_to_all_edges(backbone: Backbone) {
    let mut link = backbone.connect(backbone.partitions().of(&all_edges())).await.expect("connects");
    link.subscribe(vec![all_edges()]);
    arrivals(&mut link, 1).await;
    let user = |id: &str| UserId::parse(id).expect("valid");
    let now = SystemTime::now();
    let blocks = [("42", 60), ("42", 30), ("alice@example.com", 0)]
        .map(|(id, seconds)| Block::new(user(id), now, Duration::from_secs(seconds)));
    for block in &blocks {
        backbone.disconnect(block).await.expect("there is room");
        let arrived = arrivals(&mut link, 1).await;
        let LinkEvent::Event(_, told) = &arrived[0] else { panic!("{arrived:?}") };
        assert_eq!(Block::decode(&told.content.data).as_ref(), Some(block));
    }
    let mut remembered = backbone.blocks().await.expect("it can be read");
    remembered.sort_by_key(|block| std::cmp::Reverse(block.until));
    assert_eq!(remembered, blocks);

    let long_ago = Block::new(user("43"), now - Duration::from_secs(3600), Duration::from_secs(60));
    backbone.disconnect(&long_ago).await.expect("there is room");
    assert_eq!(backbone.blocks().await.expect("it can be read").len(), blocks.len(), "what is over is forgotten");
}

async fn a_marker_stands_in_the_stream_where_the_barrier_ran(backbone: Backbone) {
    let mut link = backbone.connect(0).await.expect("connects");
    link.subscribe(vec![channel("a")]);
    link.subscribe_marker();
    arrivals(&mut link, 2).await;
    backbone.publish(vec![draft("a", "before")]).await;
    link.barrier(7, vec![channel("a"), channel("unknown")]);
    let mut arrived = arrivals(&mut link, 3).await;
    backbone.publish(vec![draft("a", "after")]).await;
    arrived.extend(arrivals(&mut link, 1).await);
    let answered = arrived.iter().position(|event| matches!(event, LinkEvent::BarrierAnswered(7)));
    arrived.remove(answered.expect("the answer comes beside the stream"));
    let LinkEvent::Event(epoch, before) = &arrived[0] else { panic!("{arrived:?}") };
    let LinkEvent::Marker(marker) = &arrived[1] else { panic!("{arrived:?}") };
    assert_eq!((marker.nonce, marker.epoch, marker.last), (7, *epoch, before.pos));
    assert_eq!(marker.lasts, [(channel("a"), Some(before.pos)), (channel("unknown"), None)]);
    assert!(matches!(&arrived[2], LinkEvent::Event(_, after) if after.pos > marker.last));
}

async fn every_marker_divides_what_was_published_before_it_from_what_came_after(backbone: Backbone) {
    const EVENTS: usize = 2_000;
    let mut link = backbone.connect(0).await.expect("connects");
    link.subscribe(vec![channel("a")]);
    link.subscribe_marker();
    arrivals(&mut link, 2).await;
    let publish = async {
        for n in 0..EVENTS / 10 {
            backbone.publish((0..10).map(|m| draft("a", &(n * 10 + m).to_string())).collect()).await;
            tokio::task::yield_now().await; // In one process nothing else would make it wait.
        }
    };
    let listen = async {
        let (mut events, mut markers, mut last, mut bound) = (0, 0_u64, Position(0), Position(0));
        link.barrier(0, vec![channel("a")]);
        while events < EVENTS {
            for arrival in arrivals(&mut link, 1).await {
                match arrival {
                    LinkEvent::Event(_, event) => {
                        assert_eq!(event.content.data.parse(), Ok(events), "in order, once");
                        assert!(event.pos > bound, "it came before the marker, and the marker says otherwise");
                        last = event.pos;
                        events += 1;
                    }
                    LinkEvent::Marker(marker) => {
                        assert!(events == 0 || marker.last == last && marker.lasts[0].1 == Some(last));
                        bound = marker.last;
                        markers += 1;
                        link.barrier(markers, vec![channel("a")]);
                    }
                    _ => {}
                }
            }
        }
        markers
    };
    let ((), markers) = tokio::join!(publish, listen);
    assert!(markers > 3, "only {markers} markers in between");
}

async fn an_idempotency_key_publishes_once_and_tells_a_repetition_from_a_mistake(backbone: Backbone) {
    let results = backbone.publish(vec![once("a", "x", 1, 1), once("a", "x", 1, 1), once("a", "y", 1, 2)]).await;
    let first = results[0].as_ref().expect("published");
    let again = results[1].as_ref().expect("the same");
    assert_eq!((first.point, first.repeated, again.point, again.repeated), (first.point, false, first.point, true));
    assert!(matches!(results[2], Err(PublishError::Mismatch)));
    let history = backbone.history(&channel("a"), None, LIMIT).await.expect("reads");
    assert_eq!(history.events.len(), 1);
}

async fn history_is_read_from_a_point_on_and_says_where_something_is_gone(backbone: Backbone) {
    let mut points = Vec::new();
    for n in 0..8 {
        points.push(backbone.publish(vec![draft("a", &n.to_string())]).await[0].clone().expect("published").point);
    }
    let read = async |after| {
        let history = backbone.history(&channel("a"), after, LIMIT).await.expect("reads");
        (history.events.iter().map(|event| event.content.data.to_string()).collect::<String>(), history.gap)
    };
    assert_eq!(read(None).await, ("34567".to_owned(), false));
    assert_eq!(read(Some(points[5])).await, ("67".to_owned(), false));
    assert_eq!(read(Some(points[7])).await, (String::new(), false));
    assert_eq!(read(Some(points[0])).await, ("34567".to_owned(), true));
    let limit = PageLimit { events_max: 2, bytes_max: 1 << 20 };
    let page = backbone.history(&channel("a"), Some(points[3]), limit).await.expect("reads");
    assert!(page.more && page.events.len() == 2);
}

async fn reads_of_a_link_come_back_with_shard_and_tag(backbone: Backbone) {
    let mut link = backbone.connect(0).await.expect("connects");
    backbone.publish(vec![draft("a", "one"), draft("a", "two")]).await;
    link.read(3, 9, Query::After(channel("a"), Position(0), LIMIT));
    link.read(3, 10, Query::Newest(channel("a"), PageLimit { events_max: 1, bytes_max: 1 }));
    link.read(3, 11, Query::Lasts(vec![channel("a"), channel("b")]));
    link.read(3, 12, Query::Lasts(vec![]));
    let arrived = arrivals(&mut link, 4).await;
    assert!(matches!(&arrived[0], LinkEvent::Answered(3, 9, Answer::Page(_, page)) if page.events.len() == 2));
    let LinkEvent::Answered(3, 10, Answer::Page(_, page)) = &arrived[1] else { panic!("{arrived:?}") };
    assert_eq!(page.events.len(), 1);
    let LinkEvent::Answered(3, 11, Answer::Lasts(lasts, floor, epoch)) = &arrived[2] else { panic!("{arrived:?}") };
    assert!(lasts[0].1.is_some() && lasts[1].1.is_none() && *floor > Position(0));
    assert!(epoch.is_some() && *epoch == page.epoch, "each answer names the epoch: {epoch:?} {:?}", page.epoch);
    assert!(matches!(&arrived[3], LinkEvent::Answered(3, 12, Answer::Lasts(lasts, ..)) if lasts.is_empty()));
}

async fn however_many_reads_are_asked_for_at_once_all_are_answered(backbone: Backbone) {
    let mut link = backbone.connect(0).await.expect("connects");
    backbone.publish(vec![draft("a", "one")]).await;
    for tag in 0..500 {
        link.read(0, tag, Query::After(channel("a"), Position(0), LIMIT));
    }
    let arrived = arrivals(&mut link, 500).await;
    for (tag, event) in arrived.iter().enumerate() {
        assert!(matches!(event, LinkEvent::Answered(0, of, Answer::Page(..)) if *of == tag as u64), "{event:?}");
    }
}

async fn a_link_that_is_not_read_breaks_and_holds_nobody_up(backbone: Backbone) {
    let mut link = backbone.connect(0).await.expect("connects");
    let mut good = backbone.connect(0).await.expect("connects");
    link.subscribe(vec![channel("a")]);
    good.subscribe(vec![channel("b")]);
    arrivals(&mut link, 1).await;
    arrivals(&mut good, 1).await;
    let data = "x".repeat(8 * 1024);
    for _ in 0..200 {
        for outcome in backbone.publish((0..100).map(|_| draft("a", &data)).collect()).await {
            outcome.expect("published");
        }
    }
    let mut arrived = Vec::new();
    while timeout(PATIENCE, link.arrivals(&mut arrived, 1_000)).await.expect("it ends").is_some() {}
    assert!(arrived.len() < 20_000, "the queue is bounded, and its end says that something may be missing");
    backbone.publish(vec![draft("b", "still heard")]).await;
    arrivals(&mut good, 1).await;
}

async fn each_partition_is_heard_over_its_own_link(backbone: Backbone) {
    let channels: Vec<_> = (0..40).map(|n| channel(&format!("c:{n}"))).collect();
    let partitions = backbone.partitions();
    let of = |partition| channels.iter().filter(move |channel| partitions.of(channel) == partition).cloned();
    let mut links = Vec::new();
    for partition in partitions.all() {
        let mut link = backbone.connect(partition).await.expect("connects");
        let own: Vec<_> = of(partition).collect();
        link.subscribe(own.clone());
        arrivals(&mut link, own.len()).await;
        links.push((link, partition, own));
    }
    let receipts = backbone.publish(channels.iter().map(|c| draft(c.as_str(), c.as_str())).collect()).await;
    for (channel, receipt) in channels.iter().zip(receipts) {
        assert_eq!(receipt.expect("published").partition, partitions.of(channel));
    }
    for (mut link, partition, own) in links {
        let mut heard: HashSet<_> = own.iter().cloned().collect();
        for arrival in arrivals(&mut link, own.len()).await {
            let LinkEvent::Event(_, event) = arrival else { panic!("{arrival:?}") };
            assert!(heard.remove(&event.channel), "{} over the link of {partition}", event.channel);
        }
    }
}

async fn one_caller_events_keep_their_order(backbone: Backbone) {
    let publish = async |name: &'static str| {
        let drafts = (0..1_000).map(|n| draft(name, &n.to_string())).collect();
        let receipts: Vec<_> =
            backbone.publish(drafts).await.into_iter().map(|r| r.expect("published").point.pos).collect();
        assert!(receipts.is_sorted_by(|one, two| one < two));
    };
    tokio::join!(publish("a"), publish("b"), publish("c"), publish("a"));
    let history = backbone.history(&channel("b"), None, LIMIT).await.expect("reads");
    let data: Vec<_> = history.events.iter().map(|event| event.content.data.to_string()).collect();
    assert_eq!(data, ["995", "996", "997", "998", "999"]);
}

async fn thousands_of_channels_are_subscribed_and_each_is_confirmed(backbone: Backbone) {
    let channels: Vec<_> = (0..12_000).map(|n| channel(&format!("user:{n}"))).collect();
    let mut link = backbone.connect(0).await.expect("connects");
    for (what, again) in [(Confirmation::Subscribed, false), (Confirmation::Unsubscribed, true)] {
        for batch in channels.chunks(1_000) {
            if again { link.unsubscribe(batch.to_vec()) } else { link.subscribe(batch.to_vec()) }
        }
        for (arrival, expected) in arrivals(&mut link, channels.len()).await.into_iter().zip(&channels) {
            assert!(matches!(&arrival, LinkEvent::Confirmed(c, w) if c == expected && *w == what), "{arrival:?}");
        }
    }
}

async fn node(backbone: &Backbone, changes: &[(Counted, u32)]) -> Node {
    let mut node = backbone.node(NodeId::random());
    node.begin().await.expect("begins");
    node.report(changes).await.expect("told");
    node
}

fn follows(name: &str) -> Counted {
    Counted::Channel(channel(name))
}

fn user(id: &str) -> UserId {
    UserId::parse(id).expect("a valid user id")
}

async fn what_nodes_tell_is_added_up_until_they_leave(backbone: Backbone) {
    let (alice, bob) = (Counted::User(user("alice")), Counted::User(user("bob\u{fc}")));
    let nameless = Counted::Listener(channel("a"), None);
    let entries = [follows("a"), follows("b"), alice.clone(), bob.clone(), nameless.clone()];
    let counts = async || backbone.counts(&entries).await.expect("reads");
    assert_eq!(counts().await, [0; 5]);

    let mut first = node(&backbone, &[(follows("a"), 3), (alice.clone(), 1), (nameless.clone(), 2)]).await;
    let second = node(&backbone, &[(follows("a"), 1), (follows("b"), 2), (alice.clone(), 2), (bob, 1)]).await;
    assert_eq!(counts().await, [4, 2, 3, 1, 2]);

    // From several to one, to none, and back.
    first.report(&[(follows("a"), 1), (alice.clone(), 0), (nameless.clone(), 1)]).await.expect("told");
    assert_eq!(counts().await, [2, 2, 2, 1, 1]);
    first.report(&[(follows("a"), 0), (nameless.clone(), 0)]).await.expect("told");
    first.report(&[(follows("b"), 5), (alice, 4)]).await.expect("told");
    assert_eq!(counts().await, [1, 7, 6, 1, 0]);

    second.leave().await.expect("leaves");
    assert_eq!(counts().await, [0, 5, 4, 0, 0]);
    first.begin().await.expect("begins anew");
    assert_eq!(counts().await, [0; 5]);
}

async fn the_directory_is_read_in_sorted_pages(backbone: Backbone) {
    // More than one batch of changes, over two nodes that share some of them.
    let name = |n: usize| format!("server:{n:04}");
    let told = |range: std::ops::Range<usize>| range.map(|n| (follows(&name(n)), 1)).collect::<Vec<_>>();
    let others = [(follows("serves"), 1), (follows("server"), 1), (follows("user:42"), 1)];
    let first = node(&backbone, &[&told(0..1_600)[..], &others].concat()).await;
    let second = node(&backbone, &told(1_400..2_500)).await;
    let (mut after, mut read) = (String::new(), Vec::new());
    loop {
        let page = backbone.active_channels("server:", &after, 400).await.expect("reads");
        after = page.entries.last().expect("no page is empty").0.to_string();
        read.extend(page.entries);
        if !page.more {
            break;
        }
    }
    let expected = (0..2_500).map(|n| (channel(&name(n)), if (1_400..1_600).contains(&n) { 2 } else { 1 }));
    assert_eq!(read, expected.collect::<Vec<_>>());
    let all = backbone.active_channels("", "server:2498", 10).await.expect("reads");
    let names: Vec<_> = all.entries.iter().map(|(channel, _)| channel.as_str()).collect();
    assert_eq!((names, all.more), (vec!["server:2499", "serves", "user:42"], false));
    for (prefix, after) in [("server:", "zebra"), ("zebra", ""), ("server:25", "")] {
        assert_eq!(backbone.active_channels(prefix, after, 10).await.expect("reads").entries, [], "{prefix} {after}");
    }
    first.leave().await.expect("leaves");
    second.leave().await.expect("leaves");

    let listener = |id: &str| Counted::Listener(channel("a"), Some(user(id)));
    let other = |name: &str| Counted::Listener(channel(name), Some(user("other")));
    let nameless = Counted::Listener(channel("a"), None);
    let third = [(listener("z\u{fc}"), 2), (listener("b"), 1), (nameless, 9), (other("a:b"), 1), (other("b"), 1)];
    let _third = node(&backbone, &third).await;
    let _fourth = node(&backbone, &[(listener("b"), 3), (listener("a"), 1)]).await;
    let page = backbone.listeners(&channel("a"), None, 2).await.expect("reads");
    assert_eq!((page.entries, page.more), (vec![(user("a"), 1), (user("b"), 4)], true));
    let page = backbone.listeners(&channel("a"), Some(&user("b")), 2).await.expect("reads");
    assert_eq!((page.entries, page.more), (vec![(user("z\u{fc}"), 2)], false));
}
