//! Responses and their bodies.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;
use serde::Serialize;

/// Why a streamed body breaks off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A response's body: whole, or made as it is read.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A response.
pub type Response = http::Response<Body>;

/// A body that is there already.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A body that is made as the client takes it: the stream isn't polled while the client doesn't read.
pub fn streamed(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk)))).boxed_unsync()
}

/// A response without a body.
pub fn empty(status: StatusCode) -> Response {
    let none = Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync();
    with_status(status, none)
}

/// A JSON response. It is of this moment, so no cache keeps it.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let text = serde_json::to_vec(value).expect("what we answer with has text keys and no failing parts");
    let mut response = with_status(status, full(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A plain text response.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response {
    let mut response = with_status(status, full(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The answer to OPTIONS: what the path allows, as in `GET, HEAD`.
pub fn options(allow: &'static str) -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

fn with_status(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}
