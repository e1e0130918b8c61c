//! What a worker is told and what it says, as lines of JSON between processes.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::check::Faults;
use crate::clock::Nanos;
use crate::crowd::{Expected, Span, Sum};
use crate::dialect::Dialect;

/// What a worker is told first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) edges: Vec<String>,
    pub(crate) dialect: Dialect,
    pub(crate) secret: Option<String>,
    pub(crate) first: u32,
    pub(crate) clients: u32,
    pub(crate) channels: u32,
    /// Channels that a client follows besides, with nobody else.
    pub(crate) others: u32,
    pub(crate) run: u32,
    pub(crate) payload_bytes: usize,
    pub(crate) opening_max: usize,
    pub(crate) keep_ids: bool,
    /// Streams that share an HTTP/2 connection; 0: HTTP/1.1.
    pub(crate) streams: u32,
    /// So many deliveries are told at once, however soon they come.
    pub(crate) step: u64,
}

/// What it is told later.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Opens all connections that are not open.
    Open,
    /// Resets all connections; everybody comes back at once.
    Cut,
    /// Resets whoever is connected, again and again.
    Churn { fresh: bool },
    /// Everybody comes back to stay.
    CalmDown,
    /// The last so many clients read nothing any more, until [`Order::Dismiss`].
    Stall { count: u32 },
    /// They read what is left for them, and don't come back.
    Dismiss,
    /// Counts from now on who lacks something of that.
    Expect { id: u32, expected: Expected },
    /// Counts the faults of those that lack something of what was expected last.
    Judge,
    /// Tells the sum of what was heard since the last time.
    Sum,
}

/// What it says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Word {
    /// Where it is: at least every 20 ms while something changes.
    Place(Place),
    /// The answer to [`Order::Sum`].
    Sum(Box<WireSum>),
    /// Why it can't go on.
    Failed(String),
}

/// Where a worker is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) connected: u32,
    pub(crate) subscribed: u64,
    pub(crate) last_subscribed: Nanos,
    /// Since the beginning.
    pub(crate) deliveries: u64,
    pub(crate) heartbeats: u64,
    pub(crate) lost: u64,
    /// Connections that were refused, by the status of the answer or the reason that was told.
    pub(crate) refusals: BTreeMap<String, u64>,
    pub(crate) last_error: Option<String>,
    /// Of which expectation `incomplete` and `complete_at` speak.
    pub(crate) expectation: u32,
    pub(crate) incomplete: u32,
    /// When nobody lacked anything any more.
    pub(crate) complete_at: Option<Nanos>,
}

/// A [`Sum`] on its way between processes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct WireSum {
    deliveries: u64,
    replayed: u64,
    heartbeats: u64,
    foreign: u64,
    /// Values in µs and how often they came.
    latency: Vec<(u64, u64)>,
    to_users: Vec<(u64, u64)>,
    broadcasts: Vec<(u32, Span)>,
    closings: BTreeMap<String, u64>,
    faults: String,
    busy: f64,
}

/// What the workers heard together.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) sum: Sum,
    /// Share of its time that the busiest of them worked.
    pub(crate) busy: f64,
}

impl Heard {
    pub(crate) fn new() -> Self {
        Self { sum: Sum::new(), busy: 0.0 }
    }

    pub(crate) fn add(&mut self, wire: &WireSum) {
        let sum = &mut self.sum;
        sum.deliveries += wire.deliveries;
        sum.replayed += wire.replayed;
        sum.heartbeats += wire.heartbeats;
        sum.foreign += wire.foreign;
        for (histogram, values) in [(&mut sum.latency, &wire.latency), (&mut sum.to_users, &wire.to_users)] {
            for (value, count) in values {
                histogram.saturating_record_n(*value, *count);
            }
        }
        for (seq, span) in &wire.broadcasts {
            sum.broadcasts.entry(*seq).and_modify(|both| *both = both.and(*span)).or_insert(*span);
        }
        for (reason, count) in &wire.closings {
            *sum.closings.entry(reason.clone()).or_default() += count;
        }
        sum.faults.merge(serde_json::from_str::<Faults>(&wire.faults).unwrap_or_default());
        self.busy = self.busy.max(wire.busy);
    }
}

impl WireSum {
    pub(crate) fn new(sum: &Sum, busy: f64) -> Self {
        Self {
            deliveries: sum.deliveries,
            replayed: sum.replayed,
            heartbeats: sum.heartbeats,
            foreign: sum.foreign,
            latency: values(&sum.latency),
            to_users: values(&sum.to_users),
            broadcasts: sum.broadcasts.iter().map(|(seq, span)| (*seq, *span)).collect(),
            closings: sum.closings.clone(),
            faults: serde_json::to_string(&sum.faults).expect("faults are JSON"),
            busy,
        }
    }
}

fn values(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    histogram.iter_recorded().map(|value| (value.value_iterated_to(), value.count_at_value())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Fault, FaultKind};

    #[test]
    fn what_workers_tell_is_added_up_and_nothing_is_lost_on_the_way() {
        let mut sum = Sum::new();
        (sum.deliveries, sum.heartbeats) = (3, 1);
        for micros in [100, 2_000, 2_000, 300_000] {
            sum.latency.saturating_record(micros);
        }
        sum.to_users.saturating_record(100);
        sum.broadcasts.insert(7, Span { first: 10, last: 20 });
        let fault = Fault {
            kind: FaultKind::Double,
            client: Some(1),
            channel: "load:0".to_owned(),
            expected: "number 1".to_owned(),
            got: "number 0".to_owned(),
        };
        sum.faults.add_many(fault, 2);
        let line = serde_json::to_string(&WireSum::new(&sum, 0.5)).expect("JSON");
        sum.broadcasts.insert(7, Span { first: 5, last: 15 });
        let other = serde_json::to_string(&WireSum::new(&sum, 0.5)).expect("JSON");
        let mut heard = Heard::new();
        for line in [line, other] {
            heard.add(&serde_json::from_str(&line).expect("its own"));
        }
        let Heard { sum: both, busy } = heard;
        assert_eq!((both.deliveries, both.heartbeats, busy), (6, 2, 0.5));
        assert_eq!((both.latency.len(), both.to_users.len()), (8, 2));
        assert_eq!(both.broadcasts, BTreeMap::from([(7, Span { first: 5, last: 20 })]));
        assert_eq!(both.latency.value_at_quantile(0.5), sum.latency.value_at_quantile(0.5));
        assert_eq!(both.faults.counts[&FaultKind::Double], 4);
        assert_eq!(both.faults.first.len(), 2);
    }
}
