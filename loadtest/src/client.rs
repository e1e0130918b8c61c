//! One subscriber: a connection at a time, what it has seen, and the id with which it comes back.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use fanfare_auth::Secrets;
use fanfare_protocol::sse::{Decoder, Message};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use socket2::SockRef;

use crate::check::{Checker, FaultKind, Seen};
use crate::cuts::CutAt;
use crate::endpoint::Endpoint;
use crate::http::{Head, Part, Response};
use crate::report::record;
use crate::request::request;
use crate::traffic::Kind;

/// Bytes of an event at most.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// Pause before coming back where the server names none, as in browsers.
const PAUSE: Duration = Duration::from_secs(1);

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) checker: Checker,
    /// Signs the clients' tokens, where they need some.
    pub(crate) secret: Option<Secrets>,
    pub(crate) counts: Counts,
    pub(crate) run_began: Instant,
    pub(crate) buffer: Box<[u8]>,
}

/// What is counted besides the checks.
#[derive(Debug)]
pub(crate) struct Counts {
    /// From when an event was due until a client had it, in µs: to users, shared channels, everybody.
    pub(crate) latency: [Histogram<u64>; 3],
    pub(crate) replayed: u64,
    pub(crate) resumes: u64,
    pub(crate) lost: u64,
    pub(crate) closings: std::collections::BTreeMap<String, u64>,
    pub(crate) refusals: std::collections::BTreeMap<u16, u64>,
}

/// One subscriber.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) number: u32,
    pub(crate) seen: Seen,
    pub(crate) link: Option<Link>,
    /// Where its connection is to be cut off.
    pub(crate) cut_at: Option<CutAt>,
    decoder: Decoder,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    stage: Stage,
    response: Response,
    /// The id that it came back with.
    sent_id: Option<String>,
    /// When it was opened, since the start of the run.
    opened: Duration,
    bytes_read: u32,
    /// Whether `connected` came.
    pub(crate) is_connected: bool,
}

#[derive(Debug)]
enum Stage {
    Connecting(Vec<u8>),
    Sending(Vec<u8>, usize),
    Reading,
}

/// What readiness led to.
#[derive(Debug)]
pub(crate) enum After {
    Stay,
    /// It reached the place where it is to be cut off.
    Cut,
    /// It ended, without our doing.
    Lost {
        pause: Duration,
    },
}

/// What epoll said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readiness {
    pub(crate) writable: bool,
    /// The peer closed, so that a short read is no sign that all is read.
    pub(crate) closed: bool,
}

impl Client {
    pub(crate) fn new(number: u32, seen: Seen) -> Self {
        Self { number, seen, link: None, cut_at: None, decoder: Decoder::new(EVENT_BYTES_MAX) }
    }

    /// Goes on with a connection that is being opened. The request carries the last id, as an EventSource's would.
    pub(crate) fn open(&mut self, stream: TcpStream, endpoint: &Endpoint, shared: &mut Shared) {
        let id = self.decoder.last_event_id().to_owned();
        let sent_id = (!id.is_empty()).then_some(id);
        if let Some(id) = &sent_id {
            shared.checker.resuming(&mut self.seen, id);
            shared.counts.resumes += 1;
        }
        self.decoder.reconnect();
        let traffic = &shared.checker.traffic;
        let request = request(traffic, self.number, endpoint, shared.secret.as_ref(), sent_id.as_deref());
        self.link = Some(Link {
            stream,
            stage: Stage::Connecting(request),
            response: Response::new(),
            sent_id,
            opened: shared.run_began.elapsed(),
            bytes_read: 0,
            is_connected: false,
        });
    }

