//! One open stream: its wire, how its frames are shaped, and what waits for it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use fanfare_protocol::sse::{Framing, Naming};
use fanfare_protocol::{Channel, Point, TypePattern};

use super::backlog::Backlog;
use super::call::CallStream;
use super::polled::Polled;
use super::wire::Wire;
use crate::admission::Admission;

/// How long before the end of a token the stream says so; of a shorter one, in the middle of what was left.
const WARNING: Duration = Duration::from_secs(60);

/// How an edge keeps a stream alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heartbeat {
    /// A comment line, only where nothing was sent lately.
    Comment,
    /// An event every interval, busy or not.
    Event,
    /// The same with an application's own words.
    Own(Arc<OwnBeat>),
}

/// A heartbeat's type and data, as an application has them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OwnBeat {
    pub(crate) event: Box<str>,
    pub(crate) data: Box<str>,
}

/// What a subscriber asked for, beside its channels.
#[derive(Debug)]
pub(crate) struct Style {
    pub(crate) framing: Framing,
    pub(crate) naming: Naming,
    pub(crate) heartbeat: Heartbeat,
    /// Event types that it wants; none: all.
    pub(crate) types: Box<[TypePattern]>,
    /// Its request's, for the log.
    pub(crate) request_id: Box<str>,
}

impl Style {
    pub(crate) fn wants(&self, event_type: &str) -> bool {
        self.types.is_empty() || self.types.iter().any(|pattern| pattern.matches(event_type))
    }
}

/// What a connection's token says of time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lease {
    issued_at: Option<SystemTime>,
    expires_at: Option<SystemTime>,
    /// When the stream is told that the end is near; None once it was.
    warns_at: Option<SystemTime>,
}

impl Lease {
    /// One that begins now.
    pub(crate) fn new(issued_at: Option<SystemTime>, expires_at: Option<SystemTime>) -> Self {
        let now = SystemTime::now();
        let warns_at = expires_at.map(|end| end - WARNING.min(end.duration_since(now).unwrap_or_default() / 2));
        Self { issued_at, expires_at, warns_at }
    }

    pub(super) fn issued_at(&self) -> Option<SystemTime> {
        self.issued_at
    }

    /// What is left of it, if it has an end.
    pub(super) fn left(&self, now: SystemTime) -> Option<Duration> {
        self.expires_at.map(|end| end.duration_since(now).unwrap_or_default())
    }

    /// In what time the stream is to be told that the end is near, if that is still to come.
    pub(super) fn warns_in(&self, now: SystemTime) -> Option<Duration> {
        self.warns_at?.duration_since(now).ok()
    }

    /// What is left, once, when it is time to say so.
    pub(super) fn take_warning(&mut self, now: SystemTime) -> Option<Duration> {
        self.warns_at.take_if(|at| *at <= now)?;
        self.left(now)
    }
}

/// What a connection is told in `connected`.
#[derive(Debug)]
pub(crate) struct Hello {
    pub(crate) channels: Box<[Channel]>,
}

/// Where a connection is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Frames go out.
    Open,
    /// It takes no more frames; it is closed when the loop gets round to it.
    CutOff,
    /// The last bytes go out, and until then at most.
    Closing(Instant),
    /// It has been refused, and is held open until then; it follows nothing.
    Held(Instant),
}

/// An open stream.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) wire: Wire,
    pub(super) generation: u32,
    pub(super) phase: Phase,
    pub(super) style: Style,
    pub(super) lease: Lease,
    /// Whoever knows it may change the connection: see `client_id`.
    pub(super) secret: u128,
    pub(super) admission: Admission,
    pub(super) channels: Box<[Channel]>,
    /// Until `connected` has gone out.
    pub(super) hello: Option<Box<Hello>>,
    /// The call that it answers. None: it answers none, or has said how that ended.
    pub(super) call: Option<Box<CallStream>>,
    /// None: it is a stream.
    pub(super) polled: Option<Box<Polled>>,
    pub(super) backlog: Backlog,
    /// Part of the backlog's first frame has gone out.
    first_has_begun: bool,
    /// The shard hears when the wire takes bytes again.
    pub(super) watches_room: bool,
    /// Tick of the wheel when it is looked at next.
    pub(super) visit_at: u32,
    /// Tick of the wheel when something was last sent.
    pub(super) sent_at: u32,
    /// Tick of the wheel when the last event was sent, or when it came. Of a poll, when its answer got the first.
    pub(super) event_at: u32,
    /// The last id sent, as far as a heartbeat would repeat it: of the first partition.
    pub(super) last_point: Option<Point>,
    pub(super) opened: Instant,
    pub(super) events: u64,
    pub(super) bytes: u64,
}

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// All is out.
    Sent,
    /// Some waits.
    Waiting,
    /// The connection is gone.
    Broken,
}

impl Connection {
    /// One that follows nothing yet.
    pub(super) fn new(wire: Wire, generation: u32, style: Style, admission: Admission, now: u32) -> Self {
        Self {
            wire,
            generation,
            phase: Phase::Open,
            style,
            lease: Lease::default(),
            secret: crate::random_secret(),
            admission,
            channels: Box::default(),
            hello: None,
            call: None,
            polled: None,
            backlog: Backlog::default(),
            first_has_begun: false,
            watches_room: false,
            visit_at: now,
            sent_at: now,
            event_at: now,
            last_point: None,
            opened: Instant::now(),
            events: 0,
            bytes: 0,
        }
    }

    /// Sends a frame in two parts, which on the wire are one, or lets it wait behind what waits already. So many events
    /// are in it.
    pub(super) fn send(&mut self, head: &[u8], rest: &Bytes, events: usize) -> Written {
        if !self.backlog.is_empty() {
            self.backlog.push(joined(head, rest), events);
            return Written::Waiting;
        }
        let len = head.len() + rest.len();
        let written = match self.wire.write(head, rest) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return Written::Broken,
        };
        self.bytes += written as u64;
        if written == len {
            return Written::Sent;
        }
        let waiting = match written.checked_sub(head.len()) {
            Some(of_rest) => rest.slice(of_rest..),
            None => joined(&head[written..], rest),
        };
        self.first_has_begun = written > 0;
        self.backlog.push(waiting, events);
        Written::Waiting
    }

    /// The wire takes bytes again.
    pub(super) fn flush(&mut self) -> Written {
        match self.wire.flush(&mut self.backlog) {
            Ok(written) => {
                self.bytes += written as u64;
                self.first_has_begun |= written > 0;
                if self.backlog.is_empty() { Written::Sent } else { Written::Waiting }
            }
            Err(_) => Written::Broken,
        }
    }

    /// Frames that will not go out on this stream are dropped, and a last one takes their place. Answers how many events
    /// were in them.
    pub(super) fn replace_backlog(&mut self, last: Bytes) -> usize {
        let dropped = self.backlog.drop_unbegun(self.first_has_begun);
        self.backlog.push(last, 0);
        dropped
    }

    /// How long it has been open.
    pub(super) fn age(&self) -> Duration {
        self.opened.elapsed()
    }
}

fn joined(head: &[u8], rest: &Bytes) -> Bytes {
    if head.is_empty() { rest.clone() } else { [head, rest].concat().into() }
}
