//! The connections of a shard, as the machine sees them: frames go to sockets, and what a socket doesn't take waits.
//!
//! Here a connection gets closed for being slow: see [`Sockets::sent`].

use std::hint::black_box;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fanfare_backbone::NodeId;
use fanfare_protocol::sse::{self, IdText, Naming};
use fanfare_protocol::{
    Channel, ConnectionKey, DEFAULT_TYPE, Epoch, EventType, Gap, GapReason, Id, Outlet, Partition, Point, Position,
    Replayed, SharedEvent,
};
use mio::Registry;
use serde::Serialize;
use slab::Slab;
use smallvec::SmallVec;

use super::connection::{Connection, Phase, Written};
use super::frames::{Frames, write_id};
use super::own::{self, Beat, Closing, Connected, Expiring, GapTold, Subscribed};
use super::polled::Polled;
use super::wheel::{Visit, Wheel};
use crate::client_id::ClientId;
use crate::close::CloseReason;
use crate::metrics::EdgeMetrics;
use crate::{retry_pause, since_1970};

/// How long the last bytes of a closing connection may take.
pub(super) const CLOSING_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a call's end may take: a result may be large, and nobody can come back for it.
const ENDING_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of events that leave in one piece, besides the first.
const BATCH_BYTES_MAX: usize = 32 * 1024;

/// Clients that were told a gap come to refetch their state spread over this time.
const REFETCH_SPREAD: Duration = Duration::from_secs(5);

/// The sockets, and what came of writing to them.
pub(super) struct Sockets {
    /// The edge and the shard: with a connection's number and secret, its client id.
    place: (NodeId, u8),
    pub(super) connections: Slab<Connection>,
    pub(super) registry: Registry,
    pub(super) wheel: Wheel,
    pub(super) metrics: Arc<EdgeMetrics>,
    pub(super) backlog_bytes_max: usize,
    /// Connections that are to be closed, and why.
    pub(super) ended: Vec<(ConnectionKey, CloseReason)>,
    /// Connections whose backlog has just drained.
    pub(super) drained: Vec<ConnectionKey>,
    /// Connections that have just been told that they are connected, and whose first bytes are held back until all is
    /// said.
    pub(super) joined: Vec<ConnectionKey>,
    /// Polls that something has happened to, once each.
    pub(super) polled: Vec<ConnectionKey>,
    /// Deliveries that the metrics don't count yet.
    pub(super) deliveries: u64,
    /// Whether events that wait leave together.
    coalesce: bool,
    frames: Frames,
    cursor: Vec<u8>,
}

impl Sockets {
    pub(super) fn new(
        place: (NodeId, u8),
        registry: Registry,
        wheel: Wheel,
        metrics: Arc<EdgeMetrics>,
        backlog_bytes_max: usize,
        coalesce: bool,
    ) -> Self {
        Self {
            place,
            connections: Slab::new(),
            registry,
            wheel,
            metrics,
            backlog_bytes_max,
            ended: Vec::new(),
            drained: Vec::new(),
            joined: Vec::new(),
            polled: Vec::new(),
            deliveries: 0,
            coalesce,
            frames: Frames::default(),
            cursor: Vec::new(),
        }
    }

    /// Sends a frame of Fanfare's own.
    fn own_frame(&mut self, to: ConnectionKey, own_type: &str, data: &impl Serialize, id: Option<Id<'_>>) {
        let Some(connection) = self.connections.get(to as usize) else { return };
        let data = own::text(connection.style.naming, own_type, data);
        self.frame(to, own_type, &data, id);
    }

    /// Sends a frame that nobody published.
    pub(super) fn frame(&mut self, to: ConnectionKey, event_type: &str, data: &str, id: Option<Id<'_>>) {
        self.write_cursor(id);
        let Some(connection) = self.connections.get_mut(to as usize) else { return };
        let event_type = named(connection.style.naming, event_type);
        let id = IdText::new(&self.cursor).ok();
        let frame = sse::control(event_type, data, id, None, connection.style.framing);
        self.send(to, &frame);
    }

    /// Keeps a quiet connection alive, and its cursor up to date.
    pub(super) fn comment(&mut self, to: ConnectionKey, id: Option<Id<'_>>) {
        let Some(connection) = self.connections.get_mut(to as usize) else { return };
        let point = id.and_then(|id| id.shared());
        let pos = point.map_or(Position::default(), |point| point.pos);
        let moved = point.is_none() || pos != connection.last_pos;
        connection.last_pos = pos;
        let framing = connection.style.framing;
        self.write_cursor(id.filter(|_| moved));
        let frame = sse::heartbeat(IdText::new(&self.cursor).ok(), framing);
        self.send(to, &frame);
    }

