//! Tells the directory who is connected here: once a second, what has changed since.
//!
//! Nothing waits for it. Whatever goes wrong, a lease that ran out or a backbone that is away, ends in one thing: begin
//! anew and tell everything. What the registry counts is the registry's business.

use std::sync::Arc;
use std::time::Duration;

use fanfare_backbone::{Node, ReportError};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use crate::registry::Registry;

/// Between two reports. Well below the lease.
const INTERVAL: Duration = Duration::from_secs(1);

/// A backbone that hangs must not hold up the end; the lease ends without it.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Reports until stopped, and then takes everything back at once.
pub(crate) async fn run(mut node: Node, registry: Arc<Registry>, stop: CancellationToken) {
    // Edges that start together don't report together.
    let mut tick = interval_at(Instant::now() + INTERVAL.mul_f64(fastrand::f64()), INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    stop.run_until_cancelled(async {
        let mut is_told = true;
        loop {
            tick.tick().await;
            registry.release();
            match report(&mut node, &registry).await {
                Err(error) if is_told => {
                    tracing::warn!(error = reason(&error), "the directory does not know who listens here");
                    is_told = false;
                }
                Ok(()) if !is_told => {
                    tracing::info!("the directory knows again who listens here");
                    is_told = true;
                }
                Ok(()) | Err(_) => {}
            }
        }
    })
    .await;
    if !matches!(timeout(LEAVE_TIMEOUT, node.leave()).await, Ok(Ok(()))) {
        tracing::debug!("the directory forgets this node only when its lease ends");
    }
}

async fn report(node: &mut Node, registry: &Registry) -> Result<(), ReportError> {
    let told = match registry.changes() {
        Some(changes) => node.report(&changes).await,
        None => match node.begin().await {
            Ok(()) => node.report(&registry.everything()).await,
            Err(error) => Err(ReportError::Backbone(error)),
        },
    };
    if told.is_err() {
        registry.everything_has_changed();
    }
    told
}

/// What is wrong, in one line.
fn reason(error: &ReportError) -> String {
    match error {
        ReportError::Forgotten => error.to_string(),
        ReportError::Backbone(source) => source.to_string(),
    }
}
