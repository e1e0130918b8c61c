//! What a stream's bytes leave through. Only here is known which HTTP that is; the rest of a shard sees bytes that
//! are taken, or wait, or a connection that is gone.

use std::io::{self, IoSlice, Read, Write};
use std::time::Duration;

use bytes::Bytes;
use fanfare_protocol::ConnectionKey;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::backlog::Backlog;

/// Unacknowledged bytes or an unanswered keepalive for so long mean that the peer is gone.
const PEER_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes that a client may send after its request. It has nothing to say; what it says is read and dropped, so that
/// its hang-up is seen, but not for ever.
const INPUT_BYTES_MAX: u32 = 64 * 1024;

/// What a stream's bytes leave through.
#[derive(Debug)]
pub(crate) enum Wire {
    /// HTTP/1.1 and 1.0: the socket, which carries nothing else any more.
    Socket(Socket),
}

/// A socket that HTTP has let go of.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    /// Bytes that the client has sent after its request.
    input_bytes: u32,
}

impl Wire {
    /// A socket of which the kernel buffers so many bytes.
    pub(crate) fn socket(stream: std::net::TcpStream, send_buffer_bytes: usize) -> Self {
        let stream = TcpStream::from_std(stream);
        let options = socket2::SockRef::from(&stream);
        // A socket that refuses an option works all the same.
        _ = options.set_tcp_nodelay(true);
        _ = options.set_send_buffer_size(send_buffer_bytes);
        _ = options.set_tcp_user_timeout(Some(PEER_TIMEOUT));
        _ = options.set_keepalive(true);
        Self::Socket(Socket { stream, input_bytes: 0 })
    }

    /// From now on the shard hears what happens to it.
    ///
    /// # Errors
    /// It can't be watched.
    pub(super) fn watch(&mut self, registry: &Registry, key: ConnectionKey) -> io::Result<()> {
        match self {
            Self::Socket(socket) => registry.register(&mut socket.stream, Token(key as usize), Interest::READABLE),
        }
    }

    /// Whether the shard wants to hear that it takes bytes again. Answers whether it will.
    pub(super) fn watch_room(&mut self, registry: &Registry, key: ConnectionKey, wanted: bool) -> bool {
        match self {
            Self::Socket(socket) => {
                let interest = if wanted { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
                registry.reregister(&mut socket.stream, Token(key as usize), interest).is_ok() && wanted
            }
        }
    }

    /// The shard hears nothing more of it.
    pub(super) fn unwatch(&mut self, registry: &Registry) {
        match self {
            Self::Socket(socket) => _ = registry.deregister(&mut socket.stream),
        }
    }

    /// Takes what it can of a frame in two parts. Answers how many bytes.
    ///
    /// # Errors
    /// `WouldBlock`: none at all just now. Anything else: it is broken.
    pub(super) fn write(&mut self, head: &[u8], rest: &Bytes) -> io::Result<usize> {
        match self {
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
        }
    }

    /// Takes what it can of what waits. Answers how many bytes.
    ///
    /// # Errors
    /// It is broken.
    pub(super) fn flush(&mut self, backlog: &mut Backlog) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => backlog.flush(&mut socket.stream),
        }
    }

    /// Reads and drops what the client says. Answers whether it is still there.
    pub(super) fn drain_input(&mut self) -> bool {
        match self {
            Self::Socket(socket) => socket.drain_input(),
        }
    }

    /// A reader that stands still gets no more time, and the kernel its memory back.
    pub(super) fn cut(&mut self) {
        match self {
            Self::Socket(socket) => _ = socket2::SockRef::from(&socket.stream).set_linger(Some(Duration::ZERO)),
        }
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
