//! How long a connection may live: what ends it, and until when nothing does.
//!
//! Nothing here is stored per connection and no timer runs: the wheel's visits ask.

use std::time::{Duration, SystemTime};

use super::connection::Connection;
use super::polled::Polled;
use crate::close::CloseReason;
use crate::config::EdgeConfig;

/// How long an answer that has something waits for the rest of a replay.
pub(super) const POLL_HASTE: Duration = Duration::from_secs(1);

impl Connection {
    /// How long nothing happens to it, or why it ends now. `quiet` is the time since its last event.
    pub(super) fn time_left(&self, config: &EdgeConfig, quiet: Duration) -> Result<Duration, CloseReason> {
        let age = self.age();
        let joining = self.hello.is_some();
        let now = SystemTime::now();
        let is_call = self.call.is_some(); // It has a time of its own.
        let limits = [
            (self.lease.left(now), CloseReason::TokenExpired),
            (joining.then(|| config.join_timeout.saturating_sub(age)), CloseReason::Unavailable),
            (self.polled.as_ref().map(|polled| poll_left(polled, config, age, quiet)), CloseReason::Answered),
            (
                config.max_age.filter(|_| !is_call).map(|max| spread(max, self.generation).saturating_sub(age)),
                CloseReason::MaxAge,
            ),
            (
                config.idle_timeout.filter(|_| !joining && !is_call).map(|max| max.saturating_sub(quiet)),
                CloseReason::Idle,
            ),
        ];
        let warns_in = self.lease.warns_in(now).filter(|_| self.polled.is_none());
        let mut nearest = warns_in.unwrap_or(Duration::MAX);
        for (left, reason) in limits {
            match left {
                Some(Duration::ZERO) => return Err(reason),
                Some(left) => nearest = nearest.min(left),
                None => {}
            }
        }
        Ok(nearest)
    }
}

/// What has come for a poll waits only briefly for what else is on its way.
fn poll_left(polled: &Polled, config: &EdgeConfig, age: Duration, quiet: Duration) -> Duration {
    let left = config.poll_timeout.saturating_sub(age);
    if polled.poll.is_empty() { left } else { left.min(POLL_HASTE.saturating_sub(quiet)) }
}

/// So much of a maximum age, or up to a fifth less. Multiples of the golden ratio are spread evenly, so consecutive
/// generations get ages far apart without anything to remember.
fn spread(max: Duration, generation: u32) -> Duration {
    const GOLDEN: u32 = 0x9E37_79B9;
    let share = f64::from(generation.wrapping_mul(GOLDEN)) / f64::from(u32::MAX);
    max.mul_f64(1.0 - 0.2 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_came_together_do_not_leave_together() {
        let max = Duration::from_secs(1_000);
        let mut ages: Vec<_> = (7..107).map(|generation| spread(max, generation)).collect();
        ages.sort_unstable();
        assert!(ages[0] >= max.mul_f64(0.8) && ages[99] <= max);
        let gaps = ages.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.max().expect("some") < Duration::from_secs(8), "{ages:?}");
    }
}
