//! The commands of a link: barriers and reads, over a connection of their own beside the subscription, answered in
//! the order in which they were sent.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Buf as _;
use fanfare_protocol::{Answer, Channel, Epoch, Position, Query, ShardIndex};
use tokio::io::AsyncReadExt as _;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::RedisError;
use super::arrivals::Arrivals;
use super::clock::Clock;
use super::error::is_no_script;
use super::resp::{self, Reply};
use super::scripts::{Call, Scripts, epoch, position};
use super::wire::{ANSWER_TIMEOUT, READ_BYTES, Wire, damaged};
use crate::link::LinkEvent;

/// Commands under way: enough to hide the way there and back, few enough that their answers fit beside the arrivals.
const WINDOW: usize = 16;

/// Requests that may wait. A resync asks for a page of each channel that moved; past it the link ends.
const REQUESTS_MAX: usize = 1_000_000;

#[derive(Debug)]
pub(crate) enum Request {
    Barrier(u64, Vec<Channel>),
    Read(ShardIndex, u64, Query),
}

#[derive(Debug, Default)]
pub(crate) struct Requests {
    waiting: Mutex<VecDeque<Request>>,
    bell: Notify,
}

impl Requests {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Request>> {
        self.waiting.lock().expect("no one panics while holding the requests")
    }

    pub(crate) fn push(&self, request: Request) {
        self.lock().push_back(request);
        self.bell.notify_one();
    }
}

/// An answer that is to come, and what it is for.
enum Awaited {
    /// With the time at which it was sent.
    Request(Request, Instant),
    Lasts(ShardIndex, u64, Vec<(Channel, Option<Position>)>),
    Floor(ShardIndex, u64, Vec<(Channel, Option<Position>)>),
    Loaded,
}

/// Sends requests and hands their answers on, until something is wrong. Says what.
pub(crate) async fn run(
    wire: Wire,
    requests: Arc<Requests>,
    arrivals: Arc<Arrivals>,
    clock: Arc<Clock>,
    scripts: Arc<Scripts>,
    markers: String,
) -> RedisError {
    let commands =
        Commands { wire, requests, arrivals, clock, scripts, markers, awaited: VecDeque::new(), bytes: Vec::new() };
    match commands.follow().await {
        Ok(never) => match never {},
        Err(reason) => reason,
    }
}

struct Commands {
    wire: Wire,
    requests: Arc<Requests>,
    arrivals: Arc<Arrivals>,
    clock: Arc<Clock>,
    scripts: Arc<Scripts>,
    markers: String,
    awaited: VecDeque<Awaited>,
    bytes: Vec<u8>,
}

impl Commands {
    async fn follow(mut self) -> Result<std::convert::Infallible, RedisError> {
        let mut heard = Instant::now();
        loop {
            while let Some(length) = self.wire.reader.read(&self.wire.buffer).map_err(damaged)? {
                let reply = self.wire.reader.reply(&self.wire.buffer);
                let awaited = self.awaited.pop_front();
                let awaited = awaited.ok_or_else(|| RedisError::Unexpected("an answer to nothing".to_owned()))?;
                let outcome = match reply.error() {
                    Some(text) => Outcome::of_error(text, awaited, &self.scripts)?,
                    None => Outcome::of(reply, awaited, &self.clock)?,
                };
                self.wire.buffer.advance(length);
                match outcome {
                    Outcome::Nothing => {}
                    Outcome::Arrived(event) => self.arrivals.push([event])?,
                    Outcome::More(awaited) => self.awaited.push_front(awaited),
                    Outcome::Again(request) => {
                        let call = self.call(&request);
                        if let Some(call) = call {
                            call.script.write_load(&mut self.bytes);
                            call.write(&mut self.bytes);
                            self.awaited.extend([Awaited::Loaded, Awaited::Request(request, Instant::now())]);
                        }
                    }
                }
                heard = Instant::now();
            }
            if self.awaited.is_empty() {
                heard = Instant::now();
            }
            // After the answers, which have made room: else requests would wait though nothing is on the way.
            self.take_requests()?;
            if !self.bytes.is_empty() {
                self.wire.send(&mem::take(&mut self.bytes)).await?;
            }
            self.wire.buffer.reserve(READ_BYTES);
            let waits = !self.awaited.is_empty();
            tokio::select! {
                read = timeout_at(heard + ANSWER_TIMEOUT, self.wire.stream.read_buf(&mut self.wire.buffer)) => match read {
                    Ok(Ok(1..)) => {}
                    Ok(_) => return Err(RedisError::Closed),
                    Err(_) if waits => return Err(RedisError::TimedOut),
                    Err(_) => {} // Nothing was asked.
                },
                () = self.requests.bell.notified() => {}
                () = self.arrivals.room.notified() => {}
            }
        }
    }

