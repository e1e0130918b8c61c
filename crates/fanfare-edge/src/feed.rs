//! Drives the feed of one partition: opens its link to the backbone, carries out what the pure feed decides, and
//! hands each shard its stream. One per partition and edge.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanfare_backbone::{Backbone, Link, LinkEvent};
use fanfare_protocol::{Action, Delivery, Feed, FeedTiming, Partition, Wishes};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::hearing::Hearing;
use crate::metrics::EdgeMetrics;
use crate::stream::Stream;

const TIMING: FeedTiming =
    FeedTiming { deadline: Duration::from_secs(5), beacon_interval: Duration::from_millis(1_500) };

/// How often deadlines and the beacon are looked at.
const TICK: Duration = Duration::from_millis(250);

/// Pauses between attempts to open a link: doubled each time, jittered, and never longer than the ceiling.
const REOPEN_FIRST: Duration = Duration::from_millis(50);
const REOPEN_MAX: Duration = Duration::from_secs(1);

/// A link that does not open in this time is given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Arrivals that are taken from a link at a time.
const ARRIVALS_MAX: usize = 256;

/// A shard, as a feed sees it.
#[derive(Clone, Debug)]
pub(crate) struct ShardPort {
    pub(crate) wishes: Arc<Mutex<Wishes>>,
    pub(crate) stream: Arc<Stream>,
}

/// A feed and what it drives.
pub(crate) struct FeedDriver {
    pub(crate) partition: Partition,
    pub(crate) backbone: Backbone,
    pub(crate) shards: Vec<ShardPort>,
    /// Rung by shards that have wishes.
    pub(crate) bell: Arc<Notify>,
    pub(crate) metrics: Arc<EdgeMetrics>,
    pub(crate) hearing: Arc<Hearing>,
}

enum Step {
    Arrivals(Option<()>),
    Wishes,
    Tick,
}

impl FeedDriver {
    /// Runs until stopped. A link that breaks is opened again, endlessly.
    pub(crate) async fn run(self, stop: CancellationToken) {
        self.metrics.backbone_up(self.partition, false);
        let begin = Instant::now();
        let mut feed = Feed::new(self.shards.len(), TIMING, Duration::ZERO);
        let mut pause = REOPEN_FIRST;
        let mut counted = (0, 0);
        while !stop.is_cancelled() {
            match timeout(CONNECT_TIMEOUT, self.backbone.connect(self.partition)).await {
                Ok(Ok(mut link)) => {
                    let followed = self.follow(&mut link, &mut feed, &mut counted, begin);
                    let Some(was_good) = stop.run_until_cancelled(followed).await else { return };
                    // Where Redis takes connections and then refuses everything on them, there is no hurry.
                    if was_good {
                        pause = REOPEN_FIRST;
                    }
                    self.metrics.backbone_up(self.partition, false);
                    self.metrics.resyncs.inc();
                    let reason = link.broken_by().map(|error| error.to_string());
                    tracing::warn!(
                        partition = self.partition,
                        reason,
                        "the link to the backbone broke, opening it again"
                    );
                }
                Ok(Err(error)) => tracing::warn!(partition = self.partition, %error, "the backbone can't be reached"),
                Err(_) => tracing::warn!(partition = self.partition, "the backbone did not answer in time"),
            }
            stop.run_until_cancelled(sleep(pause.mul_f64(0.5 + fastrand::f64()))).await;
            pause = (pause * 2).min(REOPEN_MAX);
        }
    }

