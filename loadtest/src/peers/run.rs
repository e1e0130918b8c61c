//! A comparison: all peers, scenario by scenario, in turn, so that none has the machine's better hour.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::{SystemTime, UNIX_EPOCH};

use super::measure::{Options, Scenario, measure};
use super::{FLOOR, Ground, Peer, StartError};
use crate::result::{Machine, Results, Run, ScenarioResult};

/// What is compared.
#[derive(Clone, Debug)]
pub struct Comparison<'a> {
    /// Who takes part.
    pub peers: Vec<&'a Peer>,
    /// What is measured of each.
    pub scenarios: Vec<Scenario>,
    /// How often.
    pub runs: u32,
    /// How much of it.
    pub options: Options,
}

impl Comparison<'_> {
    /// Runs it; adds to results, whose runs of the same scenario, options and server it goes on with, and lets `keep` have them
    /// after every round. Who can't take part is left out, and told with the reason by `tell`, as is what is about to run.
    ///
    /// # Errors
    /// What keeps the results refuses.
    pub fn run<E>(
        &self,
        ground: &Ground,
        results: &mut Results,
        mut tell: impl FnMut(&str),
        mut keep: impl FnMut(&Results) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut peers = self.peers.clone();
        for scenario in &self.scenarios {
            for round in 1..=self.runs {
                let (mut measured, mut floor, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
                let beside = peers.iter().copied().map(|peer| (peer, false));
                for (peer, is_floor) in [(&FLOOR, true)].into_iter().chain(beside).chain([(&FLOOR, true)]) {
                    tell(&format!("{} {round}/{}: {}", scenario.name(), self.runs, peer.name));
                    match measure(peer, ground, *scenario, self.options) {
                        Ok((run, _)) if is_floor => floor.push(run),
                        Ok((run, version)) => measured.push((peer, run, version)),
                        Err(error) => {
                            let source = error.source().map_or(String::new(), |source| format!(": {source}"));
                            tell(&format!("{} is skipped, {error}{source}", peer.name));
                            if matches!(error, StartError::NotInstalled(_)) {
                                left_out.push(peer.name);
                            }
                        }
                    }
                }
                peers.retain(|peer| !left_out.contains(&peer.name));
                if floor.len() < 2 {
                    tell("this round is left out: there is no floor to hold it against");
                    continue;
                }
                self.add(results, *scenario, measured, &floor);
                keep(results)?;
            }
        }
        Ok(())
    }

    /// Adds a round: each run with those of the floor around it.
    fn add(&self, results: &mut Results, scenario: Scenario, measured: Vec<(&Peer, Run, String)>, floor: &[Run]) {
        let options = scenario.options(self.options);
        for (peer, run, version) in measured {
            results.versions.insert(peer.name.to_owned(), version);
            let is_same = |result: &ScenarioResult| {
                result.scenario == scenario.name() && result.server == peer.name && result.options == options
            };
            let place = results.scenarios.iter().position(is_same).unwrap_or_else(|| {
                results.scenarios.push(ScenarioResult {
                    scenario: scenario.name().to_owned(),
                    server: peer.name.to_owned(),
                    setup: peer.how.to_owned(),
                    options: options.clone(),
                    ..ScenarioResult::default()
                });
                results.scenarios.len() - 1
            });
            let result = &mut results.scenarios[place];
            result.runs.push(run);
            result.floor.get_or_insert_default().runs.extend(floor.iter().cloned());
            result.conclude();
        }
    }
}

/// Results of this machine that begin now.
pub fn new_results(machine: Machine) -> Results {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Results::new(machine, u64::try_from(since.as_millis()).unwrap_or_default())
}

impl Scenario {
    /// What it runs with, as results tell it.
    fn options(self, options: Options) -> BTreeMap<String, serde_json::Value> {
        let Options { clients, duration, payload_bytes, rate } = options;
        let mut named = BTreeMap::from([("clients".to_owned(), clients.into())]);
        if self != Self::Idle {
            named.insert("size".to_owned(), payload_bytes.into());
        }
        if matches!(self, Self::Fanout | Self::Latency | Self::Users) {
            named.insert("duration".to_owned(), humantime::format_duration(duration).to_string().into());
        }
        if self == Self::Latency {
            named.insert("rate".to_owned(), rate.into());
        }
        named
    }
}
