//! How events reach everyone on their channels. An event *starts* in the order of its partition's stream, and then the
//! channel's subscribers are visited, a slice at a time, so that a small channel needn't wait for a huge one.
//!
//! Whoever is visited is given everything that has started and is meant for it, in order: so several events that wait
//! leave together, and no event overtakes an earlier one on its way to the same connection. What a connection has been
//! given is what its cursor says; nothing else is noted. Its cursor never counts what others have been given and it
//! hasn't (see `Head::covered`).

use std::collections::VecDeque;
use std::hint::black_box;

use smallvec::SmallVec;

use super::connection::{Follow, Id};
use super::{ChannelState, ConnectionKey, Machine, Outlet, Replayed};
use crate::rules::{Rule, on, visited};
use crate::{Partition, Point, Position, SharedEvent};

/// Subscribers up to which a channel is small: its fan-outs go first.
const SMALL: usize = 32;

/// Connections whose memory is asked for together, before the first of them is visited: between two visits the kernel
/// has written to a socket, and little of ours is in the processor's cache any more. One by one each would be waited for.
const LOOK_AHEAD: usize = 16;

/// The fan-outs of a partition that have started and aren't finished.
#[derive(Debug, Default)]
pub(super) struct Fanout {
    /// Events that not everyone on their channels has been given, in their order.
    log: VecDeque<Due>,
    bytes: usize,
    small: VecDeque<Sweep>,
    large: VecDeque<Sweep>,
}

/// An event on its way.
#[derive(Debug)]
struct Due {
    channel: u32,
    replayed: Replayed,
    event: SharedEvent,
}

/// One way through a channel's subscribers, from the last to the first: those who come meanwhile are behind it, and
/// where one leaves, the one that takes its place has been visited or will be.
#[derive(Clone, Copy, Debug)]
struct Sweep {
    channel: u32,
    /// Subscribers below this slot are still to be visited.
    slot: u32,
    /// The newest event of the channel when it began.
    until: Position,
}

impl Fanout {
    pub(super) fn is_empty(&self) -> bool {
        self.log.is_empty()
    }

    /// Where the first event stands that not everyone has been given.
    pub(super) fn first(&self) -> Option<Position> {
        self.log.front().map(|due| due.event.pos)
    }

    pub(super) fn start(&mut self, channel: u32, state: &mut ChannelState, event: &SharedEvent, replayed: Replayed) {
        self.bytes += event.cost();
        self.log.push_back(Due { channel, replayed, event: event.clone() });
        if !state.sweeping {
            state.sweeping = true;
            self.sweep(channel, state, event.pos);
        }
    }

    fn sweep(&mut self, channel: u32, state: &ChannelState, until: Position) {
        let slot = state.subscribers.len();
        let sweeps = if slot <= SMALL { &mut self.small } else { &mut self.large };
        sweeps.push_back(Sweep { channel, slot: slot as u32, until });
    }

    /// Everyone has been visited. What came meanwhile begins a new way.
    fn finish(&mut self, sweep: Sweep, state: &mut ChannelState, mut finished: impl FnMut(&SharedEvent)) {
        let mut newest = None;
        self.log.retain(|due| {
            if due.channel != sweep.channel {
                return true;
            }
            if due.event.pos > sweep.until {
                newest = Some(due.event.pos);
                return true;
            }
            self.bytes -= due.event.cost();
            finished(&due.event);
            false
        });
        match newest {
            Some(newest) => {
                visited!("a fan-out begins again for what came meanwhile");
                self.sweep(sweep.channel, state, newest);
            }
            None => state.sweeping = false,
        }
    }
}

impl Machine {
    /// Visits so many connections. Answers whether some are left to visit.
    pub fn work(&mut self, visits: usize, outlet: &mut impl Outlet) -> bool {
        let count = self.parts.len();
        self.turn = (self.turn + 1) % count;
        let mut left = visits;
        for offset in 0..count {
            let partition = (self.turn + offset) % count;
            while left > visits / 4 // The rest is for large ones.
                && let Some(sweep) = self.parts[partition].fanout.small.pop_front()
            {
                left -= self.sweep(partition as Partition, sweep, left, outlet);
            }
        }
        for offset in 0..count {
            let partition = (self.turn + offset) % count;
            while left > 0
                && let Some(sweep) = self.parts[partition].fanout.large.pop_front()
            {
                left -= self.sweep(partition as Partition, sweep, left, outlet);
            }
        }
        self.parts.iter().any(|part| !part.fanout.is_empty())
    }

    /// Whether a partition's stream may go on: what has started and isn't finished is bounded.
    pub fn has_room(&self, partition: Partition) -> bool {
        let fanout = &self.parts[usize::from(partition)].fanout;
        fanout.log.len() < self.limits.fanout_events_max && fanout.bytes < self.limits.fanout_bytes_max
    }

