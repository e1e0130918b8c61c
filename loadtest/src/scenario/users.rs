//! Events to single users, each to another: what most of a notification service's work is.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::publisher::{BATCH_MAX, UserPublisher, joined};
use super::stage::{Stage, Wish};
use super::{Common, Site};
use crate::crowd::Expected;
use crate::result::Run;

/// Options of `users`.
#[derive(Clone, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Users {
    /// Publishes many events with one request (NDJSON); without it each event is a request of its own (`POST /notify`).
    #[arg(long)]
    pub bulk: bool,
    /// Gives each event an idempotency key, as Fanfare takes it: what the server remembers of it is measured, too.
    #[arg(long)]
    pub idempotent: bool,
    /// Keep-alive connections that publish, each waiting for its answers.
    #[arg(long, default_value_t = 8)]
    pub publishers: u32,
    /// Events a second, evenly spaced; without it as fast as it goes.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Events on their way at once.
    #[arg(long, default_value_t = 4_096)]
    pub in_flight: u32,
    /// What all scenarios take.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
}

pub(super) fn run(options: &Users, site: &Site) -> io::Result<Run> {
    let common = &options.common;
    let step = u64::from(options.in_flight / 16);
    let mut stage = Stage::new(site, common, Wish { step, ..Wish::default() })?;
    if !stage.connect()? {
        return stage.finish();
    }
    // The floor has one thread and one voice, and is told of many events at once.
    let publishers = if site.is_floor() { 1 } else { options.publishers.clamp(1, common.clients) };
    let batch = if options.bulk || site.is_floor() { BATCH_MAX.min(options.in_flight.max(1)) } else { 1 };
    let batch = if options.rate.is_some() { 1 } else { batch };
    let (published, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    let made = (0..publishers).map(|number| {
        let speaker = stage.speaker()?;
        Ok(UserPublisher {
            speaker: if options.idempotent { speaker.idempotent() } else { speaker },
            number,
            publishers,
            first: 0,
            clients: common.clients,
            batch,
            rate: options.rate.map(|rate| rate / f64::from(publishers)),
            in_flight: options.in_flight.max(batch),
            board: stage.crew.board(),
            published: &published,
            stop: &stop,
        })
    });
    let made = made.collect::<io::Result<Vec<_>>>()?;
    let told = thread::scope(|scope| -> io::Result<_> {
        let publishing = made.into_iter().map(|publisher| scope.spawn(|| publisher.run())).collect::<Vec<_>>();
        let measured = measure(&mut stage, common.duration, || publishing.iter().any(|thread| !thread.is_finished()));
        stop.store(true, Ordering::Relaxed);
        let told = publishing.into_iter().map(joined).collect::<Vec<_>>();
        measured.map(|()| told)
    })?;
    let users = stage.take_told(told, 0);
    stage.end(&Expected { users, ..Expected::default() })
}

fn measure(stage: &mut Stage<'_>, duration: Duration, goes_on: impl Fn() -> bool + Copy) -> io::Result<()> {
    let (heard, used) = stage.measure(duration, goes_on)?;
    let events = heard.sum.deliveries as f64;
    stage.figure("eventsPerSecond", events / used.seconds);
    let each = used.cpu.server.filter(|_| events > 0.0).map(|cpu| cpu.total() / events * 1e6);
    stage.figure_if("serverCpuMicrosPerEvent", each);
    Ok(())
}
