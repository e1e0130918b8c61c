//! The wire form of Server-Sent Events: WHATWG HTML §9.2, both directions.
//!
//! An event's bytes are made once for all connections that can share them ([`EventFrames`]). Where the id differs per
//! connection, only its short line does: a head of its own goes before the shared rest, in one chunk. What the
//! connection then does with the bytes is the shard's business.

mod chunk; // How frames lie in an HTTP/1 body.
mod decode; // What a browser makes of them.
mod encode; // Events as frames.
mod own; // Fanfare's own frames.

pub use chunk::Framing;
pub use decode::{Decoder, Message, TooLong};
pub use encode::{EventFrames, IdText, IdTextError, Naming, batch};
pub use own::{control, heartbeat, retry};
