//! As many clients as a process may have, on one thread and one epoll set, each a few dozen bytes.
//!
//! What is read goes through one large buffer that all share, and is heard (`ear`) where it lies. A client keeps its
//! place in the response (`stream`), the next number of each of its channels, and the id to come back with. Who it is
//! follows from its number. The crowd does what it is told (`crate::worker`) and decides nothing.

mod ear; // Hears, and checks every event.
mod frames; // The wire of HTTP/2.
mod http2; // The same over few connections.
mod source; // Where connections come from.
mod stream; // From bytes to text.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io::{self, Read, Write};
use std::time::Duration;

use fanfare_auth::Secrets;
use fastrand::Rng;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

pub(crate) use ear::{Listener, Span, Sum};
pub(crate) use http2::Multiplexed;
pub(crate) use source::connect;

use crate::check::FaultKind;
use crate::clock::{Nanos, nanos, now, seconds};
use crate::dialect::{Dialect, Who};
use crate::endpoint::Endpoint;
use crate::request::token;
use ear::{Ear, Heard};
use stream::{End, Stream};

/// Bytes read at once. It stays in the processor's cache.
const BUFFER_BYTES: usize = 128 * 1024;

/// Pause before coming back where the server names none, and before a connection that could not be opened is tried
/// again.
const PAUSE: Duration = Duration::from_secs(1);
const OPEN_PAUSE: Duration = Duration::from_millis(200);

/// Clients that are cut off before the rest of the world is looked at again.
const CUTS_AT_ONCE: usize = 256;

/// What the clients of a process are.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) edges: Vec<Endpoint>,
    pub(crate) dialect: Dialect,
    pub(crate) secret: Option<Secrets>,
    /// Number of the first client; the others follow.
    pub(crate) first: u32,
    pub(crate) clients: u32,
    /// Client n follows shared channel n modulo this, where there is any.
    pub(crate) channels: u32,
    /// Channels that a client follows besides, with nobody else.
    pub(crate) others: u32,
    pub(crate) run: u32,
    pub(crate) payload_bytes: usize,
    /// Connections on their way at once.
    pub(crate) opening_max: usize,
    /// Whether clients come back with their last id.
    pub(crate) keep_ids: bool,
}

/// What everybody should have in the end.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Expected {
    pub(crate) all: u32,
    /// By shared channel.
    pub(crate) channels: Vec<u32>,
    /// By client of this process; empty where there are none.
    pub(crate) users: Vec<u32>,
}

impl Expected {
    /// What a client of this process should have: of its inbox, everybody's, its channel.
    fn of(&self, number: u32, channel: u32) -> [u32; 3] {
        let of = |counts: &[u32], at: u32| counts.get(at as usize).copied().unwrap_or(0);
        [of(&self.users, number), self.all, of(&self.channels, channel)]
    }
}

impl Plan {
    fn listener(&self, number: u32) -> Listener {
        let user = self.first + number;
        Listener { user, channel: user.checked_rem(self.channels).unwrap_or(u32::MAX >> 1) }
    }
}

impl Load {
    /// The share of its time that the thread worked since the last time that this was asked.
    fn take(&mut self) -> f64 {
        let moment = now();
        let share = seconds(0, self.busy) / seconds(self.since, moment).max(1e-9);
        *self = Self { since: moment, busy: 0 };
        share
    }
}

/// All clients of a process.
#[derive(Debug)]
pub(crate) struct Crowd {
    plan: Plan,
    poll: Poll,
    clients: Vec<Client>,
    ear: Ear,
    buffer: Box<[u8]>,
    rng: Rng,
    away: BinaryHeap<Reverse<(Nanos, u32)>>,
    to_open: VecDeque<u32>,
    to_cut: VecDeque<u32>,
    opening: usize,
    churn: Option<Churn>,
    pub(crate) counts: Counts,
    load: Load,
}

