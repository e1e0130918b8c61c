//! A socket as hyper sees it, with an eye on what passes: whether everything is written, and when something moved.

use std::io::{self, IoSlice, Read as _};
use std::mem;
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use socket2::SockRef;

use crate::TakeOver;

/// What the connection's driver, its socket and its service know of each other. With HTTP/1 they all run in one task,
/// and the atomics are for the compiler.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Reads that brought something.
    reads: AtomicU64,
    /// `reads` at the end of the last request: what came since belongs to the next.
    reads_before: AtomicU64,
    written: AtomicU64,
    /// hyper wrote and has not flushed since. It flushes only when its buffer is empty, so clean means that
    /// everything is with the kernel.
    dirty: AtomicBool,
    /// Requests that are being answered, until the end of the response's body.
    serving: AtomicU32,
    served: AtomicU64,
    /// Requests that got an answer, and those that their client gave up before.
    answered: AtomicU64,
    given_up: AtomicU64,
    take_over: Mutex<Option<TakeOver>>,
    /// Whether a read may wait for the client. Until then one that has nothing to read answers that it isn't ready and
    /// wakes nobody, so that a socket which is given away at once was never registered.
    may_wait: AtomicBool,
}

/// What a connection is busy with, as far as a deadline is concerned. With it comes a number that changes when the
/// deadline begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A request's head is awaited or coming.
    Head(u64),
    /// Between two requests.
    Idle(u64),
    /// The client doesn't take what was written.
    Blocked(u64),
    /// The handler works; it has its own deadlines.
    Serving,
}

impl Traffic {
    pub(crate) fn phase(&self) -> Phase {
        let served = self.served.load(Relaxed);
        if self.dirty.load(Relaxed) {
            Phase::Blocked(self.written.load(Relaxed))
        } else if self.serving.load(Relaxed) > 0 {
            Phase::Serving
        } else if served == 0 || self.reads.load(Relaxed) != self.reads_before.load(Relaxed) {
            Phase::Head(served)
        } else {
            Phase::Idle(served)
        }
    }

    /// The same where requests come side by side: each of them may be slow, and none is awaited.
    pub(crate) fn phase_of_streams(&self) -> Phase {
        if self.dirty.load(Relaxed) {
            Phase::Blocked(self.written.load(Relaxed))
        } else if self.serving.load(Relaxed) > 0 {
            Phase::Serving
        } else {
            Phase::Idle(self.served.load(Relaxed))
        }
    }

    /// Whether requests were given up more often than answered, and by so many.
    pub(crate) fn given_up_too_often(&self, excess_max: u64) -> bool {
        self.given_up.load(Relaxed) > self.answered.load(Relaxed) + excess_max
    }

    /// Asks for the socket to be given away.
    pub(crate) fn offer(&self, take_over: TakeOver) {
        *self.slot() = Some(take_over);
    }

    /// Who is to have the socket, once everything before is written.
    pub(crate) fn due(&self) -> Option<TakeOver> {
        if self.dirty.load(Relaxed) { None } else { self.slot().take() }
    }

    /// From now on reads wait for the client. Answers whether they did already.
    pub(crate) fn wait(&self) -> bool {
        self.may_wait.swap(true, Relaxed)
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<TakeOver>> {
        self.take_over.lock().expect("nobody panics while holding a slot")
    }
}

/// As long as it lives, a request is being answered.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) traffic: Arc<Traffic>,
    answered: bool,
}

impl Serving {
    pub(crate) fn begin(traffic: Arc<Traffic>) -> Self {
        traffic.serving.fetch_add(1, Relaxed);
        Self { traffic, answered: false }
    }

    /// The answer is there, and goes out.
    pub(crate) fn answered(mut self) -> Self {
        self.answered = true;
        self.traffic.answered.fetch_add(1, Relaxed);
        self
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let traffic = &self.traffic;
        traffic.given_up.fetch_add(u64::from(!self.answered), Relaxed);
        traffic.reads_before.store(traffic.reads.load(Relaxed), Relaxed);
        traffic.served.fetch_add(1, Relaxed);
        traffic.serving.fetch_sub(1, Relaxed);
    }
}

/// A socket that doesn't block. tokio hears of it when it is first waited for: most requests are there when their
/// connection is accepted, and a stream's socket goes to a shard, which has an epoll set of its own.
#[derive(Debug)]
pub(crate) enum Socket {
    Plain(TcpStream),
    Registered(TokioIo<tokio::net::TcpStream>),
    /// It could not be registered.
    Lost,
}