    /// Follows a link to its end. Answers whether a marker ever came through it.
    async fn follow(&self, link: &mut Link, feed: &mut Feed, counted: &mut (i64, i64), begin: Instant) -> bool {
        let mut was_good = false;
        let mut actions = Vec::new();
        let mut arrivals = Vec::new();
        let mut outgoing = Outgoing::to(&self.shards);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        feed.opened(begin.elapsed(), &mut actions);
        self.metrics.clock_ahead(self.partition, link.clock_ahead_micros());
        self.bell.notify_one();
        while carry_out(&mut actions, link, &mut outgoing) {
            outgoing.leave();
            let step = tokio::select! {
                arrived = link.arrivals(&mut arrivals, ARRIVALS_MAX) => Step::Arrivals(arrived),
                () = self.bell.notified() => Step::Wishes,
                _ = tick.tick() => Step::Tick,
            };
            let now = begin.elapsed();
            match step {
                Step::Arrivals(Some(())) => {
                    for arrival in arrivals.drain(..) {
                        if matches!(arrival, LinkEvent::Marker(_)) {
                            was_good = true;
                            self.hearing.heard(self.partition);
                        }
                        self.arrived(arrival, feed, now, &mut actions, &mut outgoing);
                        if !carry_out(&mut actions, link, &mut outgoing) {
                            return was_good;
                        }
                    }
                }
                Step::Arrivals(None) => feed.broken(&mut actions),
                Step::Wishes => {
                    for (shard, port) in self.shards.iter().enumerate() {
                        let mut wishes = port.wishes.lock().expect("no one panics while holding the wishes");
                        if !wishes.is_empty() {
                            let batch = wishes.take();
                            drop(wishes);
                            feed.wishes(now, shard, batch, &mut actions);
                        }
                    }
                }
                Step::Tick => {
                    feed.tick(now, &mut actions);
                    let (wanted, unconfirmed) = feed.subscriptions();
                    let pending = unconfirmed.min(wanted) as i64;
                    let confirmed = wanted as i64 - pending;
                    self.metrics.subscriptions(confirmed - counted.0, pending - counted.1);
                    *counted = (confirmed, pending);
                    self.metrics.backbone_up(self.partition, feed.is_up());
                    self.metrics.clock_ahead(self.partition, link.clock_ahead_micros());
                }
            }
        }
        was_good
    }

    fn arrived(
        &self,
        arrival: LinkEvent,
        feed: &mut Feed,
        now: Duration,
        actions: &mut Vec<Action>,
        outgoing: &mut Outgoing<'_>,
    ) {
        match arrival {
            LinkEvent::Event(epoch, event) => {
                self.metrics.events_received.inc();
                for shard in shards(feed.followers(&event.channel)) {
                    outgoing.push(shard, Delivery::Event(epoch, event.clone()));
                }
            }
            LinkEvent::Purged(epoch, purge) => {
                for shard in shards(feed.followers(&purge.channel)) {
                    outgoing.push(shard, Delivery::Purged(epoch, purge.clone()));
                }
            }
            LinkEvent::Confirmed(channel, what) => feed.confirmed(now, &channel, what, actions),
            LinkEvent::MarkerConfirmed => feed.marker_confirmed(now, actions),
            LinkEvent::Marker(marker) => feed.marker(now, marker, actions),
            LinkEvent::BarrierAnswered(nonce) => feed.barrier_answered(now, nonce),
            LinkEvent::Answered(shard, tag, answer) => feed.read_answered(now, shard, tag, answer, actions),
        }
    }
}

/// Whether the link is still good afterwards.
fn carry_out(actions: &mut Vec<Action>, link: &Link, outgoing: &mut Outgoing<'_>) -> bool {
    for action in actions.drain(..) {
        match action {
            Action::Subscribe(channels) => link.subscribe(channels),
            Action::SubscribeMarker => link.subscribe_marker(),
            Action::Unsubscribe(channels) => link.unsubscribe(channels),
            Action::Barrier(nonce, channels) => link.barrier(nonce, channels),
            Action::Read(shard, read) => link.read(shard, read.tag, read.query),
            Action::Deliver(shard, delivery) => outgoing.push(shard, delivery),
            Action::Reopen => return false,
        }
    }
    true
}

/// What one batch of arrivals brings for each shard. It leaves together: one lock and one bell for all of it.
struct Outgoing<'a> {
    shards: &'a [ShardPort],
    waiting: Vec<Vec<Delivery>>,
}

impl<'a> Outgoing<'a> {
    fn to(shards: &'a [ShardPort]) -> Self {
        Self { shards, waiting: shards.iter().map(|_| Vec::new()).collect() }
    }

    fn push(&mut self, shard: usize, delivery: Delivery) {
        self.waiting[shard].push(delivery);
    }

    fn leave(&mut self) {
        for (port, waiting) in self.shards.iter().zip(&mut self.waiting) {
            port.stream.append(waiting);
        }
    }
}

/// Also when the link ends: what came before its end is good, and the breaks are among it.
impl Drop for Outgoing<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The shards of a set, a bit each.
fn shards(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let shard = (set != 0).then_some(set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(shard)
    })
}
