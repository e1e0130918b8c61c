//! Events as frames, made once and only as far as somebody needs them.
//!
//! A frame is `id: <cursor>@<channel>`, `event: <type>` where there is one, a `data:` line per line of data, and a
//! blank line. After each colon stands one space, which readers take away, so that data may begin with another.

use std::cell::OnceCell;

use bytes::Bytes;
use memchr::memchr2;

use super::chunk::{CHUNK_END, Framed, Framing, push_chunk_start};
use crate::cursor::write_point;
use crate::{Event, Point, SharedEvent};

/// Whether events keep their types on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Naming {
    /// `event:` tells the type, where an event has one.
    Named,
    /// No `event:` lines, so that `onmessage` hears everything.
    Unnamed,
}

/// What may stand in an `id:` line: a cursor.
///
/// Invariant: not empty, visible ASCII only. A line end would end the line, a NUL make browsers ignore the id
/// (§9.2.6), and anything else might not come back in a `Last-Event-ID` header as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdText<'a>(&'a [u8]);

/// A text that no id line can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is made of visible ASCII characters, and of one at least")]
pub struct IdTextError;

impl<'a> IdText<'a> {
    /// Takes a cursor's text.
    ///
    /// # Errors
    /// Where it isn't one: see the invariant.
    pub fn new(text: &'a [u8]) -> Result<Self, IdTextError> {
        if text.is_empty() || !text.iter().all(u8::is_ascii_graphic) { Err(IdTextError) } else { Ok(Self(text)) }
    }

    /// The text.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

/// The frames of one event. Each variant is made when it is first asked for; framings share their bytes.
///
/// It belongs to one shard: several that deliver the event make their own.
#[derive(Debug)]
pub struct EventFrames {
    event: SharedEvent,
    /// By naming: what follows the id line, and the end of its chunk.
    rests: [OnceCell<Bytes>; 2],
    /// By naming: a whole frame, and the id in it.
    shared: [OnceCell<(Point, Framed)>; 2],
}

impl EventFrames {
    /// Makes nothing yet.
    pub fn new(event: SharedEvent) -> Self {
        Self { event, rests: Default::default(), shared: Default::default() }
    }

    /// The event.
    pub fn event(&self) -> &SharedEvent {
        &self.event
    }

    /// The whole frame, for all connections whose cursor is no more than `id`: those of a deployment with one
    /// partition, with neither changes nor session. It is kept for the first id asked for, and made anew for another.
    pub fn shared(&self, naming: Naming, framing: Framing, id: Point) -> Bytes {
        let variant = variant(&self.event, naming);
        let make = || (id, self.make_shared(variant, id));
        match self.shared[variant].get_or_init(make) {
            (kept, framed) if *kept == id => framed.cut(framing),
            _ => make().1.cut(framing),
        }
    }

    /// The frame for a connection with a cursor of its own, in two parts that are written together: appends the first
    /// to `head` and returns the second, which all connections share. With chunks, both are one chunk.
    pub fn own(&self, naming: Naming, framing: Framing, cursor: IdText<'_>, head: &mut Vec<u8>) -> Bytes {
        let variant = variant(&self.event, naming);
        let rest = self.rests[variant].get_or_init(|| {
            let mut rest = Vec::with_capacity(rest_capacity(&self.event) + CHUNK_END.len());
            write_rest(&mut rest, &self.event, variant);
            rest.extend_from_slice(CHUNK_END);
            rest.into()
        });
        let rest_bytes = rest.len() - CHUNK_END.len();
        if framing == Framing::Chunked {
            let line_bytes = b"id: @\n".len() + cursor.0.len() + self.event.channel.as_str().len();
            push_chunk_start(head, line_bytes + rest_bytes);
        }
        head.extend_from_slice(b"id: ");
        head.extend_from_slice(cursor.0);
        end_id_line(head, &self.event);
        match framing {
            Framing::Chunked => rest.clone(),
            Framing::Identity => rest.slice(..rest_bytes),
        }
    }

