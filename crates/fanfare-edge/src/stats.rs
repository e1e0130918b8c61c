//! An edge as its operators see it: how many are connected, where, and how its shards share them.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use fanfare_protocol::UserId;
use serde::Serialize;

/// Namespaces that are listed: those with the most listeners.
const NAMESPACES_MAX: usize = 1_000;

/// Users that are listed: those with the most connections.
const USERS_MAX: usize = 100;

/// What an edge holds just now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Open streams.
    pub connections: usize,
    /// Streams that it takes at most.
    pub connections_max: usize,
    /// Channels with listeners.
    pub channels: usize,
    /// Users with connections.
    pub users: usize,
    /// Up to 1,000 with the most listeners, the most first.
    pub namespaces: Vec<NamespaceStats>,
    /// In the order of their numbers.
    pub shards: Vec<ShardStats>,
    /// Up to 100 with the most connections, the most first. None: they are not to be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busiest_users: Option<Vec<UserStats>>,
}

/// The channels of one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NamespaceStats {
    /// Its name.
    pub namespace: String,
    /// Those with listeners.
    pub channels: usize,
    /// Listeners of all of them; a connection counts once for each channel that it follows.
    pub listeners: u64,
}

/// One shard's load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ShardStats {
    /// Its connections, those included that are refused and held; as of half a second ago.
    pub connections: usize,
    /// Events that it has written since the start.
    pub deliveries: u64,
}

/// One user's connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserStats {
    /// The user.
    pub user_id: String,
    /// Open streams.
    pub connections: u32,
}

/// What a shard says of itself.
#[derive(Debug, Default)]
pub(crate) struct ShardLoad {
    pub(crate) connections: AtomicUsize,
    pub(crate) deliveries: AtomicU64,
}

impl ShardLoad {
    pub(crate) fn stats(&self) -> ShardStats {
        let connections = self.connections.load(Ordering::Relaxed);
        ShardStats { connections, deliveries: self.deliveries.load(Ordering::Relaxed) }
    }
}

/// The namespaces with the most listeners.
pub(crate) fn largest(mut namespaces: Vec<NamespaceStats>) -> Vec<NamespaceStats> {
    namespaces.sort_by(|a, b| (Reverse(a.listeners), &a.namespace).cmp(&(Reverse(b.listeners), &b.namespace)));
    namespaces.truncate(NAMESPACES_MAX);
    namespaces
}

/// The users with the most connections.
pub(crate) fn busiest(mut users: Vec<(UserId, u32)>) -> Vec<UserStats> {
    users.sort_by(|a, b| (Reverse(a.1), &a.0).cmp(&(Reverse(b.1), &b.0)));
    users.truncate(USERS_MAX);
    let stats = |(user, connections): (UserId, u32)| UserStats { user_id: user.as_str().to_owned(), connections };
    users.into_iter().map(stats).collect()
}
