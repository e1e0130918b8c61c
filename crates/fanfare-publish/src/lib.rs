//! The publish API: backend services say something to a user, to a channel or to everybody, and read what channels
//! retain.
//!
//! A request goes through `router`, is read and checked whole (`entry`), becomes an `Order` of events and is
//! published through the backbone; what came of it is an `Outcome`. Only NDJSON (`lines`) is published while it is
//! still being read. Who is listening is known only as far as edges tell it (`listeners`).

mod router; // Every route.

mod config;

mod entry; // What callers write …
mod idempotency;
mod order; // … what is published of it …
mod outcome; // … and what they are told.

mod lines;
mod listeners;
mod minting;
mod purge;
mod reads;
mod users;

mod metrics;

use std::sync::Arc;
use std::time::Instant;

use fanfare_auth::{PublishAccess, Secrets};
use fanfare_backbone::Backbone;
use fanfare_http::{Handler, Peer, Problem, Reply, ReplyFuture, Request, Response, request_id};

pub use config::PublishConfig;
use metrics::Metrics;
pub use router::ROUTES;
use router::Route;

/// The publish API over a backbone. Clones share it.
#[derive(Clone, Debug)]
pub struct PublishApi(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    backbone: Backbone,
    config: PublishConfig,
    access: PublishAccess,
    /// What tokens are signed with. None: none are made.
    secrets: Option<Secrets>,
    metrics: Metrics,
}

impl PublishApi {
    /// The API, with its metrics in `registry`. Without secrets it makes no tokens.
    ///
    /// # Errors
    /// The registry has metrics of these names already.
    pub fn new(
        backbone: Backbone,
        config: PublishConfig,
        access: PublishAccess,
        secrets: Option<Secrets>,
        registry: &prometheus::Registry,
    ) -> Result<Self, prometheus::Error> {
        let metrics = Metrics::new(registry)?;
        Ok(Self(Arc::new(Inner { backbone, config, access, secrets, metrics })))
    }

    /// Whether a path is one of this API, so that edge and API can share a listener.
    pub fn handles(path: &str) -> bool {
        Route::find(path).is_some()
    }

    /// Answers a request; paths of others are 404.
    pub async fn handle(&self, request: Request, _peer: Peer) -> Response {
        let Some(route) = Route::find(request.uri().path()) else {
            return Problem::no_such_path(request.uri().path()).into_response();
        };
        let (began, publishes) = (Instant::now(), route.publishes());
        let id = request_id(request.headers());
        let response = match self.0.access.authorise(request.headers()) {
            Ok(publisher) => route.answer(self, request, &publisher).await,
            Err(refusal) => Err(refusal.into()),
        };
        let response = response.unwrap_or_else(Problem::into_response);
        if publishes {
            tracing::debug!(request_id = ?id, status = response.status().as_u16(), "a publish request is answered");
            self.0.metrics.answered(response.status(), began.elapsed());
        }
        response
    }
}

impl Handler for PublishApi {
    fn handle(self: Arc<Self>, request: Request, peer: Peer) -> ReplyFuture {
        Box::pin(async move { Reply::Response(Self::handle(&self, request, peer).await) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    /// It is copied from each caller to the next, a dozen times a request.
    #[test]
    fn what_a_request_waits_in_is_small() {
        let bytes = bytes_of(|(api, request, peer): (&'static PublishApi, Request, Peer)| api.handle(request, peer));
        assert!(bytes < 4096, "{bytes} bytes: a branch that isn't publishing should be boxed (see `router`)");
    }
}
