//! What is measured of each peer, in the same way for all: it is started anew, spoken to by the same clients, and gone
//! when its figures are taken.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use super::listeners::Listeners;
use super::publishers::{Lane, Publisher, Shared};
use super::{Audience, Ground, Peer, Servers, StartError, meter};
use crate::check::FaultKind;
use crate::machine::kernel_bytes;
use crate::report::new_histogram;
use crate::result::{Cpu, CpuSplit, Latencies, Memory, Run};

/// Longest turn of the clients, so that the clock is looked at.
const TURN: Duration = Duration::from_millis(5);

/// How long nothing is measured after everybody is there, and after publishing began.
const SETTLE: Duration = Duration::from_secs(1);

/// Longest time until all clients are there, and until they have everything.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// How long clients listen on after everything has come: for what comes twice.
const AFTERMATH: Duration = Duration::from_millis(500);

/// Publishers of events to users, each with a request on its way.
const USER_LANES: u32 = 32;

/// Events that clients miss while they are away in a storm.
const MISSED: u32 = 20;

/// Bytes of an event beside stalled readers: enough of them fill what the kernel keeps for a socket.
const SLOW_PAYLOAD_BYTES: usize = 10_000;

/// Readers that stall, and those beside them, and events a second.
const STALLED: u32 = 200;
const HEALTHY: u32 = 50;
const SLOW_RATE: f64 = 100.0;

/// Longest time until stalled readers are cut.
const CUT_TIMEOUT: Duration = Duration::from_secs(10);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Everybody connects, and nothing is said.
    Idle,
    /// Events to everybody, as fast as they are taken.
    Fanout,
    /// Events to everybody at a calm rate.
    Latency,
    /// Events to single users, as fast as they are taken.
    Users,
    /// Everybody is cut off at once, and comes back at once with its last id to what was missed.
    Storm,
    /// Readers stall beside others that don't.
    Slow,
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Clients; a tenth of them where latency at a calm rate is measured.
    pub clients: u32,
    /// How long it is measured.
    pub duration: Duration,
    /// Bytes of an event's payload.
    pub payload_bytes: usize,
    /// Events a second where latency is measured.
    pub rate: f64,
}

impl Scenario {
    /// All of them, in the order in which they run.
    pub const ALL: [Self; 6] = [Self::Idle, Self::Fanout, Self::Latency, Self::Users, Self::Storm, Self::Slow];

    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Fanout => "fanout",
            Self::Latency => "latency",
            Self::Users => "users",
            Self::Storm => "storm",
            Self::Slow => "slow",
        }
    }
}

/// Starts a peer, measures it once, and stops it; tells its version as well.
///
/// # Errors
/// It can't be started, or the machine refuses. What goes wrong with events is in the run.
pub fn measure(
    peer: &Peer,
    ground: &Ground,
    scenario: Scenario,
    options: Options,
) -> Result<(Run, String), StartError> {
    let began = Instant::now();
    let servers = (peer.start)(ground)?;
    let payload_bytes = if scenario == Scenario::Slow { SLOW_PAYLOAD_BYTES } else { options.payload_bytes };
    let shared = Shared::new(if scenario == Scenario::Users { options.clients } else { 0 });
    let mut course = Course {
        peer,
        pids: servers.pids(),
        listeners: Listeners::new(peer, &servers.subscribe, payload_bytes)?,
        servers: &servers,
        shared: &shared,
        options: Options { payload_bytes, ..options },
        run: Run::default(),
        empty_bytes: meter::user_bytes(&servers.pids()),
    };
    match scenario {
        Scenario::Idle => course.idle()?,
        Scenario::Fanout => course.fanout()?,
        Scenario::Latency => course.latency()?,
        Scenario::Users => course.users()?,
        Scenario::Storm => course.storm()?,
        Scenario::Slow => course.slow()?,
    }
    let mut run = course.finish();
    run.seconds = began.elapsed().as_secs_f64();
    Ok((run, servers.version.clone()))
}

struct Course<'a> {
    peer: &'a Peer,
    pids: Vec<u32>,
    servers: &'a Servers,
    listeners: Listeners<'a>,
    shared: &'a Shared,
    options: Options,
    run: Run,
    /// User memory before anybody came.
    empty_bytes: f64,
}