    /// Says that the token ends soon.
    pub(super) fn expiring(&mut self, to: ConnectionKey, left: Duration) {
        self.own_frame(to, "expiring", &Expiring { expires_in_ms: left.as_millis() as u64 }, None);
    }

    /// Sends a heartbeat as an event.
    pub(super) fn beat(&mut self, to: ConnectionKey, id: Option<Id<'_>>) {
        self.own_frame(to, "heartbeat", &Beat { timestamp: since_1970().as_millis() as u64 }, id);
    }

    /// Sends bytes as they are.
    pub(super) fn send(&mut self, to: ConnectionKey, frame: &Bytes) {
        let Some(connection) = self.connections.get_mut(to as usize) else { return };
        let before = connection.backlog.bytes();
        let written = connection.send(&[], frame, 0);
        self.sent(to, written, before, self.backlog_bytes_max);
    }

    /// What was held back of a stream's beginning goes out.
    pub(super) fn release(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key as usize).filter(|c| c.wire.holds()) else { return };
        if !connection.backlog.is_empty() {
            self.flush(key);
        } else if let Some(first) = connection.wire.release() {
            self.send(key, &first);
        }
    }

    /// The wire takes bytes again.
    pub(super) fn flush(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        let before = connection.backlog.bytes();
        if let Some(first) = connection.wire.release() {
            connection.backlog.push_front(first);
        }
        let written = connection.flush();
        self.sent(key, written, before, self.backlog_bytes_max);
        if written == Written::Sent && before > 0 {
            self.drained.push(key);
        }
    }

    /// The last bytes of a stream, why it ends or how its call did; and how long they may take.
    pub(super) fn goodbye(&mut self, key: ConnectionKey, reason: CloseReason) -> (Bytes, Duration) {
        let connection = &mut self.connections[key as usize];
        let (naming, framing) = (connection.style.naming, connection.style.framing);
        let (goodbye, patience) = match connection.call.take() {
            Some(call) => {
                let ending = call.end(reason);
                let frame = ending.map(|e| sse::control(named(naming, e.event_type()), &e.data(), None, None, framing));
                (frame.unwrap_or_default(), ENDING_TIMEOUT)
            }
            None => {
                let data = own::text(naming, "closing", &Closing { reason: reason.as_str() });
                let retry = Some(retry_pause(reason));
                (sse::control(named(naming, "closing"), &data, None, retry, framing), CLOSING_TIMEOUT)
            }
        };
        ([goodbye, framing.last_chunk()].concat().into(), patience)
    }

    /// Sends a connection's last bytes, which may take so long. Answers whether they are out already.
    pub(super) fn send_last(
        &mut self,
        key: ConnectionKey,
        reason: CloseReason,
        (last, patience): (Bytes, Duration),
    ) -> bool {
        let connection = &mut self.connections[key as usize];
        let before = connection.backlog.bytes();
        connection.phase = Phase::Closing(Instant::now() + patience);
        let written = if reason == CloseReason::TooSlow {
            let dropped = connection.replace_backlog(last);
            self.metrics.dropped(reason, dropped as u64);
            connection.flush()
        } else {
            connection.send(&[], &last, 0)
        };
        self.sent(key, written, before, self.backlog_bytes_max);
        match written {
            Written::Sent => self.connections[key as usize].wire.finish(),
            Written::Waiting => false,
            Written::Broken => true,
        }
    }

    /// What follows from a write: a backlog is watched, and one that is too large ends the connection.
    fn sent(&mut self, key: ConnectionKey, written: Written, backlog_before: usize, backlog_bytes_max: usize) {
        let connection = &mut self.connections[key as usize];
        connection.sent_at = self.wheel.now();
        let backlog = connection.backlog.bytes();
        if backlog != backlog_before {
            self.metrics.backlog_bytes.add(backlog as i64 - backlog_before as i64);
        }
        let waiting = written == Written::Waiting;
        if waiting != connection.watches_room {
            connection.watches_room = connection.wire.watch_room(&self.registry, key, waiting);
        }
        if connection.phase != Phase::Open {
            return;
        }
        let reason = match written {
            Written::Sent => return,
            Written::Waiting if !connection.backlog.is_over(backlog_bytes_max) => return,
            Written::Waiting => CloseReason::TooSlow,
            Written::Broken => CloseReason::ClientLeft,
        };
        connection.phase = Phase::CutOff;
        self.ended.push((key, reason));
    }

    /// Writes a cursor to where frames are made from; none leaves it empty.
    fn write_cursor(&mut self, id: Option<Id<'_>>) {
        self.cursor.clear();
        if let Some(id) = id {
            write_id(&mut self.cursor, id);
        }
    }

    /// The answer that a connection waits for, if it is a poll. It is looked at when the step is done.
    fn poll(&mut self, to: ConnectionKey) -> Option<&mut Polled> {
        let polled = self.connections[to as usize].polled.as_deref_mut()?;
        if !mem::replace(&mut polled.is_listed, true) {
            self.polled.push(to);
        }
        Some(polled)
    }

    /// An event goes into an answer, or passes it by.
    fn poll_event(&mut self, to: ConnectionKey, event: &SharedEvent, is_wanted: bool, replayed: Replayed, id: Id<'_>) {
        let Some(polled) = self.poll(to) else { return };
        if !is_wanted {
            return polled.poll.pass(id);
        }
        self.write_cursor(Some(id));
        self.cursor.push(b'@');
        self.cursor.extend_from_slice(event.channel.as_str().as_bytes());
        let now = self.wheel.now();
        let connection = &mut self.connections[to as usize];
        let polled = connection.polled.as_mut().expect("a poll");
        let is_first = polled.poll.is_empty();
        if polled.event(event, type_of(event), &self.cursor, id) {
            connection.events += 1;
            self.deliveries += 1;
            self.metrics.replayed.inc_by(u64::from(replayed != Replayed::No));
            if is_first {
                connection.event_at = now;
            }
        }
    }

    /// How many of these events leave in one piece.
    fn batch_len(&self, events: &[&SharedEvent]) -> usize {
        let mut bytes = 0;
        let fits = |event: &&&SharedEvent| {
            bytes += event.cost();
            self.coalesce && bytes <= BATCH_BYTES_MAX
        };
        events.iter().take_while(fits).count().max(1)
    }

    /// Sends events that the connection wants, in one piece.
    fn send_events(
        &mut self,
        to: ConnectionKey,
        epoch: Epoch,
        events: &[&SharedEvent],
        replayed: Replayed,
        before: Id<'_>,
    ) {
        let connection = &mut self.connections[to as usize];
        if connection.phase != Phase::Open {
            return; // It was too slow for those before them.
        }
        let (naming, framing) = (connection.style.naming, connection.style.framing);
        let Some((head, rest)) = self.frames.of(epoch, events, naming, framing, before) else {
            return; // Without a point nobody is live or replayed.
        };
        let waited = connection.backlog.bytes();
        let written = connection.send(head, &rest, events.len());
        let last = Point { epoch, pos: events[events.len() - 1].pos };
        if let Some(point) = before.at(last).shared() {
            connection.last_pos = point.pos;
        }
        connection.events += events.len() as u64;
        connection.event_at = self.wheel.now();
        self.deliveries += events.len() as u64;
        if replayed != Replayed::No {
            self.metrics.replayed.inc_by(events.len() as u64);
        }
        // A replay is bounded by itself, and doesn't make a reader slow.
        let backlog_bytes_max = if replayed == Replayed::Replay { usize::MAX } else { self.backlog_bytes_max };
        self.sent(to, written, waited, backlog_bytes_max);
    }
}

