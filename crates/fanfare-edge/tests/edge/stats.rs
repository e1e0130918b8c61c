//! What operators see of an edge.

use std::time::Duration;

use fanfare_edge::{NamespaceStats, UserStats};
use tokio::time::{Instant, sleep};

use crate::support::TestEdge;

#[tokio::test]
async fn operators_see_how_many_listen_where_and_who_only_if_they_ask_for_it() {
    let edge = TestEdge::start().await;
    let mut streams = Vec::new();
    for target in ["/events?user=alice&channel=server:1", "/events?user=alice&channel=server:2", "/events?user=bob"] {
        let mut stream = edge.subscribe(target).await;
        stream.expect("connected").await;
        streams.push(stream);
    }
    edge.publish("broadcast", None, "to three").await;
    for stream in &mut streams {
        stream.data().await;
    }
    let stats = edge.edge.stats(false);
    let namespace = |name: &str, channels, listeners| NamespaceStats { namespace: name.into(), channels, listeners };
    assert_eq!(stats.namespaces, [namespace("broadcast", 1, 3), namespace("user", 2, 3), namespace("server", 2, 2)]);
    assert_eq!((stats.connections, stats.channels, stats.users, &stats.busiest_users), (3, 5, 2, &None));
    assert!(stats.connections_max > 3);

    let user = |id: &str, connections| UserStats { user_id: id.into(), connections };
    assert_eq!(edge.edge.stats(true).busiest_users, Some(vec![user("alice", 2), user("bob", 1)]));

    let begin = Instant::now();
    loop {
        let shards = edge.edge.stats(false).shards;
        let connections: usize = shards.iter().map(|shard| shard.connections).sum();
        let deliveries: u64 = shards.iter().map(|shard| shard.deliveries).sum();
        if (connections, deliveries) == (3, 3) {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "{shards:?}");
        sleep(Duration::from_millis(20)).await;
    }
    edge.stop().await;
}
