//! One edge: a feed for each partition, shards with a machine each, and the queues between them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::client::{Backlogs, Conn};
use super::{MS, Step, World, tell};
use crate::rules::{Rule, on};
use crate::{Delivery, Feed, Machine, Partitions, Wishes};

#[derive(Debug)]
pub(super) struct Edge {
    /// How often it has been started. What belongs to an earlier life is gone.
    pub(super) life: u32,
    pub(super) feeds: Vec<FeedSeat>,
    pub(super) shards: Vec<Shard>,
}

/// A feed and the link that it has, if it has one.
#[derive(Debug)]
pub(super) struct FeedSeat {
    pub(super) feed: Feed,
    pub(super) link: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) machine: Machine,
    wishes: Vec<Arc<Mutex<Wishes>>>,
    /// What waits for the machine, of each partition.
    queues: Vec<VecDeque<Delivery>>,
    rung: Vec<bool>,
    /// It has something else to do until then.
    busy_until: super::Time,
    /// It is going to go on with its fan-outs.
    works: bool,
    /// Connections by key.
    pub(super) keys: Vec<Option<usize>>,
}

impl Shard {
    fn new(partitions: Partitions, plan: &super::Plan) -> Self {
        let wishes: Vec<_> = partitions.all().map(|_| Arc::new(Mutex::new(Wishes::default()))).collect();
        Self {
            machine: Machine::new(partitions, plan.limits, wishes.clone()),
            queues: partitions.all().map(|_| VecDeque::new()).collect(),
            rung: vec![false; wishes.len()],
            wishes,
            busy_until: 0,
            works: false,
            keys: Vec::new(),
        }
    }

    pub(super) fn free_key(&mut self, conn: usize) -> u32 {
        let free = self.keys.iter().position(Option::is_none).unwrap_or(self.keys.len());
        self.keys.resize(self.keys.len().max(free + 1), None);
        self.keys[free] = Some(conn);
        free as u32
    }
}

impl World {
    pub(super) fn start_edge(&mut self) {
        let edge = self.edges.len();
        self.edges.push(Edge { life: 0, feeds: Vec::new(), shards: Vec::new() });
        self.begin_life(edge);
    }

    /// The process starts again: everything that it knew is gone, and so are its connections.
    pub(super) fn restart_edge(&mut self, edge: usize) {
        tell!(self, "edge {edge} restarts");
        for partition in self.partitions.all() {
            self.close_link(edge, partition);
        }
        for conn in 0..self.conns.len() {
            if self.conns[conn].edge == edge && !self.conns[conn].left {
                self.conns[conn].left = true;
                self.close_conn(conn);
            }
        }
        self.edges[edge].life += 1;
        self.begin_life(edge);
    }

    fn begin_life(&mut self, edge: usize) {
        let (life, now) = (self.edges[edge].life, self.time());
        let feed = |_| FeedSeat { feed: Feed::new(self.plan.shards, self.plan.timing, now), link: None };
        self.edges[edge].feeds = self.partitions.all().map(feed).collect();
        let shards = (0..self.plan.shards).map(|_| Shard::new(self.partitions, &self.plan)).collect();
        self.edges[edge].shards = shards;
        for partition in self.partitions.all() {
            let pause = self.below(20 * MS);
            self.after(pause, Step::OpenLink { edge, life, partition });
        }
        self.feed_tick(edge, life);
        self.machine_tick(edge, life);
    }

