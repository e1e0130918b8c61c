//! Some readers stall: what they cost the server, when it cuts them off, and whether the others notice.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::publisher::{Publisher, by_channel, joined};
use super::stage::{Stage, Wish};
use super::{Common, Site};
use crate::clock::{nanos, now, seconds, wait_until};
use crate::crowd::Expected;
use crate::machine::{kernel_bytes, user_bytes};
use crate::result::{Latencies, Run};
use crate::words::Order;

/// Between two looks at memory and at who is still connected.
const LOOK: Duration = Duration::from_millis(100);

/// Options of `slow`.
#[derive(Clone, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
#[command(mut_arg("clients", |arg| arg.default_value("1000")))]
#[command(mut_arg("size", |arg| arg.default_value("2000")))]
pub struct Slow {
    /// Clients that stall, besides the others.
    #[arg(long, default_value_t = 200)]
    pub stalled: u32,
    /// Events a second to the channel that all follow.
    #[arg(long, default_value_t = 100.0)]
    pub rate: f64,
    /// How long the server may take to cut stalled readers off.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    #[serde(serialize_with = "super::as_text")]
    pub patience: Duration,
    /// What all scenarios take.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
}

pub(super) fn run(options: &Slow, site: &Site) -> io::Result<Run> {
    // At the floor nobody stalls: it has no bound to cut them off at.
    let stalled = if site.is_floor() { 0 } else { options.stalled };
    let common = Common { clients: options.common.clients + stalled, ..options.common.clone() };
    let mut stage = Stage::new(site, &common, Wish { channels: 1, ..Wish::default() })?;
    if !stage.connect()? {
        return stage.finish();
    }
    let (published, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    let publisher = Publisher { speaker: stage.speaker()?, channels: 1, published: &published, stop: &stop };
    let result = thread::scope(|scope| -> io::Result<_> {
        let publishing = scope.spawn(|| publisher.at_rate(options.rate));
        let measured = measure(&mut stage, options, stalled);
        stop.store(true, Ordering::Relaxed);
        let result = joined(publishing);
        measured.map(|()| result)
    })?;
    stage.note_unpublished(result);
    // What is left for those that stalled is read, so that they hear why they were cut off; they don't come back.
    stage.crew.order(&Order::Dismiss)?;
    stage.end(&Expected { channels: by_channel(published.into_inner(), 1), ..Expected::default() })
}

fn measure(stage: &mut Stage<'_>, options: &Slow, stalled: u32) -> io::Result<()> {
    stage.show("calm", 0);
    stage.watch(Duration::from_secs(1), || true)?;
    stage.warm_up_is_over()?;
    stage.watch(options.common.duration, || true)?;
    let calm = stage.crew.sum()?;
    stage.take_faults(&calm);
    let calm = Latencies::of(&calm.sum.latency);
    let pids = stage.site.pids.clone();
    let (before, user, kernel) = (stage.read(), user_bytes(&pids), kernel_bytes());
    let (standing, stalled_at) = (stage.site.established(), now());
    stage.crew.stall(stalled)?;
    stage.show("stalled", stalled.into());
    let (mut user_most, mut kernel_most, mut cut_at) = (user, kernel, None);
    let length = options.common.duration.max(if stalled > 0 { options.patience } else { Duration::ZERO });
    while now() < stalled_at + nanos(length) {
        wait_until(now() + nanos(LOOK));
        user_most = user_most.zip(user_bytes(&pids)).map(|(most, bytes)| most.max(bytes));
        kernel_most = kernel_most.max(kernel_bytes());
        let gone = standing.saturating_sub(stage.site.established());
        stage.position(gone as u64);
        if cut_at.is_none() && gone >= stalled as usize {
            cut_at = Some(now());
        }
        // The healthy ones are looked at for as long as they were in calm times.
        if cut_at.is_some() && now() > stalled_at + nanos(options.common.duration) {
            break;
        }
    }
    let used = stage.used(&before);
    let heard = stage.crew.sum()?;
    stage.take(&heard, &used);
    let p99 = Latencies::of(&heard.sum.latency).percentile(99.0);
    stage.figure_if("calmP99Millis", calm.percentile(99.0));
    stage.figure_if("p99OverCalm", p99.zip(calm.percentile(99.0)).map(|(p99, calm)| p99 / calm));
    stage.run.latencies.insert("delivery in calm times".to_owned(), calm);
    if stalled > 0 {
        let each = |most: f64, before: f64| (most - before).max(0.0) / f64::from(stalled);
        stage.figure_if("stalledUserBytes", user_most.zip(user).map(|(most, before)| each(most, before)));
        stage.figure("stalledKernelBytes", each(kernel_most, kernel));
        match cut_at {
            Some(cut_at) => stage.figure("cutAfterSeconds", seconds(stalled_at, cut_at)),
            None => {
                let patience = humantime::format_duration(options.patience);
                stage.warn(format!("not all stalled readers were seen to be cut off within {patience}"));
            }
        }
    }
    Ok(())
}
