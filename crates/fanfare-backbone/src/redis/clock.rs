//! How far the clock of a Redis server is ahead of ours. Positions count its time, so how long an event took on its way
//! is known only as well as this.
//!
//! A round trip brings the server's time of some moment in it. Taken for the middle, that is wrong by half the round
//! trip at most; so of the last samples the one with the shortest counts, and the others only waited somewhere. Old
//! ones go, because clocks drift and are set.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fanfare_protocol::Position;

/// Samples that count. Each barrier brings one, which in quiet times is one in a second or two.
const SAMPLES: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Clock(Mutex<VecDeque<Sample>>);

#[derive(Clone, Copy, Debug)]
struct Sample {
    round_trip: Duration,
    ahead_micros: i64,
}

impl Clock {
    /// A round trip that has just ended brought the server's time.
    pub(crate) fn heard(&self, theirs: Position, round_trip: Duration) {
        self.add(theirs, round_trip, SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    }

    /// Microseconds by which the server's clock is ahead of ours.
    pub(crate) fn ahead_micros(&self) -> i64 {
        self.lock().iter().min_by_key(|sample| sample.round_trip).map_or(0, |sample| sample.ahead_micros)
    }

    fn add(&self, theirs: Position, round_trip: Duration, heard: Duration) {
        let ours = heard.saturating_sub(round_trip / 2);
        let ahead_micros = micros(Duration::from_micros(theirs.0)) - micros(ours);
        let mut samples = self.lock();
        samples.truncate(SAMPLES - 1);
        samples.push_front(Sample { round_trip, ahead_micros });
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.0.lock().expect("no one panics while holding the samples")
    }
}

fn micros(since_1970: Duration) -> i64 {
    i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const NOW: Duration = Duration::from_secs(1_795_229_238);

    /// The server is so far ahead, and the way back took `back` of the round trip, all in milliseconds.
    fn sample(clock: &Clock, ahead: i64, round_trip: u64, back: u64) {
        let theirs = micros(NOW) - 1_000 * back as i64 + 1_000 * ahead;
        clock.add(Position(theirs as u64), Duration::from_millis(round_trip), NOW);
    }

    #[test]
    fn a_clock_that_was_never_heard_is_ours() {
        assert_eq!(Clock::default().ahead_micros(), 0);
    }

    #[test]
    fn a_clock_ahead_or_behind_is_known_to_half_a_round_trip() {
        for ahead in [3_600_000, 5, 0, -7, -3_600_000] {
            for back in [0, 1, 2] {
                let clock = Clock::default();
                sample(&clock, ahead, 2, back);
                assert!((clock.ahead_micros() - 1_000 * ahead).abs() <= 1_000, "{ahead} {back}");
            }
        }
    }

    #[test]
    fn the_shortest_round_trip_counts() {
        let clock = Clock::default();
        sample(&clock, 100, 300, 300);
        sample(&clock, 100, 2, 1);
        sample(&clock, 100, 900, 0);
        assert_eq!(clock.ahead_micros(), 100_000);
    }

    #[test]
    fn a_clock_that_is_set_is_believed_when_the_old_samples_have_gone() {
        let clock = Clock::default();
        sample(&clock, 0, 1, 0);
        for _ in 0..SAMPLES {
            assert_ne!(clock.ahead_micros(), 1_000 * HOUR.as_millis() as i64);
            sample(&clock, HOUR.as_millis() as i64, 4, 2);
        }
        assert_eq!(clock.ahead_micros(), 1_000 * HOUR.as_millis() as i64);
    }
}
