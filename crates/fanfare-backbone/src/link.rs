//! A feed's two connections to the backbone, as the feed sees them: a subscription and the commands that belong to it.

use std::sync::Arc;

use fanfare_protocol::{Answer, Channel, Confirmation, Epoch, Marker, Query, ShardIndex, SharedEvent};
use tokio::sync::mpsc;

use crate::in_process::Hub;

/// What arrives over a link, in the order in which the backbone sent it.
#[derive(Clone, Debug)]
pub enum LinkEvent {
    /// A subscribe or unsubscribe is in force.
    Confirmed(Channel, Confirmation),
    /// The link's own marker channel is subscribed.
    MarkerConfirmed,
    /// An event of a subscribed channel.
    Event(Epoch, SharedEvent),
    /// A barrier's marker.
    Marker(Arc<Marker>),
    /// A barrier's script has ended.
    BarrierAnswered(u64),
    /// A read has ended.
    Answered(ShardIndex, u64, Answer),
}

/// A link. Dropping it closes both connections.
#[derive(Debug)]
pub struct Link {
    id: u64,
    hub: Arc<Hub>,
    arrivals: mpsc::Receiver<LinkEvent>,
}

impl Link {
    pub(crate) fn new(id: u64, hub: Arc<Hub>, arrivals: mpsc::Receiver<LinkEvent>) -> Self {
        Self { id, hub, arrivals }
    }

    /// The next arrivals, at most `max` of them. None: the link is broken, and something may be missing.
    pub async fn arrivals(&mut self, into: &mut Vec<LinkEvent>, max: usize) -> Option<()> {
        (self.arrivals.recv_many(into, max).await > 0).then_some(())
    }

    /// Subscribes to channels; each is confirmed.
    pub fn subscribe(&self, channels: Vec<Channel>) {
        self.hub.subscribe(self.id, channels);
    }

    /// Subscribes to the link's own marker channel; it is confirmed.
    pub fn subscribe_marker(&self) {
        self.hub.subscribe_marker(self.id);
    }

    /// Unsubscribes from channels; each is confirmed.
    pub fn unsubscribe(&self, channels: Vec<Channel>) {
        self.hub.unsubscribe(self.id, channels);
    }

    /// Sends a marker through the subscription, and an answer beside it.
    pub fn barrier(&self, nonce: u64, channels: Vec<Channel>) {
        self.hub.barrier(self.id, nonce, channels);
    }

    /// Reads; the answer arrives with shard and tag.
    pub fn read(&self, shard: ShardIndex, tag: u64, query: Query) {
        self.hub.answer(self.id, shard, tag, query);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.hub.close(self.id);
    }
}
