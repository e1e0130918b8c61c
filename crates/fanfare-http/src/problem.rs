//! Errors as clients see them: `application/problem+json` (RFC 9457) with a stable code.

use std::borrow::Cow;
use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::response::{Response, json};

/// What went wrong, for programs. Add some, never rename one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is not what it should be.
    InvalidInput,
    /// No credentials, or not good ones.
    AuthenticationFailed,
    /// Good credentials that don't allow this.
    Forbidden,
    /// No such path, or nothing there.
    NotFound,
    /// The path exists, the method doesn't.
    MethodNotAllowed,
    /// It contradicts what is there already.
    Conflict,
    /// A body or an event over its limit.
    PayloadTooLarge,
    /// A URL over its limit.
    UriTooLong,
    /// A body of the wrong kind.
    UnsupportedMediaType,
    /// The idempotency key stands for something else.
    IdempotencyMismatch,
    /// Too many requests of this client.
    RateLimitExceeded,
    /// Too many requests of all.
    Overloaded,
    /// Someone took too long.
    Timeout,
    /// The backbone can't be reached.
    BackboneUnavailable,
    /// A mistake of ours.
    Internal,
}

impl Code {
    /// The code, as it is written: its status and what it is called.
    const fn parts(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::InvalidInput => ("INVALID_INPUT", StatusCode::BAD_REQUEST, "Invalid input"),
            Self::AuthenticationFailed => ("AUTHENTICATION_FAILED", StatusCode::UNAUTHORIZED, "Authentication failed"),
            Self::Forbidden => ("FORBIDDEN", StatusCode::FORBIDDEN, "Forbidden"),
            Self::NotFound => ("NOT_FOUND", StatusCode::NOT_FOUND, "Not found"),
            Self::MethodNotAllowed => ("METHOD_NOT_ALLOWED", StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
            Self::Conflict => ("CONFLICT", StatusCode::CONFLICT, "Conflict"),
            Self::PayloadTooLarge => ("PAYLOAD_TOO_LARGE", StatusCode::PAYLOAD_TOO_LARGE, "Payload too large"),
            Self::UriTooLong => ("URI_TOO_LONG", StatusCode::URI_TOO_LONG, "URL too long"),
            Self::UnsupportedMediaType => {
                ("UNSUPPORTED_MEDIA_TYPE", StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type")
            }
            Self::IdempotencyMismatch => {
                ("IDEMPOTENCY_MISMATCH", StatusCode::UNPROCESSABLE_ENTITY, "Idempotency key used for something else")
            }
            Self::RateLimitExceeded => ("RATE_LIMIT_EXCEEDED", StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
            Self::Overloaded => ("OVERLOADED", StatusCode::SERVICE_UNAVAILABLE, "Overloaded"),
            Self::Timeout => ("TIMEOUT", StatusCode::GATEWAY_TIMEOUT, "Timeout"),
            Self::BackboneUnavailable => {
                ("BACKBONE_UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE, "Backbone unavailable")
            }
            Self::Internal => ("INTERNAL", StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
        }
    }

    /// As clients see it: `INVALID_INPUT`.
    pub const fn as_str(self) -> &'static str {
        self.parts().0
    }

    /// The status that it is answered with.
    pub const fn status(self) -> StatusCode {
        self.parts().1
    }

    /// A few words for people, the same for every problem of the code.
    pub const fn title(self) -> &'static str {
        self.parts().2
    }

    /// What names the kind of problem: `urn:fanfare:problem:invalid-input`.
    fn urn(self) -> String {
        format!("urn:fanfare:problem:{}", self.as_str().to_ascii_lowercase().replace('_', "-"))
    }

    /// What clients are told to wait where nobody knows better.
    const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::RateLimitExceeded | Self::Overloaded | Self::BackboneUnavailable => Some(Duration::from_secs(2)),
            Self::InvalidInput
            | Self::AuthenticationFailed
            | Self::Forbidden
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::Conflict
            | Self::PayloadTooLarge
            | Self::UriTooLong
            | Self::UnsupportedMediaType
            | Self::IdempotencyMismatch
            | Self::Timeout
            | Self::Internal => None,
        }
    }
}

/// One error answer. It is serialized as the body of a response, or as the `error` of one result among several.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem(Box<Parts>);

#[derive(Clone, Debug, PartialEq)]
struct Parts {
    code: Code,
    status: StatusCode,
    detail: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    details: Option<serde_json::Value>,
    allow: Option<&'static str>,
    retry_after: Option<Duration>,
}

