//! What is asked for, and the course of a run: connect everybody, publish while they listen, wait until everybody has
//! everything, and judge.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use fanfare_auth::Secrets;
use indicatif::{ProgressBar, ProgressStyle};
use mio::Events;

use crate::check::{Checker, Fault, FaultKind};
use crate::cuts::{CutOptions, Cutter};
use crate::endpoint::Endpoint;
use crate::ledger::Ledger;
use crate::machine::{cpu_seconds, raise_descriptor_limit, resident_bytes};
use crate::publish::{Plan, Published, publish};
use crate::report::{Latency, Report};
use crate::swarm::Swarm;
use crate::traffic::{Mix, SHARED_PER_CLIENT, Traffic};
use crate::trouble::{RollCall, Trouble};

/// Longest pause between two looks at the clock.
const TICK: Duration = Duration::from_millis(20);

/// How long everybody listens on after everything has come: for what comes twice.
const AFTERMATH: Duration = Duration::from_millis(500);

/// The swarm's thread is the bottleneck above this share of a second, and the publishers above this p99.
const BUSY_MAX: f64 = 0.85;
const LATENESS_MAX_MS: f64 = 50.0;

/// Broadcasts a second at most while clients are being cut off: those that are away must find all in history.
const BROADCASTS_WITH_CUTS_MAX: f64 = 10.0;

/// What makes trouble, until it returns.
type MakeTrouble<'a> = Box<dyn FnOnce() -> io::Result<()> + Send + 'a>;

/// A run: who listens, what is published, who is cut off.
#[derive(Clone, Debug)]
pub struct Job {
    /// Where clients connect, at random.
    pub edges: Vec<Endpoint>,
    /// Where events are published.
    pub publish: Endpoint,
    /// What all choices follow from.
    pub seed: u64,
    /// How many clients there are, each with an inbox.
    pub clients: u32,
    /// Shared channels, of which each client follows three.
    pub channels: u32,
    /// Events a second.
    pub rate: f64,
    /// How long they are published.
    pub duration: Duration,
    /// Bytes of an event's payload.
    pub payload_bytes: usize,
    /// Keep-alive connections that publish.
    pub publishers: u32,
    /// Whether clients are cut off.
    pub cuts: Option<CutOptions>,
    /// Takes gaps for an answer.
    pub allow_gaps: bool,
    /// Publishes with an idempotency key, again and again until it is answered with 200.
    pub repeat: bool,
    /// The publisher's key.
    pub key: Option<String>,
    /// Signs the clients' tokens. None: they are named in the URL, as `fanfare dev` takes it.
    pub secret: Option<Secrets>,
    /// How long all may take to connect.
    pub connect_timeout: Duration,
    /// How long clients may take to have everything after the last publish.
    pub grace: Duration,
    /// Processes of the server, whose CPU time is told.
    pub server_pids: Vec<u32>,
    /// Shows how far it is, where there is a terminal.
    pub progress: bool,
}

/// Why there was no run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Without a URL there is nobody to talk to.
    #[error("there is no URL to connect to")]
    NoEdge,
    /// Each client follows three different channels.
    #[error("each client follows {SHARED_PER_CLIENT} channels, so there must be as many, and at least one client")]
    TooFew,
    /// More clients than this process may have descriptors for.
    #[error("{wanted} clients are more than this process may have open ({allowed}): start several")]
    TooMany {
        /// Asked for.
        wanted: u32,
        /// Possible.
        allowed: u32,
    },
    /// The machine refuses.
    #[error("the machine refuses")]
    Io(#[from] io::Error),
}

impl Job {
    /// The main job: 10,000 clients, 1,000 events a second, of which 94 % go to single users, 5.9 % to channels with
    /// about 30 subscribers and 0.1 % to everybody.
    pub fn mixed(edge: Endpoint) -> Self {
        Self {
            publish: edge.clone(),
            edges: vec![edge],
            seed: 1,
            clients: 10_000,
            channels: 1_000,
            rate: 1_000.0,
            duration: Duration::from_secs(30),
            payload_bytes: 200,
            publishers: 4,
            cuts: None,
            allow_gaps: false,
            repeat: false,
            key: None,
            secret: None,
            connect_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(20),
            server_pids: Vec::new(),
            progress: false,
        }
    }

