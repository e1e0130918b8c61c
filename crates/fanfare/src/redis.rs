//! Whether Redis will do. A service that can never work with it does not start and says why; one whose Redis is only
//! away starts all the same, and looks again until it is there.

use std::time::{Duration, Instant};

use fanfare_backbone::{Backbone, Finding, RedisConfig, Weight, check};
use fanfare_protocol::Channel;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::lifecycle::Lifecycle;

/// A start waits no longer for it: a Redis that hangs is one that is away.
const FIRST_LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// Between looks at a Redis that is away, jittered: when it is back, everybody looks.
const PAUSE: Duration = Duration::from_secs(2);

/// So long without Redis makes a publisher unready.
pub(crate) const PUBLISHER_UNREADY_AFTER: Duration = Duration::from_secs(10);

/// Redis can't be used as it is: what is wrong, one sentence each.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub(crate) struct Unusable(Vec<String>);

/// Looks at Redis before a service starts.
///
/// # Errors
/// It can never work like this.
pub(crate) async fn look_first(redis: Option<RedisConfig>, lifecycle: &Lifecycle) -> Result<(), Unusable> {
    let Some(redis) = redis else { return Ok(()) };
    let seen = match timeout(FIRST_LOOK_TIMEOUT, check(&redis)).await {
        Ok(findings) => judge(&findings)?,
        Err(_) => {
            tracing::warn!("Redis does not answer, starting all the same");
            false
        }
    };
    if !seen {
        let stop = lifecycle.stopping().clone();
        lifecycle.spawn_service("look at Redis", look_until_there(redis, stop));
    }
    Ok(())
}

/// Whether Redis was there.
fn judge(findings: &[Finding]) -> Result<bool, Unusable> {
    let of = |weight| findings.iter().filter(move |finding| finding.weight == weight);
    let fatal: Vec<_> = of(Weight::Fatal).map(|finding| finding.error.to_string()).collect();
    if !fatal.is_empty() {
        return Err(Unusable(fatal));
    }
    for finding in of(Weight::Warning) {
        tracing::warn!("{}", finding.error);
    }
    let mut away = false;
    for finding in of(Weight::Passing) {
        tracing::warn!("{}; starting all the same, it is waited for", finding.error);
        away = true;
    }
    Ok(!away)
}

/// Ends early, which takes the process into the drain, where the Redis that comes up is one that can't be used.
async fn look_until_there(redis: RedisConfig, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause()) => {}
        }
        let findings = check(&redis).await;
        if findings.iter().any(|finding| finding.weight == Weight::Passing) {
            continue; // Feeds and publishers say often enough that it is away.
        }
        match judge(&findings) {
            Ok(_) => {
                tracing::info!("Redis is there");
                return stop.cancelled().await;
            }
            Err(unusable) => return tracing::error!("{unusable}"),
        }
    }
}

fn pause() -> Duration {
    PAUSE.mul_f64(0.75 + fastrand::f64() / 2.0)
}

/// Whether a process can reach Redis: it asks all the time.
#[derive(Debug)]
pub(crate) struct Pulse {
    heard: Mutex<Heard>,
    /// So long without an answer is too long.
    unready_after: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    /// When Redis answered last; at first, when the process began.
    last: Instant,
    /// Since when it has answered each time.
    steady_since: Option<Instant>,
}

impl Pulse {
    /// One that beats until the process stops.
    pub(crate) fn start(unready_after: Option<Duration>, backbone: Backbone, lifecycle: &Lifecycle) -> Arc<Self> {
        let heard = Heard { last: Instant::now(), steady_since: None };
        let pulse = Arc::new(Self { heard: Mutex::new(heard), unready_after });
        let (beating, stop) = (pulse.clone(), lifecycle.stopping().clone());
        lifecycle.spawn_service("pulse", async move { beating.beat(&backbone, stop).await });
        pulse
    }

    /// How long Redis has not answered, if that is too long.
    pub(crate) fn lost_for(&self) -> Option<Duration> {
        let silence = self.heard().last.elapsed();
        self.unready_after.and_then(|after| (silence >= after).then_some(silence))
    }

    /// How long Redis has answered whenever it was asked.
    pub(crate) fn steady_for(&self) -> Duration {
        self.heard().steady_since.map(|since| since.elapsed()).unwrap_or_default()
    }

    fn note(&self, answered: bool) {
        let now = Instant::now();
        let mut heard = self.heard();
        *heard = match answered {
            true => Heard { last: now, steady_since: heard.steady_since.or(Some(now)) },
            false => Heard { steady_since: None, ..*heard },
        };
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().expect("nobody panics while holding it")
    }

    /// Asks until `stop`.
    async fn beat(&self, backbone: &Backbone, stop: CancellationToken) {
        let channel = Channel::broadcast();
        loop {
            let answered = backbone.standing(&channel).await.is_ok();
            self.note(answered);
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause()) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanfare_backbone::RedisError;

    #[test]
    fn a_publisher_is_unready_after_10_seconds_without_redis() {
        let unready = |seconds| {
            let heard = Instant::now().checked_sub(Duration::from_secs(seconds)).expect("the machine runs longer");
            let heard = Mutex::new(Heard { last: heard, steady_since: None });
            Pulse { heard, unready_after: Some(PUBLISHER_UNREADY_AFTER) }.lost_for().is_some()
        };
        assert!(!unready(0) && !unready(8) && unready(10));
    }

    #[test]
    fn only_what_can_never_work_keeps_a_service_from_starting() {
        let finding = |error, weight| Finding { error, weight };
        let away = finding(RedisError::Loading, Weight::Passing);
        let policy = RedisError::Evicts("allkeys-lru".to_owned());
        let fatal = finding(RedisError::PasswordWrong, Weight::Fatal);
        assert!(judge(&[]).expect("usable"));
        assert!(judge(&[finding(policy.clone(), Weight::Warning)]).expect("usable"));
        assert!(!judge(std::slice::from_ref(&away)).expect("usable, once it is there"));
        let unusable = judge(&[away, fatal, finding(policy, Weight::Fatal)]).expect_err("unusable").to_string();
        assert_eq!(unusable.lines().count(), 2, "{unusable}");
    }
}