/// CPU and deliveries so far.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    server: CpuSplit,
    load: CpuSplit,
    deliveries: u64,
}

fn minus(after: CpuSplit, before: CpuSplit) -> CpuSplit {
    CpuSplit { user: after.user - before.user, system: after.system - before.system }
}

impl<'a> Course<'a> {
    fn figure(&mut self, name: &str, value: f64) {
        self.run.figures.insert(name.to_owned(), value);
    }

    /// Lets clients read until it is so; false where that takes too long.
    fn turn_until(&mut self, timeout: Duration, mut is_so: impl FnMut(&Listeners<'_>) -> bool) -> io::Result<bool> {
        let deadline = Instant::now() + timeout;
        while !is_so(&self.listeners) {
            if Instant::now() > deadline {
                return Ok(false);
            }
            self.listeners.turn(TURN)?;
            self.shared.delivered.store(self.listeners.seen.deliveries, Relaxed);
        }
        Ok(true)
    }

    fn turn_for(&mut self, time: Duration) -> io::Result<()> {
        self.turn_until(time, |_| false).map(drop)
    }

    fn mark(&self) -> Mark {
        let load = meter::cpu(&[std::process::id()]);
        Mark { at: Instant::now(), server: meter::cpu(&self.pids), load, deliveries: self.listeners.seen.deliveries }
    }

    fn connect(&mut self, audiences: impl Iterator<Item = Audience>) -> io::Result<()> {
        let (began, before) = (Instant::now(), self.mark());
        self.listeners.add(audiences, false);
        self.turn_until(CONNECT_TIMEOUT, |listeners| listeners.are_settled())?;
        if !self.listeners.all_open() {
            self.run.warnings.push("not everybody could connect".to_owned());
        }
        let (seconds, open) = (began.elapsed().as_secs_f64(), f64::from(self.listeners.seen.open));
        let cpu = minus(self.mark().server, before.server).total();
        self.figure("connections", open);
        self.figure("connectSeconds", seconds);
        self.figure("connectionsPerSecond", open / seconds);
        if open > 0.0 {
            self.figure("serverCpuMicrosPerConnect", cpu * 1e6 / open);
        }
        // A response may begin a little before its subscription does.
        self.turn_for(SETTLE)
    }

    fn everybody(count: u32) -> impl Iterator<Item = Audience> {
        std::iter::repeat_n(Audience::Everybody, count as usize)
    }

    fn publisher(&self) -> Publisher<'a> {
        Publisher {
            peer: self.peer,
            endpoint: self.servers.publish.clone(),
            shared: self.shared,
            run: self.listeners.seen.run,
            run_began: self.listeners.run_began(),
            payload_bytes: self.options.payload_bytes,
            stream: None,
        }
    }

