//! What makes a connection hear every event of its channels once, in order, or be told a gap: one machine per shard.
//!
//! Pure. In go a feed's deliveries, one stream per partition, and the coming and going of connections; out come
//! wishes to the feeds (see `wishes`) and frames to an [`Outlet`]. The rules and the counter-example behind each are
//! in `docs/protocol.md`; the names here are the names there.
//!
//! A join, a PATCH, an edge whose backbone connection broke and a shard that fell behind are one thing: ask for a
//! cut, take from history what came before it, and what comes after it is live.

mod chain;
mod channel;
mod connection;
mod fanout;
mod join;
mod memory;
mod patch;
mod resync;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::num::NonZeroU8;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::feed::{Cut, Delivery};
use crate::rules::{Rule, on, visited};
use crate::{Answer, Channel, Epoch, Last, Partition, Partitions, Position, Purge, SharedEvent, Wishes};
use channel::{ChannelState, Channels, Tail};
pub use connection::Id;
use connection::{Connection, Follow, Seat};
use fanout::Fanout;
pub use join::Start;
pub use patch::Patch;
use resync::Resync;

/// A connection's number, given by whoever owns its socket. It may be used again once the connection has left.
pub type ConnectionKey = u32;

/// Ticks that a channel without subscribers is still wished for.
const LINGER_TICKS: u8 = 2;

/// Where frames go. A connection that can't take one may close itself at once; it must then ignore what follows.
pub trait Outlet {
    /// The stream's first frame. Without an id where the client came back with something that is no cursor.
    fn connected(&mut self, to: ConnectionKey, resumed: bool, id: Id<'_>);
    /// Events of channels that the connection follows, all of one partition, the oldest first. `id` is only of use by
    /// [`Id::at`] an event's own position: that is the cursor once it has been sent.
    fn events(&mut self, to: ConnectionKey, epoch: Epoch, events: &[&SharedEvent], replayed: Replayed, id: Id<'_>);
    /// The connection is among the next to be given something: its memory may be brought near. Nothing else happens.
    fn prepare(&self, _: ConnectionKey) {}
    /// Everyone on its channel has been given this live event.
    fn finished(&mut self, _: Partition, _: &SharedEvent) {}
    /// Events are gone for good, or may be.
    fn gap(&mut self, to: ConnectionKey, gap: &Gap, id: Id<'_>);
    /// What the connection follows has changed, and is this now.
    fn subscribed(&mut self, to: ConnectionKey, channels: &[Channel], id: Id<'_>);
    /// Whether the connection has nothing waiting, so that replay can go on. If not, [`Machine::resume`] is to be
    /// called when it has.
    fn is_idle(&self, to: ConnectionKey) -> bool;
}

/// Whether an event comes late, from history or tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// It is live.
    No,
    /// The edge had missed it: everyone on its channel gets it now.
    Missed,
    /// The connection wasn't there. Replay comes in windows that are bounded, and waits for the reader between them.
    Replay,
}

/// Events that are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Of these channels.
    pub channels: Vec<Channel>,
    /// Why.
    pub reason: GapReason,
    /// After this …
    pub from: Position,
    /// … and not after this.
    pub to: Position,
}

/// Why events are gone. In kebab-case a metric label and the `reason` in `gap`: add some, never rename one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GapReason {
    /// History no longer had them: trimmed, too old, or forgotten.
    Expired,
    /// The backbone lost them, or may have.
    Lost,
    /// The client's cursor is none of ours.
    UnknownCursor,
}

impl GapReason {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Expired, Self::Lost, Self::UnknownCursor];

    /// In kebab-case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Lost => "lost",
            Self::UnknownCursor => "unknown-cursor",
        }
    }
}

