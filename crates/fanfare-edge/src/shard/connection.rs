//! One open stream: its wire, how its frames are shaped, and what waits for it.

use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fanfare_protocol::sse::{Framing, Naming};
use fanfare_protocol::{Channel, Position, TypePattern};

use super::backlog::Backlog;
use super::call::CallStream;
use super::polled::Polled;
use super::wire::Wire;
use crate::admission::Admission;
use crate::request_id::RequestId;

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
    /// Its request's, for the log.
    pub(crate) request_id: RequestId,
    /// None: what most have, all types and comments.
    special: Option<Box<Special>>,
}

/// What few ask for.
#[derive(Debug)]
struct Special {
    heartbeat: Heartbeat,
    /// Event types that it wants; none: all.
    types: Box<[TypePattern]>,
}

impl Style {
    /// One of all event types, with comments for heartbeats.
    pub(crate) fn new(framing: Framing, naming: Naming, request_id: RequestId) -> Self {
        Self { framing, naming, request_id, special: None }
    }

    /// The same with other heartbeats, and of these types; none: of all.
    pub(crate) fn with(self, heartbeat: Heartbeat, types: Vec<TypePattern>) -> Self {
        let is_special = heartbeat != Heartbeat::Comment || !types.is_empty();
        Self { special: is_special.then(|| Box::new(Special { heartbeat, types: types.into() })), ..self }
    }

    pub(super) fn heartbeat(&self) -> &Heartbeat {
        self.special.as_ref().map_or(&Heartbeat::Comment, |special| &special.heartbeat)
    }

    pub(crate) fn wants(&self, event_type: &str) -> bool {
        let types = self.special.as_ref().map_or(&[][..], |special| &special.types);
        types.is_empty() || types.iter().any(|pattern| pattern.matches(event_type))
    }
}

/// What a connection's token says of time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lease {
    issued_at: Option<Millis>,
    expires_at: Option<Millis>,
    /// How many milliseconds before the end the stream is told that it is near; 0 once it was.
    warning: u16,
}

/// Milliseconds since 1970: tokens say no more, and every connection has two of them.
#[derive(Clone, Copy, Debug)]
struct Millis(NonZeroU64);

impl Millis {
    fn of(time: SystemTime) -> Self {
        let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Self(NonZeroU64::new(u64::try_from(millis).unwrap_or(u64::MAX)).unwrap_or(NonZeroU64::MIN))
    }

    fn time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.get())
    }
}

impl Lease {
    /// One that begins now.
    pub(crate) fn new(issued_at: Option<SystemTime>, expires_at: Option<SystemTime>) -> Self {
        let lease = Self { issued_at: issued_at.map(Millis::of), expires_at: expires_at.map(Millis::of), warning: 0 };
        let left = lease.left(SystemTime::now()).unwrap_or_default();
        Self { warning: WARNING.min(left / 2).as_millis() as u16, ..lease }
    }

    pub(super) fn issued_at(&self) -> Option<SystemTime> {
        self.issued_at.map(Millis::time)
    }

    /// What is left of it, if it has an end.
    pub(super) fn left(&self, now: SystemTime) -> Option<Duration> {
        self.expires_at.map(|end| end.time().duration_since(now).unwrap_or_default())
    }

    /// In what time the stream is to be told that the end is near, if that is still to come.
    pub(super) fn warns_in(&self, now: SystemTime) -> Option<Duration> {
        self.warns_at()?.duration_since(now).ok()
    }

    /// What is left, once, when it is time to say so.
    pub(super) fn take_warning(&mut self, now: SystemTime) -> Option<Duration> {
        self.warns_at().filter(|at| *at <= now)?;
        self.warning = 0;
        self.left(now)
    }

    fn warns_at(&self) -> Option<SystemTime> {
        let warning = (self.warning > 0).then(|| Duration::from_millis(self.warning.into()));
        self.expires_at.zip(warning).map(|(end, warning)| end.time() - warning)
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

/// An open stream. What every event touches stands first, side by side: it is far from the processor when a connection's
/// turn comes, and each 64 bytes of it have to be fetched (`docs/performance.md`).
#[derive(Debug)]
#[repr(C)]
pub(super) struct Connection {
    pub(super) wire: Wire,
    pub(super) backlog: Backlog,
    pub(super) phase: Phase,
    /// The call that it answers. None: it answers none, or has said how that ended.
    pub(super) call: Option<Box<CallStream>>,
    /// None: it is a stream.
    pub(super) polled: Option<Box<Polled>>,
    pub(super) style: Style,
    /// Where the last id stood, as far as a heartbeat would repeat it. The epoch needn't be kept: whoever was there when
    /// it changed was told a gap, with an id.
    pub(super) last_pos: Position,
    pub(super) events: u64,
    pub(super) bytes: u64,
    /// Tick of the wheel when something was last sent.
    pub(super) sent_at: u32,
    /// Tick of the wheel when the last event was sent, or when it came. Of a poll, when its answer got the first.
    pub(super) event_at: u32,
    /// Part of the backlog's first frame has gone out.
    first_has_begun: bool,
    /// The shard hears when the wire takes bytes again.
    pub(super) watches_room: bool,
    /// Tick of the wheel when it is looked at next.
    pub(super) visit_at: u32,
    pub(super) generation: u32,
    pub(super) lease: Lease,
    /// Whoever knows it may change the connection: see `client_id`.
    pub(super) secret: Secret,
    pub(super) admission: Admission,
    /// Until `connected` has gone out.
    pub(super) hello: Option<Box<Hello>>,
    pub(super) opened: Instant,
}

/// 128 random bits that need no alignment.
#[derive(Debug)]
pub(super) struct Secret([u8; 16]);

impl Secret {
    pub(super) fn bits(&self) -> u128 {
        u128::from_ne_bytes(self.0)
    }
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
            secret: Secret(crate::random_secret().to_ne_bytes()),
            admission,
            hello: None,
            call: None,
            polled: None,
            backlog: Backlog::default(),
            first_has_begun: false,
            watches_room: false,
            visit_at: now,
            sent_at: now,
            event_at: now,
            last_pos: Position::default(),
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

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::super::wheel::Visit;
    use super::*;

    /// Whatever grows here grows for every connection. The sums are in `docs/performance.md`: change both.
    #[test]
    fn what_every_connection_pays_for_stays_within_its_budget() {
        let of_debug_builds = if cfg!(debug_assertions) { 16 } else { 0 }; // mio's.
        let budget = [
            ("a connection", size_of::<Connection>(), 256 + of_debug_builds),
            ("what every event touches of it", offset_of!(Connection, visit_at), 144 + of_debug_builds),
            ("its wire", size_of::<Wire>(), 16 + of_debug_builds),
            ("its style", size_of::<Style>(), 40),
            ("its lease", size_of::<Lease>(), 24),
            ("its place", size_of::<Admission>(), 40),
            ("its backlog while nothing waits", size_of::<Backlog>(), 8),
            ("its next visit", size_of::<Visit>(), 8),
        ];
        for (what, bytes, bytes_max) in budget {
            assert!(bytes <= bytes_max, "{what} takes {bytes} bytes, and {bytes_max} are in the budget");
        }
    }
}
