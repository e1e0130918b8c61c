//! What joins an edge to a primary: a subscription and the commands that belong to it, each a pair of pipes.
//!
//! A pipe keeps its order and takes its time. What is under way to the server arrives even where the edge has closed
//! the link; what is under way to the edge is lost then.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::{MS, Step, Time, World, tell};
use crate::rules::{Rule, on};
use crate::{
    Action, Answer, Channel, Confirmation, Epoch, Marker, Position, Purge, Query, Read, ShardIndex, SharedEvent,
};

/// One direction of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    SubscriptionUp,
    SubscriptionDown,
    /// Where the rule `one-connection` is off, half of the channels come this way.
    SecondDown,
    CommandsUp,
    CommandsDown,
}

/// What is under way.
#[derive(Clone, Debug)]
enum Item {
    Subscribe(Channel),
    Unsubscribe(Channel),
    SubscribeMarker,
    Barrier(u64, Vec<Channel>),
    Read(ShardIndex, Read),
    Confirmed(Channel, Confirmation),
    MarkerConfirmed,
    Event(Epoch, SharedEvent),
    Purged(Epoch, Purge),
    Marker(Arc<Marker>),
    BarrierAnswered(u64, Arc<Marker>),
    Answered(ShardIndex, u64, Answer),
}

#[derive(Debug, Default)]
struct Pipe {
    items: VecDeque<Item>,
    busy_until: Time,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) edge: usize,
    pub(super) life: u32,
    pub(super) partition: u16,
    pub(super) server: usize,
    /// The edge has closed it.
    pub(super) closed: bool,
    /// The network has.
    pub(super) cut: bool,
    /// Nothing comes through the subscription any more, and nobody says so.
    pub(super) silent: bool,
    pub(super) subscribed: BTreeSet<Channel>,
    marker: bool,
    lanes: [Pipe; 5],
}

impl World {
    pub(super) fn open_link(&mut self, edge: usize, life: u32, partition: u16) {
        if self.edges[edge].life != life || self.edges[edge].feeds[usize::from(partition)].link.is_some() {
            return;
        }
        let server = self.primaries[usize::from(partition)].current;
        if !self.server(partition, server).alive || self.server(partition, server).hung_until > self.now {
            let pause = self.below(30 * MS);
            return self.after(pause, Step::OpenLink { edge, life, partition });
        }
        let link = self.links.len();
        self.links.push(Link {
            edge,
            life,
            partition,
            server,
            closed: false,
            cut: false,
            silent: false,
            subscribed: BTreeSet::new(),
            marker: false,
            lanes: Default::default(),
        });
        self.edges[edge].feeds[usize::from(partition)].link = Some(link);
        tell!(self, "edge {edge} opens link {link} to server {partition}/{server}");
        let mut actions = Vec::new();
        let now = self.time();
        self.edges[edge].feeds[usize::from(partition)].feed.opened(now, &mut actions);
        self.carry_out(edge, partition, actions);
    }

    /// Does what a feed says.
    pub(super) fn carry_out(&mut self, edge: usize, partition: u16, actions: Vec<Action>) {
        for action in actions {
            let link = self.edges[edge].feeds[usize::from(partition)].link;
            let up = |world: &mut Self, lane, item| {
                if let Some(link) = link {
                    world.send(link, lane, item);
                }
            };
            match action {
                Action::Reopen => {
                    self.close_link(edge, partition);
                    let life = self.edges[edge].life;
                    let pause = self.below(30 * MS);
                    self.after(pause, Step::OpenLink { edge, life, partition });
                }
                Action::Subscribe(channels) => {
                    for channel in channels {
                        up(self, Lane::SubscriptionUp, Item::Subscribe(channel));
                    }
                }
                Action::Unsubscribe(channels) => {
                    for channel in channels {
                        up(self, Lane::SubscriptionUp, Item::Unsubscribe(channel));
                    }
                }
                Action::SubscribeMarker => up(self, Lane::SubscriptionUp, Item::SubscribeMarker),
                Action::Barrier(nonce, channels) => up(self, Lane::CommandsUp, Item::Barrier(nonce, channels)),
                Action::Read(shard, read) => up(self, Lane::CommandsUp, Item::Read(shard, read)),
                Action::Deliver(shard, delivery) => self.queue(edge, shard, partition, delivery),
            }
        }
    }

    pub(super) fn close_link(&mut self, edge: usize, partition: u16) {
        if let Some(link) = self.edges[edge].feeds[usize::from(partition)].link.take() {
            self.links[link].closed = true;
            tell!(self, "edge {edge} closes link {link}");
        }
    }

