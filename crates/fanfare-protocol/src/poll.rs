//! What one answer to a poll holds: the frames that a stream would have had, up to a bound, and a cursor that passes
//! none that isn't among them.
//!
//! Pure, and only about what is in and what is not; the text of an answer is made where it is sent. A poll joins the
//! machine like any connection. Nothing is consumed by it: who asks again with the same cursor gets the same again.

use crate::rules::{Rule, on, visited};
use crate::{Id, Start, write_cursor};

/// Events in one answer at most.
pub const POLL_EVENTS_MAX: usize = 500;

/// Bytes of them at most, but for one that is larger by itself.
pub const POLL_BYTES_MAX: usize = 1024 * 1024;

/// One answer, as it is being put together.
#[derive(Debug)]
pub struct Poll {
    /// It came without a cursor, so it is answered at once, with one.
    fresh: bool,
    events: usize,
    events_max: usize,
    bytes: usize,
    bytes_max: usize,
    has_gaps: bool,
    /// An event found no room: nothing goes in any more, and the cursor stays.
    full: bool,
    /// What the client comes back with, if no more is put in. Empty until `connected`.
    cursor: Vec<u8>,
}

impl Poll {
    /// An empty one.
    pub fn new(start: &Start) -> Self {
        Self::with_bounds(start, POLL_EVENTS_MAX, POLL_BYTES_MAX)
    }

    pub(crate) fn with_bounds(start: &Start, events_max: usize, bytes_max: usize) -> Self {
        let fresh = matches!(start, Start::Fresh { .. });
        Self { fresh, events: 0, events_max, bytes: 0, bytes_max, has_gaps: false, full: false, cursor: Vec::new() }
    }

    /// Everything up to here is in, or isn't for this client: it may go on from this id.
    pub fn pass(&mut self, id: Id<'_>) {
        if self.full && on(Rule::PollFull) {
            return;
        }
        self.cursor.clear();
        write_id(&mut self.cursor, id);
    }

    /// Takes in an event of so many bytes. Answers whether it is in.
    pub fn take(&mut self, bytes: usize, id: Id<'_>) -> bool {
        let has_room = self.events == 0 || (self.events < self.events_max && self.bytes + bytes <= self.bytes_max);
        if !has_room {
            visited!("an event finds no room in an answer");
            self.full = true;
        }
        self.pass(id);
        let is_in = has_room && !(self.full && on(Rule::PollFull));
        if is_in {
            self.events += 1;
            self.bytes += bytes;
        }
        is_in
    }

    /// Takes in a gap. Answers whether it is in. A gap takes no room, since its id may be the client's own cursor: an
    /// answer that is full of gaps would lead nowhere. There is one for each channel at most, whenever a join begins.
    pub fn take_gap(&mut self, id: Id<'_>) -> bool {
        if !on(Rule::PollGaps) {
            return self.take(1, id);
        }
        self.has_gaps |= !self.full;
        self.pass(id);
        !self.full
    }

    /// Whether `connected` has come: only then is there something to answer with.
    pub fn is_connected(&self) -> bool {
        !self.cursor.is_empty()
    }

    /// Whether anything is in.
    pub fn is_empty(&self) -> bool {
        self.events == 0 && !self.has_gaps
    }

    /// Whether nothing goes in any more.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Whether it is to be answered now. `live` tells whether the machine has nothing more waiting for it; while that
    /// isn't so, more is on its way, and one answer is better than several.
    pub fn is_due(&self, live: bool) -> bool {
        self.is_connected() && (self.full || (live && (self.fresh || !self.is_empty())))
    }

    /// The cursor to come back with, and whether that is worth while at once. `live` is the connection's id, where the
    /// machine has nothing more waiting for it: it leads past what wasn't for this client.
    pub fn end(&mut self, live: Option<Id<'_>>) -> (&str, bool) {
        let more = self.full || live.is_none();
        if let Some(id) = live {
            visited!("an answer's cursor is the connection's own", if !self.full);
            self.pass(id);
        }
        (std::str::from_utf8(&self.cursor).expect("a cursor is ASCII"), more)
    }
}

fn write_id(out: &mut Vec<u8>, id: Id<'_>) {
    let mut points = id.points();
    if let Some(first) = points.next() {
        write_cursor(out, id.partitions(), first, points, id.changes(), None);
    }
}
