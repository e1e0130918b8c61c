//! What operators and their tools ask: is it alive, is it ready, what does it count, which version is it?

use std::sync::Arc;
use std::time::Duration;

use fanfare_auth::AdminKey;
use fanfare_edge::Edge;
use fanfare_http::{Code, Handler, Peer, Problem, Reply, ReplyFuture, Request, Response, json, options, text};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use prometheus::process_collector::ProcessCollector;
use prometheus::{Encoder, IntGaugeVec, Opts, Registry, TextEncoder};
use serde_json::json as object;
use tokio_util::sync::CancellationToken;

use crate::front::GET;
use crate::redis::Pulse;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// An edge whose commands work and whose own markers stay away for so long is deaf: it takes connections and has nothing
/// to tell them.
const DEAF_AFTER: Duration = Duration::from_secs(30);

/// A registry with what is known of the process itself.
///
/// # Errors
/// Never with an empty registry, which this one is.
pub(crate) fn registry() -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self()))?;
    let build =
        IntGaugeVec::new(Opts::new("fanfare_build_info", "The version that is running; always 1"), &["version"])?;
    build.with_label_values(&[VERSION]).set(1);
    registry.register(Box::new(build))?;
    Ok(registry)
}

/// The admin paths.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) part: Part,
    pub(crate) registry: Registry,
    /// Opens what it has of users. None: that is off.
    pub(crate) key: Option<AdminKey>,
    /// Cancelled when the process is on its way out.
    pub(crate) draining: CancellationToken,
}

/// Whose readiness it is.
#[derive(Debug)]
pub(crate) enum Part {
    /// That Redis is away has no say in it, unless somebody wants that (`FANFARE_UNREADY_AFTER`): an outage there must
    /// not become the loss of every client. An edge that is deaf while Redis answers is of no use.
    Edge(Arc<Edge>, Arc<Pulse>),
    /// There is no use in a publish API that can't reach Redis.
    Publisher(Arc<Pulse>),
}

/// An address of its own: everything else is 404.
impl Handler for Admin {
    fn handle(self: Arc<Self>, request: Request, _: Peer) -> ReplyFuture {
        Box::pin(async move {
            let path = request.uri().path();
            let answer = self.answer(&request).unwrap_or_else(|| Err(Problem::no_such_path(path)));
            answer.map_or_else(Reply::from, Reply::from)
        })
    }
}

impl Admin {
    /// Answers, if it is one of the admin paths.
    pub(crate) fn answer(&self, request: &Request) -> Option<Result<Response, Problem>> {
        let answer: fn(&Self, &HeaderMap) -> Result<Response, Problem> = match request.uri().path() {
            "/healthz" => |_, _| Ok(no_store(text(StatusCode::OK, "alive\n"))),
            "/readyz" => |admin, _| admin.ready(),
            "/metrics" => |admin, _| admin.metrics(),
            "/stats" => Self::stats,
            "/version" => |_, _| Ok(json(StatusCode::OK, &object!({ "version": VERSION }))),
            _ => return None,
        };
        Some(match request.method() {
            &(Method::GET | Method::HEAD) => answer(self, request.headers()),
            &Method::OPTIONS => Ok(options(GET)),
            method => Err(Problem::method_not_allowed(method, GET)),
        })
    }

    /// What this process holds; of users only for whoever shows the key.
    fn stats(&self, headers: &HeaderMap) -> Result<Response, Problem> {
        let with_users = match &self.key {
            Some(key) => key.is_shown(headers)?,
            None => false,
        };
        match &self.part {
            Part::Edge(edge, _) => Ok(json(StatusCode::OK, &edge.stats(with_users))),
            Part::Publisher(_) => Err(Problem::new(Code::NotFound, "a publish API holds nothing to count")
                .hint("edges have /stats; GET /channels, with a publish key, has who listens anywhere")),
        }
    }

    fn ready(&self) -> Result<Response, Problem> {
        let (is_leaving, pulse) = match &self.part {
            Part::Edge(edge, pulse) => (!edge.is_ready(), pulse),
            Part::Publisher(pulse) => (false, pulse),
        };
        if is_leaving || self.draining.is_cancelled() {
            return Err(Problem::new(Code::Overloaded, "draining: new connections are not welcome any more"));
        }
        if let Some(silence) = pulse.lost_for() {
            let detail = format!("Redis has not answered for {} s", silence.as_secs());
            return Err(Problem::new(Code::BackboneUnavailable, detail));
        }
        if let Part::Edge(edge, pulse) = &self.part
            && let deaf_for = edge.unheard_for().min(pulse.steady_for())
            && deaf_for >= DEAF_AFTER
        {
            let seconds = deaf_for.as_secs();
            let detail = format!("Redis answers, but this edge has not heard its own markers for {seconds} s");
            return Err(Problem::new(Code::BackboneUnavailable, detail));
        }
        Ok(no_store(text(StatusCode::OK, "ready\n")))
    }

    fn metrics(&self) -> Result<Response, Problem> {
        let encoder = TextEncoder::new();
        let mut page = Vec::new();
        if let Err(error) = encoder.encode(&self.registry.gather(), &mut page) {
            tracing::error!(%error, "the metrics can't be written");
            return Err(Problem::new(Code::Internal, "the metrics can't be written"));
        }
        let mut response = no_store(text(StatusCode::OK, page));
        let format = HeaderValue::from_str(encoder.format_type()).expect("the format's name is ASCII");
        response.headers_mut().insert(CONTENT_TYPE, format);
        Ok(response)
    }
}

/// What holds for this moment only.
fn no_store(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
