//! Who listens: how many on every channel, who only where that is opted into, and no more than the key may read.

mod kit;

use fanfare_backbone::{Counted, Node, NodeId};
use fanfare_protocol::{ByNamespace, Channel, Partitions, UserId};
use fanfare_publish::PublishConfig;
use kit::TestApi;
use serde_json::json;

fn channel(name: &str) -> Channel {
    Channel::parse(name).expect(name)
}

fn user(id: &str) -> UserId {
    UserId::parse(id).expect(id)
}

fn follows(name: &str) -> Counted {
    Counted::Channel(channel(name))
}

fn present(name: &str, id: Option<&str>) -> Counted {
    Counted::Listener(channel(name), id.map(user))
}

/// What an edge tells.
async fn tell(api: &TestApi, told: &[(Counted, u32)]) -> Node {
    let mut node = api.backbone.node(NodeId::random());
    node.begin().await.expect("in process");
    node.report(told).await.expect("in process");
    node
}

async fn opted_in() -> TestApi {
    let mut presence = ByNamespace::everywhere(false);
    presence.own.extend(["room", "broadcast"].map(|namespace| (namespace.into(), true)));
    TestApi::with(Partitions::ONE, 100, PublishConfig { presence, ..PublishConfig::default() }).await
}

#[tokio::test]
async fn a_channel_and_a_user_have_as_many_connections_as_all_edges_told() {
    let api = TestApi::start().await;
    assert_eq!(api.get("/channels/a").await.json()["listeners"], 0);
    let _first = tell(&api, &[(follows("a"), 3), (Counted::User(user("alice@example.com")), 1)]).await;
    let second = tell(&api, &[(follows("a"), 2), (Counted::User(user("alice@example.com")), 4)]).await;
    assert_eq!(api.get("/channels/a").await.json()["listeners"], 5);
    for path in ["/users/alice@example.com", "/users/alice%40example.com"] {
        assert_eq!(api.get(path).await.json(), json!({"userId": "alice@example.com", "connections": 5}));
    }
    assert_eq!(api.get("/users/nobody").await.json(), json!({"userId": "nobody", "connections": 0}));
    second.leave().await.expect("in process");
    assert_eq!(api.get("/channels/a").await.json()["listeners"], 3);
}

#[tokio::test]
async fn active_channels_are_listed_in_sorted_pages() {
    let api = TestApi::start().await;
    assert_eq!(api.get("/channels").await.json(), json!({"channels": [], "more": false}));
    let names = ["b", "server:1", "server:10", "server:2", "user:42"];
    let _node = tell(&api, &names.map(|name| (follows(name), 1))).await;
    let _other = tell(&api, &[(follows("server:2"), 6), (follows("broadcast"), 7)]).await;
    let page = api.get("/channels?prefix=server:&limit=2").await.json();
    let active = |channel, listeners| json!({"channel": channel, "listeners": listeners});
    assert_eq!(
        page,
        json!({"channels": [active("server:1", 1), active("server:10", 1)], "more": true, "after": "server:10"})
    );
    let page = api.get("/channels?prefix=server:&limit=2&after=server:10").await.json();
    assert_eq!(page, json!({"channels": [active("server:2", 7)], "more": false}));
    let all = api.get("/channels").await.json();
    let listed: Vec<_> = all["channels"].as_array().expect("channels").iter().map(|c| c["channel"].clone()).collect();
    assert_eq!(listed, ["b", "broadcast", "server:1", "server:10", "server:2", "user:42"]);
}

