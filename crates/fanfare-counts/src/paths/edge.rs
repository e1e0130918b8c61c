//! Connections come, are given events, and go: a whole edge with its server, one shard, tokens and Redis.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fanfare_auth::{Access, AuthConfig, Secrets, TokenOrder};
use fanfare_backbone::Backbone;
use fanfare_edge::{Edge, EdgeConfig};
use fanfare_http::{Cors, Peer, Query, ReplyFuture, Request, Server, listen};
use fanfare_protocol::{Channel, Content, Draft, EventType, Pattern, UserId};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::DATA;
use super::envelope::repeat;
use crate::place::{Client, Redis, Stage, all_heard};
use crate::tally::path;

/// Connections. All are open at the same time, and a process has room for 1,024 descriptors, if not for more.
const CONNECTIONS: [usize; 2] = [60, 260];

/// Connections that come at the same time.
const COMERS: [usize; 2] = [20, 70];

/// What an event has on the wire, once.
const NEWS: &str = "event: news\n";
const CONNECTED: &str = "event: connected\n";

/// What is read of a token.
pub(super) fn authorise() {
    let tokens = Tokens::new();
    let mut headers = HeaderMap::new();
    let value = format!("Bearer {}", tokens.of("u1"));
    headers.insert(AUTHORIZATION, HeaderValue::from_str(&value).expect("a token is visible ASCII"));
    let query = Query::parse(Some("channel=room:1")).unwrap_or_else(|_| unreachable!("a good query"));
    let now = SystemTime::now();
    repeat("authorise", || drop(black_box(tokens.access().authorise(black_box(&headers), &query, now))));
}

pub(super) fn go(redis: &Redis) {
    let mut edge = TestEdge::start(redis, 1);
    edge.deliver("deliver", 1);
    edge.deliver("deliver-16-events", 16);
    edge.hear();
    edge.connect();
    edge.resume();
    edge.leave();
    drop(edge);
    TestEdge::start(redis, 16).deliver("deliver-16-partitions", 1);
}

struct Tokens {
    secrets: Secrets,
    access: Access,
}

impl Tokens {
    fn new() -> Self {
        let secrets = Secrets::parse("a secret of at least thirty-two bytes").expect("a secret");
        let config = AuthConfig { secret: Some(secrets.clone()), ..AuthConfig::default() };
        Self { secrets, access: config.edge_access().expect("it has a secret") }
    }

    fn access(&self) -> &Access {
        &self.access
    }

    fn of(&self, user: &str) -> String {
        let order = TokenOrder {
            user: Some(UserId::parse(user).expect("a user id")),
            channels: vec![Pattern::parse("room:*").expect("a pattern")],
            follow: vec![],
            ttl: Duration::from_secs(24 * 60 * 60),
        };
        order.mint(&self.secrets, SystemTime::now()).expect("a good order").token
    }
}

/// An edge, and somebody elsewhere who publishes.
struct TestEdge<'a> {
    redis: &'a Redis,
    stage: Stage<'a>,
    elsewhere: Stage<'a>,
    edge: Arc<Edge>,
    publisher: Backbone,
    address: SocketAddr,
    tokens: Tokens,
    users: usize,
}

impl<'a> TestEdge<'a> {
    fn start(redis: &'a Redis, partitions: u16) -> Self {
        let name = format!("edge-{partitions}");
        let (stage, elsewhere, tokens) = (Stage::new(redis), Stage::new(redis), Tokens::new());
        let publisher = {
            let _inside = elsewhere.runtime.enter();
            redis.backbone(&name, partitions)
        };
        let inside = stage.runtime.enter();
        let backbone = redis.backbone(&name, partitions);
        // Clocks strike as seldom as can be.
        let (heartbeat_interval, join_timeout) = (Duration::from_secs(60 * 60), Duration::from_secs(60 * 60));
        let config = EdgeConfig { shards: Some(1), heartbeat_interval, join_timeout, ..EdgeConfig::default() };
        let cors = Arc::new(Cors::nobody());
        let (edge, services) =
            Edge::new(backbone, config, tokens.access().clone(), cors, &prometheus::Registry::new()).expect("starts");
        let tasks = TaskTracker::new();
        for service in services {
            tasks.spawn(service.future);
        }
        let listener = listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let handler = edge.clone();
        let handler =
            move |request: Request, peer: Peer| -> ReplyFuture { Box::pin(handler.clone().handle(request, peer)) };
        tasks.spawn(Server::new(Arc::new(handler)).serve(listener, CancellationToken::new(), tasks.clone()));
        drop(inside);
        Self { redis, stage, elsewhere, edge, publisher, address, tokens, users: 0 }
    }

    /// A subscriber that nobody has seen before asks for a channel.
    fn ask(&mut self, channel: &str, headers: &str) -> Client {
        self.users += 1;
        self.ask_as(self.users, channel, headers)
    }

