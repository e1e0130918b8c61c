//! This version beside an earlier one, over one Redis, as they run while a fleet is upgraded or set back: edges and
//! publish APIs of both, in both directions. What travels through Redis, and what clients carry from edge to edge, is
//! read by whoever meets it.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use fanfare_auth::Secrets;
use fanfare_loadtest::Job;
use fanfare_testkit::Publisher;
use serde_json::json;
use support::redis::Redis;
use support::role::{KEY, Role, SECRET, credentials, token};
use support::{FANFARE, program, stderr, stdout};

/// The version before: the oldest that newer ones have to get on with.
const BEFORE: &str = "a4771a7";

/// Its binary, built once. None: it is not to be had, as was said.
fn before() -> Option<&'static Path> {
    static BINARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BINARY.get_or_init(|| {
        let profile = Path::new(FANFARE).parent().expect("a binary is in a directory");
        let target = profile.parent().expect("so is a profile");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/version-before");
        let mut build = Command::new(script);
        build.arg(BEFORE).arg(profile.file_name().expect("a name")).arg(target).stdin(Stdio::null());
        let built = build.output().expect("the script runs");
        match built.status.code() {
            Some(0) => Some(stdout(&built).trim().into()),
            Some(3) => {
                eprintln!("skipped: {}", stderr(&built).trim());
                None
            }
            _ => panic!("the version before can't be built: {}", stderr(&built)),
        }
    });
    built.as_deref()
}

/// Edges and publish APIs of two versions over one Redis. The first of each is the version that came first.
struct Fleet {
    edges: [Role; 2],
    publishers: [Role; 2],
    partitions: u16,
    redis: Redis,
}

impl Fleet {
    /// All four: the version before is upgraded, or this one set back; with one partition and with several.
    fn each() -> impl Iterator<Item = Self> {
        let versions = before().map(|before| [before, Path::new(FANFARE)]);
        let orders = versions.into_iter().flat_map(|[before, this]| [[before, this], [this, before]]);
        let fleets = orders.flat_map(|order| [(order, 1), (order, 8)]);
        fleets.map_while(|(order, partitions)| Self::start(order, partitions))
    }

    fn start(order: [&Path; 2], partitions: u16) -> Option<Self> {
        let redis = Redis::start(&[])?;
        let count = partitions.to_string();
        let start = |binary: &Path, role| Role::of(binary, role, &redis.url(), &[("FANFARE_REDIS_PARTITIONS", &count)]);
        let [first, second] = order.map(|binary| (start(binary, "edge"), start(binary, "publish")));
        let (edges, publishers) = ([first.0, second.0], [first.1, second.1]);
        Some(Self { edges, publishers, partitions, redis })
    }

    /// Each finds that all is as it should be.
    fn check(&self) {
        for binary in before().into_iter().chain([FANFARE.as_ref()]) {
            let mut check = program(binary, &["check", "--redis", &self.redis.url()]);
            let checked =
                check.envs(credentials()).env("FANFARE_REDIS_PARTITIONS", self.partitions.to_string()).output();
            let checked = checked.expect("it runs");
            assert!(checked.status.success(), "{}", stderr(&checked));
        }
    }

