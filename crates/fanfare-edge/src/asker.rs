//! Who asks, and how what it asked for gets to it: as a body of hyper's over HTTP/2, and otherwise on the socket itself,
//! once hyper has let go of it.

use bytes::Bytes;
use fanfare_http::{Code, Pipe, Problem, REQUEST_ID, Reply, Request, TakeOver, request_id};
use fanfare_protocol::Poll;
use fanfare_protocol::sse::Framing;
use http::header::{ACCEPT, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Response, Version};
use tokio::sync::oneshot;

use crate::request_id::RequestId;
use crate::shard::{Polled, Wire};
use crate::{Edge, head};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Everything that comes.
    Stream,
    /// What there is, once: a poll.
    Answer,
}

/// What of a request its answer depends on, whatever it is.
#[derive(Debug)]
pub(crate) struct Asker {
    /// A browser's EventSource asks with exactly `Accept: text/event-stream`.
    pub(crate) is_event_source: bool,
    version: Version,
    origin: Option<HeaderValue>,
    request_id: HeaderValue,
}

impl Asker {
    pub(crate) fn of(request: &Request, wanted: Wanted) -> Self {
        let headers = request.headers();
        let accepts_streams_only = headers.get(ACCEPT).is_some_and(|accept| accept == "text/event-stream");
        Self {
            is_event_source: wanted == Wanted::Stream && accepts_streams_only && request.method() == Method::GET,
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
    pub(crate) fn request_id(&self) -> RequestId {
        RequestId::new(self.request_id.as_bytes())
    }

    /// A stream's headers, for a head that hyper writes.
    pub(crate) fn headers(&self) -> HeaderMap {
        self.named(head::headers())
    }

    /// Headers with the name of the request among them.
    pub(crate) fn named(&self, mut headers: HeaderMap) -> HeaderMap {
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
            begin(Wire::Body(Box::new(pipe)), first);
            let mut response = Response::new(body);
            *response.headers_mut() = headers;
            return response.into();
        }
        let framing = asker.framing();
        let first = [head::head(&headers, framing), framing.chunk(&first)].concat().into();
        Reply::TakeOver(TakeOver::new(move |taken| {
            // What was read ahead is another request: it can't be answered on this connection any more.
            begin(Wire::socket(taken.stream), first);
        }))
    }

    /// Answers with one answer, when there is something to say: `begin` gets its wire and where it is put together.
    pub(crate) async fn answer(
        &self,
        asker: &Asker,
        poll: Poll,
        begin: impl FnOnce(Wire, Box<Polled>) + Send + 'static,
    ) -> Reply {
        let mut headers = asker.named(HeaderMap::new());
        self.cors.decorate(asker.origin.as_ref(), &mut headers);
        if asker.version == Version::HTTP_2 {
            let (pipe, body) = Pipe::new();
            let (head_to, head) = oneshot::channel();
            begin(Wire::Body(Box::new(pipe)), Box::new(Polled::new(poll, &headers, Some(head_to))));
            return match head.await {
                Ok(parts) => Response::from_parts(parts, body).into(),
                Err(_) => Problem::new(Code::Overloaded, "this edge is shutting down").into(), // The shard has gone.
            };
        }
        let polled = Box::new(Polled::new(poll, &headers, None));
        Reply::TakeOver(TakeOver::new(move |taken| {
            begin(Wire::socket(taken.stream), polled);
        }))
    }
}
