//! `GET /openapi.json`: the whole API, of edges and publish APIs, kept by hand in `openapi.json`. A test holds it against
//! the routes, the fields that bodies may have, and what is really answered (`tests/openapi.rs`).

use bytes::Bytes;
use fanfare_http::{Problem, Response, full, options};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method};

use crate::front::GET;

/// Where it is, on every address that has a part of the API.
pub(crate) const PATH: &str = "/openapi.json";

const DOCUMENT: &str = include_str!("openapi.json");

/// Answers a request for it. It is for everyone: it says nothing of this deployment.
pub(crate) fn answer(method: &Method) -> Result<Response, Problem> {
    match *method {
        Method::GET | Method::HEAD => {
            let mut response = Response::new(full(Bytes::from_static(DOCUMENT.as_bytes())));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            Ok(response)
        }
        Method::OPTIONS => Ok(options(GET)),
        _ => Err(Problem::method_not_allowed(method, GET)),
    }
}
