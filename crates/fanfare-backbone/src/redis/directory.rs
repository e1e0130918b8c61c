//! The directory in Redis: for each node a sorted set of names and a hash of counts, which expire with its lease, and
//! one sorted set of nodes. Only Redis's clock counts.
//!
//! Most entries have one connection, so a name alone means one and only other counts are written down.

use std::collections::BTreeMap;
use std::fmt;

use deadpool_redis::Connection;
use redis::{Pipeline, Value};

use super::pool::{discard, words};
use super::scripts::{Call, ENLIST, TELL};
use super::wire::ANSWER_TIMEOUT;
use super::{Redis, RedisError};
use crate::directory::{Counts, LEASE, Names, NodeId, shorten};

/// Nodes whose keys are read for one answer. Beyond it counts are too low; no deployment comes near.
const NODES_MAX: isize = 1_000;

/// The keys of a node, or of whoever checks whether they can be written.
#[derive(Clone, Debug)]
pub(crate) struct NodeKeys {
    base: String,
}

impl NodeKeys {
    fn new(prefix: &str, node: &str) -> Self {
        Self { base: format!("{prefix}:{{n:{node}}}:") }
    }

    pub(crate) fn for_checks(prefix: &str) -> Self {
        Self::new(prefix, "check")
    }

    pub(crate) fn names(&self) -> Vec<u8> {
        [self.base.as_bytes(), b"x"].concat()
    }

    pub(crate) fn counts(&self) -> Vec<u8> {
        [self.base.as_bytes(), b"n"].concat()
    }

    /// Tells what has changed since a report; since none: begins anew.
    pub(crate) fn tell(&self, since: Option<u64>, number: u64, changes: &[(Vec<u8>, u32)]) -> Call {
        let call = Call::new(&TELL).key(self.names()).key(self.counts());
        let call = call.word(since.map_or_else(String::new, |since| since.to_string())).number(number);
        let call = call.number(LEASE.as_millis());
        changes.iter().fold(call, |call, (name, count)| call.word(name.as_slice()).number(*count))
    }
}

/// A node's own connection: its reports, and so its lease, must not wait behind reads.
#[derive(Default)]
pub(crate) struct Held(Option<Connection>);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&self.0.is_some()).finish()
    }
}

/// Where nodes are listed.
pub(crate) fn nodes(prefix: &str) -> Vec<u8> {
    format!("{prefix}:{{nodes}}").into()
}

pub(crate) fn enlist(nodes: Vec<u8>, node: &str) -> Call {
    Call::new(&ENLIST).key(nodes).word(node).number(LEASE.as_millis())
}

impl Redis {
    /// Whether the report follows the one that is known.
    pub(crate) async fn tell(
        &self,
        held: &mut Held,
        node: NodeId,
        since: Option<u64>,
        number: u64,
        changes: &[(Vec<u8>, u32)],
    ) -> Result<bool, RedisError> {
        let (prefix, node) = (&self.server.prefix, node.to_string());
        let taken = match self.run_over(held, &NodeKeys::new(prefix, &node).tell(since, number, changes)).await? {
            Value::Int(taken) => taken == 1,
            other => return Err(RedisError::Unexpected(format!("a report is answered with {other:?}"))),
        };
        if taken {
            self.run_over(held, &enlist(nodes(prefix), &node)).await?;
        }
        Ok(taken)
    }

    async fn run_over(&self, held: &mut Held, call: &Call) -> Result<Value, RedisError> {
        let scripts = self.scripts(0);
        let mut connection = match held.0.take() {
            Some(connection) => connection,
            None => self.connections.get(scripts).await?,
        };
        let ran = self.connections.run(&mut connection, call, ANSWER_TIMEOUT, scripts).await;
        match ran {
            Ok(_) => held.0 = Some(connection),
            Err(_) => discard(connection),
        }
        ran
    }

