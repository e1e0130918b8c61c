//! What can be wrong with a run, and what was.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Faults that are kept in words; all are counted.
const FAULTS_KEPT: usize = 20;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// An acknowledged event that a client never got.
    Missing,
    /// An event that a client got again.
    Double,
    /// An event that came after a later one of its channel.
    Reordered,
    /// An id that is not ahead of what the client had seen in that partition.
    Backwards,
    /// An id that is none, or names another place than it should.
    WrongId,
    /// An event of a channel that the client doesn't follow.
    Stray,
    /// An event whose type or data is not what was published.
    Corrupt,
    /// A `connected` that doesn't say what it should.
    WrongConnected,
    /// A gap where none may be.
    Gap,
    /// A result of a publish that is not what it should be.
    WrongResult,
    /// A publish that was not answered with 200.
    NotPublished,
    /// A stream that is no proper response.
    BadStream,
    /// A client that could not connect, or not come back, in time.
    NotConnected,
    /// The run itself could not do what it was to do.
    Unfinished,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_value(self).expect("a name");
        f.write_str(text.as_str().unwrap_or_default())
    }
}

/// One thing that went wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// What it is.
    pub kind: FaultKind,
    /// The client that saw it.
    pub client: Option<u32>,
    /// The channel it was on.
    pub channel: String,
    /// What should have come.
    pub expected: String,
    /// What came.
    pub got: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind)?;
        if let Some(client) = self.client {
            write!(f, " client {client},")?;
        }
        write!(f, " channel {}: expected {}, got {}", self.channel, self.expected, self.got)
    }
}

/// All faults of a run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Faults {
    /// How many there are of each kind …
    pub(crate) counts: BTreeMap<FaultKind, u64>,
    /// … and the first of them.
    pub(crate) first: Vec<Fault>,
}

impl Faults {
    pub(crate) fn add(&mut self, fault: Fault) {
        self.add_many(fault, 1);
    }

    /// Adds one that stands for so many.
    pub(crate) fn add_many(&mut self, fault: Fault, count: u64) {
        *self.counts.entry(fault.kind).or_default() += count;
        // Each kind keeps a place, so that the first flood doesn't hide the second.
        let of_kind = self.first.iter().filter(|kept| kept.kind == fault.kind).count();
        if of_kind < FAULTS_KEPT / 4 && self.first.len() < FAULTS_KEPT {
            self.first.push(fault);
        }
    }

    /// Adds those that another process found.
    pub(crate) fn merge(&mut self, other: Self) {
        for fault in other.first {
            self.add_many(fault, 0);
        }
        for (kind, count) in other.counts {
            *self.counts.entry(kind).or_default() += count;
        }
    }
}
