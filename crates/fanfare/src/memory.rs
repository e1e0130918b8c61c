//! Memory that connections have left behind goes back to the system.
//!
//! glibc keeps what was freed between blocks that are still in use, for as long as they are. Asked to, it gives back
//! every whole page of it, in a few milliseconds; so it is asked after many have come or gone, and not otherwise.
//! Figures, and what else was tried, are in `docs/performance.md`.

use std::sync::Arc;
use std::time::Duration;

use fanfare_edge::Edge;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Pause between two looks.
const INTERVAL: Duration = Duration::from_secs(10);

/// Connections that come or go within that time and are worth it.
const MANY: u64 = 500;

/// Looks after which the last of what they had is free: channels are kept for up to 45 s after their last connection.
const LOOKS: u32 = 6;

/// Gives memory back, until stopped.
pub(crate) async fn give_back(edge: Arc<Edge>, stop: CancellationToken) {
    let mut tick = interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut before, mut looks) = (0, 0);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let turnover = edge.turnover();
        if turnover.saturating_sub(before) >= MANY {
            looks = LOOKS;
        }
        before = turnover;
        if looks > 0 {
            looks -= 1;
            trim();
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "glibc has no other way to say it")]
fn trim() {
    // SAFETY: it may be called at any time and from any thread, and touches nothing that is in use.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators give memory back by themselves, or never.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}