/// One client.
#[derive(Debug)]
struct Client {
    socket: Option<TcpStream>,
    stage: Stage,
    stream: Stream,
    heard: Heard,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The request was not sent yet, or not whole.
    Asking,
    /// It is to be told that it is subscribed.
    Asked,
    Subscribed,
    /// It reads nothing.
    Stalled,
    /// It reads on until the end.
    Dismissed,
}

/// Clients that are cut off as soon as they are connected, and come back.
#[derive(Clone, Copy, Debug)]
struct Churn {
    fresh: bool,
}

/// Where the crowd is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Clients that are subscribed now.
    pub(crate) connected: u32,
    /// Connections that got so far, ever.
    pub(crate) subscribed: u64,
    /// When the last of them did.
    pub(crate) last_subscribed: Nanos,
    /// Connections that ended without our doing.
    pub(crate) lost: u64,
    /// Connections that could not even be opened, and why the last of them could not.
    pub(crate) not_opened: u64,
    pub(crate) last_error: Option<String>,
}

/// How much of its time the thread works.
#[derive(Debug, Default)]
struct Load {
    since: Nanos,
    busy: Nanos,
}

impl Crowd {
    pub(crate) fn new(plan: Plan) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            clients: Vec::new(),
            ear: Ear::new(plan.run, plan.payload_bytes, plan.dialect.ready.as_deref(), plan.keep_ids),
            buffer: vec![0; BUFFER_BYTES].into(),
            rng: Rng::with_seed(u64::from(plan.first)),
            away: BinaryHeap::new(),
            to_open: VecDeque::new(),
            to_cut: VecDeque::new(),
            opening: 0,
            churn: None,
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

    /// Opens all that are not open. Only now there is memory for each of them, so that it can be told.
    pub(crate) fn open_all(&mut self) {
        let client = || Client { socket: None, stage: Stage::Asking, stream: Stream::new(), heard: Heard::new() };
        self.clients.resize_with(self.plan.clients as usize, client);
        self.to_open =
            (0..self.plan.clients).filter(|client| self.clients[*client as usize].socket.is_none()).collect();
    }

    /// Resets all connections; each client comes back at once.
    pub(crate) fn cut_all(&mut self) {
        self.to_cut = (0..self.plan.clients).collect();
    }

    /// From now on whoever is connected is cut off and comes back, with its last id or as somebody new. The others
    /// begin.
    pub(crate) fn churn(&mut self, fresh: bool) {
        self.churn = Some(Churn { fresh });
        self.cut_all();
    }

    /// Whoever is away comes back to stay.
    pub(crate) fn calm_down(&mut self) {
        self.churn = None;
        self.to_cut.clear();
        let queued = self.to_open.iter().copied().collect::<std::collections::HashSet<_>>();
        let missing = (0..self.plan.clients).filter(|client| self.clients[*client as usize].socket.is_none());
        self.to_open.extend(missing.filter(|client| !queued.contains(client)));
    }

    /// The last so many clients read nothing any more.
    pub(crate) fn stall(&mut self, count: u32) {
        for client in self.clients.iter_mut().rev().take(count as usize) {
            if client.stage == Stage::Subscribed {
                client.stage = Stage::Stalled;
            }
        }
    }

    /// They read what is left for them, and don't come back. Nothing is expected of them.
    pub(crate) fn dismiss(&mut self) {
        for number in 0..self.plan.clients {
            if self.clients[number as usize].stage == Stage::Stalled {
                self.clients[number as usize].stage = Stage::Dismissed;
                // What came meanwhile was told already: nothing would wake it.
                self.ready(number, false, true);
            }
        }
    }

    /// How many clients lack something.
    pub(crate) fn incomplete(&self, expected: &Expected) -> u32 {
        let lacks = |(number, client): &(u32, &Client)| {
            client.stage != Stage::Dismissed && !client.heard.has(self.expected_of(*number, expected))
        };
        u32::try_from((0..).zip(&self.clients).filter(lacks).count()).expect("made from a u32")
    }

    fn expected_of(&self, number: u32, expected: &Expected) -> [u32; 3] {
        expected.of(number, self.plan.listener(number).channel)
    }

