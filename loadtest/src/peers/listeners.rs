//! The clients of all peers: connections on one epoll set that look at nothing but what every server of events sends,
//! and check every payload of ours in it.
//!
//! The swarm of `swarm` knows Fanfare and checks what it promises beyond delivery; this one knows the event stream
//! alone, and is the same for everyone who is compared.

use std::io::{self, Read as _, Write as _};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use super::payload::{Corrupt, Payload};
use super::{Audience, Peer};
use crate::crowd::connect;
use crate::endpoint::Endpoint;
use crate::http::{Part, Response};
use crate::report::{new_histogram, record};

/// Connections on their way at once: below what listeners queue.
const OPENING_MAX: usize = 1_024;

const BUFFER_BYTES: usize = 256 * 1024;

/// Bytes of a line at most; a longer one is no event of ours.
const LINE_BYTES_MAX: usize = 1 << 20;

/// All clients of a measurement.
pub(super) struct Listeners<'a> {
    poll: Poll,
    events: Events,
    peer: &'a Peer,
    endpoint: Endpoint,
    listeners: Vec<Listener>,
    buffer: Box<[u8]>,
    /// To be opened, the last first.
    to_open: Vec<u32>,
    opening: usize,
    run_began: Instant,
    pub(super) seen: Seen,
}

/// What all of them saw.
pub(super) struct Seen {
    /// Which payloads are of this measurement.
    pub(super) run: u32,
    /// Events.
    pub(super) deliveries: u64,
    /// Events that came twice.
    pub(super) double: u64,
    /// Events that came after their successors.
    pub(super) late: u64,
    /// Payloads that were cut or changed.
    pub(super) corrupt: u64,
    /// Connections whose response began.
    pub(super) open: u32,
    /// Connections that ended without our doing, and answers other than 200.
    pub(super) lost: u64,
    /// From when an event was due until it came, in µs.
    pub(super) latency: Histogram<u64>,
    pub(super) payload_bytes: usize,
}

/// One client.
struct Listener {
    audience: Audience,
    link: Option<Link>,
    /// The number that the next event of its channel has.
    next: u32,
    /// Numbers that were left out so far.
    holes: u32,
    last_id: Vec<u8>,
    /// The id of the event that has not ended yet.
    id: Vec<u8>,
    /// A line that has not ended yet.
    line: Vec<u8>,
    /// Reads nothing from the time its response began.
    stalls: bool,
}

struct Link {
    stream: TcpStream,
    /// What is still to be sent of the request.
    request: Vec<u8>,
    response: Response,
    is_open: bool,
}

impl<'a> Listeners<'a> {
    pub(super) fn new(peer: &'a Peer, endpoint: &Endpoint, payload_bytes: usize) -> io::Result<Self> {
        let seen = Seen {
            run: fastrand::u32(..),
            deliveries: 0,
            double: 0,
            late: 0,
            corrupt: 0,
            open: 0,
            lost: 0,
            latency: new_histogram(),
            payload_bytes,
        };
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            peer,
            endpoint: endpoint.clone(),
            listeners: Vec::new(),
            buffer: vec![0; BUFFER_BYTES].into(),
            to_open: Vec::new(),
            opening: 0,
            run_began: Instant::now(),
            seen,
        })
    }

    /// What times in payloads count from.
    pub(super) fn run_began(&self) -> Instant {
        self.run_began
    }

    /// Further clients; they begin to open at the next turn.
    pub(super) fn add(&mut self, audiences: impl Iterator<Item = Audience>, stalls: bool) {
        for audience in audiences {
            self.to_open.push(u32::try_from(self.listeners.len()).expect("thousands"));
            let [last_id, id, line] = [const { Vec::new() }; 3];
            self.listeners.push(Listener { audience, link: None, next: 0, holes: 0, last_id, id, line, stalls });
        }
    }

    /// Whether all are open.
    pub(super) fn all_open(&self) -> bool {
        self.seen.open as usize == self.listeners.len()
    }

    /// Whether each is open, or was refused or lost.
    pub(super) fn are_settled(&self) -> bool {
        self.to_open.is_empty() && self.opening == 0
    }

    /// Whether every client that reads has this many events of its channel.
    pub(super) fn all_have(&self, events: impl Fn(Audience) -> u32) -> bool {
        self.listeners.iter().all(|listener| listener.stalls || listener.next >= events(listener.audience))
    }

    /// Events that clients lack, holes and what did not come at all.
    pub(super) fn lacking(&self, events: impl Fn(Audience) -> u32) -> u64 {
        let lacking = |listener: &Listener| {
            u64::from(events(listener.audience).saturating_sub(listener.next)) + u64::from(listener.holes)
        };
        self.listeners.iter().filter(|listener| !listener.stalls).map(lacking).sum()
    }

    /// Resets every connection.
    pub(super) fn cut_all(&mut self) {
        for number in 0..self.listeners.len() {
            self.close(number);
        }
    }

    /// All that have no connection come back at once, with their last ids.
    pub(super) fn come_back(&mut self) {
        let gone = self.listeners.iter().enumerate().filter(|(_, listener)| listener.link.is_none());
        self.to_open = gone.map(|(number, _)| u32::try_from(number).expect("thousands")).collect();
    }

    /// Handles what there is to handle, waiting for so long at most.
    pub(super) fn turn(&mut self, timeout: Duration) -> io::Result<()> {
        while self.opening < OPENING_MAX
            && let Some(number) = self.to_open.pop()
        {
            self.open(number)?;
        }
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let polled = self.poll.poll(&mut events, Some(timeout));
        if let Err(error) = polled
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        for event in &events {
            let Token(number) = event.token();
            self.ready(number, event.is_read_closed());
        }
        self.events = events;
        Ok(())
    }

    fn open(&mut self, number: u32) -> io::Result<()> {
        let listener = &mut self.listeners[number as usize];
        let id = String::from_utf8_lossy(&listener.last_id);
        let last_id = (!id.is_empty()).then_some(&*id);
        let subscription = (self.peer.subscribe)(number, listener.audience, last_id);
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n{}\r\n",
            subscription.target,
            self.endpoint.authority(),
            subscription.headers
        );
        let mut stream = connect(self.endpoint.address(), number)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(number as usize), interest)?;
        listener.line.clear();
        listener.id.clear();
        listener.link = Some(Link { stream, request: request.into_bytes(), response: Response::new(), is_open: false });
        self.opening += 1;
        Ok(())
    }

    fn close(&mut self, number: usize) {
        let Some(link) = self.listeners[number].link.take() else { return };
        if link.is_open {
            self.seen.open -= 1;
        } else {
            self.opening -= 1;
        }
        // Where it fails the connection is gone already.
        _ = SockRef::from(&link.stream).set_linger(Some(Duration::ZERO));
    }

    fn ready(&mut self, number: usize, is_closed: bool) {
        let listener = &mut self.listeners[number];
        let Some(link) = &mut listener.link else { return };
        let was_open = link.is_open;
        let went =
            link.send().and_then(|()| listener.read(&mut self.buffer, is_closed, self.run_began, &mut self.seen));
        if !was_open && listener.link.as_ref().is_some_and(|link| link.is_open) {
            self.opening -= 1;
            self.seen.open += 1;
        }
        if !matches!(went, Ok(true)) {
            self.seen.lost += 1;
            self.close(number);
        }
    }
}

