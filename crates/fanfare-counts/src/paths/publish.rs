//! Requests that publish: the API with its server, a key and Redis.

use std::net::SocketAddr;
use std::sync::Arc;

use fanfare_auth::{PublishAccess, PublishKeys};
use fanfare_http::{Server, listen};
use fanfare_publish::{PublishApi, PublishConfig};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::DATA;
use crate::place::{Client, Redis, Stage, all_heard};
use crate::tally::path;

const KEY: &str = "a-key-of-at-least-thirty-two-bytes";

/// What is answered for each event.
const SUCCESS: &str = "\"success\":true";

pub(super) fn go(redis: &Redis) {
    let stage = Stage::new(redis);
    let address = start(&stage, redis);
    let mut number = 0;

    // No more than the kernel takes at once.
    path("publish-line", [20, 100], |lines| {
        let body: String = (0..lines).map(|_| {
            number += 1;
            format!("{{\"channel\":\"user:u{:05}\",\"data\":\"{DATA}\",\"event\":\"news\",\"idempotencyKey\":\"k{number:07}\"}}\n", number % 500)
        }).collect();
        let mut clients = [Client::connect(address)];
        clients[0].say(&request("/publish", "application/x-ndjson", &body));
        stage.count_until(|| all_heard(&mut clients, SUCCESS, lines));
    });

    let mut clients: Vec<_> = (0..100).map(|_| Client::connect(address)).collect();
    path("publish-one", [20, 100], |count| {
        let clients = &mut clients[..count];
        for (client, user) in clients.iter_mut().zip(0..) {
            let body = format!("{{\"userId\":\"u{user:05}\",\"message\":\"{DATA}\"}}");
            client.say(&request("/notify", "application/json", &body));
        }
        stage.count_until(|| all_heard(clients, SUCCESS, 1));
        clients.iter_mut().for_each(Client::forget);
    });
}

fn start(stage: &Stage<'_>, redis: &Redis) -> SocketAddr {
    let _inside = stage.runtime.enter();
    let access = PublishAccess::Keys(PublishKeys::parse(&format!("test={KEY}")).expect("a key"));
    let (backbone, registry) = (redis.backbone("publish", 1), prometheus::Registry::new());
    let api = PublishApi::new(backbone, PublishConfig::default(), access, None, &registry).expect("a new registry");
    let listener = listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let address = listener.local_addr().expect("bound");
    let tasks = TaskTracker::new();
    tasks.spawn(Server::new(Arc::new(api)).serve(listener, CancellationToken::new(), tasks.clone()));
    address
}

fn request(path: &str, media_type: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: publish.example.com\r\nContent-Type: {media_type}\r\n\
         Authorization: Bearer {KEY}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
