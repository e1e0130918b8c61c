//! The command that holds Fanfare beside other servers.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use fanfare_loadtest::peers::{self, PEERS, Peer, serve_floor};
use fanfare_loadtest::result::{Results, ResultsError, ScenarioResult};
use fanfare_loadtest::{describe, markdown, raise_descriptor_limit};

#[derive(Subcommand)]
pub(crate) enum Beside {
    /// Holds Fanfare beside other servers on this machine, each started here and spoken to by the same clients.
    /// `loadtest/peers/install` brings them; who is missing is skipped by name.
    Peers(PeersOptions),
    /// Their floor, as a process of its own.
    #[command(hide = true)]
    PeersFloor {
        #[arg(long)]
        port: u16,
    },
}

impl Beside {
    /// Does it; tells whether all is well with Fanfare.
    pub(crate) fn run(self) -> Result<bool, BesideError> {
        raise_descriptor_limit()?;
        match self {
            Self::Peers(options) => options.run(),
            Self::PeersFloor { port } => serve_floor(port).map(|()| true).map_err(BesideError::from),
        }
    }
}

#[derive(Args)]
pub(crate) struct PeersOptions {
    /// Who takes part; several times for several, everybody where it is left out.
    #[arg(long = "peer", value_name = "NAME", value_parser = PossibleValuesParser::new(PEERS.map(|peer| peer.name)))]
    peers: Vec<String>,
    /// What is measured; several times for several, everything where it is left out.
    #[arg(long = "scenario", value_enum)]
    scenarios: Vec<peers::Scenario>,
    /// How often, each server in turn.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Clients; a tenth of them where latency is measured.
    #[arg(long, default_value_t = 10_000)]
    clients: u32,
    /// How long each is measured.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Bytes of an event's payload.
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// Events a second where latency is measured.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Where results go; where there are some already, runs are added to them.
    #[arg(long, default_value = "peers.json")]
    output: PathBuf,
    /// The binary of Fanfare; the one beside this program's own where it is left out.
    #[arg(long)]
    fanfare: Option<PathBuf>,
}

impl PeersOptions {
    fn run(self) -> Result<bool, BesideError> {
        let takes_part = |peer: &&Peer| self.peers.is_empty() || self.peers.iter().any(|name| name == peer.name);
        let comparison = peers::Comparison {
            peers: PEERS.iter().filter(takes_part).collect(),
            scenarios: if self.scenarios.is_empty() { peers::Scenario::ALL.to_vec() } else { self.scenarios },
            runs: self.runs,
            options: peers::Options {
                clients: self.clients,
                duration: self.duration,
                payload_bytes: self.size,
                rate: self.rate,
            },
        };
        let mut ground = peers::Ground::of_repository()?;
        ground.fanfare = self.fanfare.unwrap_or(ground.fanfare);
        let mut results =
            if self.output.exists() { Results::read(&self.output)? } else { peers::new_results(describe()) };
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
