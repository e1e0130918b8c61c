//! A body that is fed from outside: what an event stream over HTTP/2 is written to, where HTTP/1 has the socket itself.
//!
//! Nobody waits at either end. Who writes is told at once that there is no room, and is woken when there is some, or
//! when the client has left; the client's reading drives the other end. So a reader that stands still leaves the pipe
//! full, and what then waits is the writer's to keep and to bound.

use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use futures_util::future::AbortHandle;
use http_body_util::BodyExt;
use hyper::body::Frame;

use crate::http2::STREAM;
use crate::{Body, BodyError};

/// Bytes that a pipe holds at most, or one frame that is larger. As many as a frame of HTTP/2 carries, so what waits
/// leaves as one; more would only be a second backlog.
const PIPE_BYTES_MAX: usize = 16 * 1024;

/// The end that is written to. Dropped, the body ends after what is in it.
#[derive(Debug)]
pub struct Pipe {
    shared: Arc<Mutex<Shared>>,
    stream: Option<AbortHandle>,
}

/// The client has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// The end that hyper reads.
struct Outlet(Arc<Mutex<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Nothing more is written.
    finished: bool,
    /// The body is read no more.
    gone: bool,
    /// Something was not taken for want of room.
    refused: bool,
    /// Wakes the reader: something is there.
    reader: Option<Waker>,
    /// Wakes the writer: there is room again, or nobody reads any more.
    writer: Option<Waker>,
}

impl Pipe {
    /// A pipe, and the body that comes out of it. To be made where a request is answered: over HTTP/2 the pipe then
    /// knows the stream, and can [cut](Self::cut) it.
    pub fn new() -> (Self, Body) {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let body = Outlet(shared.clone()).boxed_unsync();
        (Self { shared, stream: STREAM.try_with(Clone::clone).ok() }, body)
    }

    /// Whom to wake when there is room again after a refusal, or when the client has left.
    pub fn watch(&self, writer: Waker) {
        let mut shared = lock(&self.shared);
        let gone = shared.gone;
        shared.writer = Some(writer.clone());
        drop(shared);
        if gone {
            writer.wake();
        }
    }

    /// Takes a frame in two parts, whole, or refuses it for want of room. Answers whether it was taken.
    ///
    /// # Errors
    /// The client has left.
    pub fn push(&self, head: &[u8], rest: &Bytes) -> Result<bool, Gone> {
        let mut shared = lock(&self.shared);
        if shared.gone {
            return Err(Gone);
        }
        let len = head.len() + rest.len();
        if shared.bytes > 0 && shared.bytes + len > PIPE_BYTES_MAX {
            shared.refused = true;
            return Ok(false);
        }
        if !head.is_empty() {
            shared.frames.push_back(Bytes::copy_from_slice(head));
        }
        shared.frames.push_back(rest.clone());
        shared.bytes += len;
        let reader = shared.reader.take();
        drop(shared);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(true)
    }

