//! How an edge treats its connections.

use std::time::Duration;

use serde::Deserialize;

/// How an edge treats its connections. The variables' names are in `fanfare config`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdgeConfig {
    /// Pause after which a quiet connection gets a comment line. Kept well under the 60 s idle timeout that most load
    /// balancers start with.
    #[serde(with = "humantime_serde")]
    pub heartbeat_interval: Duration,
    /// Channels that one connection may follow, its inbox and the broadcast included.
    pub channels_max: usize,
    /// Connections of this edge at most. None: as many as the file limit allows.
    pub connections_max: Option<usize>,
    /// Connections of one user at most: a browser shares one among its tabs, scripts that leak theirs are stopped.
    pub connections_per_user_max: usize,
    /// Bytes that may wait for one connection, besides the event being written, before it is closed as too slow. It
    /// comes back and is replayed what it missed.
    pub backlog_bytes_max: usize,
    /// Bytes that the kernel buffers for one connection, so that lag shows early; the kernel doubles it.
    pub send_buffer_bytes: usize,
    /// Workers that share the connections. None: one for each core.
    pub shards: Option<usize>,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(15),
            channels_max: 100,
            connections_max: None,
            connections_per_user_max: 20,
            backlog_bytes_max: 256 * 1024,
            send_buffer_bytes: 64 * 1024,
            shards: None,
        }
    }
}
