//! What Fanfare is about, as plain functions: channels, positions and cursors; the store that gives events their
//! place; the feed and the machine that deliver each event once, in order, or tell a gap; the SSE wire form.
//!
//! Nothing here does I/O, reads a clock or knows tokio: time and messages are passed in, so that the simulator in
//! `simulator` can drive the very code that runs in production through faults, thousands of seeds of them.

mod channel;
mod cursor;
mod digits;
mod envelope;
mod event;
mod feed;
mod machine;
mod namespace;
mod partition;
mod pattern;
mod poll;
mod position;
mod rules;
#[cfg(test)]
mod simulator;
mod slack;
pub mod sse;
mod store;
mod wishes;

pub use channel::{CHANNEL_BYTES_MAX, Channel, ChannelError, USER_ID_BYTES_MAX, UserId, UserIdError};
pub use cursor::{
    CHANGES_BYTES_MAX, Change, ChangesTooLong, Cursor, CursorError, ID_BYTES_MAX, SESSION_BYTES_MAX, decode_changes,
    encode_changes, write_cursor, write_point,
};
pub use envelope::{
    EnvelopeError, Message, decode_entry, decode_message, encode_entry, encode_message, encode_purge, entry_tail,
};
pub use event::{
    Content, Draft, Event, EventType, Idempotency, Key, Last, NAME_BYTES_MAX, NameError, Purge, RESERVED_TYPES,
    SharedEvent,
};
pub use feed::{Action, BATCH_MAX, Confirmation, Cut, Delivery, Feed, FeedTiming, SHARDS_MAX, ShardIndex};
pub use machine::{ConnectionKey, Gap, GapReason, Id, Machine, MachineLimits, Outlet, Patch, Replayed, Start};
pub use namespace::ByNamespace;
pub use partition::{PARTITIONS_MAX, Partition, Partitions};
pub use pattern::{DEFAULT_TYPE, Pattern, PatternError, TypePattern, TypePatternError};
pub use poll::{POLL_BYTES_MAX, POLL_EVENTS_MAX, Poll};
pub use position::{Epoch, Point, Position};
pub use rules::Rule;
pub use slack::has_slack;
pub use store::{Caller, Identity, Keep, Marker, Page, PageLimit, Published, Retention, Store};
pub use wishes::{Answer, Query, Read, WishBatch, Wishes};