#[tokio::test]
async fn a_key_sees_what_it_may_read_and_nothing_else() {
    let keys = "all=ALL,star=STAR;channels=*,two=TWO;channels=server:1*|server:10|c:*|broadcast,mute=MUTE;rights=publish,\
                mine=MINE;channels=user:42";
    let api = TestApi::guarded(Partitions::ONE, keys, None).await;
    let names = ["b", "broadcast", "c:1", "server:1", "server:10", "server:2", "user:42", "zebra"];
    let _node = tell(&api, &names.map(|name| (follows(name), 1))).await;
    let get = async |key: &str, path: &str| {
        api.request(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n")).await
    };
    for (key, query, expected) in [
        ("ALL", "", &names[..]),
        ("STAR", "", &["b", "c:1", "server:1", "server:10", "server:2", "zebra"]),
        ("TWO", "", &["broadcast", "c:1", "server:1", "server:10"]),
        ("TWO", "prefix=s&", &["server:1", "server:10"]),
        ("TWO", "prefix=server:10&", &["server:10"]),
        ("TWO", "prefix=zebra&", &[]),
        ("MINE", "", &["user:42"]),
    ] {
        // However long pages are, together they are the same.
        for limit in [1, 2, 500] {
            let (mut listed, mut after) = (Vec::new(), String::new());
            loop {
                let page = get(key, &format!("/channels?{query}limit={limit}&after={after}")).await.json();
                let channels = page["channels"].as_array().expect("channels");
                assert!(channels.len() <= limit, "{page}");
                listed.extend(channels.iter().map(|c| c["channel"].as_str().expect("a name").to_owned()));
                assert_eq!(page["more"].as_bool(), Some(page["after"].is_string()), "{page}");
                match page["after"].as_str() {
                    Some(last) => last.clone_into(&mut after),
                    None => break,
                }
            }
            assert_eq!(listed, expected, "{key} {query} {limit}");
        }
    }
    for (key, path, detail) in [
        ("MUTE", "/channels", "the key mute has no right to read"),
        ("MUTE", "/channels/b", "the key mute has no right to read"),
        ("TWO", "/channels/b/presence", "the key two has no right to read b"),
        ("TWO", "/users/42", "the key two has no right to read user:42"),
    ] {
        get(key, path).await.is_problem(403, "FORBIDDEN", detail);
    }
    assert_eq!(get("MINE", "/users/42").await.status, 200);
    get("NONE", "/channels").await.is_problem(401, "AUTHENTICATION_FAILED", "");
}

#[tokio::test]
async fn where_it_is_opted_into_those_who_listen_are_named_in_pages() {
    let api = opted_in().await;
    let first = [(follows("room:1"), 6), (present("room:1", None), 3), (present("room:1", Some("bob")), 1)];
    let _first = tell(&api, &[&first[..], &[(present("room:1", Some("alice")), 2)]].concat()).await;
    let _second = tell(&api, &[(follows("room:1"), 4), (present("room:1", Some("bob")), 4)]).await;
    let page = api.get("/channels/room:1/presence?limit=1").await.json();
    let alice = json!({"userId": "alice", "connections": 2});
    assert_eq!(
        page,
        json!({"channel": "room:1", "listeners": 10, "anonymous": 3, "users": [alice], "more": true, "after": "alice"})
    );
    let page = api.get("/channels/room:1/presence?limit=1&after=alice").await.json();
    let bob = json!({"userId": "bob", "connections": 5});
    assert_eq!(page, json!({"channel": "room:1", "listeners": 10, "anonymous": 3, "users": [bob], "more": false}));
    let empty = api.get("/channels/room:2/presence").await.json();
    assert_eq!(empty, json!({"channel": "room:2", "listeners": 0, "anonymous": 0, "users": [], "more": false}));
}

#[tokio::test]
async fn elsewhere_nobody_is_named_and_the_broadcast_is_only_counted() {
    let api = opted_in().await;
    let _node = tell(&api, &[(follows("broadcast"), 2), (follows("server:7"), 1)]).await;
    let refused = api.get("/channels/server:7/presence").await;
    refused.is_problem(404, "NOT_FOUND", "who listens on server:7 is not told");
    let hint = refused.json()["hint"].as_str().expect("a hint").to_owned();
    assert!(hint.contains("presence = true under [namespaces.server]"), "{hint}");
    let broadcast = api.get("/channels/broadcast/presence").await.json();
    assert_eq!(broadcast, json!({"channel": "broadcast", "listeners": 2}));
}

#[tokio::test]
async fn a_question_of_a_wrong_shape_is_refused() {
    let api = opted_in().await;
    for (path, detail) in [
        ("/channels?limit=0", "limit: it is a number from 1 to 500"),
        ("/channels?limit=501", "limit: "),
        ("/channels?prefix=a%20b", "prefix: no channel's name begins with it"),
        ("/channels?prefix=server:*", "prefix: "),
        ("/channels?prefix=a&prefix=b", "more than once"),
        ("/channels?user=42", "\"user\" is no query parameter"),
        ("/channels/room:1/presence?limit=x", "limit: "),
        ("/channels/room:1/presence?after=", "after: it is no user id"),
        ("/users/%01", "the user in the path: a user id has no control characters"),
        ("/users/42?limit=1", "\"limit\" is no query parameter"),
    ] {
        api.get(path).await.is_problem(400, "INVALID_INPUT", detail);
    }
    for path in ["/channels", "/channels/a/presence", "/users/42"] {
        let refused = api.post(path, "{}").await;
        refused.is_problem(405, "METHOD_NOT_ALLOWED", "POST is not allowed here");
        assert_eq!(refused.header("allow"), Some("get, head, options"));
    }
}
