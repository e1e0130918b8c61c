//! What is kept differs by namespace, in Redis as elsewhere.

#[path = "support/links.rs"]
mod links;
mod support;

use std::time::Duration;

use fanfare_backbone::{Backbone, Link, LinkEvent, RedisConfig, Secret};
use fanfare_protocol::{Answer, ByNamespace, Keep, PageLimit, Point, Position, Query, Retention};
use links::{arrivals, channel, draft};
use redis::Value;
use support::{FLAVOURS, Flavour, PATIENCE, Server};
use tokio::time::{sleep, timeout};

const LIMIT: PageLimit = PageLimit { events_max: 100, bytes_max: 1 << 20 };

/// Little is kept, and soon forgotten, but for what is kept until it is pushed out.
async fn start(flavour: Flavour) -> Option<(Server, Backbone)> {
    let server = Server::start(flavour).await?;
    let mut history = ByNamespace::everywhere(Keep { events_max: 100, age: Some(Duration::from_millis(20)) });
    history.own.insert("kept".into(), Keep { events_max: 2, age: None });
    let retention =
        Retention { forget_age: Retention::forget_age(&history), history, idempotency_window: Duration::from_secs(1) };
    let config = RedisConfig { url: Secret::new(server.url()), ..RedisConfig::default() };
    Some((server, Backbone::redis(&config, retention).expect("a good configuration")))
}

async fn publish(backbone: &Backbone, name: &str, data: &str) -> Point {
    backbone.publish(vec![draft(name, data)]).await.remove(0).expect("published").point
}

async fn last(backbone: &Backbone, name: &str) -> Option<Position> {
    backbone.standing(&channel(name)).await.expect("stands").lasts[0].1
}

/// Publishes elsewhere until a channel is forgotten.
async fn forget(backbone: &Backbone, name: &str) {
    let forgotten = async {
        while last(backbone, name).await.is_some() {
            sleep(Duration::from_millis(5)).await;
            publish(backbone, "other", "x").await;
        }
    };
    timeout(PATIENCE, forgotten).await.expect("forgotten in time");
}

async fn lasts(link: &mut Link, names: &[&str]) -> (Vec<Option<Position>>, Position) {
    link.read(0, 1, Query::Lasts(names.iter().map(|name| channel(name)).collect()));
    match arrivals(link, 1).await.remove(0) {
        LinkEvent::Answered(0, 1, Answer::Lasts(lasts, floor, _)) => {
            (lasts.into_iter().map(|(_, last)| last).collect(), floor)
        }
        other => panic!("{other:?}"),
    }
}

async fn history(backbone: &Backbone, name: &str, after: Option<Point>) -> (Vec<String>, bool) {
    let history = backbone.history(&channel(name), after, LIMIT).await.expect("reads");
    (history.events.iter().map(|event| event.content.data.to_string()).collect(), history.gap)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_until_it_is_pushed_out_is_never_forgotten_and_holds_nothing_up() {
    for flavour in FLAVOURS {
        let Some((server, backbone)) = start(flavour).await else { continue };
        let mut points = Vec::new();
        for data in ["one", "two", "three"] {
            points.push(publish(&backbone, "kept:1", data).await);
        }
        publish(&backbone, "gone", "x").await;
        forget(&backbone, "gone").await;

        let newest = points[2].pos;
        assert_eq!(last(&backbone, "kept:1").await, Some(newest), "{flavour:?}");
        let mut link = backbone.connect(0).await.expect("connects");
        let (known, floor) = lasts(&mut link, &["kept:1", "gone"]).await;
        assert_eq!(known, [Some(newest), None]);
        // A program that doesn't know of this place takes the channel for forgotten, and tells a gap too many.
        assert!(floor >= newest);
        let strings = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(history(&backbone, "kept:1", Some(points[1])).await, (strings(&["three"]), false));
        assert_eq!(history(&backbone, "kept:1", Some(points[2])).await, (vec![], false));
        assert_eq!(history(&backbone, "kept:1", Some(points[0])).await, (strings(&["two", "three"]), false));
        publish(&backbone, "kept:1", "four").await;
        assert_eq!(history(&backbone, "kept:1", Some(points[2])).await, (strings(&["four"]), false));
        assert_eq!(history(&backbone, "kept:1", Some(points[0])).await, (strings(&["three", "four"]), true));
        assert_eq!(server.command("PTTL fanfare:{0}:h:kept:1").await, Value::Int(-1));

        // What is emptied is forgotten like everything else.
        backbone.purge(&channel("kept:1")).await.expect("emptied");
        assert_eq!(server.command("ZSCORE fanfare:{0}:k kept:1").await, Value::Nil);
        forget(&backbone, "kept:1").await;
        assert_eq!(history(&backbone, "kept:1", Some(points[2])).await, (vec![], true));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_takes_its_place_in_the_stream_and_works_where_nothing_is_left_to_write_in() {
    for flavour in FLAVOURS {
        let Some((server, backbone)) = start(flavour).await else { continue };
        let mut link = backbone.connect(0).await.expect("connects");
        link.subscribe(vec![channel("kept:1")]);
        arrivals(&mut link, 1).await; // Its confirmation.
        let one = publish(&backbone, "kept:1", "one").await;
        server.command("CONFIG SET maxmemory 1").await;
        let purged = backbone.purge(&channel("kept:1")).await.expect("emptied");
        server.command("CONFIG SET maxmemory 0").await;
        assert_eq!(server.command("LLEN fanfare:{0}:h:kept:1").await, Value::Int(0));
        let two = publish(&backbone, "kept:1", "two").await;
        let arrived = arrivals(&mut link, 3).await;
        let [LinkEvent::Event(_, first), LinkEvent::Purged(epoch, purge), LinkEvent::Event(_, next)] = &arrived[..]
        else {
            panic!("{arrived:?}")
        };
        assert_eq!((first.pos, purge.prev.pos, purge.prev.exact), (one.pos, one.pos, true), "{flavour:?}");
        assert_eq!(Point { epoch: *epoch, pos: purge.pos }, purged);
        assert_eq!((next.prev.pos, next.pos), (purged.pos, two.pos));
    }
}
