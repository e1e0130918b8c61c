//! Connections opened a second: whoever is subscribed is cut off and comes back, again and again.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use clap::Args;
use serde::Serialize;

use super::publisher::{Publisher, by_channel, joined};
use super::stage::{Stage, WARM_UP, Wish};
use super::{Common, Site};
use crate::clock::{now, seconds};
use crate::crowd::Expected;
use crate::result::Run;
use crate::speak::Saying;
use crate::stamp::To;
use crate::words::Order;

/// Options of `connect`.
#[derive(Clone, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connect {
    /// Clients come as somebody new each time; without it they come back with their last id.
    #[arg(long)]
    pub fresh: bool,
    /// Events a second to the shared channels meanwhile.
    #[arg(long, default_value_t = 0.0)]
    pub rate: f64,
    /// Shared channels, over which clients spread; one for ten clients where left out.
    #[arg(long)]
    pub channels: Option<u32>,
    /// What all scenarios take.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
}

pub(super) fn run(options: &Connect, site: &Site) -> io::Result<Run> {
    let common = &options.common;
    let channels = options.channels.unwrap_or_else(|| (common.clients / 10).max(1));
    let wish = Wish { channels, keep_ids: !options.fresh, ..Wish::default() };
    let mut stage = Stage::new(site, common, wish)?;
    if !stage.connect()? {
        return stage.finish();
    }
    let (published, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    let publisher = Publisher { speaker: stage.speaker()?, channels, published: &published, stop: &stop };
    let mut speaker = stage.speaker()?;
    // The floor replays nothing.
    let rate = if site.is_floor() { 0.0 } else { options.rate };
    let result = thread::scope(|scope| -> io::Result<_> {
        let publishing = scope.spawn(|| if rate > 0.0 { publisher.at_rate(rate) } else { Ok(()) });
        let measured = measure(&mut stage, options);
        stop.store(true, Ordering::Relaxed);
        let result = joined(publishing);
        measured.map(|()| result)
    })?;
    stage.note_unpublished(result);
    stage.crew.order(&Order::CalmDown)?;
    let clients = common.clients;
    let (places, all) = stage.crew.wait(common.connect_timeout, |places| places.connected >= clients)?;
    if !all {
        stage.not_all_connected(&places, format!("{clients} clients back in the end"));
    }
    // Everybody is there and hears: one event to all says so.
    let last = Saying { to: To::All, seq: 0, due: now() };
    stage.note_unpublished(speaker.say(&[last]));
    stage.end(&Expected { all: 1, channels: by_channel(published.into_inner(), channels), ..Expected::default() })
}

fn measure(stage: &mut Stage<'_>, options: &Connect) -> io::Result<()> {
    stage.show("warming up", 0);
    stage.crew.order(&Order::Churn { fresh: options.fresh })?;
    stage.watch(WARM_UP, || true)?;
    stage.warm_up_is_over()?;
    stage.show("connecting", 0);
    let (before, was) = (stage.read(), stage.crew.places());
    stage.watch(options.common.duration, || true)?;
    let (used, is) = (stage.used(&before), stage.crew.places());
    stage.run.series.clear();
    let heard = stage.crew.sum()?;
    stage.take(&heard, &used);
    let opened = (is.subscribed - was.subscribed) as f64;
    let took = seconds(was.last_subscribed, is.last_subscribed);
    stage.figure("connectionsPerSecond", opened / took.max(1e-9));
    let each = used.cpu.server.filter(|_| opened > 0.0).map(|cpu| cpu.total() / opened * 1e6);
    stage.figure_if("serverCpuMicrosPerConnect", each);
    stage.figure("replayed", heard.sum.replayed as f64);
    Ok(())
}
