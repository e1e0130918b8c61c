//! Many connections that do nothing: what each costs in memory, and whether heartbeats come.

use std::io;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::stage::{Stage, Wish};
use super::{Common, Site};
use crate::clock::{nanos, now, wait_until};
use crate::crowd::Expected;
use crate::machine::{kernel_bytes, user_bytes};
use crate::result::{Memory, Run};

/// Pause between two looks at whether memory still moves, and how often it must have stood still.
const LOOK: Duration = Duration::from_millis(500);
const CALM_LOOKS: u32 = 4;
const LOOKS_MAX: u32 = 60;

/// What moves less is calm.
const CALM_BYTES: f64 = 64.0 * 1024.0;

/// Options of `idle`.
#[derive(Clone, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Idle {
    /// Shared channels, over which clients spread; one for ten clients where left out.
    #[arg(long)]
    pub channels: Option<u32>,
    /// Clients follow their inbox and the broadcast alone.
    #[arg(long)]
    pub no_channel: bool,
    /// What all scenarios take.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
}

pub(super) fn run(options: &Idle, site: &Site) -> io::Result<Run> {
    let common = &options.common;
    let channels = options.channels.unwrap_or_else(|| (common.clients / 10).max(1));
    let mut stage = Stage::new(site, common, Wish { channels, ..Wish::default() })?;
    let costs = Costs::before(&stage);
    if !stage.connect()? {
        return stage.finish();
    }
    costs.tell(&mut stage);
    leave_alone(&mut stage, common.duration)?;
    stage.end(&Expected::default())
}

/// Everybody is left alone for so long: heartbeats are all that comes.
pub(super) fn leave_alone(stage: &mut Stage<'_>, duration: Duration) -> io::Result<()> {
    stage.show("idle", 0);
    let reading = stage.read();
    stage.watch(duration, || true)?;
    let used = stage.used(&reading);
    let heard = stage.crew.sum()?;
    stage.take(&heard, &used);
    stage.figure("heartbeats", stage.crew.places().heartbeats as f64);
    stage.run.series.clear();
    Ok(())
}

/// Memory at a moment, once it stands still.
#[derive(Clone, Copy)]
pub(super) struct Costs {
    server: Option<f64>,
    load: f64,
    kernel: f64,
}

impl Costs {
    /// Before anybody is connected.
    pub(super) fn before(stage: &Stage<'_>) -> Self {
        Self::calm(stage)
    }

    /// Once all are connected: what each of them costs.
    pub(super) fn tell(self, stage: &mut Stage<'_>) {
        let after = Self::calm(stage);
        let clients = f64::from(stage.common.clients);
        let each = |after: f64, before: f64| (after - before) / clients;
        let memory = Memory {
            server_user: after.server.zip(self.server).map(|(after, before)| each(after, before)),
            load_user: each(after.load, self.load),
            kernel: each(after.kernel, self.kernel),
        };
        stage.figure_if("serverUserBytes", memory.server_user);
        stage.figure_if("serverEmptyBytes", self.server);
        stage.figure("kernelBytes", memory.kernel);
        stage.figure("loadUserBytes", memory.load_user);
        stage.run.memory = Some(memory);
    }

    fn calm(stage: &Stage<'_>) -> Self {
        stage.show("waiting for calm", CALM_LOOKS.into());
        let (mut last, mut calm_looks) = (Self::now(stage), 0);
        for _ in 0..LOOKS_MAX {
            wait_until(now() + nanos(LOOK));
            let next = Self::now(stage);
            let server_moved = next.server.unwrap_or_default() - last.server.unwrap_or_default();
            let moved = server_moved.abs().max((next.load - last.load).abs());
            calm_looks = if moved < CALM_BYTES { calm_looks + 1 } else { 0 };
            last = next;
            stage.position(calm_looks.into());
            if calm_looks == CALM_LOOKS {
                break;
            }
        }
        last
    }

    fn now(stage: &Stage<'_>) -> Self {
        let load = user_bytes(&stage.crew.pids()).unwrap_or_default();
        Self { server: user_bytes(&stage.site.pids), load, kernel: kernel_bytes() }
    }
}
