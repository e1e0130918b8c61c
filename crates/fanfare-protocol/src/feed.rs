//! One edge's subscription to a partition: it makes one ordered stream of events, cuts and breaks for each shard.
//!
//! Pure: a driver owns the two connections (subscription and commands, opened and dying together), carries out the
//! [`Action`]s and reports what arrives. The rule that everything rests on: *one connection, in order, no holes;
//! anything else is a break*. How the machine of a shard goes on from a break is its own job (see `machine`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use crate::rules::{Rule, on, visited};
use crate::{Answer, Channel, Epoch, Marker, Purge, Read, SharedEvent, WishBatch, has_slack};

/// Shards of an edge at most: a set of them is one machine word.
pub const SHARDS_MAX: usize = 64;

/// Channels in one SUBSCRIBE and in one barrier at most.
pub const BATCH_MAX: usize = 1_000;

/// An item of a shard's stream.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// An event of a channel that the shard wants.
    Event(Epoch, SharedEvent),
    /// A purge of such a channel.
    Purged(Epoch, Purge),
    /// The point that divides what history has from what is live.
    Cut(Cut),
    /// Something may be missing here.
    Break,
    /// What a read found.
    Answer(u64, Answer),
}

/// Where a marker stood in the stream.
#[derive(Clone, Debug)]
pub struct Cut {
    /// What the marker says.
    pub marker: Arc<Marker>,
    /// Number of the shard's last wish that the feed knew when it *sent* the barrier.
    pub ack: u64,
    /// The feed's connection that it came over.
    pub connection: u64,
}

/// What the driver is to do, in this order.
#[derive(Clone, Debug)]
pub enum Action {
    /// Close what is open and open anew, after a jittered pause. Then report [`Feed::opened`].
    Reopen,
    /// Subscribe to these channels, at most [`BATCH_MAX`], and report each confirmation.
    Subscribe(Vec<Channel>),
    /// Subscribe to the marker channel of this connection, and report its confirmation.
    SubscribeMarker,
    /// Unsubscribe from these channels, and report each confirmation.
    Unsubscribe(Vec<Channel>),
    /// Call the barrier, and report its answer.
    Barrier(u64, Vec<Channel>),
    /// Read for a shard, and report the answer.
    Read(ShardIndex, Read),
    /// Append to a shard's stream.
    Deliver(ShardIndex, Delivery),
}

/// Number of a shard, below [`SHARDS_MAX`].
pub type ShardIndex = usize;

/// What was confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// A SUBSCRIBE.
    Subscribed,
    /// An UNSUBSCRIBE.
    Unsubscribed,
}

/// How long a feed waits.
#[derive(Clone, Copy, Debug)]
pub struct FeedTiming {
    /// For the next confirmation, the answer of a script or a read, and the marker after its script's answer. Past
    /// it the connection counts as dead.
    pub deadline: Duration,
    /// Pause between cuts in quiet times: nothing else finds a subscription that died without a word.
    pub beacon_interval: Duration,
}

/// Counts what is outstanding, and since when nothing of it has come.
#[derive(Debug, Default)]
struct Outstanding {
    count: usize,
    since: Duration,
}

impl Outstanding {
    fn add(&mut self, now: Duration, count: usize) {
        if self.count == 0 {
            self.since = now;
        }
        self.count += count;
    }

    fn arrived(&mut self, now: Duration) {
        self.count = self.count.saturating_sub(1);
        self.since = now;
    }

    fn overdue(&self, now: Duration, deadline: Duration) -> bool {
        self.count > 0 && now.saturating_sub(self.since) > deadline
    }
}

#[derive(Debug)]
struct Connection {
    id: u64,
    marker_confirmed: bool,
}

#[derive(Debug)]
struct Flight {
    nonce: u64,
    acks: Vec<u64>,
    sent: Duration,
    /// When the script's answer came.
    answered: Option<Duration>,
}

/// A channel that some shard wants, or whose confirmations are still to come.
#[derive(Debug, Default)]
struct Subscription {
    /// The shards that want it, a bit each.
    shards: u64,
    /// Subscribes and unsubscribes that are not confirmed yet …
    pending: u32,
    /// … and how many of them are unsubscribes.
    unsubscribes: u32,
}