    fn make_shared(&self, variant: usize, id: Point) -> Framed {
        Framed::write(frame_capacity(&self.event), |out| {
            out.extend_from_slice(b"id: ");
            write_point(out, id);
            end_id_line(out, &self.event);
            write_rest(out, &self.event, variant);
        })
    }
}

/// The frames of several events, one after another in one piece; with chunks, one chunk. `id` appends each one's cursor.
pub fn batch(
    events: &[&SharedEvent],
    naming: Naming,
    framing: Framing,
    mut id: impl FnMut(&mut Vec<u8>, &SharedEvent),
) -> Bytes {
    let framed = Framed::write(events.iter().map(|event| frame_capacity(event)).sum(), |out| {
        for event in events {
            out.extend_from_slice(b"id: ");
            id(out, event);
            end_id_line(out, event);
            write_rest(out, event, variant(event, naming));
        }
    });
    framed.cut(framing)
}

/// Where a naming's bytes are kept. An event without a type is the same in both.
fn variant(event: &Event, naming: Naming) -> usize {
    usize::from(naming == Naming::Named && event.content.name.is_some())
}

fn end_id_line(out: &mut Vec<u8>, event: &Event) {
    out.push(b'@');
    out.extend_from_slice(event.channel.as_str().as_bytes());
    out.push(b'\n');
}

fn write_rest(out: &mut Vec<u8>, event: &Event, variant: usize) {
    if let Some(name) = event.content.name.as_ref().filter(|_| variant == 1) {
        write_type(out, name.as_str());
    }
    write_data(out, &event.content.data);
    out.push(b'\n');
}

/// About as many bytes as a frame has whose cursor is one point.
fn frame_capacity(event: &Event) -> usize {
    rest_capacity(event) + 40 + event.channel.as_str().len()
}

/// About as many bytes as the rest of a frame has: a few lines of data are allowed for.
fn rest_capacity(event: &Event) -> usize {
    let name = event.content.name.as_ref().map_or(0, |name| name.as_str().len());
    event.content.data.len() + name + 48
}

/// Appends an `event:` line. No event type has a line end in it.
pub(super) fn write_type(out: &mut Vec<u8>, event_type: &str) {
    debug_assert!(!event_type.contains(['\n', '\r']), "{event_type:?} would end its line");
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(event_type.as_bytes());
    out.push(b'\n');
}

/// Appends a `data:` line per line of the data, whichever of CRLF, LF and CR ends it. Empty data is one empty line:
/// without any, browsers would dispatch nothing (§9.2.6).
pub(super) fn write_data(out: &mut Vec<u8>, data: &str) {
    let mut rest = data.as_bytes();
    loop {
        out.extend_from_slice(b"data: ");
        let Some(end) = memchr2(b'\n', b'\r', rest) else {
            out.extend_from_slice(rest);
            out.push(b'\n');
            return;
        };
        out.extend_from_slice(&rest[..end]);
        out.push(b'\n');
        let line_end = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[end + line_end..];
    }
}

#[cfg(test)]
mod tests {
    use super::super::chunk::join_chunks;
    use super::super::{Decoder, Message};
    use super::*;
    use crate::{Channel, Content, Epoch, EventType, Last, Position};
    use proptest::option;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn frames(name: Option<&str>, data: &str) -> EventFrames {
        let name = name.map(|name| EventType::parse(name).expect(name));
        EventFrames::new(Arc::new(Event {
            channel: Channel::parse("server:7").expect("valid"),
            pos: Position(12),
            prev: Last::default(),
            content: Content { name, key: None, ttl: None, data: data.into() },
        }))
    }

    fn point(pos: u64) -> Point {
        Point { epoch: Epoch::parse("k3f9x2").expect("valid"), pos: Position(pos) }
    }

    fn own(frames: &EventFrames, naming: Naming, framing: Framing, cursor: &str) -> Vec<u8> {
        let mut frame = Vec::new();
        let cursor = IdText::new(cursor.as_bytes()).expect("valid");
        let rest = frames.own(naming, framing, cursor, &mut frame);
        frame.extend_from_slice(&rest);
        frame
    }

    #[test]
    fn an_event_is_an_id_a_type_and_lines_of_data() {
        let event = frames(Some("metrics:cpu"), "a\r\n\nb\rc");
        let named = "id: k3f9x2-12@server:7\nevent: metrics:cpu\ndata: a\ndata: \ndata: b\ndata: c\n\n";
        let unnamed = "id: k3f9x2-12@server:7\ndata: a\ndata: \ndata: b\ndata: c\n\n";
        assert_eq!(event.shared(Naming::Named, Framing::Identity, point(12)), named);
        assert_eq!(event.shared(Naming::Unnamed, Framing::Identity, point(12)), unnamed);
        assert_eq!(event.shared(Naming::Named, Framing::Chunked, point(12)), format!("4a\r\n{named}\r\n"));
        let own = own(&event, Naming::Named, Framing::Chunked, "2:1=k3f9x2-12,0=k3f9x2-5!s");
        let expected = named.replace("k3f9x2-12", "2:1=k3f9x2-12,0=k3f9x2-5!s");
        assert_eq!(own, format!("5b\r\n{expected}\r\n").as_bytes());
    }

    #[test]
    fn empty_data_is_dispatched() {
        let frame = frames(None, "").shared(Naming::Named, Framing::Identity, point(12));
        assert_eq!(frame, "id: k3f9x2-12@server:7\ndata: \n\n");
        let message = Decoder::new(1000).next_message(&mut &frame[..]).expect("short").expect("dispatched");
        assert_eq!((message.data.as_str(), message.event.as_str()), ("", "message"));
    }

    #[test]
    fn framings_and_connections_share_the_bytes() {
        let event = frames(None, "hi");
        let chunk = event.shared(Naming::Named, Framing::Chunked, point(12));
        let again = event.shared(Naming::Unnamed, Framing::Chunked, point(12));
        assert_eq!(chunk.as_ptr(), again.as_ptr(), "without a type both namings are one");
        let frame = event.shared(Naming::Named, Framing::Identity, point(12));
        assert!(chunk.as_ptr_range().contains(&frame.as_ptr()));
        let cursor = IdText::new(b"k3f9x2-12!s").expect("valid");
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let first = event.own(Naming::Named, Framing::Chunked, cursor, &mut a);
        let second = event.own(Naming::Named, Framing::Identity, cursor, &mut b);
        assert_eq!(first.as_ptr(), second.as_ptr());
    }

