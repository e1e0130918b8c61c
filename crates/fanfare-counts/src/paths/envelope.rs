//! Events as they travel and as they are written: plain functions of `fanfare-protocol`.

use std::hint::black_box;
use std::sync::Arc;

use fanfare_protocol::sse::{EventFrames, Framing, Naming};
use fanfare_protocol::{
    Channel, Content, Epoch, Event, EventType, Last, Point, Position, decode_message, encode_message,
};

use super::DATA;
use crate::tally::{path, section};

const TIMES: [usize; 2] = [10, 110];

pub(super) fn go() {
    let epoch = Epoch::parse("k3f9x2ab").expect("an epoch");
    let channel = Channel::parse("server:7").expect("a channel");
    let name = Some(EventType::parse("news").expect("a type"));
    let event = Event {
        channel: channel.clone(),
        pos: Position(1_795_229_238_000_000),
        prev: Last { pos: Position(1_795_229_237_000_000), exact: true },
        content: Content { name, key: None, ttl: None, data: DATA.into() },
    };
    let message = encode_message(epoch, &event);

    repeat("encode-envelope", || drop(black_box(encode_message(epoch, black_box(&event)))));
    repeat("decode-envelope", || drop(black_box(decode_message(channel.clone(), black_box(&message)))));
    let event = Arc::new(event);
    let id = Point { epoch, pos: event.pos };
    repeat("encode-frame", || {
        drop(black_box(EventFrames::new(black_box(&event).clone()).shared(Naming::Named, Framing::Chunked, id)));
    });
}

/// What a plain function costs.
pub(super) fn repeat(name: &str, mut work: impl FnMut()) {
    path(name, TIMES, |times| section(&mut || (0..times).for_each(|_| work())));
}
