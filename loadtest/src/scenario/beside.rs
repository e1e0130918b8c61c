//! Events to single users beside huge broadcasts: whether what is for one waits for a fan-out that isn't theirs alone.
//!
//! The users hear the broadcasts as well, but live in a process of their own: read by the one that has everybody else's
//! sockets to read, their events would be measured by when it gets to them.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::publisher::{Publisher, UserPublisher, joined};
use super::stage::{Stage, WARM_UP, Wish};
use super::{Common, Site};
use crate::clock::{Nanos, now, seconds};
use crate::crowd::Expected;
use crate::machine::CLIENTS_MAX;
use crate::result::{Latencies, Run, median};
use crate::words::Heard;

/// Keep-alive connections that publish to single users.
const PUBLISHERS: u32 = 4;

/// How long broadcasts follow each other without a pause, to find out how many a second that makes.
const BACK_TO_BACK: Duration = Duration::from_secs(2);

/// Options of `beside`.
#[derive(Clone, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
#[command(mut_arg("clients", |arg| arg.default_value("15000")))]
pub struct Beside {
    /// Of the clients, those that are told events of their own.
    #[arg(long, default_value_t = 100)]
    pub users: u32,
    /// Events a second to single users, evenly spaced.
    #[arg(long, default_value_t = 200.0)]
    pub rate: f64,
    /// Broadcasts a second; without it half as many as can follow each other, which is found out first.
    #[arg(long)]
    pub broadcasts: Option<f64>,
    /// What all scenarios take.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
}

pub(super) fn run(options: &Beside, site: &Site) -> io::Result<Run> {
    let common = &options.common;
    let users = options.users.clamp(1, common.clients.min(CLIENTS_MAX));
    let (first, step) = (common.clients - users, u64::from(common.clients / 16));
    let mut stage = Stage::new(site, common, Wish { step, apart: users, ..Wish::default() })?;
    if !stage.connect()? {
        return stage.finish();
    }
    let broadcast = AtomicU32::new(0);
    let rate = match options.broadcasts {
        Some(rate) => rate,
        None => 0.5 / back_to_back(&mut stage, &broadcast)?.max(1e-3),
    };
    stage.figure("broadcastsPerSecond", rate);
    // The floor has one voice, which broadcasts.
    let publishers = if site.is_floor() { 0 } else { PUBLISHERS.min(users) };
    let (published, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    let made = (0..publishers).map(|number| {
        Ok(UserPublisher {
            speaker: stage.speaker()?,
            number,
            publishers,
            first,
            clients: users,
            batch: 1,
            rate: Some(options.rate / f64::from(publishers)),
            in_flight: u32::MAX,
            board: stage.crew.board(),
            published: &published,
            stop: &stop,
        })
    });
    let made = made.collect::<io::Result<Vec<_>>>()?;
    let broadcaster = Publisher { speaker: stage.speaker()?, channels: 0, published: &broadcast, stop: &stop };
    let (mut heard, began, told, result) = thread::scope(|scope| -> io::Result<_> {
        let telling = made.into_iter().map(|publisher| scope.spawn(|| publisher.run())).collect::<Vec<_>>();
        let calm = calm(&mut stage);
        let broadcasting = scope.spawn(|| broadcaster.at_rate(rate));
        let measured = calm.and_then(|()| {
            let began = now() + crate::clock::nanos(WARM_UP);
            let (heard, _) = stage.measure(common.duration, || !broadcasting.is_finished())?;
            Ok((heard, began))
        });
        stop.store(true, Ordering::Relaxed);
        let told = telling.into_iter().map(joined).collect::<Vec<_>>();
        let result = joined(broadcasting);
        measured.map(|(heard, began)| (heard, began, told, result))
    })?;
    stage.note_unpublished(result);
    let users = stage.take_told(told, first);
    let expected = Expected { all: broadcast.into_inner(), users, ..Expected::default() };
    // What was under way when the time was over counts as well: what is late is not left out.
    stage.reach(&expected)?;
    let rest = stage.crew.sum()?;
    stage.take_faults(&rest);
    heard.sum.to_users.add(&rest.sum.to_users).expect("histograms of one kind");
    tell(&mut stage, &heard.sum.to_users, &rest, began);
    stage.end(&expected)
}

/// Broadcasts follow each other: the next is published when everybody has the one before. Tells how many seconds one
/// takes from its first client to its last.
fn back_to_back(stage: &mut Stage<'_>, broadcast: &AtomicU32) -> io::Result<f64> {
    let (stop, board, clients) = (AtomicBool::new(false), stage.crew.board(), u64::from(stage.common.clients));
    let publisher = Publisher { speaker: stage.speaker()?, channels: 0, published: broadcast, stop: &stop };
    stage.show("back to back", 0);
    let result = thread::scope(|scope| -> io::Result<_> {
        let publishing = scope.spawn(|| publisher.at_full_speed(1, &board, clients));
        let watched = stage.watch(BACK_TO_BACK, || !publishing.is_finished());
        stop.store(true, Ordering::Relaxed);
        let result = joined(publishing);
        watched.map(|()| result)
    })?;
    stage.note_unpublished(result);
    stage.reach(&Expected { all: broadcast.load(Ordering::Relaxed), ..Expected::default() })?;
    let heard = stage.crew.sum()?;
    stage.take_faults(&heard);
    stage.run.series.clear();
    Ok(spread(&heard, 0).unwrap_or_default())
}

/// Events to single users, and nothing beside them.
fn calm(stage: &mut Stage<'_>) -> io::Result<()> {
    stage.show("calm", 0);
    stage.watch(WARM_UP, || true)?;
    stage.warm_up_is_over()?;
    stage.watch(stage.common.duration, || true)?;
    let heard = stage.crew.sum()?;
    stage.take_faults(&heard);
    stage.run.series.clear();
    let calm = Latencies::of(&heard.sum.to_users);
    stage.figure_if("calmP99Millis", calm.percentile(99.0));
    stage.run.latencies.insert("to single users in calm times".to_owned(), calm);
    Ok(())
}

fn tell(stage: &mut Stage<'_>, to_users: &Histogram<u64>, heard: &Heard, began: Nanos) {
    let of_users = Latencies::of(to_users);
    let spread = spread(heard, began).map(|seconds| seconds * 1000.0);
    let p99 = of_users.percentile(99.0);
    stage.figure_if("userP50Millis", of_users.percentile(50.0));
    stage.figure_if("userP99Millis", p99);
    stage.figure_if("spreadMillis", spread);
    stage.figure_if("userP99OverSpread", p99.zip(spread).map(|(p99, spread)| p99 / spread));
    stage.run.latencies.insert("to single users".to_owned(), of_users);
}

/// How many seconds a broadcast takes from its first client to its last: the median of those since then.
fn spread(heard: &Heard, since: Nanos) -> Option<f64> {
    let spans = heard.sum.broadcasts.values().filter(|span| span.first >= since);
    median(spans.map(|span| seconds(span.first, span.last)).collect())
}
