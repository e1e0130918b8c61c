//! All connections are cut at once and come back at once, each with its last id, while events flow: what happens when a
//! proxy restarts.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::publisher::{Publisher, by_channel, joined};
use super::stage::{Stage, Wish};
use super::{Common, Site};
use crate::clock::{now, seconds};
use crate::crowd::Expected;
use crate::result::Run;
use crate::words::Order;

/// Events flow for so long before everybody is cut off.
const CALM: Duration = Duration::from_secs(2);

/// Options of `storm`.
#[derive(Clone, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Storm {
    /// Events a second to the shared channels. History must hold what is missed.
    #[arg(long, default_value_t = 5.0)]
    pub rate: f64,
    /// Shared channels, over which clients spread.
    #[arg(long, default_value_t = 1)]
    pub channels: u32,
    /// What all scenarios take.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
}

pub(super) fn run(options: &Storm, site: &Site) -> io::Result<Run> {
    let (common, channels) = (&options.common, options.channels.max(1));
    let mut stage = Stage::new(site, common, Wish { channels, keep_ids: true, ..Wish::default() })?;
    if !stage.connect()? {
        return stage.finish();
    }
    let (published, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    let publisher = Publisher { speaker: stage.speaker()?, channels, published: &published, stop: &stop };
    // The floor replays nothing.
    let rate = if site.is_floor() { 0.0 } else { options.rate };
    let result = thread::scope(|scope| -> io::Result<_> {
        let publishing = scope.spawn(|| if rate > 0.0 { publisher.at_rate(rate) } else { Ok(()) });
        let measured = measure(&mut stage, channels, &published);
        stop.store(true, Ordering::Relaxed);
        let result = joined(publishing);
        measured.map(|()| result)
    })?;
    stage.note_unpublished(result);
    let channels = by_channel(published.into_inner(), channels);
    stage.end(&Expected { channels, ..Expected::default() })
}

fn measure(stage: &mut Stage<'_>, channels: u32, published: &AtomicU32) -> io::Result<()> {
    stage.show("calm", 0);
    stage.watch(CALM, || true)?;
    stage.warm_up_is_over()?;
    let clients = stage.common.clients;
    stage.show("storm", clients.into());
    let wanted = stage.crew.places().subscribed + u64::from(clients);
    let (before, cut_at) = (stage.read(), now());
    stage.crew.order(&Order::Cut)?;
    let (places, all) = stage
        .crew
        .wait(stage.common.connect_timeout, |places| places.subscribed >= wanted && places.connected >= clients)?;
    if !all {
        stage.not_all_connected(&places, format!("all {clients} clients back"));
        return Ok(());
    }
    stage.figure("backSeconds", seconds(cut_at, places.last_subscribed));
    let expected =
        Expected { channels: by_channel(published.load(Ordering::Relaxed), channels), ..Expected::default() };
    if let Some(complete_at) = stage.reach(&expected)? {
        stage.figure("caughtUpSeconds", seconds(cut_at, complete_at.max(places.last_subscribed)));
    }
    let used = stage.used(&before);
    let heard = stage.crew.sum()?;
    stage.take(&heard, &used);
    stage.figure("replayed", heard.sum.replayed as f64);
    stage.figure("connectionsPerSecond", f64::from(clients) / seconds(cut_at, places.last_subscribed).max(1e-9));
    Ok(())
}
