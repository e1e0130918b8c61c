//! One answer to a poll: the pure [`Poll`] says what is in it, here it becomes JSON and a whole response.

use std::borrow::Cow;
use std::mem;
use std::time::Duration;

use bytes::Bytes;
use fanfare_http::{Code, Problem};
use fanfare_protocol::{Gap, Id, Poll, SharedEvent};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::close::CloseReason;
use crate::head;

/// An answer that waits for something to say.
#[derive(Debug)]
pub(crate) struct Polled {
    pub(super) poll: Poll,
    /// Headers of the response that don't depend on what it says, as small as they can wait.
    headers: Box<[(HeaderName, HeaderValue)]>,
    /// Where the head goes, if not before the body: over HTTP/2.
    head_to: Option<oneshot::Sender<Parts>>,
    /// The events, as JSON, with commas between.
    events: Vec<u8>,
    /// It is among those that are looked at when the shard's step is done.
    pub(super) is_listed: bool,
}

/// An event in an answer. Its data is the text that a stream would carry.
#[derive(Serialize)]
struct PolledEvent<'a> {
    id: &'a str,
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    data: Cow<'a, str>,
    timestamp: u64,
}

impl Polled {
    pub(crate) fn new(poll: Poll, headers: &HeaderMap, head_to: Option<oneshot::Sender<Parts>>) -> Self {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { poll, headers, head_to, events: Vec::new(), is_listed: false }
    }

    /// Takes in an event. Answers whether it is in.
    pub(super) fn event(&mut self, event: &SharedEvent, event_type: &str, id_text: &[u8], id: Id<'_>) -> bool {
        if self.poll.is_full() {
            return false;
        }
        let entry = PolledEvent {
            id: text(id_text),
            event: event_type,
            channel: Some(event.channel.as_str()),
            data: as_read(&event.content.data),
            timestamp: event.pos.millis(),
        };
        let before = self.push(&entry);
        let is_in = self.poll.take(self.events.len() - before, id);
        if !is_in {
            self.events.truncate(before);
        }
        is_in
    }

    /// Takes in a gap. Answers whether it is in.
    pub(super) fn gap(&mut self, gap: &Gap, data: &str, id_text: &[u8], id: Id<'_>) -> bool {
        let is_in = self.poll.take_gap(id);
        if is_in {
            let (id, data, timestamp) = (text(id_text), Cow::Borrowed(data), gap.to.millis());
            self.push(&PolledEvent { id, event: "gap", channel: None, data, timestamp });
        }
        is_in
    }

    /// Appends an entry. Answers how many bytes there were before.
    fn push(&mut self, entry: &PolledEvent<'_>) -> usize {
        let before = self.events.len();
        if before > 0 {
            self.events.push(b',');
        }
        serde_json::to_writer(&mut self.events, entry).expect("plain structs become JSON, and memory takes it");
        before
    }

    /// What ends the poll, as it leaves through the wire. `live` is the connection's cursor, where nothing waits for it
    /// in the machine.
    pub(super) fn response(&mut self, reason: CloseReason, live: Option<Id<'_>>, pause: Duration) -> Bytes {
        let events = mem::take(&mut self.events);
        let (mut parts, body) = match problem(reason, self.poll.is_connected()) {
            Some(problem) => {
                let problem = problem.retry_after(pause);
                let body = serde_json::to_vec(&problem).expect("a problem becomes JSON");
                (problem.into_response().into_parts().0, body)
            }
            None => {
                let (cursor, more) = self.poll.end(live);
                // A cursor has neither quotes nor backslashes.
                let tail = format!(r#"],"cursor":"{cursor}","more":{more}}}"#);
                (answer_head(), [br#"{"events":["#, &events[..], tail.as_bytes()].concat())
            }
        };
        parts.headers.insert(CONTENT_LENGTH, body.len().into());
        parts.headers.extend(mem::take(&mut self.headers));
        match self.head_to.take() {
            Some(head_to) => {
                _ = head_to.send(parts); // Who left meanwhile is found out by the body.
                body.into()
            }
            None => head::whole(&parts, &body),
        }
    }
}

/// The head of an answer. It is of this moment, so no cache keeps it.
pub(crate) fn answer_head() -> Parts {
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    parts.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    parts
}

/// What is wrong, where there is no answer. Whatever ends a poll that has joined, it has an answer, and its cursor is
/// good; only who is sent away for another of its own must not come back at once.
fn problem(reason: CloseReason, connected: bool) -> Option<Problem> {
    match reason {
        CloseReason::Replaced => {
            Some(Problem::new(Code::RateLimitExceeded, "this user has polled again elsewhere, and may have no more"))
        }
        _ if connected => None,
        CloseReason::TokenExpired => Some(Problem::new(Code::AuthenticationFailed, "the token has ended")),
        CloseReason::Draining => Some(Problem::new(Code::Overloaded, "this edge is shutting down")),
        _ => Some(
            Problem::new(Code::BackboneUnavailable, "the backbone can't be reached just now")
                .hint("ask again with the same cursor: nothing is lost"),
        ),
    }
}

fn text(id: &[u8]) -> &str {
    std::str::from_utf8(id).expect("an id is ASCII")
}

/// Data as it is read from a stream: line ends of each kind are LF.
fn as_read(data: &str) -> Cow<'_, str> {
    match data.contains('\r') {
        true => data.replace("\r\n", "\n").replace('\r', "\n").into(),
        false => data.into(),
    }
}