/// Bounds of what a machine holds in memory, for each partition.
#[derive(Clone, Copy, Debug)]
pub struct MachineLimits {
    /// Newest events of a channel that are kept for those who come back.
    pub tail_events_max: usize,
    /// Bytes of them.
    pub tail_bytes_max: usize,
    /// Events in one page of a read.
    pub page_events_max: usize,
    /// Bytes that one connection's replay holds at a time, besides one event per channel.
    pub replay_bytes_max: usize,
    /// Connections whose history is being read at a time. The others wait for a later cut.
    pub joins_reading_max: usize,
    /// Bytes of live events that wait for one connection's replay. Past it the replay starts again from where it is.
    pub join_buffer_bytes_max: usize,
    /// Bytes of missed events that a resync reads. What is beyond is told as a gap.
    pub resync_bytes_max: usize,
    /// Reads that a resync has under way at a time.
    pub resync_reads_max: usize,
    /// Bytes of the stream that are held during a resync. Past it the resync starts again.
    pub hold_bytes_max: usize,
    /// Events that have started and that not everyone on their channels has been given yet. With so many, the stream
    /// waits.
    pub fanout_events_max: usize,
    /// Bytes of them.
    pub fanout_bytes_max: usize,
}

/// How far the stream of a partition is.
#[derive(Debug)]
pub(crate) struct Head {
    epoch: Epoch,
    seen: Position,
    /// Where the first event stands that not everyone on its channel has been given yet.
    unfinished: Option<Position>,
}

impl Head {
    /// Up to where everyone who is live has been given everything.
    fn covered(&self) -> Position {
        match self.unfinished {
            Some(first) if on(Rule::FanoutCursor) => Position(first.0 - 1),
            _ => self.seen,
        }
    }
}

#[derive(Debug)]
enum State {
    /// Nothing is known since the last break; a cut is asked for.
    Down,
    /// What was missed is being read; the stream is held.
    Sync(Box<Resync>),
    Live,
}

#[derive(Debug)]
struct Part {
    wishes: Arc<Mutex<Wishes>>,
    state: State,
    /// Whether there has ever been a cut.
    known: bool,
    /// The feed's connection that the newest cut came over.
    connection: Option<u64>,
    hold: VecDeque<Delivery>,
    hold_bytes: usize,
    channels: Channels,
    /// Joins without a cut.
    waiting: BTreeSet<ConnectionKey>,
    /// Joins with a cut, by tag.
    attempts: HashMap<u64, ConnectionKey>,
    /// Joins with reads under way.
    reading: usize,
    /// A join waits only because too many were reading.
    deferred: bool,
    adding: Vec<patch::Adding>,
    fanout: Fanout,
    lingering: BTreeSet<u32>,
    /// Ticks that have passed; after the last number comes the first one.
    ticks: NonZeroU8,
}

/// The machine of one shard: all partitions, all connections of that shard.
#[derive(Debug)]
pub struct Machine {
    partitions: Partitions,
    limits: MachineLimits,
    heads: Vec<Head>,
    parts: Vec<Part>,
    connections: Vec<Option<Box<Connection>>>,
    tags: u64,
    /// The partition whose turn it was last.
    turn: usize,
}

impl Machine {
    /// A machine without connections; `wishes` has a set for each partition, shared with its feed.
    pub fn new(partitions: Partitions, limits: MachineLimits, wishes: Vec<Arc<Mutex<Wishes>>>) -> Self {
        assert_eq!(wishes.len(), usize::from(partitions.count()), "a set of wishes for each partition");
        let part = |wishes| Part {
            wishes,
            state: State::Down,
            known: false,
            connection: None,
            hold: VecDeque::new(),
            hold_bytes: 0,
            channels: Channels::default(),
            waiting: BTreeSet::new(),
            attempts: HashMap::new(),
            reading: 0,
            deferred: false,
            adding: Vec::new(),
            fanout: Fanout::default(),
            lingering: BTreeSet::new(),
            ticks: NonZeroU8::MIN,
        };
        Self {
            partitions,
            limits,
            heads: partitions
                .all()
                .map(|_| Head { epoch: Epoch::from_random(0), seen: Position(0), unfinished: None })
                .collect(),
            parts: wishes.into_iter().map(part).collect(),
            connections: Vec::new(),
            tags: 0,
            turn: 0,
        }
    }

