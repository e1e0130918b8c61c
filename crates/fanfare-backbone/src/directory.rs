//! The directory: who listens to what, over all nodes. Each node tells what it holds; readers add it up.
//!
//! What a node has told is its own and under a lease, which each report renews: a node that dies is forgotten within
//! [`LEASE`], and nobody has to notice its death. Nothing here is needed for delivery, so nothing waits for it: it is
//! as of a second or two ago, and after an outage each node tells everything anew.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use fanfare_protocol::{BATCH_MAX, Channel, UserId};

use crate::redis::Held;
use crate::{Backbone, BackboneError};

/// How long what a node told holds without a further report. Reports come every second.
pub const LEASE: Duration = Duration::from_secs(10);

/// Names of a node: random, so that nobody has to hand them out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u64);

impl NodeId {
    /// A name that no other node has.
    pub fn random() -> Self {
        Self(fastrand::u64(..))
    }

    /// Reads the 16 hex digits that it is written with.
    pub fn parse(text: &str) -> Option<Self> {
        let node = Self(u64::from_str_radix(text, 16).ok()?);
        (node.to_string() == text).then_some(node)
    }

    /// From its 64 bits.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its 64 bits.
    pub fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What connections are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Counted {
    /// Those that follow a channel.
    Channel(Channel),
    /// Those of a user, whatever they follow.
    User(UserId),
    /// Those of a user that follow a channel; without a user, all that are nobody's.
    Listener(Channel, Option<UserId>),
}

impl Counted {
    /// Its name in the directory. Neither channels nor user ids have control characters, so names sort by channel and
    /// then by user.
    pub(crate) fn name(&self) -> Vec<u8> {
        match self {
            Self::Channel(channel) => [b"c", channel.as_str().as_bytes()].concat(),
            Self::User(user) => [b"u", user.as_str().as_bytes()].concat(),
            Self::Listener(channel, user) => {
                [b"p", channel.as_str().as_bytes(), b"\0", user.as_ref().map_or("", UserId::as_str).as_bytes()].concat()
            }
        }
    }
}

/// A page of the directory, sorted by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roll<T> {
    /// What is counted, and how many connections it has.
    pub entries: Vec<(T, u64)>,
    /// The page is full; more may follow after its last entry.
    pub more: bool,
}

/// Names from one (included) to another (excluded).
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) from: Vec<u8>,
    pub(crate) to: Vec<u8>,
}

/// Names with their counts.
pub(crate) type Counts = BTreeMap<Vec<u8>, u64>;

/// Why a report is not in.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReportError {
    /// What the node had told before isn't known any more.
    #[error("what was told before is gone")]
    Forgotten,
    /// Whether it is in is unknown.
    #[error("the backbone did not take it")]
    Backbone(#[source] BackboneError),
}

/// A node that tells what it holds. What it told goes when it [leaves](Node::leave), or else with its lease.
#[derive(Debug)]
pub struct Node {
    backbone: Backbone,
    id: NodeId,
    /// The number of the last report. It says whose continuation the next one is: a report that was lost, or that is
    /// late, must not be taken for the one before.
    last: u64,
    held: Held,
}

impl Backbone {
    /// A node, which has told nothing yet: it [begins](Node::begin) first.
    pub fn node(&self, id: NodeId) -> Node {
        Node { backbone: self.clone(), id, last: 0, held: Held::default() }
    }

    /// How many connections there are of each.
    ///
    /// # Errors
    /// The backbone can't be reached.
    pub async fn counts(&self, entries: &[Counted]) -> Result<Vec<u64>, BackboneError> {
        let names: Vec<_> = entries.iter().map(Counted::name).collect();
        match self {
            Self::InProcess(backbone) => Ok(backbone.directory.counts(&names)),
            Self::Redis(backbone) => Ok(backbone.counts(&names).await?),
        }
    }

