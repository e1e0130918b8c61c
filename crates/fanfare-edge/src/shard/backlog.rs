//! Bytes that wait for one connection.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use bytes::{Buf, Bytes};

/// Slices that one write takes at most.
const SLICES_MAX: usize = 64;

/// Frames that a socket hasn't taken yet, in order; the first may be taken in part. Empty, it owns no memory.
#[derive(Debug, Default)]
pub(super) struct Backlog(Option<Box<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Frame>,
    bytes: usize,
}

/// Bytes that leave or are dropped together, and how many events are in them.
#[derive(Debug)]
struct Frame {
    bytes: Bytes,
    events: usize,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.bytes)
    }

    /// Whether more than `bytes_max` waits besides the frame being written, with what its frames take themselves. Two
    /// frames alone are never too much: an event may be as large as it likes, and so may the next one.
    pub(super) fn is_over(&self, bytes_max: usize) -> bool {
        let frames = self.0.as_ref().map_or(0, |waiting| waiting.frames.len());
        let behind = self.bytes() - self.first().map_or(0, Bytes::len);
        frames > 2 && behind + frames * size_of::<Frame>() > bytes_max
    }

    /// Appends bytes with so many events in them.
    pub(super) fn push(&mut self, bytes: Bytes, events: usize) {
        if !bytes.is_empty() {
            let waiting = self.0.get_or_insert_default();
            waiting.bytes += bytes.len();
            waiting.frames.push_back(Frame { bytes, events });
        }
    }

    /// Something that has to go out before all that waits. None of it has begun to, and no event in it can be dropped.
    pub(super) fn push_front(&mut self, bytes: Bytes) {
        let waiting = self.0.get_or_insert_default();
        waiting.bytes += bytes.len();
        waiting.frames.push_front(Frame { bytes, events: 0 });
    }

    /// Drops the frames that haven't begun to go out. Answers how many events were in them.
    pub(super) fn drop_unbegun(&mut self, first_has_begun: bool) -> usize {
        let Some(waiting) = self.0.take() else { return 0 };
        let mut frames = waiting.frames.into_iter();
        for begun in frames.by_ref().take(usize::from(first_has_begun)) {
            self.push(begun.bytes, begun.events);
        }
        frames.map(|frame| frame.events).sum()
    }

    fn first(&self) -> Option<&Bytes> {
        self.0.as_ref()?.frames.front().map(|first| &first.bytes)
    }

    /// Writes until it is empty or the socket takes no more. Answers how many bytes went.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn flush(&mut self, socket: &mut impl Write) -> io::Result<usize> {
        let mut total = 0;
        while let Some(waiting) = &self.0 {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (slice, frame) in slices.iter_mut().zip(&waiting.frames) {
                *slice = IoSlice::new(&frame.bytes);
                count += 1;
            }
            match socket.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    total += written;
                    self.advance(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(total),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    /// Hands frames over, whole, until it is empty or no more is taken. Answers how many bytes went.
    ///
    /// # Errors
    /// Those of `take`.
    pub(super) fn hand_over<E>(&mut self, mut take: impl FnMut(&Bytes) -> Result<bool, E>) -> Result<usize, E> {
        let mut total = 0;
        while let Some(first) = self.first() {
            if !take(first)? {
                return Ok(total);
            }
            let taken = first.len();
            total += taken;
            self.advance(taken);
        }
        Ok(total)
    }

    fn advance(&mut self, mut written: usize) {
        let Some(waiting) = &mut self.0 else { return };
        waiting.bytes -= written;
        while let Some(first) = waiting.frames.front_mut() {
            if written < first.bytes.len() {
                first.bytes.advance(written);
                return;
            }
            written -= first.bytes.len();
            waiting.frames.pop_front();
        }
        self.0 = None; // All of it is out.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes a time, and now and then none.
    struct Drip(Vec<u8>, usize, bool);

    impl Write for Drip {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.2 = !self.2;
            if self.2 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let taken = bytes.len().min(self.1);
            self.0.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_waits_goes_out_in_order_however_little_the_socket_takes() {
        for step in 1..12 {
            let mut backlog = Backlog::default();
            for frame in ["one", "", "two", "three"] {
                backlog.push(Bytes::from_static(frame.as_bytes()), 1);
            }
            assert_eq!((backlog.bytes(), backlog.is_over(8), backlog.is_over(1_000)), (11, true, false));
            let mut drip = Drip(Vec::new(), step, false);
            while !backlog.is_empty() {
                backlog.flush(&mut drip).expect("only would-block");
            }
            assert!(!backlog.is_over(0));
            assert_eq!((drip.0.as_slice(), backlog.bytes()), (&b"onetwothree"[..], 0));
        }
    }

    #[test]
    fn a_frame_that_has_begun_is_kept_whole() {
        let mut backlog = Backlog::default();
        backlog.push(Bytes::from_static(b"begun"), 2);
        backlog.push(Bytes::from_static(b"not"), 3);
        assert_eq!(backlog.drop_unbegun(true), 3, "the events in it are counted");
        assert_eq!(backlog.bytes(), 5);
        assert_eq!(backlog.drop_unbegun(false), 2);
        assert!(backlog.is_empty());
    }
}
