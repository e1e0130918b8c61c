//! Frames inside an HTTP/1 body: each a chunk of its own (RFC 9112 §7.1), so that nothing waits for its end.
//!
//! One buffer holds a frame and the chunk around it, so both framings share it.

use std::ops::Range;

use bytes::Bytes;

use crate::digits;

/// How a response's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// HTTP/1.1: `Transfer-Encoding: chunked`.
    Chunked,
    /// The body ends with the connection, or frames are not our business: HTTP/1.0, HTTP/2.
    Identity,
}

impl Framing {
    /// Bytes as they go out: one chunk of them, or they themselves. Of no bytes nothing is made, since an empty
    /// chunk would end the body.
    pub fn chunk(self, bytes: &[u8]) -> Bytes {
        Framed::write(bytes.len(), |out| out.extend_from_slice(bytes)).cut(self)
    }

    /// What ends the body in good order: the last chunk, or nothing.
    pub fn last_chunk(self) -> Bytes {
        match self {
            Self::Chunked => Bytes::from_static(b"0\r\n\r\n"),
            Self::Identity => Bytes::new(),
        }
    }
}

/// What ends a chunk.
pub(super) const CHUNK_END: &[u8; 2] = b"\r\n";

/// Appends what begins a chunk of so many bytes.
pub(super) fn push_chunk_start(out: &mut Vec<u8>, bytes: usize) {
    digits::push::<16>(out, bytes as u64);
    out.extend_from_slice(b"\r\n");
}

/// A frame in the middle of its chunk.
#[derive(Clone, Debug)]
pub(super) struct Framed {
    chunk: Bytes,
    frame: Range<usize>,
}

impl Framed {
    /// Makes a frame of about `capacity` bytes by what `write` appends.
    pub(super) fn write(capacity: usize, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        /// Sixteen digits and a line end: room for the start of any chunk.
        const ROOM: usize = 18;
        let mut out = Vec::with_capacity(ROOM + capacity + CHUNK_END.len());
        out.resize(ROOM, 0);
        write(&mut out);
        let frame_bytes = out.len() - ROOM;
        if frame_bytes == 0 {
            return Self { chunk: Bytes::new(), frame: 0..0 };
        }
        out.extend_from_slice(CHUNK_END);
        let mut start = Vec::with_capacity(ROOM);
        push_chunk_start(&mut start, frame_bytes);
        let unused = ROOM - start.len();
        out[unused..ROOM].copy_from_slice(&start);
        Self { chunk: Bytes::from(out).slice(unused..), frame: start.len()..start.len() + frame_bytes }
    }

    /// The chunk, or the frame alone.
    pub(super) fn cut(&self, framing: Framing) -> Bytes {
        match framing {
            Framing::Chunked => self.chunk.clone(),
            Framing::Identity => self.chunk.slice(self.frame.clone()),
        }
    }
}

/// Joins a chunked body's chunks, checking each.
#[cfg(test)]
pub(super) fn join_chunks(mut body: &[u8]) -> Vec<u8> {
    let mut joined = Vec::new();
    while !body.is_empty() {
        let start = body.windows(2).position(|two| two == b"\r\n").expect("a chunk's size is a line");
        let digits = std::str::from_utf8(&body[..start]).expect("a chunk's size is ASCII");
        let size = usize::from_str_radix(digits, 16).expect("a chunk's size is hexadecimal");
        body = &body[start + 2..];
        assert!(size > 0, "an empty chunk ends the body");
        joined.extend_from_slice(&body[..size]);
        assert_eq!(&body[size..size + 2], b"\r\n", "a chunk ends with a line end");
        body = &body[size + 2..];
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_tells_its_size_in_hexadecimal() {
        assert_eq!(Framing::Chunked.chunk(b"retry: 1\n\n"), &b"a\r\nretry: 1\n\n\r\n"[..]);
        assert_eq!(Framing::Identity.chunk(b"retry: 1\n\n"), &b"retry: 1\n\n"[..]);
        let large = vec![b'x'; 70_000];
        assert!(Framing::Chunked.chunk(&large).starts_with(b"11170\r\nx"));
        assert_eq!(join_chunks(&Framing::Chunked.chunk(&large)), large);
    }

    #[test]
    fn only_the_last_chunk_ends_the_body() {
        assert!(Framing::Chunked.chunk(b"").is_empty());
        assert!(Framing::Identity.chunk(b"").is_empty());
        assert_eq!(Framing::Chunked.last_chunk(), &b"0\r\n\r\n"[..]);
        assert!(Framing::Identity.last_chunk().is_empty());
    }
}
