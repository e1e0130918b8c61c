//! One worker of an edge: it owns its connections and writes every event to those that follow its channel.
//!
//! A shard never waits for a reader. What a socket doesn't take goes into the connection's backlog (see `backlog`),
//! because one slow reader must not delay the rest. Which frames go to whom is decided by the pure machine of
//! `fanfare-protocol`; reading the backbone is the job of `feed`.

mod adoption; // A connection becomes the shard's.
mod backlog; // Bytes that wait.
mod call; // A stream that answers one request.
mod connection; // An open stream.
mod drain; // All are to go.
mod frames; // What events become on the wire.
mod lifetime; // How long it may live.
mod own; // What Fanfare itself says.
mod patch; // It changes.
mod polled; // An answer to a poll.
mod ready; // Bodies that are to be looked at.
mod sockets; // What the machine writes to.
mod wheel; // When each is looked at.
mod wire; // What bytes leave through.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use fanfare_backbone::NodeId;
use fanfare_protocol::{ConnectionKey, Delivery, Machine, Partition, UserId, Wishes, has_slack};
use mio::{Events, Poll};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::blocks::Blocks;
use crate::calls::Ending;
use crate::close::CloseReason;
use crate::config::EdgeConfig;
use crate::metrics::EdgeMetrics;
use crate::patch::{Order, Outcome};
use crate::registry::Registry;
use crate::retry_pause;
use crate::stats::ShardLoad;
use crate::stream::Stream;
pub(crate) use adoption::{Adoption, Holding, Opening};
pub(crate) use call::CallStream;
use connection::{Connection, Phase};
pub(crate) use connection::{Heartbeat, Hello, Lease, OwnBeat, Style};
use drain::Drain;
use lifetime::POLL_HASTE;
pub(crate) use polled::{Polled, answer_head};
use ready::Ready;
use sockets::{CLOSING_TIMEOUT, Sockets};
pub(crate) use wheel::Visit;
use wheel::Wheel;
pub(crate) use wire::Wire;

/// Deliveries of one partition that start, and connections that are visited, before sockets and commands get a turn.
const DELIVERIES_MAX: usize = 64;
const VISITS_MAX: usize = 128;

/// Commands that are carried out before others get a turn: in a storm, connections come in heaps.
const APPLIED_MAX: usize = 64;

/// Pause between two looks at channels that nobody follows any more; they are left at the second.
const LINGER: Duration = Duration::from_secs(15);

/// Where the line of each connection is logged, so that it can be left out. It names nobody: users, channels, clients
/// and what they hear are not in it.
const ACCESS_LOG: &str = "fanfare::access";

/// What a shard is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// A connection is the shard's now.
    Adopt(Box<Adoption>),
    /// A connection is refused and held open.
    Hold(Box<Holding>),
    /// A connection is to go.
    Close(Visit, CloseReason),
    /// A connection is to change; answered with what came of it.
    Patch(Box<Order>, oneshot::Sender<Outcome>),
    /// A user was disconnected; without one, others may have been: see `Blocks`.
    Disconnect(Option<UserId>),
    /// The call of a connection, if that is still there, has ended.
    Finish(Visit, Ending),
    /// All connections are to go, spread over this time; answered when they have.
    Drain(Duration, oneshot::Sender<()>),
}

/// Where a connection is: which shard's, and which of its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Whereabouts {
    pub(crate) shard: usize,
    pub(crate) visit: Visit,
}

/// A partition's feed, as a shard sees it.
pub(crate) struct FeedPort {
    pub(crate) stream: Arc<Stream>,
    pub(crate) wishes: Arc<Mutex<Wishes>>,
    pub(crate) bell: Arc<Notify>,
}

/// What a shard is made of.
pub(crate) struct ShardParts {
    pub(crate) node: NodeId,
    pub(crate) index: usize,
    pub(crate) config: Arc<EdgeConfig>,
    pub(crate) machine: Machine,
    pub(crate) feeds: Vec<FeedPort>,
    /// Rung when something waits in a stream, or a body is ready.
    pub(crate) bell: Arc<Notify>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) blocks: Arc<Blocks>,
    pub(crate) metrics: Arc<EdgeMetrics>,
    pub(crate) load: Arc<ShardLoad>,
}

