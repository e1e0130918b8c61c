//! Time as all processes of this machine see it, so that one may say when an event was due and another when it came.

use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds on the monotonic clock.
pub(crate) type Nanos = u64;

/// Now.
pub(crate) fn now() -> Nanos {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// A length of time as a difference of two moments.
pub(crate) fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Seconds between two moments.
pub(crate) fn seconds(from: Nanos, to: Nanos) -> f64 {
    to.saturating_sub(from) as f64 / 1e9
}

/// Waits for a moment.
#[expect(clippy::disallowed_methods, reason = "an open-loop schedule waits for the clock and nothing else")]
pub(crate) fn wait_until(due: Nanos) {
    thread::sleep(Duration::from_nanos(due.saturating_sub(now())));
}
