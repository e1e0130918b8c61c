//! Who listens is told to all, as it is a second or two ago.

use std::time::Duration;

use fanfare_backbone::{Backbone, Counted};
use fanfare_edge::EdgeConfig;
use fanfare_protocol::{ByNamespace, Channel, Partitions, UserId};
use tokio::time::{Instant, sleep};

use crate::support::{RETENTION, TestEdge};

const PATIENCE: Duration = Duration::from_secs(10);

fn channel(name: &str) -> Channel {
    Channel::parse(name).expect("valid")
}

fn user(id: &str) -> UserId {
    UserId::parse(id).expect("valid")
}

/// An edge that tells who is in rooms.
async fn edge(backbone: &Backbone) -> TestEdge {
    let mut presence = ByNamespace::everywhere(false);
    presence.own.extend(["room", "broadcast"].map(|namespace| (namespace.into(), true)));
    TestEdge::on(backbone.clone(), EdgeConfig { presence, ..EdgeConfig::default() }).await
}

/// Waits until the directory says so. There is nothing else to wait for.
async fn told(backbone: &Backbone, expected: &[(Counted, u64)]) {
    let (counted, expected): (Vec<_>, Vec<_>) = expected.iter().cloned().unzip();
    let begin = Instant::now();
    loop {
        let counts = backbone.counts(&counted).await.expect("in process");
        if counts == expected {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{counted:?} are {counts:?} and not {expected:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn listeners_of_all_edges_are_counted_and_named_where_that_is_wanted_until_they_leave() {
    let backbone = Backbone::in_process(Partitions::ONE, RETENTION);
    let (first, second) = (edge(&backbone).await, edge(&backbone).await);
    let alice = first.subscribe("/events?user=alice&channel=room:1&channel=server:7").await;
    let again = second.subscribe("/events?user=alice&channel=room:1").await;
    let nobody = second.subscribe("/events/room:1").await;
    told(
        &backbone,
        &[
            (Counted::Channel(channel("room:1")), 3),
            (Counted::Channel(channel("server:7")), 1),
            (Counted::Channel(channel("broadcast")), 2),
            (Counted::Channel(user("alice").inbox()), 2),
            (Counted::User(user("alice")), 2),
            (Counted::Listener(channel("room:1"), Some(user("alice"))), 2),
            (Counted::Listener(channel("room:1"), None), 1),
            (Counted::Listener(channel("server:7"), Some(user("alice"))), 0),
            (Counted::Listener(channel("broadcast"), Some(user("alice"))), 0),
        ],
    )
    .await;

    drop(again);
    drop(nobody);
    told(
        &backbone,
        &[
            (Counted::Channel(channel("room:1")), 1),
            (Counted::User(user("alice")), 1),
            (Counted::Listener(channel("room:1"), Some(user("alice"))), 1),
            (Counted::Listener(channel("room:1"), None), 0),
        ],
    )
    .await;

    // An edge that ends takes everything back, though its connections are only cut off.
    first.stop().await;
    told(&backbone, &[(Counted::Channel(channel("room:1")), 0), (Counted::User(user("alice")), 0)]).await;
    assert_eq!(backbone.active_channels("", "", 10).await.expect("in process").entries, []);
    drop(alice);
    second.stop().await;
}