    /// Channels with listeners: those whose names begin with `prefix` and sort after `after`, at most `limit`.
    ///
    /// # Errors
    /// The backbone can't be reached.
    pub async fn active_channels(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<Roll<Channel>, BackboneError> {
        let first = format!("c{prefix}").max(format!("c{after}\0"));
        let names = Names { from: first.into(), to: format!("c{prefix}\x7f").into() };
        let read = |name: &[u8]| Channel::parse(str::from_utf8(name.get(1..)?).ok()?).ok();
        self.roll(names, limit, read).await
    }

    /// Users who follow a channel: those that sort after `after`, at most `limit`.
    ///
    /// # Errors
    /// The backbone can't be reached.
    pub async fn listeners(
        &self,
        channel: &Channel,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Roll<UserId>, BackboneError> {
        let mut from = Counted::Listener(channel.clone(), after.cloned()).name();
        from.push(0);
        let names = Names { from, to: format!("p{channel}\x01").into() };
        let user_at = channel.as_str().len() + 2;
        let read = |name: &[u8]| UserId::parse(str::from_utf8(name.get(user_at..)?).ok()?).ok();
        self.roll(names, limit, read).await
    }

    async fn roll<T>(
        &self,
        names: Names,
        limit: usize,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Roll<T>, BackboneError> {
        let (counts, more) = match self {
            Self::InProcess(backbone) => backbone.directory.page(&names, limit),
            Self::Redis(backbone) => backbone.names(&names, limit).await?,
        };
        let entries = counts.into_iter().filter_map(|(name, count)| Some((read(&name)?, count))).collect();
        Ok(Roll { entries, more })
    }
}

impl Node {
    /// Takes back all that was told, and begins anew.
    ///
    /// # Errors
    /// The backbone can't be reached.
    pub async fn begin(&mut self) -> Result<(), BackboneError> {
        self.last = fastrand::u64(..u64::MAX / 2);
        match &self.backbone {
            Backbone::InProcess(backbone) => backbone.directory.begin(self.id),
            Backbone::Redis(backbone) => drop(backbone.tell(&mut self.held, self.id, None, self.last, &[]).await?),
        }
        Ok(())
    }

    /// Tells what has changed, each entry with its count as it is now, and renews the lease. Nothing changed: the
    /// lease is renewed all the same.
    ///
    /// # Errors
    /// It isn't in, or may not be: then [`Node::begin`] anew, and tell everything.
    pub async fn report(&mut self, changes: &[(Counted, u32)]) -> Result<(), ReportError> {
        let mut rest = changes;
        loop {
            let (batch, others) = rest.split_at(rest.len().min(BATCH_MAX));
            let batch: Vec<_> = batch.iter().map(|(entry, count)| (entry.name(), *count)).collect();
            let taken = match &self.backbone {
                Backbone::InProcess(backbone) => backbone.directory.tell(self.id, batch),
                Backbone::Redis(backbone) => {
                    let taken = backbone.tell(&mut self.held, self.id, Some(self.last), self.last + 1, &batch).await;
                    taken.map_err(|error| ReportError::Backbone(error.into()))?
                }
            };
            if !taken {
                return Err(ReportError::Forgotten);
            }
            self.last += 1;
            rest = others;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Takes everything back at once, without waiting for the lease to end.
    ///
    /// # Errors
    /// The backbone can't be reached; the lease ends all the same.
    pub async fn leave(self) -> Result<(), BackboneError> {
        match &self.backbone {
            Backbone::InProcess(backbone) => backbone.directory.strike(self.id),
            Backbone::Redis(backbone) => backbone.strike(self.id).await?,
        }
        Ok(())
    }
}

/// The directory of one process. It ends with its nodes, so there are no leases.
#[derive(Debug, Default)]
pub(crate) struct Directory(Mutex<HashMap<NodeId, BTreeMap<Vec<u8>, u32>>>);

impl Directory {
    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, BTreeMap<Vec<u8>, u32>>> {
        self.0.lock().expect("no one panics while holding the directory")
    }

    fn begin(&self, node: NodeId) {
        self.lock().insert(node, BTreeMap::new());
    }

    fn tell(&self, node: NodeId, changes: Vec<(Vec<u8>, u32)>) -> bool {
        let mut nodes = self.lock();
        let Some(told) = nodes.get_mut(&node) else { return false };
        for (name, count) in changes {
            match count {
                0 => drop(told.remove(&name)),
                count => drop(told.insert(name, count)),
            }
        }
        true
    }

    fn strike(&self, node: NodeId) {
        self.lock().remove(&node);
    }

    fn counts(&self, names: &[Vec<u8>]) -> Vec<u64> {
        let nodes = self.lock();
        let count = |name| nodes.values().filter_map(|told| told.get(name)).map(|count| u64::from(*count)).sum();
        names.iter().map(count).collect()
    }

    fn page(&self, names: &Names, limit: usize) -> (Counts, bool) {
        let mut counts = Counts::new();
        if names.from < names.to {
            for told in self.lock().values() {
                for (name, count) in told.range(names.from.clone()..names.to.clone()).take(limit + 1) {
                    *counts.entry(name.clone()).or_default() += u64::from(*count);
                }
            }
        }
        let more = shorten(&mut counts, limit);
        (counts, more)
    }
}

/// Keeps the first names. Whether there were more.
pub(crate) fn shorten<V>(names: &mut BTreeMap<Vec<u8>, V>, limit: usize) -> bool {
    match names.keys().nth(limit).cloned() {
        Some(first_beyond) => {
            names.split_off(&first_beyond);
            true
        }
        None => false,
    }
}