    /// All end in good order, and nobody has complained of anything.
    fn stop(self) {
        for mut role in self.edges.into_iter().chain(self.publishers) {
            role.process.signal("TERM");
            assert_eq!(role.process.wait().code(), Some(0));
            let complaints = role.process.err.seen().iter().filter(|line| !line.contains(r#""level":"INFO""#));
            assert_eq!(complaints.collect::<Vec<_>>(), Vec::<&String>::new());
        }
    }
}

#[tokio::test]
async fn events_flow_between_versions_and_clients_move_with_their_cursors() {
    for fleet in Fleet::each() {
        let token = token(&["--user", "42", "--channel", "server:*", "--ttl", "5m"]);
        let [first, second] = &fleet.edges;
        let path = "/events?channel=server:7&channel=server:8";
        let mut up = first.subscribe(path, &token).connected().await;
        let mut down = second.subscribe(path, &token).connected().await;
        let mut backends = fleet.publishers.each_ref().map(|publisher| publisher.publisher(KEY));
        for n in 0..10 {
            backends[n % 2].publish("server:7", n.to_string()).await.id();
            for client in [&mut up, &mut down] {
                assert_eq!(client.next_data().await, n.to_string());
            }
        }
        // They change places, twice, and each time there is something that they missed.
        for places in [[second, first], [first, second]] {
            up.reset();
            down.reset();
            for n in 0..20 {
                backends[n % 2].publish(["server:7", "server:8"][n / 2 % 2], n.to_string()).await.id();
            }
            backends[0].notify("42", "from the first").await.id();
            backends[1].broadcast("from the second").await.id();
            for (client, edge) in [&mut up, &mut down].into_iter().zip(places) {
                client.reconnect_to(edge.address).await;
                assert_eq!(client.expect_connected().await["resumed"], true);
                let (mut of_7, mut of_8, mut others) = (Vec::new(), Vec::new(), Vec::new());
                for _ in 0..22 {
                    let message = client.next().await;
                    let own = match message.id.rsplit_once('@') {
                        Some((_, "server:7")) => &mut of_7,
                        Some((_, "server:8")) => &mut of_8,
                        _ => &mut others,
                    };
                    own.push(message.data);
                }
                let expected = |half| (0..20).filter(|n| n / 2 % 2 == half).map(|n| n.to_string()).collect::<Vec<_>>();
                assert_eq!((of_7, of_8), (expected(0), expected(1)));
                assert!(others.len() == 2, "{others:?}");
            }
        }
        backends[1].publish("server:8", "last").await.id();
        for client in [&mut up, &mut down] {
            assert_eq!(client.next_data().await, "last", "nothing came twice");
        }
        drop((up, down));
        fleet.stop();
    }
}

#[tokio::test]
async fn what_one_version_wrote_the_other_reads() {
    for fleet in Fleet::each() {
        let mut backends = fleet.publishers.each_ref().map(|publisher| publisher.publisher(KEY));
        let token = token(&["--channel", "server:*"]);
        let mut client = fleet.edges[1].subscribe("/events/server:7", &token).connected().await;
        for n in 0..2 {
            let [here, there] = &mut backends;
            // Said once, whichever repeats it; and a different body under the same key is a mistake to both.
            let data = format!("once, {n}");
            let once =
                json!({"channel": "server:7", "event": "e", "data": data, "key": "k", "idempotencyKey": n.to_string()});
            let id = here.post("/publish", &once).await.id();
            assert_eq!(there.post("/publish", &once).await.id(), id);
            let other = json!({"channel": "server:7", "data": "different", "idempotencyKey": n.to_string()});
            assert_eq!(there.post("/publish", &other).await.status, 422);
            assert_eq!(client.next_data().await, data);
            // Each reads the history that the other has written, from where it says.
            let after = here.publish("server:7", "after").await.id();
            there.publish("server:7", "retained").await.id();
            for reader in [&mut *here, &mut *there] {
                let page = reader.get(&format!("/channels/server:7/history?after={after}")).await.json();
                assert_eq!(page["events"].as_array().map(Vec::len), Some(1), "{page}");
                assert_eq!(page["events"][0]["data"], "retained", "{page}");
            }
            for expected in ["after", "retained"] {
                assert_eq!(client.next_data().await, expected);
            }
            backends.reverse();
        }
        fleet.check();
        drop(client);
        fleet.stop();
    }
}

#[test]
fn who_is_cut_off_misses_nothing_on_edges_of_both_versions() {
    for fleet in Fleet::each() {
        for publisher in &fleet.publishers {
            let [first, second] = fleet.edges.each_ref().map(|edge| edge.url().parse().expect("a URL"));
            let job = Job::cuts(first, 60);
            let job = Job {
                clients: 60,
                channels: 8,
                rate: 100.0,
                duration: Duration::from_secs(2),
                edges: [job.edges.clone(), vec![second]].concat(),
                publish: publisher.url().parse().expect("a URL"),
                key: Some(KEY.to_owned()),
                secret: Some(Secrets::parse(SECRET).expect("a secret")),
                ..job
            };
            let report = job.run().expect("the machine allows it");
            assert!(report.passed() && report.replayed > 0 && report.partitions == fleet.partitions, "{report}");
        }
        fleet.stop();
    }
}

/// A history is emptied, a user disconnected, a stream changed: none of it means anything to the version before.
#[tokio::test]
async fn what_the_version_before_does_not_know_does_it_no_harm() {
    let Some(before) = before() else { return };
    for partitions in [1, 8] {
        let Some(fleet) = Fleet::start([before, FANFARE.as_ref()], partitions) else { return };
        let token = token(&["--user", "42", "--channel", "server:*", "--ttl", "5m"]);
        let [old, new] = &fleet.edges;
        let mut backend = fleet.publishers[1].publisher(KEY);
        let mut on_old = old.subscribe("/events?channel=server:7", &token).connected().await;
        let mut on_new = new.subscribe("/events?channel=server:7", &token).open().await;
        let id = on_new.expect_connected().await["clientId"].as_str().expect("a client id").to_owned();
        backend.publish("server:7", "one").await.id();
        assert_eq!((on_old.next_data().await, on_new.next_data().await), ("one".to_owned(), "one".to_owned()));

        let json = [("Content-Type", "application/json")];
        for path in ["/channels/server:7/history", "/users/43/connections"] {
            let answer = backend.request("DELETE", path, &json, "").await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        }
        let bearer = format!("Bearer {token}");
        let headers = [json[0], ("Authorization", &*bearer)];
        let change = json!({"subscribe": ["server:8"]}).to_string();
        let changed = Publisher::new(new.address).request("PATCH", &format!("/events/{id}"), &headers, change).await;
        assert_eq!(changed.status, 200, "{}", changed.text());
        assert_eq!(on_new.next().await.event, "subscribed");

        // The one before finds a hole where the purge stands. It may say so, and then it goes on.
        for n in ["two", "three"] {
            backend.publish("server:7", n).await.id();
            assert_eq!(on_new.next_data().await, n);
            let mut message = on_old.next().await;
            while message.event == "gap" {
                message = on_old.next().await;
            }
            assert_eq!(message.data, n);
        }
        // A stream that was changed is known to the one before, as its cursor has it.
        on_new.reset();
        backend.publish("server:8", "four").await.id();
        on_new.reconnect_to(old.address).await;
        assert_eq!(on_new.expect_connected().await["resumed"], true);
        assert_eq!(on_new.next_data().await, "four");
        drop((on_old, on_new));
        for mut role in fleet.edges.into_iter().chain(fleet.publishers) {
            role.process.signal("TERM");
            assert_eq!(role.process.wait().code(), Some(0));
            let seen = role.process.err.seen();
            assert!(!seen.iter().any(|line| line.contains(r#""level":"ERROR""#) || line.contains("panic")), "{seen:?}");
        }
    }
}
