//! What scenarios have in common: clients that connect, CPU that is read before and after, and the end, at which every
//! client is held against what was published.

use std::io;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::publisher::Told;
use super::{Common, Site};
use crate::check::{Fault, FaultKind};
use crate::clock::{Nanos, now, seconds, wait_until};
use crate::crew::{Crew, Places};
use crate::crowd::Expected;
use crate::machine::{cpu, cpu_of};
use crate::report::new_histogram;
use crate::result::{Cpu, CpuSplit, Latencies, Run};
use crate::speak::Speaker;
use crate::stamp::{PAYLOAD_BYTES_MAX, STAMP_BYTES};
use crate::words::{Heard, Order, Setup};

/// Time before anything is measured.
pub(super) const WARM_UP: Duration = Duration::from_secs(1);

/// A server that says by its head alone that a subscription stands may say so a little before it does.
const SETTLE: Duration = Duration::from_secs(1);

/// How long everybody listens on after everything has come: for what comes twice.
const AFTERMATH: Duration = Duration::from_millis(300);

/// Between two points of a series.
const SAMPLE: Duration = Duration::from_millis(250);

/// Share of its time that a thread works, above which it may be the bottleneck.
const BUSY_MAX: f64 = 0.9;

/// Why an edge refuses a connection when it has as many as it takes. Asked again, it takes no more.
const LIMIT: &str = "limit";

/// A run under way.
pub(super) struct Stage<'a> {
    pub(super) site: &'a Site,
    pub(super) common: &'a Common,
    pub(super) crew: Crew,
    pub(super) run: Run,
    pub(super) id: u32,
    bar: ProgressBar,
    began: Instant,
}

/// What a scenario wants of its clients.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wish {
    /// Shared channels, over which clients spread.
    pub(super) channels: u32,
    /// Channels that a client follows besides, with nobody else; the dialect says where they are named.
    pub(super) others: u32,
    /// Clients come back with their last id.
    pub(super) keep_ids: bool,
    /// Streams that share an HTTP/2 connection; 0: HTTP/1.1.
    pub(super) streams: u32,
    /// Deliveries after which workers tell how many there are.
    pub(super) step: u64,
    /// The last so many clients live in a process of their own.
    pub(super) apart: u32,
}

/// CPU and clock at a moment.
pub(super) struct Reading {
    at: Nanos,
    server: Option<CpuSplit>,
    load: CpuSplit,
}

/// What was used between two moments.
pub(super) struct Used {
    pub(super) seconds: f64,
    pub(super) cpu: Cpu,
}

impl<'a> Stage<'a> {
    pub(super) fn new(site: &'a Site, common: &'a Common, wish: Wish) -> io::Result<Self> {
        if common.size < STAMP_BYTES || common.size > PAYLOAD_BYTES_MAX {
            let text = format!("a payload has {STAMP_BYTES} to {PAYLOAD_BYTES_MAX} bytes, not {}", common.size);
            return Err(io::Error::other(text));
        }
        // Of time, not of a seed: events of an earlier run may still be in history.
        let id = fastrand::u32(1..);
        let setup = Setup {
            edges: site.edges.clone(),
            dialect: site.dialect.clone(),
            secret: site.secret.clone(),
            first: 0,
            clients: common.clients,
            channels: wish.channels,
            others: wish.others,
            run: id,
            payload_bytes: common.size,
            opening_max: common.opening.max(1),
            keep_ids: wish.keep_ids,
            streams: wish.streams,
            step: (wish.step / u64::from(common.workers.max(1))).max(1),
        };
        let crew = Crew::start(&setup, common.workers, wish.apart)?;
        let style = ProgressStyle::with_template("{prefix:>18} {bar:40.cyan/blue} {human_pos}/{human_len} {msg}");
        let bar = if common.quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
        let bar = bar.with_style(style.expect("a valid template"));
        Ok(Self { site, common, crew, run: Run::default(), id, bar, began: Instant::now() })
    }

    pub(super) fn figure(&mut self, name: &str, value: f64) {
        debug_assert!(crate::result::meaning(name).is_some(), "{name} is in no glossary");
        self.run.figures.insert(name.to_owned(), value);
    }

