//! A process that holds clients, because one may have no more than 20,000 descriptors: this program, started again.
//!
//! It is told what to do by lines of JSON on its standard input, and tells where it is on its standard output. When its
//! input ends it ends too: whatever becomes of the program that started it, nobody is left behind.

use std::io::{self, BufRead, BufReader, Write, stdin, stdout};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use fanfare_auth::Secrets;
use mio::{Events, Token, Waker};

use crate::clock::{Nanos, now};
use crate::crowd::{Counts, Crowd, Expected, Multiplexed, Plan, Sum};
use crate::endpoint::Endpoint;
use crate::machine::raise_descriptor_limit;
use crate::words::{Order, Place, Setup, WireSum, Word};

/// The argument that makes a process of this program a worker.
pub const WORKER: &str = "worker";

/// Longest pause between two words of a worker, and the shortest while nothing important happens.
const TICK: Duration = Duration::from_millis(20);

/// Pause between two counts of who lacks something: they look at every client.
const COUNT_PAUSE: Nanos = 4_000_000;

/// Orders that wait; more make the sender wait.
const ORDERS_MAX: usize = 16;

/// Runs a worker until its standard input ends.
///
/// # Errors
/// Where the machine refuses, or what it is told can't be understood.
pub fn run() -> io::Result<()> {
    let mut lines = BufReader::new(stdin());
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let setup = serde_json::from_str::<Setup>(&line).map_err(io::Error::other)?;
    let result = work(setup, lines);
    if let Err(error) = &result {
        say(&Word::Failed(error.to_string()))?;
    }
    result
}

fn say(word: &Word) -> io::Result<()> {
    let mut line = serde_json::to_vec(word).map_err(io::Error::other)?;
    line.push(b'\n');
    stdout().lock().write_all(&line)
}

const WAKER: Token = Token(usize::MAX);

fn work(setup: Setup, lines: impl BufRead + Send + 'static) -> io::Result<()> {
    raise_descriptor_limit()?;
    let edges = setup.edges.iter().map(|url| url.parse::<Endpoint>().map_err(io::Error::other));
    let secret = setup.secret.as_deref().map(|secret| Secrets::parse(secret).map_err(io::Error::other));
    let plan = Plan {
        edges: edges.collect::<io::Result<Vec<_>>>()?,
        dialect: setup.dialect,
        secret: secret.transpose()?,
        first: setup.first,
        clients: setup.clients,
        channels: setup.channels,
        others: setup.others,
        run: setup.run,
        payload_bytes: setup.payload_bytes,
        opening_max: setup.opening_max,
        keep_ids: setup.keep_ids,
    };
    let clients = match setup.streams {
        0 => Clients::Http1(Box::new(Crowd::new(plan)?)),
        streams => Clients::Http2(Box::new(Multiplexed::new(plan, streams)?)),
    };
    let waker = Arc::new(Waker::new(clients.registry(), WAKER)?);
    // A waker that is dropped takes a call along that was not heard yet: this one outlives the thread that calls.
    let ringing = Arc::clone(&waker);
    let (send, orders) = sync_channel(ORDERS_MAX);
    thread::spawn(move || {
        for line in lines.lines() {
            let order = line.ok().and_then(|line| serde_json::from_str::<Order>(&line).ok());
            let is_last = order.is_none();
            if send.send(order).is_err() || ringing.wake().is_err() || is_last {
                return;
            }
        }
        // The end of the input: with the sender dropped the worker ends.
        drop(send);
        _ = ringing.wake();
    });
    Worker { clients, orders, step: setup.step, before: (0, 0), expected: None, judged: false, said: Place::default() }
        .run()
}

/// Each client a connection of its own, or many on each.
enum Clients {
    Http1(Box<Crowd>),
    Http2(Box<Multiplexed>),
}

/// Calls what both have.
macro_rules! either {
    ($clients:expr, $name:ident => $call:expr) => {
        match $clients {
            Clients::Http1($name) => $call,
            Clients::Http2($name) => $call,
        }
    };
}

impl Clients {
    fn registry(&self) -> &mio::Registry {
        either!(self, clients => clients.registry())
    }

    fn counts(&self) -> &Counts {
        either!(self, clients => &clients.counts)
    }

