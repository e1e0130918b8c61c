//! The stream of a partition had a break, or a new epoch begins: what was missed is read and fed to everyone, as if
//! it had come in time. The whole partition is held until that is done, because a cursor is one number.

use std::collections::{HashMap, VecDeque};
use std::mem;

use indexmap::IndexMap;

use super::chain::Chain;
use super::channel::Tail;
use super::connection::Id;
use super::{Gap, GapReason, Machine, Outlet, Replayed, State};
use crate::feed::{BATCH_MAX, Cut, Delivery};
use crate::rules::{Rule, on, visited};
use crate::{Answer, Channel, Epoch, Last, PageLimit, Partition, Point, Position, Query, Read, SharedEvent};

#[derive(Debug)]
pub(super) struct Resync {
    pub(super) tag: u64,
    cut: Cut,
    /// The epoch that the stream was in before.
    old_epoch: Epoch,
    /// What was missed begins after this.
    start: Position,
    /// Not asked yet …
    queries: VecDeque<Query>,
    /// … and asked.
    reads: usize,
    /// Where each synced channel stands now, if that is known.
    newest: HashMap<Channel, Option<Position>>,
    floor: Position,
    chains: IndexMap<Channel, Chain>,
    missed: Vec<SharedEvent>,
    missed_bytes: usize,
    gaps: Vec<(Channel, Position, Position)>,
}

impl Machine {
    /// Begins at a cut. Events and further cuts are held from here on.
    pub(super) fn resync(&mut self, partition: Partition, cut: Cut, outlet: &mut impl Outlet) {
        let tag = self.new_tag(u64::MAX);
        let (part, head) = (&mut self.parts[usize::from(partition)], &mut self.heads[usize::from(partition)]);
        part.connection = Some(cut.connection);
        let marker = cut.marker.clone();
        if !part.known {
            part.known = true;
            head.epoch = marker.epoch;
            head.seen = marker.last;
            part.state = State::Live;
            return self.cut(partition, &cut, outlet);
        }
        if !on(Rule::ResyncJoin) && marker.epoch == head.epoch {
            self.cut_joins(partition, &cut, outlet);
        }
        let (part, head) = (&mut self.parts[usize::from(partition)], &mut self.heads[usize::from(partition)]);
        let start = if marker.epoch == head.epoch {
            visited!("a resync in the same epoch");
            if on(Rule::ResyncFill) { head.seen } else { marker.last }
        } else if marker.previous == Some(head.epoch) || !on(Rule::EpochResume) {
            visited!("a resync into the next epoch");
            head.seen.min(marker.base)
        } else {
            visited!("a resync into some other epoch");
            marker.base
        };
        let synced: Vec<_> =
            part.channels.iter().filter(|(_, state)| state.synced).map(|(_, state)| state.name.clone()).collect();
        let resync = Resync {
            tag,
            cut,
            old_epoch: head.epoch,
            start,
            queries: synced.chunks(BATCH_MAX).map(|page| Query::Lasts(page.to_vec())).collect(),
            reads: 0,
            newest: HashMap::new(),
            floor: Position(0),
            chains: IndexMap::new(),
            missed: Vec::new(),
            missed_bytes: 0,
            gaps: Vec::new(),
        };
        part.state = State::Sync(Box::new(resync));
        self.read_on(partition, outlet);
    }

