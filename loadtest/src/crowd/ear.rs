//! Hears what the clients are told, and checks every single event: missing, double, out of order, foreign, corrupt.
//!
//! The first client that gets an event has its frame read and its payload checked to the last byte. The frame is then
//! *known*; whoever comes next to that number of that channel has its bytes compared with it, which says the same and
//! costs a tenth.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use hdrhistogram::Histogram;
use memchr::memchr;
use serde::{Deserialize, Serialize};

use crate::check::{Fault, FaultKind, Faults};
use crate::clock::Nanos;
use crate::report::new_histogram;
use crate::stamp::{Stamp, To};

/// Where what a client has of a channel is noted: its inbox, everybody's, its shared channel.
const SLOTS: usize = 3;
const INBOX: usize = 0;
const ALL: usize = 1;
const CHANNEL: usize = 2;

/// A client that begins in the middle of a channel has whatever number comes first.
const ANY: u32 = u32::MAX;

/// Frames that are known, a power of two: more than are ever on their way at once.
const KNOWN: usize = 1024;

/// Numbers that were skipped and may come late: what is beyond is missing at once.
const HOLES_MAX: usize = 1 << 20;

/// What a client has heard.
#[derive(Debug)]
pub(crate) struct Heard {
    /// The next number by slot, or [`ANY`].
    next: [u32; SLOTS],
    /// The id to come back with.
    pub(super) last_id: Box<[u8]>,
    /// When it came back; 0 for who never was away. What was due before was replayed.
    pub(super) back: Nanos,
    /// Whether this connection has been told that it stands.
    pub(super) ready: bool,
}

impl Heard {
    pub(super) fn new() -> Self {
        Self { next: [0; SLOTS], last_id: Box::default(), back: 0, ready: false }
    }

    /// Comes back as somebody who has heard nothing.
    pub(super) fn forget(&mut self) {
        (self.next, self.last_id) = ([ANY; SLOTS], Box::default());
    }

    /// Whether it has as much of its inbox, everybody's and its channel.
    pub(super) fn has(&self, expected: [u32; SLOTS]) -> bool {
        self.next.iter().zip(expected).all(|(next, expected)| *next >= expected)
    }
}

/// What all clients of a process have heard since the last time that was asked.
#[derive(Debug)]
pub(crate) struct Sum {
    pub(crate) deliveries: u64,
    /// Of these, due before the client came back.
    pub(crate) replayed: u64,
    pub(crate) heartbeats: u64,
    /// Events of others than this run.
    pub(crate) foreign: u64,
    /// From when an event was due until a client had it, in µs, replays left out.
    pub(crate) latency: Histogram<u64>,
    /// Of these, the latencies of events to single users.
    pub(crate) to_users: Histogram<u64>,
    /// The last [`KNOWN`] broadcasts, by number.
    pub(crate) broadcasts: BTreeMap<u32, Span>,
    pub(crate) closings: BTreeMap<String, u64>,
    pub(crate) faults: Faults,
}

impl Sum {
    pub(crate) fn new() -> Self {
        Self {
            deliveries: 0,
            replayed: 0,
            heartbeats: 0,
            foreign: 0,
            latency: new_histogram(),
            to_users: new_histogram(),
            broadcasts: BTreeMap::new(),
            closings: BTreeMap::new(),
            faults: Faults::default(),
        }
    }
}

/// When the first client had an event, and when the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    pub(crate) first: Nanos,
    pub(crate) last: Nanos,
}

impl Span {
    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }
}

/// Whom a text is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listener {
    pub(crate) user: u32,
    pub(crate) channel: u32,
}

/// What is the same for all clients.
#[derive(Debug)]
pub(crate) struct Ear {
    run: u32,
    payload_bytes: usize,
    ready_type: Option<Vec<u8>>,
    keep_ids: bool,
    /// Of the broadcast, then of shared channels.
    known: [Vec<Known>; 2],
    /// Numbers that were skipped, by client and slot.
    holes: HashMap<(u32, usize), Vec<u32>>,
    hole_count: usize,
    /// Connections that were refused, ever, by the status of the answer or the reason that was told.
    pub(super) refusals: BTreeMap<String, u64>,
    pub(super) sum: Sum,
    /// When what is being heard was read.
    pub(super) now: Nanos,
}