impl Outlet for Sockets {
    fn connected(&mut self, to: ConnectionKey, resumed: bool, id: Id<'_>) {
        if let Some(polled) = self.poll(to) {
            return polled.poll.pass(id);
        }
        let connection = &mut self.connections[to as usize];
        let Some(hello) = connection.hello.take() else { return };
        let user = connection.admission.user().cloned();
        let (node, shard) = self.place;
        let client_id = ClientId { node, shard, key: to, secret: connection.secret.bits() }.encode();
        let data = Connected {
            client_id: &client_id,
            user_id: user.as_ref().map(|user| user.as_str()),
            channels: names(&hello.channels),
            resumed,
        };
        self.own_frame(to, "connected", &data, Some(id));
        self.joined.push(to);
        let connection = &mut self.connections[to as usize];
        let visit = Visit { key: to, generation: connection.generation };
        if let Some(call) = &mut connection.call {
            call.has_joined(visit);
        }
    }

    fn events(&mut self, to: ConnectionKey, epoch: Epoch, events: &[&SharedEvent], replayed: Replayed, before: Id<'_>) {
        let connection = &self.connections[to as usize];
        if connection.phase != Phase::Open {
            return;
        }
        let now = (replayed != Replayed::No).then(since_1970);
        let is_expired = |event: &SharedEvent| now.is_some_and(|now| event.is_expired(now));
        if connection.polled.is_some() {
            for event in events {
                let is_wanted = self.connections[to as usize].style.wants(type_of(event)) && !is_expired(event);
                self.poll_event(to, event, is_wanted, replayed, before.at(Point { epoch, pos: event.pos }));
            }
            return;
        }
        let is_wanted = |event: &&SharedEvent| connection.style.wants(type_of(event)) && !is_expired(event);
        let ends = |event: &SharedEvent| connection.call.as_ref().is_some_and(|call| call.ends_on(type_of(event)));
        let wanted: SmallVec<[&SharedEvent; 8]>;
        let mut rest = events;
        if !events.iter().all(is_wanted) {
            wanted = events.iter().copied().filter(is_wanted).collect();
            rest = &wanted;
        }
        let end = rest.iter().position(|event| ends(event));
        rest = &rest[..end.map_or(rest.len(), |end| end + 1)];
        while !rest.is_empty() {
            let (batch, behind) = rest.split_at(self.batch_len(rest));
            self.send_events(to, epoch, batch, replayed, before);
            rest = behind;
        }
        let connection = &mut self.connections[to as usize];
        if end.is_some() && connection.phase == Phase::Open {
            connection.phase = Phase::CutOff;
            self.ended.push((to, CloseReason::Answered));
        }
    }