    /// Clients are cut off at any moment and come back, while events flow.
    pub fn cuts(edge: Endpoint, cuts: u32) -> Self {
        let away_max = Duration::from_secs(1);
        Self {
            clients: 400,
            channels: 40,
            rate: 500.0,
            duration: Duration::from_secs(20),
            cuts: Some(CutOptions { cuts, away_max }),
            ..Self::mixed(edge)
        }
    }

    /// Runs it on this thread, and the publishers on some of their own.
    ///
    /// # Errors
    /// Where it can't begin. What goes wrong later is in the report.
    pub fn run(&self) -> Result<Report, RunError> {
        self.run_with(None)
    }

    /// The same, with trouble: it begins when publishing does, on a thread of its own, and is over when it returns. An
    /// error of it is a fault of the run. How everybody gets over it is in the report, as its `recovery`.
    ///
    /// # Errors
    /// Where it can't begin. What goes wrong later is in the report.
    pub fn run_through(&self, trouble: impl FnOnce() -> io::Result<()> + Send) -> Result<Report, RunError> {
        self.run_with(Some(Box::new(trouble)))
    }

    fn run_with(&self, trouble: Option<MakeTrouble<'_>>) -> Result<Report, RunError> {
        if self.edges.is_empty() {
            return Err(RunError::NoEdge);
        }
        if (self.channels as usize) < SHARED_PER_CLIENT || self.clients == 0 {
            return Err(RunError::TooFew);
        }
        let allowed = raise_descriptor_limit()?;
        if self.clients > allowed {
            return Err(RunError::TooMany { wanted: self.clients, allowed });
        }
        let traffic = self.traffic();
        let run_began = Instant::now();
        // Of time, not of the seed: events of an earlier run with this seed may still be in history.
        let run = fastrand::u64(..);
        let mut checker = Checker::new(traffic.clone(), run, self.allow_gaps);
        checker.roll_call = trouble.as_ref().map(|_| RollCall::new(self.clients));
        let mut course = Course {
            job: self,
            swarm: Swarm::new(&self.edges, &traffic, checker, self.secret.clone(), run_began)?,
            traffic,
            run,
            run_began,
            events: Events::with_capacity(1024),
            bar: self.bar(),
            report: Report {
                scenario: if self.cuts.is_some() { "cuts" } else { "mixed" }.to_owned(),
                seed: self.seed,
                clients: self.clients,
                ..Report::default()
            },
        };
        course.run(trouble)?;
        Ok(course.report)
    }

    fn traffic(&self) -> Traffic {
        let mix = match self.cuts {
            None => Mix { shared: 0.059, broadcast: 0.001 },
            Some(_) => Mix { shared: 0.35, broadcast: (BROADCASTS_WITH_CUTS_MAX / self.rate).min(0.02) },
        };
        Traffic {
            seed: self.seed,
            clients: self.clients,
            shared_channels: self.channels,
            events_per_second: self.rate,
            duration: self.duration,
            payload_bytes: self.payload_bytes,
            mix,
        }
    }

    fn bar(&self) -> ProgressBar {
        if !self.progress {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{prefix:>11} {bar:40} {pos}/{len} {msg}").expect("a valid template");
        ProgressBar::new(0).with_style(style)
    }

    fn server_cpu(&self) -> Option<f64> {
        sum(&self.server_pids, cpu_seconds)
    }
}

fn sum<T: std::iter::Sum>(pids: &[u32], of: impl Fn(u32) -> Option<T>) -> Option<T> {
    if pids.is_empty() { None } else { pids.iter().map(|pid| of(*pid)).sum() }
}

/// A run under way.
struct Course<'a> {
    job: &'a Job,
    swarm: Swarm<'a>,
    traffic: Traffic,
    run: u64,
    run_began: Instant,
    events: Events,
    bar: ProgressBar,
    report: Report,
}

