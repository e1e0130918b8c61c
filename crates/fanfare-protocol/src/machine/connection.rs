//! How far a connection is: in each partition that it follows, live or still joining.

use std::sync::Arc;

use smallvec::SmallVec;

use super::chain::Chain;
use super::{GapReason, Head};
use crate::rules::{Rule, on};
use crate::{ByNamespace, Channel, Epoch, Partition, Partitions, Point, Position, SharedEvent};

/// A connection, as far as delivery is concerned.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) follows: SmallVec<[Follow; 1]>,
    /// Whether `connected` has gone out.
    pub(super) connected: bool,
    pub(super) resumed: Resumed,
    /// Channels changed since the URL was opened, as the cursor spells them.
    pub(super) changes: Option<Box<str>>,
    /// Channels of PATCHes that still wait for their cut.
    pub(super) adding: u32,
}

/// What a connection came back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resumed {
    /// Nothing: it is new.
    Fresh,
    /// A cursor.
    Cursor,
    /// Something that is no cursor of ours. It is told a gap once `connected` has gone out.
    Unknown,
}

/// What a connection follows in one partition.
#[derive(Debug)]
pub(super) struct Follow {
    pub(super) partition: Partition,
    /// The connection's own cursor. None while it is fresh and not cut yet.
    pub(super) point: Option<Point>,
    /// Room for an inbox, the broadcast and one channel more.
    pub(super) seats: SmallVec<[Seat; 3]>,
    /// None once it is live.
    pub(super) join: Option<Box<Join>>,
}

/// A connection's place among a channel's subscribers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    pub(super) channel: u32,
    pub(super) slot: u32,
}

/// A connection on its way to being live.
#[derive(Debug)]
pub(super) struct Join {
    /// Number of the wish for its cut.
    pub(super) no: u64,
    /// Newest events of each channel that it gets where it is fresh. None where it came with a cursor.
    pub(super) replay: Option<Arc<ByNamespace<u16>>>,
    pub(super) attempt: Option<Attempt>,
}

/// A join that has its cut.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) tag: u64,
    pub(super) connection: u64,
    pub(super) epoch: Epoch,
    /// Where replay begins.
    pub(super) start: Position,
    /// Where the partition stood at the cut: replay goes up to here, `buffer` from here on.
    pub(super) cut: Position,
    /// To be told before anything else, and the position after which something may be missing.
    pub(super) gap: Option<(GapReason, Position)>,
    /// Newest events are read, and the cursor begins below the oldest of them.
    pub(super) newest: bool,
    pub(super) chains: Vec<Chain>,
    pub(super) reads: usize,
    pub(super) history: Vec<SharedEvent>,
    pub(super) gaps: Vec<(Channel, Position, Position)>,
    pub(super) buffer: Vec<SharedEvent>,
    pub(super) buffer_bytes: usize,
}

impl Connection {
    pub(super) fn follow(&mut self, partition: Partition) -> Option<&mut Follow> {
        self.follows.iter_mut().find(|follow| follow.partition == partition)
    }

    /// Whether every partition has had its cut, and knows where it begins.
    pub(super) fn is_cut(&self) -> bool {
        self.follows.iter().all(|follow| match follow.join.as_deref() {
            None => true,
            Some(Join { attempt: Some(attempt), .. }) => !attempt.newest || attempt.reads == 0,
            Some(Join { attempt: None, .. }) => false,
        })
    }
}

impl Follow {
    /// The newest position that everything up to has been sent, or needn't be.
    pub(super) fn effective(&self, head: &Head) -> Option<Point> {
        let mut point = self.point?;
        if (self.join.is_none() || !on(Rule::Lazy)) && point.epoch == head.epoch {
            point.pos = point.pos.max(head.covered());
        }
        Some(point)
    }
}

/// A connection's cursor as of now. It is to be written at once, when its frame is queued: it counts everything
/// before it as sent.
#[derive(Clone, Copy)]
pub struct Id<'a> {
    partitions: Partitions,
    first: Partition,
    /// The point of the first partition, where it is not the connection's own.
    own: Option<Point>,
    connection: &'a Connection,
    heads: &'a [Head],
}

impl<'a> Id<'a> {
    pub(super) fn new(partitions: Partitions, first: Partition, connection: &'a Connection, heads: &'a [Head]) -> Self {
        Self { partitions, first, own: None, connection, heads }
    }

    /// The cursor once an event at this point of its own partition has been sent, too.
    pub fn at(self, own: Point) -> Self {
        Self { own: Some(own), ..self }
    }

    /// The whole cursor, where it is the same for all who get this event: one partition, nothing changed.
    pub fn shared(&self) -> Option<Point> {
        let shared = self.partitions == Partitions::ONE && self.connection.changes.is_none();
        shared.then(|| self.own.or_else(|| self.connection.follows[0].effective(&self.heads[0]))).flatten()
    }

    /// The cursor's points, the one of the event's own partition first. None where the client's own cursor was no
    /// cursor: it has nothing better to come back with.
    pub fn points(&self) -> impl Iterator<Item = (Partition, Point)> + use<'a> {
        let Self { first, own, connection, heads, .. } = *self;
        let point =
            move |follow: &Follow| Some((follow.partition, follow.effective(&heads[usize::from(follow.partition)])?));
        let first_point = move |follow: &Follow| own.map(|own| (first, own)).or_else(|| point(follow));
        let own = connection.follows.iter().filter(move |follow| follow.partition == first).filter_map(first_point);
        let others = connection.follows.iter().filter(move |follow| follow.partition != first).filter_map(point);
        own.chain(others)
    }

    /// How many partitions the deployment has.
    pub fn partitions(&self) -> Partitions {
        self.partitions
    }

    /// Channels changed since the URL was opened, as the cursor spells them.
    pub fn changes(&self) -> &'a str {
        self.connection.changes.as_deref().unwrap_or_default()
    }
}
