//! A comparison: all peers, scenario by scenario, in turn, so that none has the machine's better hour.

use std::error::Error;
use std::io;
use std::time::Duration;

use super::{Follows, Ground, Peer, StartError};
use crate::result::{Floor, Results, Run, ScenarioResult};
use crate::scenario::{Scenario, Site};

/// A part of the comparison: a scenario, with options of its own.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// What it is called in results: the scenario's name, or what is special about it.
    pub name: &'static str,
    /// The scenario as typed.
    line: &'static str,
    /// The same where one request publishes many events.
    in_bulk: Option<&'static str>,
}

const fn part(name: &'static str, line: &'static str) -> Part {
    Part { name, line, in_bulk: None }
}

/// What is measured, in this order.
pub const PARTS: [Part; 6] = [
    part("idle", "idle --clients {clients} --duration 1s"),
    part("fanout", "fanout --clients {clients} --size {size} --duration {duration}"),
    part("latency", "fanout --clients {tenth} --size {size} --duration {duration} --rate 100"),
    Part {
        name: "users",
        // As many publishers as it takes to keep a server busy that waits for Redis with each of them.
        line: "users --clients {clients} --size {size} --duration {duration} --publishers 128",
        in_bulk: Some("users --clients {clients} --size {size} --duration {duration} --bulk"),
    },
    // Who lacks something after so long lacks it for good.
    part("storm", "storm --clients {clients} --size {size} --grace 10s"),
    // Few healthy ones, so that no server is at its limit; large events, so that the kernel's buffers are soon full.
    part(
        "slow",
        "slow --clients {hundredth} --stalled {fiftieth} --size 10000 --rate 100 --duration {duration} --patience 10s",
    ),
];

/// What is compared.
#[derive(Clone, Debug)]
pub struct Comparison<'a> {
    /// Who takes part.
    pub peers: Vec<&'a Peer>,
    /// What is measured of each.
    pub parts: Vec<Part>,
    /// How often.
    pub runs: u32,
    /// Clients; parts with fewer have a share of them.
    pub clients: u32,
    /// Bytes of an event's payload.
    pub payload_bytes: usize,
    /// How long is measured.
    pub duration: Duration,
}

/// Whom a part is run against, and how.
struct Turn<'a> {
    peer: &'a Peer,
    server: String,
    scenario: Scenario,
}

impl<'a> Comparison<'a> {
    /// Runs it; adds to results, whose runs of the same part, options and server it goes on with, and lets `keep` have them
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
        let mut missing = Vec::new();
        for part in &self.parts {
            for round in 1..=self.runs {
                let mut tell_of = |server: &str| tell(&format!("{} {round}/{}: {server}", part.name, self.runs));
                let (mut measured, mut floor) = (Vec::new(), Vec::new());
                tell_of("floor");
                floor.push(self.at_floor(*part));
                for turn in self.turns(*part) {
                    if missing.contains(&turn.peer.name) {
                        continue;
                    }
                    tell_of(&turn.server);
                    match turn.measure(ground) {
                        Ok((run, version)) => measured.push((turn, run, version)),
                        Err(error) => {
                            let source = error.source().map_or(String::new(), |source| format!(": {source}"));
                            tell_of(&format!("{} is skipped, {error}{source}", turn.server));
                            if matches!(error, StartError::NotInstalled(_)) {
                                missing.push(turn.peer.name);
                            }
                        }
                    }
                }
                tell_of("floor");
                floor.push(self.at_floor(*part));
                match floor.into_iter().collect::<Result<Vec<_>, _>>() {
                    Err(error) => tell_of(&format!("this round is left out, the floor can't be run: {error}")),
                    Ok(floor) => {
                        measured.into_iter().for_each(|measured| add(results, *part, measured, &floor));
                        keep(results)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn at_floor(&self, part: Part) -> io::Result<Run> {
        self.scenario(part.line).run_once(&Site::floor()?)
    }

    /// Each peer, and once more in bulk where there is such a thing.
    fn turns(&self, part: Part) -> Vec<Turn<'a>> {
        let turns = self.peers.iter().flat_map(|peer| {
            let one = Turn { peer, server: peer.name.to_owned(), scenario: self.scenario(part.line) };
            let in_bulk = part.in_bulk.filter(|_| peer.takes_many).map(|line| {
                let server = format!("{}-bulk", peer.name);
                Turn { peer, server, scenario: self.scenario(line) }
            });
            [one].into_iter().chain(in_bulk)
        });
        turns.collect()
    }

    fn scenario(&self, line: &str) -> Scenario {
        let clients = |share: u32| (self.clients / share).max(1).to_string();
        let line = line
            .replace("{clients}", &clients(1))
            .replace("{tenth}", &clients(10))
            .replace("{fiftieth}", &clients(50))
            .replace("{hundredth}", &clients(100))
            .replace("{size}", &self.payload_bytes.to_string())
            .replace("{duration}", &humantime::format_duration(self.duration).to_string().replace(' ', ""));
        Scenario::parse(&format!("{line} --quiet")).expect("options that there are")
    }
}

impl Turn<'_> {
    /// Starts a peer, measures it once, and stops it; tells its version as well.
    fn measure(&self, ground: &Ground) -> Result<(Run, String), StartError> {
        let follows = if self.scenario.has_channel() { Follows::Channel } else { Follows::Inbox };
        let servers = (self.peer.start)(ground, follows)?;
        let run = self.scenario.run_once(&servers.site)?;
        Ok((run, servers.version.clone()))
    }
}

/// Adds a run, with those of the floor around its round.
fn add(results: &mut Results, part: Part, (turn, run, version): (Turn<'_>, Run, String), floor: &[Run]) {
    results.versions.insert(turn.peer.name.to_owned(), version);
    let mut result = ScenarioResult {
        scenario: part.name.to_owned(),
        options: turn.scenario.options(),
        server: turn.server,
        setup: turn.peer.how.to_owned(),
        runs: vec![run],
        floor: Some(Floor { runs: floor.to_vec(), ..Floor::default() }),
        ..ScenarioResult::default()
    };
    result.conclude();
    results.add(result);
}

#[cfg(test)]
mod tests {
    use super::super::PEERS;
    use super::*;

    #[test]
    fn every_part_is_a_scenario_and_what_takes_many_events_is_measured_in_bulk_as_well() {
        let duration = Duration::from_millis(1_500);
        let peers = PEERS.iter().collect::<Vec<_>>();
        let comparison =
            Comparison { peers, parts: PARTS.to_vec(), runs: 1, clients: 20, payload_bytes: 200, duration };
        for part in PARTS {
            let turns = comparison.turns(part);
            let servers = turns.iter().map(|turn| &*turn.server).collect::<Vec<_>>();
            assert_eq!(servers.contains(&"fanfare-redis-bulk"), part.name == "users", "{servers:?}");
            assert!(turns.iter().all(|turn| turn.scenario.common().clients > 0 && turn.scenario.common().quiet));
        }
    }
}