    pub(crate) async fn strike(&self, node: NodeId) -> Result<(), RedisError> {
        let (prefix, node) = (&self.server.prefix, node.to_string());
        let keys = NodeKeys::new(prefix, &node);
        let mut pipeline = Pipeline::new();
        pipeline.cmd("ZREM").arg(nodes(prefix)).arg(&node);
        pipeline.cmd("UNLINK").arg(keys.names()).arg(keys.counts());
        self.ask(&pipeline).await.map(drop)
    }

    pub(crate) async fn counts(&self, names: &[Vec<u8>]) -> Result<Vec<u64>, RedisError> {
        let mut sums = vec![0; names.len()];
        if names.is_empty() {
            return Ok(sums);
        }
        let mut pipeline = Pipeline::new();
        for keys in self.nodes().await? {
            pipeline.cmd("ZMSCORE").arg(keys.names()).arg(names);
            pipeline.cmd("HMGET").arg(keys.counts()).arg(names);
        }
        for answers in self.ask(&pipeline).await?.chunks_exact(2) {
            for ((sum, score), count) in sums.iter_mut().zip(words(&answers[0])).zip(words(&answers[1])) {
                *sum += number(count).unwrap_or(u64::from(score.is_some()));
            }
        }
        Ok(sums)
    }

    /// The first names of a range, each with its count. Whether there are more.
    pub(crate) async fn names(&self, range: &Names, limit: usize) -> Result<(Counts, bool), RedisError> {
        let nodes = self.nodes().await?;
        let mut pipeline = Pipeline::new();
        let (from, to) = ([b"[", &*range.from].concat(), [b"(", &*range.to].concat());
        for keys in &nodes {
            let command = pipeline.cmd("ZRANGEBYLEX").arg(keys.names()).arg(&from[..]).arg(&to[..]);
            command.arg("LIMIT").arg(0).arg(limit + 1);
        }
        // By name, the nodes that have it.
        let mut having: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
        for (node, answer) in self.ask(&pipeline).await?.iter().enumerate() {
            for name in words(answer).flatten() {
                having.entry(name.to_vec()).or_default().push(node);
            }
        }
        let more = shorten(&mut having, limit);

        let mut by_node: Vec<Vec<&[u8]>> = vec![Vec::new(); nodes.len()];
        for (name, having) in &having {
            having.iter().for_each(|node| by_node[*node].push(name));
        }
        let mut pipeline = Pipeline::new();
        let asked = || by_node.iter().zip(&nodes).filter(|(names, _)| !names.is_empty());
        for (names, keys) in asked() {
            pipeline.cmd("HMGET").arg(keys.counts()).arg(names);
        }
        let mut counts = Counts::new();
        for ((names, _), answer) in asked().zip(self.ask(&pipeline).await?.iter()) {
            for (name, count) in names.iter().zip(words(answer)) {
                *counts.entry(name.to_vec()).or_default() += number(count).unwrap_or(1);
            }
        }
        Ok((counts, more))
    }

    /// Those that are alive, and some whose keys have just expired.
    async fn nodes(&self) -> Result<Vec<NodeKeys>, RedisError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("ZRANGE").arg(nodes(&self.server.prefix)).arg(0).arg(NODES_MAX - 1);
        let answers = self.ask(&pipeline).await?;
        let nodes = answers.iter().flat_map(words).flatten().filter_map(|node| str::from_utf8(node).ok());
        Ok(nodes.map(|node| NodeKeys::new(&self.server.prefix, node)).collect())
    }

    /// Runs commands in one go. None: there is nothing to ask.
    async fn ask(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        let scripts = self.scripts(0);
        let mut connection = self.connections.get(scripts).await?;
        let answers = self.connections.ask(&mut connection, pipeline, ANSWER_TIMEOUT, scripts).await;
        if answers.is_err() {
            discard(connection);
        }
        answers
    }
}

fn number(word: Option<&[u8]>) -> Option<u64> {
    str::from_utf8(word?).ok()?.parse().ok()
}
