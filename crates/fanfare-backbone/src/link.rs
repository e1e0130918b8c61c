//! A feed's two connections to the backbone, as the feed sees them: a subscription and the commands that belong to it.

use std::sync::Arc;

use fanfare_protocol::{Answer, Channel, Confirmation, Epoch, Marker, Purge, Query, ShardIndex, SharedEvent};

use crate::BackboneError;
use crate::in_process::HubLink;
use crate::redis::RedisLink;

/// What arrives over a link, in the order in which the backbone sent it.
#[derive(Clone, Debug)]
pub enum LinkEvent {
    /// A subscribe or unsubscribe is in force.
    Confirmed(Channel, Confirmation),
    /// The link's own marker channel is subscribed.
    MarkerConfirmed,
    /// An event of a subscribed channel.
    Event(Epoch, SharedEvent),
    /// A purge of a subscribed channel.
    Purged(Epoch, Purge),
    /// A barrier's marker.
    Marker(Arc<Marker>),
    /// A barrier's script has ended.
    BarrierAnswered(u64),
    /// A read has ended.
    Answered(ShardIndex, u64, Answer),
}

/// A link. Dropping it closes both connections.
#[derive(Debug)]
pub struct Link(Kind);

#[derive(Debug)]
enum Kind {
    InProcess(HubLink),
    Redis(RedisLink),
}

impl From<HubLink> for Link {
    fn from(link: HubLink) -> Self {
        Self(Kind::InProcess(link))
    }
}

impl From<RedisLink> for Link {
    fn from(link: RedisLink) -> Self {
        Self(Kind::Redis(link))
    }
}

impl Link {
    /// The next arrivals, at most `max` of them. None: the link is broken, and something may be missing.
    pub async fn arrivals(&mut self, into: &mut Vec<LinkEvent>, max: usize) -> Option<()> {
        match &mut self.0 {
            Kind::InProcess(link) => link.arrivals(into, max).await,
            Kind::Redis(link) => link.arrivals(into, max).await,
        }
    }

    /// Why the link broke, once it has and the backbone knows.
    pub fn broken_by(&self) -> Option<BackboneError> {
        match &self.0 {
            Kind::InProcess(_) => None,
            Kind::Redis(link) => link.ended().map(BackboneError::from),
        }
    }

    /// Microseconds by which the clock that positions count is ahead of this process's, as well as it is known by now.
    pub fn clock_ahead_micros(&self) -> i64 {
        match &self.0 {
            Kind::InProcess(_) => 0,
            Kind::Redis(link) => link.clock_ahead_micros(),
        }
    }

    /// Subscribes to channels; each is confirmed.
    pub fn subscribe(&self, channels: Vec<Channel>) {
        match &self.0 {
            Kind::InProcess(link) => link.subscribe(channels),
            Kind::Redis(link) => link.subscribe(channels),
        }
    }

    /// Subscribes to the link's own marker channel; it is confirmed.
    pub fn subscribe_marker(&self) {
        match &self.0 {
            Kind::InProcess(link) => link.subscribe_marker(),
            Kind::Redis(link) => link.subscribe_marker(),
        }
    }

    /// Unsubscribes from channels; each is confirmed.
    pub fn unsubscribe(&self, channels: Vec<Channel>) {
        match &self.0 {
            Kind::InProcess(link) => link.unsubscribe(channels),
            Kind::Redis(link) => link.unsubscribe(channels),
        }
    }

    /// Sends a marker through the subscription, and an answer beside it.
    pub fn barrier(&self, nonce: u64, channels: Vec<Channel>) {
        match &self.0 {
            Kind::InProcess(link) => link.barrier(nonce, channels),
            Kind::Redis(link) => link.barrier(nonce, channels),
        }
    }

    /// Reads; the answer arrives with shard and tag.
    pub fn read(&self, shard: ShardIndex, tag: u64, query: Query) {
        match &self.0 {
            Kind::InProcess(link) => link.read(shard, tag, query),
            Kind::Redis(link) => link.read(shard, tag, query),
        }
    }
}
