//! What a partition's keys and Pub/Sub names are called. All of them carry its number in braces, so that a cluster
//! keeps them in one place.

use fanfare_protocol::{Channel, Partition, Partitions};

/// The names of one partition.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    base: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str, partition: Partition) -> Self {
        Self { base: format!("{prefix}:{{{partition}}}:") }
    }

    /// Names that no partition has, to try things out with. The number of partitions is part of them: trying one out
    /// must not settle it.
    pub(crate) fn for_checks(prefix: &str, partitions: Partitions) -> Self {
        Self { base: format!("{prefix}:{{check{}}}:", partitions.count()) }
    }

    /// The partition's hash.
    pub(crate) fn meta(&self) -> Vec<u8> {
        [self.base.as_bytes(), b"m"].concat()
    }

    /// Channels by their last positions.
    pub(crate) fn lasts(&self) -> Vec<u8> {
        [self.base.as_bytes(), b"x"].concat()
    }

    /// Channels that are never forgotten, by their last positions.
    pub(crate) fn kept(&self) -> Vec<u8> {
        [self.base.as_bytes(), b"k"].concat()
    }

    /// A channel's retained events.
    pub(crate) fn history(&self, channel: &Channel) -> Vec<u8> {
        [self.base.as_bytes(), b"h:", channel.as_str().as_bytes()].concat()
    }

    /// What an idempotency key published.
    pub(crate) fn remembered(&self, digest: [u8; 16]) -> Vec<u8> {
        [self.base.as_bytes(), b"d:", hex(digest).as_bytes()].concat()
    }

    /// Users who were disconnected.
    pub(crate) fn blocks(&self) -> Vec<u8> {
        [self.base.as_bytes(), b"u"].concat()
    }

    /// What every channel's Pub/Sub name begins with.
    pub(crate) fn names(&self) -> String {
        format!("{}c:", self.base)
    }

    /// The Pub/Sub name of one link's markers.
    pub(crate) fn markers(&self, edge: u64, connection: u64) -> String {
        format!("{}b:{edge:016x}.{connection}", self.base)
    }
}

pub(crate) fn hex(bytes: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(bytes))
}
