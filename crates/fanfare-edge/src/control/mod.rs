//! What edges say to each other: a PATCH for a connection of another edge and its answer, and that a user was
//! disconnected.
//!
//! It travels as events on channels of its own, which each edge follows as any client follows its channels: with a
//! machine, whose one connection is this listener. So what a broken link or a full queue has held up is replayed, in
//! order, and what is gone for good is told as a gap. Who may do what is decided where a request comes in (see
//! `patch`); messages carry what follows from it, and never a credential.

mod message; // What is said.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fanfare_backbone::{Backbone, BackboneError, Block, NodeId, PublishError, all_edges, one_edge};
use fanfare_protocol::{
    ByNamespace, Channel, Content, Draft, Epoch, Gap, Id, Machine, Outlet, Partition, Replayed, SharedEvent, Start,
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::blocks::Blocks;
use crate::metrics::EdgeMetrics;
use crate::patch::{Order, Outcome};
use crate::shard::{Command, FeedPort};
use crate::since_1970;
use message::Message;

/// An answer that isn't there by then will hardly come.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Requests that may wait for other edges' answers. Past it a PATCH is told to come back.
const WAITING_MAX: usize = 256;

/// Requests of other edges that may be under way here. Past it one is dropped; its asker is told that no answer came.
const ANSWERING_MAX: usize = 256;

/// Seconds after which a request isn't carried out any more, however long the links were broken: whoever asked has
/// long been told that there was no answer, and may have asked for something else since.
const REQUEST_TTL: NonZeroU32 = NonZeroU32::new(60).expect("not zero");

/// What was said before this edge listened: others can hear of a connection before its control channel has joined.
const REPLAY: u16 = 100;

/// Between attempts to read the table of disconnected users, jittered.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// How often what is over is forgotten.
const SWEEP: Duration = Duration::from_secs(15);

/// The listener's number in its machine, where it is alone.
const SELF: u32 = 0;

/// Asks other edges, and hands their answers to whoever waits.
#[derive(Debug)]
pub(crate) struct Control {
    node: NodeId,
    backbone: Backbone,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Outcome>>>,
}

/// Why another edge could not be asked.
#[derive(Debug)]
pub(crate) enum AskError {
    /// Too many wait already.
    Full,
    /// The backbone did not take the request, or may have.
    Backbone(BackboneError),
    /// No answer came in time.
    NoAnswer,
}

/// A request that waits, until it is dropped.
struct Waiting<'a> {
    control: &'a Control,
    request: u64,
    answer: oneshot::Receiver<Outcome>,
}

impl Control {
    pub(crate) fn new(node: NodeId, backbone: Backbone) -> Self {
        Self { node, backbone, waiting: Mutex::default() }
    }