    fn sum(&self) -> &Sum {
        either!(self, clients => clients.sum())
    }

    fn open_all(&mut self) -> io::Result<()> {
        match self {
            Self::Http1(crowd) => {
                crowd.open_all();
                Ok(())
            }
            Self::Http2(crowd) => crowd.open_all(),
        }
    }

    /// Those that have a connection each, and so can be cut off and stalled one by one.
    fn apart(&mut self) -> io::Result<&mut Crowd> {
        match self {
            Self::Http1(crowd) => Ok(crowd),
            Self::Http2(_) => Err(io::Error::other("clients that share connections can't be cut off one by one")),
        }
    }
}

struct Worker {
    clients: Clients,
    orders: Receiver<Option<Order>>,
    step: u64,
    /// Deliveries and heartbeats of the sums that were told.
    before: (u64, u64),
    expected: Option<(u32, Expected)>,
    judged: bool,
    said: Place,
}

impl Worker {
    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let (mut said_at, mut counted_at) = (0, 0);
        let mut place = Place::default();
        loop {
            if either!(&mut self.clients, clients => clients.turn(&mut events, TICK, WAKER))? && !self.obey()? {
                return Ok(());
            }
            let moment = now();
            self.look(&mut place);
            if let Some((id, expected)) = &self.expected
                && place.complete_at.is_none_or(|_| place.expectation != *id)
                && (moment - counted_at > COUNT_PAUSE || place.expectation != *id)
            {
                (counted_at, place.expectation) = (moment, *id);
                place.incomplete = either!(&self.clients, clients => clients.incomplete(expected));
                place.complete_at = (place.incomplete == 0).then(now);
            }
            let is_due = moment - said_at >= crate::clock::nanos(TICK)
                || place.deliveries - self.said.deliveries >= self.step
                || place.expectation != self.said.expectation
                || place.complete_at != self.said.complete_at;
            if is_due && place != self.said {
                say(&Word::Place(place.clone()))?;
                (self.said, said_at) = (place.clone(), moment);
            }
        }
    }

    fn look(&self, place: &mut Place) {
        let (counts, sum) = (self.clients.counts(), self.clients.sum());
        (place.connected, place.subscribed) = (counts.connected, counts.subscribed);
        (place.last_subscribed, place.lost) = (counts.last_subscribed, counts.lost);
        (place.deliveries, place.heartbeats) = (self.before.0 + sum.deliveries, self.before.1 + sum.heartbeats);
        let refusals = either!(&self.clients, clients => clients.refusals());
        if place.refusals != *refusals {
            place.refusals.clone_from(refusals);
        }
        if place.last_error != counts.last_error {
            place.last_error.clone_from(&counts.last_error);
        }
    }

    /// Does what was ordered. False: nobody orders anything any more.
    fn obey(&mut self) -> io::Result<bool> {
        loop {
            let order = match self.orders.try_recv() {
                Ok(Some(order)) => order,
                Ok(None) => return Err(io::Error::other("an order that can't be understood")),
                Err(TryRecvError::Empty) => return Ok(true),
                Err(TryRecvError::Disconnected) => return Ok(false),
            };
            match order {
                Order::Open => self.clients.open_all()?,
                Order::Cut => self.clients.apart()?.cut_all(),
                Order::Churn { fresh } => self.clients.apart()?.churn(fresh),
                Order::CalmDown => self.clients.apart()?.calm_down(),
                Order::Stall { count } => self.clients.apart()?.stall(count),
                Order::Dismiss => self.clients.apart()?.dismiss(),
                Order::Expect { id, expected } => self.expected = Some((id, expected)),
                Order::Judge => {
                    if let Some((_, expected)) = self.expected.as_ref().filter(|_| !self.judged) {
                        either!(&mut self.clients, clients => clients.judge(expected));
                        self.judged = true;
                    }
                }
                Order::Sum => {
                    let (sum, busy) = either!(&mut self.clients, clients => clients.take_sum());
                    self.before = (self.before.0 + sum.deliveries, self.before.1 + sum.heartbeats);
                    say(&Word::Sum(Box::new(WireSum::new(&sum, busy))))?;
                }
            }
        }
    }
}
