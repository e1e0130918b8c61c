//! The scenarios that measure one thing each, at a server and at the floor alike.
//!
//! A scenario is a plain function over a [`Stage`]: clients that are connected, somebody who publishes, and what is
//! measured meanwhile. Whatever it measures, the stage ends by holding every client against what was published.

mod beside; // Single users beside broadcasts.
mod connect; // How fast connections are opened.
mod curves; // How costs grow.
mod fanout; // One channel, many subscribers.
mod h2; // Many streams over few connections.
mod idle; // What a connection costs that does nothing.
mod million; // As many connections as a machine holds.
mod publisher; // Who publishes meanwhile.
mod site; // Whom it is run against.
mod slow; // Readers that stall.
mod stage; // What scenarios have in common.
mod storm; // All come back at once.
mod users; // Events to single users.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use serde_json::Value;

pub use beside::Beside;
pub use connect::Connect;
pub use curves::Curves;
pub use fanout::{Fanout, Pace};
pub use h2::H2;
pub use idle::Idle;
pub use million::Million;
pub use site::Site;
pub use slow::Slow;
pub use storm::Storm;
pub use users::Users;

use crate::result::{Floor, Run, ScenarioResult};

/// What to measure.
#[derive(Clone, Debug, Subcommand)]
pub enum Scenario {
    /// Many connections that do nothing: what each costs in memory (of a server that was just started), and whether
    /// heartbeats come.
    Idle(Idle),
    /// One channel with many subscribers: deliveries a second as fast as it goes, or latency at a rate.
    Fanout(Fanout),
    /// Events to single users, each to another: one request for each event, or many events in one.
    Users(Users),
    /// Events to single users while everybody is told something else: whether they wait for it.
    Beside(Beside),
    /// Connections opened a second, each authenticated and resuming where it was cut off.
    Connect(Connect),
    /// All connections are cut at once and come back at once, while events flow: how long until all have everything.
    Storm(Storm),
    /// Some readers stall: what they cost, when they are cut off, and whether the others notice.
    Slow(Slow),
    /// As many connections as the machine holds, over many processes: what each costs, and one event that reaches all.
    Million(Million),
    /// Many streams over few HTTP/2 connections: deliveries a second or latency, and what a stream costs.
    H2(H2),
    /// How costs grow with the connections of an edge, and with the other channels that they follow.
    Curves(Curves),
}

/// What all scenarios take.
#[derive(Clone, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Common {
    /// Clients.
    #[arg(long, default_value_t = 10_000)]
    pub clients: u32,
    /// Bytes of an event's payload, 44 at least: the event's number is in there.
    #[arg(long, default_value_t = 200)]
    pub size: usize,
    /// How long is measured.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    #[serde(serialize_with = "as_text")]
    pub duration: Duration,
    /// Processes that hold the clients; more where the limit of descriptors asks for it.
    #[arg(long, default_value_t = 1)]
    pub workers: u32,
    /// Connections on their way at once, over all processes: less than the server's listener queues.
    #[arg(long, default_value_t = 512)]
    pub opening: usize,
    /// How long all may take to connect.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    #[serde(serialize_with = "as_text")]
    pub connect_timeout: Duration,
    /// How long clients may take to have everything after the last publish.
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
    #[serde(serialize_with = "as_text")]
    pub grace: Duration,
    /// Runs, of which the median counts.
    #[arg(long, default_value_t = 1)]
    pub runs: u32,
    /// Runs the floor before and after each run, with the same clients, and tells ratios to it.
    #[arg(long)]
    pub floor: bool,
    /// Hides the progress bars.
    #[arg(long)]
    #[serde(skip)]
    pub quiet: bool,
}

fn as_text<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

/// What the floor is measured by, with options beside the usual.
pub const FLOOR_PARTS: [(&str, &str); 5] =
    [("idle", ""), ("fanout", ""), ("fanout", "--clients 1000 --rate 100"), ("users", ""), ("connect", "")];