    /// Has another edge change one of its connections. To ask again is harmless.
    pub(crate) async fn ask(&self, order: Order) -> Result<Outcome, AskError> {
        let to = order.client.node;
        let mut waiting = self.wait()?;
        let text = message::patch(waiting.request, self.node, &order);
        self.say(one_edge(to), text).await.map_err(AskError::Backbone)?;
        match timeout(ANSWER_TIMEOUT, &mut waiting.answer).await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(_)) | Err(_) => Err(AskError::NoAnswer),
        }
    }

    fn wait(&self) -> Result<Waiting<'_>, AskError> {
        let (sender, answer) = oneshot::channel();
        let request = fastrand::u64(..);
        let mut waiting = self.lock();
        if waiting.len() >= WAITING_MAX {
            return Err(AskError::Full);
        }
        waiting.insert(request, sender);
        Ok(Waiting { control: self, request, answer })
    }

    fn answered(&self, request: u64, outcome: Outcome) {
        if let Some(waiting) = self.lock().remove(&request) {
            _ = waiting.send(outcome); // Whoever asked may have left.
        }
    }

    async fn say(&self, channel: Channel, text: String) -> Result<(), BackboneError> {
        let content = Content { name: None, key: None, ttl: Some(REQUEST_TTL), data: text.into() };
        match self.backbone.publish(vec![Draft { channel, content, idempotency: None }]).await.pop() {
            Some(Err(PublishError::Unavailable(error))) => Err(error),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Outcome>>> {
        self.waiting.lock().expect("no one panics while holding the requests")
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.control.lock().remove(&self.request);
    }
}

/// Hears what other nodes say to this edge, and sees to it.
pub(crate) struct Listener {
    pub(crate) control: Arc<Control>,
    pub(crate) machine: Machine,
    pub(crate) feeds: Vec<FeedPort>,
    /// Rung when something waits in a stream.
    pub(crate) bell: Arc<Notify>,
    pub(crate) shards: Vec<mpsc::Sender<Command>>,
    pub(crate) blocks: Arc<Blocks>,
    pub(crate) metrics: Arc<EdgeMetrics>,
}

/// What the machine has for the listener.
#[derive(Debug, Default)]
struct Inbox {
    heard: Vec<SharedEvent>,
    /// Disconnects may have been missed: the table tells.
    missed: bool,
}

/// What a task of the listener has done.
enum Done {
    Answered,
    Read(Result<Vec<Block>, BackboneError>),
}

impl Listener {
    /// Runs until stopped.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        let mut reading = false;
        let mut inbox = Inbox::default();
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let start = Start::Fresh { replay: Arc::new(ByNamespace::everywhere(REPLAY)) };
        self.machine.join(SELF, &[all_edges(), one_edge(self.control.node)], start, None);
        loop {
            self.ring();
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.bell.notified() => self.deliver(&mut inbox),
                Some(done) = tasks.join_next() => match done {
                    Ok(Done::Answered) => {}
                    Ok(Done::Read(Ok(blocks))) => {
                        reading = false;
                        self.catch_up(blocks).await;
                    }
                    Ok(Done::Read(Err(error))) => {
                        (reading, inbox.missed) = (false, true);
                        tracing::warn!(%error, "which users were disconnected can't be read just now, trying again");
                    }
                    Err(_) => (reading, inbox.missed) = (false, true),
                },
                _ = sweep.tick() => self.blocks.sweep(),
            }
            for event in std::mem::take(&mut inbox.heard) {
                self.hear(&event, &mut tasks).await;
            }
            if inbox.missed && !reading {
                (inbox.missed, reading) = (false, true);
                let backbone = self.control.backbone.clone();
                tasks.spawn(async move {
                    let read = backbone.blocks().await;
                    if read.is_err() {
                        sleep(READ_AGAIN.mul_f64(0.5 + fastrand::f64())).await;
                    }
                    Done::Read(read)
                });
            }
        }
    }

    fn deliver(&mut self, inbox: &mut Inbox) {
        for (partition, feed) in self.feeds.iter().enumerate() {
            for delivery in feed.stream.take() {
                self.machine.deliver(partition as Partition, delivery, inbox);
            }
        }
        while self.machine.work(usize::MAX, inbox) {}
    }

    /// Tells feeds of the machine's wishes.
    fn ring(&self) {
        for feed in &self.feeds {
            if !feed.wishes.lock().expect("no one panics while holding the wishes").is_empty() {
                feed.bell.notify_one();
            }
        }
    }

    async fn hear(&self, event: &SharedEvent, tasks: &mut JoinSet<Done>) {
        match Message::decode(&event.content.data) {
            Some(Message::Disconnect(block)) => {
                let user = block.user.clone();
                self.blocks.learn(block);
                self.tell_shards(|| Command::Disconnect(Some(user.clone()))).await;
            }
            Some(Message::Answer(request, outcome)) => self.control.answered(request, outcome),
            Some(Message::Patch(..)) if event.is_expired(since_1970()) => {}
            Some(Message::Patch(request, from, order)) => self.carry_out(request, from, order, tasks).await,
            None => {
                if self.metrics.control_ignored.get() == 0 {
                    tracing::warn!("messages of other nodes are ignored: they are none that this version knows");
                }
                self.metrics.control_ignored.inc();
            }
        }
    }

    async fn carry_out(&self, request: u64, from: NodeId, order: Order, tasks: &mut JoinSet<Done>) {
        if tasks.len() > ANSWERING_MAX {
            self.metrics.control_ignored.inc();
            return tracing::warn!("a PATCH by way of another edge is dropped: too many are under way");
        }
        let answer = match self.shards.get(usize::from(order.client.shard)) {
            None => None,
            Some(shard) => {
                let (sender, answer) = oneshot::channel();
                _ = shard.send(Command::Patch(Box::new(order), sender)).await; // Of a shard that is gone nothing is left.
                Some(answer)
            }
        };
        let control = self.control.clone();
        tasks.spawn(async move {
            let outcome = match answer {
                Some(answer) => answer.await.unwrap_or(Outcome::NotFound),
                None => Outcome::NotFound,
            };
            if let Err(error) = control.say(one_edge(from), message::answer(request, outcome)).await {
                tracing::warn!(%error, "a PATCH by way of another edge is done, and its answer lost");
            }
            Done::Answered
        });
    }

    /// Takes over what the table says.
    async fn catch_up(&self, blocks: Vec<Block>) {
        blocks.into_iter().for_each(|block| self.blocks.learn(block));
        self.tell_shards(|| Command::Disconnect(None)).await;
    }

    async fn tell_shards(&self, command: impl Fn() -> Command) {
        for shard in &self.shards {
            _ = shard.send(command()).await; // A shard that is gone has no connections either.
        }
    }
}

/// The listener's own stream: it takes everything at once.
impl Outlet for Inbox {
    fn connected(&mut self, _: u32, _: bool, _: Id<'_>) {
        self.missed = true; // All that was before this edge.
    }

    fn events(&mut self, _: u32, _: Epoch, events: &[&SharedEvent], _: Replayed, _: Id<'_>) {
        self.heard.extend(events.iter().copied().cloned());
    }

    fn gap(&mut self, _: u32, _: &Gap, _: Id<'_>) {
        self.missed = true;
    }

    fn subscribed(&mut self, _: u32, _: &[Channel], _: Id<'_>) {}

    fn is_idle(&self, _: u32) -> bool {
        true
    }
}
