//! Fanfare itself: in one process, and as it is deployed. Every connection has its inbox and the broadcast, and one
//! channel where that is what clients follow.

use std::path::PathBuf;

use super::process::{Starting, first_line, free_port};
use super::{Follows, Ground, Peer, Servers, StartError};
use crate::dialect::Dialect;
use crate::fleet::{Fleet, FleetOptions};

pub(super) const IN_MEMORY: Peer = Peer {
    name: "fanfare",
    how: "`fanfare dev`: everything in one process, in memory",
    start: start_dev,
    resumes: true,
    takes_many: true,
};

pub(super) const WITH_REDIS: Peer = Peer {
    name: "fanfare-redis",
    how: "an edge and a publish API, each a process, Redis behind them, with tokens",
    start: start_roles,
    ..IN_MEMORY
};

/// The whole path: servers are started in a directory of their own.
fn program(ground: &Ground) -> Result<PathBuf, StartError> {
    let missing = |_| StartError::NotInstalled("cargo build --release -p fanfare".to_owned());
    ground.fanfare.canonicalize().map_err(missing)
}

fn start_dev(ground: &Ground, follows: Follows) -> Result<Servers, StartError> {
    let program = program(ground)?;
    let mut starting = Starting::new()?;
    let port = free_port()?;
    let variables = [("FANFARE_DRAIN_DELAY", "0s"), ("FANFARE_DRAIN_TIMEOUT", "1s")];
    starting.start(port, &program, &["dev", "--listen", &format!("127.0.0.1:{port}")], &variables)?;
    let dialect = Dialect::fanfare(None, follows == Follows::Channel);
    Ok(starting.done(first_line(&program, &["--version"])?, dialect, port))
}

fn start_roles(ground: &Ground, follows: Follows) -> Result<Servers, StartError> {
    let program = program(ground)?;
    let mut starting = Starting::new()?;
    let redis = starting.start_redis()?;
    let has_channel = follows == Follows::Channel;
    let fleet =
        Fleet::start(FleetOptions { edges: 1, binary: &program, redis: &redis, channels_max: None, has_channel })?;
    Ok(starting.done_with(first_line(&program, &["--version"])?, fleet))
}