impl Drop for Listeners<'_> {
    /// Ended with resets: a proper end would keep the port of each connection for a minute.
    fn drop(&mut self) {
        self.cut_all();
    }
}

impl Link {
    /// Sends what the connection takes of the request.
    fn send(&mut self) -> io::Result<()> {
        if self.request.is_empty() {
            return Ok(());
        }
        match self.stream.write(&self.request) {
            Ok(count) => {
                self.request.drain(..count);
                Ok(())
            }
            // Not connected yet.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Listener {
    /// Reads what there is. False when it ended, or is no stream of events.
    fn read(&mut self, buffer: &mut [u8], is_closed: bool, run_began: Instant, seen: &mut Seen) -> io::Result<bool> {
        loop {
            let Some(link) = &mut self.link else { return Ok(false) };
            if self.stalls && link.is_open {
                return Ok(true);
            }
            let count = match link.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                    return Ok(true);
                }
                Err(error) => return Err(error),
            };
            let now = run_began.elapsed();
            let mut read = &buffer[..count];
            while let Some(link) = &mut self.link
                && let Some(part) = link.response.next_part(&mut read).map_err(io::Error::other)?
            {
                match part {
                    Part::Head(head) if head.status == 200 => link.is_open = true,
                    Part::Head(_) | Part::End => return Ok(false),
                    Part::Body(data) => self.take(data, now, seen),
                }
            }
            // Edge-triggered: what comes after a short read wakes us again.
            if count < buffer.len() && !is_closed {
                return Ok(true);
            }
        }
    }

    /// Takes a piece of the stream; a line that is cut waits for its rest.
    fn take(&mut self, mut data: &[u8], now: Duration, seen: &mut Seen) {
        while let Some(at) = memchr::memchr(b'\n', data) {
            if self.line.is_empty() {
                self.take_line(&data[..at], now, seen);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(&data[..at]);
                self.take_line(&line, now, seen);
                line.clear();
                self.line = line;
            }
            data = &data[at + 1..];
        }
        if self.line.len() + data.len() <= LINE_BYTES_MAX {
            self.line.extend_from_slice(data);
        }
    }

    fn take_line(&mut self, line: &[u8], now: Duration, seen: &mut Seen) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            // An id counts from the end of its event.
            if !self.id.is_empty() {
                std::mem::swap(&mut self.id, &mut self.last_id);
                self.id.clear();
            }
        } else if let Some(id) = line.strip_prefix(b"id:") {
            self.id.clear();
            self.id.extend_from_slice(id.strip_prefix(b" ").unwrap_or(id));
        } else if line.starts_with(b"data:") {
            match Payload::find(line, seen.payload_bytes) {
                Ok(Some(payload)) if payload.run == seen.run => self.sequence(payload, now, seen),
                Ok(_) => {} // A greeting, or of an earlier measurement.
                Err(Corrupt) => seen.corrupt += 1,
            }
        }
    }

    fn sequence(&mut self, payload: Payload, now: Duration, seen: &mut Seen) {
        seen.deliveries += 1;
        if payload.number >= self.next {
            self.holes += payload.number - self.next;
            self.next = payload.number + 1;
            record(&mut seen.latency, now.saturating_sub(Duration::from_micros(payload.due_micros)));
        } else if self.holes > 0 {
            self.holes -= 1;
            seen.late += 1;
        } else {
            seen.double += 1;
        }
    }
}
