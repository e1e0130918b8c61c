//! What a machine knows of a channel: who is on it, where it stands, and its newest events.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU8;
use std::ops::{Index, IndexMut};

use hashbrown::HashTable;
use slab::Slab;
use smallvec::SmallVec;

use super::ConnectionKey;
use crate::{Channel, Last, Position, SharedEvent, has_slack};

/// A channel of one shard and partition.
#[derive(Debug)]
pub(super) struct ChannelState {
    pub(super) name: Channel,
    /// Most channels are inboxes: a few subscribers take no room of their own.
    pub(super) subscribers: SmallVec<[ConnectionKey; 4]>,
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
    /// The tick when one of several subscribers left last.
    pub(super) crowded_at: Option<NonZeroU8>,
}

impl ChannelState {
    pub(super) fn new(name: Channel, want_no: u64) -> Self {
        Self {
            name,
            subscribers: SmallVec::new(),
            adding: 0,
            want_no,
            synced: false,
            last: Last::default(),
            tail: Tail::default(),
            lingering: 0,
            sweeping: false,
            crowded_at: None,
        }
    }

    /// Whether the newest events are kept for those who come back: several are on it, or were lately, or nobody is and
    /// it lingers. Where everybody was cut off at once, all come back to a tail. A lone reader's history is read.
    pub(super) fn keeps_tail(&self, tick: NonZeroU8) -> bool {
        let crowded_lately =
            || self.crowded_at.is_some_and(|at| tick.get().wrapping_sub(at.get()) <= super::LINGER_TICKS);
        self.subscribers.len() != 1 || crowded_lately()
    }

    pub(super) fn is_followed(&self) -> bool {
        !self.subscribers.is_empty() || self.adding > 0
    }
}

/// The channels of one shard and partition, by number and by name. Names are kept once: the table has numbers alone.
#[derive(Debug, Default)]
pub(super) struct Channels {
    states: Slab<ChannelState>,
    by_name: HashTable<u32>,
    hasher: RandomState,
}

impl Channels {
    pub(super) fn find(&self, name: &Channel) -> Option<u32> {
        self.by_name.find(self.hasher.hash_one(name), |index| self[*index as usize].name == *name).copied()
    }

    /// Takes in a channel that isn't there, and answers with its number.
    pub(super) fn insert(&mut self, state: ChannelState) -> u32 {
        let Self { states, by_name, hasher } = self;
        let hash = hasher.hash_one(&state.name);
        let index = states.insert(state) as u32;
        by_name.insert_unique(hash, index, |index| hasher.hash_one(&states[*index as usize].name));
        index
    }

    pub(super) fn remove(&mut self, index: u32) -> ChannelState {
        let state = self.states.remove(index as usize);
        if let Ok(found) = self.by_name.find_entry(self.hasher.hash_one(&state.name), |other| *other == index) {
            found.remove();
        }
        state
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &ChannelState)> {
        self.states.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut ChannelState)> {
        self.states.iter_mut()
    }

    /// Gives back room that has been empty since many left.
    pub(super) fn release(&mut self) {
        let Self { states, by_name, hasher } = self;
        if has_slack(by_name.capacity(), by_name.len()) {
            by_name.shrink_to(2 * by_name.len(), |index| hasher.hash_one(&states[*index as usize].name));
            states.shrink_to_fit();
        }
    }
}

impl Index<usize> for Channels {
    type Output = ChannelState;

    fn index(&self, index: usize) -> &ChannelState {
        &self.states[index]
    }
}

impl IndexMut<usize> for Channels {
    fn index_mut(&mut self, index: usize) -> &mut ChannelState {
        &mut self.states[index]
    }
}

/// The newest events of a channel, in memory: all of those after `from`, up to the channel's last.
#[derive(Debug, Default)]
pub(super) struct Tail {
    from: Position,
    /// None: there are none, as in every inbox with one reader.
    kept: Option<Box<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<SharedEvent>,
    bytes: usize,
}

impl Tail {
    /// An empty one that answers cursors from here on.
    pub(super) fn starting(from: Position) -> Self {
        Self { from, kept: None }
    }

    pub(super) fn push(&mut self, event: &SharedEvent, events_max: usize, bytes_max: usize) {
        if event.pos <= self.from {
            return; // Filled in late, from before a gap: the tail begins after that.
        }
        if events_max == 0 {
            *self = Self::starting(event.pos);
            return;
        }
        let kept = self.kept.get_or_insert_default();
        kept.bytes += event.cost();
        kept.events.push_back(event.clone());
        while kept.events.len() > events_max || kept.bytes > bytes_max {
            let Some(oldest) = kept.events.pop_front() else { break };
            kept.bytes -= oldest.cost();
            self.from = oldest.pos;
        }
    }

    /// The events after a position, if none of them has fallen out.
    pub(super) fn after(&self, start: Position, must_reach: bool) -> Option<impl Iterator<Item = &SharedEvent>> {
        let begin = self.kept.as_ref().map_or(0, |kept| kept.events.partition_point(|event| event.pos <= start));
        (self.from <= start || !must_reach).then(|| self.events(begin))
    }

    /// The newest `count` events, if there are so many.
    pub(super) fn newest(&self, count: usize) -> Option<impl Iterator<Item = &SharedEvent>> {
        let begin = self.kept.as_ref().map_or(0, |kept| kept.events.len()).checked_sub(count)?;
        Some(self.events(begin))
    }

    fn events(&self, begin: usize) -> impl Iterator<Item = &SharedEvent> {
        self.kept.iter().flat_map(move |kept| kept.events.range(begin..))
    }
}
