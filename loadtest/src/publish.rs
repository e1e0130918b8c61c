//! Publishes the schedule over a few keep-alive connections, each a thread that waits for every answer.
//!
//! Order is only defined per publisher connection, so all events of a channel go over the same one. The schedule is
//! open-loop: an event that had to wait for the answer before it counts its latency from when it was due.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Deserialize;

use crate::answer::{open, read_answer};
use crate::check::{Fault, FaultKind};
use crate::endpoint::Endpoint;
use crate::ledger::{Ledger, Outcome, place};
use crate::report::{new_histogram, record};
use crate::traffic::{BROADCAST, ChannelIndex, Payload, ROLL_CALL, Traffic};

/// Pause before an event is repeated, and the time after which it is given up.
const REPEAT_PAUSE: Duration = Duration::from_millis(50);
const REPEAT_FOR: Duration = Duration::from_secs(60);

/// Failures that are kept in words.
const FAILURES_KEPT: usize = 5;

/// What all publishers of a run share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) traffic: &'a Traffic,
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) publishers: u32,
    pub(crate) run: u64,
    /// When the run began: what times in payloads count from.
    pub(crate) run_began: Instant,
    /// When the schedule begins.
    pub(crate) start: Instant,
    pub(crate) key: Option<&'a str>,
    /// Whether each event has an idempotency key and is repeated until it is answered with 200.
    pub(crate) repeat: bool,
    pub(crate) published: &'a AtomicU64,
    pub(crate) stop: &'a AtomicBool,
}

/// What one publisher, or all together, did.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) ledger: Ledger,
    pub(crate) acknowledged: u64,
    pub(crate) failed: u64,
    pub(crate) repeated: u64,
    /// Answers other than 200, by status, and requests without any.
    pub(crate) refusals: BTreeMap<u16, u64>,
    pub(crate) unanswered: u64,
    /// Longest time from a request to its answer, whatever it was, or to giving it up.
    pub(crate) slowest: Duration,
    pub(crate) failures: Vec<String>,
    pub(crate) faults: Vec<Fault>,
    /// From when an event was due until it was answered, in µs.
    pub(crate) answered: Histogram<u64>,
    /// From when an event was due until it was sent, in µs.
    pub(crate) late: Histogram<u64>,
}

