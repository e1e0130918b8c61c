//! The request with which a client subscribes, and the token that opens it.

use std::time::{Duration, SystemTime};

use fanfare_auth::{Secrets, TokenOrder};
use fanfare_protocol::{Pattern, UserId};

use crate::endpoint::Endpoint;
use crate::traffic::{Kind, Traffic};

/// The request: all channels that the client follows, and the id that it came to.
pub(crate) fn request(
    traffic: &Traffic,
    client: u32,
    endpoint: &Endpoint,
    secret: Option<&Secrets>,
    last_id: Option<&str>,
) -> Vec<u8> {
    let (path, host) = (endpoint.path(), endpoint.authority());
    let mut request = format!("GET {path}/events?user=u{client}");
    for channel in traffic.follows(client) {
        if let Kind::Shared(number) = traffic.kind(channel) {
            request += &format!("&channel=load:{number}");
        }
    }
    request += &format!(" HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n");
    if let Some(secret) = secret {
        request += &format!("Authorization: Bearer {}\r\n", token(client, secret));
    }
    if let Some(id) = last_id {
        request += &format!("Last-Event-ID: {id}\r\n");
    }
    request += "\r\n";
    request.into_bytes()
}

/// What opens a client's inbox, the broadcast and the shared channels, for longer than any run.
pub(crate) fn token(client: u32, secret: &Secrets) -> String {
    let order = TokenOrder {
        user: UserId::parse(&format!("u{client}")).ok(),
        channels: Pattern::parse("load:*").into_iter().collect(),
        follow: Vec::new(),
        ttl: Duration::from_secs(24 * 60 * 60),
    };
    order.mint(secret, SystemTime::now()).expect("a user and a pattern make a token").token
}
