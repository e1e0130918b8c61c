//! Events as they rest in Redis's lists and travel over its Pub/Sub.
//!
//! A script puts an entry together by joining strings, since only there a position is known: what it adds comes
//! first, and [`entry_tail`] is the rest. The version leads, so that programs of two versions understand each other
//! or say that they don't. The channel isn't in it: the list's and the message's own name tell it.
//!
//! ```text
//! entry    = "1 " pos " " prev ("=" / "~") tail      prev: of the channel, exact or not
//! tail     = " " name-bytes " " key-bytes " " ttl " " name key data
//! message  = "1 " epoch " " (entry / purge)
//! purge    = "2 " pos " " prev ("=" / "~") " purge"  never in a list
//! ```
//! Numbers are decimal; 0 bytes and a ttl of 0 mean none. Name, key and data follow one another unseparated.
//!
//! A program that knows no entries of version 2 takes a purge for a damaged stream: it opens its link again, finds that
//! the channel has moved, and tells a gap. Nothing is delivered that shouldn't be.

use std::num::NonZeroU32;

use memchr::memchr;

use crate::{Channel, Content, Epoch, Event, EventType, Key, Last, NAME_BYTES_MAX, NameError, Position, Purge, digits};

const VERSION: &[u8] = b"1";

/// Of what stands in an entry's place and is no event.
const OTHER_VERSION: &[u8] = b"2";

const PURGE: &[u8] = b"purge";

/// What comes for a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Something was published.
    Event(Event),
    /// The history was emptied.
    Purge(Purge),
}

