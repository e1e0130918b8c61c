//! The subscription of a link: one connection, in order, no holes; anything else is the link's end.
//!
//! Redis confirms in the order it was asked in, so what must be confirmed next is known. A confirmation that isn't the
//! next one, a message for what isn't subscribed, an error, silence: nothing of that is repaired here, since no
//! protocol could (verdict 4 of `docs/protocol.md`). The feed opens a new link and finds what it missed.

use std::collections::{HashSet, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Buf as _;
use fanfare_protocol::{BATCH_MAX, Channel, Confirmation, Message, decode_message, has_slack};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::RedisError;
use super::arrivals::Arrivals;
use super::resp::{self, Item, Reader, Reply};
use super::scripts::MarkerWords;
use super::wire::{READ_BYTES, Wire, damaged};
use crate::link::LinkEvent;

/// A PING goes out this often …
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// … so that nothing at all within this time means that the server hangs or the network swallows everything.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Bytes of commands that may wait for the socket. A million channels need half of it; past it the link ends.
const OUTBOX_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Barriers whose markers are outstanding; a feed has one. Past it the link ends.
const BARRIERS_MAX: usize = 64;

/// Written at a time, each within [`SILENCE_MAX`].
const WRITE_BYTES: usize = 64 * 1024;

/// What a subscription is to be told, and what it is to answer.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// What every channel's Pub/Sub name begins with.
    names: String,
    /// The Pub/Sub name of the link's own markers.
    markers: String,
    inside: Mutex<Inside>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Inside {
    bytes: Vec<u8>,
    /// Confirmations to come, in order.
    expected: VecDeque<Expected>,
    /// Barriers whose markers haven't come, with the channels that they name.
    barriers: VecDeque<(u64, Vec<Channel>)>,
    overflown: bool,
}

#[derive(Debug)]
enum Expected {
    Channel(Channel, Confirmation),
    Markers,
}

impl Outbox {
    pub(crate) fn new(names: String, markers: String) -> Self {
        Self { names, markers, inside: Mutex::default(), bell: Notify::new() }
    }

    pub(crate) fn markers(&self) -> &str {
        &self.markers
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().expect("no one panics while holding the outbox")
    }

    pub(crate) fn subscribe(&self, channels: Vec<Channel>) {
        self.send(b"SUBSCRIBE", channels, Confirmation::Subscribed);
    }

    pub(crate) fn unsubscribe(&self, channels: Vec<Channel>) {
        self.send(b"UNSUBSCRIBE", channels, Confirmation::Unsubscribed);
    }

    pub(crate) fn subscribe_markers(&self) {
        let mut inside = self.lock();
        resp::command(&mut inside.bytes, &[b"SUBSCRIBE", self.markers.as_bytes()]);
        inside.expected.push_back(Expected::Markers);
        drop(inside);
        self.bell.notify_one();
    }

    /// A barrier is about to be sent: its marker will name these channels.
    pub(crate) fn expect_marker(&self, nonce: u64, channels: Vec<Channel>) {
        let mut inside = self.lock();
        inside.barriers.push_back((nonce, channels));
        inside.overflown |= inside.barriers.len() > BARRIERS_MAX;
    }

    fn send(&self, command: &[u8], channels: Vec<Channel>, what: Confirmation) {
        let mut inside = self.lock();
        let Inside { bytes, expected, overflown, .. } = &mut *inside;
        *overflown |= bytes.len() > OUTBOX_BYTES_MAX;
        if *overflown {
            return self.bell.notify_one();
        }
        let mut name = self.names.clone().into_bytes();
        for batch in channels.chunks(BATCH_MAX) {
            resp::begin(bytes, batch.len() + 1);
            resp::word(bytes, command);
            for channel in batch {
                name.truncate(self.names.len());
                name.extend_from_slice(channel.as_str().as_bytes());
                resp::word(bytes, &name);
            }
        }
        expected.extend(channels.into_iter().map(|channel| Expected::Channel(channel, what)));
        drop(inside);
        self.bell.notify_one();
    }
}

/// Runs a subscription to its end, and says why it ended.
pub(crate) async fn run(wire: Wire, outbox: Arc<Outbox>, arrivals: Arc<Arrivals>) -> RedisError {
    let Wire { stream, buffer, reader, .. } = wire;
    let (read, write) = stream.into_split();
    let listener = Listener { outbox: &outbox, subscribed: HashSet::new(), heard: Vec::new() };
    tokio::select! {
        reason = listener.listen(read, buffer, reader, &arrivals) => reason,
        reason = talk(write, &outbox) => reason,
    }
}

async fn talk(mut socket: OwnedWriteHalf, outbox: &Outbox) -> RedisError {
    let mut ping = interval(PING_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let (mut bytes, overflown) = {
            let mut inside = outbox.lock();
            (mem::take(&mut inside.bytes), inside.overflown)
        };
        if overflown {
            return RedisError::TooMuch;
        }
        if bytes.is_empty() {
            tokio::select! {
                () = outbox.bell.notified() => continue,
                _ = ping.tick() => resp::command(&mut bytes, &[b"PING"]),
            }
        }
        for piece in bytes.chunks(WRITE_BYTES) {
            match timeout(SILENCE_MAX, socket.write_all(piece)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return RedisError::Closed,
                Err(_) => return RedisError::TimedOut,
            }
        }
    }
}

struct Listener<'a> {
    outbox: &'a Outbox,
    /// What is subscribed. A channel's name is what its Pub/Sub name has after the common beginning.
    subscribed: HashSet<Channel>,
    heard: Vec<LinkEvent>,
}

