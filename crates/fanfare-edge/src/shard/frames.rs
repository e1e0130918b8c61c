//! What events become on the wire, made once for all connections that can share it.

use bytes::Bytes;
use fanfare_protocol::sse::{self, EventFrames, Framing, IdText, Naming};
use fanfare_protocol::{Epoch, Id, Point, Position, SharedEvent, write_cursor, write_point};

/// Frames that were made last.
#[derive(Debug, Default)]
pub(super) struct Frames {
    single: Option<EventFrames>,
    /// One for each naming and framing.
    batches: Vec<Batch>,
    head: Vec<u8>,
    cursor: Vec<u8>,
}

/// Several events in one piece.
#[derive(Debug)]
struct Batch {
    naming: Naming,
    framing: Framing,
    epoch: Epoch,
    events: Vec<Position>,
    bytes: Bytes,
}

impl Frames {
    /// The bytes of some events of one partition for a connection: a head of its own, if it needs one, and a rest; they
    /// leave together. `before` is the connection's cursor before them. None where it has no cursor.
    pub(super) fn of(
        &mut self,
        epoch: Epoch,
        events: &[&SharedEvent],
        naming: Naming,
        framing: Framing,
        before: Id<'_>,
    ) -> Option<(&[u8], Bytes)> {
        let point = |event: &SharedEvent| Point { epoch, pos: event.pos };
        let is_shared = before.at(point(events[0])).shared().is_some();
        self.head.clear();
        let bytes = match events {
            [event] => {
                let frames = match &mut self.single {
                    Some(frames) if std::sync::Arc::ptr_eq(frames.event(), event) => frames,
                    single => single.insert(EventFrames::new((*event).clone())),
                };
                if is_shared {
                    frames.shared(naming, framing, point(event))
                } else {
                    self.cursor.clear();
                    write_id(&mut self.cursor, before.at(point(event)));
                    frames.own(naming, framing, IdText::new(&self.cursor).ok()?, &mut self.head)
                }
            }
            _ if is_shared => self.batch(epoch, events, naming, framing),
            _ => sse::batch(events, naming, framing, |out, event| write_id(out, before.at(point(event)))),
        };
        Some((&self.head, bytes))
    }

    /// Several events for all whose cursor is the events' own place.
    fn batch(&mut self, epoch: Epoch, events: &[&SharedEvent], naming: Naming, framing: Framing) -> Bytes {
        let is_kind = |batch: &Batch| (batch.naming, batch.framing) == (naming, framing);
        let is_same = |batch: &Batch| {
            batch.epoch == epoch && batch.events.iter().copied().eq(events.iter().map(|event| event.pos))
        };
        if let Some(batch) = self.batches.iter().find(|batch| is_kind(batch) && is_same(batch)) {
            return batch.bytes.clone();
        }
        let bytes = sse::batch(events, naming, framing, |out, event| write_point(out, Point { epoch, pos: event.pos }));
        self.batches.retain(|batch| !is_kind(batch));
        let events = events.iter().map(|event| event.pos).collect();
        self.batches.push(Batch { naming, framing, epoch, events, bytes: bytes.clone() });
        bytes
    }
}

/// Writes a cursor to the end; nothing where there is none.
pub(super) fn write_id(out: &mut Vec<u8>, id: Id<'_>) {
    let mut points = id.points();
    if let Some(first) = points.next() {
        write_cursor(out, id.partitions(), first, points, id.changes(), None);
    }
}
