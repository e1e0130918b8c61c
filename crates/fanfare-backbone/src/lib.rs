//! What joins the nodes: publishers hand events in, feeds hear them, and what was missed can be read. So can who
//! listens (see `directory`).
//!
//! One interface for whatever is behind it. The in-process backbone is the pure store of `fanfare-protocol` behind a
//! lock: for `fanfare dev`, for tests, and for one small machine. With Redis it is scripts, lists and Pub/Sub there,
//! which any number of processes share.

mod blocks;
mod directory;
mod history;
mod in_process;
mod link;
mod redis;

use std::sync::Arc;
use std::time::SystemTime;

use fanfare_protocol::{Channel, Draft, Marker, PageLimit, Partition, Partitions, Point, Retention};

use blocks::BLOCKS_MAX;
pub use blocks::{Block, all_edges, one_edge};
pub use directory::{Counted, LEASE, Node, NodeId, ReportError, Roll};
pub use history::{AfterError, History, HistoryPage, HistoryQuery, event_id};
use in_process::InProcess;
pub use link::{Link, LinkEvent};
use redis::Redis;
#[doc(hidden)] // For the fuzz target of that name.
pub use redis::resp;
pub use redis::{Finding, RedisConfig, RedisError, Secret, Weight, check};

/// A handle on the backbone; clones share it.
#[derive(Clone, Debug)]
pub enum Backbone {
    /// Everything in this process, nothing survives it.
    InProcess(Arc<InProcess>),
    /// Redis 6.2 or newer, or Valkey.
    Redis(Arc<Redis>),
}

/// Where an event has its place now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The partition of its channel.
    pub partition: Partition,
    /// Epoch and position.
    pub point: Point,
    /// Whether the idempotency key had published it before.
    pub repeated: bool,
}

/// Why a draft was not published, or may not have been.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// Within the window, the same idempotency key published something else on this channel.
    #[error("the idempotency key was used for a different event")]
    Mismatch,
    /// The outcome is unknown.
    #[error("the backbone did not answer")]
    Unavailable(#[source] BackboneError),
}

/// Why the backbone could not be asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BackboneError {
    /// It takes no more: so many bytes are retained already.
    #[error("the backbone is full")]
    Full,
    /// More waits for it already than memory is set aside for.
    #[error("too many events wait for the backbone already")]
    Busy,
    /// More users were disconnected lately than are remembered.
    #[error("{BLOCKS_MAX} blocks are in force already, which is as many as are remembered")]
    Blocks,
    /// Redis is away or refuses.
    #[error("{0}")]
    Redis(RedisError),
}

impl From<RedisError> for BackboneError {
    fn from(error: RedisError) -> Self {
        match error {
            RedisError::Memory => Self::Full,
            error => Self::Redis(error),
        }
    }
}

impl Backbone {
    /// A backbone on Redis, which need not be there yet: whether it will do is [`check`]'s to find out. Publishers run
    /// on the runtime that this is called in, until the last clone is dropped.
    ///
    /// # Errors
    /// Every mistake in the configuration.
    pub fn redis(config: &RedisConfig, retention: Retention) -> Result<Self, Vec<RedisError>> {
        Ok(Self::Redis(Arc::new(Redis::new(config, retention)?)))
    }

    /// An empty in-process backbone.
    pub fn in_process(partitions: Partitions, retention: Retention) -> Self {
        Self::InProcess(Arc::new(InProcess::new(partitions, retention)))
    }

    /// The number of partitions, fixed for the life of a deployment.
    pub fn partitions(&self) -> Partitions {
        match self {
            Self::InProcess(backbone) => backbone.partitions(),
            Self::Redis(backbone) => backbone.partitions(),
        }
    }

    /// Publishes drafts in their order, and answers each. One that fails does not keep the others back.
    pub async fn publish(&self, drafts: Vec<Draft>) -> Vec<Result<Receipt, PublishError>> {
        match self {
            Self::InProcess(backbone) => backbone.publish(drafts),
            Self::Redis(backbone) => backbone.publish(drafts).await,
        }
    }

    /// Empties a channel's history, and says from where on it has one again: who comes back from below is told a gap,
    /// who is listening notices nothing. A channel that is not known is emptied all the same: edges may still hold
    /// what they have heard of it.
    ///
    /// # Errors
    /// The backbone can't be reached; the history may be empty or not.
    pub async fn purge(&self, channel: &Channel) -> Result<Point, BackboneError> {
        match self {
            Self::InProcess(backbone) => Ok(backbone.purge(channel)),
            Self::Redis(backbone) => Ok(backbone.purge(channel).await?),
        }
    }

    /// Where a channel and its partition stand now.
    ///
    /// # Errors
    /// The backbone can't be reached.
    pub async fn standing(&self, channel: &Channel) -> Result<Marker, BackboneError> {
        match self {
            Self::InProcess(backbone) => Ok(backbone.standing(channel)),
            Self::Redis(backbone) => Ok(backbone.standing(channel).await?),
        }
    }

    /// Where every partition stands now, in their order: together a cursor for whatever a connection may follow.
    ///
    /// # Errors
    /// The backbone can't be reached; with all but one partition, too.
    pub async fn standings(&self) -> Result<Vec<Point>, BackboneError> {
        match self {
            Self::InProcess(backbone) => Ok(backbone.standings()),
            Self::Redis(backbone) => Ok(backbone.standings().await?),
        }
    }

    /// A page of a channel's retained events, oldest first: those after a point, or else the newest.
    ///
    /// # Errors
    /// The backbone can't be reached.
    pub async fn history(
        &self,
        channel: &Channel,
        after: Option<Point>,
        limit: PageLimit,
    ) -> Result<History, BackboneError> {
        let marker = self.standing(channel).await?;
        let start = after.map(|point| history::start(&marker, point));
        let page = match self {
            Self::InProcess(backbone) => backbone.read(channel, start, limit),
            Self::Redis(backbone) => backbone.read(channel, start, limit).await?,
        };
        Ok(History::new(&marker, after, start, page))
    }

    /// Disconnects a user: remembers it, for edges that can't be told now, and then tells the others.
    ///
    /// # Errors
    /// The backbone can't be reached or has no room. Whether it is remembered is unknown then; to repeat it is harmless.
    pub async fn disconnect(&self, block: &Block) -> Result<(), BackboneError> {
        let has_room = match self {
            Self::InProcess(backbone) => backbone.block(block),
            Self::Redis(backbone) => backbone.block(block).await?,
        };
        if !has_room {
            return Err(BackboneError::Blocks);
        }
        match self.publish(vec![block.draft()]).await.pop() {
            Some(Err(PublishError::Unavailable(error))) => Err(error),
            _ => Ok(()),
        }
    }

    /// Every disconnect that is remembered.
    ///
    /// # Errors
    /// The backbone can't be reached.
    pub async fn blocks(&self) -> Result<Vec<Block>, BackboneError> {
        let rows = match self {
            Self::InProcess(backbone) => backbone.blocks(),
            Self::Redis(backbone) => backbone.blocks(SystemTime::now()).await?,
        };
        Ok(rows.iter().filter_map(|row| Block::decode(row)).collect())
    }

    /// Opens a subscription and the commands that belong to it, for one feed.
    ///
    /// # Errors
    /// The backbone can't be reached.
    pub async fn connect(&self, partition: Partition) -> Result<Link, BackboneError> {
        match self {
            Self::InProcess(backbone) => Ok(backbone.connect(partition).into()),
            Self::Redis(backbone) => Ok(backbone.connect(partition).await?.into()),
        }
    }
}
