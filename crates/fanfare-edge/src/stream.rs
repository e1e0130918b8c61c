//! What a feed hands to a shard: one ordered stream, bounded in bytes, in which a loss is a break.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex};

use fanfare_protocol::{Answer, Delivery, Event};
use tokio::sync::Notify;

/// Bytes that may wait for a shard in one partition's stream.
const STREAM_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The stream from one feed to one shard.
#[derive(Debug)]
pub(crate) struct Stream {
    waiting: Mutex<Waiting>,
    /// Rung when something waits; one bell for all streams of a shard.
    bell: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Waiting {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
}

impl Stream {
    pub(crate) fn new(bell: Arc<Notify>) -> Self {
        Self { waiting: Mutex::default(), bell }
    }

    /// Appends, and rings once. When the stream is full, what waits is dropped and a break stands exactly there: the
    /// shard resyncs, nobody else notices, and the feed never waits.
    pub(crate) fn append(&self, deliveries: &mut Vec<Delivery>) {
        if deliveries.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        for delivery in deliveries.drain(..) {
            waiting.bytes += cost(&delivery);
            if waiting.bytes > STREAM_BYTES_MAX {
                waiting.deliveries.clear();
                waiting.deliveries.push_back(Delivery::Break);
                waiting.bytes = cost(&delivery);
            }
            waiting.deliveries.push_back(delivery);
        }
        drop(waiting);
        self.bell.notify_one();
    }

    /// Takes everything that waits.
    pub(crate) fn take(&self) -> VecDeque<Delivery> {
        let mut waiting = self.lock();
        waiting.bytes = 0;
        mem::take(&mut waiting.deliveries)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no one panics while holding a stream")
    }
}

fn cost(delivery: &Delivery) -> usize {
    match delivery {
        Delivery::Event(_, event) => event.cost(),
        Delivery::Answer(_, Answer::Page(_, page)) => page.events.iter().map(|event| event.cost()).sum(),
        Delivery::Answer(_, Answer::Lasts(lasts, ..)) => size_of_val(&**lasts),
        Delivery::Purged(..) | Delivery::Cut(_) | Delivery::Break => size_of::<Event>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanfare_protocol::{Channel, Content, Epoch, Last, Position};

    fn event(bytes: usize) -> Delivery {
        let data = "x".repeat(bytes).into();
        let content = Content { name: None, key: None, ttl: None, data };
        let (pos, prev) = (Position(1), Last::default());
        Delivery::Event(Epoch::from_random(1), Arc::new(Event { channel: Channel::broadcast(), pos, prev, content }))
    }

    #[test]
    fn a_full_stream_becomes_a_break_and_goes_on() {
        let stream = Stream::new(Arc::default());
        for _ in 0..20 {
            stream.append(&mut vec![event(1024 * 1024)]);
        }
        let taken = stream.take();
        assert!(matches!(taken[0], Delivery::Break), "what was dropped is told");
        assert!(taken.len() < 10 && matches!(taken.back(), Some(Delivery::Event(..))));
        assert!(stream.take().is_empty());
    }
}
