//! What a machine knows of a channel: who is on it, where it stands, and its newest events.

use std::collections::VecDeque;

use super::ConnectionKey;
use crate::{Channel, Last, Position, SharedEvent};

/// A channel of one shard and partition.
#[derive(Debug)]
pub(super) struct ChannelState {
    pub(super) name: Channel,
    pub(super) subscribers: Vec<ConnectionKey>,
    /// Connections that a PATCH adds, and that wait for a cut.
    pub(super) adding: u32,
    /// Number of the wish that wants it.
    pub(super) want_no: u64,
    /// Whether every event since `last` has come, or will.
    pub(super) synced: bool,
    pub(super) last: Last,
    pub(super) tail: Tail,
    /// Ticks without anyone on it. It stays wished for until it has lingered out.
    pub(super) lingering: u8,
    /// Its subscribers are being visited.
    pub(super) sweeping: bool,
}

impl ChannelState {
    pub(super) fn new(name: Channel, want_no: u64) -> Self {
        Self {
            name,
            subscribers: Vec::new(),
            adding: 0,
            want_no,
            synced: false,
            last: Last::default(),
            tail: Tail::default(),
            lingering: 0,
            sweeping: false,
        }
    }

    pub(super) fn is_followed(&self) -> bool {
        !self.subscribers.is_empty() || self.adding > 0
    }
}

/// The newest events of a channel, in memory: all of those after `from`, up to the channel's last.
#[derive(Debug, Default)]
pub(super) struct Tail {
    from: Position,
    events: VecDeque<SharedEvent>,
    bytes: usize,
}

impl Tail {
    /// An empty one that answers cursors from here on.
    pub(super) fn starting(from: Position) -> Self {
        Self { from, ..Self::default() }
    }

    pub(super) fn push(&mut self, event: &SharedEvent, events_max: usize, bytes_max: usize) {
        if event.pos <= self.from {
            return; // Filled in late, from before a gap: the tail begins after that.
        }
        if events_max == 0 {
            *self = Self::starting(event.pos);
            return;
        }
        self.bytes += event.cost();
        self.events.push_back(event.clone());
        while self.events.len() > events_max || self.bytes > bytes_max {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.cost();
            self.from = oldest.pos;
        }
    }

    /// The events after a position, if none of them has fallen out.
    pub(super) fn after(&self, start: Position, must_reach: bool) -> Option<impl Iterator<Item = &SharedEvent>> {
        let begin = self.events.partition_point(|event| event.pos <= start);
        (self.from <= start || !must_reach).then(|| self.events.range(begin..))
    }

    /// The newest `count` events, if there are so many.
    pub(super) fn newest(&self, count: usize) -> Option<impl Iterator<Item = &SharedEvent>> {
        let begin = self.events.len().checked_sub(count)?;
        Some(self.events.range(begin..))
    }
}
