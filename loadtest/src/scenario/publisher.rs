//! Publishes while a scenario looks on, on threads of its own: to a channel at a rate or as fast as it goes, or to
//! single users.

use std::io;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::clock::{Nanos, nanos, now, wait_until};
use crate::crew::Board;
use crate::report::new_histogram;
use crate::speak::{Saying, Speaker};
use crate::stamp::To;

/// Events of one request at most: as many as Fanfare publishes together.
pub(super) const BATCH_MAX: u32 = 256;

/// Longest sleep before it is looked whether to stop.
const NAP: Nanos = 50_000_000;

/// Publishes to shared channels, in turn, or to everybody.
pub(super) struct Publisher<'a> {
    pub(super) speaker: Speaker,
    /// How many; 0: everybody hears all of it.
    pub(super) channels: u32,
    /// Events that were acknowledged.
    pub(super) published: &'a AtomicU32,
    pub(super) stop: &'a AtomicBool,
}

impl Publisher<'_> {
    /// As fast as it goes with so many events on their way, counted by what so many clients of one channel have.
    pub(super) fn at_full_speed(mut self, in_flight: u32, board: &Board, clients: u64) -> io::Result<()> {
        let batch = (in_flight / 4).clamp(1, BATCH_MAX);
        while !self.stop.load(Ordering::Relaxed) {
            let published = self.published.load(Ordering::Relaxed);
            let room_at = u64::from((published + batch).saturating_sub(in_flight)) * clients;
            let until = Instant::now() + Duration::from_nanos(NAP);
            if board.wait_for_deliveries(room_at, until)? >= room_at {
                self.say(batch, |_| now())?;
            }
        }
        Ok(())
    }

    /// One event after the other, each when it is due, or several in one request where that is over.
    pub(super) fn at_rate(mut self, rate: f64) -> io::Result<()> {
        let (start, first) = (now(), self.published.load(Ordering::Relaxed));
        let due = |number: u32| start + nanos(Duration::from_secs_f64(f64::from(number - first) / rate));
        while !self.stop.load(Ordering::Relaxed) {
            let published = self.published.load(Ordering::Relaxed);
            let next = due(published);
            if next > now() + NAP {
                wait_until(now() + NAP);
                continue;
            }
            wait_until(next);
            let late = (1..BATCH_MAX).take_while(|more| due(published + more) <= now()).count() as u32;
            self.say(1 + late, due)?;
        }
        Ok(())
    }

    fn say(&mut self, count: u32, due: impl Fn(u32) -> Nanos) -> io::Result<()> {
        let published = self.published.load(Ordering::Relaxed);
        let channels = self.channels;
        let to = |number: u32| number.checked_rem(channels).map_or(To::All, To::Channel);
        let saying = |number: u32| Saying { to: to(number), seq: number / channels.max(1), due: due(number) };
        let events = (published..published + count).map(saying).collect::<Vec<_>>();
        self.speaker.say(&events)?;
        self.published.store(published + count, Ordering::Relaxed);
        Ok(())
    }
}

/// What came of a publisher's thread that was told to stop; a panic in it goes on here.
pub(super) fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// How many of so many events each of the channels has got.
pub(super) fn by_channel(published: u32, channels: u32) -> Vec<u32> {
    (0..channels).map(|channel| (published + channels - 1 - channel) / channels).collect()
}

/// Publishes to single users, each event to another of those that are its own.
pub(super) struct UserPublisher<'a> {
    pub(super) speaker: Speaker,
    pub(super) number: u32,
    pub(super) publishers: u32,
    /// The first of the users, and how many there are.
    pub(super) first: u32,
    pub(super) clients: u32,
    /// Events of one request.
    pub(super) batch: u32,
    /// Events a second of this publisher; `None`: as fast as it goes.
    pub(super) rate: Option<f64>,
    /// Events on their way at once, of all publishers.
    pub(super) in_flight: u32,
    pub(super) board: Board,
    pub(super) published: &'a AtomicU32,
    pub(super) stop: &'a AtomicBool,
}

/// What a publisher to single users did.
pub(super) struct Told {
    /// Events by user, from the first.
    pub(super) users: Vec<u32>,
    /// From when an event was due until it was acknowledged, in µs.
    pub(super) answered: Histogram<u64>,
    pub(super) result: io::Result<()>,
}

impl UserPublisher<'_> {
    pub(super) fn run(mut self) -> Told {
        let mut told = Told { users: vec![0; self.clients as usize], answered: new_histogram(), result: Ok(()) };
        told.result = self.publish(&mut told.users, &mut told.answered);
        told
    }

    fn publish(&mut self, users: &mut [u32], answered: &mut Histogram<u64>) -> io::Result<()> {
        let mut rng = fastrand::Rng::with_seed(self.number.into());
        // Order is only defined per publisher connection, so each user is one publisher's.
        let own = (self.clients - self.number).div_ceil(self.publishers);
        let (start, mut count) = (now(), 0_u32);
        let mut events = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let due = match self.rate {
                Some(rate) => start + nanos(Duration::from_secs_f64(f64::from(count) / rate)),
                None => now(),
            };
            if due > now() + NAP {
                wait_until(now() + NAP);
                continue;
            }
            wait_until(due);
            let published = u64::from(self.published.load(Ordering::Relaxed));
            let room_at = (published + u64::from(self.batch)).saturating_sub(self.in_flight.into());
            let until = Instant::now() + Duration::from_nanos(NAP);
            if room_at > 0 && self.board.wait_for_deliveries(room_at, until)? < room_at {
                continue;
            }
            events.clear();
            for _ in 0..self.batch {
                let user = self.number + self.publishers * rng.u32(..own);
                let seq = users[user as usize];
                users[user as usize] += 1;
                events.push(Saying { to: To::User(self.first + user), seq, due });
            }
            self.speaker.say(&events)?;
            answered.saturating_record_n(now().saturating_sub(due) / 1000, self.batch.into());
            count += self.batch;
            self.published.fetch_add(self.batch, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn events_are_spread_over_channels_in_turn() {
        assert_eq!(super::by_channel(7, 3), [3, 2, 2]);
        assert_eq!(super::by_channel(0, 2), [0, 0]);
    }
}
