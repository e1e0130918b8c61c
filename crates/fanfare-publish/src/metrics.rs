//! Every metric of the publish API.

use std::time::Duration;

use http::StatusCode;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

/// The metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: IntCounterVec,
    seconds: Histogram,
    events: IntCounter,
}

/// Statuses that publishes are answered with in the ordinary course of things, good and bad.
const CODES: [&str; 8] = ["200", "400", "401", "403", "413", "415", "422", "503"];

/// From a publish on the same machine to one that meets a stalled backbone.
const SECONDS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("fanfare_publish_requests_total", "Requests that publish, by the status of their answer"),
            &["code"],
        )?;
        for code in CODES {
            drop(requests.with_label_values(&[code])); // Zero is a figure, too.
        }
        let seconds = Histogram::with_opts(
            HistogramOpts::new(
                "fanfare_publish_seconds",
                "Time from a publish request's head to its answer; of NDJSON, for each batch of lines",
            )
            .buckets(SECONDS.to_vec()),
        )?;
        let events = IntCounter::new("fanfare_events_published_total", "Events that got their place in the backbone")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(events.clone()))?;
        Ok(Self { requests, seconds, events })
    }

    pub(crate) fn answered(&self, status: StatusCode, took: Duration) {
        self.requests.with_label_values(&[status.as_str()]).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn lines_published(&self, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn published(&self, events: usize) {
        self.events.inc_by(events as u64);
    }
}