/// A frame that was checked.
#[derive(Clone, Debug, Default)]
struct Known {
    channel: u32,
    seq: u32,
    due: Nanos,
    span: Span,
    bytes: Vec<u8>,
    id: Range<usize>,
}

impl Ear {
    pub(super) fn new(run: u32, payload_bytes: usize, ready_type: Option<&str>, keep_ids: bool) -> Self {
        Self {
            run,
            payload_bytes,
            ready_type: ready_type.map(|ready| ready.as_bytes().to_vec()),
            keep_ids,
            known: std::array::from_fn(|_| vec![Known::default(); KNOWN]),
            holes: HashMap::new(),
            hole_count: 0,
            refusals: BTreeMap::new(),
            sum: Sum::new(),
            now: 0,
        }
    }

    /// What was heard since the last time.
    pub(super) fn take_sum(&mut self) -> Sum {
        let broadcasts = self.known[0].iter().filter(|known| !known.bytes.is_empty());
        self.sum.broadcasts = broadcasts.map(|known| (known.seq, known.span)).collect();
        std::mem::replace(&mut self.sum, Sum::new())
    }

    /// Whether the head of the response already says that a subscription stands.
    pub(super) fn is_ready_by_head(&self) -> bool {
        self.ready_type.is_none()
    }

    /// Takes the frames that are whole from the front of a text, and tells how many bytes they have.
    pub(super) fn hear(&mut self, who: Listener, heard: &mut Heard, text: &[u8]) -> usize {
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            if let Some(bytes) = self.knows(who, heard, rest) {
                at += bytes;
                continue;
            }
            let Some(frame) = Frame::read(rest) else { break };
            at += frame.bytes.len();
            self.take(who, heard, &frame);
        }
        at
    }

    /// Whether the next event of a client is one whose bytes are known.
    fn knows(&mut self, who: Listener, heard: &mut Heard, text: &[u8]) -> Option<usize> {
        if !heard.ready {
            return None;
        }
        let [of_all, of_channels] = &mut self.known;
        for (slot, channel, known) in [(CHANNEL, who.channel, of_channels), (ALL, 0, of_all)] {
            let seq = heard.next[slot];
            let known = &mut known[seq as usize % KNOWN];
            if known.seq == seq && known.channel == channel && !known.bytes.is_empty() && text.starts_with(&known.bytes)
            {
                let bytes = known.bytes.len();
                known.span.last = self.now;
                heard.next[slot] += 1;
                self.sum.deliveries += 1;
                if self.keep_ids {
                    keep(&mut heard.last_id, &known.bytes[known.id.clone()]);
                }
                note_latency(&mut self.sum, heard, known.due, self.now);
                return Some(bytes);
            }
        }
        None
    }

    fn take(&mut self, who: Listener, heard: &mut Heard, frame: &Frame<'_>) {
        let (id, event, mut data) = (frame.id(), frame.event(), frame.data());
        self.sum.heartbeats += u64::from(frame.is_comment);
        if self.keep_ids && !id.is_empty() {
            keep(&mut heard.last_id, id);
        }
        if !event.is_empty() && self.ready_type.as_deref() == Some(event) {
            if heard.ready {
                self.fault(FaultKind::WrongConnected, who, "-", "to be told once that it is subscribed", lossy(data));
            }
            heard.ready = true;
            return;
        }
        match event {
            b"gap" => return self.fault(FaultKind::Gap, who, "-", "no gap", lossy(data)),
            // A stream that never stood says in this way why not: an EventSource gives up for good on a status.
            b"closing" if !heard.ready => return self.refused(reason(data)),
            b"closing" => return *self.sum.closings.entry(reason(data)).or_default() += 1,
            b"heartbeat" => return self.sum.heartbeats += 1,
            _ => {}
        }
        let mut count = 0;
        while let Some(at) = Stamp::find(data) {
            let read = Stamp::read(&data[at..], self.payload_bytes);
            // In JSON a string ends behind it, or goes on with what the server adds.
            let whole = read.filter(|(_, rest)| rest.first().is_none_or(|after| matches!(after, b'"' | b'\\')));
            let Some((stamp, rest)) = whole else {
                return self.fault(FaultKind::Corrupt, who, "-", "what was published", lossy(data));
            };
            data = rest;
            count += 1;
            let is_only = count == 1 && Stamp::find(rest).is_none();
            self.event(who, heard, stamp, frame, is_only);
        }
    }

    /// Counts a connection that was refused.
    pub(super) fn refused(&mut self, how: String) {
        *self.refusals.entry(how).or_default() += 1;
    }

    fn event(&mut self, who: Listener, heard: &mut Heard, stamp: Stamp, frame: &Frame<'_>, is_only: bool) {
        if stamp.run != self.run {
            self.sum.foreign += 1;
            return;
        }
        if !heard.ready {
            let expected = "to be told first that it is subscribed";
            self.fault(FaultKind::BadStream, who, name(stamp.to), expected, lossy(frame.bytes));
        }
        let slot = match stamp.to {
            To::All => ALL,
            To::Channel(channel) if channel == who.channel => CHANNEL,
            To::User(user) if user == who.user => INBOX,
            To::Channel(_) | To::User(_) => {
                let expected = "only what it follows";
                return self.fault(FaultKind::Stray, who, name(stamp.to), expected, lossy(frame.bytes));
            }
        };
        self.sum.deliveries += 1;
        note_latency(&mut self.sum, heard, stamp.due, self.now);
        if slot == INBOX && stamp.due >= heard.back {
            self.sum.to_users.saturating_record(self.now.saturating_sub(stamp.due) / 1000);
        }
        let next = heard.next[slot];
        if stamp.seq != next && next != ANY {
            return self.out_of_turn(who, heard, slot, stamp);
        }
        heard.next[slot] = stamp.seq + 1;
        // An inbox is nobody else's, and a frame of several events would count as one.
        if slot != INBOX && is_only {
            let channel = if slot == CHANNEL { who.channel } else { 0 };
            let known = &mut self.known[usize::from(slot == CHANNEL)][stamp.seq as usize % KNOWN];
            let is_new = known.bytes.is_empty() || (known.channel, known.seq) != (channel, stamp.seq);
            known.span = Span { first: if is_new { self.now } else { known.span.first }, last: self.now };
            (known.channel, known.seq, known.due, known.id) = (channel, stamp.seq, stamp.due, frame.id.clone());
            known.bytes.clear();
            known.bytes.extend_from_slice(frame.bytes);
        }
    }

    fn out_of_turn(&mut self, who: Listener, heard: &mut Heard, slot: usize, stamp: Stamp) {
        let next = heard.next[slot];
        if stamp.seq > next {
            heard.next[slot] = stamp.seq + 1;
            let count = (stamp.seq - next) as usize;
            if self.hole_count + count <= HOLES_MAX {
                self.hole_count += count;
                self.holes.entry((who.user, slot)).or_default().extend(next..stamp.seq);
            } else {
                self.fault(FaultKind::Missing, who, name(stamp.to), format!("number {next}"), stamp.seq.to_string());
            }
            return;
        }
        let late = self.holes.get_mut(&(who.user, slot)).is_some_and(|holes| {
            let hole = holes.iter().position(|hole| *hole == stamp.seq);
            hole.map(|hole| holes.swap_remove(hole)).is_some()
        });
        let kind = if late { FaultKind::Reordered } else { FaultKind::Double };
        self.fault(kind, who, name(stamp.to), format!("number {next}"), format!("number {}", stamp.seq));
    }

    /// At the end: what was skipped and never came.
    pub(super) fn judge_holes(&mut self) {
        for ((user, _), holes) in std::mem::take(&mut self.holes) {
            for hole in holes {
                let who = Listener { user, channel: 0 };
                self.fault(FaultKind::Missing, who, "-".to_owned(), format!("number {hole}"), "what came after it");
            }
        }
        self.hole_count = 0;
    }

    /// At the end: whether a client has what it should.
    pub(super) fn judge(&mut self, who: Listener, heard: &Heard, expected: [u32; SLOTS]) {
        let names = [To::User(who.user), To::All, To::Channel(who.channel)];
        for ((&next, expected), to) in heard.next.iter().zip(expected).zip(names) {
            let fault = |kind, expected: String| Fault {
                kind,
                client: Some(who.user),
                channel: name(to),
                expected,
                got: format!("the first {next}"),
            };
            if next < expected {
                let missing = fault(FaultKind::Missing, format!("{expected} events"));
                self.sum.faults.add_many(missing, (expected - next).into());
            } else if next != ANY && next > expected {
                let published = fault(FaultKind::Stray, format!("{expected} events, as many as were published"));
                self.sum.faults.add_many(published, (next - expected).into());
            }
        }
    }

    pub(super) fn fault(
        &mut self,
        kind: FaultKind,
        who: Listener,
        channel: impl Into<String>,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) {
        let (channel, expected, got) = (channel.into(), expected.into(), got.into());
        self.sum.faults.add(Fault { kind, client: Some(who.user), channel, expected, got });
    }
}

