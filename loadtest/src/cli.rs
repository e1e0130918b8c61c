//! What is typed, and what comes of it.

use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use fanfare_auth::Secrets;
use fanfare_loadtest::result::{Results, ScenarioResult};
use fanfare_loadtest::scenario::{self, Million, Scenario, Site};
use fanfare_loadtest::{
    CutOptions, Dialect, Endpoint, FLOOR, Fleet, FleetOptions, Job, KEEPER, WORKER, describe, raise_descriptor_limit,
    render, run_floor, run_keeper, run_worker,
};

use crate::beside::Beside;
use crate::reading::Reading;

/// Thousands of clients against a running deployment, and every single delivery checked: missing, double, out of order.
///
/// Begin with `fanfare dev` in one terminal and `fanfare-loadtest fanout --clients 1000 --rate 100` in another. With
/// `--server-pid` the server's CPU and memory are told as well, with `--floor` what the kernel alone would need.
///
/// Ends with 0 only when everything checked out, with 1 when something did not, with 2 when it could not begin.
#[derive(Parser)]
#[command(name = "fanfare-loadtest", version)]
struct Cli {
    #[command(subcommand)]
    command: What,
    #[command(flatten)]
    target: Target,
}

#[derive(Subcommand)]
enum What {
    #[command(flatten)]
    Measure(Scenario),
    /// The yardstick alone: what a bare send(2) loop over the sockets reaches on this machine, read by the same clients.
    Floor(FloorOptions),
    /// The main job: every client on its inbox, the broadcast and three channels; most events go to single users.
    Mixed(Common),
    /// Clients are cut off (RST) at any moment and come back with their last id, while events flow.
    Cuts {
        /// Connections that are cut off in all.
        #[arg(long, default_value_t = 2_000)]
        cuts: u32,
        /// Longest time that a client stays away. History must hold what it misses.
        #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
        away: Duration,
        #[command(flatten)]
        common: Common,
    },
    #[command(flatten)]
    Beside(Beside),
    #[command(flatten)]
    Read(Reading),
    #[command(name = WORKER, hide = true)]
    Worker,
    #[command(name = KEEPER, hide = true)]
    Keeper,
    #[command(name = FLOOR, hide = true)]
    FloorServer,
}

/// Whom it is run against.
#[derive(Args)]
struct Target {
    /// Base URL of an edge; several where clients spread over several.
    #[arg(long = "url", global = true, default_value = "http://127.0.0.1:8080")]
    urls: Vec<Endpoint>,
    /// Base URL of the publish API; the first edge's where it is left out, as in `fanfare dev`.
    #[arg(long, global = true)]
    publish_url: Option<Endpoint>,
    /// The publisher's key.
    #[arg(long, global = true, env = "FANFARE_KEY", hide_env_values = true)]
    key: Option<String>,
    /// A secret that signs the clients' tokens; without one they are named in the URL, as `fanfare dev` takes it.
    #[arg(long, global = true, env = "FANFARE_AUTH_SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// A process of the server, whose CPU time and memory are told; several where there are several.
    #[arg(long = "server-pid", global = true, value_name = "PID")]
    server_pids: Vec<u32>,
    /// Writes the results to a file, as JSON.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Options of the floor alone.
#[derive(Args)]
struct FloorOptions {
    /// Clients of one channel, and users.
    #[arg(long, default_value_t = 10_000)]
    clients: u32,
    /// Bytes of an event's payload.
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// How long each part is measured.
    #[arg(long, default_value = "5s")]
    duration: String,
    /// Runs, of which the median counts.
    #[arg(long, default_value_t = 1)]
    runs: u32,
}

#[derive(Args)]
struct Common {
    /// All choices follow from it.
    #[arg(long)]
    seed: Option<u64>,
    /// Clients, each a user with an inbox.
    #[arg(long)]
    clients: Option<u32>,
    /// Shared channels; one for ten clients where left out.
    #[arg(long)]
    channels: Option<u32>,
    /// Events a second.
    #[arg(long)]
    rate: Option<f64>,
    /// How long events are published.
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Bytes of an event's payload.
    #[arg(long)]
    size: Option<usize>,
    /// Keep-alive connections that publish.
    #[arg(long)]
    publishers: Option<u32>,
    /// How long clients may take to have everything after the last publish.
    #[arg(long, value_parser = humantime::parse_duration)]
    grace: Option<Duration>,
    /// Takes told gaps for an answer.
    #[arg(long)]
    allow_gaps: bool,
    /// Publishes with idempotency keys, each event again until it is answered with 200.
    #[arg(long)]
    repeat: bool,
    /// Makes trouble: a shell command, started when events begin to flow; when it ends, the trouble is over, and the time
    /// until everybody is caught up is told.
    #[arg(long, value_name = "COMMAND")]
    disturb: Option<String>,
}

impl Common {
    fn job(self, mut job: Job, target: &Target) -> Result<Job, String> {
        job.publish = target.publish();
        job.edges.clone_from(&target.urls);
        job.key.clone_from(&target.key);
        let secret = target.secret.as_deref().map(Secrets::parse).transpose();
        job.secret = secret.map_err(|error| format!("--secret: {error}"))?;
        job.clients = self.clients.unwrap_or(job.clients);
        job.channels = self.channels.unwrap_or_else(|| (job.clients / 10).max(10));
        job.seed = self.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
        job.rate = self.rate.unwrap_or(job.rate);
        job.duration = self.duration.unwrap_or(job.duration);
        job.payload_bytes = self.size.unwrap_or(job.payload_bytes);
        job.publishers = self.publishers.unwrap_or(job.publishers);
        job.grace = self.grace.unwrap_or(job.grace);
        (job.allow_gaps, job.repeat) = (self.allow_gaps, self.repeat);
        job.server_pids.clone_from(&target.server_pids);
        job.progress = true;
        Ok(job)
    }
}

impl Target {
    fn publish(&self) -> Endpoint {
        self.publish_url.clone().unwrap_or_else(|| self.urls[0].clone())
    }

