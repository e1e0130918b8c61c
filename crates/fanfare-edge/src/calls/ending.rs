//! What a call's stream says last: the result, or what went wrong in words that its caller understands.

use std::borrow::Cow;
use std::time::Duration;

use fanfare_http::Code;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::close::CloseReason;

/// The backend answered with what a call can't be answered with, or could not be asked.
const BACKEND_FAILED: &str = "BACKEND_FAILED";

const REPEAT: &str = "repeat the call, with the same Idempotency-Key if its work must not be done twice";

/// The end of a call that is not an event of its channel.
#[derive(Debug)]
pub(crate) enum Ending {
    /// What the backend answered: JSON in one line.
    Result(String),
    /// There is no result.
    Error(Box<CallError>),
}

/// Why there is no result, as it stands in `error`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct CallError {
    code: Cow<'static, str>,
    message: Cow<'static, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<Cow<'static, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    details: Option<Box<RawValue>>,
}

impl Ending {
    /// The backend took too long.
    pub(super) fn timeout(after: Duration) -> Self {
        let message = format!("the call did not end within {}", humantime::format_duration(after));
        CallError::new(Code::Timeout.as_str(), message).hint(REPEAT)
    }

    /// The backend could not be asked, or gave no answer that could be used.
    pub(super) fn failed(message: impl Into<Cow<'static, str>>) -> Self {
        CallError::new(BACKEND_FAILED, message).into()
    }

    /// The stream ends before the call does. None: it has said all there is to say.
    pub(crate) fn of(reason: CloseReason) -> Option<Self> {
        let (code, message) = match reason {
            CloseReason::Answered | CloseReason::ClientLeft => return None,
            CloseReason::CallFailed => (Code::Internal, "the call has failed"),
            CloseReason::Disconnected => (Code::AuthenticationFailed, "the user was disconnected"),
            CloseReason::TokenExpired => (Code::AuthenticationFailed, "the token has expired"),
            CloseReason::Draining => (Code::Overloaded, "this edge is shutting down"),
            CloseReason::TooSlow => (Code::Overloaded, "the stream was not read as fast as events came"),
            CloseReason::Replaced => (Code::RateLimitExceeded, "another connection of this user has taken its place"),
            CloseReason::Idle | CloseReason::MaxAge | CloseReason::Limit | CloseReason::Overloaded => {
                (Code::Overloaded, "this edge can't keep the stream")
            }
            CloseReason::Unavailable => (Code::BackboneUnavailable, "the backbone can't be reached"),
        };
        Some(CallError::new(code.as_str(), message).hint(REPEAT))
    }

    /// Its event type.
    pub(crate) fn event_type(&self) -> &'static str {
        match self {
            Self::Result(_) => "result",
            Self::Error(_) => "error",
        }
    }

    /// Its event's data.
    pub(crate) fn data(&self) -> String {
        #[derive(Serialize)]
        struct Data<'a> {
            error: &'a CallError,
        }
        match self {
            Self::Result(data) => data.clone(),
            Self::Error(error) => serde_json::to_string(&Data { error }).expect("texts and JSON become JSON"),
        }
    }

    /// What the connection is counted as.
    pub(crate) fn reason(&self) -> CloseReason {
        match self {
            Self::Result(_) => CloseReason::Answered,
            Self::Error(_) => CloseReason::CallFailed,
        }
    }
}

impl CallError {
    fn new(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code: code.into(), message: message.into(), hint: None, details: None }
    }

    fn hint(mut self, hint: &'static str) -> Ending {
        self.hint = Some(hint.into());
        self.into()
    }

    /// The error that a backend's own answer tells: `{"error":{…}}`, or the same without what is around it.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Around {
            error: CallError,
        }
        let around = serde_json::from_slice(body).map(|Around { error }| error);
        let mut error = around.or_else(|_| serde_json::from_slice::<Self>(body)).ok()?;
        error.details = error.details.and_then(|details| RawValue::from_string(in_one_line(details.get())).ok());
        Some(error)
    }
}

impl From<CallError> for Ending {
    fn from(error: CallError) -> Self {
        Self::Error(Box::new(error))
    }
}

/// JSON without line ends, which in JSON stand between values only: readers that take a `data:` line for all of an
/// event's data get all of it. Numbers stay as they were written.
pub(super) fn in_one_line(json: &str) -> String {
    json.replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_as_the_backend_tells_it() {
        for (body, data) in [
            (
                "{\"error\":{\"code\":\"TOOL_NOT_FOUND\",\"message\":\"no such tool\",\"hint\":\"try another\",\"details\":{\n\"n\":1.10}}}",
                r#"{"error":{"code":"TOOL_NOT_FOUND","message":"no such tool","hint":"try another","details":{ "n":1.10}}}"#,
            ),
            (
                r#"{"type":"urn:x","status":400,"code":"INVALID_INPUT","message":"a","title":"b"}"#,
                r#"{"error":{"code":"INVALID_INPUT","message":"a"}}"#,
            ),
        ] {
            let ending = Ending::from(CallError::read(body.as_bytes()).expect(body));
            assert_eq!((ending.event_type(), ending.data().as_str()), ("error", data));
        }
        for body in ["", "nonsense", "{}", r#"{"error":"text"}"#, r#"{"code":1,"message":"a"}"#] {
            assert!(CallError::read(body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn whatever_ends_a_call_has_a_code_and_a_message() {
        for reason in CloseReason::ALL {
            match Ending::of(reason) {
                None => assert!([CloseReason::Answered, CloseReason::ClientLeft].contains(&reason)),
                Some(ending) => {
                    let data: serde_json::Value = serde_json::from_str(&ending.data()).expect("JSON");
                    let error = &data["error"];
                    assert!(error["code"].is_string() && error["message"].is_string(), "{reason:?}: {data}");
                }
            }
        }
    }
}
