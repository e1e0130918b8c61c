//! Saying no in a form that the client survives.
//!
//! A browser's EventSource gives up for good on any status but 200, so it gets a stream that says when to come back.
//! Clients of people's own making build a new EventSource as soon as one ends, whatever it says: so that they don't
//! hammer, the stream is held open until then, where the pool for that has room. Everyone else gets a status.

use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fanfare_http::{Code, Problem, Reply, empty, full};
use fanfare_protocol::sse::{self, Framing};
use http::{HeaderMap, Response, StatusCode};

use crate::Edge;
use crate::asker::Asker;
use crate::close::CloseReason;
use crate::shard::{Command, Holding};

impl Edge {
    /// Tells a user who was disconnected not to come back: this stops an EventSource for good.
    pub(crate) fn turn_away(&self, asker: &Asker) -> Reply {
        self.places.metrics.refused(CloseReason::Disconnected);
        let mut response = empty(StatusCode::NO_CONTENT);
        *response.headers_mut() = asker.named(HeaderMap::new());
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
