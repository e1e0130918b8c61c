//! Bodies that come in: of the right kind, of a bounded size, in a bounded time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;

use crate::{Code, Problem};

/// How long a client may take to send a body that is read whole.
const READ_TIME_MAX: Duration = Duration::from_secs(30);

/// Bytes reserved ahead for a body, at most: what it declares is only a claim.
const RESERVE_BYTES_MAX: usize = 64 * 1024;

/// Reads a whole body.
///
/// # Errors
/// 413 where it has more than `bytes_max`, or says so; 408 where it takes too long; 400 where it breaks off.
pub async fn read_body(body: Incoming, bytes_max: usize) -> Result<Bytes, Problem> {
    let declared = body.size_hint().exact();
    if let Some(size) = declared.filter(|size| *size > bytes_max as u64) {
        return Err(too_large(&format!("{size} bytes"), bytes_max));
    }
    match timeout(READ_TIME_MAX, collect(body, bytes_max)).await {
        Ok(read) => read,
        Err(_) => {
            let seconds = READ_TIME_MAX.as_secs();
            Err(Problem::request_timeout(format!("the body did not come within {seconds} seconds")))
        }
    }
}

async fn collect(mut body: Incoming, bytes_max: usize) -> Result<Bytes, Problem> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::invalid("the body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > bytes_max {
            return Err(too_large("more than that", bytes_max));
        }
        if whole.is_empty() {
            if body.is_end_stream() {
                return Ok(data); // It came in one piece, the usual case.
            }
            let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
            whole.reserve(data.len() + expected.min(RESERVE_BYTES_MAX));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

fn too_large(size: &str, limit: usize) -> Problem {
    Problem::new(Code::PayloadTooLarge, format!("the body may have {limit} bytes, this one has {size}"))
        .details(serde_json::json!({ "limit": limit }))
}

/// The media type of the body in lower case, without parameters such as `charset`. Empty where there is none.
pub fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Takes only a body that is as it is.
///
/// # Errors
/// 415 where it is compressed.
pub fn accept_uncompressed(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        true => {
            Err(Problem::new(Code::UnsupportedMediaType, "the body is compressed")
                .hint("send it without Content-Encoding"))
        }
        false => Ok(()),
    }
}

/// Takes only a body that says to be JSON. Browsers can't send it across origins unasked, so this is also what
/// keeps other sites' forms out.
///
/// # Errors
/// 415 that says what to send instead.
pub fn accept_json(headers: &HeaderMap) -> Result<(), Problem> {
    accept_uncompressed(headers)?;
    match media_type(headers).as_str() {
        "application/json" => Ok(()),
        other => {
            let detail = match other {
                "" => "the body has no Content-Type, it should be application/json".to_owned(),
                other => format!("the body should be application/json, not {other:.100}"),
            };
            Err(Problem::new(Code::UnsupportedMediaType, detail).hint("send the header Content-Type: application/json"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(name: http::header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn json_may_have_parameters_and_any_case() {
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/json;charset=UTF-8"] {
            assert_eq!(accept_json(&headers(CONTENT_TYPE, good)), Ok(()), "{good}");
        }
        for bad in ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "text/json"] {
            let problem = accept_json(&headers(CONTENT_TYPE, bad)).expect_err(bad);
            assert_eq!(problem.status(), 415, "{bad}");
        }
        assert_eq!(accept_json(&HeaderMap::new()).expect_err("none").status(), 415);
    }

    #[test]
    fn compressed_bodies_are_not_taken() {
        let mut gzip = headers(CONTENT_TYPE, "application/json");
        gzip.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(accept_json(&gzip).expect_err("gzip").status(), 415);
    }
}