#[derive(Debug, Default)]
struct Shard {
    /// Number of the last wish taken.
    got: u64,
    /// Wants a cut whose barrier was sent when at least this wish was known.
    need: Option<u64>,
    /// Channels that such a cut must name, with the number of the wish.
    asked: HashMap<Channel, u64>,
}

/// The feed of one partition.
#[derive(Debug)]
pub struct Feed {
    timing: FeedTiming,
    shards: Vec<Shard>,
    subscriptions: IndexMap<Channel, Subscription>,
    connection: Option<Connection>,
    connections_opened: u64,
    flight: Option<Flight>,
    nonce: u64,
    confirmations: Outstanding,
    reads: Outstanding,
    last_cut: Duration,
    /// Where the next look round at channels that nobody asked for begins, and when the last one was.
    rotation: usize,
    last_rotation: Duration,
}

impl Feed {
    /// A feed for so many shards (1 to [`SHARDS_MAX`]). The driver opens the connections at once.
    pub fn new(shards: usize, timing: FeedTiming, now: Duration) -> Self {
        assert!((1..=SHARDS_MAX).contains(&shards), "an edge has 1 to {SHARDS_MAX} shards");
        Self {
            timing,
            shards: (0..shards).map(|_| Shard::default()).collect(),
            subscriptions: IndexMap::new(),
            connection: None,
            connections_opened: 0,
            flight: None,
            nonce: 0,
            confirmations: Outstanding::default(),
            reads: Outstanding::default(),
            last_cut: now,
            rotation: 0,
            last_rotation: now,
        }
    }