    /// Takes requests while there is room for them on the way and for their answers here.
    fn take_requests(&mut self) -> Result<(), RedisError> {
        while self.awaited.len() < WINDOW && self.arrivals.has_room() {
            let request = {
                let mut waiting = self.requests.lock();
                if waiting.len() > REQUESTS_MAX {
                    return Err(RedisError::TooMuch);
                }
                waiting.pop_front()
            };
            let Some(request) = request else { break };
            match self.call(&request) {
                Some(call) => call.write(&mut self.bytes),
                None => self.write_lasts(&request),
            }
            self.awaited.push_back(Awaited::Request(request, Instant::now()));
        }
        Ok(())
    }

    /// The script that a request runs; none for where channels stand, which are plain commands.
    fn call(&self, request: &Request) -> Option<Call> {
        match request {
            Request::Barrier(nonce, channels) => {
                let new_epoch = Epoch::from_random(fastrand::u64(..));
                Some(self.scripts.barrier(new_epoch, Some(&self.markers), *nonce, channels))
            }
            Request::Read(_, _, Query::After(channel, after, limit)) => {
                Some(self.scripts.history(channel, Some(*after), *limit))
            }
            Request::Read(_, _, Query::Newest(channel, limit)) => Some(self.scripts.history(channel, None, *limit)),
            Request::Read(_, _, Query::Lasts(_)) => None,
        }
    }

    /// Where channels stand, and only then the floor and the epoch: what is forgotten in between has raised it. Of the
    /// two places where they may stand, that of what is never forgotten is read first: what leaves it is in the other.
    fn write_lasts(&mut self, request: &Request) {
        let Request::Read(_, _, Query::Lasts(channels)) = request else { return };
        let keys = &self.scripts.keys;
        for key in [keys.kept(), keys.lasts()] {
            if channels.is_empty() {
                resp::command(&mut self.bytes, &[b"PING"]);
                continue;
            }
            resp::begin(&mut self.bytes, channels.len() + 2);
            resp::word(&mut self.bytes, b"ZMSCORE");
            resp::word(&mut self.bytes, &key);
            for channel in channels {
                resp::word(&mut self.bytes, channel.as_str().as_bytes());
            }
        }
        resp::command(&mut self.bytes, &[b"HMGET", &keys.meta(), b"f", b"e"]);
    }
}

/// What an answer comes to.
enum Outcome {
    Nothing,
    Arrived(LinkEvent),
    /// The next answer belongs to it, too: where the channels stand, then the floor and the epoch.
    More(Awaited),
    /// The script had to be loaded first.
    Again(Request),
}

impl Outcome {
    fn of(reply: Reply<'_>, awaited: Awaited, clock: &Clock) -> Result<Self, RedisError> {
        let page = |channel: Channel, shard, tag| {
            let page = Scripts::page(&channel, reply.words())?;
            Ok(Self::Arrived(LinkEvent::Answered(shard, tag, Answer::Page(channel, page))))
        };
        match awaited {
            Awaited::Loaded => Ok(Self::Nothing),
            Awaited::Request(Request::Barrier(nonce, _), sent) => {
                let (now, _) = Scripts::stood(reply.words(), Vec::new())?;
                clock.heard(now, sent.elapsed());
                Ok(Self::Arrived(LinkEvent::BarrierAnswered(nonce)))
            }
            Awaited::Request(Request::Read(shard, tag, Query::After(channel, ..)), _) => page(channel, shard, tag),
            Awaited::Request(Request::Read(shard, tag, Query::Newest(channel, _)), _) => page(channel, shard, tag),
            Awaited::Request(Request::Read(shard, tag, Query::Lasts(channels)), _) => {
                let mut lasts = channels.into_iter().map(|channel| (channel, None)).collect();
                read_lasts(&mut lasts, reply)?;
                Ok(Self::More(Awaited::Lasts(shard, tag, lasts)))
            }
            Awaited::Lasts(shard, tag, mut lasts) => {
                read_lasts(&mut lasts, reply)?;
                Ok(Self::More(Awaited::Floor(shard, tag, lasts)))
            }
            Awaited::Floor(shard, tag, lasts) => {
                let mut words = reply.words();
                let floor = words.next().flatten().map(|word| position(Some(word))).transpose()?;
                let epoch = words.next().flatten().map(epoch).transpose()?;
                let answer = Answer::Lasts(lasts, floor.unwrap_or_default(), epoch);
                Ok(Self::Arrived(LinkEvent::Answered(shard, tag, answer)))
            }
        }
    }

    fn of_error(text: String, awaited: Awaited, scripts: &Scripts) -> Result<Self, RedisError> {
        match awaited {
            Awaited::Request(request, _) if is_no_script(&text) => Ok(Self::Again(request)),
            _ => Err(scripts.error(&text)),
        }
    }
}

/// Takes positions that are known; the newer one, where one was known before.
fn read_lasts(lasts: &mut Vec<(Channel, Option<Position>)>, reply: Reply<'_>) -> Result<(), RedisError> {
    let mut words = reply.words();
    for (_, last) in lasts {
        let word =
            words.next().ok_or_else(|| RedisError::Unexpected("fewer positions than were asked for".to_owned()))?;
        *last = (*last).max(word.map(|word| position(Some(word))).transpose()?);
    }
    Ok(())
}
