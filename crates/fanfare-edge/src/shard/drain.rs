//! A shard's connections are told to go, spread over a window.

use std::time::{Duration, Instant};

use fanfare_protocol::ConnectionKey;
use tokio::sync::oneshot;

use super::{Shard, Visit};
use crate::close::CloseReason;

/// The goodbyes of a drain, paced.
pub(super) struct Drain {
    begin: Instant,
    window: Duration,
    left: Vec<Visit>,
    total: usize,
    done: Option<oneshot::Sender<()>>,
}

impl Drain {
    /// A connection that came during the drain goes like the others.
    pub(super) fn add(&mut self, visit: Visit) {
        self.left.push(visit);
        self.total += 1;
    }
}

impl Shard {
    /// All connections are to go; answered when they have.
    pub(super) fn begin_drain(&mut self, window: Duration, done: oneshot::Sender<()>) {
        let mut left: Vec<_> = self.sockets.connections.iter().map(|(key, c)| (key, c.generation)).collect();
        fastrand::shuffle(&mut left);
        let left: Vec<_> =
            left.into_iter().map(|(key, generation)| Visit { key: key as ConnectionKey, generation }).collect();
        self.drain = Some(Drain { begin: Instant::now(), window, total: left.len(), left, done: Some(done) });
        self.drain_on();
    }

    /// The goodbyes that are due by now.
    pub(super) fn drain_on(&mut self) {
        let Some(drain) = &mut self.drain else { return };
        let share = match drain.window.is_zero() {
            true => 1.0,
            false => (drain.begin.elapsed().as_secs_f64() / drain.window.as_secs_f64()).min(1.0),
        };
        let still = (drain.total as f64 * (1.0 - share)).ceil() as usize;
        let due = drain.left.split_off(still.min(drain.left.len()));
        let all_are_told = drain.left.is_empty();
        for visit in due {
            self.close(visit, CloseReason::Draining);
        }
        if all_are_told
            && self.sockets.connections.is_empty()
            && let Some(done) = self.drain.as_mut().and_then(|drain| drain.done.take())
        {
            _ = done.send(()); // Whoever asked may have stopped waiting.
        }
    }
}