impl Socket {
    /// Reads what is there into `buffer`, without waiting.
    ///
    /// # Errors
    /// `WouldBlock`: there is nothing just now. Else it is broken.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => (&mut &*socket).read(buffer),
            Self::Registered(socket) => socket.inner().try_read(buffer),
            Self::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Writes at once, if that is possible: hyper gives a last response up that isn't taken when it is written, and
    /// tokio does not know of a socket it has just been told of that it takes something.
    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = match self {
            Self::Plain(socket) => SockRef::from(&*socket).send_vectored(slices),
            Self::Registered(socket) => SockRef::from(socket.inner()).send_vectored(slices),
            Self::Lost => Err(io::ErrorKind::NotConnected.into()),
        };
        match written {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Pin::new(self.registered()?).poll_write_vectored(cx, slices)
            }
            written => Poll::Ready(written),
        }
    }

    /// Waits until there is something to read.
    pub(crate) async fn readable(&mut self) -> io::Result<()> {
        self.registered()?.inner().readable().await
    }

    /// The socket by itself.
    pub(crate) fn into_plain(self) -> io::Result<TcpStream> {
        match self {
            Self::Plain(socket) => Ok(socket),
            Self::Registered(socket) => socket.into_inner().into_std(),
            Self::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    pub(crate) fn registered(&mut self) -> io::Result<&mut TokioIo<tokio::net::TcpStream>> {
        if let Self::Plain(_) = self {
            let Self::Plain(socket) = mem::replace(self, Self::Lost) else { unreachable!("looked at above") };
            *self = Self::Registered(TokioIo::new(tokio::net::TcpStream::from_std(socket)?));
        }
        match self {
            Self::Registered(socket) => Ok(socket),
            Self::Plain(_) | Self::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// The socket.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: Socket,
    /// What was read before hyper came, to tell which HTTP this is.
    begin: Bytes,
    gathers: bool,
    /// Since the last flush it has given way once.
    gave_way: bool,
    traffic: Arc<Traffic>,
}

impl Wire {
    pub(crate) fn new(socket: Socket, begin: Bytes, traffic: Arc<Traffic>) -> Self {
        Self { socket, begin, gathers: false, gave_way: false, traffic }
    }

    /// Has small pieces gathered before they are written: an event to many streams of one connection is many small
    /// frames, and h2 else writes each by itself (from 256 bytes on, where slices can be written; from 1 KiB where not),
    /// as soon as the first stream has one. So the first write after a flush gives way to the tasks that wait for the same
    /// worker; every flush pays one turn for it.
    pub(crate) fn gathering(self) -> Self {
        Self { gathers: true, ..self }
    }

    pub(crate) fn into_socket(self) -> Socket {
        self.socket
    }

    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        self.traffic.dirty.store(true, Relaxed);
        if let Poll::Ready(Ok(written)) = result {
            self.traffic.written.fetch_add(*written as u64, Relaxed);
        }
    }
}

impl Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if !self.begin.is_empty() {
            let count = self.begin.len().min(into.remaining());
            into.put_slice(&self.begin[..count]);
            self.begin.advance(count);
            self.traffic.reads.fetch_add(1, Relaxed);
            return Poll::Ready(Ok(()));
        }
        if !self.traffic.may_wait.load(Relaxed) {
            return Poll::Pending; // The driver asks again.
        }
        let result = Pin::new(self.socket.registered()?).poll_read(cx, into);
        if result.is_ready() {
            self.traffic.reads.fetch_add(1, Relaxed);
        }
        result
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.gathers && !mem::replace(&mut self.gave_way, true) {
            cx.waker().wake_by_ref(); // Behind the tasks that wait for the same worker.
            return Poll::Pending;
        }
        let result = self.socket.poll_write(cx, &[IoSlice::new(bytes)]);
        self.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = self.socket.poll_write(cx, slices);
        self.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        !self.gathers // A TCP socket takes slices.
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.traffic.dirty.store(false, Relaxed); // A TCP socket keeps nothing back.
        self.gave_way = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.socket.registered()?).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::TcpListener;

    use super::*;

    /// Writes, and answers how often it had to be asked to.
    async fn polls_of_a_write(wire: &mut Wire) -> usize {
        let mut polls = 0;
        let write = poll_fn(|cx| {
            polls += 1;
            Pin::new(&mut *wire).poll_write(cx, b"frame")
        });
        assert_eq!(write.await.expect("there is room"), 5);
        polls
    }

    #[tokio::test]
    async fn where_pieces_are_gathered_the_first_write_after_a_flush_gives_way_once() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let socket = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let mut wire = Wire::new(Socket::Plain(socket), Bytes::new(), Arc::default()).gathering();
        for _ in 0..2 {
            assert_eq!(polls_of_a_write(&mut wire).await, 2);
            assert_eq!(polls_of_a_write(&mut wire).await, 1);
            poll_fn(|cx| Pin::new(&mut wire).poll_flush(cx)).await.expect("a socket keeps nothing back");
        }
    }
}
