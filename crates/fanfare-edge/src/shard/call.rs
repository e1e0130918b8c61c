//! A call as its stream knows it: it is told when the stream has joined, and why it has ended.
//!
//! A call's stream ends after an event that says so, or when the call itself ends (see `calls`). Nobody comes back to
//! it, so its last words are a result or an error, never `closing`.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::wheel::Visit;
use crate::calls::{Ending, Target};
use crate::close::CloseReason;

/// What a stream has of its call.
#[derive(Debug)]
pub(crate) struct CallStream {
    target: Arc<Target>,
    /// Until it has joined.
    joined: Option<oneshot::Sender<Visit>>,
    ended: oneshot::Sender<CloseReason>,
    /// What is left to say.
    ending: Option<Ending>,
}

impl CallStream {
    pub(crate) fn new(
        target: Arc<Target>,
        joined: oneshot::Sender<Visit>,
        ended: oneshot::Sender<CloseReason>,
    ) -> Self {
        Self { target, joined: Some(joined), ended, ending: None }
    }

    /// From here on nothing that is published is missed.
    pub(super) fn has_joined(&mut self, stream: Visit) {
        if let Some(joined) = self.joined.take() {
            _ = joined.send(stream); // Where the call is gone, the edge is going, too.
        }
    }

    /// Whether the stream ends after an event of this type.
    pub(super) fn ends_on(&self, event_type: &str) -> bool {
        self.target.end_on.iter().any(|end| end.as_str() == event_type)
    }

    /// The call has ended, and this is what is to be said of it.
    pub(super) fn answer(&mut self, ending: Ending) {
        self.ending = Some(ending);
    }

    /// The stream ends. Answers with its last words, if any are due.
    pub(super) fn end(self, reason: CloseReason) -> Option<Ending> {
        _ = self.ended.send(reason); // A call that has ended itself no longer listens.
        self.ending.or_else(|| Ending::of(reason))
    }
}
