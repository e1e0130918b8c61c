//! All clients on one thread and one epoll set: sockets are read when they have something, and nothing else runs.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use fanfare_auth::Secrets;
use fastrand::Rng;
use mio::event::Event;
use mio::{Events, Interest, Poll, Token};

use crate::check::{Checker, FaultKind, Seen};
use crate::client::{After, Client, Counts, Readiness, Shared};
use crate::crowd::connect;
use crate::cuts::Cutter;
use crate::endpoint::Endpoint;
use crate::ledger::Ledger;
use crate::report::new_histogram;
use crate::traffic::Traffic;

/// Connections on their way to `connected` at once: below what listeners queue.
const OPENING_MAX: usize = 512;

/// Bytes read at once.
const BUFFER_BYTES: usize = 128 * 1024;

/// Pause before a connection that could not even be opened is tried again.
const OPEN_PAUSE: Duration = Duration::from_millis(200);

/// All clients.
#[derive(Debug)]
pub(crate) struct Swarm<'a> {
    poll: Poll,
    endpoints: &'a [Endpoint],
    clients: Vec<Client>,
    shared: Shared,
    rng: Rng,
    /// Away until then.
    away: BinaryHeap<Reverse<(Instant, u32)>>,
    /// To be opened, as soon as fewer are opening.
    to_open: VecDeque<u32>,
    opening: usize,
    connected: u32,
    cutter: Option<Cutter>,
    load: Load,
    open_error: Option<io::Error>,
}

/// How much of its time the thread works.
#[derive(Debug)]
struct Load {
    since: Instant,
    busy: Duration,
    busiest: f64,
}

impl Load {
    fn add(&mut self, busy: Duration) {
        self.busy += busy;
        let window = self.since.elapsed();
        if window >= Duration::from_secs(1) {
            self.busiest = self.busiest.max(self.busy.as_secs_f64() / window.as_secs_f64());
            (self.since, self.busy) = (Instant::now(), Duration::ZERO);
        }
    }
}

impl<'a> Swarm<'a> {
    pub(crate) fn new(
        endpoints: &'a [Endpoint],
        traffic: &Traffic,
        checker: Checker,
        secret: Option<Secrets>,
        run_began: Instant,
    ) -> io::Result<Self> {
        let counts = Counts {
            latency: std::array::from_fn(|_| new_histogram()),
            replayed: 0,
            resumes: 0,
            lost: 0,
            closings: Default::default(),
            refusals: Default::default(),
        };
        Ok(Self {
            poll: Poll::new()?,
            endpoints,
            clients: (0..traffic.clients).map(|number| Client::new(number, Seen::new(number, traffic))).collect(),
            shared: Shared { checker, secret, counts, run_began, buffer: vec![0; BUFFER_BYTES].into() },
            rng: Rng::with_seed(traffic.seed ^ 0x5a),
            away: BinaryHeap::new(),
            to_open: (0..traffic.clients).collect(),
            opening: 0,
            connected: 0,
            cutter: None,
            load: Load { since: Instant::now(), busy: Duration::ZERO, busiest: 0.0 },
            open_error: None,
        })
    }

