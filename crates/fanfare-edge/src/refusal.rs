//! Saying no in a form that the client survives.
//!
//! A browser's EventSource gives up for good on any status but 200, so it gets a stream that says when to come back.
//! Clients of people's own making build a new EventSource as soon as one ends, whatever it says: so that they don't
//! hammer, the stream is held open until then, where the pool for that has room. Everyone else gets a status.

use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use fanfare_http::{Code, Pipe, Problem, REQUEST_ID, Reply, Request, TakeOver, empty, full, request_id};
use fanfare_protocol::sse::{self, Framing};
use http::header::{ACCEPT, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};

use crate::close::CloseReason;
use crate::shard::{Command, Holding, Wire};
use crate::{Edge, head};

/// What of a request its answer depends on, whatever it is.
#[derive(Debug)]
pub(crate) struct Asker {
    /// A browser's EventSource asks with exactly `Accept: text/event-stream`.
    is_event_source: bool,
    version: Version,
    origin: Option<HeaderValue>,
    request_id: HeaderValue,
}

impl Asker {
    pub(crate) fn of(request: &Request) -> Self {
        let headers = request.headers();
        let accepts_streams_only = headers.get(ACCEPT).is_some_and(|accept| accept == "text/event-stream");
        Self {
            is_event_source: accepts_streams_only && request.method() == Method::GET,
            version: request.version(),
            origin: headers.get(ORIGIN).cloned(),
            request_id: request_id(headers),
        }
    }

    /// How a stream is cut for it.
    pub(crate) fn framing(&self) -> Framing {
        match self.version {
            Version::HTTP_11 => Framing::Chunked,
            _ => Framing::Identity, // HTTP/1.0 knows nothing else, and HTTP/2 frames what it carries by itself.
        }
    }

    /// What the request is called in logs.
    pub(crate) fn request_id(&self) -> Box<str> {
        String::from_utf8_lossy(self.request_id.as_bytes()).into()
    }

    /// A stream's headers, for a head that hyper writes.
    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = head::headers();
        headers.insert(REQUEST_ID, self.request_id.clone());
        headers
    }
}

impl Edge {
    /// Answers with a stream that begins with these bytes: `begin` gets its wire, and what is to be written first.
    pub(crate) fn stream(
        &self,
        asker: &Asker,
        first: Bytes,
        begin: impl FnOnce(Wire, Bytes) + Send + 'static,
    ) -> Reply {
        let mut headers = asker.headers();
        self.cors.decorate(asker.origin.as_ref(), &mut headers);
        if asker.version == Version::HTTP_2 {
            let (pipe, body) = Pipe::new();
            begin(Wire::Body(pipe), first);
            let mut response = Response::new(body);
            *response.headers_mut() = headers;
            return response.into();
        }
        let framing = asker.framing();
        let first = [head::head(&headers, framing), framing.chunk(&first)].concat().into();
        let send_buffer_bytes = self.config.send_buffer_bytes;
        Reply::TakeOver(TakeOver::new(move |taken| {
            // What was read ahead is another request: it can't be answered on this connection any more.
            let Ok(socket) = taken.stream.into_std() else { return };
            begin(Wire::socket(socket, send_buffer_bytes), first);
        }))
    }

    /// Tells a user who was disconnected not to come back: this stops an EventSource for good.
    pub(crate) fn turn_away(&self, asker: &Asker) -> Reply {
        self.places.metrics.refused(CloseReason::Disconnected);
        let mut response = empty(StatusCode::NO_CONTENT);
        response.headers_mut().insert(REQUEST_ID, asker.request_id.clone());
        response.into()
    }

    /// Refuses a stream.
    pub(crate) fn refuse(&self, reason: CloseReason, detail: &'static str, asker: &Asker) -> Reply {
        self.places.metrics.refused(reason);
        let pause = jittered(&self.config.refusal_pause);
        if !asker.is_event_source {
            let code = if reason == CloseReason::Limit { Code::RateLimitExceeded } else { Code::Overloaded };
            return Problem::new(code, detail).retry_after(pause).into();
        }
        let data = format!(r#"{{"reason":"{}"}}"#, reason.as_str());
        let goodbye = sse::control("closing", &data, None, Some(pause), Framing::Identity);
        let shard = self.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards.len();
        if let Some(admission) = self.places.hold()
            && let Ok(permit) = self.shards[shard].clone().try_reserve_owned()
        {
            let framing = asker.framing();
            return self.stream(asker, goodbye, move |wire, first| {
                permit.send(Command::Hold(Box::new(Holding { wire, first, framing, admission, pause })));
            });
        }
        let mut response = Response::new(full(goodbye));
        *response.headers_mut() = asker.headers();
        response.into()
    }
}

/// Some duration between two.
pub(crate) fn jittered(range: &RangeInclusive<Duration>) -> Duration {
    range.start().saturating_add((range.end().saturating_sub(*range.start())).mul_f64(fastrand::f64()))
}