    fn ask_as(&self, user: usize, channel: &str, headers: &str) -> Client {
        let token = self.tokens.of(&format!("user-{user:06}"));
        let mut client = Client::connect(self.address);
        client.say(&format!(
            "GET /events?channel={channel} HTTP/1.1\r\nHost: edge.example.com\r\nAccept: text/event-stream\r\n\
             User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
             Accept-Language: en-GB,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\nCache-Control: no-cache\r\n\
             {headers}Authorization: Bearer {token}\r\n\r\n"
        ));
        client
    }

    /// So many that have joined.
    fn subscribers(&mut self, channel: &str, count: usize) -> Vec<Client> {
        let mut clients: Vec<_> = (0..count).map(|_| self.ask(channel, "")).collect();
        self.stage.go_until(|| all_heard(&mut clients, CONNECTED, 1));
        clients.iter_mut().for_each(Client::forget);
        clients
    }

    /// So many events have arrived at the edge, which has nothing else to do, and hasn't looked yet.
    fn publish(&self, channel: &str, count: usize) {
        self.stage.go_until(|| true); // A clock may have struck meanwhile.
        let channel = Channel::parse(channel).expect("a channel");
        let name = Some(EventType::parse("news").expect("a type"));
        let content = Content { name, key: None, ttl: None, data: DATA.into() };
        let drafts = vec![Draft { channel, content, idempotency: None }; count];
        for outcome in self.elsewhere.runtime.block_on(self.publisher.publish(drafts)) {
            outcome.expect("published");
        }
        self.redis.catch_up();
    }

    /// They go, and the edge has noticed.
    fn part(&self, clients: Vec<Client>) {
        drop(clients);
        self.stage.go_until(|| self.edge.stats(false).connections == 0);
    }

    fn deliver(&mut self, name: &str, events: usize) {
        let channel = |count: usize| format!("room:{count}");
        let mut groups = CONNECTIONS.map(|count| (count, self.subscribers(&channel(count), count)));
        path(name, CONNECTIONS, |count| {
            let (_, clients) = groups.iter_mut().find(|(size, _)| *size == count).expect("one of both");
            self.publish(&channel(count), events);
            self.stage.count_until(|| all_heard(clients, NEWS, events));
            for client in clients {
                assert_eq!(client.heard(NEWS), events);
                client.forget();
            }
        });
        self.part(groups.into_iter().flat_map(|(_, clients)| clients).collect());
    }

    fn hear(&mut self) {
        let mut clients = self.subscribers("room:1", 1);
        path("hear", [4, 36], |events| {
            self.publish("room:1", events);
            self.stage.count_until(|| all_heard(&mut clients, NEWS, events));
            clients[0].forget();
        });
        self.part(clients);
    }

    fn connect(&mut self) {
        let stays = self.subscribers("room:1", 1);
        path("connect", COMERS, |count| {
            let mut clients: Vec<_> = (0..count).map(|_| self.ask("room:1", "")).collect();
            self.stage.count_until(|| all_heard(&mut clients, CONNECTED, 1));
            drop(clients);
            self.stage.go_until(|| self.edge.stats(false).connections == 1);
        });
        self.part(stays);
    }

    fn resume(&mut self) {
        let stays = self.subscribers("room:1", 2);
        path("resume", COMERS, |count| {
            let before = self.users;
            let mut clients: Vec<_> = (0..count).map(|_| self.ask("room:1", "")).collect();
            self.stage.go_until(|| all_heard(&mut clients, CONNECTED, 1));
            let ids: Vec<_> = clients.iter().map(last_id).collect();
            drop(clients);
            self.stage.go_until(|| self.edge.stats(false).connections == 2);
            self.publish("room:1", 3);
            self.stage.go_until(|| true);
            let again = |(id, user): (String, usize)| self.ask_as(user, "room:1", &format!("Last-Event-ID: {id}\r\n"));
            let mut clients: Vec<_> = ids.into_iter().zip(before + 1..).map(again).collect();
            self.stage.count_until(|| all_heard(&mut clients, NEWS, 3));
            assert!(clients.iter().all(|client| client.text().contains("\"resumed\":true")));
            drop(clients);
            self.stage.go_until(|| self.edge.stats(false).connections == 2);
        });
        self.part(stays);
    }

    fn leave(&mut self) {
        path("leave", COMERS, |count| {
            drop(self.subscribers("room:1", count));
            self.stage.count_until(|| self.edge.stats(false).connections == 0);
        });
    }
}

fn last_id(client: &Client) -> String {
    let text = client.text();
    text.lines().rev().find_map(|line| line.strip_prefix("id: ")).expect("`connected` has an id").to_owned()
}
