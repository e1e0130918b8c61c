//! The vocabulary of figures: what scenarios may tell, and what each name means to people.
//!
//! A file of results carries it ([`Meaning`]), so that nobody has to look a name up here.

use super::{Better, Meaning};

/// A figure that scenarios tell, and what it means.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Its name in [`Run::figures`](super::Run::figures).
    pub name: &'static str,
    /// Its unit; empty for a count or a share.
    pub unit: &'static str,
    /// Which way is better.
    pub better: Better,
    /// A sentence for people.
    pub text: &'static str,
}

impl Figure {
    /// The same, as the file has it.
    pub fn meaning(&self) -> Meaning {
        Meaning { unit: self.unit.to_owned(), better: self.better, text: self.text.to_owned() }
    }
}

/// What a name stands for.
pub fn meaning(name: &str) -> Option<&'static Figure> {
    FIGURES.iter().find(|figure| figure.name == name)
}

const fn figure(name: &'static str, unit: &'static str, better: Better, text: &'static str) -> Figure {
    Figure { name, unit, better, text }
}

/// All figures, in the order in which reports show them.
pub const FIGURES: &[Figure] = &[
    figure("connections", "", Better::Neither, "connections that were open"),
    figure("connectSeconds", "s", Better::Lower, "time until all were connected and subscribed"),
    figure("connectionsPerSecond", "1/s", Better::Higher, "connections opened, authenticated and subscribed a second"),
    figure("eventsPerSecond", "1/s", Better::Higher, "events published and acknowledged a second"),
    figure("deliveriesPerSecond", "1/s", Better::Higher, "events that reached a client a second"),
    figure("serverCpuPerMillion", "s", Better::Lower, "CPU seconds of the server for a million deliveries"),
    figure("serverCpuMicrosPerEvent", "µs", Better::Lower, "CPU time of the server for an event to one user"),
    figure("serverCpuMicrosPerConnect", "µs", Better::Lower, "CPU time of the server for a connection that is opened"),
    figure(
        "edgeCpuMicrosPerStranger",
        "µs",
        Better::Lower,
        "CPU time of the edge for an event that nobody there follows",
    ),
    figure("serverCpuShare", "", Better::Neither, "share of the machine's CPU that the server used"),
    figure("loadCpuPerMillion", "s", Better::Neither, "CPU seconds of the load generator for a million deliveries"),
    figure("p50Millis", "ms", Better::Lower, "median latency of a delivery, from when the event was due"),
    figure("p99Millis", "ms", Better::Lower, "99th percentile of the latency of a delivery"),
    figure("p999Millis", "ms", Better::Lower, "99.9th percentile of the latency of a delivery"),
    figure("maxMillis", "ms", Better::Lower, "longest latency of a delivery"),
    figure("calmP99Millis", "ms", Better::Lower, "99th percentile of the latency in calm times, right before"),
    figure("p99OverCalm", "", Better::Lower, "99th percentile of the latency, over that in calm times"),
    figure("broadcastsPerSecond", "1/s", Better::Neither, "events to everybody published a second"),
    figure(
        "spreadMillis",
        "ms",
        Better::Lower,
        "time of an event to everybody from its first client to its last, median",
    ),
    figure("userP50Millis", "ms", Better::Lower, "median latency of an event to one user"),
    figure("userP99Millis", "ms", Better::Lower, "99th percentile of the latency of an event to one user"),
    figure("userP99OverSpread", "", Better::Lower, "that, over the time that an event to everybody takes"),
    figure("serverUserBytes", "B", Better::Lower, "user memory of the server for each connection"),
    figure("kernelBytes", "B", Better::Lower, "kernel memory for each connection, both ends where both are here"),
    figure("loadUserBytes", "B", Better::Neither, "user memory of the load generator for each connection"),
    figure("serverEmptyBytes", "B", Better::Lower, "user memory of the server's processes without connections"),
    figure("stalledUserBytes", "B", Better::Lower, "user memory of the server for each stalled reader, at most"),
    figure("stalledKernelBytes", "B", Better::Lower, "kernel memory for each stalled reader, at most"),
    figure("cutAfterSeconds", "s", Better::Lower, "time from a reader's stall until the server has cut the last one"),
    figure("heartbeats", "", Better::Neither, "heartbeats seen"),
    figure("backSeconds", "s", Better::Lower, "time from the cut of all until all are connected again"),
    figure("caughtUpSeconds", "s", Better::Lower, "time from the cut of all until all have everything"),
    figure("replayed", "", Better::Neither, "events that came by way of a resumed connection"),
    figure("broadcastSeconds", "s", Better::Lower, "time from one event to everybody until the last one has it"),
    figure("streamsPerConnection", "", Better::Neither, "streams that share a connection"),
    figure("processes", "", Better::Neither, "processes of the server"),
    figure("workers", "", Better::Neither, "processes of the load generator that hold connections"),
];