    /// Something was asked of a machine: what it wishes for is taken by the feeds soon, and what it wrote goes out.
    pub(super) fn machine<T>(
        &mut self,
        edge: usize,
        shard: usize,
        work: impl FnOnce(&mut Machine, &mut Backlogs<'_>) -> T,
    ) -> T {
        let Self { edges, conns, plan, story, now, .. } = self;
        let at = &mut edges[edge].shards[shard];
        let mut out = Backlogs {
            conns,
            keys: &at.keys,
            plan,
            story,
            now: *now,
            written: vec![],
            polled: vec![],
            cut_off: vec![],
        };
        let result = work(&mut at.machine, &mut out);
        let Backlogs { written, mut polled, cut_off, .. } = out;
        for conn in written {
            let pause = self.conns[conn].write_pause;
            let pause = self.below(pause);
            let at = (self.now + pause).max(self.conns[conn].writing_until);
            self.conns[conn].writing_until = at;
            self.at(at, Step::Write(conn));
        }
        for conn in cut_off {
            self.close_conn(conn);
            let pause = self.below(10 * MS);
            self.after(pause, Step::Leave(conn));
        }
        polled.dedup();
        for conn in polled {
            self.look_at_poll(conn);
        }
        self.ring(edge, shard);
        result
    }

    fn ring(&mut self, edge: usize, shard: usize) {
        let life = self.edges[edge].life;
        for partition in self.partitions.all() {
            let at = &mut self.edges[edge].shards[shard];
            let waiting = !at.wishes[usize::from(partition)].lock().expect("no panic").is_empty();
            if waiting && !std::mem::replace(&mut at.rung[usize::from(partition)], true) {
                let pause = self.delay();
                self.after(pause, Step::TakeWishes { edge, life, shard, partition });
            }
        }
    }

    pub(super) fn take_wishes(&mut self, edge: usize, life: u32, shard: usize, partition: u16) {
        if self.edges[edge].life != life {
            return;
        }
        let at = &mut self.edges[edge].shards[shard];
        at.rung[usize::from(partition)] = false;
        let mut batch = at.wishes[usize::from(partition)].lock().expect("no panic").take();
        // So that a seed always tells the same story.
        batch.wanted.sort_unstable();
        batch.cuts.sort_unstable();
        let mut actions = Vec::new();
        let now = self.time();
        tell!(
            self,
            "edge {edge} shard {shard} wishes {}: {:?}, cut {} of {:?}, {} reads, distrust {:?}",
            batch.number,
            batch.wanted,
            batch.cut,
            batch.cuts,
            batch.reads.len(),
            batch.distrust
        );
        self.edges[edge].feeds[usize::from(partition)].feed.wishes(now, shard, batch, &mut actions);
        self.carry_out(edge, partition, actions);
    }

    /// Appends to a shard's stream. A stream that is full is dropped, and a break says so.
    pub(super) fn queue(&mut self, edge: usize, shard: usize, partition: u16, delivery: Delivery) {
        let queue = &mut self.edges[edge].shards[shard].queues[usize::from(partition)];
        if queue.len() < self.plan.shard_queue_max {
            queue.push_back(delivery);
        } else {
            queue.clear();
            if on(Rule::ShardBreak) {
                queue.push_back(Delivery::Break);
            }
            tell!(self, "edge {edge} shard {shard} partition {partition}: the queue is full");
        }
        let life = self.edges[edge].life;
        let pause = self.delay();
        self.after(pause, Step::Deliver { edge, life, shard, partition });
    }

    /// A shard has a lot to do at once: what waits for it piles up.
    pub(super) fn stall(&mut self, edge: usize, shard: usize) {
        let until = self.now + self.below(300 * MS);
        tell!(self, "edge {edge} shard {shard} stalls until {until}");
        self.edges[edge].shards[shard].busy_until = until;
    }

    pub(super) fn deliver(&mut self, edge: usize, life: u32, shard: usize, partition: u16) {
        if self.edges[edge].life != life {
            return;
        }
        let busy_until = self.edges[edge].shards[shard].busy_until;
        if busy_until > self.now {
            return self.at(busy_until, Step::Deliver { edge, life, shard, partition });
        }
        if !self.edges[edge].shards[shard].machine.has_room(partition) {
            let pause = self.delay();
            return self.after(pause, Step::Deliver { edge, life, shard, partition });
        }
        let Some(delivery) = self.edges[edge].shards[shard].queues[usize::from(partition)].pop_front() else { return };
        tell!(self, "edge {edge} shard {shard} partition {partition}: {}", brief(&delivery));
        self.stats.deliveries += 1;
        self.machine(edge, shard, |machine, out| machine.deliver(partition, delivery, out));
        if !std::mem::replace(&mut self.edges[edge].shards[shard].works, true) {
            self.work(edge, life, shard);
        }
    }

    /// A shard goes on with its fan-outs, at once or when it gets round to it.
    pub(super) fn work(&mut self, edge: usize, life: u32, shard: usize) {
        if self.edges[edge].life != life {
            return;
        }
        let visits = if self.rng.bool() { self.rng.usize(0..4) } else { usize::MAX };
        let more = self.machine(edge, shard, |machine, out| machine.work(visits, out));
        self.edges[edge].shards[shard].works = more;
        if more {
            tell!(self, "edge {edge} shard {shard} is in the middle of its fan-outs");
            let pause = self.below(self.plan.work_pause);
            self.after(pause, Step::Work { edge, life, shard });
        }
    }

    pub(super) fn feed_tick(&mut self, edge: usize, life: u32) {
        if self.edges[edge].life != life {
            return;
        }
        let now = self.time();
        for partition in self.partitions.all() {
            let mut actions = Vec::new();
            self.edges[edge].feeds[usize::from(partition)].feed.tick(now, &mut actions);
            self.carry_out(edge, partition, actions);
        }
        self.after(25 * MS, Step::FeedTick { edge, life });
    }

    pub(super) fn machine_tick(&mut self, edge: usize, life: u32) {
        if self.edges[edge].life != life {
            return;
        }
        for shard in 0..self.plan.shards {
            self.machine(edge, shard, |machine, _| machine.tick());
        }
        let pause = 20 * MS + self.below(100 * MS);
        self.after(pause, Step::MachineTick { edge, life });
    }

    /// The edge's end of a connection closes; the client finds out.
    fn close_conn(&mut self, conn: usize) {
        let Conn { client, .. } = self.conns[conn];
        let pause = self.below(30 * MS);
        self.after(pause, Step::Die { client, conn });
    }
}

fn brief(delivery: &Delivery) -> String {
    match delivery {
        Delivery::Event(epoch, event) => format!("event {epoch}-{} on {}", event.pos, event.channel.as_str()),
        Delivery::Purged(epoch, purge) => format!("purge {epoch}-{} on {}", purge.pos, purge.channel.as_str()),
        Delivery::Cut(cut) => {
            let marker = &cut.marker;
            let lasts: Vec<_> = marker.lasts.iter().map(|(c, last)| (c.as_str(), last.map(|last| last.0))).collect();
            format!(
                "cut {} {}-{} after {:?} ({}), floor {}, ack {}: {lasts:?}",
                marker.nonce, marker.epoch, marker.last, marker.previous, marker.base, marker.floor, cut.ack
            )
        }
        Delivery::Break => "break".to_owned(),
        Delivery::Answer(tag, crate::Answer::Page(channel, page)) => {
            let events: Vec<_> = page.events.iter().map(|event| event.pos.0).collect();
            format!("answer {tag}: {} {events:?} more {}", channel.as_str(), page.more)
        }
        Delivery::Answer(tag, answer) => format!("answer {tag}: {answer:?}"),
    }
}