    fn send(&mut self, link: usize, lane: Lane, item: Item) {
        if self.links[link].cut {
            return;
        }
        let delay = self.delay();
        let pipe = &mut self.links[link].lanes[lane as usize];
        pipe.busy_until = (self.now + delay).max(pipe.busy_until);
        pipe.items.push_back(item);
        let at = pipe.busy_until;
        self.at(at, Step::Link(link, lane));
    }

    pub(super) fn link_arrival(&mut self, link: usize, lane: Lane) {
        let Link { edge, life, partition, server, closed, cut, silent, .. } = self.links[link];
        if cut {
            return;
        }
        if matches!(lane, Lane::SubscriptionUp | Lane::CommandsUp) {
            let hung_until = self.server(partition, server).hung_until;
            if !self.server(partition, server).alive {
                return;
            }
            if hung_until > self.now {
                return self.at(hung_until, Step::Link(link, lane));
            }
            let item = self.links[link].lanes[lane as usize].items.pop_front().expect("one step an item");
            return self.at_server(link, item);
        }
        let item = self.links[link].lanes[lane as usize].items.pop_front().expect("one step an item");
        let deaf = silent && lane != Lane::CommandsDown;
        if !closed && !deaf && self.edges[edge].life == life {
            self.at_edge(link, item);
        }
    }

    fn at_server(&mut self, link: usize, item: Item) {
        let Link { partition, server, .. } = self.links[link];
        match item {
            Item::Subscribe(channel) => {
                self.links[link].subscribed.insert(channel.clone());
                let lane = self.lane_of(&channel);
                self.send_down(link, lane, Item::Confirmed(channel, Confirmation::Subscribed));
            }
            Item::Unsubscribe(channel) => {
                self.links[link].subscribed.remove(&channel);
                let lane = self.lane_of(&channel);
                self.send_down(link, lane, Item::Confirmed(channel, Confirmation::Unsubscribed));
            }
            Item::SubscribeMarker => {
                self.links[link].marker = true;
                self.send_down(link, Lane::SubscriptionDown, Item::MarkerConfirmed);
            }
            Item::Barrier(nonce, channels) => {
                let caller = self.caller(partition, server);
                let marker = Arc::new(self.server_mut(partition, server).store.barrier(caller, nonce, channels));
                self.epoch_seen(partition, server, marker.epoch);
                tell!(self, "link {link} barrier {nonce} at {partition}/{server}: {} at {}", marker.epoch, marker.last);
                for to in self.marker_links(link) {
                    self.send_down(to, Lane::SubscriptionDown, Item::Marker(marker.clone()));
                }
                self.send_down(link, Lane::CommandsDown, Item::BarrierAnswered(nonce, marker));
            }
            Item::Read(shard, read) => {
                let now = self.clock(partition, server);
                let answer = read_from(self.server(partition, server), read.query, now);
                self.send_down(link, Lane::CommandsDown, Item::Answered(shard, read.tag, answer));
            }
            _ => unreachable!("only requests go up"),
        }
    }

    /// Whose marker channel it is: the link's own, or, without nonces, the edge's for ever.
    fn marker_links(&self, link: usize) -> Vec<usize> {
        let Link { edge, partition, server, .. } = self.links[link];
        if on(Rule::Nonce) {
            return if self.links[link].marker { vec![link] } else { Vec::new() };
        }
        let same = |other: &Link| other.edge == edge && other.partition == partition && other.server == server;
        (0..self.links.len()).filter(|&other| same(&self.links[other]) && self.links[other].marker).collect()
    }

    fn lane_of(&self, channel: &Channel) -> Lane {
        let even = channel.as_str().ends_with(['0', '2', '4', '6', '8']);
        if on(Rule::OneConnection) || even { Lane::SubscriptionDown } else { Lane::SecondDown }
    }

    fn send_down(&mut self, link: usize, lane: Lane, item: Item) {
        if !self.links[link].closed {
            self.send(link, lane, item);
        }
    }

    /// An event goes to everyone who has subscribed to its channel at that server.
    pub(super) fn fan_out(&mut self, partition: u16, server: usize, epoch: Epoch, event: &SharedEvent) {
        self.send_to_subscribers(partition, server, &event.channel, &Item::Event(epoch, event.clone()));
    }

