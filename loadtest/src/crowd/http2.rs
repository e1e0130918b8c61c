//! Clients that share connections: many streams over few HTTP/2 connections, as proxies have them.
//!
//! As much of HTTP/2 as that takes (RFC 9113), and no more: requests without a body, headers of which only the status is
//! read, and windows as wide as they may be, so that no server is measured by how fast we widen them.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::ear::{Ear, Heard, Sum};
use super::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, headers,
    status, write_frame,
};
use super::{Counts, Expected, Load, Plan, connect};
use crate::check::FaultKind;
use crate::clock::now;
use crate::dialect::Who;
use crate::request::token;

/// Bytes read at once. A frame has 16 KiB at most, as we allow no more.
const BUFFER_BYTES: usize = 128 * 1024;

/// Begins every connection.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The widest window, and that of a connection before anybody has widened it.
const WINDOW_MAX: u32 = (1 << 31) - 1;
const WINDOW_FIRST: u32 = 65_535;

/// Bytes taken after which the connection's window is widened again.
const WIDEN_AT: u32 = 1 << 28;

/// Bytes of an event at most.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// All clients of a process, over a few connections.
#[derive(Debug)]
pub(crate) struct Multiplexed {
    plan: Plan,
    /// Of each connection.
    streams: u32,
    poll: Poll,
    connections: Vec<Connection>,
    ear: Ear,
    buffer: Box<[u8]>,
    opening: usize,
    pub(crate) counts: Counts,
    load: Load,
}

#[derive(Debug)]
struct Connection {
    /// `None` before it was opened, and after it ended.
    socket: Option<TcpStream>,
    /// The first of its clients.
    first: u32,
    streams: Vec<Stream>,
    /// Streams that were asked for.
    asked: usize,
    /// What the socket has not taken yet, and what was read and is no whole frame.
    out: Vec<u8>,
    kept: Vec<u8>,
    taken_bytes: u32,
}

/// One client.
#[derive(Debug)]
struct Stream {
    heard: Heard,
    /// What was cut off of a frame of its text.
    text: Vec<u8>,
    is_over: bool,
}

