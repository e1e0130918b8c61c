//! Every metric of an edge, on one page.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use fanfare_protocol::{GapReason, PARTITIONS_MAX, Partition, Position};
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::close::CloseReason;
use crate::since_1970;

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
    /// Microseconds by which each partition's clock is ahead of ours.
    clocks_ahead: [AtomicI64; PARTITIONS_MAX as usize],
    pub(crate) control_ignored: IntCounter,
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
                &[CloseReason::Limit, CloseReason::Draining, CloseReason::Overloaded, CloseReason::Disconnected]
                    .map(CloseReason::as_str),
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
            clocks_ahead: std::array::from_fn(|_| AtomicI64::new(0)),
            control_ignored: counter(
                "fanfare_control_ignored_total",
                "Messages of other nodes that were not understood, or too many at once",
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

    /// An event of this position has just been written.
    pub(crate) fn delivered(&self, partition: Partition, published: Position) {
        let ahead_micros = self.clocks_ahead[usize::from(partition)].load(Ordering::Relaxed);
        self.delivery_seconds.observe(age(since_1970(), ahead_micros, published).as_secs_f64());
    }

    /// Positions of this partition count a clock that is so many microseconds ahead of ours.
    pub(crate) fn clock_ahead(&self, partition: Partition, micros: i64) {
        self.clocks_ahead[usize::from(partition)].store(micros, Ordering::Relaxed);
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

/// How old a position is by the clock that it counts. A burst's positions may run ahead of it a little.
fn age(now: Duration, ahead_micros: i64, published: Position) -> Duration {
    let theirs = i128::from(ahead_micros) + now.as_micros() as i128;
    Duration::from_micros(u64::try_from(theirs - i128::from(published.0)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_took_as_long_as_the_clock_says_that_gave_the_event_its_position() {
        let published = Position(1_795_229_238_000_000);
        let now = |micros: i64| Duration::from_micros((published.0 as i64 + micros) as u64);
        for ahead in [0, 5_000_000, -5_000_000] {
            assert_eq!(age(now(3_000 - ahead), ahead, published), Duration::from_millis(3));
            assert_eq!(age(now(-1 - ahead), ahead, published), Duration::ZERO, "not before it was published");
        }
    }

    #[test]
    fn each_partition_has_a_clock_of_its_own() {
        let metrics = EdgeMetrics::new(&Registry::new()).expect("a new registry");
        let hour_micros = 3_600_000_000;
        let in_an_hour = Position((since_1970().as_micros() as u64) + hour_micros);
        metrics.clock_ahead(1, hour_micros as i64);
        metrics.delivered(1, in_an_hour);
        metrics.delivered(0, Position(in_an_hour.0 - 2 * hour_micros));
        let histogram = &metrics.delivery_seconds;
        assert_eq!(histogram.get_sample_count(), 2);
        assert!((3_600.0..3_660.0).contains(&histogram.get_sample_sum()), "{}", histogram.get_sample_sum());
    }
}
