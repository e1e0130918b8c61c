//! The command that holds Fanfare beside other servers.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use fanfare_loadtest::peers::{Comparison, Ground, PARTS, PEERS};
use fanfare_loadtest::result::{Results, ResultsError, ScenarioResult};
use fanfare_loadtest::{describe, markdown};

#[derive(Subcommand)]
pub(crate) enum Beside {
    /// Holds Fanfare beside other servers on this machine, each started here and measured by the same clients.
    /// `loadtest/peers/install` brings them; who is missing is skipped by name.
    Peers(PeersOptions),
}

impl Beside {
    /// Does it; tells whether all is well with Fanfare.
    pub(crate) fn run(self) -> Result<bool, BesideError> {
        let Self::Peers(options) = self;
        options.run()
    }
}

#[derive(Args)]
pub(crate) struct PeersOptions {
    /// Who takes part; several times for several, everybody where it is left out.
    #[arg(long = "peer", value_name = "NAME", value_parser = PossibleValuesParser::new(PEERS.map(|peer| peer.name)))]
    peers: Vec<String>,
    /// What is measured; several times for several, everything where it is left out.
    #[arg(long = "scenario", value_name = "NAME", value_parser = PossibleValuesParser::new(PARTS.map(|part| part.name)))]
    parts: Vec<String>,
    /// How often, each server in turn.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Clients; a share of them in some scenarios.
    #[arg(long, default_value_t = 10_000)]
    clients: u32,
    /// How long is measured.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Bytes of an event's payload.
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// Where results go; where there are some already, runs are added to them.
    #[arg(long, default_value = "peers.json")]
    output: PathBuf,
    /// The binary of Fanfare; the one beside this program's own where it is left out.
    #[arg(long)]
    fanfare: Option<PathBuf>,
    /// Where `loadtest/peers/install` put the others; the repository's own place where it is left out.
    #[arg(long)]
    tools: Option<PathBuf>,
}

impl PeersOptions {
    fn run(self) -> Result<bool, BesideError> {
        let is_named = |names: &[String], name: &str| names.is_empty() || names.iter().any(|named| named == name);
        let comparison = Comparison {
            peers: PEERS.iter().filter(|peer| is_named(&self.peers, peer.name)).collect(),
            parts: PARTS.into_iter().filter(|part| is_named(&self.parts, part.name)).collect(),
            runs: self.runs,
            clients: self.clients,
            payload_bytes: self.size,
            duration: self.duration,
        };
        let mut ground = Ground::of_repository()?;
        ground.fanfare = self.fanfare.unwrap_or(ground.fanfare);
        ground.tools = self.tools.unwrap_or(ground.tools);
        let mut results = if self.output.exists() { Results::read(&self.output)? } else { Results::begin(describe()) };
        comparison.run(
            &ground,
            &mut results,
            |line| eprintln!("{line}"),
            |results| results.write(&self.output).map_err(BesideError::from),
        )?;
        print!("{}", markdown(&results));
        Ok(results.scenarios.iter().filter(|result| result.server.starts_with("fanfare")).all(ScenarioResult::passed))
    }
}

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BesideError {
    #[error("the machine refuses")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Results(#[from] ResultsError),
}