    fn prepare(&self, to: ConnectionKey) {
        let connection = &self.connections[to as usize];
        // A field of each 64 bytes that an event touches.
        black_box((
            connection.backlog.is_empty(),
            connection.polled.is_some(),
            connection.events,
            connection.watches_room,
        ));
    }

    fn finished(&mut self, partition: Partition, event: &SharedEvent) {
        self.metrics.delivered(partition, event.pos);
    }

    fn gap(&mut self, to: ConnectionKey, gap: &Gap, id: Id<'_>) {
        if self.connections[to as usize].phase != Phase::Open {
            return;
        }
        let spread = if gap.reason == GapReason::Lost { REFETCH_SPREAD } else { REFETCH_SPREAD / 5 };
        let data = GapTold {
            channels: names(&gap.channels),
            reason: gap.reason.as_str(),
            from: gap.from.millis(),
            to: gap.to.millis(),
            retry_in_ms: fastrand::u64(0..=spread.as_millis() as u64),
        };
        if self.poll(to).is_some() {
            self.write_cursor(Some(id));
            let connection = &mut self.connections[to as usize];
            let data = own::text(connection.style.naming, "gap", &data);
            let polled = connection.polled.as_mut().expect("a poll");
            if polled.poll.is_empty() {
                connection.event_at = self.wheel.now();
            }
            if polled.gap(gap, &data, &self.cursor, id) {
                self.metrics.gap(gap.reason);
            }
            return;
        }
        self.metrics.gap(gap.reason);
        self.own_frame(to, "gap", &data, Some(id));
    }

    fn subscribed(&mut self, to: ConnectionKey, channels: &[Channel], id: Id<'_>) {
        let connection = &self.connections[to as usize];
        if connection.phase != Phase::Open || connection.polled.is_some() {
            return;
        }
        self.own_frame(to, "subscribed", &Subscribed { channels: names(channels) }, Some(id));
    }

    fn is_idle(&self, to: ConnectionKey) -> bool {
        let connection = &self.connections[to as usize];
        let has_room = match &connection.polled {
            Some(polled) => !polled.poll.is_full(),
            None => connection.backlog.is_empty(),
        };
        connection.phase == Phase::Open && has_room
    }
}

fn type_of(event: &SharedEvent) -> &str {
    event.content.name.as_ref().map_or(DEFAULT_TYPE, EventType::as_str)
}

fn names(channels: &[Channel]) -> Vec<&str> {
    channels.iter().map(Channel::as_str).collect()
}

fn named(naming: Naming, own_type: &str) -> &str {
    match naming {
        Naming::Named => own_type,
        Naming::Unnamed => DEFAULT_TYPE,
    }
}
