//! Publishers: they lose replies, and retry with the same idempotency key.

use std::time::Duration;

use super::{MS, Step, World, tell};
use crate::rules::{Rule, on};
use crate::{Channel, Content, Draft, Idempotency, Published};

/// What a publisher wants to say, however often it has to say it.
#[derive(Debug)]
pub(super) struct Message {
    channel: Channel,
    /// It empties the channel's history and says nothing.
    purges: bool,
    acknowledged: bool,
}

const ATTEMPTS_MAX: u32 = 12;

impl World {
    pub(super) fn add_messages(&mut self) {
        for message in 0..self.plan.messages {
            let channel = self.some_channel();
            let purges = message < self.plan.purges;
            self.messages.push(Message { channel, purges, acknowledged: false });
            let at = self.below(self.plan.chaos + 100 * MS);
            self.at(at, Step::Publish { message, attempt: 0 });
        }
        // The last word in each channel comes when all is calm, so that whoever has stopped hearing is found out.
        for channel in self.channels.clone() {
            if self.chance(0.7) {
                let message = self.messages.len();
                self.messages.push(Message { channel, purges: false, acknowledged: false });
                let at = self.plan.chaos + 1_350 * MS + self.below(300 * MS);
                self.at(at, Step::Publish { message, attempt: 0 });
            }
        }
    }

    fn some_channel(&mut self) -> Channel {
        // Some channels are busy, some are forgotten in between.
        let among = if self.rng.bool() { self.channels.len() } else { self.channels.len().min(3) };
        let index = self.rng.usize(..among);
        self.channels[index].clone()
    }

    pub(super) fn publish(&mut self, message: usize, attempt: u32) {
        if self.messages[message].acknowledged || attempt > ATTEMPTS_MAX {
            return;
        }
        let partition = self.partitions.of(&self.messages[message].channel);
        let primary = &self.primaries[usize::from(partition)];
        let deposed: Vec<_> =
            (0..primary.servers.len()).filter(|&s| primary.servers[s].deposed && primary.servers[s].alive).collect();
        let current = primary.current;
        let server = match self.rng.choice(deposed) {
            Some(deposed) if self.chance(0.3) => deposed,
            _ => current,
        };
        let delay = self.delay();
        self.after(delay, Step::PublishArrives { message, attempt, partition, server });
        let patience = 60 * MS + self.below(100 * MS);
        self.after(patience, Step::Publish { message, attempt: attempt + 1 });
    }

    pub(super) fn publish_arrives(&mut self, message: usize, attempt: u32, partition: u16, server: usize) {
        if !self.server(partition, server).alive {
            return;
        }
        let hung_until = self.server(partition, server).hung_until;
        if hung_until > self.now {
            return self.at(hung_until, Step::PublishArrives { message, attempt, partition, server });
        }
        let entry = match self.messages[message].purges {
            true => self.purge(message, partition, server),
            false => self.take(message, partition, server),
        };
        if self.plan.ack_replica && on(Rule::AckReplica) {
            self.server_mut(partition, server).waiting.push((message, entry));
        } else {
            self.answer_publisher(message, entry);
        }
    }

    fn purge(&mut self, message: usize, partition: u16, server: usize) -> usize {
        let channel = self.messages[message].channel.clone();
        let caller = self.caller(partition, server);
        let (point, purge) = self.server_mut(partition, server).store.purge(caller, channel);
        self.epoch_seen(partition, server, point.epoch);
        tell!(self, "server {partition}/{server} empties {} at {point}", purge.channel.as_str());
        let number = self.check.purged(self.now, &purge);
        self.fan_out_purge(partition, server, point.epoch, purge);
        number
    }

    fn take(&mut self, message: usize, partition: u16, server: usize) -> usize {
        let channel = self.messages[message].channel.clone();
        let mut keep = *self.plan.retention.history.of(&channel);
        if self.chance(self.plan.other_keep) {
            let others: Vec<_> = self.plan.retention.history.all().copied().collect();
            keep = self.rng.choice(others).expect("there is one that holds elsewhere");
        }
        let entry = self.check.entries.len();
        let mut digest = [0; 16];
        digest[..8].copy_from_slice(&(message as u64).to_le_bytes());
        let draft = Draft {
            channel: channel.clone(),
            content: Content { name: None, key: None, ttl: None, data: entry.to_string().into() },
            idempotency: Some(Idempotency { digest, body: digest }),
        };
        let caller = self.caller(partition, server);
        let before = self.server(partition, server).lineage.clone();
        match self.server_mut(partition, server).store.publish(caller, draft, keep) {
            Published::Now(point, event) => {
                self.epoch_seen(partition, server, point.epoch);
                let deposed = self.server(partition, server).deposed;
                self.check.accepted(self.now, partition, message, point, &event, deposed, &before);
                self.server_mut(partition, server).lineage.insert(entry);
                tell!(
                    self,
                    "server {partition}/{server} takes entry {entry} (message {message}) on {} at {point}, after {:?}",
                    channel.as_str(),
                    event.prev
                );
                self.stats.publishes += 1;
                self.fan_out(partition, server, point.epoch, &event);
                entry
            }
            Published::Before(point) => {
                let lineage = &self.server(partition, server).lineage;
                self.check.find(message, point, lineage).expect("what was published before is known")
            }
            Published::Mismatch => unreachable!("a message is always the same"),
        }
    }

    pub(super) fn answer_publisher(&mut self, message: usize, entry: usize) {
        if !self.chance(if self.calm { 0.0 } else { self.plan.reply_loss }) {
            let delay = self.delay();
            self.after(delay, Step::Reply { message, entry });
        }
    }

    pub(super) fn reply(&mut self, message: usize, entry: usize) {
        self.messages[message].acknowledged = true;
        match self.messages[message].purges {
            true => self.check.purge_acknowledged(self.now, entry),
            false => self.check.acknowledged(entry),
        }
    }

    /// The world's clock, as feeds read it.
    pub(super) fn time(&self) -> Duration {
        Duration::from_micros(self.now)
    }
}
