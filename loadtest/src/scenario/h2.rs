//! Many streams over few HTTP/2 connections, as a proxy has them: one channel, as fast as it goes or at a rate, and what
//! a stream costs.

use std::io;

use clap::Args;
use serde::Serialize;

use super::fanout::{Pace, publish_and_measure};
use super::idle::Costs;
use super::stage::{Stage, Wish};
use super::{Common, Site};
use crate::result::Run;

/// Options of `h2`.
#[derive(Clone, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
#[command(mut_arg("clients", |arg| arg.default_value("5000")))]
pub struct H2 {
    /// Streams of each connection. Servers allow about 100 or more.
    #[arg(long, default_value_t = 100)]
    pub streams: u32,
    /// How fast events are published.
    #[command(flatten)]
    #[serde(flatten)]
    pub pace: Pace,
    /// What all scenarios take.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
}

pub(super) fn run(options: &H2, site: &Site) -> io::Result<Run> {
    let common = &options.common;
    // The floor speaks HTTP/1.1: one socket for each client is what streams are held against.
    let streams = if site.is_floor() { 0 } else { options.streams.max(1) };
    let wish = Wish { channels: 1, streams, step: options.pace.step(common), ..Wish::default() };
    let mut stage = Stage::new(site, common, wish)?;
    let costs = Costs::before(&stage);
    if !stage.connect()? {
        return stage.finish();
    }
    costs.tell(&mut stage);
    stage.figure("streamsPerConnection", f64::from(streams.max(1)));
    publish_and_measure(stage, options.pace)
}