/// Keeps an id without making room for it anew each time.
fn keep(last_id: &mut Box<[u8]>, id: &[u8]) {
    if last_id.len() == id.len() {
        last_id.copy_from_slice(id);
    } else {
        *last_id = id.into();
    }
}

fn note_latency(sum: &mut Sum, heard: &Heard, due: Nanos, now: Nanos) {
    if due < heard.back {
        sum.replayed += 1;
    } else {
        sum.latency.saturating_record(now.saturating_sub(due) / 1000);
    }
}

fn lossy(text: &[u8]) -> String {
    /// Bytes of a text that are quoted.
    const QUOTED_MAX: usize = 300;
    String::from_utf8_lossy(&text[..text.len().min(QUOTED_MAX)]).into_owned()
}

fn name(to: To) -> String {
    match to {
        To::All => "broadcast".to_owned(),
        To::Channel(number) => format!("load:{number}"),
        To::User(number) => format!("user:u{number}"),
    }
}

/// Why the server closes; empty where it doesn't say.
fn reason(data: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Closing {
        reason: String,
    }
    serde_json::from_slice::<Closing>(data).map_or(String::new(), |closing| closing.reason)
}

/// What stands between two blank lines. Of several `data` lines only the first is looked at: our payloads have one.
#[derive(Debug)]
struct Frame<'a> {
    bytes: &'a [u8],
    id: Range<usize>,
    event: Range<usize>,
    data: Range<usize>,
    /// A comment alone: what servers send to keep a connection alive.
    is_comment: bool,
}

