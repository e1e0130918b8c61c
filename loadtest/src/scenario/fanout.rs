//! One channel with many subscribers: as fast as it goes, or at a rate.
//!
//! As fast as it goes means: events are published in bulk, and never more than some are on their way, counted by what
//! the clients have. So neither publishing nor an unbounded queue is measured, but how fast deliveries leave.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::publisher::{Publisher, joined};
use super::stage::{Stage, Wish};
use super::{Common, Site};
use crate::crowd::Expected;
use crate::result::Run;

/// Options of `fanout`.
#[derive(Clone, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fanout {
    /// How fast events are published.
    #[command(flatten)]
    #[serde(flatten)]
    pub pace: Pace,
    /// What all scenarios take.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
}

/// How fast events are published.
#[derive(Clone, Copy, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pace {
    /// Events a second, evenly spaced; without it as fast as it goes.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Events on their way at once, as fast as it goes.
    #[arg(long, default_value_t = 64)]
    pub in_flight: u32,
}

impl Pace {
    /// Deliveries after which it is worth looking again at how many are on their way.
    pub(super) fn step(self, common: &Common) -> u64 {
        u64::from(common.clients) * u64::from(self.in_flight) / 16
    }
}

pub(super) fn run(options: &Fanout, site: &Site) -> io::Result<Run> {
    let (common, pace) = (&options.common, options.pace);
    let mut stage = Stage::new(site, common, Wish { channels: 1, step: pace.step(common), ..Wish::default() })?;
    if !stage.connect()? {
        return stage.finish();
    }
    publish_and_measure(stage, pace)
}

/// Publishes to the one channel that all follow, and measures what comes of it.
pub(super) fn publish_and_measure(mut stage: Stage<'_>, pace: Pace) -> io::Result<Run> {
    let common = stage.common;
    let (published, stop, board) = (AtomicU32::new(0), AtomicBool::new(false), stage.crew.board());
    let publisher = Publisher { speaker: stage.speaker()?, channels: 1, published: &published, stop: &stop };
    let result = thread::scope(|scope| -> io::Result<_> {
        let publishing = scope.spawn(|| match pace.rate {
            Some(rate) => publisher.at_rate(rate),
            None => publisher.at_full_speed(pace.in_flight.max(1), &board, common.clients.into()),
        });
        let measured = measure(&mut stage, common.duration, || !publishing.is_finished());
        stop.store(true, Ordering::Relaxed);
        let result = joined(publishing);
        measured.map(|()| result)
    })?;
    stage.note_unpublished(result);
    stage.end(&Expected { channels: vec![published.into_inner()], ..Expected::default() })
}

fn measure(stage: &mut Stage<'_>, duration: Duration, goes_on: impl Fn() -> bool + Copy) -> io::Result<()> {
    let (heard, used) = stage.measure(duration, goes_on)?;
    let events = heard.sum.deliveries as f64 / f64::from(stage.common.clients);
    stage.figure("eventsPerSecond", events / used.seconds);
    Ok(())
}