impl Listener<'_> {
    async fn listen(
        mut self,
        mut socket: OwnedReadHalf,
        mut buffer: bytes::BytesMut,
        mut reader: Reader,
        arrivals: &Arrivals,
    ) -> RedisError {
        loop {
            loop {
                match reader.read(&buffer) {
                    Ok(Some(length)) => {
                        if let Err(reason) = self.reply(reader.reply(&buffer)) {
                            _ = arrivals.push(self.heard.drain(..));
                            return reason;
                        }
                        buffer.advance(length);
                    }
                    Ok(None) => break,
                    Err(error) => return damaged(error),
                }
            }
            if !self.heard.is_empty()
                && let Err(reason) = arrivals.push(self.heard.drain(..))
            {
                return reason;
            }
            buffer.reserve(READ_BYTES);
            match timeout(SILENCE_MAX, socket.read_buf(&mut buffer)).await {
                Ok(Ok(1..)) => {}
                Ok(_) => return RedisError::Closed,
                Err(_) => return RedisError::TimedOut,
            }
        }
    }

    fn reply(&mut self, reply: Reply<'_>) -> Result<(), RedisError> {
        let bytes = |span| reply.bytes(span);
        match *reply.items() {
            [Item::Array(3), Item::Bulk(kind), Item::Bulk(name), Item::Bulk(payload)] if bytes(kind) == b"message" => {
                self.message(bytes(name), bytes(payload))
            }
            [Item::Array(3), Item::Bulk(kind), Item::Bulk(name), Item::Integer(_)] => match bytes(kind) {
                b"subscribe" => self.confirmed(bytes(name), Confirmation::Subscribed),
                b"unsubscribe" => self.confirmed(bytes(name), Confirmation::Unsubscribed),
                _ => Err(unexpected("a push of another kind", bytes(kind))),
            },
            // What a PING is answered with depends on whether anything is subscribed.
            [Item::Array(2), Item::Bulk(pong), Item::Bulk(_)] | [Item::Status(pong)]
                if bytes(pong).eq_ignore_ascii_case(b"pong") =>
            {
                Ok(())
            }
            _ => Err(match reply.error() {
                Some(text) => RedisError::of(&text, 0),
                None => unexpected("a reply that nothing asked for", b""),
            }),
        }
    }

    fn message(&mut self, name: &[u8], payload: &[u8]) -> Result<(), RedisError> {
        if let Some(rest) = name.strip_prefix(self.outbox.names.as_bytes()) {
            let channel = str::from_utf8(rest).ok().and_then(|rest| self.subscribed.get(rest));
            let channel = channel.ok_or_else(|| unexpected("a message for nobody", name))?;
            let decoded = decode_message(channel.clone(), payload);
            let (epoch, message) =
                decoded.map_err(|error| RedisError::Unexpected(format!("a message that is no event ({error})")))?;
            self.heard.push(match message {
                Message::Event(event) => LinkEvent::Event(epoch, Arc::new(event)),
                Message::Purge(purge) => LinkEvent::Purged(epoch, purge),
            });
            return Ok(());
        }
        if name != self.outbox.markers.as_bytes() {
            return Err(unexpected("a message for nobody", name));
        }
        let words = MarkerWords::read(payload)?;
        let mut inside = self.outbox.lock();
        // Nobody waits for it: it isn't ours to judge, the feed counts only the one it awaits.
        let Some(place) = inside.barriers.iter().position(|(nonce, _)| *nonce == words.nonce) else { return Ok(()) };
        let Some((_, channels)) = inside.barriers.remove(place) else { return Ok(()) };
        drop(inside);
        self.heard.push(LinkEvent::Marker(Arc::new(words.finish(channels)?)));
        Ok(())
    }

    fn confirmed(&mut self, name: &[u8], what: Confirmation) -> Result<(), RedisError> {
        let expected = self.outbox.lock().expected.pop_front();
        match expected {
            Some(Expected::Markers) if what == Confirmation::Subscribed && name == self.outbox.markers.as_bytes() => {
                self.heard.push(LinkEvent::MarkerConfirmed);
                Ok(())
            }
            Some(Expected::Channel(channel, asked)) if asked == what => {
                let rest = name.strip_prefix(self.outbox.names.as_bytes());
                if rest != Some(channel.as_str().as_bytes()) {
                    return Err(unexpected("a confirmation out of turn", name));
                }
                _ = match what {
                    Confirmation::Subscribed => self.subscribed.insert(channel.clone()),
                    Confirmation::Unsubscribed => self.subscribed.remove(&channel),
                };
                if has_slack(self.subscribed.capacity(), self.subscribed.len()) {
                    self.subscribed.shrink_to(2 * self.subscribed.len());
                }
                self.heard.push(LinkEvent::Confirmed(channel, what));
                Ok(())
            }
            // Also what Redis does when it drops a subscription of its own accord.
            _ => Err(unexpected("a confirmation that nothing asked for", name)),
        }
    }
}

fn unexpected(what: &str, found: &[u8]) -> RedisError {
    RedisError::Unexpected(format!("{what} {:.80}", found.escape_ascii().to_string()))
}