impl Scenario {
    /// Its name, as typed.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Idle(_) => "idle",
            Self::Fanout(_) => "fanout",
            Self::Users(_) => "users",
            Self::Beside(_) => "beside",
            Self::Connect(_) => "connect",
            Self::Storm(_) => "storm",
            Self::Slow(_) => "slow",
            Self::Million(_) => "million",
            Self::H2(_) => "h2",
            Self::Curves(_) => "curves",
        }
    }

    /// The options that all scenarios take.
    pub fn common(&self) -> &Common {
        match self {
            Self::Idle(Idle { common, .. })
            | Self::Fanout(Fanout { common, .. })
            | Self::Users(Users { common, .. })
            | Self::Beside(Beside { common, .. })
            | Self::Connect(Connect { common, .. })
            | Self::Storm(Storm { common, .. })
            | Self::Slow(Slow { common, .. })
            | Self::Million(Million { common, .. })
            | Self::H2(H2 { common, .. })
            | Self::Curves(Curves { common, .. }) => common,
        }
    }

    /// Whether clients follow a shared channel besides their inbox and the broadcast.
    pub fn has_channel(&self) -> bool {
        match self {
            Self::Idle(idle) => !idle.no_channel,
            Self::Users(_) | Self::Beside(_) => false,
            _ => true,
        }
    }

    /// One as it is typed, name and options.
    ///
    /// # Errors
    /// There is none of this name, or none of its options.
    pub fn parse(line: &str) -> Result<Self, clap::Error> {
        /// A scenario by its options alone.
        #[derive(Parser)]
        #[command(no_binary_name = true)]
        struct Typed {
            #[command(subcommand)]
            scenario: Scenario,
        }
        Typed::try_parse_from(line.split_ascii_whitespace()).map(|typed| typed.scenario)
    }

    /// Its options by name, as results tell them.
    pub fn options(&self) -> BTreeMap<String, Value> {
        let value = match self {
            Self::Idle(scenario) => serde_json::to_value(scenario),
            Self::Fanout(scenario) => serde_json::to_value(scenario),
            Self::Users(scenario) => serde_json::to_value(scenario),
            Self::Beside(scenario) => serde_json::to_value(scenario),
            Self::Connect(scenario) => serde_json::to_value(scenario),
            Self::Storm(scenario) => serde_json::to_value(scenario),
            Self::Slow(scenario) => serde_json::to_value(scenario),
            Self::Million(scenario) => serde_json::to_value(scenario),
            Self::H2(scenario) => serde_json::to_value(scenario),
            Self::Curves(scenario) => serde_json::to_value(scenario),
        };
        serde_json::from_value(value.unwrap_or_default()).unwrap_or_default()
    }

    /// Runs it once.
    ///
    /// # Errors
    /// The machine refuses, or a process of this program fails. What goes wrong with the server is in the result.
    pub fn run_once(&self, site: &Site) -> io::Result<Run> {
        match self {
            Self::Idle(scenario) => idle::run(scenario, site),
            Self::Fanout(scenario) => fanout::run(scenario, site),
            Self::Users(scenario) => users::run(scenario, site),
            Self::Beside(scenario) => beside::run(scenario, site),
            Self::Connect(scenario) => connect::run(scenario, site),
            Self::Storm(scenario) => storm::run(scenario, site),
            Self::Slow(scenario) => slow::run(scenario, site),
            Self::Million(scenario) => million::run(scenario, site),
            Self::H2(scenario) => h2::run(scenario, site),
            Self::Curves(scenario) => curves::run(scenario, site),
        }
    }

    /// Runs it as often as was asked for, and the floor before and after each run where that was.
    ///
    /// # Errors
    /// As [`Scenario::run_once`].
    pub fn run(&self, site: &Site) -> io::Result<ScenarioResult> {
        let common = self.common();
        let mut result = ScenarioResult {
            scenario: self.name().to_owned(),
            server: site.name.clone(),
            setup: match self {
                Self::Curves(_) => curves::SETUP.to_owned(),
                _ => site.setup.clone(),
            },
            options: self.options(),
            floor: common.floor.then(Floor::default),
            ..ScenarioResult::default()
        };
        for _ in 0..common.runs {
            let floor = |result: &mut ScenarioResult| -> io::Result<()> {
                if let Some(floor) = &mut result.floor {
                    floor.runs.push(self.run_once(&Site::floor()?)?);
                }
                Ok(())
            };
            floor(&mut result)?;
            result.runs.push(self.run_once(site)?);
            floor(&mut result)?;
        }
        result.conclude();
        Ok(result)
    }
}
