//! The servers of one partition: a primary, a replica that lags behind it, and primaries that were deposed but still
//! answer those who hold on to them.

use std::collections::BTreeSet;

use fastrand::Rng;

use super::plan::Plan;
use super::{MS, Step, Time, World, tell};
use crate::{Caller, Epoch, Identity, Position, Store};

/// When the world begins, µs since 1970.
const BEGINNING: u64 = 1_000_000_000_000;

#[derive(Debug)]
pub(super) struct Server {
    pub(super) store: Store,
    pub(super) identity: Identity,
    pub(super) skew: Time,
    pub(super) alive: bool,
    pub(super) deposed: bool,
    pub(super) hung_until: Time,
    /// Entries that its history is made of, even if they are trimmed by now.
    pub(super) lineage: BTreeSet<usize>,
    /// Acknowledgements that wait for the replica: message and entry.
    pub(super) waiting: Vec<(usize, usize)>,
}

#[derive(Debug)]
pub(super) struct Primary {
    pub(super) servers: Vec<Server>,
    pub(super) current: usize,
    /// What the replica has: the primary as of some time ago.
    replica: Option<(Store, BTreeSet<usize>)>,
}

impl Primary {
    pub(super) fn new(plan: &Plan, rng: &mut Rng) -> Self {
        let server = Server {
            store: Store::new(plan.retention.clone()),
            identity: Identity { replication: rng.u64(..), run: rng.u64(..), first_history: plan.first_history },
            skew: rng.u64(..plan.clock_skew.max(1)),
            alive: true,
            deposed: false,
            hung_until: 0,
            lineage: BTreeSet::new(),
            waiting: Vec::new(),
        };
        Self { servers: vec![server], current: 0, replica: None }
    }
}

impl World {
    pub(super) fn server(&self, partition: u16, server: usize) -> &Server {
        &self.primaries[usize::from(partition)].servers[server]
    }

    pub(super) fn server_mut(&mut self, partition: u16, server: usize) -> &mut Server {
        &mut self.primaries[usize::from(partition)].servers[server]
    }

    pub(super) fn clock(&self, partition: u16, server: usize) -> Position {
        Position(BEGINNING + self.now + self.server(partition, server).skew)
    }

    pub(super) fn caller(&mut self, partition: u16, server: usize) -> Caller {
        let new_epoch = Epoch::from_random(self.rng.u64(..));
        Caller { now: self.clock(partition, server), identity: self.server(partition, server).identity, new_epoch }
    }

    /// A script has answered with this epoch.
    pub(super) fn epoch_seen(&mut self, partition: u16, server: usize, epoch: Epoch) {
        let server = &self.primaries[usize::from(partition)].servers[server];
        self.check.epoch(partition, epoch, &server.lineage);
    }

    /// The replica catches up.
    pub(super) fn replicate(&mut self, partition: u16) {
        let pause = if self.calm { 30 * MS } else { 1 + self.below(150 * MS) };
        self.after(pause, Step::Replicate(partition));
        let primary = &mut self.primaries[usize::from(partition)];
        let server = &mut primary.servers[primary.current];
        if !server.alive || server.hung_until > self.now {
            return;
        }
        primary.replica = Some((server.store.clone(), server.lineage.clone()));
        for (message, entry) in std::mem::take(&mut server.waiting) {
            self.answer_publisher(message, entry);
        }
    }

    /// The replica is promoted. The old primary is dead, or doesn't know.
    pub(super) fn fail_over(&mut self, partition: u16) {
        let (skew, run, replication) =
            (self.rng.u64(..self.plan.clock_skew.max(1)), self.rng.u64(..), self.rng.u64(..));
        let (dies, again) = (self.chance(0.5), self.chance(0.2));
        let retention = self.plan.retention.clone();
        let primary = &mut self.primaries[usize::from(partition)];
        let old = primary.current;
        let (store, lineage) = primary.replica.take().unwrap_or_else(|| (Store::new(retention), BTreeSet::new()));
        // A server that was primary before may be it again: it still runs the same run.
        let run = if again { primary.servers[0].identity.run } else { run };
        primary.servers[old].deposed = true;
        primary.servers[old].waiting.clear();
        primary.servers.push(Server {
            store,
            identity: Identity { replication, run, first_history: false },
            skew,
            alive: true,
            deposed: false,
            hung_until: 0,
            lineage,
            waiting: Vec::new(),
        });
        primary.current = primary.servers.len() - 1;
        let new = primary.current;
        self.stats.failovers += 1;
        tell!(self, "partition {partition} fails over from server {old} to {new}; the old one dies at once: {dies}");
        let pause = if dies { 0 } else { self.below(400 * MS) };
        self.after(pause, Step::ServerDies { partition, server: old });
    }