impl Published {
    pub(crate) fn new(channels: u32) -> Self {
        Self {
            ledger: Ledger::new(channels),
            acknowledged: 0,
            failed: 0,
            repeated: 0,
            refusals: BTreeMap::new(),
            unanswered: 0,
            slowest: Duration::ZERO,
            failures: Vec::new(),
            faults: Vec::new(),
            answered: new_histogram(),
            late: new_histogram(),
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.ledger.merge(other.ledger);
        self.acknowledged += other.acknowledged;
        self.failed += other.failed;
        self.repeated += other.repeated;
        for (status, count) in other.refusals {
            *self.refusals.entry(status).or_default() += count;
        }
        self.unanswered += other.unanswered;
        self.slowest = self.slowest.max(other.slowest);
        self.failures.extend(other.failures);
        self.failures.truncate(FAILURES_KEPT);
        self.faults.extend(other.faults);
        self.answered.add(&other.answered).expect("histograms of one kind");
        self.late.add(&other.late).expect("histograms of one kind");
    }

    fn take_time(&mut self, after: Duration, failure: Option<&Failure>) {
        self.slowest = self.slowest.max(after);
        match failure {
            Some(Failure::Status(status, _)) => *self.refusals.entry(*status).or_default() += 1,
            Some(Failure::Io(_)) => self.unanswered += 1,
            Some(Failure::Answer(_)) | None => {}
        }
    }

    fn fail(&mut self, failure: &Failure, name: &str) {
        if self.failures.len() < FAILURES_KEPT {
            self.failures.push(format!("{name}: {failure}"));
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no answer: {0}")]
    Io(#[from] io::Error),
    #[error("answered {0}: {1}")]
    Status(u16, String),
    #[error("the answer can't be understood: {0}")]
    Answer(String),
}

/// Publishes the part of the schedule that is this publisher's.
pub(crate) fn publish(plan: &Plan<'_>, publisher: u32) -> Published {
    let mut published = Published::new(plan.traffic.channels());
    let mut connection = Connection::new(plan.endpoint, plan.key);
    let mut body = String::new();
    for event in plan.traffic.schedule().filter(|event| event.channel % plan.publishers == publisher) {
        let due = plan.start + event.due;
        wait_until(due);
        if plan.stop.load(Ordering::Relaxed) {
            break;
        }
        record(&mut published.late, due.elapsed());
        let payload = Payload {
            run: plan.run,
            seq: published.ledger.next_seq(event.channel),
            due_micros: u64::try_from((due - plan.run_began).as_micros()).unwrap_or(u64::MAX),
        };
        let outcome = publish_one(plan, &mut connection, &mut body, event.channel, payload, &mut published);
        published.ledger.push(event.channel, outcome);
        record(&mut published.answered, due.elapsed());
        plan.published.fetch_add(1, Ordering::Relaxed);
    }
    published
}

#[expect(clippy::disallowed_methods, reason = "an open-loop schedule waits for the clock and nothing else")]
fn wait_until(due: Instant) {
    thread::sleep(due.saturating_duration_since(Instant::now()));
}

/// Publishes one event to everybody at once, on a connection of its own, until it is answered with 200. Tells
/// whether it was.
pub(crate) fn publish_roll_call(plan: Plan<'_>, published: &mut Published) -> bool {
    let plan = Plan { repeat: true, ..plan };
    let due_micros = u64::try_from(plan.run_began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let payload = Payload { run: plan.run, seq: ROLL_CALL, due_micros };
    let mut connection = Connection::new(plan.endpoint, plan.key);
    let outcome = publish_one(&plan, &mut connection, &mut String::new(), BROADCAST, payload, published);
    outcome.point().is_some()
}

fn publish_one(
    plan: &Plan<'_>,
    connection: &mut Connection<'_>,
    body: &mut String,
    channel: ChannelIndex,
    payload: Payload,
    published: &mut Published,
) -> Outcome {
    let path = plan.traffic.request(channel, payload, body);
    if plan.repeat {
        body.push_str(&format!(r#","idempotencyKey":"{:x}-{}""#, plan.run, payload.seq));
    }
    body.push('}');
    let name = plan.traffic.name(channel);
    let began = Instant::now();
    loop {
        let sent = Instant::now();
        let posted = connection.post(path, body);
        published.take_time(sent.elapsed(), posted.as_ref().err());
        let failure = match posted {
            Ok(answer) => return take_answer(plan, &answer, &name, channel, published),
            Err(failure) => failure,
        };
        let may_repeat = plan.repeat && began.elapsed() < REPEAT_FOR && !plan.stop.load(Ordering::Relaxed);
        // What is refused for good is not repeated.
        if may_repeat && !matches!(failure, Failure::Status(400..=428, _)) {
            published.repeated += 1;
            wait_until(Instant::now() + REPEAT_PAUSE);
            continue;
        }
        published.failed += 1;
        published.fail(&failure, &name);
        return Outcome::Unknown;
    }
}

fn take_answer(
    plan: &Plan<'_>,
    answer: &Answer,
    name: &str,
    channel: ChannelIndex,
    published: &mut Published,
) -> Outcome {
    published.acknowledged += 1;
    let mut fault = |expected: String, got: &str| {
        let kind = FaultKind::WrongResult;
        published.faults.push(Fault { kind, client: None, channel: name.to_owned(), expected, got: got.to_owned() });
    };
    if answer.channel != name || !answer.success {
        fault(format!("success and channel {name}"), &format!("{answer:?}"));
    }
    let Some((partition, point)) = place(&answer.id) else {
        fault("an id".to_owned(), &answer.id);
        return Outcome::Unknown;
    };
    let partitions = fanfare_protocol::Cursor::parse(&answer.id).expect("parsed before").partitions();
    let expected = partitions.of(&plan.traffic.channel(channel));
    if partition != expected {
        fault(format!("an id in partition {expected}"), &answer.id);
    }
    Outcome::Acknowledged(point)
}

/// The part of a result that counts here.
#[derive(Debug, Deserialize)]
struct Answer {
    success: bool,
    id: String,
    channel: String,
}

/// A keep-alive connection, opened anew when it broke.
struct Connection<'a> {
    endpoint: &'a Endpoint,
    key: Option<&'a str>,
    stream: Option<TcpStream>,
    request: Vec<u8>,
    body: Vec<u8>,
    buffer: [u8; 4096],
}

impl<'a> Connection<'a> {
    fn new(endpoint: &'a Endpoint, key: Option<&'a str>) -> Self {
        Self { endpoint, key, stream: None, request: Vec::new(), body: Vec::new(), buffer: [0; 4096] }
    }

    fn post(&mut self, path: &str, body: &str) -> Result<Answer, Failure> {
        // Taken out: a connection that failed is not used again.
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => open(self.endpoint)?,
        };
        self.request.clear();
        let (prefix, host) = (self.endpoint.path(), self.endpoint.authority());
        write!(self.request, "POST {prefix}{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n")?;
        if let Some(key) = self.key {
            write!(self.request, "Authorization: Bearer {key}\r\n")?;
        }
        write!(self.request, "Content-Length: {}\r\n\r\n{body}", body.len())?;
        stream.write_all(&self.request)?;
        let (status, keep) = read_answer(&mut stream, &mut self.buffer, &mut self.body)?;
        if keep {
            self.stream = Some(stream);
        }
        let text = || String::from_utf8_lossy(&self.body).into_owned();
        if status != 200 {
            return Err(Failure::Status(status, text()));
        }
        serde_json::from_slice(&self.body).map_err(|_| Failure::Answer(text()))
    }
}
