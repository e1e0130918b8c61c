//! Two connections to one Redis server that live and die together: the subscription, and the commands beside it.

use std::fmt;
use std::sync::Arc;

use fanfare_protocol::{Channel, Position, Query, ShardIndex};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::RedisError;
use super::arrivals::Arrivals;
use super::clock::Clock;
use super::commands::{self, Request, Requests};
use super::config::Server;
use super::scripts::{SCRIPTS, Scripts};
use super::subscription::{self, Outbox};
use super::wire::{Wire, Words};
use crate::link::LinkEvent;

/// Times that the server's clock is asked for before a link is used; barriers bring it from then on.
const CLOCK_LOOKS: usize = 3;

/// A link to Redis. Dropping it ends both tasks and closes both connections.
pub(crate) struct RedisLink {
    outbox: Arc<Outbox>,
    requests: Arc<Requests>,
    arrivals: Arc<Arrivals>,
    clock: Arc<Clock>,
    _tasks: JoinSet<()>,
}

impl RedisLink {
    pub(crate) async fn open(server: &Server, scripts: Arc<Scripts>, markers: String) -> Result<Self, RedisError> {
        let mut commands = Wire::open(server).await?;
        let address = commands.stream.peer_addr().map_err(|_| RedisError::Closed)?;
        // A name or a balancer in front may lead elsewhere the second time.
        let mut subscription = Wire::open_at(server, address).await?;
        let run = commands.info("server").await?;
        if run.field("run_id") != subscription.info("server").await?.field("run_id") {
            return Err(RedisError::SeveralServers(server.address()));
        }
        for script in SCRIPTS {
            let mut bytes = Vec::new();
            script.write_load(&mut bytes);
            commands.send(&bytes).await?;
            commands.answer().await?;
        }

        let clock = Arc::new(Clock::default());
        for _ in 0..CLOCK_LOOKS {
            let asked = Instant::now();
            let words = commands.ask(&[b"TIME"]).await?;
            clock.heard(time(&words)?, asked.elapsed());
        }

        let outbox = Arc::new(Outbox::new(scripts.keys.names(), markers.clone()));
        let (requests, arrivals) = (Arc::new(Requests::default()), Arc::new(Arrivals::default()));
        let mut tasks = JoinSet::new();
        // A task that ends in whatever way, even by a panic, ends the link.
        let end = EndOnDrop(arrivals.clone());
        let run = subscription::run(subscription, outbox.clone(), arrivals.clone());
        tasks.spawn(async move { end.0.end(run.await) });
        let end = EndOnDrop(arrivals.clone());
        let run = commands::run(commands, requests.clone(), arrivals.clone(), clock.clone(), scripts, markers);
        tasks.spawn(async move { end.0.end(run.await) });
        Ok(Self { outbox, requests, arrivals, clock, _tasks: tasks })
    }

    pub(crate) async fn arrivals(&mut self, into: &mut Vec<LinkEvent>, max: usize) -> Option<()> {
        self.arrivals.take(into, max).await
    }

    pub(crate) fn ended(&self) -> Option<RedisError> {
        self.arrivals.ended()
    }

    pub(crate) fn clock_ahead_micros(&self) -> i64 {
        self.clock.ahead_micros()
    }

    pub(crate) fn subscribe(&self, channels: Vec<Channel>) {
        self.outbox.subscribe(channels);
    }

    pub(crate) fn subscribe_marker(&self) {
        self.outbox.subscribe_markers();
    }

    pub(crate) fn unsubscribe(&self, channels: Vec<Channel>) {
        self.outbox.unsubscribe(channels);
    }

    pub(crate) fn barrier(&self, nonce: u64, channels: Vec<Channel>) {
        self.outbox.expect_marker(nonce, channels.clone());
        self.requests.push(Request::Barrier(nonce, channels));
    }

    pub(crate) fn read(&self, shard: ShardIndex, tag: u64, query: Query) {
        self.requests.push(Request::Read(shard, tag, query));
    }
}

impl fmt::Debug for RedisLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLink").field("markers", &self.outbox.markers()).finish_non_exhaustive()
    }
}

/// The answer to TIME: seconds, and the microseconds beside them.
fn time(words: &Words) -> Result<Position, RedisError> {
    let mut numbers = words.iter().map(|word| str::from_utf8(word.as_deref()?).ok()?.parse::<u64>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(seconds), Some(micros)) => Ok(Position(seconds.saturating_mul(1_000_000).saturating_add(micros))),
        _ => Err(RedisError::Unexpected("no time".to_owned())),
    }
}

struct EndOnDrop(Arc<Arrivals>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(RedisError::Closed);
    }
}