    /// The same for a purge.
    pub(super) fn fan_out_purge(&mut self, partition: u16, server: usize, epoch: Epoch, purge: Purge) {
        let channel = purge.channel.clone();
        self.send_to_subscribers(partition, server, &channel, &Item::Purged(epoch, purge));
    }

    fn send_to_subscribers(&mut self, partition: u16, server: usize, channel: &Channel, item: &Item) {
        let lane = self.lane_of(channel);
        for link in 0..self.links.len() {
            let at = &self.links[link];
            if at.partition == partition && at.server == server && at.subscribed.contains(channel) {
                self.send_down(link, lane, item.clone());
            }
        }
    }

    fn at_edge(&mut self, link: usize, item: Item) {
        let Link { edge, partition, .. } = self.links[link];
        let now = self.time();
        let mut actions = Vec::new();
        let feed = &mut self.edges[edge].feeds[usize::from(partition)].feed;
        match item {
            Item::Confirmed(channel, what) => feed.confirmed(now, &channel, what, &mut actions),
            Item::MarkerConfirmed => feed.marker_confirmed(now, &mut actions),
            Item::Event(epoch, event) => {
                let followers = feed.followers(&event.channel);
                for shard in (0..self.plan.shards).filter(|shard| followers & (1 << shard) != 0) {
                    let delivery = crate::Delivery::Event(epoch, event.clone());
                    actions.push(Action::Deliver(shard, delivery));
                }
            }
            Item::Purged(epoch, purge) => {
                let followers = feed.followers(&purge.channel);
                for shard in (0..self.plan.shards).filter(|shard| followers & (1 << shard) != 0) {
                    actions.push(Action::Deliver(shard, crate::Delivery::Purged(epoch, purge.clone())));
                }
            }
            Item::Marker(marker) if on(Rule::CutAtMarker) => feed.marker(now, marker, &mut actions),
            Item::Marker(_) => {}
            Item::BarrierAnswered(nonce, marker) => {
                feed.barrier_answered(now, nonce);
                if !on(Rule::CutAtMarker) {
                    feed.marker(now, marker, &mut actions);
                }
            }
            Item::Answered(shard, tag, answer) => feed.read_answered(now, shard, tag, answer, &mut actions),
            _ => unreachable!("only answers come down"),
        }
        self.carry_out(edge, partition, actions);
    }

    /// The network drops a link; the edge finds out a little later.
    pub(super) fn cut_link(&mut self, link: usize) {
        if self.links[link].cut || self.links[link].closed {
            return;
        }
        tell!(self, "link {link} is cut");
        self.links[link].cut = true;
        let pause = self.below(40 * MS);
        self.after(pause, Step::LinkBroken(link));
    }

    pub(super) fn link_broken(&mut self, link: usize) {
        let Link { edge, life, partition, closed, .. } = self.links[link];
        if closed || self.edges[edge].life != life {
            return;
        }
        let mut actions = Vec::new();
        self.edges[edge].feeds[usize::from(partition)].feed.broken(&mut actions);
        self.carry_out(edge, partition, actions);
    }

    /// The server takes a link off a channel, and says so, unasked.
    pub(super) fn unsubscribe_unasked(&mut self, link: usize) {
        let Some(channel) = self.rng.choice(self.links[link].subscribed.iter().cloned().collect::<Vec<_>>()) else {
            return;
        };
        tell!(self, "link {link} is unsubscribed from {} unasked", channel.as_str());
        self.links[link].subscribed.remove(&channel);
        let lane = self.lane_of(&channel);
        self.send_down(link, lane, Item::Confirmed(channel, Confirmation::Unsubscribed));
    }

    /// Links that both ends take for open.
    pub(super) fn open_links(&self) -> Vec<usize> {
        let open = |link: &Link| !link.closed && !link.cut && self.edges[link.edge].life == link.life;
        (0..self.links.len()).filter(|&link| open(&self.links[link])).collect()
    }
}

fn read_from(server: &super::primary::Server, query: Query, now: Position) -> Answer {
    match query {
        Query::After(channel, after, limit) => {
            let page = server.store.history_after(&channel, after, limit, now);
            Answer::Page(channel, page)
        }
        Query::Newest(channel, limit) => {
            let page = server.store.history_newest(&channel, limit, now);
            Answer::Page(channel, page)
        }
        Query::Lasts(channels) => {
            let (lasts, floor, epoch) = server.store.lasts(&channels);
            Answer::Lasts(channels.into_iter().zip(lasts).collect(), floor, epoch)
        }
    }
}
