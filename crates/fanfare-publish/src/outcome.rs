//! What came of an entry, as its publisher is told.
//!
//! An answer has the shape of what was asked: one channel or user gives `{"success","id","channel"}`, an array of
//! them `{"success","results":[…]}`, and an array of entries `results` of these. Where something was published and
//! something was not, the status is 200, `success` is false, and the failed ones have an `error` instead of an `id`.
//! Where nothing was published, the first failure is the answer.

use fanfare_backbone::{BackboneError, PublishError};
use fanfare_http::{Code, Problem, Response, json};
use fanfare_protocol::Channel;
use http::StatusCode;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

/// What came of one event: its id, or why it has none.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) channel: Channel,
    pub(crate) result: Result<String, Problem>,
}

/// What came of one entry.
#[derive(Debug)]
pub(crate) enum Outcome {
    One(Settled),
    Several(Vec<Settled>),
    /// It was no entry. Only lines come to this, arrays are refused whole.
    Refused(Problem),
}

impl Settled {
    fn success(&self) -> bool {
        self.result.is_ok()
    }
}

impl Outcome {
    fn success(&self) -> bool {
        match self {
            Self::One(settled) => settled.success(),
            Self::Several(results) => results.iter().all(Settled::success),
            Self::Refused(_) => false,
        }
    }

    /// Why nothing at all of it was published.
    fn failure(&self) -> Option<&Problem> {
        match self {
            Self::One(settled) => settled.result.as_ref().err(),
            Self::Several(results) if results.iter().any(Settled::success) => None,
            Self::Several(results) => results.first()?.result.as_ref().err(),
            Self::Refused(problem) => Some(problem),
        }
    }

    /// The answer to a request of one entry.
    pub(crate) fn respond(self) -> Result<Response, Problem> {
        match self.failure() {
            Some(problem) => Err(problem.clone()),
            None => Ok(json(StatusCode::OK, &self)),
        }
    }
}

/// The answer to an array of entries.
pub(crate) fn respond_to_array(outcomes: &[Outcome]) -> Result<Response, Problem> {
    let failures = outcomes.iter().map_while(Outcome::failure);
    if let (Some(first), true) = (outcomes.first().and_then(Outcome::failure), failures.count() == outcomes.len()) {
        return Err(first.clone());
    }
    #[derive(Serialize)]
    struct Results<'a> {
        success: bool,
        results: &'a [Outcome],
    }
    let success = outcomes.iter().all(Outcome::success);
    Ok(json(StatusCode::OK, &Results { success, results: outcomes }))
}

/// What publishers are told of a failed publish.
pub(crate) fn problem_of(error: &PublishError) -> Problem {
    match error {
        PublishError::Mismatch => Problem::new(
            Code::IdempotencyMismatch,
            "the idempotency key was used for a different event on this channel",
        )
        .hint("repeat the first event as it was, or take a new key"),
        PublishError::Unavailable(source) => {
            let detail = format!("the backbone did not confirm the event ({source}), so it may be published or not");
            Problem::new(Code::BackboneUnavailable, detail)
                .hint("repeat it with the same idempotency key: it is then published once")
        }
    }
}

/// What readers are told of a failed read.
pub(crate) fn unreadable(error: &BackboneError) -> Problem {
    Problem::new(Code::BackboneUnavailable, format!("the backbone can't be read just now: {error}"))
}

impl Serialize for Settled {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("success", &self.success())?;
        match &self.result {
            Ok(id) => map.serialize_entry("id", id)?,
            Err(problem) => map.serialize_entry("error", problem)?,
        }
        map.serialize_entry("channel", self.channel.as_str())?;
        map.end()
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Self::One(settled) = self {
            return settled.serialize(serializer);
        }
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("success", &self.success())?;
        match self {
            Self::One(_) => {} // Written above.
            Self::Several(results) => map.serialize_entry("results", results)?,
            Self::Refused(problem) => map.serialize_entry("error", problem)?,
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published() -> Settled {
        Settled { channel: Channel::broadcast(), result: Ok("k3f9x2-5".into()) }
    }

    fn failed() -> Settled {
        let error = PublishError::Unavailable(BackboneError::Full);
        Settled { channel: Channel::broadcast(), result: Err(problem_of(&error)) }
    }

    fn status(answer: Result<Response, Problem>) -> u16 {
        answer.unwrap_or_else(Problem::into_response).status().as_u16()
    }

    #[test]
    fn an_answer_is_as_good_as_the_best_of_its_events() {
        assert_eq!(status(Outcome::One(published()).respond()), 200);
        assert_eq!(status(Outcome::One(failed()).respond()), 503);
        assert_eq!(status(Outcome::Several(vec![failed(), published()]).respond()), 200);
        assert_eq!(status(Outcome::Several(vec![failed(), failed()]).respond()), 503);
        assert_eq!(status(respond_to_array(&[Outcome::One(failed()), Outcome::One(published())])), 200);
        assert_eq!(status(respond_to_array(&[Outcome::One(failed()), Outcome::One(failed())])), 503);
    }

    #[test]
    fn success_means_all_of_it() {
        let text = |outcome: &Outcome| serde_json::to_string(outcome).expect("serializable");
        assert_eq!(text(&Outcome::One(published())), r#"{"success":true,"id":"k3f9x2-5","channel":"broadcast"}"#);
        let mixed = serde_json::to_value(Outcome::Several(vec![published(), failed()])).expect("serializable");
        assert_eq!(mixed["success"], false);
        assert_eq!(mixed["results"][0]["success"], true);
        assert_eq!(mixed["results"][1]["error"]["code"], "BACKBONE_UNAVAILABLE");
    }
}
