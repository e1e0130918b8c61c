//! What tests do with a backbone's links again and again.

use fanfare_backbone::{Link, LinkEvent};
use fanfare_protocol::{Channel, Content, Draft};
use tokio::time::timeout;

use crate::support::PATIENCE;

pub(crate) fn channel(name: &str) -> Channel {
    Channel::parse(name).expect("a valid channel")
}

pub(crate) fn draft(name: &str, data: &str) -> Draft {
    let content = Content { name: None, key: None, ttl: None, data: data.into() };
    Draft { channel: channel(name), content, idempotency: None }
}

/// Waits until so many have arrived.
pub(crate) async fn arrivals(link: &mut Link, count: usize) -> Vec<LinkEvent> {
    let mut arrived = Vec::new();
    while arrived.len() < count {
        let more = timeout(PATIENCE, link.arrivals(&mut arrived, count)).await.expect("in time");
        more.unwrap_or_else(|| panic!("the link broke: {:?}", link.broken_by()));
    }
    arrived
}