    fn site(&self, has_channel: bool) -> Site {
        let dialect = Dialect::fanfare(self.key.as_deref(), has_channel);
        let mut site = Site::new("fanfare", dialect, &self.urls, self.publish());
        site.secret.clone_from(&self.secret);
        site.pids.clone_from(&self.server_pids);
        site
    }
}

pub(crate) fn main() -> ExitCode {
    let Cli { command, target } = Cli::parse();
    match command {
        What::Beside(beside) => judged(beside.run()),
        What::Read(reading) => judged(reading.run()),
        What::Worker => ended(run_worker()),
        What::Keeper => ended(run_keeper()),
        What::FloorServer => ended(run_floor()),
        What::Measure(scenario) => measured(&target, || Ok(vec![measure(&scenario, &target)?])),
        What::Floor(options) => measured(&target, || floor(&options)),
        What::Mixed(common) => job(Job::mixed(target.urls[0].clone()), common, &target),
        What::Cuts { cuts, away, common } => {
            let mut job_of = Job::cuts(target.urls[0].clone(), cuts);
            job_of.cuts = Some(CutOptions { cuts, away_max: away });
            job(job_of, common, &target)
        }
    }
}

fn measure(scenario: &Scenario, target: &Target) -> io::Result<ScenarioResult> {
    if let Scenario::Million(Million {
        spawn_edges: Some(edges),
        server_binary: Some(binary),
        redis: Some(redis),
        ..
    }) = scenario
    {
        let fleet = Fleet::start(FleetOptions { edges: *edges, binary, redis, channels_max: None, has_channel: true })?;
        return scenario.run(&fleet.site);
    }
    scenario.run(&target.site(scenario.has_channel()))
}

fn ended(result: io::Result<()>) -> ExitCode {
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

fn judged<E: std::error::Error + 'static>(all_is_well: Result<bool, E>) -> ExitCode {
    match all_is_well {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => could_not_begin(&error),
    }
}

fn could_not_begin(error: &dyn std::error::Error) -> ExitCode {
    let source = error.source().map_or(String::new(), |source| format!(": {source}"));
    eprintln!("fanfare-loadtest: {error}{source}");
    ExitCode::from(2)
}

/// Runs scenarios, prints their results, and writes them to the file where one was asked for.
fn measured(target: &Target, run: impl FnOnce() -> io::Result<Vec<ScenarioResult>>) -> ExitCode {
    let mut results = Results::begin(describe());
    results.scenarios = match run() {
        Ok(scenarios) => scenarios,
        Err(error) => return could_not_begin(&error),
    };
    if results.scenarios.iter().any(|scenario| scenario.server == "fanfare")
        && let Some(version) = target.site(true).version()
    {
        results.versions.insert("fanfare".to_owned(), version);
    }
    anstream::print!("{}", render(&results));
    if let Some(path) = &target.json
        && let Err(error) = results.write(path)
    {
        return could_not_begin(&error);
    }
    if results.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Each scenario that the floor can do, at the floor.
fn floor(options: &FloorOptions) -> io::Result<Vec<ScenarioResult>> {
    let FloorOptions { clients, size, duration, runs } = options;
    let lines = scenario::FLOOR_PARTS.map(|(name, extra)| {
        let clients = if extra.contains("--clients") { String::new() } else { format!("--clients {clients}") };
        let line = format!("{name} {clients} --size {size} --duration {duration} --runs {runs} {extra}");
        Scenario::parse(&line)
    });
    lines
        .into_iter()
        .map(|parsed| {
            let scenario = parsed.map_err(io::Error::other)?;
            scenario.run(&Site::floor()?)
        })
        .collect()
}

fn job(job: Job, common: Common, target: &Target) -> ExitCode {
    let disturb = common.disturb.clone();
    let job = match common.job(job, target) {
        Ok(job) => job,
        Err(text) => return could_not_begin(&io::Error::other(text)),
    };
    if let Ok(allowed) = raise_descriptor_limit() {
        eprintln!("this process may have {allowed} clients; seed {}", job.seed);
    }
    let mut results = Results::begin(describe());
    let report = match disturb {
        None => job.run(),
        Some(command) => job.run_through(move || run(&command)),
    };
    match report {
        Ok(report) => {
            println!("{report}");
            if let Some(path) = &target.json {
                results.scenarios.push(report.result(&job));
                if let Err(error) = results.write(path) {
                    return could_not_begin(&error);
                }
            }
            if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => could_not_begin(&error),
    }
}

fn run(command: &str) -> io::Result<()> {
    // What it says goes beside the report.
    let status = Command::new("sh").args(["-c", command]).stdout(io::stderr()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{command:?} ended with {status}"))) }
}