    /// Nothing more will be written: the body ends after what is in it.
    pub fn finish(&self) {
        let mut shared = lock(&self.shared);
        shared.finished = true;
        let reader = shared.reader.take();
        drop(shared);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Whether the body is read no more: it was read to its end, or the client has left.
    pub fn is_gone(&self) -> bool {
        lock(&self.shared).gone
    }

    /// Resets the stream at once. What the client hasn't taken is dropped, in whatever buffer it stands.
    pub fn cut(&self) {
        if let Some(stream) = &self.stream {
            stream.abort();
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.finish();
    }
}

impl hyper::body::Body for Outlet {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut shared = lock(&self.0);
        if let Some(chunk) = shared.take() {
            let writer = if mem::take(&mut shared.refused) { shared.writer.clone() } else { None };
            drop(shared);
            if let Some(writer) = writer {
                writer.wake();
            }
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        if shared.finished {
            return Poll::Ready(None);
        }
        if !shared.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            shared.reader = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let shared = lock(&self.0);
        shared.finished && shared.frames.is_empty()
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let mut shared = lock(&self.0);
        let writer = shared.writer.take();
        *shared = Shared { gone: true, ..Shared::default() };
        drop(shared);
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

impl Shared {
    /// What is there, as one chunk, as far as that is no longer than the pipe.
    fn take(&mut self) -> Option<Bytes> {
        let first = self.frames.pop_front()?;
        let mut len = first.len();
        let more = self.frames.iter().take_while(|frame| {
            len += frame.len();
            len <= PIPE_BYTES_MAX
        });
        let count = more.count();
        let chunk = if count == 0 {
            first
        } else {
            let mut joined = BytesMut::with_capacity(PIPE_BYTES_MAX.min(self.bytes));
            joined.extend_from_slice(&first);
            self.frames.drain(..count).for_each(|frame| joined.extend_from_slice(&frame));
            joined.freeze()
        };
        self.bytes -= chunk.len();
        if self.frames.is_empty() {
            self.frames = VecDeque::new(); // A quiet stream owns no memory.
        }
        Some(chunk)
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().expect("nobody panics while holding a pipe")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn push(pipe: &Pipe, frame: &str) -> Result<bool, Gone> {
        pipe.push(b"", &Bytes::copy_from_slice(frame.as_bytes()))
    }

    fn read(body: &mut Body) -> Option<Option<Bytes>> {
        let frame = body.frame().now_or_never()?;
        Some(frame.map(|frame| frame.expect("it never breaks off").into_data().expect("data")))
    }

    #[test]
    fn what_waits_comes_out_as_one_chunk_and_then_the_body_ends() {
        let (pipe, mut body) = Pipe::new();
        assert_eq!(read(&mut body), None, "nothing is there");
        assert_eq!(pipe.push(b"id: 1\n", &Bytes::from_static(b"data: a\n\n")), Ok(true));
        assert_eq!(push(&pipe, "data: b\n\n"), Ok(true));
        drop(pipe);
        assert_eq!(read(&mut body), Some(Some("id: 1\ndata: a\n\ndata: b\n\n".into())));
        assert!(hyper::body::Body::is_end_stream(&body));
        assert_eq!(read(&mut body), Some(None));
    }

    #[test]
    fn a_full_pipe_refuses_and_wakes_its_writer_once_there_is_room() {
        let woken = Arc::new(Woken::default());
        let (pipe, mut body) = Pipe::new();
        pipe.watch(woken.clone().into());
        let frame = "x".repeat(PIPE_BYTES_MAX / 2);
        assert_eq!((push(&pipe, &frame), push(&pipe, &frame)), (Ok(true), Ok(true)));
        assert_eq!(push(&pipe, "one more"), Ok(false));
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        assert_eq!(read(&mut body).flatten().map(|chunk| chunk.len()), Some(PIPE_BYTES_MAX));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert_eq!(push(&pipe, "one more"), Ok(true));
        assert_eq!(read(&mut body).flatten(), Some("one more".into()));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "nothing was refused since");
    }

    #[test]
    fn an_empty_pipe_takes_a_frame_of_any_size() {
        let (pipe, mut body) = Pipe::new();
        let large = "x".repeat(10 * PIPE_BYTES_MAX);
        assert_eq!((push(&pipe, &large), push(&pipe, "small")), (Ok(true), Ok(false)));
        assert_eq!(read(&mut body).flatten().map(|chunk| chunk.len()), Some(large.len()));
    }

    #[test]
    fn a_client_that_leaves_is_noticed_by_whoever_watches_before_or_after() {
        let woken = Arc::new(Woken::default());
        let (pipe, body) = Pipe::new();
        pipe.watch(woken.clone().into());
        drop(body);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(pipe.is_gone());
        assert_eq!(push(&pipe, "late"), Err(Gone));
        pipe.watch(woken.clone().into());
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
    }
}
