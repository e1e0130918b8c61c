//! NDJSON: lines are published as they come, and each is answered with a line.
//!
//! Lines that have arrived together are published together. A line that is no entry is answered with an error, and
//! the rest goes on; an empty line is none, and not answered. Memory is bounded by one line and one read, because
//! the next lines are read only when the client has taken the answers to these: clients must read while they write.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use fanfare_auth::PublishKey;
use fanfare_http::{Code, Incoming, Problem, Response, streamed};
use futures_util::stream;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http_body_util::BodyExt;
use memchr::memchr;
use tokio::time::timeout;

use crate::PublishApi;
use crate::outcome::Outcome;

/// How long a client may be silent. Longer than other bodies get, because lines come when there is something to say;
/// an empty line breaks the silence.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// Lines published together, at most.
const BATCH_LINES_MAX: usize = 256;

/// Publishes a body of lines. It is answered once the first bytes are there: only then is a client that waits for
/// `100 Continue` told to go on.
pub(crate) async fn publish(
    api: PublishApi,
    body: Incoming,
    publisher: PublishKey,
    header: Option<String>,
) -> Response {
    let line_bytes_max = api.0.config.entry_bytes_max();
    let mut lines = Lines::new(body, line_bytes_max);
    lines.read_more().await;
    let publishing = Publishing { api, publisher, header, lines, index: 0 };
    let answers = stream::unfold(publishing, |mut publishing| async move {
        let answers = publishing.next_answers().await?;
        Some((answers, publishing))
    });
    let mut response = Response::new(streamed(answers));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

struct Publishing {
    api: PublishApi,
    publisher: PublishKey,
    header: Option<String>,
    lines: Lines,
    /// Of the next line, empty ones not counted.
    index: u64,
}

impl Publishing {
    /// Answers to the next lines, if there are any.
    async fn next_answers(&mut self) -> Option<Bytes> {
        let batch = self.lines.next_batch().await;
        if batch.is_empty() {
            return None;
        }
        let (began, inner) = (Instant::now(), &self.api.0);
        let mut orders = Vec::new();
        let mut refused = Vec::new(); // For each line: why it is no order.
        for line in batch {
            let order =
                line.and_then(|line| inner.order(&line, &self.publisher, self.header.as_deref(), Some(self.index)));
            self.index += 1;
            match order {
                Ok(order) => {
                    orders.push(order);
                    refused.push(None);
                }
                Err(problem) => refused.push(Some(problem)),
            }
        }
        let mut outcomes = inner.publish(&orders, &self.publisher).await.into_iter();
        let mut answers = Vec::new();
        for problem in refused {
            let outcome = match problem {
                Some(problem) => Outcome::Refused(problem),
                None => outcomes.next().expect("each order has an outcome"),
            };
            serde_json::to_writer(&mut answers, &outcome).expect("text keys and no failing parts");
            answers.push(b'\n');
        }
        inner.metrics.lines_published(began.elapsed());
        Some(answers.into())
    }
}

/// Cuts a body into lines.
struct Lines {
    body: Incoming,
    line_bytes_max: usize,
    buffer: BytesMut,
    /// Bytes of the buffer that are known to have no line's end.
    searched: usize,
    /// The line that comes is too long and was answered; it is thrown away up to its end.
    skipping: bool,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    /// It broke off, so what stands in the buffer is no whole line.
    BrokeOff,
    Silent,
}

impl Lines {
    fn new(body: Incoming, line_bytes_max: usize) -> Self {
        let buffer = BytesMut::new();
        Self { body, line_bytes_max, buffer, searched: 0, skipping: false, state: State::Open }
    }

    /// Waits for some more of the body.
    async fn read_more(&mut self) {
        match timeout(SILENCE_MAX, self.body.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    self.buffer.extend_from_slice(&data);
                }
            }
            Ok(Some(Err(_))) => self.state = State::BrokeOff,
            Ok(None) => self.state = State::Ended,
            Err(_) => self.state = State::Silent,
        }
    }

    /// The lines that are there, else the next one that comes. None at all: the body has ended.
    async fn next_batch(&mut self) -> Vec<Result<Bytes, Problem>> {
        let mut batch = Vec::new();
        loop {
            while batch.len() < BATCH_LINES_MAX
                && let Some(line) = self.take_line()
            {
                if !line.as_ref().is_ok_and(|line| line.trim_ascii().is_empty()) {
                    batch.push(line);
                }
            }
            if !batch.is_empty() {
                return batch;
            }
            match self.state {
                State::Open => self.read_more().await,
                State::Ended => return self.take_rest(),
                State::BrokeOff => return batch,
                State::Silent => {
                    self.state = State::BrokeOff; // Once is enough.
                    let seconds = SILENCE_MAX.as_secs();
                    let detail = format!("no line came for {seconds} seconds");
                    return vec![Err(Problem::request_timeout(detail).hint("an empty line breaks the silence"))];
                }
            }
        }
    }

    fn take_line(&mut self) -> Option<Result<Bytes, Problem>> {
        loop {
            let Some(end) = memchr(b'\n', &self.buffer[self.searched..]) else {
                self.searched = self.buffer.len();
                if self.skipping {
                    self.drop_all();
                } else if self.buffer.len() > self.line_bytes_max {
                    self.drop_all();
                    self.skipping = true;
                    return Some(Err(self.too_long()));
                }
                return None;
            };
            let line = self.buffer.split_to(self.searched + end + 1).freeze();
            self.searched = 0;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            let too_long = line.len() > self.line_bytes_max + 1;
            return Some(if too_long { Err(self.too_long()) } else { Ok(line) });
        }
    }

    /// The last line may do without an end.
    fn take_rest(&mut self) -> Vec<Result<Bytes, Problem>> {
        let rest = self.buffer.split().freeze();
        self.searched = 0;
        if self.skipping || rest.trim_ascii().is_empty() { vec![] } else { vec![Ok(rest)] }
    }

    fn drop_all(&mut self) {
        self.buffer.clear();
        self.searched = 0;
    }

    fn too_long(&self) -> Problem {
        let limit = self.line_bytes_max;
        Problem::new(Code::PayloadTooLarge, format!("a line may have {limit} bytes, this one has more"))
    }
}
