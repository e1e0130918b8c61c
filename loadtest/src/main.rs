//! `fanfare-loadtest`: thousands of clients against a running deployment, and every delivery checked.

use std::path::PathBuf;
use std::process::{self, ExitCode};
use std::time::Duration;
use std::{fs, io};

use clap::{Args, Parser, Subcommand};
use fanfare_auth::Secrets;
use fanfare_loadtest::compare::Comparison;
use fanfare_loadtest::result::{Results, ResultsError};
use fanfare_loadtest::{CutOptions, Endpoint, Job, page, raise_descriptor_limit};

/// Opens thousands of clients, publishes, and checks every single delivery: missing, double, out of order.
///
/// Ends with 0 only when everything checked out, with 1 when something did not, with 2 when it could not begin.
#[derive(Parser)]
#[command(name = "fanfare-loadtest", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one, once")]
enum Command {
    #[command(flatten)]
    Scenario(Scenario),
    #[command(flatten)]
    Reading(Reading),
}

#[derive(Subcommand)]
enum Scenario {
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
}

#[derive(Subcommand)]
enum Reading {
    /// Makes one HTML file of files of results: plots and tables that need no network.
    Report {
        /// Files that a scenario wrote.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Where it goes.
        #[arg(long, short, default_value = "report.html")]
        output: PathBuf,
    },
    /// Tells what changed from one file of results to another, and whether that is more than chance.
    Compare {
        /// The results before.
        before: PathBuf,
        /// The results after.
        after: PathBuf,
        /// Ends with 1 where a figure got worse, beyond the noise of its runs, by more than so many percent, or where
        /// something went wrong that had not before.
        #[arg(long, value_name = "PERCENT")]
        fail_above: Option<f64>,
    },
}

impl Reading {
    /// Does it; tells whether all is well.
    fn run(self) -> Result<bool, ReadingError> {
        match self {
            Self::Report { files, output } => {
                let named = |path: PathBuf| {
                    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                    Ok((name, Results::read(&path)?))
                };
                let files = files.into_iter().map(named).collect::<Result<Vec<_>, ResultsError>>()?;
                fs::write(&output, page(&files)).map_err(|error| ReadingError::Write(output.clone(), error))?;
                eprintln!("{}", output.display());
                Ok(true)
            }
            Self::Compare { before, after, fail_above } => {
                let comparison = Comparison::of(&Results::read(&before)?, &Results::read(&after)?);
                anstream::println!("{comparison}");
                Ok(!fail_above.is_some_and(|percent| comparison.is_worse_by(percent)))
            }
        }
    }
}

/// Why results can't be shown.
#[derive(Debug, thiserror::Error)]
enum ReadingError {
    #[error(transparent)]
    Read(#[from] ResultsError),
    #[error("{} can't be written", .0.display())]
    Write(PathBuf, #[source] io::Error),
}

#[derive(Args)]
struct Common {
    /// Base URL of an edge; several where clients spread over several.
    #[arg(long = "url", default_value = "http://127.0.0.1:8080")]
    urls: Vec<Endpoint>,
    /// Base URL of the publish API; the first edge's where it is left out, as in `fanfare dev`.
    #[arg(long)]
    publish_url: Option<Endpoint>,
    /// The publisher's key.
    #[arg(long, env = "FANFARE_KEY", hide_env_values = true)]
    key: Option<String>,
    /// A secret that signs the clients' tokens; without one they are named in the URL, as `fanfare dev` takes it.
    #[arg(long, env = "FANFARE_AUTH_SECRET", hide_env_values = true, value_parser = Secrets::parse)]
    secret: Option<Secrets>,
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
    /// A process of the server, whose CPU time is told; several where there are several.
    #[arg(long = "server-pid")]
    server_pids: Vec<u32>,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

impl Common {
    fn job(self, mut job: Job) -> Job {
        job.publish = self.publish_url.unwrap_or_else(|| self.urls[0].clone());
        job.edges = self.urls;
        job.key = self.key;
        job.secret = self.secret;
        job.clients = self.clients.unwrap_or(job.clients);
        job.channels = self.channels.unwrap_or_else(|| (job.clients / 10).max(10));
        job.seed = self.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
        job.rate = self.rate.unwrap_or(job.rate);
        job.duration = self.duration.unwrap_or(job.duration);
        job.payload_bytes = self.size.unwrap_or(job.payload_bytes);
        job.publishers = self.publishers.unwrap_or(job.publishers);
        job.grace = self.grace.unwrap_or(job.grace);
        (job.allow_gaps, job.repeat) = (self.allow_gaps, self.repeat);
        job.server_pids = self.server_pids;
        job.progress = true;
        job
    }
}

fn main() -> ExitCode {
    let scenario = match Cli::parse().command {
        Command::Scenario(scenario) => scenario,
        Command::Reading(reading) => {
            return match reading.run() {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(error) => fail(&error),
            };
        }
    };
    let (mut job, common) = match scenario {
        Scenario::Mixed(common) => (Job::mixed(common.urls[0].clone()), common),
        Scenario::Cuts { cuts, away, common } => {
            let mut job = Job::cuts(common.urls[0].clone(), cuts);
            job.cuts = Some(CutOptions { cuts, away_max: away });
            (job, common)
        }
    };
    let (json, disturb) = (common.json, common.disturb.clone());
    job = common.job(job);
    if let Ok(allowed) = raise_descriptor_limit() {
        eprintln!("this process may have {allowed} clients; seed {}", job.seed);
    }
    let report = match disturb {
        None => job.run(),
        Some(command) => job.run_through(move || run(&command)),
    };
    match report {
        Ok(report) => {
            if json {
                println!("{}", serde_json::to_string_pretty(&report).expect("a report is JSON"));
            } else {
                println!("{report}");
            }
            if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => fail(&error),
    }
}

/// It could not begin.
fn fail(error: &dyn std::error::Error) -> ExitCode {
    let source = error.source().map_or(String::new(), |source| format!(": {source}"));
    eprintln!("fanfare-loadtest: {error}{source}");
    ExitCode::from(2)
}

fn run(command: &str) -> io::Result<()> {
    // What it says goes beside the report, which may be JSON.
    let status = process::Command::new("sh").args(["-c", command]).stdout(io::stderr()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{command:?} ended with {status}"))) }
}