    /// Everyone is given everything that has started.
    pub(super) fn finish(&mut self, partition: Partition, outlet: &mut impl Outlet) {
        loop {
            let fanout = &mut self.parts[usize::from(partition)].fanout;
            let Some(sweep) = fanout.small.pop_front().or_else(|| fanout.large.pop_front()) else { return };
            self.sweep(partition, sweep, usize::MAX, outlet);
        }
    }

    /// Goes on with a sweep. Answers how many it has visited.
    fn sweep(&mut self, partition: Partition, mut sweep: Sweep, visits_max: usize, outlet: &mut impl Outlet) -> usize {
        let mut visits = 0;
        loop {
            let part = &mut self.parts[usize::from(partition)];
            let state = &mut part.channels[sweep.channel as usize];
            sweep.slot = sweep.slot.min(state.subscribers.len() as u32);
            if sweep.slot == 0 {
                part.fanout.finish(sweep, state, |event| outlet.finished(partition, event));
                self.heads[usize::from(partition)].unfinished = part.fanout.first();
                return visits.max(1);
            }
            if visits == visits_max {
                visited!("a fan-out is interrupted");
                part.fanout.large.push_back(sweep);
                return visits;
            }
            if visits % LOOK_AHEAD == 0 {
                let end = sweep.slot as usize;
                for key in &state.subscribers[end.saturating_sub(LOOK_AHEAD)..end] {
                    let connection = self.connections[*key as usize].as_deref();
                    black_box(connection.and_then(|connection| connection.follows.first()).map(|follow| follow.point));
                    outlet.prepare(*key);
                }
            }
            sweep.slot -= 1;
            visits += 1;
            let key = state.subscribers[sweep.slot as usize];
            self.visit(partition, key, sweep.channel, outlet);
        }
    }

    /// Gives a connection everything of a partition that has started and that it hasn't been given, in order.
    pub(super) fn catch_up(&mut self, partition: Partition, key: ConnectionKey, outlet: &mut impl Outlet) {
        if let Some(due) = self.parts[usize::from(partition)].fanout.log.front() {
            let channel = due.channel;
            self.visit(partition, key, channel, outlet);
        }
    }

    /// [`Machine::catch_up`], for the sake of a channel.
    fn visit(&mut self, partition: Partition, key: ConnectionKey, channel: u32, outlet: &mut impl Outlet) {
        let Self { partitions, heads, parts, connections, limits, .. } = self;
        let (head, log) = (&heads[usize::from(partition)], &parts[usize::from(partition)].fanout.log);
        let connection = connections[key as usize].as_deref_mut().expect("a subscriber is a connection");
        let is_its = |follow: &&Follow| follow.partition == partition;
        let follow = connection.follows.iter().find(is_its).expect("a subscriber follows its channel's partition");
        let given = match follow.join.as_deref() {
            None => follow.point.filter(|point| point.epoch == head.epoch).map(|point| point.pos),
            Some(join) => match &join.attempt {
                Some(attempt) => Some(attempt.buffer.last().map_or(attempt.cut, |event| event.pos)),
                None => return, // Its cut is still to come, and history has what came before it.
            },
        };
        let begin = given.map_or(0, |given| log.partition_point(|due| due.event.pos <= given));
        let follows = |due: &&Due| follow.seats.iter().any(|seat| seat.channel == due.channel);
        let in_order = |due: &&Due| due.channel == channel || on(Rule::FanoutOrder);
        let due = log.range(begin..).filter(follows).filter(in_order);
        if follow.join.is_some() {
            let due: SmallVec<[&SharedEvent; 8]> = due.map(|due| &due.event).collect();
            let follow = connection.follow(partition).expect("just seen");
            let attempt = follow.join.as_deref_mut().and_then(|join| join.attempt.as_mut()).expect("seen above");
            for event in due {
                attempt.buffer_bytes += event.cost();
                attempt.buffer.push(event.clone());
            }
            if attempt.buffer_bytes > limits.join_buffer_bytes_max {
                visited!("a join's buffer is full");
                self.restart_join(partition, key);
            }
            return;
        }
        let id = Id::new(*partitions, partition, connection, heads);
        let mut events: SmallVec<[&SharedEvent; 8]> = SmallVec::new();
        let mut replayed = Replayed::No;
        for due in due {
            visited!("a connection is given several channels' events at once", if due.channel != channel);
            if due.replayed != replayed && !events.is_empty() {
                outlet.events(key, head.epoch, &events, replayed, id);
                events.clear();
            }
            replayed = due.replayed;
            events.push(&due.event);
        }
        let Some(last) = events.last() else { return };
        let last = Point { epoch: head.epoch, pos: last.pos };
        visited!("several events leave at once", if events.len() > 1);
        outlet.events(key, head.epoch, &events, replayed, id);
        connection.follow(partition).expect("as above").point = Some(last);
    }
}
