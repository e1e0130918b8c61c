//! A connection for bytes of your own choice: half requests, nonsense, pipelining.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use fanfare_loadtest::http::{Head, Part, Response};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::{Answer, PATIENCE};

/// A TCP connection, with what was read of it and not yet looked at.
#[derive(Debug)]
pub struct RawConnection {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl RawConnection {
    /// Connects.
    ///
    /// # Panics
    /// Where nobody listens.
    pub async fn open(address: SocketAddr) -> Self {
        Self::with_receive_buffer(address, None).await
    }

    /// Connects with a receive buffer of so many bytes, so that a reader that stalls is noticed early.
    ///
    /// # Panics
    /// Where nobody listens.
    pub async fn with_receive_buffer(address: SocketAddr, bytes: Option<u32>) -> Self {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.expect("a socket");
        if let Some(bytes) = bytes {
            socket.set_recv_buffer_size(bytes).expect("a receive buffer of that size");
        }
        let connected = timeout(PATIENCE, socket.connect(address)).await;
        let stream = connected.expect("connected in time").unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_nodelay(true).expect("an open socket");
        Self { stream, ahead: Vec::new() }
    }

    /// Sends bytes as they are. That the server hung up is not this call's business.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        _ = timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.expect("sent in time");
    }

    /// Tells the server that nothing more comes, while still reading.
    pub async fn finish(&mut self) {
        _ = self.stream.shutdown().await;
    }

    /// Reads at most so many bytes, as they come. Empty at the end; an error where the connection was reset.
    ///
    /// # Errors
    /// `TimedOut` where nothing comes in time, else what the socket says.
    pub async fn read(&mut self, bytes_max: usize, patience: Duration) -> io::Result<Vec<u8>> {
        if !self.ahead.is_empty() {
            let rest = self.ahead.split_off(bytes_max.min(self.ahead.len()));
            return Ok(std::mem::replace(&mut self.ahead, rest));
        }
        let mut buffer = vec![0; bytes_max];
        let count = timeout(patience, self.stream.read(&mut buffer)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        buffer.truncate(count);
        Ok(buffer)
    }

    /// Reads until the server closes; a reset counts as that.
    ///
    /// # Panics
    /// Where it doesn't close in time.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match self.read(64 * 1024, PATIENCE).await {
                Ok(bytes) if bytes.is_empty() => return all,
                Ok(bytes) => all.extend(bytes),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    panic!("the server did not close. It said:\n{}", String::from_utf8_lossy(&all))
                }
                Err(_) => return all,
            }
        }
    }

    /// Reads one response, body and all, and keeps what follows. `None` where the server closes before it is whole.
    ///
    /// # Panics
    /// Where it takes too long, or is no response.
    pub async fn answer(&mut self) -> Option<Answer> {
        let (mut response, mut head, mut body) = (Response::new(), None::<Head>, Vec::new());
        loop {
            let bytes = match self.read(64 * 1024, PATIENCE).await {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => panic!("no answer in time"),
                Err(_) => Vec::new(),
            };
            if bytes.is_empty() {
                return response.may_close().then(|| Answer::new(head.expect("read before the body"), body));
            }
            let mut rest = &bytes[..];
            while let Some(part) = response.next_part(&mut rest).expect("an HTTP response") {
                match part {
                    Part::Head(read) => head = Some(read),
                    Part::Body(data) => body.extend_from_slice(data),
                    Part::End => {
                        self.ahead = rest.to_vec();
                        return Some(Answer::new(head.expect("read before the body"), body));
                    }
                }
            }
        }
    }

    /// Closes with a reset instead of a goodbye: what is on its way is lost.
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("an open socket");
    }
}
