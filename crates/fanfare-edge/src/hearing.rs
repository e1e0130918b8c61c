//! When an edge last heard itself.
//!
//! Each feed sends markers through its own subscription all the time, a beacon every second or two where nobody asks. An
//! edge whose commands work and whose markers stay away hears nothing of anybody: whether that is so is for readiness
//! to say, which knows about commands.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use fanfare_protocol::{Partition, Partitions};

/// When each partition's newest marker came.
#[derive(Debug)]
pub(crate) struct Hearing(Box<[Mutex<Instant>]>);

impl Hearing {
    /// Nothing heard yet, and nothing missed.
    pub(crate) fn new(partitions: Partitions) -> Self {
        Self(partitions.all().map(|_| Mutex::new(Instant::now())).collect())
    }

    /// A marker came.
    pub(crate) fn heard(&self, partition: Partition) {
        *self.0[usize::from(partition)].lock().expect("nobody panics while holding it") = Instant::now();
    }

    /// How long the partition that is worst off has had none.
    pub(crate) fn silence(&self) -> Duration {
        let silence = |heard: &Mutex<Instant>| heard.lock().expect("nobody panics while holding it").elapsed();
        self.0.iter().map(silence).max().unwrap_or_default()
    }
}
