//! Heads of responses, which the edge writes itself once hyper has let go of the socket.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fanfare_protocol::sse::Framing;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};

const CONTENT: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
/// `no-transform` keeps intermediaries from compressing, and so from buffering.
const CACHE: HeaderValue = HeaderValue::from_static("no-cache, no-store, no-transform");
/// What nginx calls it.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The headers that say what a stream is.
pub(crate) fn headers() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, CONTENT);
    headers.insert(CACHE_CONTROL, CACHE);
    headers.insert(BUFFERING, HeaderValue::from_static("no"));
    headers
}

/// The head of a stream, as HTTP/1 has it.
pub(crate) fn head(headers: &HeaderMap, framing: Framing) -> Bytes {
    let (name, value) = match framing {
        Framing::Chunked => ("transfer-encoding", "chunked"),
        Framing::Identity => ("connection", "close"),
    };
    written(StatusCode::OK, name, value, headers).into()
}

/// A whole response, as HTTP/1 has it; the connection ends with it.
pub(crate) fn whole(parts: &Parts, body: &[u8]) -> Bytes {
    let head = written(parts.status, "connection", "close", &parts.headers);
    [head.as_bytes(), body].concat().into()
}

fn written(status: StatusCode, name: &str, value: &str, headers: &HeaderMap) -> String {
    let mut head = String::with_capacity(512);
    write!(head, "HTTP/1.1 {status}\r\n{name}: {value}\r\n").expect("a string takes all");
    let mut line = |name: &str, value: &str| write!(head, "{name}: {value}\r\n").expect("a string takes all");
    line("date", &httpdate::fmt_http_date(SystemTime::now()));
    for (name, value) in headers {
        // Visible ASCII all of it, but for an Origin or request id that came from outside and is echoed.
        line(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
    }
    head.push_str("\r\n");
    head
}

/// The first line of the stream: the pause after which a client that loses it comes back.
pub(crate) fn first_line(retry: Duration) -> Bytes {
    format!("retry: {}\n", retry.as_millis()).into()
}
