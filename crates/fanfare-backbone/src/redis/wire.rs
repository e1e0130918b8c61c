//! A connection of our own to Redis: opened, authenticated, and asked a few things one by one, before it becomes half
//! of a link. `check` uses nothing else.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::RedisError;
use super::config::{Secret, Server};
use super::resp::{self, Reader, Reply};

/// For a connection to be established.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// For one answer. Below the feed's and the publishers' deadlines.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// For replicas to confirm an event, which takes a round trip to them. Together with the answer it fits into a
/// publish's deadline; who waits behind it for a replica that is gone doesn't wait long.
pub(crate) const REPLICA_TIMEOUT: Duration = Duration::from_secs(1);

/// Read at a time: some hundred messages.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// A dead peer is found by PING and by deadlines; this finds it where nothing is under way.
pub(crate) fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(3)).with_retries(3)
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    pub(crate) buffer: BytesMut,
    pub(crate) reader: Reader,
    partitions: u16,
}

/// A reply's texts, flat.
pub(crate) type Words = Vec<Option<Vec<u8>>>;

impl Wire {
    /// Connects to a server by its name, and authenticates.
    pub(crate) async fn open(server: &Server) -> Result<Self, RedisError> {
        let unreachable = |reason: &str| RedisError::Unreachable { address: server.address(), reason: reason.into() };
        let found = timeout(CONNECT_TIMEOUT, lookup_host((server.host.as_str(), server.port))).await;
        let found = found.map_err(|_| unreachable("its name is not resolved in time"))?;
        let mut refused = unreachable("its name has no address");
        for address in found.map_err(|error| unreachable(&error.to_string()))? {
            match Self::open_at(server, address).await {
                Err(error @ RedisError::Unreachable { .. }) => refused = error,
                other => return other,
            }
        }
        Err(refused)
    }

    /// Connects to a server at an address, and authenticates.
    pub(crate) async fn open_at(server: &Server, address: SocketAddr) -> Result<Self, RedisError> {
        let unreachable = |reason: String| RedisError::Unreachable { address: server.address(), reason };
        let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => return Err(unreachable("it does not answer".to_owned())),
        };
        let socket = SockRef::from(&stream);
        let set = socket.set_tcp_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&keepalive()));
        set.map_err(|error| unreachable(error.to_string()))?;
        let (buffer, reader, partitions) = (BytesMut::new(), Reader::new(), server.partitions.count());
        let mut wire = Self { stream, buffer, reader, partitions };
        if let Some(password) = server.password.as_ref().map(Secret::reveal) {
            let mut words: Vec<&[u8]> = vec![b"AUTH"];
            words.extend(server.username.as_deref().map(str::as_bytes));
            words.push(password.as_bytes());
            wire.ask(&words).await?;
        }
        Ok(wire)
    }

    /// Asks and waits for the answer.
    pub(crate) async fn ask(&mut self, words: &[&[u8]]) -> Result<Words, RedisError> {
        let mut bytes = Vec::new();
        resp::command(&mut bytes, words);
        self.send(&bytes).await?;
        self.answer().await
    }

    /// Sends what has been written.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), RedisError> {
        let sent = timeout(ANSWER_TIMEOUT, self.stream.write_all(bytes)).await.map_err(|_| RedisError::TimedOut)?;
        sent.map_err(|_| RedisError::Closed)
    }

    /// The next answer.
    pub(crate) async fn answer(&mut self) -> Result<Words, RedisError> {
        let partitions = self.partitions;
        let words = self.read(|reply| match reply.error() {
            Some(text) => Err(RedisError::of(&text, partitions)),
            None => Ok(reply.words().map(|word| word.map(<[u8]>::to_vec)).collect()),
        });
        words.await?
    }

    /// Waits for the next answer and reads it where it stands.
    pub(crate) async fn read<T>(&mut self, read: impl FnOnce(Reply<'_>) -> T) -> Result<T, RedisError> {
        loop {
            if let Some(length) = self.reader.read(&self.buffer).map_err(damaged)? {
                let found = read(self.reader.reply(&self.buffer));
                self.buffer.advance(length);
                return Ok(found);
            }
            self.buffer.reserve(READ_BYTES);
            match timeout(ANSWER_TIMEOUT, self.stream.read_buf(&mut self.buffer)).await {
                Ok(Ok(1..)) => {}
                Ok(_) => return Err(RedisError::Closed),
                Err(_) => return Err(RedisError::TimedOut),
            }
        }
    }

    /// One section of what the server tells of itself.
    pub(crate) async fn info(&mut self, section: &str) -> Result<Info, RedisError> {
        let words = self.ask(&[b"INFO", section.as_bytes()]).await?;
        let text = words.into_iter().flatten().next().unwrap_or_default();
        Ok(Info(String::from_utf8_lossy(&text).into_owned()))
    }
}

/// What `INFO` says.
#[derive(Debug)]
pub(crate) struct Info(String);

impl Info {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// Replicas that a primary takes for online: one may still load what was there before it came.
    pub(crate) fn replicas_online(&self) -> usize {
        self.0.lines().filter(|line| line.starts_with("slave") && line.contains("state=online")).count()
    }
}

pub(crate) fn damaged(error: resp::RespError) -> RedisError {
    RedisError::Unexpected(error.to_string())
}