pub(crate) struct Shard {
    index: usize,
    config: Arc<EdgeConfig>,
    machine: Machine,
    feeds: Vec<FeedPort>,
    bell: Arc<Notify>,
    commands: mpsc::Receiver<Command>,
    registry: Arc<Registry>,
    blocks: Arc<Blocks>,
    metrics: Arc<EdgeMetrics>,
    load: Arc<ShardLoad>,
    poll: AsyncFd<Poll>,
    ready: Arc<Ready>,
    sockets: Sockets,
    tick: Duration,
    generations: u32,
    lingered: Instant,
    /// Deliveries that were taken from their streams and wait for their turn.
    waiting: Vec<VecDeque<Delivery>>,
    /// Not everyone has been given what has started.
    unfinished: bool,
    drain: Option<Drain>,
}

enum Step {
    Deliver,
    Apply(Command),
    Sockets,
    Tick,
}

impl Shard {
    /// # Errors
    /// No more descriptors, or no tokio runtime with I/O.
    pub(crate) fn new(parts: ShardParts) -> io::Result<Self> {
        let ShardParts { node, index, config, machine, feeds, bell, commands, registry, blocks, metrics, load } = parts;
        let poll = Poll::new()?;
        let tick = (config.heartbeat_interval / 32).clamp(Duration::from_millis(5), Duration::from_millis(500));
        let reach = ticks(config.heartbeat_interval.max(config.join_timeout), tick) + 1;
        let place = (node, u8::try_from(index).expect("an edge has few shards"));
        let (watched, wheel) = (poll.registry().try_clone()?, Wheel::new(reach));
        let sockets = Sockets::new(place, watched, wheel, metrics.clone(), config.backlog_bytes_max, config.coalesce);
        Ok(Self {
            poll: watch(poll)?,
            ready: Ready::new(bell.clone()),
            waiting: feeds.iter().map(|_| VecDeque::new()).collect(),
            index,
            config,
            machine,
            feeds,
            bell,
            commands,
            registry,
            blocks,
            metrics,
            load,
            sockets,
            tick,
            generations: 0,
            lingered: Instant::now(),
            unfinished: false,
            drain: None,
        })
    }

