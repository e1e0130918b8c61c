//! What every backbone does, whatever is behind it.

use std::time::Duration;

use fanfare_backbone::{Backbone, Link, LinkEvent, PublishError};
use fanfare_protocol::{
    Answer, Channel, Confirmation, Content, Draft, Idempotency, PageLimit, Partitions, Position, Query, Retention,
};

const RETENTION: Retention = Retention {
    history_size: 5,
    history_age: Duration::from_secs(300),
    forget_age: Duration::from_secs(600),
    idempotency_window: Duration::from_secs(300),
};
const LIMIT: PageLimit = PageLimit { events_max: 100, bytes_max: 1 << 20 };

fn backbone() -> Backbone {
    Backbone::in_process(Partitions::ONE, RETENTION)
}

fn channel(name: &str) -> Channel {
    Channel::parse(name).expect("a valid channel")
}

fn draft(name: &str, data: &str) -> Draft {
    let content = Content { name: None, key: None, ttl: None, data: data.into() };
    Draft { channel: channel(name), content, idempotency: None }
}

fn once(name: &str, data: &str, key: u8, body: u8) -> Draft {
    Draft { idempotency: Some(Idempotency { digest: [key; 16], body: [body; 16] }), ..draft(name, data) }
}

async fn arrivals(link: &mut Link, count: usize) -> Vec<LinkEvent> {
    let mut arrived = Vec::new();
    while arrived.len() < count {
        link.arrivals(&mut arrived, count).await.expect("the link is good");
    }
    arrived
}

#[tokio::test]
async fn a_link_hears_its_channels_in_order_between_its_confirmations() {
    let backbone = backbone();
    let mut link = backbone.connect(0).await.expect("connects");
    backbone.publish(vec![draft("a", "before")]).await;
    link.subscribe(vec![channel("a")]);
    backbone.publish(vec![draft("a", "one"), draft("b", "other"), draft("a", "two")]).await;
    link.unsubscribe(vec![channel("a")]);
    backbone.publish(vec![draft("a", "after")]).await;
    let arrived = arrivals(&mut link, 4).await;
    assert!(matches!(&arrived[0], LinkEvent::Confirmed(c, Confirmation::Subscribed) if *c == channel("a")));
    let data = |event: &LinkEvent| match event {
        LinkEvent::Event(_, event) => (event.content.data.to_string(), event.pos, event.prev),
        other => panic!("not an event: {other:?}"),
    };
    let ((one, first, prev), (two, _, prev_of_two)) = (data(&arrived[1]), data(&arrived[2]));
    assert_eq!((one.as_str(), two.as_str()), ("one", "two"));
    assert!(prev.exact && prev_of_two.exact && prev_of_two.pos == first, "each names the one before it");
    assert!(matches!(&arrived[3], LinkEvent::Confirmed(_, Confirmation::Unsubscribed)));
}

#[tokio::test]
async fn a_marker_stands_in_the_stream_where_the_barrier_ran() {
    let backbone = backbone();
    let mut link = backbone.connect(0).await.expect("connects");
    link.subscribe(vec![channel("a")]);
    link.subscribe_marker();
    backbone.publish(vec![draft("a", "before")]).await;
    link.barrier(7, vec![channel("a"), channel("unknown")]);
    backbone.publish(vec![draft("a", "after")]).await;
    let arrived = arrivals(&mut link, 6).await;
    let LinkEvent::Event(epoch, before) = &arrived[2] else { panic!("{arrived:?}") };
    let LinkEvent::Marker(marker) = &arrived[3] else { panic!("{arrived:?}") };
    assert_eq!((marker.nonce, marker.epoch, marker.last), (7, *epoch, before.pos));
    assert_eq!(marker.lasts, [(channel("a"), Some(before.pos)), (channel("unknown"), None)]);
    assert!(matches!(arrived[4], LinkEvent::BarrierAnswered(7)));
    assert!(matches!(&arrived[5], LinkEvent::Event(_, after) if after.pos > marker.last));
}

#[tokio::test]
async fn an_idempotency_key_publishes_once_and_tells_a_repetition_from_a_mistake() {
    let backbone = backbone();
    let results = backbone.publish(vec![once("a", "x", 1, 1), once("a", "x", 1, 1), once("a", "y", 1, 2)]).await;
    let first = results[0].as_ref().expect("published");
    let again = results[1].as_ref().expect("the same");
    assert_eq!((first.point, first.repeated, again.point, again.repeated), (first.point, false, first.point, true));
    assert!(matches!(results[2], Err(PublishError::Mismatch)));
    let history = backbone.history(&channel("a"), None, LIMIT).await.expect("reads");
    assert_eq!(history.events.len(), 1);
}

#[tokio::test]
async fn history_is_read_from_a_point_on_and_says_where_something_is_gone() {
    let backbone = backbone();
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

#[tokio::test]
async fn reads_of_a_link_come_back_with_shard_and_tag() {
    let backbone = backbone();
    let mut link = backbone.connect(0).await.expect("connects");
    backbone.publish(vec![draft("a", "one"), draft("a", "two")]).await;
    link.read(3, 9, Query::After(channel("a"), Position(0), LIMIT));
    link.read(3, 10, Query::Newest(channel("a"), PageLimit { events_max: 1, bytes_max: 1 }));
    link.read(3, 11, Query::Lasts(vec![channel("a"), channel("b")]));
    let arrived = arrivals(&mut link, 3).await;
    assert!(matches!(&arrived[0], LinkEvent::Answered(3, 9, Answer::Page(_, page)) if page.events.len() == 2));
    assert!(matches!(&arrived[1], LinkEvent::Answered(3, 10, Answer::Page(_, page)) if page.events.len() == 1));
    let LinkEvent::Answered(3, 11, Answer::Lasts(lasts, floor)) = &arrived[2] else { panic!("{arrived:?}") };
    assert!(lasts[0].1.is_some() && lasts[1].1.is_none() && *floor > Position(0));
}

#[tokio::test]
async fn a_link_that_is_not_read_breaks_and_holds_nobody_up() {
    let backbone = backbone();
    let mut link = backbone.connect(0).await.expect("connects");
    let mut good = backbone.connect(0).await.expect("connects");
    link.subscribe(vec![channel("a")]);
    good.subscribe(vec![channel("b")]);
    for n in 0..20_000 {
        backbone.publish(vec![draft("a", &n.to_string())]).await;
    }
    let mut arrived = Vec::new();
    while link.arrivals(&mut arrived, 1_000).await.is_some() {}
    assert!(arrived.len() < 20_000, "the queue is bounded, and its end says that something may be missing");
    backbone.publish(vec![draft("b", "still heard")]).await;
    arrivals(&mut good, 2).await;
}