    /// Holds everybody against what was published.
    pub(crate) fn judge(&mut self, expected: &Expected) {
        for number in 0..self.plan.clients {
            let (who, of) = (self.plan.listener(number), self.expected_of(number, expected));
            let client = &self.clients[number as usize];
            if client.stage != Stage::Dismissed {
                self.ear.judge(who, &client.heard, of);
            }
        }
        self.ear.judge_holes();
    }

    /// What was heard since the last time that this was asked, and the share of its time that the thread worked.
    pub(crate) fn take_sum(&mut self) -> (Sum, f64) {
        (self.ear.take_sum(), self.load.take())
    }

    /// Handles what there is to handle, waiting for so long at most. True: the waker rang.
    pub(crate) fn turn(&mut self, events: &mut Events, timeout: Duration, waker: Token) -> io::Result<bool> {
        let began = now();
        self.cut_some();
        self.bring_back(began);
        let next = self.away.peek().map(|Reverse((at, _))| Duration::from_nanos(at.saturating_sub(began)));
        let timeout =
            if self.to_cut.is_empty() { next.map_or(timeout, |next| next.min(timeout)) } else { Duration::ZERO };
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
            } else {
                self.handle(event);
            }
        }
        self.load.busy += now().saturating_sub(woken);
        Ok(rang)
    }

    fn handle(&mut self, event: &Event) {
        let number = u32::try_from(event.token().0).expect("made from a u32");
        let closed = event.is_read_closed() || event.is_error();
        self.ready(number, event.is_writable() || event.is_error(), closed);
    }

    /// Goes on as far as a client's connection lets it. Where the peer closed, a short read is no sign that all is read.
    fn ready(&mut self, number: u32, writable: bool, closed: bool) {
        if self.clients[number as usize].socket.is_none() {
            return;
        }
        if self.clients[number as usize].stage == Stage::Asking {
            if !writable {
                return;
            }
            if let Err(error) = self.ask(number) {
                return self.lost(number, Some(error.to_string()), PAUSE);
            }
        }
        if matches!(self.clients[number as usize].stage, Stage::Asked | Stage::Subscribed | Stage::Dismissed) {
            self.read(number, closed);
        }
    }

    /// Sends the request. What a new socket does not take at once is not worth going on with.
    fn ask(&mut self, number: u32) -> io::Result<()> {
        let client = &mut self.clients[number as usize];
        let Some(socket) = &mut client.socket else { return Ok(()) };
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        match socket.peer_addr() {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(()),
            other => other?,
        };
        let user = self.plan.first + number;
        let channel = user.checked_rem(self.plan.channels).unwrap_or(0);
        let token = self.plan.secret.as_ref().map(|secret| token(user, secret));
        let last_id = str::from_utf8(&client.heard.last_id).ok().filter(|id| !id.is_empty());
        let who = Who { user, channel, others: self.plan.others, token: token.as_deref(), last_id };
        let request = self.plan.dialect.subscription(&self.plan.edges[user as usize % self.plan.edges.len()], who);
        let written = socket.write(&request)?;
        if written < request.len() {
            return Err(io::Error::other("a new connection does not take a whole request"));
        }
        client.stage = Stage::Asked;
        Ok(())
    }

    fn read(&mut self, number: u32, closed: bool) {
        let who = self.plan.listener(number);
        self.ear.now = now();
        loop {
            let client = &mut self.clients[number as usize];
            let Some(socket) = &mut client.socket else { return };
            let kept = client.stream.put_back(&mut self.buffer);
            let count = match socket.read(&mut self.buffer[kept..]) {
                Ok(0) => return self.lost(number, None, PAUSE),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // What was put back is kept again.
                    _ = client.stream.take(&self.buffer[..kept], &mut self.ear, who, &mut client.heard);
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.lost(number, Some(error.to_string()), PAUSE),
            };
            let ended = client.stream.take(&self.buffer[..kept + count], &mut self.ear, who, &mut client.heard);
            if client.stage == Stage::Asked && client.heard.ready {
                client.stage = Stage::Subscribed;
                self.opening -= 1;
                self.counts.connected += 1;
                self.counts.subscribed += 1;
                self.counts.last_subscribed = self.ear.now;
                if let Some(churn) = self.churn {
                    return self.cut(number, churn.fresh);
                }
            }
            match ended {
                Ok(()) => {}
                Err(End::Body) => return self.lost(number, None, PAUSE),
                Err(End::Refused(status, after)) => {
                    self.ear.refused(status.to_string());
                    return self.lost(number, None, after.map_or(PAUSE, Duration::from_secs));
                }
                Err(End::Bad(text)) => {
                    self.ear.fault(FaultKind::BadStream, who, "-", "a stream of events", text);
                    return self.lost(number, None, PAUSE);
                }
            }
            if kept + count < self.buffer.len() && !closed {
                return;
            }
        }
    }

    /// A connection that ended without our doing comes back after a pause.
    fn lost(&mut self, number: u32, error: Option<String>, pause: Duration) {
        if self.clients[number as usize].stage == Stage::Dismissed {
            return self.close(number);
        }
        self.counts.lost += 1;
        self.counts.last_error = error.or(self.counts.last_error.take());
        self.close(number);
        let pause = nanos(pause.mul_f64(0.5 + self.rng.f64() / 2.0));
        self.away.push(Reverse((now() + pause, number)));
    }

    fn cut_some(&mut self) {
        for _ in 0..CUTS_AT_ONCE {
            let Some(number) = self.to_cut.pop_front() else { return };
            if self.clients[number as usize].stage == Stage::Subscribed {
                self.cut(number, self.churn.is_some_and(|churn| churn.fresh));
            }
        }
    }

    fn cut(&mut self, number: u32, fresh: bool) {
        self.close(number);
        if fresh {
            self.clients[number as usize].heard.forget();
        }
        self.to_open.push_back(number);
    }

    /// Resets a connection: what is on its way is lost, and no port is kept waiting.
    fn close(&mut self, number: u32) {
        let client = &mut self.clients[number as usize];
        let Some(mut socket) = client.socket.take() else { return };
        _ = self.poll.registry().deregister(&mut socket);
        // Where it fails the connection is gone already.
        _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        match client.stage {
            Stage::Asking | Stage::Asked => self.opening -= 1,
            Stage::Subscribed | Stage::Stalled | Stage::Dismissed => self.counts.connected -= 1,
        }
        if client.stage != Stage::Dismissed {
            client.stage = Stage::Asking;
        }
        (client.stream, client.heard.ready) = (Stream::new(), false);
    }

    fn bring_back(&mut self, moment: Nanos) {
        while let Some(Reverse((at, number))) = self.away.peek()
            && *at <= moment
        {
            self.to_open.push_back(*number);
            self.away.pop();
        }
        // Who has to be cut off first is not kept waiting by those who come back.
        while self.opening < self.plan.opening_max
            && self.to_cut.is_empty()
            && let Some(number) = self.to_open.pop_front()
        {
            if let Err(error) = self.open(number) {
                self.counts.not_opened += 1;
                self.counts.last_error = Some(error.to_string());
                self.away.push(Reverse((moment + nanos(OPEN_PAUSE), number)));
            }
        }
    }

    fn open(&mut self, number: u32) -> io::Result<()> {
        let client = &mut self.clients[number as usize];
        if client.socket.is_some() {
            return Ok(());
        }
        let edges = &self.plan.edges;
        let edge = &edges[(self.plan.first + number) as usize % edges.len()];
        let mut socket = connect(edge.address(), number)?;
        let token = Token(number as usize);
        self.poll.registry().register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        client.socket = Some(socket);
        if !client.heard.last_id.is_empty() {
            client.heard.back = now();
        }
        self.opening += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_small() {
        assert!(size_of::<Client>() <= 80, "{} bytes", size_of::<Client>());
    }
}