impl<'a> Frame<'a> {
    /// The first frame of a text, if it is whole.
    fn read(text: &'a [u8]) -> Option<Self> {
        let mut frame = Self { bytes: text, id: 0..0, event: 0..0, data: 0..0, is_comment: false };
        let mut at = 0;
        loop {
            let end = at + memchr(b'\n', &text[at..])?;
            let line_end = if end > at && text[end - 1] == b'\r' { end - 1 } else { end };
            let line = at..line_end;
            at = end + 1;
            if line.is_empty() {
                frame.bytes = &text[..at];
                frame.is_comment &= frame.event.is_empty() && frame.data.is_empty();
                return Some(frame);
            }
            let field = |name: &[u8]| {
                let value = text[line.clone()].strip_prefix(name)?;
                let value = value.strip_prefix(b" ").unwrap_or(value);
                Some(line.end - value.len()..line.end)
            };
            match text[line.start] {
                b':' => frame.is_comment = true,
                b'i' => frame.id = field(b"id:").unwrap_or(frame.id),
                b'e' => frame.event = field(b"event:").unwrap_or(frame.event),
                b'd' if frame.data.is_empty() => frame.data = field(b"data:").unwrap_or(frame.data),
                _ => {}
            }
        }
    }

    fn id(&self) -> &'a [u8] {
        &self.bytes[self.id.clone()]
    }

    fn event(&self) -> &'a [u8] {
        &self.bytes[self.event.clone()]
    }

    fn data(&self) -> &'a [u8] {
        &self.bytes[self.data.clone()]
    }
}

#[cfg(test)]
#[path = "ear_tests.rs"]
mod tests;
