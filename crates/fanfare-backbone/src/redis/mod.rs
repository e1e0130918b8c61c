//! Redis as the backbone: publishers hand events to a script, feeds hear them over Pub/Sub, history is lists.
//!
//! What must happen in one go is a script (see `scripts`), held against the pure store of `fanfare-protocol`. A feed's
//! link is two connections of our own (see `link`), because no client library guarantees what everything rests on: one
//! connection, in order, no holes. Everything else goes through a pool (see `pool`).

mod arrivals;
mod check;
mod clock;
mod commands;
mod config;
mod directory;
mod error;
mod keys;
mod link;
mod pool;
mod publisher;
pub mod resp;
mod scripts;
mod subscription;
mod wire;

#[cfg(test)]
mod against_the_store;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use fanfare_protocol::{
    Channel, Draft, Epoch, Marker, Page, PageLimit, Partition, Partitions, Point, Position, Retention,
};
use futures_util::future::try_join_all;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use check::{Finding, Weight, check};
pub use config::{RedisConfig, Secret};
pub(crate) use directory::Held;
pub use error::RedisError;
pub(crate) use link::RedisLink;

use crate::blocks::{Block, all_edges};
use crate::{PublishError, Receipt};
use config::Server;
use pool::{Connections, discard, words};
use publisher::{Counter, DEADLINE};
use scripts::{Call, Scripts};
use wire::ANSWER_TIMEOUT;

/// A deployment's Redis. Dropping it ends its publishers.
pub struct Redis {
    server: Server,
    connections: Connections,
    partitions: Vec<PartitionOf>,
    /// Tells this process's markers from those of others.
    edge: u64,
    links_opened: AtomicU64,
    _publishers: JoinSet<()>,
}

struct PartitionOf {
    scripts: Arc<Scripts>,
    counter: Counter,
}

impl Redis {
    /// Needs a runtime around it, and Redis not yet.
    pub(crate) fn new(config: &RedisConfig, retention: Retention) -> Result<Self, Vec<RedisError>> {
        let server = Server::read(config)?;
        let connections = Connections::new(&server).map_err(|error| vec![error])?;
        let mut publishers = JoinSet::new();
        let partitions = server.partitions.all().map(|partition| {
            let scripts = Scripts::new(&server.prefix, partition, server.partitions, retention.clone());
            let (counter, work) = Counter::open(partition, scripts.clone(), server.clone());
            publishers.spawn(work);
            PartitionOf { scripts, counter }
        });
        let partitions = partitions.collect();
        let (edge, links_opened) = (fastrand::u64(..), AtomicU64::new(0));
        Ok(Self { server, connections, partitions, edge, links_opened, _publishers: publishers })
    }

    pub(crate) fn partitions(&self) -> Partitions {
        self.server.partitions
    }

