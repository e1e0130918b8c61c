//! Trouble that somebody makes while events flow, and how everybody gets over it.
//!
//! As soon as it is over an event goes to everybody, repeated until it is answered: the **roll call**. Order holds
//! within a partition, so whoever hears it has been sent all that was acknowledged there before it, or told that it is
//! gone, and is live again. Over several partitions the rest is told by its position.

use std::io;
use std::panic::resume_unwind;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use fanfare_protocol::Position;
use serde::Serialize;

use crate::publish::{Plan, Published, publish_roll_call};

/// How a deployment got over trouble.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// How long the trouble was made.
    pub trouble_seconds: f64,
    /// From its end until a publish that began then was answered with 200. `None`: it never was.
    pub published_again_seconds: Option<f64>,
    /// From its end until the last client was caught up: it had heard an event to everybody that was published when
    /// the trouble was over, and all that was acknowledged before that event, in any partition, but for what a gap
    /// told it is gone; and the last such gap was told. `None`: some client never was.
    pub caught_up_seconds: Option<f64>,
}

/// Trouble that is over, all times since the run began.
pub(crate) struct Trouble {
    began: Duration,
    over: Duration,
    answered: Option<Duration>,
    pub(crate) published: Published,
    /// Why it could not be made as it should.
    pub(crate) failed: Option<io::Error>,
}

impl Trouble {
    /// Makes it, waits for its end, and calls the roll.
    pub(crate) fn make(plan: Plan<'_>, make: impl FnOnce() -> io::Result<()>) -> Self {
        let began = plan.run_began.elapsed();
        let failed = make().err();
        let over = plan.run_began.elapsed();
        let mut published = Published::new(plan.traffic.channels());
        let answered = publish_roll_call(plan, &mut published).then(|| plan.run_began.elapsed());
        Self { began, over, answered, published, failed }
    }

    /// Waits for it; a panic in it goes on here.
    pub(crate) fn join(thread: ScopedJoinHandle<'_, Self>) -> Self {
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }

    pub(crate) fn recovery(&self, caught_up: Option<Duration>) -> Recovery {
        let after = |moment: Duration| moment.saturating_sub(self.over).as_secs_f64();
        Recovery {
            trouble_seconds: (self.over - self.began).as_secs_f64(),
            published_again_seconds: self.answered.map(after),
            caught_up_seconds: caught_up.map(after),
        }
    }
}

/// Who has heard the roll call, and when the last of what stands before it came.
#[derive(Debug)]
pub(crate) struct RollCall {
    heard: Vec<bool>,
    /// Where it stands, as the first client that heard it saw.
    place: Option<Position>,
    last: Duration,
}

impl RollCall {
    pub(crate) fn new(clients: u32) -> Self {
        Self { heard: vec![false; clients as usize], place: None, last: Duration::ZERO }
    }

    /// A client heard it. False: it had before.
    pub(crate) fn heard(&mut self, client: u32, place: Position, now: Duration) -> bool {
        self.place.get_or_insert(place);
        self.last = self.last.max(now);
        !std::mem::replace(&mut self.heard[client as usize], true)
    }

    /// An event came that stands there.
    pub(crate) fn saw(&mut self, place: Position, now: Duration) {
        if self.place.is_some_and(|roll_call| place <= roll_call) {
            self.last = self.last.max(now);
        }
    }

    /// A gap was told.
    pub(crate) fn saw_gap(&mut self, now: Duration) {
        if self.place.is_some() {
            self.last = self.last.max(now);
        }
    }

    pub(crate) fn has_heard(&self, client: u32) -> bool {
        self.heard[client as usize]
    }

    /// When the last client was caught up, since the run began.
    pub(crate) fn caught_up(&self) -> Option<Duration> {
        self.heard.iter().all(|heard| *heard).then_some(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn everybody_is_caught_up_when_the_last_has_heard_all_that_stands_up_to_the_roll_call() {
        let mut roll_call = RollCall::new(2);
        roll_call.saw(Position(90), at(1)); // Where the roll call stands isn't known yet.
        assert!(roll_call.heard(0, Position(100), at(2)));
        assert_eq!(roll_call.caught_up(), None, "one has not heard it");
        assert!(roll_call.heard(1, Position(100), at(3)));
        assert!(!roll_call.heard(1, Position(100), at(3)), "twice");
        assert_eq!(roll_call.caught_up(), Some(at(3)));
        roll_call.saw(Position(101), at(4)); // What came after it is no matter of catching up …
        assert_eq!(roll_call.caught_up(), Some(at(3)));
        roll_call.saw(Position(95), at(5)); // … what stands before it, in another partition, is, …
        assert_eq!(roll_call.caught_up(), Some(at(5)));
        roll_call.saw_gap(at(6)); // … and so is what was told to be gone.
        assert_eq!(roll_call.caught_up(), Some(at(6)));
    }
}