impl Problem {
    /// A problem. The detail is one sentence that says what is wrong with this request, in lower case and without a
    /// full stop.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Parts {
            code,
            status: code.status(),
            detail: detail.into(),
            hint: None,
            details: None,
            allow: None,
            retry_after: code.retry_after(),
        }))
    }

    /// [`Code::InvalidInput`], the most frequent one.
    pub fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::InvalidInput, detail)
    }

    /// Nothing is at that path.
    pub fn no_such_path(path: &str) -> Self {
        Self::new(Code::NotFound, format!("there is nothing at {path:.200}"))
    }

    /// The path allows other methods, as in `GET, HEAD`.
    pub fn method_not_allowed(method: &http::Method, allow: &'static str) -> Self {
        let mut problem = Self::new(Code::MethodNotAllowed, format!("{method} is not allowed here, but {allow}"));
        problem.0.allow = Some(allow);
        problem
    }

    /// The client took too long to send its request.
    pub fn request_timeout(detail: impl Into<Cow<'static, str>>) -> Self {
        let mut problem = Self::new(Code::Timeout, detail);
        problem.0.status = StatusCode::REQUEST_TIMEOUT;
        problem
    }

    /// Says what to do instead.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Says more, for programs.
    #[must_use]
    pub fn details(mut self, details: serde_json::Value) -> Self {
        self.0.details = Some(details);
        self
    }

    /// Says when to come back.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Says where it is wrong, as in `entry 3: …`.
    #[must_use]
    pub fn at(mut self, place: impl std::fmt::Display) -> Self {
        self.0.detail = format!("{place}: {}", self.0.detail).into();
        self
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// What is wrong with this request.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The response with the headers that its status asks for.
    pub fn into_response(self) -> Response {
        let mut response = json(self.0.status, &self);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.0.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"fanfare\""));
        }
        if let Some(allow) = self.0.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(wait) = self.0.retry_after {
            // Whole seconds, rounded up: nobody is told to come too early.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Parts { code, status, detail, hint, details, .. } = &*self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &code.urn())?;
        map.serialize_entry("title", code.title())?;
        map.serialize_entry("status", &status.as_u16())?;
        map.serialize_entry("code", code.as_str())?;
        map.serialize_entry("detail", detail)?;
        map.serialize_entry("message", detail)?;
        if let Some(hint) = hint {
            map.serialize_entry("hint", hint)?;
        }
        if let Some(details) = details {
            map.serialize_entry("details", details)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn body(response: Response) -> serde_json::Value {
        let bytes = response.into_body().collect().await.expect("a whole body").to_bytes();
        serde_json::from_slice(&bytes).expect("JSON")
    }

    #[tokio::test]
    async fn a_problem_repeats_its_detail_as_message() {
        let problem = Problem::invalid("no channel is named").hint("add ?channel=").at("entry 3");
        let response = problem.into_response();
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let expected = serde_json::json!({
            "type": "urn:fanfare:problem:invalid-input", "title": "Invalid input", "status": 400,
            "code": "INVALID_INPUT", "detail": "entry 3: no channel is named",
            "message": "entry 3: no channel is named", "hint": "add ?channel=",
        });
        assert_eq!(body(response).await, expected);
    }

    #[test]
    fn every_code_has_its_status() {
        use Code::*;
        for (code, text, status) in [
            (InvalidInput, "INVALID_INPUT", 400),
            (AuthenticationFailed, "AUTHENTICATION_FAILED", 401),
            (Forbidden, "FORBIDDEN", 403),
            (NotFound, "NOT_FOUND", 404),
            (MethodNotAllowed, "METHOD_NOT_ALLOWED", 405),
            (Conflict, "CONFLICT", 409),
            (PayloadTooLarge, "PAYLOAD_TOO_LARGE", 413),
            (UriTooLong, "URI_TOO_LONG", 414),
            (UnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE", 415),
            (IdempotencyMismatch, "IDEMPOTENCY_MISMATCH", 422),
            (RateLimitExceeded, "RATE_LIMIT_EXCEEDED", 429),
            (Overloaded, "OVERLOADED", 503),
            (Timeout, "TIMEOUT", 504),
            (BackboneUnavailable, "BACKBONE_UNAVAILABLE", 503),
            (Internal, "INTERNAL", 500),
        ] {
            let problem = Problem::new(code, "so it is").details(serde_json::json!({ "more": 1 }));
            assert_eq!(problem.status(), status, "{text}");
            let body = serde_json::json!(problem);
            assert_eq!((&body["code"], &body["status"]), (&text.into(), &status.into()));
            assert_eq!(body["type"], format!("urn:fanfare:problem:{}", text.to_lowercase().replace('_', "-")));
            assert_eq!(body["details"]["more"], 1);
        }
    }

    #[test]
    fn the_headers_that_a_status_asks_for_are_there() {
        let headers = |problem: Problem| problem.into_response().headers().clone();
        let unauthorized = headers(Problem::new(Code::AuthenticationFailed, "no token"));
        assert_eq!(unauthorized["www-authenticate"], "Bearer realm=\"fanfare\"");
        let refused = headers(Problem::method_not_allowed(&http::Method::PUT, "GET, HEAD"));
        assert_eq!(refused["allow"], "GET, HEAD");
        for code in [Code::RateLimitExceeded, Code::Overloaded, Code::BackboneUnavailable] {
            assert_eq!(headers(Problem::new(code, "later"))["retry-after"], "2", "{code:?}");
        }
        let later = Problem::new(Code::Overloaded, "later").retry_after(Duration::from_millis(15_001));
        assert_eq!(headers(later)["retry-after"], "16");
    }

    #[test]
    fn a_slow_client_is_a_408_and_a_slow_server_a_504() {
        assert_eq!(Problem::request_timeout("too slow").status(), 408);
        assert_eq!(Problem::new(Code::Timeout, "no answer").status(), 504);
    }
}
