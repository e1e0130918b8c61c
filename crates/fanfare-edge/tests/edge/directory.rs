//! Who listens is told to all, as it is a second or two ago.

use std::time::Duration;

use fanfare_backbone::{Backbone, Counted};
use fanfare_edge::EdgeConfig;
use fanfare_protocol::{ByNamespace, Channel, Partitions, UserId};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::support::{RETENTION, TestEdge, ask, client_id};

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

#[tokio::test]
async fn a_connection_that_is_changed_is_told_where_it_listens_now() {
    let backbone = Backbone::in_process(Partitions::ONE, RETENTION);
    let edge = edge(&backbone).await;
    let mut alice = edge.subscribe("/events?user=alice&channel=room:1&channel=server:7").await;
    let id = client_id(&alice.expect("connected").await);
    let in_room = |name| Counted::Listener(channel(name), Some(user("alice")));
    told(&backbone, &[(in_room("room:1"), 1), (in_room("room:2"), 0)]).await;

    let body = json!({"subscribe": ["room:2"], "unsubscribe": ["room:1", "server:7"]}).to_string();
    let (status, answer) = ask(edge.address, "PATCH", &format!("/events/{id}?user=alice"), "", &body).await;
    assert_eq!(status, 200, "{answer}");
    let room = |name| Counted::Channel(channel(name));
    told(
        &backbone,
        &[
            (in_room("room:1"), 0),
            (in_room("room:2"), 1),
            (room("room:1"), 0),
            (room("room:2"), 1),
            (room("server:7"), 0),
            (Counted::User(user("alice")), 1),
        ],
    )
    .await;
    drop(alice);
    told(&backbone, &[(in_room("room:2"), 0), (room("room:2"), 0), (Counted::User(user("alice")), 0)]).await;
    edge.stop().await;
}
