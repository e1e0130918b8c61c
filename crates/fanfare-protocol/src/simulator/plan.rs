//! What a seed's world is like: its size, its bounds, and how much goes wrong.

use std::time::Duration;

use fastrand::Rng;

use super::{MS, Time};
use crate::{ByNamespace, Channel, FeedTiming, Keep, MachineLimits, Retention};

/// The kinds of worlds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Ample history, and only clients misbehave: there must not be a single gap.
    Calm,
    /// Links and edges fail, but no history is lost and there is room: there must not be a single gap either.
    Shaky,
    /// Something goes wrong now and then.
    Faults,
    /// Three times as often.
    Storm,
    /// Faults, and everything that can be full is.
    Tight,
}

impl Shape {
    pub(super) const ALL: [Self; 5] = [Self::Calm, Self::Shaky, Self::Faults, Self::Storm, Self::Tight];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Shaky => "shaky",
            Self::Faults => "faults",
            Self::Storm => "storm",
            Self::Tight => "tight",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) shape: Shape,
    pub(super) partitions: u16,
    pub(super) edges: usize,
    pub(super) shards: usize,
    pub(super) clients: usize,
    pub(super) channel_count: usize,
    pub(super) messages: usize,
    /// Until when things go wrong, and how much longer everything has to arrive.
    pub(super) chaos: Time,
    pub(super) settle: Time,
    /// Mean pause between faults; none without.
    pub(super) fault_pause: Option<Time>,
    pub(super) delay: Time,
    /// How long a connection lives at most.
    pub(super) life: Time,
    pub(super) reply_loss: f64,
    pub(super) clock_skew: Time,
    /// A publish is acknowledged only once the replica has it.
    pub(super) ack_replica: bool,
    /// Of channels in the namespace `k` history is kept until it is pushed out.
    pub(super) retention: Retention,
    /// Of the others little is kept, though otherwise nothing is short.
    pub(super) fleeting: bool,
    /// How often a publisher has another idea of what is kept of a channel.
    pub(super) other_keep: f64,
    /// Histories that are emptied.
    pub(super) purges: usize,
    pub(super) limits: MachineLimits,
    pub(super) timing: FeedTiming,
    pub(super) shard_queue_max: usize,
    /// How long a shard may take to go on with its fan-outs.
    pub(super) work_pause: Time,
    pub(super) backlog_max: usize,
    pub(super) slow_clients: f64,
    pub(super) patches: f64,
    pub(super) nonsense: f64,
    pub(super) replay: f64,
    /// How many clients poll, how long they wait at most, and what an answer holds.
    pub(super) polls: f64,
    pub(super) poll_timeout: Time,
    pub(super) poll_events_max: usize,
    pub(super) poll_bytes_max: usize,
    /// Whether the first history was begun by someone else, as after a restore.
    pub(super) first_history: bool,
}

