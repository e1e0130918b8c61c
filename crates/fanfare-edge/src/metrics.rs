//! Every metric of an edge, on one page.

use std::time::Duration;

use fanfare_protocol::{GapReason, Partition};
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::close::CloseReason;

/// The metrics; one set for an edge.
#[derive(Debug)]
pub(crate) struct EdgeMetrics {
    pub(crate) connections: IntGauge,
    pub(crate) connections_limit: IntGauge,
    pub(crate) opened: IntCounter,
    closed: IntCounterVec,
    refused: IntCounterVec,
    pub(crate) events_received: IntCounter,
    pub(crate) deliveries: IntCounter,
    pub(crate) delivery_seconds: Histogram,
    dropped: IntCounterVec,
    pub(crate) replayed: IntCounter,
    gaps: IntCounterVec,
    pub(crate) backlog_bytes: IntGauge,
    backbone_up: IntGaugeVec,
    pub(crate) resyncs: IntCounter,
    subscriptions: IntGaugeVec,
}

impl EdgeMetrics {
    /// # Errors
    /// The registry has metrics of these names already.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        let counters = |name: &str, help: &str, label: &str, values: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            values.iter().for_each(|value| drop(counters.with_label_values(&[value]))); // Zero is a figure, too.
            registry.register(Box::new(counters.clone())).map(|()| counters)
        };
        let gauges = |name: &str, help: &str, label: &str, values: &[&str]| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            values.iter().for_each(|value| drop(gauges.with_label_values(&[value])));
            registry.register(Box::new(gauges.clone())).map(|()| gauges)
        };
        let seconds = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
        let delivery_seconds = Histogram::with_opts(
            HistogramOpts::new("fanfare_delivery_seconds", "From an event's position to its frames being written")
                .buckets(seconds),
        )?;
        registry.register(Box::new(delivery_seconds.clone()))?;
        let close_reasons = CloseReason::ALL.map(CloseReason::as_str);
        Ok(Self {
            connections: gauge("fanfare_connections", "Open event streams")?,
            connections_limit: gauge("fanfare_connections_limit", "Event streams that this edge takes at most")?,
            opened: counter("fanfare_connections_opened_total", "Event streams opened")?,
            closed: counters("fanfare_connections_closed_total", "Event streams ended", "reason", &close_reasons)?,
            refused: counters(
                "fanfare_connections_refused_total",
                "Event streams not opened",
                "reason",
                &[CloseReason::Limit, CloseReason::Draining, CloseReason::Overloaded].map(CloseReason::as_str),
            )?,
            events_received: counter("fanfare_events_received_total", "Events heard from the backbone")?,
            deliveries: counter("fanfare_deliveries_total", "Events written to event streams or their backlogs")?,
            delivery_seconds,
            dropped: counters(
                "fanfare_events_dropped_total",
                "Events that a connection will not get on this stream, by why",
                "reason",
                &[CloseReason::TooSlow.as_str()],
            )?,
            replayed: counter("fanfare_replayed_events_total", "Events delivered from history or tails")?,
            gaps: counters(
                "fanfare_gaps_total",
                "Gaps told to event streams",
                "reason",
                &GapReason::ALL.map(GapReason::as_str),
            )?,
            backlog_bytes: gauge("fanfare_backlog_bytes", "Bytes that wait for slow readers")?,
            backbone_up: gauges(
                "fanfare_backbone_up",
                "Whether a partition's subscription is in force",
                "partition",
                &[],
            )?,
            resyncs: counter("fanfare_backbone_resyncs_total", "Times that a partition's link broke and was resynced")?,
            subscriptions: gauges(
                "fanfare_subscriptions",
                "Channels subscribed at the backbone",
                "state",
                &["confirmed", "pending"],
            )?,
        })
    }

    pub(crate) fn closed(&self, reason: CloseReason) {
        self.closed.with_label_values(&[reason.as_str()]).inc();
    }

    pub(crate) fn refused(&self, reason: CloseReason) {
        self.refused.with_label_values(&[reason.as_str()]).inc();
    }

    pub(crate) fn dropped(&self, reason: CloseReason, events: u64) {
        self.dropped.with_label_values(&[reason.as_str()]).inc_by(events);
    }

    pub(crate) fn gap(&self, reason: GapReason) {
        self.gaps.with_label_values(&[reason.as_str()]).inc();
    }

    pub(crate) fn delivered(&self, after: Duration) {
        self.delivery_seconds.observe(after.as_secs_f64());
    }

    pub(crate) fn backbone_up(&self, partition: Partition, up: bool) {
        self.backbone_up.with_label_values(&[&partition.to_string()]).set(i64::from(up));
    }

    /// Corrects the count of subscriptions by how one partition's have changed.
    pub(crate) fn subscriptions(&self, confirmed: i64, pending: i64) {
        self.subscriptions.with_label_values(&["confirmed"]).add(confirmed);
        self.subscriptions.with_label_values(&["pending"]).add(pending);
    }
}