/// Why bytes are no entry and no message. Somebody else wrote them, or something cut them off.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// A version that this program doesn't know.
    #[error("it is of version {0}, expected 1")]
    Version(u64),
    /// It ends before all that it announces has come.
    #[error("it ends early, expected {0}")]
    Cut(&'static str),
    /// A field of the header isn't what version 1 writes there.
    #[error("its header is damaged, expected {0}")]
    Header(&'static str),
    /// Name, key or data isn't text.
    #[error("its {0} is not UTF-8")]
    Utf8(&'static str),
    /// No event has such a type.
    #[error("not an event type")]
    Name(#[source] NameError),
    /// No event has such a key.
    #[error("not a key")]
    Key(#[source] NameError),
}

/// All of an entry that is known before the event has its position.
pub fn entry_tail(content: &Content) -> Vec<u8> {
    let mut out = Vec::with_capacity(tail_capacity(content));
    write_tail(&mut out, content);
    out
}

/// An event as it rests in history.
pub fn encode_entry(event: &Event) -> Vec<u8> {
    let mut out = Vec::with_capacity(48 + tail_capacity(&event.content));
    write_entry(&mut out, event);
    out
}

/// An event as it travels: the entry, and the epoch in which its position counts.
pub fn encode_message(epoch: Epoch, event: &Event) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + tail_capacity(&event.content));
    out.extend_from_slice(VERSION);
    out.push(b' ');
    out.extend_from_slice(epoch.as_str().as_bytes());
    out.push(b' ');
    write_entry(&mut out, event);
    out
}

/// A purge as it travels.
pub fn encode_purge(epoch: Epoch, purge: &Purge) -> Vec<u8> {
    let mut out = [VERSION, b" ", epoch.as_str().as_bytes(), b" ", OTHER_VERSION, b" "].concat();
    write_place(&mut out, purge.pos, purge.prev);
    out.push(b' ');
    out.extend_from_slice(PURGE);
    out
}

/// Reads an entry of a channel's history.
///
/// # Errors
/// Says what was expected where; an unknown version before anything else.
pub fn decode_entry(channel: Channel, entry: &[u8]) -> Result<Event, EnvelopeError> {
    let mut unread = Unread(entry);
    unread.version()?;
    let pos = Position(unread.number("a position", Position::MAX.0)?);
    let prev = unread.last()?;
    let name_bytes = unread.number("the bytes of a name", NAME_BYTES_MAX as u64)? as usize;
    let key_bytes = unread.number("the bytes of a key", NAME_BYTES_MAX as u64)? as usize;
    let ttl = unread.number("a ttl", u64::from(u32::MAX))? as u32;
    let name = unread.text("name", name_bytes)?;
    let key = unread.text("key", key_bytes)?;
    let data = std::str::from_utf8(unread.0).map_err(|_| EnvelopeError::Utf8("data"))?;
    let content = Content {
        name: name.map(EventType::parse).transpose().map_err(EnvelopeError::Name)?,
        key: key.map(Key::parse).transpose().map_err(EnvelopeError::Key)?,
        ttl: NonZeroU32::new(ttl),
        data: data.into(),
    };
    Ok(Event { channel, pos, prev, content })
}

/// Reads a message that came for a channel.
///
/// # Errors
/// As [`decode_entry`].
pub fn decode_message(channel: Channel, message: &[u8]) -> Result<(Epoch, Message), EnvelopeError> {
    let mut unread = Unread(message);
    unread.version()?;
    let epoch = std::str::from_utf8(unread.field("an epoch")?).ok().and_then(Epoch::parse);
    let epoch = epoch.ok_or(EnvelopeError::Header("an epoch"))?;
    let message = match unread.0.strip_prefix(OTHER_VERSION).and_then(|rest| rest.strip_prefix(b" ")) {
        Some(rest) => Message::Purge(decode_purge(channel, rest)?),
        None => Message::Event(decode_entry(channel, unread.0)?),
    };
    Ok((epoch, message))
}

fn decode_purge(channel: Channel, rest: &[u8]) -> Result<Purge, EnvelopeError> {
    let mut unread = Unread(rest);
    let pos = Position(unread.number("a position", Position::MAX.0)?);
    let prev = unread.last()?;
    if unread.0 == PURGE { Ok(Purge { channel, pos, prev }) } else { Err(EnvelopeError::Header("a purge")) }
}

fn write_entry(out: &mut Vec<u8>, event: &Event) {
    out.extend_from_slice(VERSION);
    out.push(b' ');
    write_place(out, event.pos, event.prev);
    write_tail(out, &event.content);
}

fn write_place(out: &mut Vec<u8>, pos: Position, prev: Last) {
    digits::push_decimal(out, pos.0);
    out.push(b' ');
    digits::push_decimal(out, prev.pos.0);
    out.push(if prev.exact { b'=' } else { b'~' });
}

fn write_tail(out: &mut Vec<u8>, content: &Content) {
    let name = content.name.as_ref().map_or("", EventType::as_str);
    let key = content.key.as_ref().map_or("", Key::as_str);
    out.push(b' ');
    digits::push_decimal(out, name.len() as u64);
    out.push(b' ');
    digits::push_decimal(out, key.len() as u64);
    out.push(b' ');
    digits::push_decimal(out, content.ttl.map_or(0, |ttl| u64::from(ttl.get())));
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(content.data.as_bytes());
}

fn tail_capacity(content: &Content) -> usize {
    let name = content.name.as_ref().map_or(0, |name| name.as_str().len());
    let key = content.key.as_ref().map_or(0, |key| key.as_str().len());
    24 + name + key + content.data.len()
}

/// What is left to read.
struct Unread<'a>(&'a [u8]);

impl<'a> Unread<'a> {
    /// A field of the header: what stands before the next space.
    fn field(&mut self, expected: &'static str) -> Result<&'a [u8], EnvelopeError> {
        let end = memchr(b' ', self.0).ok_or(EnvelopeError::Cut(expected))?;
        let (field, rest) = (&self.0[..end], &self.0[end + 1..]);
        self.0 = rest;
        Ok(field)
    }

    fn version(&mut self) -> Result<(), EnvelopeError> {
        match self.field("a version")? {
            VERSION => Ok(()),
            other => Err(digits::parse::<10>(other).map_or(EnvelopeError::Header("a version"), EnvelopeError::Version)),
        }
    }

    fn number(&mut self, expected: &'static str, max: u64) -> Result<u64, EnvelopeError> {
        let field = self.field(expected)?;
        digits::parse::<10>(field).filter(|number| *number <= max).ok_or(EnvelopeError::Header(expected))
    }

    fn last(&mut self) -> Result<Last, EnvelopeError> {
        const EXPECTED: &str = "the position before, with = or ~";
        let (pos, exact) = match self.field(EXPECTED)? {
            [pos @ .., b'='] => (pos, true),
            [pos @ .., b'~'] => (pos, false),
            _ => return Err(EnvelopeError::Header(EXPECTED)),
        };
        let pos = digits::parse::<10>(pos).filter(|pos| *pos <= Position::MAX.0);
        Ok(Last { pos: Position(pos.ok_or(EnvelopeError::Header(EXPECTED))?), exact })
    }

    /// So many bytes of text; none of them is no text.
    fn text(&mut self, what: &'static str, bytes: usize) -> Result<Option<&'a str>, EnvelopeError> {
        let (text, rest) = self.0.split_at_checked(bytes).ok_or(EnvelopeError::Cut(what))?;
        self.0 = rest;
        let text = std::str::from_utf8(text).map_err(|_| EnvelopeError::Utf8(what))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::option;
    use proptest::prelude::*;

    fn channel() -> Channel {
        Channel::parse("server:7").expect("valid")
    }

    fn plain(data: &str) -> Event {
        let content = Content { name: None, key: None, ttl: None, data: data.into() };
        Event { channel: channel(), pos: Position(12), prev: Last { pos: Position(7), exact: true }, content }
    }

    fn full() -> Event {
        let content = Content {
            name: Some(EventType::parse("größe: x").expect("valid")),
            key: Some(Key::parse("cpu").expect("valid")),
            ttl: NonZeroU32::new(60),
            data: "{\"a\": 1}\n".into(),
        };
        Event { prev: Last { pos: Position(0), exact: false }, content, ..plain("") }
    }

    #[test]
    fn an_entry_is_a_header_and_the_text() {
        assert_eq!(encode_entry(&plain("hi")), b"1 12 7= 0 0 0 hi");
        assert_eq!(encode_entry(&full()), "1 12 0~ 10 3 60 größe: xcpu{\"a\": 1}\n".as_bytes());
        let epoch = Epoch::parse("k3f9x2").expect("valid");
        assert_eq!(encode_message(epoch, &plain("")), b"1 k3f9x2 1 12 7= 0 0 0 ");
        let purge = Purge { channel: channel(), pos: Position(12), prev: Last { pos: Position(7), exact: false } };
        assert_eq!(encode_purge(epoch, &purge), b"1 k3f9x2 2 12 7~ purge");
    }

    #[test]
    fn a_script_makes_an_entry_by_joining_strings() {
        let tail = entry_tail(&full().content);
        let joined = [&b"1 "[..], b"12", b" ", b"0", b"~", &tail].concat();
        assert_eq!(joined, encode_entry(&full()));
    }

    #[test]
    fn what_is_no_entry_says_why() {
        use EnvelopeError::{Cut, Header, Utf8, Version};
        let last = "the position before, with = or ~";
        for (entry, error) in [
            (&b""[..], Cut("a version")),
            (b"1", Cut("a version")),
            (b"2 whatever it may have", Version(2)),
            (b"x 12 7= 0 0 0 ", Header("a version")),
            (b"01 12 7= 0 0 0 ", Header("a version")),
            (b"1  7= 0 0 0 ", Header("a position")),
            (b"1 -1 7= 0 0 0 ", Header("a position")),
            (b"1 1e15 7= 0 0 0 ", Header("a position")),
            (b"1 9007199254740992 7= 0 0 0 ", Header("a position")),
            (b"1 12 7 0 0 0 ", Header(last)),
            (b"1 12 = 0 0 0 ", Header(last)),
            (b"1 12 9007199254740992~ 0 0 0 ", Header(last)),
            (b"1 12 7= 101 0 0 ", Header("the bytes of a name")),
            (b"1 12 7= 0 101 0 ", Header("the bytes of a key")),
            (b"1 12 7= 0 0 4294967296 ", Header("a ttl")),
            (b"1 12 7= 0 0 0", Cut("a ttl")),
            (b"1 12 7= 3 0 0 ab", Cut("name")),
            (b"1 12 7= 1 3 0 abc", Cut("key")),
            (b"1 12 7= 2 0 0 a\xc3\xa4", Utf8("name")),
            (b"1 12 7= 0 1 0 \xff", Utf8("key")),
            (b"1 12 7= 0 0 0 \xff", Utf8("data")),
            (b"1 12 7= 3 0 0 gap", EnvelopeError::Name(NameError::Reserved("gap".to_owned()))),
            (b"1 12 7= 1 0 0 \n", EnvelopeError::Name(NameError::Control)),
            (b"1 12 7= 0 1 0 \0", EnvelopeError::Key(NameError::Control)),
        ] {
            assert_eq!(decode_entry(channel(), entry), Err(error), "{}", entry.escape_ascii());
        }
        assert_eq!(decode_message(channel(), b"1 k3f9 1 12 7= 0 0 0 "), Err(Header("an epoch")));
        assert_eq!(decode_message(channel(), b"1 k3f9\xff2 1 12 7= 0 0 0 "), Err(Header("an epoch")));
        assert_eq!(decode_message(channel(), b"2 k3f9x2 1 12 7= 0 0 0 "), Err(Version(2)));
        assert_eq!(decode_message(channel(), b"1 k3f9x2 2 12 7= else"), Err(Header("a purge")));
        assert_eq!(decode_message(channel(), b"1 k3f9x2 2 12 7="), Err(Cut(last)));
        assert_eq!(decode_entry(channel(), b"2 12 7= purge"), Err(Version(2)), "none rests in a list");
        assert_eq!(decode_message(channel(), b"1 k3f9x2 3 12 7= 0 0 0 "), Err(Version(3)));
    }

    fn events() -> impl Strategy<Value = Event> {
        let name = option::of(any::<String>().prop_map(|text| EventType::parse(&text).ok()));
        let key = option::of(any::<String>().prop_map(|text| Key::parse(&text).ok()));
        let place = 0..=Position::MAX.0;
        (name, key, any::<u32>(), any::<String>(), place.clone(), place, any::<bool>()).prop_map(
            |(name, key, ttl, data, pos, prev, exact)| Event {
                channel: channel(),
                pos: Position(pos),
                prev: Last { pos: Position(prev), exact },
                content: Content {
                    name: name.flatten(),
                    key: key.flatten(),
                    ttl: NonZeroU32::new(ttl),
                    data: data.into(),
                },
            },
        )
    }

    proptest! {
        #[test]
        fn an_event_is_read_as_it_was_written(event in events(), epoch: u64) {
            let epoch = Epoch::from_random(epoch);
            prop_assert_eq!(decode_entry(channel(), &encode_entry(&event)), Ok(event.clone()));
            let purge = Purge { channel: channel(), pos: event.pos, prev: event.prev };
            let sent = decode_message(channel(), &encode_message(epoch, &event));
            prop_assert_eq!(sent, Ok((epoch, Message::Event(event))));
            let sent = decode_message(channel(), &encode_purge(epoch, &purge));
            prop_assert_eq!(sent, Ok((epoch, Message::Purge(purge))));
        }

        #[test]
        fn any_bytes_are_an_entry_or_an_error(
            bytes: Vec<u8>, header in "1 [0-9]{1,17} [0-9]{1,17}[=~] [0-9] [0-9] [0-9]{1,11} ",
        ) {
            _ = decode_entry(channel(), &bytes);
            _ = decode_message(channel(), &bytes);
            let entry = [header.as_bytes(), &bytes].concat();
            if let Ok(event) = decode_entry(channel(), &entry) {
                prop_assert_eq!(encode_entry(&event), entry);
            }
        }

        #[test]
        fn a_header_that_was_cut_off_is_an_error(event in events(), place: prop::sample::Index) {
            let entry = encode_entry(&event);
            let header = entry.len() - event.content.data.len();
            prop_assert!(decode_entry(channel(), &entry[..place.index(header)]).is_err());
        }
    }
}