impl Multiplexed {
    pub(crate) fn new(plan: Plan, streams: u32) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            streams,
            connections: Vec::new(),
            ear: Ear::new(plan.run, plan.payload_bytes, plan.dialect.ready.as_deref(), false),
            buffer: vec![0; BUFFER_BYTES].into(),
            opening: 0,
            counts: Counts::default(),
            load: Load { since: now(), busy: 0 },
            plan,
        })
    }

    pub(crate) fn registry(&self) -> &mio::Registry {
        self.poll.registry()
    }

    pub(crate) fn sum(&self) -> &Sum {
        &self.ear.sum
    }

    pub(crate) fn refusals(&self) -> &BTreeMap<String, u64> {
        &self.ear.refusals
    }

    pub(crate) fn take_sum(&mut self) -> (Sum, f64) {
        (self.ear.take_sum(), self.load.take())
    }

    /// Opens all connections; their streams follow. Only now there is memory for each of them, so that it can be told.
    pub(crate) fn open_all(&mut self) -> io::Result<()> {
        let stream = || Stream { heard: Heard::new(), text: Vec::new(), is_over: false };
        let connection = |first| Connection {
            socket: None,
            first,
            streams: (0..self.streams.min(self.plan.clients - first)).map(|_| stream()).collect(),
            asked: 0,
            out: Vec::new(),
            kept: Vec::new(),
            taken_bytes: 0,
        };
        self.connections = (0..self.plan.clients).step_by(self.streams as usize).map(connection).collect();
        for (number, connection) in self.connections.iter_mut().enumerate() {
            let edge = &self.plan.edges[number % self.plan.edges.len()];
            let mut socket = connect(edge.address(), number as u32)?;
            self.poll.registry().register(&mut socket, Token(number), Interest::READABLE | Interest::WRITABLE)?;
            connection.socket = Some(socket);
            connection.out.extend_from_slice(PREFACE);
            // No dynamic table, nothing pushed, windows as wide as they may be.
            let settings = [(1_u16, 0_u32), (2, 0), (4, WINDOW_MAX)];
            let settings = settings.map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat());
            write_frame(&mut connection.out, SETTINGS, 0, 0, &settings.concat());
            let wider = (WINDOW_MAX - WINDOW_FIRST).to_be_bytes();
            write_frame(&mut connection.out, WINDOW_UPDATE, 0, 0, &wider);
        }
        Ok(())
    }

    fn expected_of(&self, client: u32, expected: &Expected) -> [u32; 3] {
        expected.of(client, self.plan.listener(client).channel)
    }

    fn clients(&self) -> impl Iterator<Item = (u32, &Stream)> {
        self.connections.iter().flat_map(|connection| (connection.first..).zip(&connection.streams))
    }

    pub(crate) fn incomplete(&self, expected: &Expected) -> u32 {
        let lacks = |(client, stream): &(u32, &Stream)| !stream.heard.has(self.expected_of(*client, expected));
        u32::try_from(self.clients().filter(lacks).count()).expect("made from a u32")
    }

    pub(crate) fn judge(&mut self, expected: &Expected) {
        for connection in &self.connections {
            for (client, stream) in (connection.first..).zip(&connection.streams) {
                let who = self.plan.listener(client);
                self.ear.judge(who, &stream.heard, expected.of(client, who.channel));
            }
        }
        self.ear.judge_holes();
    }

    pub(crate) fn turn(&mut self, events: &mut Events, timeout: Duration, waker: Token) -> io::Result<bool> {
        let began = now();
        for number in 0..self.connections.len() {
            self.ask(number);
        }
        self.load.busy += now().saturating_sub(began);
        if let Err(error) = self.poll.poll(events, Some(timeout))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        let woken = now();
        let mut rang = false;
        for event in events.iter() {
            if event.token() == waker {
                rang = true;
                continue;
            }
            let Token(number) = event.token();
            if let Err(error) = self.read(number, event.is_read_closed() || event.is_error()) {
                self.lost(number, &error.to_string());
            }
        }
        self.load.busy += now().saturating_sub(woken);
        Ok(rang)
    }

    /// Asks for streams, as far as not too many are on their way, and sends what there is to send.
    fn ask(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        if connection.socket.is_none() {
            return;
        }
        while self.opening < self.plan.opening_max && connection.asked < connection.streams.len() {
            let user = self.plan.first + connection.first + connection.asked as u32;
            let token = self.plan.secret.as_ref().map(|secret| token(user, secret));
            let channel = user.checked_rem(self.plan.channels).unwrap_or(0);
            let who = Who { user, channel, others: self.plan.others, token: token.as_deref(), last_id: None };
            let edge = &self.plan.edges[number % self.plan.edges.len()];
            let headers = headers(&self.plan.dialect.subscription(edge, who));
            let id = 1 + 2 * connection.asked as u32;
            write_frame(&mut connection.out, HEADERS, END_STREAM | END_HEADERS, id, &headers);
            connection.asked += 1;
            self.opening += 1;
        }
        if let Err(error) = connection.flush() {
            self.lost(number, &error.to_string());
        }
    }

    fn lost(&mut self, number: usize, error: &str) {
        let connection = &mut self.connections[number];
        if connection.socket.take().is_none() {
            return;
        }
        self.counts.last_error = Some(error.to_owned());
        for place in 0..connection.asked {
            self.over(number, place);
        }
    }

    fn over(&mut self, number: usize, place: usize) {
        let Some(stream) = self.connections[number].streams.get_mut(place) else { return };
        if !std::mem::replace(&mut stream.is_over, true) {
            self.counts.lost += 1;
            if stream.heard.ready { self.counts.connected -= 1 } else { self.opening -= 1 }
        }
    }

    fn read(&mut self, number: usize, closed: bool) -> io::Result<()> {
        self.ear.now = now();
        loop {
            let connection = &mut self.connections[number];
            let Some(socket) = &mut connection.socket else { return Ok(()) };
            let kept = connection.kept.len();
            self.buffer[..kept].copy_from_slice(&connection.kept);
            let count = match socket.read(&mut self.buffer[kept..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let (buffer, end) = (std::mem::take(&mut self.buffer), kept + count);
            let mut rest = &buffer[..end];
            while let Some((frame, after)) = Frame::read(rest) {
                self.take(number, &frame)?;
                rest = after;
            }
            let connection = &mut self.connections[number];
            connection.kept.clear();
            connection.kept.extend_from_slice(rest);
            let is_filled = end == buffer.len();
            self.buffer = buffer;
            connection.flush()?;
            if !is_filled && !closed {
                return Ok(());
            }
        }
    }

    fn take(&mut self, number: usize, frame: &Frame<'_>) -> io::Result<()> {
        let connection = &mut self.connections[number];
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => write_frame(&mut connection.out, SETTINGS, ACK, 0, &[]),
            PING if frame.flags & ACK == 0 => write_frame(&mut connection.out, PING, ACK, 0, frame.payload),
            GOAWAY => return Err(io::Error::other("the server says GOAWAY")),
            HEADERS | DATA | RST_STREAM => {
                let place = (frame.stream / 2) as usize;
                if place < connection.streams.len() && !connection.streams[place].is_over {
                    self.take_of_stream(number, place, frame)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn take_of_stream(&mut self, number: usize, place: usize, frame: &Frame<'_>) -> io::Result<()> {
        let connection = &mut self.connections[number];
        let who = self.plan.listener(connection.first + place as u32);
        let Stream { heard, text, .. } = &mut connection.streams[place];
        let was_ready = heard.ready;
        let mut is_over = frame.kind == RST_STREAM || frame.flags & END_STREAM != 0;
        match frame.kind {
            HEADERS => {
                let status = status(frame.unpadded());
                if status == 200 {
                    heard.ready |= self.ear.is_ready_by_head();
                } else {
                    self.ear.refused(status.to_string());
                    is_over = true;
                }
            }
            DATA => {
                connection.taken_bytes += frame.payload.len() as u32;
                if connection.taken_bytes >= WIDEN_AT {
                    let taken = std::mem::take(&mut connection.taken_bytes).to_be_bytes();
                    write_frame(&mut connection.out, WINDOW_UPDATE, 0, 0, &taken);
                }
                let data = frame.unpadded();
                if text.is_empty() {
                    let taken = self.ear.hear(who, heard, data);
                    text.extend_from_slice(&data[taken..]);
                } else {
                    text.extend_from_slice(data);
                    let taken = self.ear.hear(who, heard, text);
                    text.drain(..taken);
                }
                if text.is_empty() {
                    *text = Vec::new(); // Nothing is kept for who waits.
                } else if text.len() > EVENT_BYTES_MAX {
                    self.ear.fault(FaultKind::BadStream, who, "-", "a stream of events", "an event without an end");
                    is_over = true;
                }
            }
            _ => {}
        }
        if !was_ready && heard.ready {
            self.opening -= 1;
            self.counts.connected += 1;
            self.counts.subscribed += 1;
            self.counts.last_subscribed = self.ear.now;
        }
        if is_over {
            self.over(number, place);
        }
        Ok(())
    }
}

impl Connection {
    fn flush(&mut self) -> io::Result<()> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        while !self.out.is_empty() {
            match socket.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.out = Vec::new();
        Ok(())
    }
}
