//! A live connection changes what it follows.

use std::collections::BTreeSet;

use smallvec::smallvec;

use super::connection::{Follow, Id};
use super::{ConnectionKey, Machine, Outlet};
use crate::feed::Cut;
use crate::rules::{Rule, on, visited};
use crate::{Channel, Partition, Point};

/// A channel that a connection waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adding {
    pub(super) key: ConnectionKey,
    pub(super) channel: u32,
    no: u64,
}

/// What changes: channels that the connection doesn't follow yet, and channels that it does.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    /// These it follows from the next cut on. What came before is in history.
    pub subscribe: Vec<Channel>,
    /// These it follows no longer.
    pub unsubscribe: Vec<Channel>,
    /// All that has changed since the URL was opened, in the cursor's spelling.
    pub changes: Option<Box<str>>,
}

impl Machine {
    /// Changes a connection's channels. The stream says `subscribed` when all new ones have begun.
    pub fn patch(&mut self, key: ConnectionKey, patch: Patch, outlet: &mut impl Outlet) {
        let Some(connection) = self.connections.get_mut(key as usize).and_then(Option::as_deref_mut) else { return };
        if on(Rule::List) {
            connection.changes = patch.changes;
        }
        for channel in patch.subscribe {
            let partition = self.partitions.of(&channel);
            let part = &mut self.parts[usize::from(partition)];
            let index = part.channel(&channel);
            let state = &mut part.channels[index as usize];
            state.adding += 1;
            let unsynced = (!state.synced).then_some(channel);
            let no = part.wishes().cut(unsynced);
            part.adding.push(Adding { key, channel: index, no });
            connection.adding += 1;
        }
        for channel in patch.unsubscribe {
            self.unsubscribe(key, &channel);
        }
        self.answer_patch(key, outlet);
    }

    /// What a connection follows, and after that what it waits for: with one partition in the order in which it was
    /// named. Nobody else needs to keep it.
    pub fn channels(&self, key: ConnectionKey) -> Vec<Channel> {
        let Some(connection) = self.connections.get(key as usize).and_then(Option::as_deref) else { return Vec::new() };
        let seats = connection.follows.iter().flat_map(|follow| {
            let part = &self.parts[usize::from(follow.partition)];
            follow.seats.iter().map(|seat| part.channels[seat.channel as usize].name.clone())
        });
        let adding = self.parts.iter().filter(|_| connection.adding > 0).flat_map(|part| {
            let adding = part.adding.iter().filter(|adding| adding.key == key);
            adding.map(|adding| part.channels[adding.channel as usize].name.clone())
        });
        seats.chain(adding).collect()
    }

    /// What has changed since a connection's URL was opened, in the cursor's spelling. Empty where nothing has.
    pub fn changes(&self, key: ConnectionKey) -> &str {
        let connection = self.connections.get(key as usize).and_then(Option::as_deref);
        connection.and_then(|connection| connection.changes.as_deref()).unwrap_or_default()
    }

    /// The channels that wait for this cut begin.
    pub(super) fn add_patched(&mut self, partition: Partition, cut: &Cut, outlet: &mut impl Outlet) {
        let Self { parts, connections, .. } = self;
        let part = &mut parts[usize::from(partition)];
        let ready: Vec<_> = part
            .adding
            .extract_if(.., |adding| {
                let connection = connections[adding.key as usize].as_deref_mut().expect("who adds is a connection");
                let live = connection.follow(partition).is_none_or(|follow| follow.join.is_none());
                live && part.channels[adding.channel as usize].synced && (adding.no <= cut.ack || !on(Rule::CutAck))
            })
            .collect();
        for &Adding { key, channel, .. } in &ready {
            self.settle(partition, key, cut, outlet);
            let Self { parts, heads, connections, .. } = self;
            parts[usize::from(partition)].channels[channel as usize].adding -= 1;
            let connection = connections[key as usize].as_deref_mut().expect("who adds is a connection");
            connection.adding -= 1;
            if connection.follow(partition).is_none() {
                visited!("a PATCH leads into a new partition");
                let point = Point { epoch: heads[usize::from(partition)].epoch, pos: cut.marker.last };
                let point = Some(point);
                connection.follows.push(Follow { partition, point, seats: smallvec![], join: None });
            }
            let follow = connection.follow(partition).expect("added above");
            Self::seat(parts, follow, key, channel);
        }
        let keys: BTreeSet<_> = ready.iter().map(|adding| adding.key).collect();
        for key in keys {
            self.answer_patch(key, outlet);
        }
    }

    /// What has started is for those who were on its channel then: a live connection is given its part now, and counts
    /// the rest as given.
    fn settle(&mut self, partition: Partition, key: ConnectionKey, cut: &Cut, outlet: &mut impl Outlet) {
        if !on(Rule::FanoutPatch) || self.parts[usize::from(partition)].fanout.is_empty() {
            return;
        }
        let connection = self.connections[key as usize].as_deref_mut().expect("who adds is a connection");
        if connection.follow(partition).is_none() {
            return;
        }
        visited!("a PATCH takes effect in the middle of a fan-out");
        self.catch_up(partition, key, outlet);
        let epoch = self.heads[usize::from(partition)].epoch;
        let connection = self.connections[key as usize].as_deref_mut().expect("as above");
        connection.follow(partition).expect("as above").point = Some(Point { epoch, pos: cut.marker.last });
    }

    /// The channels that a leaving connection still waited for.
    pub(super) fn drop_patched(&mut self, key: ConnectionKey) {
        for part in &mut self.parts {
            for adding in part.adding.extract_if(.., |adding| adding.key == key).collect::<Vec<_>>() {
                visited!("a connection leaves before its PATCH is done");
                part.channels[adding.channel as usize].adding -= 1;
                part.linger(adding.channel);
            }
        }
    }

    /// The frame that answers a PATCH: its id covers the partitions that are new.
    fn answer_patch(&mut self, key: ConnectionKey, outlet: &mut impl Outlet) {
        let connection = self.connections[key as usize].as_deref().expect("who patches is a connection");
        if connection.adding == 0 && connection.connected {
            let first = connection.follows[0].partition;
            let id = Id::new(self.partitions, first, connection, &self.heads);
            outlet.subscribed(key, &self.channels(key), id);
        }
    }

    fn unsubscribe(&mut self, key: ConnectionKey, channel: &Channel) {
        let partition = self.partitions.of(channel);
        let part = &mut self.parts[usize::from(partition)];
        let Some(index) = part.channels.find(channel) else { return };
        let connection = self.connections[key as usize].as_deref_mut().expect("who patches is a connection");
        if let Some(at) = part.adding.iter().position(|adding| adding.key == key && adding.channel == index) {
            visited!("a channel is left before it has begun");
            part.adding.swap_remove(at);
            part.channels[index as usize].adding -= 1;
            part.linger(index);
            connection.adding -= 1;
            return;
        }
        let Some(follow) = connection.follow(partition) else { return };
        let Some(at) = follow.seats.iter().position(|seat| seat.channel == index) else { return };
        let seat = follow.seats.remove(at);
        let replaying = follow.join.as_deref().is_some_and(|join| join.attempt.is_some());
        self.unseat(partition, seat);
        if replaying {
            visited!("a channel is left in the middle of its replay");
            self.restart_join(partition, key); // From where it is, and without the channel: `subscribed` must hold.
        }
    }
}
