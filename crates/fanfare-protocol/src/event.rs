//! What is published and what is delivered.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::{Channel, Position};

/// Bytes of an event's type, and of its key, at most.
pub const NAME_BYTES_MAX: usize = 100;

/// Event types that only Fanfare itself sends.
pub const RESERVED_TYPES: [&str; 6] = ["connected", "subscribed", "gap", "closing", "expiring", "heartbeat"];

/// What a subscriber's `addEventListener` names: `metrics:cpu`.
///
/// Invariant: 1 to 100 bytes without control characters, and none of [`RESERVED_TYPES`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventType(Box<str>);

/// A publisher's own name for what the event is about, stored with it: `cpu`.
///
/// Invariant: 1 to 100 bytes without control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(Box<str>);

/// Why a text is no event type or no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or more than [`NAME_BYTES_MAX`].
    #[error("it has 1 to {NAME_BYTES_MAX} bytes, this one has {0}")]
    Length(usize),
    /// A control character would end its line on the wire.
    #[error("it has no control characters")]
    Control,
    /// One of [`RESERVED_TYPES`].
    #[error("{0:?} is one of Fanfare's own event types")]
    Reserved(String),
}

fn check_name(text: &str) -> Result<(), NameError> {
    if !(1..=NAME_BYTES_MAX).contains(&text.len()) {
        return Err(NameError::Length(text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(NameError::Control);
    }
    Ok(())
}

impl EventType {
    /// Takes an event type as a publisher writes it.
    ///
    /// # Errors
    /// Says which rule it breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_name(text)?;
        if RESERVED_TYPES.contains(&text) {
            return Err(NameError::Reserved(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Key {
    /// Takes a key as a publisher writes it.
    ///
    /// # Errors
    /// Says which rule it breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_name(text)?;
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a channel stands: the position of its newest event, or as much as is known of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Last {
    /// The position.
    pub pos: Position,
    /// Whether an event of the channel stands exactly there. If not, the channel was forgotten, and the position is
    /// a floor: whatever it had stood there or before.
    pub exact: bool,
}

/// What an event says, apart from where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The SSE event type; none is `message` to a browser.
    pub name: Option<EventType>,
    /// The publisher's own name for what it is about.
    pub key: Option<Key>,
    /// Seconds after which history hides it.
    pub ttl: Option<NonZeroU32>,
    /// The text that is delivered.
    pub data: Box<str>,
}

/// An event that has its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where it was published.
    pub channel: Channel,
    /// Its place in the partition.
    pub pos: Position,
    /// Where the channel stood before it, so that whoever receives it knows whether it missed one.
    pub prev: Last,
    /// What it says.
    pub content: Content,
}

impl Event {
    /// Whether its time to live is over: history hides it from then on, without a gap.
    pub fn is_expired(&self, now: Duration) -> bool {
        let ttl = self.content.ttl.map(|seconds| Duration::from_secs(u64::from(seconds.get())));
        ttl.is_some_and(|ttl| Duration::from_micros(self.pos.0) + ttl <= now)
    }

    /// Bytes that it costs to keep, roughly: the text and what surrounds it.
    pub fn cost(&self) -> usize {
        let name = self.content.name.as_ref().map_or(0, |name| name.0.len());
        let key = self.content.key.as_ref().map_or(0, |key| key.0.len());
        size_of::<Self>() + name + key + self.content.data.len()
    }
}

/// A channel's history was emptied. It has a place in the channel's chain, as an event has, and is never delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// Whose history.
    pub channel: Channel,
    /// Its place in the partition: everything of the channel before it is gone.
    pub pos: Position,
    /// Where the channel stood before it.
    pub prev: Last,
}

/// An event that waits for its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Where it goes.
    pub channel: Channel,
    /// What it says.
    pub content: Content,
    /// Publishes it once, however often it is sent.
    pub idempotency: Option<Idempotency>,
}

/// What makes a publish repeatable: within the window, the same key publishes nothing again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Idempotency {
    /// Digest over the length-prefixed publisher, channel and idempotency key.
    pub digest: [u8; 16],
    /// Digest over the content, to tell a repetition from a mistake.
    pub body: [u8; 16],
}

/// Events are shared between history, tails and the frames made of them.
pub type SharedEvent = Arc<Event>;