    /// Whether the connections are open and the marker channel is confirmed.
    pub fn is_up(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.marker_confirmed)
    }

    /// Channels that are wanted, and how many of those are not confirmed.
    pub fn subscriptions(&self) -> (usize, usize) {
        (self.subscriptions.len(), self.confirmations.count)
    }

    /// Both connections are open. Subscribes to everything that is wanted, the marker channel last, so that a
    /// marker proves the rest.
    pub fn opened(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.connections_opened += 1;
        self.connection = Some(Connection { id: self.connections_opened, marker_confirmed: false });
        self.last_cut = now;
        self.subscriptions.retain(|_, subscription| {
            subscription.pending = 1;
            subscription.unsubscribes = 0;
            subscription.shards != 0
        });
        self.confirmations = Outstanding::default();
        self.confirmations.add(now, self.subscriptions.len() + 1);
        if !on(Rule::MarkerLast) {
            out.push(Action::SubscribeMarker);
        }
        let channels: Vec<_> = self.subscriptions.keys().cloned().collect();
        out.extend(channels.chunks(BATCH_MAX).map(|batch| Action::Subscribe(batch.to_vec())));
        if on(Rule::MarkerLast) {
            out.push(Action::SubscribeMarker);
        }
    }

    /// One of the connections is gone, or says something that it shouldn't.
    pub fn broken(&mut self, out: &mut Vec<Action>) {
        self.connection = None;
        self.flight = None;
        self.confirmations = Outstanding::default();
        self.reads = Outstanding::default();
        for shard in 0..self.shards.len() {
            out.push(Action::Deliver(shard, Delivery::Break));
        }
        out.push(Action::Reopen);
    }

    /// A shard's wishes.
    pub fn wishes(&mut self, now: Duration, shard: ShardIndex, batch: WishBatch, out: &mut Vec<Action>) {
        self.shards[shard].got = batch.number;
        let mut subscribe = Vec::new();
        let mut unsubscribe = Vec::new();
        for (channel, wanted) in batch.wanted {
            let changed = if wanted { self.want(shard, &channel) } else { self.unwant(shard, &channel) };
            if changed {
                if wanted { &mut subscribe } else { &mut unsubscribe }.push(channel);
            }
        }
        if self.connection.is_some() {
            self.confirmations.add(now, subscribe.len() + unsubscribe.len());
            out.extend(unsubscribe.chunks(BATCH_MAX).map(|batch| Action::Unsubscribe(batch.to_vec())));
            out.extend(subscribe.chunks(BATCH_MAX).map(|batch| Action::Subscribe(batch.to_vec())));
        }
        if batch.cut {
            let state = &mut self.shards[shard];
            state.need = Some(batch.number);
            for channel in batch.cuts {
                let wanted = self.subscriptions.get(&channel).is_some_and(|s| s.shards & (1 << shard) != 0);
                if wanted {
                    state.asked.insert(channel, batch.number);
                }
            }
        }
        for read in batch.reads {
            let current = self.connection.as_ref().is_some_and(|connection| connection.id == read.connection);
            visited!("a read for a connection that is gone", if !current);
            if current {
                self.reads.add(now, 1);
                out.push(Action::Read(shard, read));
            }
        }
        if batch.distrust.is_some() && batch.distrust == self.connection.as_ref().map(|connection| connection.id) {
            self.broken(out);
        }
        self.send_barrier(now, out);
    }

    /// A channel's subscribe or unsubscribe was confirmed.
    pub fn confirmed(&mut self, now: Duration, channel: &Channel, what: Confirmation, out: &mut Vec<Action>) {
        let Some(subscription) = self.subscriptions.get_mut(channel) else {
            visited!("something unknown is confirmed");
            return self.broken(out); // Nobody asked for that.
        };
        if what == Confirmation::Unsubscribed {
            if subscription.unsubscribes == 0 {
                visited!("an unsubscribe that nobody asked for");
                return self.broken(out); // Nobody asked for that: the server dropped us.
            }
            subscription.unsubscribes -= 1;
        }
        subscription.pending = if on(Rule::Count) { subscription.pending.saturating_sub(1) } else { 0 };
        let settled = subscription.pending == 0;
        if settled && subscription.shards == 0 {
            visited!("the last confirmation of a channel that nobody wants");
            self.subscriptions.swap_remove(channel);
        }
        self.confirmations.arrived(now);
        if settled {
            self.send_barrier(now, out);
        }
    }

    /// The marker channel's subscribe was confirmed.
    pub fn marker_confirmed(&mut self, now: Duration, out: &mut Vec<Action>) {
        if let Some(connection) = &mut self.connection {
            connection.marker_confirmed = true;
            self.confirmations.arrived(now);
            self.send_barrier(now, out);
        }
    }

    /// The shards, a bit each, that an event or a purge of this channel goes to.
    pub fn followers(&self, channel: &Channel) -> u64 {
        self.subscriptions.get(channel).map_or(0, |subscription| subscription.shards)
    }

    /// A marker came through the subscription: here is the cut. It counts even before its script's answer.
    pub fn marker(&mut self, now: Duration, marker: Arc<Marker>, out: &mut Vec<Action>) {
        let Some(connection) = self.connection.as_ref().map(|connection| connection.id) else { return };
        let Some(flight) = self.flight.take_if(|flight| flight.nonce == marker.nonce || !on(Rule::Nonce)) else {
            return;
        };
        self.last_cut = now;
        if has_slack(self.subscriptions.capacity(), self.subscriptions.len()) {
            self.subscriptions.shrink_to(2 * self.subscriptions.len());
        }
        let named: std::collections::HashSet<&Channel> = marker.lasts.iter().map(|(channel, _)| channel).collect();
        for (index, (shard, ack)) in self.shards.iter_mut().zip(flight.acks).enumerate() {
            visited!("a cut is too old for a shard", if shard.need.is_some_and(|number| number > ack));
            shard.need.take_if(|number| *number <= ack);
            shard.asked.retain(|channel, number| *number > ack || !named.contains(channel));
            if has_slack(shard.asked.capacity(), shard.asked.len()) {
                shard.asked.shrink_to(2 * shard.asked.len());
            }
            let cut = Cut { marker: marker.clone(), ack, connection };
            out.push(Action::Deliver(index, Delivery::Cut(cut)));
        }
        self.send_barrier(now, out);
    }

    /// The barrier's script has answered.
    pub fn barrier_answered(&mut self, now: Duration, nonce: u64) {
        if let Some(flight) = &mut self.flight
            && flight.nonce == nonce
        {
            flight.answered = Some(now);
        }
    }

    /// A read has answered.
    pub fn read_answered(&mut self, now: Duration, shard: ShardIndex, tag: u64, answer: Answer, out: &mut Vec<Action>) {
        self.reads.arrived(now);
        out.push(Action::Deliver(shard, Delivery::Answer(tag, answer)));
    }

    /// Time passes: deadlines and the beacon. To be called a few times a second.
    pub fn tick(&mut self, now: Duration, out: &mut Vec<Action>) {
        if self.connection.is_none() {
            return;
        }
        let deadline = self.timing.deadline;
        let late = |since: Duration| now.saturating_sub(since) > deadline;
        let flight_late = self.flight.as_ref().is_some_and(|flight| late(flight.answered.unwrap_or(flight.sent)));
        let overdue = self.confirmations.overdue(now, deadline) || self.reads.overdue(now, deadline) || flight_late;
        if overdue && on(Rule::Deadlines) {
            visited!("something is overdue");
            return self.broken(out);
        }
        self.send_barrier(now, out);
    }

    /// Whether the shard is new to the channel *and* the edge is.
    fn want(&mut self, shard: ShardIndex, channel: &Channel) -> bool {
        let subscription = self.subscriptions.entry(channel.clone()).or_default();
        let new = subscription.shards == 0;
        subscription.shards |= 1 << shard;
        if new && self.connection.is_some() {
            subscription.pending += 1;
        }
        new
    }

    /// Whether the shard was the last one on the channel.
    fn unwant(&mut self, shard: ShardIndex, channel: &Channel) -> bool {
        self.shards[shard].asked.remove(channel);
        let Some(subscription) = self.subscriptions.get_mut(channel) else { return false };
        let was = subscription.shards;
        subscription.shards &= !(1 << shard);
        let left = was != 0 && subscription.shards == 0;
        if left && self.connection.is_some() {
            subscription.pending += 1;
            subscription.unsubscribes += 1;
        } else if left {
            self.subscriptions.swap_remove(channel);
        }
        left
    }

    /// Sends a barrier if one is due and none is in flight: everyone who waits shares it.
    fn send_barrier(&mut self, now: Duration, out: &mut Vec<Action>) {
        if !self.is_up() || self.flight.is_some() {
            return;
        }
        let settled =
            |channel: &Channel| self.subscriptions.get(channel).is_some_and(|s| s.pending == 0 || !on(Rule::Confirm));
        let asked = self.shards.iter().flat_map(|shard| shard.asked.keys());
        visited!("a channel waits for its confirmation", if asked.clone().any(|channel| !settled(channel)));
        let asked = asked.filter(|channel| settled(channel));
        let mut channels: Vec<Channel> = asked.take(BATCH_MAX).cloned().collect();
        let quiet = now.saturating_sub(self.last_cut) >= self.timing.beacon_interval && on(Rule::Beacon);
        if channels.is_empty() && !quiet && self.shards.iter().all(|shard| shard.need.is_none()) {
            return;
        }
        visited!("a beacon", if quiet);
        channels.sort_unstable();
        channels.dedup();
        if now.saturating_sub(self.last_rotation) >= self.timing.beacon_interval {
            self.last_rotation = now;
            self.look_round(&mut channels);
        }
        self.nonce += 1;
        let acks = self.shards.iter().map(|shard| shard.got).collect();
        self.flight = Some(Flight { nonce: self.nonce, acks, sent: now, answered: None });
        out.push(Action::Barrier(self.nonce, channels));
    }

    /// Fills a barrier up with channels that nobody asked for, in turn: where they stand is compared with what the
    /// machines think.
    fn look_round(&mut self, channels: &mut Vec<Channel>) {
        let asked: std::collections::HashSet<Channel> = channels.iter().cloned().collect();
        let len = self.subscriptions.len();
        for step in 0..len.min(BATCH_MAX - channels.len()) {
            let Some((channel, subscription)) = self.subscriptions.get_index((self.rotation + step) % len) else {
                break;
            };
            if subscription.pending == 0 && !asked.contains(channel) {
                channels.push(channel.clone());
            }
        }
        self.rotation = if len == 0 { 0 } else { (self.rotation + BATCH_MAX) % len };
    }
}
