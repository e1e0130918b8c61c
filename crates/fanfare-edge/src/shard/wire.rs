//! What a stream's bytes leave through. Only here is known which HTTP that is; the rest of a shard sees bytes that
//! are taken, or wait, or a connection that is gone.

use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfare_http::{Gone, Pipe};
use fanfare_protocol::ConnectionKey;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::backlog::Backlog;
use super::ready::Ready;
use super::wheel::Visit;

/// Bytes that a client may send after its request. It has nothing to say; what it says is read and dropped, so that
/// its hang-up is seen, but not for ever.
const INPUT_BYTES_MAX: u32 = 64 * 1024;

/// Bytes of a stream's beginning that are held back at most; what doesn't fit waits behind them.
const HELD_BYTES_MAX: usize = 16 * 1024;

/// What a stream's bytes leave through.
#[derive(Debug)]
pub(crate) enum Wire {
    /// HTTP/1.1 and 1.0: the socket, which carries nothing else any more.
    Socket(Socket),
    /// HTTP/2: the body of one stream among others. It takes a frame whole or not at all. Boxed, so that sockets, of which
    /// there are most, don't pay for it.
    Body(Box<Pipe>),
}

/// A socket that HTTP has let go of.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    /// Bytes that the client has sent after its request.
    input_bytes: u32,
    /// The stream's first bytes, as long as they are held back.
    held: Option<Box<Held>>,
}

/// Bytes that leave together.
#[derive(Debug, Default)]
struct Held(Vec<u8>);

impl Wire {
    /// A socket as the server accepted it, with the options of its listener.
    pub(crate) fn socket(stream: std::net::TcpStream) -> Self {
        Self::Socket(Socket { stream: TcpStream::from_std(stream), input_bytes: 0, held: None })
    }

    /// From now on what is written is held back, so that head, `connected` and replay are one write. Bounded by
    /// [`HELD_BYTES_MAX`]; a body of HTTP/2 is written by its connection's task, and holds nothing.
    pub(super) fn hold_back(&mut self) {
        if let Self::Socket(socket) = self {
            socket.held = Some(Box::default());
        }
    }

    /// Whether something is held back.
    pub(super) fn holds(&self) -> bool {
        matches!(self, Self::Socket(Socket { held: Some(_), .. }))
    }

    /// Holds nothing back any more. Answers what has to be written before anything else.
    pub(super) fn release(&mut self) -> Option<Bytes> {
        match self {
            Self::Socket(socket) => socket.held.take().map(|held| held.0.into()),
            Self::Body(_) => None,
        }
    }

    /// From now on the shard hears what happens to it.
    ///
    /// # Errors
    /// It can't be watched.
    pub(super) fn watch(&mut self, registry: &Registry, ready: &Arc<Ready>, visit: Visit) -> io::Result<()> {
        match self {
            Self::Socket(socket) => registry.register(&mut socket.stream, token(visit.key), Interest::READABLE),
            Self::Body(pipe) => {
                pipe.watch(ready.waker(visit));
                Ok(())
            }
        }
    }

    /// Whether the shard wants to hear that it takes bytes again. Answers whether it will.
    pub(super) fn watch_room(&mut self, registry: &Registry, key: ConnectionKey, wanted: bool) -> bool {
        match self {
            Self::Socket(socket) => {
                let interest = if wanted { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
                registry.reregister(&mut socket.stream, token(key), interest).is_ok() && wanted
            }
            Self::Body(_) => wanted, // Whoever was refused is told.
        }
    }

    /// Takes what it can of a frame in two parts. Answers how many bytes.
    ///
    /// # Errors
    /// `WouldBlock`: none at all just now. Anything else: it is broken.
    pub(super) fn write(&mut self, head: &[u8], rest: &Bytes) -> io::Result<usize> {
        match self {
            Self::Socket(Socket { held: Some(held), .. }) => held.take(head, rest),
            Self::Socket(Socket { stream, .. }) => loop {
                let written = if head.is_empty() {
                    stream.write(rest)
                } else {
                    stream.write_vectored(&[IoSlice::new(head), IoSlice::new(rest)])
                };
                match written {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    written => return written,
                }
            },
            Self::Body(pipe) => match pipe.push(head, rest) {
                Ok(true) => Ok(head.len() + rest.len()),
                Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
                Err(Gone) => Err(io::ErrorKind::BrokenPipe.into()),
            },
        }
    }

    /// Takes what it can of what waits. Answers how many bytes.
    ///
    /// # Errors
    /// It is broken.
    pub(super) fn flush(&mut self, backlog: &mut Backlog) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => backlog.flush(&mut socket.stream),
            Self::Body(pipe) => {
                backlog.hand_over(|frame| pipe.push(&[], frame)).map_err(|Gone| io::ErrorKind::BrokenPipe.into())
            }
        }
    }

    /// Reads and drops what the client says, as far as that comes here. Answers whether it is still there.
    pub(super) fn drain_input(&mut self) -> bool {
        match self {
            Self::Socket(socket) => socket.drain_input(),
            Self::Body(pipe) => !pipe.is_gone(),
        }
    }

    /// Nothing more will be written. Answers whether the rest needs nobody: the kernel sees a socket's last bytes out,
    /// but a body that isn't read would stay for ever, so it is kept until it has been.
    pub(super) fn finish(&mut self) -> bool {
        match self {
            Self::Socket(_) => true,
            Self::Body(pipe) => {
                pipe.finish();
                pipe.is_gone()
            }
        }
    }

    /// A reader that stands still gets no more time, and whoever keeps bytes for it their memory back.
    pub(super) fn cut(&mut self) {
        match self {
            Self::Socket(socket) => _ = socket2::SockRef::from(&socket.stream).set_linger(Some(Duration::ZERO)),
            Self::Body(pipe) => pipe.cut(),
        }
    }
}

fn token(key: ConnectionKey) -> Token {
    Token(key as usize)
}

impl Held {
    fn take(&mut self, head: &[u8], rest: &[u8]) -> io::Result<usize> {
        let len = head.len() + rest.len();
        if self.0.len() + len > HELD_BYTES_MAX {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.extend_from_slice(head);
        self.0.extend_from_slice(rest);
        Ok(len)
    }
}

impl Socket {
    fn drain_input(&mut self) -> bool {
        let mut scratch = [0; 4096];
        loop {
            match self.stream.read(&mut scratch) {
                Ok(0) => return false,
                Ok(read) => {
                    self.input_bytes = self.input_bytes.saturating_add(read as u32);
                    if self.input_bytes > INPUT_BYTES_MAX {
                        return false;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }
}