    /// Does something while publishers publish, and waits until everybody has everything.
    fn while_publishing<T>(
        &mut self,
        lanes: impl Iterator<Item = Lane>,
        body: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> io::Result<T> {
        self.shared.stop.store(false, Relaxed);
        let publishers = lanes.map(|lane| (lane, self.publisher())).collect::<Vec<_>>();
        let shared = self.shared;
        thread::scope(|scope| {
            let threads = publishers.into_iter().map(|(lane, publisher)| scope.spawn(move || publisher.run(lane)));
            let threads = threads.collect::<Vec<_>>();
            let done = body(self);
            shared.stop.store(true, Relaxed);
            // They end within a request, which clients must read on for.
            while threads.iter().any(|thread| !thread.is_finished()) {
                self.turn_for(TURN)?;
            }
            for thread in threads {
                thread.join().expect("a publisher does not panic")?;
            }
            done
        })
    }

    /// Waits until everybody has everything, and takes down what doesn't come or comes wrong.
    fn drain(&mut self) -> io::Result<()> {
        let shared = self.shared;
        self.turn_until(DRAIN_TIMEOUT, |listeners| listeners.all_have(|audience| shared.events(audience)))?;
        self.turn_for(AFTERMATH)
    }

    /// What was done since a mark, as figures.
    fn since(&mut self, before: Mark) -> f64 {
        let after = self.mark();
        let seconds = (after.at - before.at).as_secs_f64();
        let deliveries = (after.deliveries - before.deliveries) as f64;
        let (server, load) = (minus(after.server, before.server), minus(after.load, before.load));
        self.run.cpu = Cpu { server: Some(server), load };
        self.figure("deliveriesPerSecond", deliveries / seconds);
        if deliveries > 0.0 {
            self.figure("serverCpuPerMillion", server.total() * 1e6 / deliveries);
            self.figure("loadCpuPerMillion", load.total() * 1e6 / deliveries);
        }
        let cores = thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
        self.figure("serverCpuShare", server.total() / seconds / cores);
        let share = load.total() / seconds;
        if share > 0.9 {
            self.run.warnings.push(format!("the load generator itself used {:.0} % of a core", share * 100.0));
        }
        deliveries / seconds
    }

    fn take_latency(&mut self) {
        let latency = std::mem::replace(&mut self.listeners.seen.latency, new_histogram());
        let millis = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
        for (name, quantile) in [("p50Millis", 0.5), ("p99Millis", 0.99), ("p999Millis", 0.999), ("maxMillis", 1.0)] {
            self.figure(name, millis(quantile));
        }
        self.run.latencies.insert("delivery".to_owned(), Latencies::of(&latency));
    }

    fn idle(&mut self) -> io::Result<()> {
        let kernel = kernel_bytes();
        let load = meter::user_bytes(&[std::process::id()]);
        self.connect(Self::everybody(self.options.clients))?;
        self.turn_for(SETTLE)?;
        let connections = f64::from(self.listeners.seen.open.max(1));
        let server_user = (meter::user_bytes(&self.pids) - self.empty_bytes) / connections;
        let kernel = (kernel_bytes() - kernel) / connections;
        let load_user = (meter::user_bytes(&[std::process::id()]) - load) / connections;
        self.figure("serverEmptyBytes", self.empty_bytes);
        self.figure("serverUserBytes", server_user);
        self.figure("kernelBytes", kernel);
        self.figure("loadUserBytes", load_user);
        self.run.memory = Some(Memory { server_user: Some(server_user), load_user, kernel });
        Ok(())
    }

    fn fanout(&mut self) -> io::Result<()> {
        let clients = self.options.clients;
        self.connect(Self::everybody(clients))?;
        self.while_publishing([Lane::Saturate { clients }].into_iter(), |course| {
            course.turn_for(SETTLE)?;
            let (before, events) = (course.mark(), course.shared.acknowledged());
            course.turn_for(course.options.duration)?;
            let events = course.shared.acknowledged() - events;
            course.since(before);
            course.figure("eventsPerSecond", events as f64 / before.at.elapsed().as_secs_f64());
            Ok(())
        })?;
        self.drain()
    }

    fn latency(&mut self) -> io::Result<()> {
        self.connect(Self::everybody((self.options.clients / 10).max(1)))?;
        let every = Duration::from_secs_f64(1.0 / self.options.rate);
        self.while_publishing([Lane::Rate { every }].into_iter(), |course| {
            course.turn_for(SETTLE)?;
            course.listeners.seen.latency.reset();
            let before = course.mark();
            course.turn_for(course.options.duration)?;
            course.since(before);
            Ok(())
        })?;
        self.drain()?;
        self.take_latency();
        Ok(())
    }

    fn users(&mut self) -> io::Result<()> {
        let clients = self.options.clients;
        self.connect((0..clients).map(Audience::User))?;
        let of = USER_LANES.min(clients);
        self.while_publishing((0..of).map(|rest| Lane::Users { of, rest }), |course| {
            course.turn_for(SETTLE)?;
            let before = course.mark();
            course.turn_for(course.options.duration)?;
            let rate = course.since(before);
            course.figure("eventsPerSecond", rate);
            if let Some(cpu) = course.run.figures.get("serverCpuPerMillion").copied() {
                course.figure("serverCpuMicrosPerEvent", cpu);
            }
            Ok(())
        })?;
        self.drain()
    }

    fn storm(&mut self) -> io::Result<()> {
        let clients = self.options.clients;
        self.connect(Self::everybody(clients))?;
        let shared = self.shared;
        let mut publisher = self.publisher();
        // Everybody has an id to come back with.
        publisher.publish(&[Audience::Everybody], Instant::now())?;
        self.turn_until(DRAIN_TIMEOUT, |listeners| listeners.all_have(|audience| shared.events(audience)))?;
        self.turn_for(SETTLE)?;
        self.listeners.cut_all();
        for _ in 0..MISSED {
            publisher.publish(&[Audience::Everybody], Instant::now())?;
        }
        // A server that still cleans up after the cut would pay for that in the storm.
        self.turn_for(SETTLE)?;
        let (began, before) = (Instant::now(), self.mark());
        self.listeners.come_back();
        self.turn_until(CONNECT_TIMEOUT, |listeners| listeners.are_settled())?;
        if self.listeners.all_open() {
            self.figure("backSeconds", began.elapsed().as_secs_f64());
        }
        let has_all = |listeners: &Listeners<'_>| listeners.all_have(|audience| shared.events(audience));
        // Who keeps no history is not waited for.
        let timeout = if self.peer.resumes { DRAIN_TIMEOUT } else { SETTLE };
        if self.turn_until(timeout, has_all)? {
            self.figure("caughtUpSeconds", began.elapsed().as_secs_f64());
        }
        let after = self.mark();
        let server = minus(after.server, before.server);
        self.run.cpu = Cpu { server: Some(server), load: minus(after.load, before.load) };
        self.figure("serverCpuMicrosPerConnect", server.total() * 1e6 / f64::from(clients));
        self.figure("replayed", (after.deliveries - before.deliveries) as f64);
        self.turn_for(AFTERMATH)
    }

    fn slow(&mut self) -> io::Result<()> {
        self.connect(Self::everybody(HEALTHY))?;
        let every = Duration::from_secs_f64(1.0 / SLOW_RATE);
        self.while_publishing([Lane::Rate { every }].into_iter(), |course| {
            course.turn_for(SETTLE)?;
            course.listeners.seen.latency.reset();
            course.turn_for(course.options.duration)?;
            course.take_latency();
            let calm = course.run.figures["p99Millis"];
            course.figure("calmP99Millis", calm);

            let (user, kernel) = (meter::user_bytes(&course.pids), meter::socket_bytes());
            let alone = meter::descriptors(&course.pids);
            course.listeners.add(Self::everybody(STALLED), true);
            course.turn_until(CONNECT_TIMEOUT, |listeners| listeners.are_settled())?;
            let began = Instant::now();
            let (mut most_user, mut most_kernel, mut cut_after) = (0.0_f64, 0.0_f64, None);
            while began.elapsed() < CUT_TIMEOUT && cut_after.is_none() {
                course.turn_for(Duration::from_millis(250))?;
                most_user = most_user.max(meter::user_bytes(&course.pids) - user);
                most_kernel = most_kernel.max(meter::socket_bytes() - kernel);
                let are_cut = meter::descriptors(&course.pids) <= alone;
                cut_after = are_cut.then(|| began.elapsed().as_secs_f64());
            }
            course.take_latency();
            let p99 = course.run.figures["p99Millis"];
            course.figure("p99OverCalm", p99 / calm.max(0.001));
            course.figure("stalledUserBytes", most_user / f64::from(STALLED));
            course.figure("stalledKernelBytes", most_kernel / f64::from(STALLED));
            if let Some(seconds) = cut_after {
                course.figure("cutAfterSeconds", seconds);
            }
            Ok(())
        })?;
        self.drain()
    }

    /// The run, with what was wrong in it.
    fn finish(mut self) -> Run {
        let lacking = self.listeners.lacking(|audience| self.shared.events(audience));
        let seen = &self.listeners.seen;
        let faults = [
            (FaultKind::Missing, lacking),
            (FaultKind::Double, seen.double),
            (FaultKind::Reordered, seen.late),
            (FaultKind::Corrupt, seen.corrupt),
        ];
        self.run.faults = faults.into_iter().filter(|(_, count)| *count > 0).collect::<BTreeMap<_, _>>();
        self.run.checked = seen.deliveries;
        let refused = self.shared.refused.load(Relaxed);
        for (count, what) in [(seen.lost, "connections were lost"), (refused, "publishes were refused")] {
            if count > 0 {
                self.run.warnings.push(format!("{count} {what}"));
            }
        }
        self.run
    }
}
