//! What a shard wants of a feed: a numbered set, never a queue.
//!
//! The shard changes the set and rings a bell; the feed takes the whole set when it gets round to it. Wishes that
//! cancel out in between are never seen, and the set is bounded by the channels that the shard follows, so that
//! neither side ever waits for the other. A cut tells the shard up to which number the feed knew its wishes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem;

use crate::{Channel, Epoch, Page, PageLimit, Position};

/// Something to be read from the store, over the commands connection that belongs to the subscription.
#[derive(Clone, Debug)]
pub struct Read {
    /// The feed's connection that the asking machine's cut came over. Dropped if that is gone: a break is on its
    /// way then.
    pub connection: u64,
    /// The attempt that asks; its answer carries it back.
    pub tag: u64,
    /// What is asked.
    pub query: Query,
}

/// What is read.
#[derive(Clone, Debug)]
pub enum Query {
    /// A channel's history after a position, oldest first.
    After(Channel, Position, PageLimit),
    /// A channel's newest events, oldest first.
    Newest(Channel, PageLimit),
    /// Where channels stand, and then the floor.
    Lasts(Vec<Channel>),
}

/// What was read, beside the tag.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`Query::After`] and [`Query::Newest`].
    Page(Channel, Page),
    /// To [`Query::Lasts`]: the same channels, the floor, and the partition's epoch.
    Lasts(Vec<(Channel, Option<Position>)>, Position, Option<Epoch>),
}

impl Answer {
    /// Whose history was read: the partition's epoch then.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Page(_, page) => page.epoch,
            Self::Lasts(_, _, epoch) => *epoch,
        }
    }
}

/// The wishes of one shard that a feed hasn't taken yet.
#[derive(Debug, Default)]
pub struct Wishes {
    number: u64,
    wanted: HashMap<Channel, bool>,
    cuts: HashMap<Channel, ()>,
    cut: bool,
    reads: Vec<Read>,
    distrust: Option<u64>,
}

/// What a feed takes at once.
#[derive(Debug, Default)]
pub struct WishBatch {
    /// Number of the newest wish in it.
    pub number: u64,
    /// Channels wanted (`true`) and no longer wanted.
    pub wanted: Vec<(Channel, bool)>,
    /// A cut is asked for …
    pub cut: bool,
    /// … that tells where these channels stand.
    pub cuts: Vec<Channel>,
    /// Reads.
    pub reads: Vec<Read>,
    /// The feed's connection with this number has lost something.
    pub distrust: Option<u64>,
}

impl Wishes {
    /// Wants a channel's events. Answers with the wish's number.
    pub fn want(&mut self, channel: Channel) -> u64 {
        self.toggle(channel, true)
    }

    /// Wants them no longer.
    pub fn unwant(&mut self, channel: Channel) {
        self.cuts.remove(&channel);
        self.toggle(channel, false);
    }

    /// Asks for a cut that tells where these channels stand. Answers with the wish's number.
    pub fn cut(&mut self, channels: impl IntoIterator<Item = Channel>) -> u64 {
        self.number += 1;
        self.cut = true;
        self.cuts.extend(channels.into_iter().map(|channel| (channel, ())));
        self.number
    }

    /// Asks for a read.
    pub fn read(&mut self, read: Read) {
        self.number += 1;
        self.reads.push(read);
    }

    /// Says that a connection of the feed has lost something and must be opened anew.
    pub fn distrust(&mut self, connection: u64) {
        self.number += 1;
        self.distrust = Some(connection);
    }

    /// Whether there is nothing to take.
    pub fn is_empty(&self) -> bool {
        !self.cut && self.wanted.is_empty() && self.reads.is_empty() && self.distrust.is_none()
    }

    /// Takes everything.
    pub fn take(&mut self) -> WishBatch {
        WishBatch {
            number: self.number,
            wanted: mem::take(&mut self.wanted).into_iter().collect(), // And its room, which a storm has made large.
            cut: mem::take(&mut self.cut),
            cuts: mem::take(&mut self.cuts).into_keys().collect(),
            reads: mem::take(&mut self.reads),
            distrust: self.distrust.take(),
        }
    }

    fn toggle(&mut self, channel: Channel, wanted: bool) -> u64 {
        self.number += 1;
        match self.wanted.entry(channel) {
            // The feed has not seen the opposite wish: both are gone.
            Entry::Occupied(pending) if *pending.get() != wanted => drop(pending.remove()),
            Entry::Occupied(_) => {}
            Entry::Vacant(slot) => drop(slot.insert(wanted)),
        }
        self.number
    }
}