    pub(super) fn server_dies(&mut self, partition: u16, server: usize) {
        tell!(self, "server {partition}/{server} dies");
        self.server_mut(partition, server).alive = false;
        self.cut_links_of(partition, server);
    }

    fn cut_links_of(&mut self, partition: u16, server: usize) {
        for link in self.open_links() {
            if self.links[link].partition == partition && self.links[link].server == server {
                self.cut_link(link);
            }
        }
    }

    /// All keys are gone. Connections may stay.
    pub(super) fn wipe(&mut self, partition: u16) {
        let retention = self.plan.retention.clone();
        let server = self.primaries[usize::from(partition)].current;
        tell!(self, "server {partition}/{server} is wiped");
        let wiped = self.server_mut(partition, server);
        wiped.store = Store::new(retention);
        wiped.lineage.clear();
        wiped.waiting.clear();
        if self.chance(0.5) {
            let (run, replication) = (self.rng.u64(..), self.rng.u64(..));
            self.server_mut(partition, server).identity = Identity { replication, run, first_history: true };
            self.cut_links_of(partition, server);
        }
        if self.chance(0.5) {
            self.primaries[usize::from(partition)].replica = None;
        }
    }

    /// The process starts again, with what it had, or with what had reached the disk.
    pub(super) fn restart(&mut self, partition: u16) {
        let server = self.primaries[usize::from(partition)].current;
        let (run, replication) = (self.rng.u64(..), self.rng.u64(..));
        let from_disk = self.chance(0.5);
        tell!(self, "server {partition}/{server} restarts, from disk: {from_disk}");
        self.cut_links_of(partition, server);
        let primary = &mut self.primaries[usize::from(partition)];
        let restarted = &mut primary.servers[server];
        restarted.identity = Identity { replication, run, first_history: true };
        restarted.waiting.clear();
        if from_disk && let Some((store, lineage)) = &primary.replica {
            restarted.store = store.clone();
            restarted.lineage = lineage.clone();
        }
    }

    /// The process was a replica for a while and is primary again: the same run, another history. Whoever demotes a
    /// primary closes its connections.
    pub(super) fn change_sides(&mut self, partition: u16) {
        let replication = self.rng.u64(..);
        let primary = &mut self.primaries[usize::from(partition)];
        let Some((store, lineage)) = primary.replica.clone() else { return };
        let server = &mut primary.servers[primary.current];
        server.store = store;
        server.lineage = lineage;
        server.waiting.clear();
        server.identity = Identity { replication, run: server.identity.run, first_history: false };
        let current = primary.current;
        tell!(self, "partition {partition} changes sides and back");
        self.cut_links_of(partition, current);
        self.stats.failovers += 1;
    }

    /// The first replica comes: a new name for the same history.
    pub(super) fn first_replica(&mut self, partition: u16) {
        let replication = self.rng.u64(..);
        let primary = &mut self.primaries[usize::from(partition)];
        let server = &mut primary.servers[primary.current];
        if server.identity.first_history {
            server.identity.replication = replication;
            tell!(self, "partition {partition} gets its first replica");
        }
    }

    pub(super) fn hang(&mut self, partition: u16) {
        let until = self.now + self.below(400 * MS);
        let server = self.primaries[usize::from(partition)].current;
        tell!(self, "server {partition}/{server} hangs until {until}");
        self.server_mut(partition, server).hung_until = until;
    }
}