impl Plan {
    pub(super) fn new(shape: Shape, rng: &mut Rng) -> Self {
        let calm = shape == Shape::Calm;
        let ample = calm || shape == Shape::Shaky;
        let tight = shape == Shape::Tight || (shape != Shape::Shaky && rng.bool() && rng.bool());
        let small_history = !ample && rng.f64() < 0.6;
        let chaos = rng.u64(800..1_600) * MS;
        let fleeting = ample && rng.f64() < 0.3;
        let age = if small_history || fleeting { rng.u64(30..900) } else { 3_600_000 };
        let forget = age * rng.u64(1..4);
        let events_max = |rng: &mut Rng| if small_history { rng.usize(1..9) } else { 10_000 };
        let mut history =
            ByNamespace::everywhere(Keep { events_max: events_max(rng), age: Some(Duration::from_millis(age)) });
        history.own.insert("k".into(), Keep { events_max: events_max(rng), age: None });
        let limits = if tight {
            MachineLimits {
                tail_events_max: rng.usize(0..5),
                tail_bytes_max: rng.usize(100..1_000),
                page_events_max: rng.usize(1..4),
                replay_bytes_max: rng.usize(1..600),
                joins_reading_max: rng.usize(1..3),
                join_buffer_bytes_max: rng.usize(100..1_500),
                resync_bytes_max: rng.usize(100..4_000),
                resync_reads_max: rng.usize(1..3),
                hold_bytes_max: rng.usize(400..4_000),
                fanout_events_max: rng.usize(1..6),
                fanout_bytes_max: rng.usize(100..2_000),
            }
        } else {
            MachineLimits {
                tail_events_max: rng.usize(4..30),
                tail_bytes_max: 1 << 20,
                page_events_max: rng.usize(4..100),
                replay_bytes_max: 1 << 20,
                joins_reading_max: 100,
                join_buffer_bytes_max: 1 << 20,
                resync_bytes_max: 1 << 20,
                resync_reads_max: 16,
                hold_bytes_max: 1 << 20,
                fanout_events_max: 1_000,
                fanout_bytes_max: 1 << 20,
            }
        };
        let rate = match shape {
            Shape::Calm => None,
            Shape::Faults | Shape::Tight => Some(180 * MS),
            Shape::Shaky | Shape::Storm => Some(60 * MS),
        };
        Self {
            shape,
            partitions: rng.u16(1..4),
            edges: rng.usize(2..4),
            shards: rng.usize(1..4),
            clients: rng.usize(3..7),
            channel_count: rng.usize(4..13),
            messages: rng.usize(40..140),
            chaos,
            settle: 2_000 * MS,
            fault_pause: rate,
            delay: rng.u64(1..12) * MS,
            life: rng.u64(100..900) * MS,
            reply_loss: 0.15,
            clock_skew: if rng.bool() { 400 * MS } else { 0 },
            ack_replica: rng.f64() < 0.3,
            retention: Retention {
                history,
                forget_age: Duration::from_millis(forget),
                idempotency_window: Duration::from_secs(60),
            },
            fleeting,
            other_keep: if ample { 0.0 } else { 0.05 },
            purges: if rng.bool() { rng.usize(1..5) } else { 0 },
            limits,
            timing: FeedTiming {
                deadline: Duration::from_millis(rng.u64(90..200)),
                beacon_interval: Duration::from_millis(rng.u64(40..200)),
            },
            shard_queue_max: if calm {
                100_000
            } else if tight {
                rng.usize(10..25)
            } else {
                rng.usize(20..500)
            },
            work_pause: if rng.bool() { 2 * MS } else { rng.u64(1..400) * MS },
            // What has no id of its own must fit at once, or nobody ever gets on: `connected` and a gap a channel.
            backlog_max: rng.usize(14..if tight { 20 } else { 200 }),
            slow_clients: 0.3,
            patches: rng.f64(),
            nonsense: if ample { 0.0 } else { 0.03 },
            replay: 0.3,
            first_history: rng.bool(),
            polls: 0.4,
            poll_timeout: rng.u64(100..500) * MS,
            poll_events_max: if rng.bool() { rng.usize(1..6) } else { 500 },
            poll_bytes_max: if rng.bool() { rng.usize(1..1_000) } else { 1 << 20 },
        }
    }

    /// Whether of this channel nothing is ever lost.
    pub(super) fn loses_nothing(&self, channel: &Channel) -> bool {
        let short = self.fleeting && self.retention.history.of(channel).age.is_some();
        matches!(self.shape, Shape::Calm | Shape::Shaky) && !short
    }

    /// Whether nothing is ever lost of this channel, and nothing is short.
    pub(super) fn is_ample(&self, channel: &Channel) -> bool {
        self.loses_nothing(channel) && self.limits.hold_bytes_max > 1 << 16
    }

    /// One of three has a history that is kept until it is pushed out.
    pub(super) fn channels(&self) -> Vec<Channel> {
        let name = |n| if n % 3 == 1 { format!("k:{n}") } else { format!("c{n}") };
        (0..self.channel_count).map(|n| Channel::parse(&name(n)).expect("a valid name")).collect()
    }
}
