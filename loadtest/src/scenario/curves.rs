//! How costs grow: with the connections of an edge, and with the *other* channels that they follow.
//!
//! Every point has an edge and a publisher that are started for it: memory is told of a server that never had more.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::idle::Costs;
use super::publisher::{Publisher, Told, UserPublisher, joined};
use super::stage::{Stage, Wish};
use super::{Common, Site};
use crate::crowd::Expected;
use crate::fleet::{Fleet, FleetOptions};
use crate::machine::cpu;
use crate::result::{Curve, Run};

/// How the servers are set up, whatever there is besides.
pub(super) const SETUP: &str = "for each point an edge process and a publisher of its own, joined by one Redis";

/// Figures of a point that become curves.
const FIGURES: [&str; 5] =
    ["serverUserBytes", "kernelBytes", "connectSeconds", "serverCpuPerMillion", "edgeCpuMicrosPerStranger"];

/// How long events are published that nobody here follows, and how many with one request.
const STRANGERS_FOR: Duration = Duration::from_secs(1);
const STRANGERS_AT_ONCE: u32 = 64;

/// Options of `curves`.
#[derive(Clone, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
#[command(mut_arg("duration", |arg| arg.default_value("3s")))]
pub struct Curves {
    /// The `fanfare` binary: each point has an edge and a publisher of its own.
    #[arg(long, value_name = "PATH")]
    #[serde(skip)]
    pub server_binary: PathBuf,
    /// The Redis that joins them.
    #[arg(long, value_name = "URL")]
    #[serde(skip)]
    pub redis: String,
    /// Numbers of connections, each a point of a curve.
    #[arg(long, value_delimiter = ',', default_value = "1000,2000,5000,10000,18000")]
    pub connections: Vec<u32>,
    /// Numbers of other channels that --clients connections follow together, each a point of a curve.
    #[arg(long, value_delimiter = ',', default_value = "0,10000,100000,1000000")]
    pub other_channels: Vec<u32>,
    /// Deliveries a second, of events to the one channel that all follow.
    #[arg(long, default_value_t = 50_000.0)]
    pub rate: f64,
    /// What all scenarios take.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
}

pub(super) fn run(options: &Curves, site: &Site) -> io::Result<Run> {
    if site.is_floor() {
        return Err(io::Error::other("the floor has no channels and no publisher: `curves` is measured without it"));
    }
    let clients = options.common.clients;
    let mut run = Run::default();
    for connections in &options.connections {
        add(&mut run, "connections", *connections, point(options, *connections, 0)?);
    }
    for others in &options.other_channels {
        add(&mut run, "otherChannels", *others, point(options, clients, others / clients)?);
    }
    Ok(run)
}

/// Adds what was found at a point.
fn add(run: &mut Run, over: &str, x: u32, point: Run) {
    for name in FIGURES {
        let Some(value) = point.figures.get(name) else { continue };
        let is_it = |curve: &Curve| curve.figure == name && curve.over == over;
        let at = run.curves.iter().position(is_it).unwrap_or_else(|| {
            run.curves.push(Curve { figure: name.to_owned(), over: over.to_owned(), points: Vec::new() });
            run.curves.len() - 1
        });
        run.curves[at].points.push((x.into(), *value));
    }
    run.seconds += point.seconds;
    run.checked += point.checked;
    for (kind, count) in point.faults {
        *run.faults.entry(kind).or_default() += count;
    }
    run.first_faults.extend(point.first_faults);
    run.warnings.extend(point.warnings.into_iter().map(|warning| format!("{over} {x}: {warning}")));
}

/// So many connections on an edge, each with a channel that all follow and so many that nobody else does.
fn point(options: &Curves, clients: u32, others: u32) -> io::Result<Run> {
    let common = Common { clients, ..options.common.clone() };
    let fleet = FleetOptions {
        edges: 1,
        binary: &options.server_binary,
        redis: &options.redis,
        channels_max: Some(others + 10),
        has_channel: true,
    };
    let mut fleet = Fleet::start(fleet)?;
    let subscribe = &mut fleet.site.dialect.subscribe;
    *subscribe = subscribe.replace("{channel}", "{channel}{others}");
    let mut stage = Stage::new(&fleet.site, &common, Wish { channels: 1, others, ..Wish::default() })?;
    let costs = Costs::before(&stage);
    if !stage.connect()? {
        return stage.finish();
    }
    costs.tell(&mut stage);
    strangers(&mut stage)?;
    let (published, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    let publisher = Publisher { speaker: stage.speaker()?, channels: 1, published: &published, stop: &stop };
    let result = thread::scope(|scope| -> io::Result<_> {
        let publishing = scope.spawn(|| publisher.at_rate(options.rate / f64::from(clients)));
        let measured = stage.measure(common.duration, || !publishing.is_finished());
        stop.store(true, Ordering::Relaxed);
        let result = joined(publishing);
        measured.map(|_| result)
    })?;
    stage.note_unpublished(result);
    stage.end(&Expected { channels: vec![published.into_inner()], ..Expected::default() })
}

/// Events that nobody here follows: what an edge has to do with each.
fn strangers(stage: &mut Stage<'_>) -> io::Result<()> {
    let (published, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    let publisher = UserPublisher {
        speaker: stage.speaker()?,
        number: 0,
        publishers: 1,
        first: stage.common.clients,
        clients: stage.common.clients,
        batch: STRANGERS_AT_ONCE,
        rate: None,
        in_flight: u32::MAX,
        board: stage.crew.board(),
        published: &published,
        stop: &stop,
    };
    let edge = stage.site.pids.first().copied();
    let used = || edge.and_then(cpu).map(|cpu| cpu.total());
    let before = used();
    let told = thread::scope(|scope| -> io::Result<Told> {
        let publishing = scope.spawn(|| publisher.run());
        let watched = stage.watch(STRANGERS_FOR, || !publishing.is_finished());
        stop.store(true, Ordering::Relaxed);
        let told = joined(publishing);
        watched.map(|()| told)
    })?;
    stage.note_unpublished(told.result);
    let each = |(after, before): (f64, f64)| (after - before) / f64::from(published.into_inner().max(1)) * 1e6;
    let micros = used().zip(before).map(each);
    stage.figure_if("edgeCpuMicrosPerStranger", micros);
    stage.run.series.clear();
    Ok(())
}