impl Course<'_> {
    fn run(&mut self, trouble: Option<MakeTrouble<'_>>) -> io::Result<()> {
        let own_pid = std::process::id();
        if self.connect()? {
            let (own, server) = (cpu_seconds(own_pid), self.job.server_cpu());
            let (published, trouble) = self.publish(trouble)?;
            self.report.server_resident_bytes = sum(&self.job.server_pids, resident_bytes);
            self.drain(&published.ledger)?;
            let spent = |before: Option<f64>, after: Option<f64>| Some(after? - before?);
            self.report.own_cpu_seconds = spent(own, cpu_seconds(own_pid));
            self.report.server_cpu_seconds = spent(server, self.job.server_cpu());
            self.swarm.judge(&published.ledger);
            self.take(published);
            if let Some(trouble) = trouble {
                self.take_trouble(&trouble);
            }
        }
        self.swarm.close_all();
        self.bar.finish_and_clear();
        self.finish();
        Ok(())
    }

    /// Until everybody has `connected`. False where that takes too long.
    fn connect(&mut self) -> io::Result<bool> {
        if let Some(options) = self.job.cuts {
            self.swarm.cut_with(Cutter::new(self.job.seed, options, self.job.duration));
        }
        self.show("connecting", u64::from(self.job.clients));
        let deadline = self.run_began + self.job.connect_timeout;
        while self.swarm.connected() < self.job.clients {
            self.swarm.turn(&mut self.events, TICK)?;
            self.bar.set_position(self.swarm.connected().into());
            if Instant::now() > deadline {
                let connected = self.swarm.connected();
                let error = self.swarm.open_error().map_or(String::new(), |error| format!("; last error: {error}"));
                let timeout = humantime::format_duration(self.job.connect_timeout);
                self.unfinished(
                    FaultKind::NotConnected,
                    format!("{} clients connected within {timeout}", self.job.clients),
                    format!("{connected}{error}"),
                );
                return Ok(false);
            }
        }
        self.report.connect_seconds = self.run_began.elapsed().as_secs_f64();
        Ok(true)
    }

    /// Turns the swarm while publishers work through the schedule and trouble is made, and cuts clients off.
    fn publish(&mut self, trouble: Option<MakeTrouble<'_>>) -> io::Result<(Published, Option<Trouble>)> {
        let (count, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let start = Instant::now() + Duration::from_millis(100);
        self.swarm.start_measuring();
        let events = (self.job.duration.as_secs_f64() * self.job.rate) as u64;
        self.show("publishing", events);
        let traffic = self.traffic.clone();
        let plan = Plan {
            traffic: &traffic,
            endpoint: &self.job.publish,
            publishers: self.job.publishers.max(1),
            run: self.run,
            run_began: self.run_began,
            start,
            key: self.job.key.as_deref(),
            repeat: self.job.repeat,
            published: &count,
            stop: &stop,
        };
        let mut published = Published::new(traffic.channels());
        // A server that can't take the rate is given as long again, and the grace.
        let deadline = start + self.job.duration * 2 + self.job.grace;
        let mut trouble = thread::scope(|scope| {
            let plan = &plan;
            let trouble = trouble.map(|make| scope.spawn(|| Trouble::make(*plan, make)));
            let is_over = || trouble.as_ref().is_none_or(ScopedJoinHandle::is_finished);
            let publishers = (0..plan.publishers).map(|number| scope.spawn(move || publish(plan, number)));
            let publishers = publishers.collect::<Vec<_>>();
            let mut result = Ok(());
            while result.is_ok() && !(is_over() && publishers.iter().all(ScopedJoinHandle::is_finished)) {
                self.swarm.cut_due(start.elapsed());
                result = self.swarm.turn(&mut self.events, TICK);
                self.bar.set_position(count.load(Ordering::Relaxed));
                if Instant::now() > deadline && !stop.swap(true, Ordering::Relaxed) {
                    self.unfinished(
                        FaultKind::Unfinished,
                        format!("{events} events published in time"),
                        count.load(Ordering::Relaxed).to_string(),
                    );
                }
            }
            stop.store(true, Ordering::Relaxed);
            for publisher in publishers {
                published.merge(publisher.join().expect("a publisher does not panic"));
            }
            let trouble = trouble.map(Trouble::join);
            result.map(|()| trouble)
        })?;
        self.report.publish_seconds = start.elapsed().as_secs_f64();
        self.report.busiest_second = self.swarm.busiest_second();
        if let Some(trouble) = &mut trouble {
            published.merge(std::mem::replace(&mut trouble.published, Published::new(0)));
        }
        Ok((published, trouble))
    }

    /// Until everybody is back and has everything, or the grace is over; then a little longer.
    fn drain(&mut self, ledger: &Ledger) -> io::Result<()> {
        let began = Instant::now();
        let deadline = began + self.job.grace;
        self.show("draining", u64::from(self.job.clients));
        let mut all_cut = false;
        loop {
            all_cut = all_cut || self.swarm.cut_rest();
            self.swarm.turn(&mut self.events, TICK)?;
            let incomplete = self.swarm.incomplete(ledger);
            self.bar.set_position(u64::from(self.job.clients) - incomplete as u64);
            if incomplete == 0 && all_cut && self.swarm.connected() == self.job.clients {
                break;
            }
            if Instant::now() > deadline {
                let grace = humantime::format_duration(self.job.grace);
                let back = self.swarm.connected();
                let expected = format!("all clients back and complete within {grace}");
                self.unfinished(FaultKind::Unfinished, expected, format!("{back} back, {incomplete} incomplete"));
                break;
            }
        }
        self.report.drain_seconds = began.elapsed().as_secs_f64();
        let end = Instant::now() + AFTERMATH;
        while Instant::now() < end {
            self.swarm.turn(&mut self.events, TICK)?;
        }
        Ok(())
    }

    fn take(&mut self, published: Published) {
        let report = &mut self.report;
        report.acknowledged = published.acknowledged;
        report.publish_failed = published.failed;
        report.publish_repeated = published.repeated;
        report.publish_refusals = published.refusals;
        report.publish_unanswered = published.unanswered;
        report.slowest_answer_seconds = published.slowest.as_secs_f64();
        report.publish = Latency::of(&published.answered);
        report.lateness = Latency::of(&published.late);
        if published.failed > 0 {
            let fault = Fault {
                kind: FaultKind::NotPublished,
                client: None,
                channel: "-".to_owned(),
                expected: "every publish answered with 200".to_owned(),
                got: format!("{} others: {}", published.failed, published.failures.join("; ")),
            };
            self.swarm.checker().add(fault);
        }
        report.publish_failures = published.failures;
        for fault in published.faults {
            self.swarm.checker().add(fault);
        }
    }

    fn take_trouble(&mut self, trouble: &Trouble) {
        let roll_call = self.swarm.checker().roll_call.as_ref();
        self.report.recovery = Some(trouble.recovery(roll_call.and_then(RollCall::caught_up)));
        if let Some(error) = &trouble.failed {
            self.unfinished(FaultKind::Unfinished, "trouble as it was meant".to_owned(), error.to_string());
        }
    }

    fn finish(&mut self) {
        let counts = self.swarm.counts();
        let report = &mut self.report;
        let [to_user, to_channel, to_all] = &counts.latency;
        report.delivery_to_user = Latency::of(to_user);
        report.delivery_to_channel = Latency::of(to_channel);
        report.delivery_to_all = Latency::of(to_all);
        (report.replayed, report.resumes, report.lost_connections) = (counts.replayed, counts.resumes, counts.lost);
        (report.closings, report.refusals) = (counts.closings.clone(), counts.refusals.clone());
        report.cuts = self.swarm.cuts().into();
        let checker = self.swarm.checker();
        (report.deliveries, report.foreign, report.expected) = (checker.deliveries, checker.foreign, checker.expected);
        report.partitions = checker.partitions();
        (report.gaps, report.excused) = (checker.gaps, checker.excused);
        let faults = checker.faults();
        (report.faults, report.first_faults) = (faults.counts.clone(), faults.first.clone());
        if report.busiest_second > BUSY_MAX {
            let share = report.busiest_second * 100.0;
            let warning = format!("the swarm's thread was busy for {share:.0} % of a second: it may be the bottleneck");
            report.warnings.push(warning);
        }
        if report.lateness.p99 > LATENESS_MAX_MS {
            let late = report.lateness.p99;
            report.warnings.push(format!(
                "1 % of the events were sent more than {late:.0} ms late: the publishers, or answers that took long, \
                 may be the bottleneck"
            ));
        }
        if report.lost_connections > 0 {
            report.warnings.push(format!("{} connections ended without our doing", report.lost_connections));
        }
    }

    fn unfinished(&mut self, kind: FaultKind, expected: String, got: String) {
        self.swarm.checker().add(Fault { kind, client: None, channel: "-".to_owned(), expected, got });
    }

    fn show(&self, phase: &'static str, length: u64) {
        self.bar.set_prefix(phase);
        self.bar.set_length(length);
        self.bar.set_position(0);
    }
}
