//! How an edge treats its connections.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use fanfare_http::TrustedProxies;
use fanfare_protocol::ByNamespace;
use serde::Deserialize;

use crate::routes::Routes;

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
    /// What happens to the connection that would be one too many.
    #[serde(skip)]
    pub at_user_limit: AtUserLimit,
    /// Connections of one client address at most, see [`fanfare_http::client_network`].
    #[serde(skip)]
    pub connections_per_address_max: AddressLimit,
    /// Proxies whose `X-Forwarded-For` counts.
    #[serde(skip)]
    pub trusted_proxies: TrustedProxies,
    /// Time without an event after which a connection is closed. None: it may be quiet for ever.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Option<Duration>,
    /// Time after which any connection is closed: it, or up to a fifth less, so that those who came together don't
    /// leave together. None: it may stay for ever.
    #[serde(with = "humantime_serde")]
    pub max_age: Option<Duration>,
    /// Time in which a stream must have joined; past it the backbone counts as unavailable.
    #[serde(with = "humantime_serde")]
    pub join_timeout: Duration,
    /// Time after which a poll is answered, whether there is something to say or not.
    #[serde(with = "humantime_serde")]
    pub poll_timeout: Duration,
    /// Time after which those come back who are refused because of a limit, overload or a drain; jittered.
    #[serde(skip)]
    pub refusal_pause: RangeInclusive<Duration>,
    /// Refused streams that are held open until then, at most. None: as many as the file limit has room for.
    pub held_max: Option<usize>,
    /// Bytes that may wait for one connection, besides the event being written, before it is closed as too slow. It
    /// comes back and is replayed what it missed. With the room that is found by doubling, a reader that stands still
    /// costs 64 KiB, and nothing where others wait for the same events.
    pub backlog_bytes_max: usize,
    /// Whether events that wait for a connection leave in one write. Without it each is written on its own, for measuring.
    pub coalesce: bool,
    /// Paths of an application's own. They come from a file, each with a place for its mistakes.
    #[serde(skip)]
    pub routes: Routes,
    /// Calls at the same time at most, where the file limit allows it: each has a socket to its caller, and one to its
    /// backend until that has answered.
    pub calls_max: usize,
    /// Newest events of each channel that a fresh connection gets where it doesn't say how many it wants.
    #[serde(skip)]
    pub replay: Arc<ByNamespace<u16>>,
    /// Workers that share the connections. None: one for each core.
    pub shards: Option<usize>,
    /// Whether it is told who follows a channel. Never of the broadcast.
    #[serde(skip)]
    pub presence: ByNamespace<bool>,
}

/// What happens when a user has as many connections as one may have, and opens another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtUserLimit {
    /// It is refused.
    #[default]
    Reject,
    /// The oldest is closed for it.
    ReplaceOldest,
}

/// How many connections one client address may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressLimit {
    /// 200 where proxies are trusted; else any number, because it may be a proxy's address.
    #[default]
    Auto,
    /// Any number.
    Off,
    /// So many.
    Max(usize),
}

/// What [`AddressLimit::Auto`] allows where clients can be told apart: many people behind one router, but no flood.
const ADDRESS_MAX: usize = 200;

impl EdgeConfig {
    /// Connections of one client address at most. None: any number.
    pub(crate) fn address_max(&self) -> Option<usize> {
        match self.connections_per_address_max {
            AddressLimit::Auto => (!self.trusted_proxies.is_empty()).then_some(ADDRESS_MAX),
            AddressLimit::Off => None,
            AddressLimit::Max(max) => Some(max),
        }
    }
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(15),
            channels_max: 100,
            connections_max: None,
            connections_per_user_max: 20,
            at_user_limit: AtUserLimit::Reject,
            connections_per_address_max: AddressLimit::Auto,
            trusted_proxies: TrustedProxies::default(),
            idle_timeout: None,
            max_age: None,
            join_timeout: Duration::from_secs(30),
            poll_timeout: Duration::from_secs(24), // The wheel's visits come a little late.
            refusal_pause: Duration::from_secs(15)..=Duration::from_secs(60),
            held_max: None,
            backlog_bytes_max: 48 * 1024,
            coalesce: true,
            routes: Routes::default(),
            calls_max: 4_096,
            replay: Arc::new(ByNamespace::everywhere(0)),
            shards: None,
            presence: ByNamespace::everywhere(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_limit_by_itself_only_where_proxies_are_trusted() {
        let limit = |connections_per_address_max, networks: &[&str]| {
            let trusted_proxies = TrustedProxies::of(networks).expect("networks");
            EdgeConfig { connections_per_address_max, trusted_proxies, ..EdgeConfig::default() }.address_max()
        };
        assert_eq!((limit(AddressLimit::Auto, &[]), limit(AddressLimit::Auto, &["10.0.0.0/8"])), (None, Some(200)));
        assert_eq!((limit(AddressLimit::Off, &["10.0.0.0/8"]), limit(AddressLimit::Max(5), &[])), (None, Some(5)));
    }
}