    /// Runs until stopped. Whoever is still connected then is cut off.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut tick = interval(self.tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut events = Events::with_capacity(1024);
        loop {
            let behind = self.unfinished || self.waiting.iter().any(|waiting| !waiting.is_empty());
            let step = tokio::select! {
                () = stop.cancelled() => return,
                () = self.bell.notified() => Step::Deliver,
                () = tokio::task::yield_now(), if behind => Step::Deliver,
                Some(command) = self.commands.recv() => Step::Apply(command),
                Ok(mut ready) = self.poll.readable_mut() => {
                    ready.clear_ready(); // Before looking: what comes during the look is found by the next one.
                    Step::Sockets
                }
                _ = tick.tick() => Step::Tick,
            };
            match step {
                Step::Deliver => {
                    self.look_at_bodies();
                    self.deliver();
                }
                Step::Apply(command) => {
                    self.apply(command);
                    for _ in 1..APPLIED_MAX {
                        let Ok(command) = self.commands.try_recv() else { break };
                        self.apply(command);
                    }
                }
                Step::Sockets => self.look_at_sockets(&mut events),
                Step::Tick => self.tick(),
            }
            self.settle();
        }
    }

    fn apply(&mut self, command: Command) {
        match command {
            Command::Adopt(adoption) => self.adopt(*adoption),
            Command::Hold(holding) => self.hold(*holding),
            Command::Close(visit, reason) => self.close(visit, reason),
            Command::Patch(order, answer) => _ = answer.send(self.patch(*order)),
            Command::Disconnect(only) => self.disconnect(only.as_ref()),
            Command::Finish(visit, ending) => self.finish(visit, ending),
            Command::Drain(window, done) => self.begin_drain(window, done),
        }
    }

    /// Starts some of what the feeds have sent, and goes on with what has started.
    fn deliver(&mut self) {
        for (partition, feed) in self.feeds.iter().enumerate() {
            let partition = partition as Partition;
            let waiting = &mut self.waiting[usize::from(partition)];
            if waiting.is_empty() {
                *waiting = feed.stream.take();
            }
            for _ in 0..DELIVERIES_MAX {
                if !self.machine.has_room(partition) {
                    break;
                }
                let Some(delivery) = waiting.pop_front() else { break };
                self.machine.deliver(partition, delivery, &mut self.sockets);
            }
        }
        self.unfinished = self.machine.work(VISITS_MAX, &mut self.sockets);
        if self.unfinished {
            // Whoever waits for this core goes first, be it another thread or another process: what brings the next
            // event to a single user waits for a slice then, and not for as long as the kernel lets a thread run.
            std::thread::yield_now();
        }
        let deliveries = std::mem::take(&mut self.sockets.deliveries);
        self.metrics.deliveries.inc_by(deliveries);
        self.load.deliveries.fetch_add(deliveries, Ordering::Relaxed);
    }

    /// Sockets that have hung up, spoken, or take bytes again.
    fn look_at_sockets(&mut self, events: &mut Events) {
        loop {
            if self.poll.get_mut().poll(events, Some(Duration::ZERO)).is_err() {
                return; // Interrupted: the set is still ready and asked again.
            }
            for event in events.iter() {
                let key = event.token().0 as ConnectionKey;
                if event.is_writable() {
                    self.sockets.flush(key);
                }
                let Some(connection) = self.sockets.connections.get_mut(key as usize) else { continue };
                let left = event.is_error() || event.is_read_closed();
                if left || (event.is_readable() && !connection.wire.drain_input()) {
                    self.sockets.ended.push((key, CloseReason::ClientLeft));
                }
            }
            if events.iter().count() < events.capacity() {
                return;
            }
        }
    }

    /// Bodies that take bytes again, or whose client has left.
    fn look_at_bodies(&mut self) {
        for visit in self.ready.take() {
            let Some(connection) = self.sockets.connections.get_mut(visit.key as usize) else { continue };
            if connection.generation != visit.generation {
                continue;
            }
            if connection.wire.drain_input() {
                self.sockets.flush(visit.key);
            } else {
                self.sockets.ended.push((visit.key, CloseReason::ClientLeft));
            }
        }
    }

    fn tick(&mut self) {
        for visit in self.sockets.wheel.tick() {
            self.visit(visit);
        }
        self.load.connections.store(self.sockets.connections.len(), Ordering::Relaxed);
        if self.lingered.elapsed() >= LINGER {
            self.lingered = Instant::now();
            self.machine.tick();
            if has_slack(self.sockets.connections.capacity(), self.sockets.connections.len()) {
                self.sockets.connections.shrink_to_fit();
            }
        }
        self.drain_on();
    }

    /// A connection's heartbeat or its end may be due.
    fn visit(&mut self, visit: Visit) {
        let Some(connection) = self.sockets.connections.get_mut(visit.key as usize) else { return };
        if connection.generation != visit.generation {
            return;
        }
        let (now, patience) = (self.sockets.wheel.now(), ticks(CLOSING_TIMEOUT, self.tick));
        match connection.phase {
            Phase::CutOff => return,
            Phase::Closing(deadline) | Phase::Held(deadline) if Instant::now() < deadline => {
                return self.visit_in(ticks(deadline - Instant::now(), self.tick), visit);
            }
            Phase::Closing(_) if connection.polled.is_some() && now.wrapping_sub(connection.sent_at) < patience => {
                return self.visit_in(patience, visit); // A long answer, and a reader far away.
            }
            Phase::Closing(_) => {
                connection.wire.cut();
                return self.remove(visit.key);
            }
            Phase::Held(_) => return self.let_go(visit.key),
            Phase::Open => {}
        }
        if connection.visit_at != now {
            return; // It was to be looked at earlier than that, and was.
        }
        self.sockets.release(visit.key); // It has not joined at once.
        let Some(connection) = self.sockets.connections.get_mut(visit.key as usize) else { return };
        let without_events = self.tick * now.wrapping_sub(connection.event_at);
        let left = match connection.time_left(&self.config, without_events) {
            Ok(left) => ticks(left, self.tick),
            Err(reason) => return self.sockets.ended.push((visit.key, reason)),
        };
        let interval = ticks(self.config.heartbeat_interval, self.tick);
        if connection.polled.is_some() {
            return self.visit_in(left.min(interval), visit); // Not at once for all of it: a busy wheel turns slowly.
        }
        if connection.hello.is_none()
            && let Some(left) = connection.lease.take_warning(SystemTime::now())
        {
            self.sockets.expiring(visit.key, left);
        }
        let next = self.heartbeat(visit.key, interval);
        self.visit_in(next.min(left), visit);
    }

    /// Looks at a connection in so many ticks, and not when it was going to.
    fn visit_in(&mut self, ticks: u32, visit: Visit) {
        let at = self.sockets.wheel.visit_in(ticks, visit);
        if let Some(connection) = self.sockets.connections.get_mut(visit.key as usize) {
            connection.visit_at = at;
        }
    }

    /// Sends a heartbeat where one is due. Answers in how many ticks the next one may be.
    fn heartbeat(&mut self, key: ConnectionKey, interval: u32) -> u32 {
        let connection = &self.sockets.connections[key as usize];
        let joining = connection.hello.is_some();
        let id = if joining { None } else { self.machine.id(key) };
        match connection.style.heartbeat() {
            Heartbeat::Event if !joining => {
                self.sockets.beat(key, id);
                return interval;
            }
            Heartbeat::Own(beat) if !joining => {
                let beat = beat.clone();
                self.sockets.frame(key, &beat.event, &beat.data, id);
                return interval;
            }
            Heartbeat::Comment | Heartbeat::Event | Heartbeat::Own(_) => {}
        }
        let quiet = self.sockets.wheel.now().wrapping_sub(connection.sent_at);
        if quiet < interval {
            return interval - quiet;
        }
        if connection.backlog.is_empty() {
            self.sockets.comment(key, id);
        }
        interval
    }

    /// What a step left to do: connections that end, replays that go on, wishes for the feeds.
    fn settle(&mut self) {
        while let Some(key) = self.sockets.joined.pop() {
            self.sockets.release(key);
        }
        for key in std::mem::take(&mut self.sockets.polled) {
            self.look_at_poll(key);
        }
        while let Some((key, reason)) = self.sockets.ended.pop() {
            self.end(key, reason);
        }
        while let Some(key) = self.sockets.drained.pop() {
            let Some(connection) = self.sockets.connections.get_mut(key as usize) else { continue };
            match connection.phase {
                Phase::Open => self.machine.resume(key),
                Phase::Closing(_) if connection.wire.finish() => self.remove(key),
                Phase::Closing(_) | Phase::CutOff | Phase::Held(_) => {}
            }
        }
        for feed in &self.feeds {
            if !feed.wishes.lock().expect("no one panics while holding the wishes").is_empty() {
                feed.bell.notify_one();
            }
        }
    }

    /// Something happened to a poll: it may have its answer now.
    fn look_at_poll(&mut self, key: ConnectionKey) {
        let Some(connection) = self.sockets.connections.get_mut(key as usize) else { return };
        let Some(polled) = &mut connection.polled else { return };
        polled.is_listed = false;
        if polled.poll.is_due(self.machine.id(key).is_some()) {
            self.sockets.ended.push((key, CloseReason::Answered));
        } else if !polled.poll.is_empty() {
            // The rest of its replay is on its way, but shouldn't be waited for too long.
            let visit = Visit { key, generation: connection.generation };
            let waited = self.sockets.wheel.now().wrapping_sub(connection.event_at);
            self.visit_in(ticks(POLL_HASTE, self.tick).saturating_sub(waited), visit);
        }
    }

    /// A connection is to go, if it is still there.
    fn close(&mut self, visit: Visit, reason: CloseReason) {
        let connection = self.sockets.connections.get(visit.key as usize);
        match connection.filter(|c| c.generation == visit.generation).map(|c| c.phase) {
            Some(Phase::Open) => self.sockets.ended.push((visit.key, reason)),
            Some(Phase::Held(_)) => self.let_go(visit.key),
            Some(Phase::CutOff | Phase::Closing(_)) | None => {}
        }
    }

    /// A refused client may come back.
    fn let_go(&mut self, key: ConnectionKey) {
        let last = self.sockets.connections[key as usize].style.framing.last_chunk();
        if !last.is_empty() {
            self.sockets.send(key, &last);
        }
        self.remove(key); // What is still to be written isn't worth waiting for.
    }

    /// The call of a connection has ended, unless something else has ended the connection first.
    fn finish(&mut self, visit: Visit, ending: Ending) {
        let connection = self.sockets.connections.get_mut(visit.key as usize);
        if let Some(connection) = connection.filter(|c| c.generation == visit.generation && c.phase == Phase::Open) {
            let reason = ending.reason();
            if let Some(call) = &mut connection.call {
                call.answer(ending);
            }
            self.sockets.ended.push((visit.key, reason));
        }
    }

    /// A connection ends, for whatever reason. Only the first one counts.
    fn end(&mut self, key: ConnectionKey, reason: CloseReason) {
        let Some(connection) = self.sockets.connections.get_mut(key as usize) else { return };
        let visit = Visit { key, generation: connection.generation };
        if matches!(connection.phase, Phase::Closing(_) | Phase::Held(_)) {
            return self.remove(key); // It left while its last bytes went out, or had been refused anyway.
        }
        connection.phase = Phase::CutOff;
        self.sockets.release(key);
        let connection = &mut self.sockets.connections[key as usize];
        let answer = connection.polled.as_mut().map(|p| p.response(reason, self.machine.id(key), retry_pause(reason)));
        self.registry.unfollow(connection.admission.user(), &self.machine.channels(key));
        self.machine.leave(key);
        connection.admission.unsettle(Whereabouts { shard: self.index, visit });
        self.metrics.closed(reason);
        tracing::info!(
            target: ACCESS_LOG,
            request_id = %connection.style.request_id,
            reason = reason.as_str(),
            seconds = connection.age().as_secs_f64(),
            events = connection.events,
            bytes = connection.bytes,
            "a connection ended"
        );
        let last = answer.map(|answer| (answer, CLOSING_TIMEOUT)).unwrap_or_else(|| self.sockets.goodbye(key, reason));
        if reason == CloseReason::ClientLeft || self.sockets.send_last(key, reason, last) {
            self.remove(key);
        } else {
            self.visit_in(1, visit);
        }
    }

    /// Forgets a connection. With it its socket is closed, and so watched no more.
    fn remove(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.sockets.connections.try_remove(key as usize) {
            self.metrics.backlog_bytes.sub(connection.backlog.bytes() as i64);
        }
    }
}

/// Lets tokio say when the shard's own epoll set has something: one wake-up, however many sockets it concerns.
#[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor that no type can give yet")]
fn watch(poll: Poll) -> io::Result<AsyncFd<Poll>> {
    // SAFETY: a `Poll` owns its epoll descriptor, opened once and closed when it is dropped, and always gives this one.
    let watched = unsafe { AsyncFd::register_with_interest(poll, tokio::io::Interest::READABLE) };
    watched.map_err(|error| error.into_parts().1)
}

fn ticks(duration: Duration, tick: Duration) -> u32 {
    (duration.as_secs_f64() / tick.as_secs_f64()).ceil() as u32
}