    #[test]
    fn another_id_is_another_frame() {
        let event = frames(None, "hi");
        let before = event.shared(Naming::Named, Framing::Identity, point(12));
        let other = event.shared(Naming::Named, Framing::Identity, point(13));
        assert_eq!(other, "id: k3f9x2-13@server:7\ndata: hi\n\n");
        assert_eq!(event.shared(Naming::Named, Framing::Identity, point(12)).as_ptr(), before.as_ptr());
    }

    #[test]
    fn an_id_can_end_neither_its_line_nor_itself() {
        for text in ["", "a\n", "a\rb", "a\0", "a b", "ä"] {
            assert_eq!(IdText::new(text.as_bytes()), Err(IdTextError), "{text:?}");
        }
        assert_eq!(IdText::new(b"8:1=k3f9x2-5;+a%2B!s@c").map(IdText::as_bytes), Ok(&b"8:1=k3f9x2-5;+a%2B!s@c"[..]));
    }

    /// Text that has what could go wrong: line ends of each kind, colons, spaces, NUL, byte order marks.
    fn texts() -> impl Strategy<Value = String> {
        let pieces = prop_oneof![
            Just("\n"),
            Just("\r"),
            Just("\r\n"),
            Just(":"),
            Just(" "),
            Just("\0"),
            Just("\u{feff}"),
            Just("data: "),
            Just("id: "),
            Just("ü"),
            Just("x"),
        ];
        prop_oneof![proptest::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat()), any::<String>()]
    }

    proptest! {
        #[test]
        fn a_browser_reads_what_was_published(
            name in option::of("[a-z: ü]{1,9}"), data in texts(), next in texts(),
            unnamed: bool, chunked: bool, cuts in proptest::collection::vec(1..9_usize, 0..40),
        ) {
            let naming = if unnamed { Naming::Unnamed } else { Naming::Named };
            let framing = if chunked { Framing::Chunked } else { Framing::Identity };
            let name = name.filter(|name| EventType::parse(name).is_ok());
            let mut body = frames(name.as_deref(), &data).shared(naming, framing, point(12)).to_vec();
            body.extend(own(&frames(None, &next), naming, framing, "2:0=k3f9x2-13"));
            let body = if chunked { join_chunks(&body) } else { body };

            let (mut decoder, mut messages, mut rest) = (Decoder::new(100_000), Vec::new(), &body[..]);
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (mut read, unread) = rest.split_at(cut.min(rest.len()));
                rest = unread;
                while let Some(message) = decoder.next_message(&mut read).expect("short") {
                    messages.push(message);
                }
            }
            let as_lf = |data: &str| data.replace("\r\n", "\n").replace('\r', "\n");
            let event = name.filter(|_| !unnamed).unwrap_or_else(|| "message".to_owned());
            prop_assert_eq!(messages, [
                Message { id: "k3f9x2-12@server:7".to_owned(), event, data: as_lf(&data) },
                Message { id: "2:0=k3f9x2-13@server:7".to_owned(), event: "message".to_owned(), data: as_lf(&next) },
            ]);
        }

        #[test]
        fn a_batch_is_its_frames_one_after_another(datas in proptest::collection::vec(texts(), 1..5), unnamed: bool) {
            let naming = if unnamed { Naming::Unnamed } else { Naming::Named };
            let events: Vec<_> = datas.iter().map(|data| frames(Some("t"), data)).collect();
            let single = |framing| events.iter().map(move |event| event.shared(naming, framing, point(12)));
            let borrowed: Vec<_> = events.iter().map(EventFrames::event).collect();
            let of = |framing| batch(&borrowed, naming, framing, |out, _| write_point(out, point(12)));
            prop_assert_eq!(&of(Framing::Identity)[..], &single(Framing::Identity).collect::<Vec<_>>().concat()[..]);
            prop_assert_eq!(&join_chunks(&of(Framing::Chunked))[..], &of(Framing::Identity)[..]);
        }

        #[test]
        fn all_variants_with_one_id_say_the_same(name in option::of("[a-z]{1,9}"), data in texts(), unnamed: bool) {
            let event = frames(name.as_deref().filter(|name| EventType::parse(name).is_ok()), &data);
            let naming = if unnamed { Naming::Unnamed } else { Naming::Named };
            let (chunked, identity) = (Framing::Chunked, Framing::Identity);
            let shared = event.shared(naming, chunked, point(12));
            prop_assert_eq!(&own(&event, naming, chunked, "k3f9x2-12")[..], &shared[..]);
            let frame = event.shared(naming, identity, point(12));
            prop_assert_eq!(&own(&event, naming, identity, "k3f9x2-12")[..], &frame[..]);
            prop_assert_eq!(&join_chunks(&shared)[..], &frame[..]);
        }
    }
}
