//! What operators and their tools ask: is it alive, is it ready, what does it count, which version is it?

use std::sync::Arc;

use fanfare_edge::Edge;
use fanfare_http::{Code, Problem, Response, json, options, text};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use prometheus::process_collector::ProcessCollector;
use prometheus::{Encoder, IntGaugeVec, Opts, Registry, TextEncoder};
use serde_json::json as object;
use tokio_util::sync::CancellationToken;

use crate::front::GET;

const VERSION: &str = env!("CARGO_PKG_VERSION");

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
    pub(crate) edge: Arc<Edge>,
    pub(crate) registry: Registry,
    /// Cancelled when the process is on its way out.
    pub(crate) draining: CancellationToken,
}

impl Admin {
    /// Answers, if it is one of the admin paths.
    pub(crate) fn answer(&self, method: &Method, path: &str) -> Option<Result<Response, Problem>> {
        let answer: fn(&Self) -> Result<Response, Problem> = match path {
            "/healthz" => |_| Ok(no_store(text(StatusCode::OK, "alive\n"))),
            "/readyz" => Self::ready,
            "/metrics" => Self::metrics,
            "/version" => |_| Ok(json(StatusCode::OK, &object!({ "version": VERSION }))),
            _ => return None,
        };
        Some(match *method {
            Method::GET | Method::HEAD => answer(self),
            Method::OPTIONS => Ok(options(GET)),
            _ => Err(Problem::method_not_allowed(method, GET)),
        })
    }

    fn ready(&self) -> Result<Response, Problem> {
        if self.draining.is_cancelled() || !self.edge.is_ready() {
            return Err(Problem::new(Code::Overloaded, "draining: new connections are not welcome any more"));
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