    pub(super) fn resync_answer(&mut self, partition: Partition, answer: Answer, outlet: &mut impl Outlet) {
        let part = &mut self.parts[usize::from(partition)];
        let State::Sync(resync) = &mut part.state else { return };
        if answer.epoch() != Some(resync.cut.marker.epoch) && on(Rule::ReadEpoch) {
            visited!("a resync reads another epoch's history");
            return self.break_off(partition);
        }
        let bytes_max = self.limits.resync_bytes_max;
        let limit = PageLimit {
            events_max: self.limits.page_events_max,
            bytes_max: (bytes_max / self.limits.resync_reads_max).max(1),
        };
        resync.reads -= 1;
        match answer {
            Answer::Lasts(lasts, floor, _) => {
                resync.floor = resync.floor.max(floor);
                for (channel, newest) in lasts {
                    resync.newest.insert(channel.clone(), newest);
                    resync.look_at(channel, newest, floor, limit);
                }
            }
            Answer::Page(channel, page) => {
                resync.missed_bytes += page.events.iter().map(|event| event.cost()).sum::<usize>();
                if let Some(chain) = resync.chains.get_mut(&channel) {
                    chain.take(page, &mut resync.missed, &mut resync.gaps);
                    if resync.missed_bytes > bytes_max {
                        visited!("a resync has too much to read");
                        resync.give_up();
                    } else if !chain.done {
                        visited!("a resync reads another page");
                        resync.queries.push_back(Query::After(channel, chain.at, limit));
                    }
                }
            }
        }
        self.read_on(partition, outlet);
    }

    /// Asks for what is left to ask, or ends.
    fn read_on(&mut self, partition: Partition, outlet: &mut impl Outlet) {
        let part = &mut self.parts[usize::from(partition)];
        let State::Sync(resync) = &mut part.state else { return };
        let mut wishes = part.wishes.lock().expect("no one panics while holding the wishes");
        while resync.reads < self.limits.resync_reads_max
            && let Some(query) = resync.queries.pop_front()
        {
            resync.reads += 1;
            wishes.read(Read { connection: resync.cut.connection, tag: resync.tag, query });
        }
        drop(wishes);
        if resync.reads == 0
            && let State::Sync(resync) = mem::replace(&mut part.state, State::Live)
        {
            self.fill(partition, *resync, outlet);
        }
    }

    /// Everything is read: says what is gone, feeds what isn't, and goes live.
    fn fill(&mut self, partition: Partition, mut resync: Resync, outlet: &mut impl Outlet) {
        let marker = resync.cut.marker.clone();
        let start = resync.start;
        if (marker.epoch != resync.old_epoch || !resync.gaps.is_empty()) && on(Rule::FanoutGap) {
            self.finish(partition, outlet); // What came before the gap goes out before it.
        }
        if marker.epoch != resync.old_epoch {
            self.begin_epoch(partition, &resync, outlet);
        }
        let head = &mut self.heads[usize::from(partition)];
        head.epoch = marker.epoch;
        head.seen = start;
        for (channel, from, end) in mem::take(&mut resync.gaps) {
            let part = &mut self.parts[usize::from(partition)];
            let Some(index) = part.channels.find(&channel) else { continue };
            let state = &mut part.channels[index as usize];
            if state.synced {
                visited!("a resync finds a gap");
                if on(Rule::TailReset) {
                    state.tail = Tail::starting(end);
                }
                let gap = Gap { channels: vec![channel], reason: GapReason::Expired, from, to: end };
                self.gap_for_live(partition, index, &gap, end, outlet);
            }
        }
        resync.missed.sort_unstable_by_key(|event| event.pos);
        for event in &resync.missed {
            self.feed(partition, event, Replayed::Missed, outlet);
        }
        let head = &mut self.heads[usize::from(partition)];
        head.seen = head.seen.max(marker.last);
        let part = &mut self.parts[usize::from(partition)];
        for (channel, newest) in &resync.newest {
            let Some(index) = part.channels.find(channel) else { continue };
            let state = &mut part.channels[index as usize];
            if state.synced && on(Rule::ResyncLast) {
                state.last = resync.last(channel, *newest, state.last);
            }
        }
        self.cut(partition, &resync.cut, outlet);
        while matches!(self.parts[usize::from(partition)].state, State::Live) {
            let part = &mut self.parts[usize::from(partition)];
            let Some(held) = part.hold.pop_front() else { break };
            visited!("what was held goes on");
            part.hold_bytes -= super::cost(&held);
            self.deliver(partition, held, outlet);
        }
    }