    /// Clients whose `connected` came and whose connection stands.
    pub(crate) fn connected(&self) -> u32 {
        self.connected
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    pub(crate) fn checker(&mut self) -> &mut Checker {
        &mut self.shared.checker
    }

    pub(crate) fn cuts(&self) -> u32 {
        self.cutter.as_ref().map_or(0, Cutter::cuts)
    }

    /// Why the last connection that could not be opened could not.
    pub(crate) fn open_error(&self) -> Option<&io::Error> {
        self.open_error.as_ref()
    }

    /// Begins to count how busy the thread is.
    pub(crate) fn start_measuring(&mut self) {
        self.load = Load { since: Instant::now(), busy: Duration::ZERO, busiest: 0.0 };
    }

    pub(crate) fn busiest_second(&self) -> f64 {
        self.load.busiest
    }

    /// From now on clients are cut off, some of them already in their first connection.
    pub(crate) fn cut_with(&mut self, mut cutter: Cutter) {
        for client in &mut self.clients {
            client.cut_at = cutter.first();
        }
        self.cutter = Some(cutter);
    }

    /// Cuts off whom it is time to, at so long after the start of publishing.
    pub(crate) fn cut_due(&mut self, elapsed: Duration) {
        let due = self.cutter.as_mut().map_or(0, |cutter| cutter.due(elapsed));
        self.cut_some(due);
    }

    /// Makes the cuts that are still missing, as far as there is somebody to cut off. True when all are made.
    pub(crate) fn cut_rest(&mut self) -> bool {
        for client in &mut self.clients {
            client.cut_at = None;
        }
        let rest = self.cutter.as_mut().map_or(0, Cutter::rest);
        self.cut_some(rest);
        self.cutter.as_mut().is_none_or(|cutter| cutter.rest() == 0)
    }

    fn cut_some(&mut self, count: u32) {
        let clients = u32::try_from(self.clients.len()).expect("made from a u32");
        for _ in 0..count {
            let Some(cutter) = &mut self.cutter else { return };
            let first = cutter.draw(clients);
            let mut round = (first..clients).chain(0..first);
            let Some(client) = round.find(|client| self.clients[*client as usize].link.is_some()) else { return };
            self.cut(client);
        }
    }

    fn cut(&mut self, number: u32) {
        let was_armed = self.clients[number as usize].cut_at.take().is_some();
        self.close(number);
        let Some(cutter) = &mut self.cutter else { return };
        let (away, cut_at) = cutter.cut(was_armed);
        self.clients[number as usize].cut_at = cut_at;
        self.away.push(Reverse((Instant::now() + away, number)));
    }

    /// Resets a client's connection.
    fn close(&mut self, number: u32) {
        let client = &mut self.clients[number as usize];
        let Some(link) = &mut client.link else { return };
        // Closing would do it as well; a registration must not outlive its descriptor, so be plain.
        _ = self.poll.registry().deregister(link.stream());
        if link.is_connected {
            self.connected -= 1;
        } else {
            self.opening -= 1;
        }
        client.reset();
    }

    /// Closes everything.
    pub(crate) fn close_all(&mut self) {
        for number in 0..u32::try_from(self.clients.len()).expect("made from a u32") {
            self.close(number);
        }
        self.away.clear();
        self.to_open.clear();
    }

    /// Handles what there is to handle, waiting for so long at most.
    pub(crate) fn turn(&mut self, events: &mut Events, timeout: Duration) -> io::Result<()> {
        let began = Instant::now();
        self.bring_back(began);
        let next = self.away.peek().map(|Reverse((at, _))| at.saturating_duration_since(began));
        let prepared = began.elapsed();
        let timeout = next.map_or(timeout, |next| next.min(timeout));
        if let Err(error) = self.poll.poll(events, Some(timeout))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        let woken = Instant::now();
        for event in events.iter() {
            self.handle(event);
        }
        self.load.add(prepared + woken.elapsed());
        Ok(())
    }

    fn handle(&mut self, event: &Event) {
        let Token(number) = event.token();
        let client = &mut self.clients[number];
        let Some(link) = &client.link else { return };
        let was_connected = link.is_connected;
        let readiness = Readiness {
            writable: event.is_writable() || event.is_error(),
            closed: event.is_read_closed() || event.is_error(),
        };
        let after = client.ready(readiness, &mut self.shared);
        if !was_connected && client.link.as_ref().is_some_and(|link| link.is_connected) {
            self.opening -= 1;
            self.connected += 1;
        }
        let number = client.number;
        match after {
            After::Stay => {}
            After::Cut => self.cut(number),
            After::Lost { pause } => {
                self.shared.counts.lost += 1;
                self.close(number);
                self.away.push(Reverse((Instant::now() + pause.mul_f64(0.5 + self.rng.f64() / 2.0), number)));
            }
        }
    }

    fn bring_back(&mut self, now: Instant) {
        while let Some(Reverse((at, number))) = self.away.peek()
            && *at <= now
        {
            self.to_open.push_back(*number);
            self.away.pop();
        }
        while self.opening < OPENING_MAX
            && let Some(number) = self.to_open.pop_front()
        {
            if let Err(error) = self.open(number) {
                self.open_error = Some(error);
                self.away.push(Reverse((now + OPEN_PAUSE, number)));
            }
        }
    }

    fn open(&mut self, number: u32) -> io::Result<()> {
        let client = &mut self.clients[number as usize];
        let endpoint = &self.endpoints[self.rng.usize(..self.endpoints.len())];
        let mut stream = connect(endpoint.address(), number)?;
        self.poll.registry().register(&mut stream, Token(number as usize), Interest::READABLE | Interest::WRITABLE)?;
        client.open(stream, endpoint, &mut self.shared);
        self.opening += 1;
        Ok(())
    }

    /// How many clients still lack something that was acknowledged.
    pub(crate) fn incomplete(&self, ledger: &Ledger) -> usize {
        let checker = &self.shared.checker;
        self.clients.iter().filter(|client| !checker.is_complete(&client.seen, ledger)).count()
    }

    /// Holds everything against what was published.
    pub(crate) fn judge(&mut self, ledger: &Ledger) {
        for client in &self.clients {
            if !client.link.as_ref().is_some_and(|link| link.is_connected) {
                let got = if client.link.is_some() { "no `connected`" } else { "no connection" };
                self.shared.checker.fault(
                    FaultKind::NotConnected,
                    client.number,
                    "-",
                    "to be connected at the end",
                    got,
                );
            }
        }
        self.shared.checker.judge(self.clients.iter().map(|client| &client.seen), ledger);
    }
}