    /// The connection's cursor as of now, for a heartbeat. None while something waits for it inside the machine or
    /// it has no cursor yet.
    pub fn id(&self, key: ConnectionKey) -> Option<Id<'_>> {
        let connection = self.connections.get(key as usize)?.as_deref()?;
        let live = connection.connected && connection.follows.iter().all(|follow| follow.join.is_none());
        let first = connection.follows.first()?.partition;
        live.then(|| Id::new(self.partitions, first, connection, &self.heads))
    }

    /// The next item of a partition's stream.
    pub fn deliver(&mut self, partition: Partition, delivery: Delivery, outlet: &mut impl Outlet) {
        let part = &mut self.parts[usize::from(partition)];
        match (&mut part.state, delivery) {
            (_, Delivery::Break) => self.break_off(partition),
            (_, Delivery::Answer(tag, answer)) => self.answer(partition, tag, answer, outlet),
            (State::Down, Delivery::Event(..) | Delivery::Purged(..)) => {}
            (State::Down, Delivery::Cut(cut)) => self.resync(partition, cut, outlet),
            (State::Sync(resync), held) if resync.holds(&held) => {
                part.hold_bytes += cost(&held);
                part.hold.push_back(held);
                if part.hold_bytes > self.limits.hold_bytes_max {
                    visited!("a resync holds too much");
                    self.break_off(partition);
                }
            }
            (_, Delivery::Event(epoch, event)) => self.event(partition, epoch, &event, outlet),
            (_, Delivery::Purged(epoch, purge)) => self.purged(partition, epoch, &purge, outlet),
            (state, Delivery::Cut(cut)) => {
                let live = matches!(state, State::Live); // Without `hold-cuts` it needn't be.
                if live && cut.marker.epoch != self.heads[usize::from(partition)].epoch && on(Rule::CutEpoch) {
                    visited!("a live stream meets a new epoch's cut");
                    self.restart_joins(partition);
                    self.resync(partition, cut, outlet);
                } else {
                    self.cut(partition, &cut, outlet);
                }
            }
        }
    }

    /// A connection is gone.
    pub fn leave(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key as usize).and_then(Option::take) else { return };
        for follow in &connection.follows {
            let part = &mut self.parts[usize::from(follow.partition)];
            part.waiting.remove(&key);
            if let Some(attempt) = follow.join.as_deref().and_then(|join| join.attempt.as_ref()) {
                part.attempts.remove(&attempt.tag);
                part.reading -= usize::from(attempt.reads > 0);
            }
            for seat in &follow.seats {
                self.unseat(follow.partition, *seat);
            }
        }
        if connection.adding > 0 {
            self.drop_patched(key);
        }
        for follow in &connection.follows {
            self.undefer(follow.partition);
        }
    }

    /// Time for channels without subscribers to be forgotten: those that were so at the last tick too.
    pub fn tick(&mut self) {
        for part in &mut self.parts {
            part.ticks = part.ticks.checked_add(1).unwrap_or(NonZeroU8::MIN);
            let mut gone = Vec::new();
            for index in &part.lingering {
                let state = &mut part.channels[*index as usize];
                state.lingering = state.lingering.saturating_add(1);
                if state.lingering >= LINGER_TICKS && !state.sweeping {
                    gone.push(*index);
                }
            }
            for index in gone {
                visited!("a channel has lingered out");
                part.lingering.remove(&index);
                let state = part.channels.remove(index);
                part.wishes().unwant(state.name);
            }
        }
        self.release();
    }

    /// An event in a live stream.
    fn event(&mut self, partition: Partition, epoch: Epoch, event: &SharedEvent, outlet: &mut impl Outlet) {
        if self.continues(partition, epoch, &event.channel, event.prev, outlet) {
            self.feed(partition, event, Replayed::No, outlet);
        }
    }

    /// A purge in a live stream: the channel moves on, and what its tail has is gone. Who is live has had all of it and
    /// hears nothing.
    fn purged(&mut self, partition: Partition, epoch: Epoch, purge: &Purge, outlet: &mut impl Outlet) {
        if !self.continues(partition, epoch, &purge.channel, purge.prev, outlet) {
            return;
        }
        let head = &mut self.heads[usize::from(partition)];
        head.seen = head.seen.max(purge.pos);
        let part = &mut self.parts[usize::from(partition)];
        let Some(index) = part.channels.find(&purge.channel) else { return };
        let state = &mut part.channels[index as usize];
        if state.synced {
            visited!("a followed channel is purged");
            state.last = Last { pos: purge.pos, exact: true };
            if on(Rule::PurgeTail) {
                state.tail = Tail::starting(purge.pos);
            }
        }
    }

    /// Whether something in a live stream joins on to what the machine has. If not, it is dealt with.
    fn continues(
        &mut self,
        partition: Partition,
        epoch: Epoch,
        channel: &Channel,
        prev: Last,
        outlet: &mut impl Outlet,
    ) -> bool {
        if epoch != self.heads[usize::from(partition)].epoch && on(Rule::Epoch) {
            visited!("a live stream meets another epoch's event");
            self.break_off(partition);
            return false;
        }
        let part = &self.parts[usize::from(partition)];
        if let Some(index) = part.channels.find(channel) {
            let state = &part.channels[index as usize];
            let missed = state.last.exact && prev.exact && prev.pos != state.last.pos;
            if state.synced && missed && on(Rule::BackstopPrev) {
                self.hole(partition, &[index], prev.pos, outlet);
                return false;
            }
        }
        true
    }

    /// An event starts on its way to everyone on its channel.
    fn feed(&mut self, partition: Partition, event: &SharedEvent, replayed: Replayed, outlet: &mut impl Outlet) {
        if !self.has_room(partition) {
            visited!("fan-outs are finished to make room");
            self.finish(partition, outlet);
        }
        let Self { heads, parts, limits, .. } = self;
        let head = &mut heads[usize::from(partition)];
        head.seen = head.seen.max(event.pos);
        let part = &mut parts[usize::from(partition)];
        let Some(index) = part.channels.find(&event.channel) else { return };
        let state = &mut part.channels[index as usize];
        if !state.synced {
            visited!("an event of a channel that is not synced");
            return;
        }
        state.last = Last { pos: event.pos, exact: true };
        let keeps_tail = state.keeps_tail(part.ticks);
        state.tail.push(event, if keeps_tail { limits.tail_events_max } else { 0 }, limits.tail_bytes_max);
        if !state.subscribers.is_empty() {
            part.fanout.start(index, state, event, replayed);
            head.unfinished = part.fanout.first();
        }
    }

    /// A cut in a live stream.
    fn cut(&mut self, partition: Partition, cut: &Cut, outlet: &mut impl Outlet) {
        let part = &mut self.parts[usize::from(partition)];
        part.connection = Some(cut.connection);
        let marker = &cut.marker;
        let mut missed = Vec::new();
        for (channel, last) in &marker.lasts {
            if let (Some(index), Some(last)) = (part.channels.find(channel), *last) {
                let state = &part.channels[index as usize];
                if state.synced && (last > state.last.pos || (state.last.exact && last != state.last.pos)) {
                    missed.push(index);
                }
            }
        }
        if !missed.is_empty() && on(Rule::BackstopLast) {
            return self.hole(partition, &missed, marker.last, outlet);
        }
        let head = &mut self.heads[usize::from(partition)];
        head.seen = head.seen.max(marker.last);
        for (channel, last) in &marker.lasts {
            let Some(index) = part.channels.find(channel) else { continue };
            let state = &mut part.channels[index as usize];
            visited!("a cut is too old for a channel", if !state.synced && state.want_no > cut.ack);
            if !state.synced && (state.want_no <= cut.ack || !on(Rule::CutAck)) {
                state.synced = true;
                state.last = match *last {
                    Some(pos) => Last { pos, exact: true },
                    None if on(Rule::UnknownFloor) => {
                        visited!("a channel is unknown at its cut");
                        Last { pos: marker.floor, exact: false }
                    }
                    None => Last::default(),
                };
                state.tail = Tail::starting(marker.last);
            }
        }
        self.add_patched(partition, cut, outlet);
        self.cut_joins(partition, cut, outlet);
    }

    /// Something may be missing: everything that waits starts again, at a cut to come.
    pub(super) fn break_off(&mut self, partition: Partition) {
        let part = &mut self.parts[usize::from(partition)];
        part.state = State::Down;
        part.hold.clear();
        part.hold_bytes = 0;
        if on(Rule::JoinRestart) {
            self.restart_joins(partition);
        }
        let part = &mut self.parts[usize::from(partition)];
        let unsynced = part.channels.iter().filter(|(_, state)| !state.synced).map(|(_, state)| state.name.clone());
        let unsynced: Vec<_> = unsynced.collect();
        part.wishes().cut(unsynced);
    }

    /// Channels have lost events inside a stream that promised to have no holes: say so, and start anew.
    fn hole(&mut self, partition: Partition, channels: &[u32], end: Position, outlet: &mut impl Outlet) {
        self.finish(partition, outlet); // What came before the gap goes out before it.
        for &index in channels {
            let part = &mut self.parts[usize::from(partition)];
            let state = &mut part.channels[index as usize];
            let gap = Gap {
                channels: vec![state.name.clone()],
                reason: GapReason::Lost,
                from: state.last.pos.min(end),
                to: end,
            };
            state.tail = Tail::starting(end);
            state.last.exact = false;
            if on(Rule::BackstopGapFirst) {
                self.gap_for_live(partition, index, &gap, Position::MAX, outlet);
            }
        }
        let connection = self.parts[usize::from(partition)].connection;
        if let Some(connection) = connection {
            self.parts[usize::from(partition)].wishes().distrust(connection);
        }
        self.break_off(partition);
    }

    /// Tells a gap to everyone who is live on a channel and not beyond its end.
    fn gap_for_live(&mut self, partition: Partition, index: u32, gap: &Gap, below: Position, outlet: &mut impl Outlet) {
        let Self { heads, parts, connections, .. } = self;
        for &key in &parts[usize::from(partition)].channels[index as usize].subscribers {
            let connection = connections[key as usize].as_deref_mut().expect("a subscriber is a connection");
            let follow = connection.follow(partition).expect("a subscriber follows its channel's partition");
            if follow.join.is_none() && follow.point.is_some_and(|point| point.pos < below) {
                let id = Id::new(self.partitions, partition, connection, heads);
                outlet.gap(key, gap, id);
            }
        }
    }

    fn answer(&mut self, partition: Partition, tag: u64, answer: Answer, outlet: &mut impl Outlet) {
        let part = &mut self.parts[usize::from(partition)];
        match (&part.state, part.attempts.get(&tag)) {
            (State::Sync(resync), _) if resync.tag == tag => self.resync_answer(partition, answer, outlet),
            (_, Some(&key)) => self.join_answer(partition, key, answer, outlet),
            _ => {
                visited!("an answer to an attempt that is no more");
            }
        }
    }

    /// Takes a connection off a channel.
    fn unseat(&mut self, partition: Partition, seat: Seat) {
        let part = &mut self.parts[usize::from(partition)];
        let state = &mut part.channels[seat.channel as usize];
        if state.subscribers.len() > 1 {
            state.crowded_at = Some(part.ticks);
        }
        let subscribers = &mut state.subscribers;
        subscribers.swap_remove(seat.slot as usize);
        if let Some(&moved) = subscribers.get(seat.slot as usize) {
            // None if it is the leaving connection itself, which is taken off all its channels.
            if let Some(connection) = self.connections[moved as usize].as_deref_mut() {
                let seats = &mut connection.follow(partition).expect("a subscriber follows").seats;
                let other = seats.iter_mut().find(|other| other.channel == seat.channel);
                other.expect("a subscriber has a seat").slot = seat.slot;
            }
        }
        part.linger(seat.channel);
    }

    /// Puts a connection on a channel.
    fn seat(parts: &mut [Part], follow: &mut Follow, key: ConnectionKey, channel: u32) {
        let part = &mut parts[usize::from(follow.partition)];
        let subscribers = &mut part.channels[channel as usize].subscribers;
        follow.seats.push(Seat { channel, slot: subscribers.len() as u32 });
        subscribers.push(key);
    }

    fn new_tag(&mut self, owner: u64) -> u64 {
        self.tags += 1;
        if on(Rule::Tag) { self.tags } else { owner }
    }
}

impl Part {
    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().expect("no one panics while holding the wishes")
    }

    /// The channel's number; wished for if it wasn't.
    fn channel(&mut self, name: &Channel) -> u32 {
        if let Some(index) = self.channels.find(name) {
            visited!("a lingering channel is followed again", if self.lingering.contains(&index));
            self.lingering.remove(&index);
            self.channels[index as usize].lingering = 0;
            return index;
        }
        let want_no = self.wishes().want(name.clone());
        self.channels.insert(ChannelState::new(name.clone(), want_no))
    }

    fn linger(&mut self, channel: u32) {
        if !self.channels[channel as usize].is_followed() {
            self.lingering.insert(channel);
        }
    }
}

fn cost(held: &Delivery) -> usize {
    match held {
        Delivery::Event(_, event) => event.cost(),
        _ => size_of::<Delivery>(),
    }
}
