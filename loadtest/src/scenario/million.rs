//! As many connections as a machine holds, over as many processes as its limit of descriptors asks for: what each costs,
//! and one event that reaches every one of them.

use std::io;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::idle::{Costs, leave_alone};
use super::stage::{Stage, Wish};
use super::{Common, Site};
use crate::clock::{now, seconds};
use crate::crowd::Expected;
use crate::result::Run;
use crate::speak::Saying;
use crate::stamp::To;

/// Options of `million`.
#[derive(Clone, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
#[command(mut_arg("clients", |arg| arg.default_value("1000000")))]
#[command(mut_arg("connect_timeout", |arg| arg.default_value("10m")))]
#[command(mut_arg("duration", |arg| arg.default_value("20s")))]
#[command(mut_arg("grace", |arg| arg.default_value("2m")))]
pub struct Million {
    /// Starts so many edges itself, with a publisher, and stops them in the end; without it they are given by --url.
    #[arg(long, value_name = "N", requires = "server_binary", requires = "redis")]
    pub spawn_edges: Option<u32>,
    /// The `fanfare` binary to start edges of.
    #[arg(long, value_name = "PATH")]
    #[serde(skip)]
    pub server_binary: Option<PathBuf>,
    /// The Redis that joins the edges that are started.
    #[arg(long, value_name = "URL")]
    #[serde(skip)]
    pub redis: Option<String>,
    /// Shared channels, over which clients spread; one for ten clients where left out.
    #[arg(long)]
    pub channels: Option<u32>,
    /// What all scenarios take.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
}

pub(super) fn run(options: &Million, site: &Site) -> io::Result<Run> {
    let common = &options.common;
    let channels = options.channels.unwrap_or_else(|| (common.clients / 10).max(1));
    let mut stage = Stage::new(site, common, Wish { channels, ..Wish::default() })?;
    let costs = Costs::before(&stage);
    if !stage.connect()? {
        return stage.finish();
    }
    costs.tell(&mut stage);
    stage.figure("processes", site.pids.len() as f64);
    stage.figure("workers", stage.crew.pids().len() as f64);
    leave_alone(&mut stage, common.duration)?;
    // One event to everybody.
    let due = now();
    let result = stage.speaker()?.say(&[Saying { to: To::All, seq: 0, due }]);
    stage.note_unpublished(result);
    let expected = Expected { all: 1, ..Expected::default() };
    if let Some(complete_at) = stage.reach(&expected)? {
        stage.figure("broadcastSeconds", seconds(due, complete_at));
    }
    let heard = stage.crew.sum()?;
    stage.take_faults(&heard);
    stage.take_latency("delivery", &heard);
    stage.end(&expected)
}
