//! Publishers of a measurement: keep-alive connections, each on a thread of its own, each saying one thing at a time.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::payload::Payload;
use super::{Audience, Peer};
use crate::endpoint::Endpoint;
use crate::publish::{open, read_answer};

/// Events to everybody that may be on their way: enough that no server waits for one, and that events may leave together.
const WINDOW: u64 = 32;

/// Events to users that may be on their way.
const USERS_WINDOW: u64 = 20_000;

/// Pause until the window is looked at again.
const PAUSE: Duration = Duration::from_micros(200);

/// What publishers and clients share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Events so far that the server acknowledged, to everybody and to each user.
    everybody: AtomicU32,
    users: Vec<AtomicU32>,
    acknowledged: AtomicU64,
    /// Requests that were not answered with a status of success.
    pub(super) refused: AtomicU64,
    /// Deliveries so far, as the clients tell.
    pub(super) delivered: AtomicU64,
    pub(super) stop: AtomicBool,
}

/// What a publisher says, until it is stopped.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lane {
    /// To everybody, as fast as so many clients take it.
    Saturate { clients: u32 },
    /// To everybody, at these times.
    Rate { every: Duration },
    /// To users, as fast as they take it, at random: those whose number leaves this rest when divided.
    Users { of: u32, rest: u32 },
}

impl Shared {
    pub(super) fn new(users: u32) -> Self {
        Self {
            everybody: AtomicU32::new(0),
            users: (0..users).map(|_| AtomicU32::new(0)).collect(),
            acknowledged: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// Events that were acknowledged for someone.
    pub(super) fn events(&self, audience: Audience) -> u32 {
        self.count(audience).load(Relaxed)
    }

    /// All of them.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Relaxed)
    }

    fn count(&self, audience: Audience) -> &AtomicU32 {
        match audience {
            Audience::Everybody => &self.everybody,
            Audience::User(user) => &self.users[user as usize],
        }
    }
}

/// A publisher's connection.
pub(super) struct Publisher<'a> {
    pub(super) peer: &'a Peer,
    pub(super) endpoint: Endpoint,
    pub(super) shared: &'a Shared,
    pub(super) run: u32,
    pub(super) run_began: Instant,
    pub(super) payload_bytes: usize,
    pub(super) stream: Option<TcpStream>,
}

impl Publisher<'_> {
    /// Publishes until it is stopped.
    pub(super) fn run(mut self, lane: Lane) -> io::Result<()> {
        let began = Instant::now();
        let mut rng = fastrand::Rng::new();
        for turn in 0_u32.. {
            if self.shared.stop.load(Relaxed) {
                break;
            }
            match lane {
                Lane::Saturate { clients } => {
                    self.wait_while(|shared| {
                        let on_their_way = u64::from(shared.events(Audience::Everybody)) * u64::from(clients);
                        on_their_way >= shared.delivered.load(Relaxed) + WINDOW * u64::from(clients)
                    });
                    self.publish(&[Audience::Everybody], Instant::now())?;
                }
                Lane::Rate { every } => {
                    let due = began + every * turn;
                    while let Some(left) = due.checked_duration_since(Instant::now()) {
                        thread::park_timeout(left);
                    }
                    self.publish(&[Audience::Everybody], due)?;
                }
                Lane::Users { of, rest } => {
                    self.wait_while(|shared| shared.acknowledged() >= shared.delivered.load(Relaxed) + USERS_WINDOW);
                    let users = u32::try_from(self.shared.users.len()).expect("made from a u32");
                    let own = (users - rest).div_ceil(of);
                    let (first, count) = (rng.u32(..own), own.min(self.peer.batch_max));
                    let user = |place: u32| Audience::User(rest + of * ((first + place) % own));
                    let audiences = (0..count).map(user).collect::<Vec<_>>();
                    self.publish(&audiences, Instant::now())?;
                }
            }
        }
        Ok(())
    }

    fn wait_while(&self, is_full: impl Fn(&Shared) -> bool) {
        while is_full(self.shared) && !self.shared.stop.load(Relaxed) {
            thread::park_timeout(PAUSE);
        }
    }

    /// Publishes one event to each, in one request; nobody is named twice.
    pub(super) fn publish(&mut self, audiences: &[Audience], due: Instant) -> io::Result<()> {
        let due_micros = due.saturating_duration_since(self.run_began).as_micros();
        let due_micros = u64::try_from(due_micros).unwrap_or(u64::MAX);
        let mut payloads = Vec::with_capacity(audiences.len());
        for audience in audiences {
            let number = self.shared.events(*audience);
            let mut payload = String::new();
            Payload { run: self.run, number, due_micros }.write(self.payload_bytes, &mut payload);
            payloads.push(payload);
        }
        let events = audiences.iter().copied().zip(payloads.iter().map(String::as_str)).collect::<Vec<_>>();
        let post = (self.peer.publish)(&events);
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\n{}Content-Length: {}\r\n\r\n{}",
            post.target,
            self.endpoint.authority(),
            post.headers,
            post.body.len(),
            post.body
        );
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => open(&self.endpoint)?,
        };
        stream.write_all(request.as_bytes())?;
        let (status, _, keep) = read_answer(&mut stream)?;
        self.stream = keep.then_some(stream);
        if !(200..300).contains(&status) {
            self.shared.refused.fetch_add(1, Relaxed);
            return Ok(());
        }
        for audience in audiences {
            self.shared.count(*audience).fetch_add(1, Relaxed);
        }
        self.shared.acknowledged.fetch_add(audiences.len() as u64, Relaxed);
        Ok(())
    }
}