    /// Closes its connection with a reset: what is on its way is lost, and no port is kept waiting.
    pub(crate) fn reset(&mut self) {
        if let Some(link) = self.link.take() {
            // Where it fails the connection is gone already.
            _ = SockRef::from(&link.stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Goes on as far as its connection lets it.
    pub(crate) fn ready(&mut self, readiness: Readiness, shared: &mut Shared) -> After {
        match self.go_on(readiness, shared) {
            Ok(after) => after,
            Err(_) => After::Lost { pause: self.pause() },
        }
    }

    fn pause(&self) -> Duration {
        self.decoder.retry().unwrap_or(PAUSE)
    }

    fn go_on(&mut self, readiness: Readiness, shared: &mut Shared) -> io::Result<After> {
        let Some(link) = &mut self.link else { return Ok(After::Stay) };
        if readiness.writable && !matches!(link.stage, Stage::Reading) {
            match link.send(self.cut_at)? {
                Sent::Waits => return Ok(After::Stay),
                Sent::Cut => return Ok(After::Cut),
                Sent::All => {}
            }
        }
        if !matches!(link.stage, Stage::Reading) {
            return Ok(After::Stay);
        }
        let mut buffer = std::mem::take(&mut shared.buffer);
        let after = self.read(&mut buffer, readiness.closed, shared);
        shared.buffer = buffer;
        after
    }

    fn read(&mut self, buffer: &mut [u8], closed: bool, shared: &mut Shared) -> io::Result<After> {
        loop {
            let Some(link) = &mut self.link else { return Ok(After::Stay) };
            let room = match self.cut_at {
                Some(CutAt::Read(bytes)) => buffer.len().min(bytes.saturating_sub(link.bytes_read) as usize),
                _ => buffer.len(),
            };
            if room == 0 {
                return Ok(After::Cut);
            }
            let count = match link.stream.read(&mut buffer[..room]) {
                Ok(0) => return Ok(self.ended(shared)),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(After::Stay),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            link.bytes_read = link.bytes_read.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
            if let Some(after) = self.take(&buffer[..count], shared) {
                return Ok(after);
            }
            // Edge-triggered: what comes after a short read wakes us again.
            if count < room && !closed {
                return Ok(After::Stay);
            }
        }
    }

    fn ended(&mut self, shared: &mut Shared) -> After {
        let proper = self.link.as_ref().is_none_or(|link| link.response.may_close());
        if !proper && self.link.as_ref().is_some_and(|link| link.bytes_read > 0) {
            *shared.counts.closings.entry("(broken off)".to_owned()).or_default() += 1;
        }
        After::Lost { pause: self.pause() }
    }

    fn take(&mut self, bytes: &[u8], shared: &mut Shared) -> Option<After> {
        let now = shared.run_began.elapsed();
        let mut read = bytes;
        loop {
            let link = self.link.as_mut()?;
            match link.response.next_part(&mut read) {
                Ok(None) => return None,
                Ok(Some(Part::Head(head))) => {
                    if let Some(after) = self.take_head(&head, shared) {
                        return Some(after);
                    }
                }
                Ok(Some(Part::Body(mut data))) => loop {
                    match self.decoder.next_message(&mut data) {
                        Ok(Some(message)) => self.take_message(&message, now, shared),
                        Ok(None) => break,
                        Err(error) => return Some(self.bad_stream(&error.to_string(), shared)),
                    }
                },
                Ok(Some(Part::End)) => return Some(After::Lost { pause: self.pause() }),
                Err(error) => return Some(self.bad_stream(&error.to_string(), shared)),
            }
        }
    }

    fn bad_stream(&self, error: &str, shared: &mut Shared) -> After {
        shared.checker.fault(FaultKind::BadStream, self.number, "-", "a stream of events", error);
        After::Lost { pause: PAUSE }
    }

    fn take_head(&self, head: &Head, shared: &mut Shared) -> Option<After> {
        if head.status != 200 {
            *shared.counts.refusals.entry(head.status).or_default() += 1;
            let seconds = head.header("retry-after").and_then(|value| value.parse().ok());
            return Some(After::Lost { pause: seconds.map_or(PAUSE, Duration::from_secs) });
        }
        let content_type = head.header("content-type").unwrap_or("nothing");
        if !content_type.starts_with("text/event-stream") {
            return Some(self.bad_stream(&format!("content of type {content_type}"), shared));
        }
        None
    }

    fn take_message(&mut self, message: &Message, now: Duration, shared: &mut Shared) {
        let Some(link) = &mut self.link else { return };
        let checker = &mut shared.checker;
        match &*message.event {
            "connected" => {
                if link.is_connected {
                    let got = &*message.data;
                    checker.fault(FaultKind::WrongConnected, self.number, "-", "one connected a connection", got);
                }
                link.is_connected = true;
                checker.connected(&mut self.seen, message, link.sent_id.as_deref());
            }
            "gap" => checker.gap(&mut self.seen, message, now),
            "closing" => {
                let reason = serde_json::from_str::<Closing>(&message.data).map(|closing| closing.reason);
                *shared.counts.closings.entry(reason.unwrap_or_default()).or_default() += 1;
            }
            "heartbeat" | "expiring" | "subscribed" => {}
            _ if !link.is_connected => {
                checker.fault(FaultKind::BadStream, self.number, "-", "connected before events", &*message.id);
            }
            _ => {
                let Some((kind, due)) = checker.event(&mut self.seen, message, now) else { return };
                if link.sent_id.is_some() && due < link.opened {
                    shared.counts.replayed += 1;
                } else {
                    let [users, shared_channels, everybody] = &mut shared.counts.latency;
                    let histogram = match kind {
                        Kind::Inbox(_) => users,
                        Kind::Shared(_) => shared_channels,
                        Kind::Broadcast => everybody,
                    };
                    record(histogram, now.saturating_sub(due));
                }
            }
        }
    }
}

enum Sent {
    Waits,
    Cut,
    All,
}

impl Link {
    fn send(&mut self, cut_at: Option<CutAt>) -> io::Result<Sent> {
        if let Stage::Connecting(request) = &mut self.stage {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            if let Err(error) = self.stream.peer_addr() {
                return if error.kind() == io::ErrorKind::NotConnected { Ok(Sent::Waits) } else { Err(error) };
            }
            self.stage = Stage::Sending(std::mem::take(request), 0);
        }
        while let Stage::Sending(request, sent) = &mut self.stage {
            let end = match cut_at {
                Some(CutAt::Sent(bytes)) => request.len().min(bytes as usize),
                _ => request.len(),
            };
            if *sent < end {
                match self.stream.write(&request[*sent..end]) {
                    Ok(count) => *sent += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Sent::Waits),
                    Err(error) => return Err(error),
                }
            } else if matches!(cut_at, Some(CutAt::Sent(_))) {
                return Ok(Sent::Cut);
            } else {
                self.stage = Stage::Reading;
            }
        }
        Ok(Sent::All)
    }

    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}

#[derive(serde::Deserialize)]
struct Closing {
    reason: String,
}