    pub(super) fn figure_if(&mut self, name: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.figure(name, value);
        }
    }

    pub(super) fn show(&self, phase: &str, length: u64) {
        self.bar.set_prefix(format!("{} {phase}", self.site.name));
        self.bar.set_length(length);
        self.bar.set_position(0);
    }

    pub(super) fn position(&self, position: u64) {
        self.bar.set_position(position);
    }

    pub(super) fn speaker(&self) -> io::Result<Speaker> {
        self.site.speaker(self.id, self.common.size)
    }

    /// Until all are connected. False, with a fault: that took too long, or the edges take no more.
    pub(super) fn connect(&mut self) -> io::Result<bool> {
        let clients = self.common.clients;
        self.show("connecting", clients.into());
        let began = now();
        self.crew.order(&Order::Open)?;
        let bar = self.bar.clone();
        let (places, in_time) = self.crew.wait(self.common.connect_timeout, |places| {
            bar.set_position(places.connected.into());
            places.connected >= clients || places.refusals.contains_key(LIMIT)
        })?;
        let all = places.connected >= clients;
        self.figure("connections", places.connected.into());
        if all {
            self.figure("connectSeconds", seconds(began, places.last_subscribed));
            if self.site.dialect.ready.is_none() {
                wait_until(now() + crate::clock::nanos(SETTLE));
            }
        } else if in_time {
            self.not_all_connected(&places, format!("{clients} clients connected"));
        } else {
            let timeout = humantime::format_duration(self.common.connect_timeout);
            self.not_all_connected(&places, format!("{clients} clients connected within {timeout}"));
        }
        Ok(all)
    }

    pub(super) fn not_all_connected(&mut self, places: &Places, expected: String) {
        let Places { connected, lost, refusals, last_error, .. } = places;
        let refused = refusals.iter().map(|(how, count)| format!("; {count} refused: {how}")).collect::<String>();
        let error = last_error.as_ref().map_or(String::new(), |error| format!("; last error: {error}"));
        let advice = if refusals.contains_key(LIMIT) {
            ". That is a limit of the edges: there must be more of them (--spawn-edges, or --url several times), or each \
             must take more (FANFARE_MAX_CONNECTIONS, its limit of open files)"
        } else {
            ""
        };
        let got = format!("{connected}; {lost} connections ended early{refused}{error}{advice}");
        self.fault(FaultKind::NotConnected, expected, got);
    }

    pub(super) fn fault(&mut self, kind: FaultKind, expected: String, got: String) {
        *self.run.faults.entry(kind).or_default() += 1;
        self.run.first_faults.push(Fault { kind, client: None, channel: "-".to_owned(), expected, got });
    }

    /// Notes that something could not be published.
    pub(super) fn note_unpublished(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.fault(FaultKind::NotPublished, "every publish acknowledged".to_owned(), error.to_string());
        }
    }

    /// Notes what publishers to single users did, of whom `first` is the first. Tells how many events each client is to
    /// have.
    pub(super) fn take_told(&mut self, told: Vec<Told>, first: u32) -> Vec<u32> {
        let (mut sums, mut all_answered) = (vec![0; self.common.clients as usize], new_histogram());
        for Told { users, answered, result } in told {
            sums[first as usize..].iter_mut().zip(users).for_each(|(sum, of)| *sum += of);
            all_answered.add(&answered).expect("histograms of one kind");
            self.note_unpublished(result);
        }
        self.run.latencies.insert("publish".to_owned(), Latencies::of(&all_answered));
        sums
    }

    pub(super) fn warn(&mut self, warning: String) {
        self.run.warnings.push(warning);
    }

    /// Reads CPU and clock.
    pub(super) fn read(&self) -> Reading {
        let load = self.crew.pids().into_iter().chain([std::process::id()]).filter_map(cpu);
        let load = load
            .fold(CpuSplit::default(), |sum, of| CpuSplit { user: sum.user + of.user, system: sum.system + of.system });
        Reading { at: now(), server: cpu_of(&self.site.pids), load }
    }

    /// What was used since.
    pub(super) fn used(&self, before: &Reading) -> Used {
        let after = self.read();
        let minus = |after: CpuSplit, before: CpuSplit| CpuSplit {
            user: after.user - before.user,
            system: after.system - before.system,
        };
        let server = after.server.zip(before.server).map(|(after, before)| minus(after, before));
        Used { seconds: seconds(before.at, after.at), cpu: Cpu { server, load: minus(after.load, before.load) } }
    }

    /// Looks on for so long, and notes how many deliveries a second there are, while `goes_on` says so.
    pub(super) fn watch(&mut self, duration: Duration, goes_on: impl Fn() -> bool) -> io::Result<()> {
        let began = now();
        let mut before = (began, self.crew.places().deliveries);
        let series = self.run.series.entry("deliveriesPerSecond".to_owned()).or_default();
        self.bar.set_length(duration.as_millis() as u64);
        while goes_on() && now() < began + crate::clock::nanos(duration) {
            let left = (began + crate::clock::nanos(duration)).saturating_sub(now());
            wait_until(now() + left.min(crate::clock::nanos(SAMPLE)));
            let here = (now(), self.crew.places().deliveries);
            let rate = (here.1 - before.1) as f64 / seconds(before.0, here.0).max(1e-9);
            series.push((seconds(began, here.0), rate));
            before = here;
            self.bar.set_position((here.0 - began) / 1_000_000);
            self.bar.set_message(format!("ms, {rate:.0} deliveries/s"));
        }
        self.bar.set_message("");
        Ok(())
    }

    /// Notes what was heard in the measured part, and what was used for it.
    pub(super) fn take(&mut self, heard: &Heard, used: &Used) {
        self.run.cpu = used.cpu;
        let cores = crate::machine::describe().cores as f64;
        self.figure_if("serverCpuShare", used.cpu.server.map(|cpu| cpu.total() / used.seconds / cores));
        self.take_latency("delivery", heard);
        self.take_faults(heard);
        let server_busy = used.cpu.server.map(|cpu| cpu.total() / used.seconds / self.site.pids.len().max(1) as f64);
        if heard.busy > BUSY_MAX && server_busy.is_none_or(|busy| busy < BUSY_MAX) {
            self.warn(format!(
                "a process of this program was busy for {:.0} % of its time: it may be the bottleneck, more --workers \
                 may help",
                heard.busy * 100.0
            ));
        }
    }

    /// Notes how many deliveries the measured part had, and what each cost.
    pub(super) fn take_throughput(&mut self, heard: &Heard, used: &Used) {
        let deliveries = heard.sum.deliveries;
        if deliveries > 0 {
            self.figure("deliveriesPerSecond", deliveries as f64 / used.seconds);
            let per_million = |cpu: CpuSplit| cpu.total() / deliveries as f64 * 1e6;
            self.figure_if("serverCpuPerMillion", used.cpu.server.map(per_million));
            self.figure("loadCpuPerMillion", per_million(used.cpu.load));
        }
    }

    /// Measures while events flow, once they have flowed for a moment: for so long, or while `goes_on` says so. Answers
    /// with what was heard and used in the measured part; both have been told.
    pub(super) fn measure(
        &mut self,
        duration: Duration,
        goes_on: impl Fn() -> bool + Copy,
    ) -> io::Result<(Heard, Used)> {
        self.show("warming up", 0);
        self.watch(WARM_UP, goes_on)?;
        self.warm_up_is_over()?;
        self.show("publishing", 0);
        let before = self.read();
        self.watch(duration, goes_on)?;
        let used = self.used(&before);
        let heard = self.crew.sum()?;
        self.take(&heard, &used);
        self.take_throughput(&heard, &used);
        Ok((heard, used))
    }

    /// What was heard so far is checked, and counts no further.
    pub(super) fn warm_up_is_over(&mut self) -> io::Result<()> {
        let heard = self.crew.sum()?;
        self.take_faults(&heard);
        Ok(())
    }

    /// Notes latencies, and percentiles of those of deliveries.
    pub(super) fn take_latency(&mut self, of: &str, heard: &Heard) {
        let latencies = Latencies::of(&heard.sum.latency);
        if of == "delivery" {
            for (name, percentile) in
                [("p50Millis", 50.0), ("p99Millis", 99.0), ("p999Millis", 99.9), ("maxMillis", 100.0)]
            {
                self.figure_if(name, latencies.percentile(percentile));
            }
        }
        self.run.latencies.insert(of.to_owned(), latencies);
    }

    /// Notes what was checked and what was wrong.
    pub(super) fn take_faults(&mut self, heard: &Heard) {
        self.run.checked += heard.sum.deliveries;
        for (kind, count) in &heard.sum.faults.counts {
            *self.run.faults.entry(*kind).or_default() += count;
        }
        self.run.first_faults.extend(heard.sum.faults.first.iter().cloned());
        if heard.sum.foreign > 0 {
            self.warn(format!("{} events of other publishers came as well", heard.sum.foreign));
        }
        for (reason, count) in &heard.sum.closings {
            self.warn(format!("the server closed {count} connections: {reason}"));
        }
    }

    /// Waits until everybody has everything, listens a little longer, judges, and closes.
    pub(super) fn end(mut self, expected: &Expected) -> io::Result<Run> {
        self.reach(expected)?;
        wait_until(now() + crate::clock::nanos(AFTERMATH));
        self.crew.order(&Order::Judge)?;
        let rest = self.crew.sum()?;
        self.take_faults(&rest);
        let places = self.crew.places();
        if places.lost > 0 {
            self.warn(format!("{} connections ended without our doing", places.lost));
        }
        for (how, count) in &places.refusals {
            self.warn(format!("{count} connections were refused: {how}"));
        }
        self.finish()
    }

    /// Waits until everybody has everything, and tells when that was.
    pub(super) fn reach(&mut self, expected: &Expected) -> io::Result<Option<Nanos>> {
        let clients = self.common.clients;
        self.show("settling", clients.into());
        self.crew.expect(expected)?;
        let bar = self.bar.clone();
        let (places, all) = self.crew.wait(self.common.grace, |places| {
            bar.set_position((clients - places.incomplete.unwrap_or(clients).min(clients)).into());
            places.complete_at.is_some()
        })?;
        if !all {
            let grace = humantime::format_duration(self.common.grace);
            let lacking = places.incomplete.unwrap_or(clients);
            let got = format!("{lacking} clients that lack something");
            self.fault(FaultKind::Unfinished, format!("all clients complete within {grace}"), got);
        }
        Ok(places.complete_at)
    }

    /// Closes.
    pub(super) fn finish(mut self) -> io::Result<Run> {
        self.bar.finish_and_clear();
        self.run.seconds = self.began.elapsed().as_secs_f64();
        self.run.warnings.dedup();
        Ok(self.run)
    }
}