    /// Nothing that is known of the old epoch's end can be trusted: everyone is told.
    fn begin_epoch(&mut self, partition: Partition, resync: &Resync, outlet: &mut impl Outlet) {
        let Self { parts, heads, connections, partitions, .. } = self;
        let marker = &resync.cut.marker;
        let part = &mut parts[usize::from(partition)];
        for (_, state) in part.channels.iter_mut().filter(|(_, state)| state.synced) {
            if on(Rule::EpochTails) {
                state.tail = Tail::starting(resync.start);
                state.last = Last { pos: state.last.pos.min(resync.start), exact: false };
            }
        }
        for (key, connection) in connections.iter_mut().enumerate() {
            let Some(connection) = connection.as_deref_mut() else { continue };
            let Some(follow) = connection.follow(partition) else { continue };
            let (None, Some(own)) = (&follow.join, follow.effective(&heads[usize::from(partition)])) else { continue };
            visited!("a live connection is told of a new epoch");
            let follows_on = marker.previous == Some(own.epoch) || !on(Rule::EpochResume);
            let pos = if follows_on { own.pos.min(marker.base) } else { marker.base };
            follow.point = Some(Point { epoch: marker.epoch, pos });
            let names = follow.seats.iter().map(|seat| part.channels[seat.channel as usize].name.clone());
            // What it had not heard yet may be lost, also where the new epoch knows of nothing before its own beginning.
            let from = own.pos.min(pos);
            let gap = Gap { channels: names.collect(), reason: GapReason::Lost, from, to: marker.last };
            let id = Id::new(*partitions, partition, connection, heads);
            outlet.gap(key as u32, &gap, id);
        }
    }
}

impl Resync {
    /// Whether an item of the stream has to wait until everything is filled.
    pub(super) fn holds(&self, delivery: &Delivery) -> bool {
        match delivery {
            Delivery::Event(_, event) => self.holds_channel(&event.channel),
            Delivery::Purged(_, purge) => self.holds_channel(&purge.channel),
            Delivery::Cut(_) => on(Rule::HoldCuts),
            Delivery::Break | Delivery::Answer(..) => false,
        }
    }

    fn holds_channel(&self, channel: &Channel) -> bool {
        on(Rule::Hold) && (on(Rule::HoldPartition) || self.fills(channel))
    }

    fn fills(&self, channel: &Channel) -> bool {
        !self.newest.contains_key(channel) || self.chains.contains_key(channel)
    }

    /// Decides what is to be read of a channel.
    fn look_at(&mut self, channel: Channel, newest: Option<Position>, floor: Position, limit: PageLimit) {
        let cut = self.cut.marker.last;
        match newest {
            None if floor > self.start => {
                visited!("a resync finds a channel forgotten");
                self.gaps.push((channel, self.start, floor.min(cut)));
            }
            Some(newest) if newest > self.start => {
                self.queries.push_back(Query::After(channel.clone(), self.start, limit));
                self.chains.insert(channel.clone(), Chain::new(channel, self.start, newest, cut));
            }
            _ => {}
        }
    }

    /// Too much was missed: what isn't read yet is a gap.
    fn give_up(&mut self) {
        self.queries.retain(|query| matches!(query, Query::Lasts(_)));
        for chain in self.chains.values_mut().filter(|chain| !chain.done) {
            chain.give_up(&mut self.gaps);
        }
    }

    /// Where a channel stood at the cut.
    fn last(&self, channel: &Channel, newest: Option<Position>, last: Last) -> Last {
        let cut = self.cut.marker.last;
        let inexact = Last { pos: cut, exact: false };
        match newest {
            Some(newest) if newest <= cut => Last { pos: newest, exact: true },
            Some(newest) if !on(Rule::ResyncLastPrev) => Last { pos: newest, exact: true },
            Some(_) => match self.chains.get(channel).and_then(|chain| chain.before_first_after) {
                Some(before) if before.exact && before.pos <= cut => {
                    visited!("the first event after the cut tells the last one before it");
                    before
                }
                _ => {
                    visited!("nothing tells the last event before the cut");
                    inexact
                }
            },
            None => {
                visited!("a channel is unknown after a resync");
                Last { pos: last.pos.max(self.floor.min(cut)), exact: false }
            }
        }
    }
}