    /// Publishes, partition by partition at the same time, and answers within the deadline.
    pub(crate) async fn publish(&self, drafts: Vec<Draft>) -> Vec<Result<Receipt, PublishError>> {
        let deadline = Instant::now() + DEADLINE;
        let mut places: Vec<Vec<usize>> = vec![Vec::new(); self.partitions.len()];
        let mut parts: Vec<Vec<Draft>> = vec![Vec::new(); self.partitions.len()];
        let count = drafts.len();
        for (place, draft) in drafts.into_iter().enumerate() {
            let partition = usize::from(self.partitions().of(&draft.channel));
            places[partition].push(place);
            parts[partition].push(draft);
        }
        let hand_in = |(part, partition): (Vec<Draft>, &PartitionOf)| {
            (!part.is_empty()).then(|| partition.counter.hand_in(part, deadline))
        };
        let waiting: Vec<_> = parts.into_iter().zip(&self.partitions).map(hand_in).collect();
        let mut outcomes: Vec<_> = (0..count).map(|_| None).collect();
        for (places, answers) in places.into_iter().zip(waiting) {
            let Some(answers) = answers else { continue };
            for (place, outcome) in places.into_iter().zip(answers.wait(deadline).await) {
                outcomes[place] = Some(outcome);
            }
        }
        let lost = || Err(PublishError::Unavailable(RedisError::TimedOut.into()));
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(lost)).collect()
    }

    /// Empties a channel's history, and says where.
    pub(crate) async fn purge(&self, channel: &Channel) -> Result<Point, RedisError> {
        let scripts = self.scripts(self.partitions().of(channel));
        let call = scripts.purge(Epoch::from_random(fastrand::u64(..)), channel);
        let mut connection = self.connections.get(scripts).await?;
        let wanted = self.server.min_replicas;
        let ran = async {
            let value = self.connections.run(&mut connection, &call, ANSWER_TIMEOUT, scripts).await?;
            let have = match wanted {
                0 => 0,
                _ => self.connections.wait_for_replicas(&mut connection, wanted, scripts).await?,
            };
            if have < wanted { Err(RedisError::Replicas { have, wanted }) } else { Ok(value) }
        };
        let ran = ran.await;
        if ran.is_err() {
            discard(connection);
        }
        match scripts.published(words(&ran?))?.1.pop() {
            Some(scripts::Answer::Now(point)) => Ok(point),
            Some(scripts::Answer::Refused(error)) => Err(error),
            _ => Err(RedisError::Unexpected("a purge without an answer".to_owned())),
        }
    }

    pub(crate) async fn standing(&self, channel: &Channel) -> Result<Marker, RedisError> {
        self.stands(self.partitions().of(channel), vec![channel.clone()]).await
    }

    /// All partitions at the same time, so that it takes no longer than one.
    pub(crate) async fn standings(&self) -> Result<Vec<Point>, RedisError> {
        let markers = try_join_all(self.partitions().all().map(|partition| self.stands(partition, Vec::new()))).await?;
        Ok(markers.iter().map(|marker| Point { epoch: marker.epoch, pos: marker.last }).collect())
    }

    async fn stands(&self, partition: Partition, channels: Vec<Channel>) -> Result<Marker, RedisError> {
        let scripts = self.scripts(partition);
        let call = scripts.barrier(Epoch::from_random(fastrand::u64(..)), None, 0, &channels);
        let value = self.run(scripts, &call).await?;
        let (_, marker) = Scripts::stood(words(&value), channels)?;
        marker.ok_or_else(|| RedisError::Unexpected("no marker".to_owned()))
    }

    pub(crate) async fn read(
        &self,
        channel: &Channel,
        after: Option<Position>,
        limit: PageLimit,
    ) -> Result<Page, RedisError> {
        let scripts = self.scripts(self.partitions().of(channel));
        let value = self.run(scripts, &scripts.history(channel, after, limit)).await?;
        Scripts::page(channel, words(&value))
    }

    /// Whether there was room for it.
    pub(crate) async fn block(&self, block: &Block) -> Result<bool, RedisError> {
        let scripts = self.scripts(self.partitions().of(&all_edges()));
        let value = self.run(scripts, &scripts.block(block)).await?;
        Ok(words(&value).next().flatten() == Some(b"1"))
    }

    pub(crate) async fn blocks(&self, now: SystemTime) -> Result<Vec<String>, RedisError> {
        let scripts = self.scripts(self.partitions().of(&all_edges()));
        let value = self.run(scripts, &scripts.blocks(now)).await?;
        Ok(words(&value).flatten().map(|row| String::from_utf8_lossy(row).into_owned()).collect())
    }

    pub(crate) async fn connect(&self, partition: Partition) -> Result<RedisLink, RedisError> {
        let scripts = self.scripts(partition);
        let number = self.links_opened.fetch_add(1, Ordering::Relaxed) + 1;
        RedisLink::open(&self.server, scripts.clone(), scripts.keys.markers(self.edge, number)).await
    }

    async fn run(&self, scripts: &Scripts, call: &Call) -> Result<redis::Value, RedisError> {
        let mut connection = self.connections.get(scripts).await?;
        let ran = self.connections.run(&mut connection, call, ANSWER_TIMEOUT, scripts).await;
        if ran.is_err() {
            discard(connection);
        }
        ran
    }

    fn scripts(&self, partition: Partition) -> &Arc<Scripts> {
        &self.partitions[usize::from(partition)].scripts
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("server", &self.server).finish_non_exhaustive()
    }
}
