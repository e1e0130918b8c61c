//! A small world around the store, the feeds and the machines: publishers that lose replies, primaries that fail
//! over, connections that break anywhere, clients that come and go. It proves the promise, or finds the seed that
//! breaks it.
//!
//! Everything that happens follows from a seed and a [`Shape`]: time is simulated, nothing does I/O. The code that is
//! driven here is the code that runs in the service; only its surroundings are made up.
//!
//! ```text
//! cargo test --release -p fanfare-protocol simulator -- --nocapture          all of it, with its tables
//! FANFARE_SEEDS=100000 cargo test --release -p fanfare-protocol thousands_of_seeds
//! FANFARE_SEED=17 FANFARE_SHAPE=storm cargo test --release -p fanfare-protocol one_seed -- --nocapture
//! ```
//! The last one tells everything that happens in one seed; `FANFARE_WITHOUT=HoldCuts` switches a rule off for it.

mod check; // The promise.
mod client;
mod coverage;
mod edge;
mod faults;
mod link;
mod plan;
mod poller;
mod primary;
mod publisher;
mod rules; // What each rule is for.
mod scenarios;
mod seeds; // The runs.

use std::collections::BTreeMap;

use fastrand::Rng;

use crate::{Channel, Partitions};
pub(crate) use coverage::hit;

use check::Check;
use client::{Client, Conn};
use edge::Edge;
use link::Link;
use plan::{Plan, Shape};
use primary::Primary;
use publisher::Message;

/// Simulated microseconds since the beginning.
type Time = u64;

const MS: Time = 1_000;

/// How long after the faults and the settling something may still arrive.
const PATIENCE: Time = 12_000 * MS;

/// Something that is going to happen.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The next item of a feed's link arrives at its end.
    Link(usize, link::Lane),
    /// The edge finds out that a link is broken.
    LinkBroken(usize),
    OpenLink {
        edge: usize,
        life: u32,
        partition: u16,
    },
    TakeWishes {
        edge: usize,
        life: u32,
        shard: usize,
        partition: u16,
    },
    Deliver {
        edge: usize,
        life: u32,
        shard: usize,
        partition: u16,
    },
    Work {
        edge: usize,
        life: u32,
        shard: usize,
    },
    FeedTick {
        edge: usize,
        life: u32,
    },
    MachineTick {
        edge: usize,
        life: u32,
    },
    /// The next frame of a connection's backlog goes to the socket …
    Write(usize),
    /// … and from there to the client.
    Receive(usize),
    Connect(usize),
    Die {
        client: usize,
        conn: usize,
    },
    /// The edge finds out that a client is gone.
    Leave(usize),
    Patch(usize),
    PatchArrives {
        conn: usize,
        patch: usize,
    },
    Heartbeat(usize),
    /// A poll is answered, whatever it has …
    PollEnds(usize),
    /// … and the answer arrives.
    Answer(usize),
    Publish {
        message: usize,
        attempt: u32,
    },
    PublishArrives {
        message: usize,
        attempt: u32,
        partition: u16,
        server: usize,
    },
    Reply {
        message: usize,
        entry: usize,
    },
    Replicate(u16),
    ServerDies {
        partition: u16,
        server: usize,
    },
    Fault,
    LastFault,
    Calm,
}

/// How much happened.
#[derive(Clone, Debug, Default)]
struct Stats {
    steps: u64,
    deliveries: u64,
    connections: u64,
    failovers: u64,
    publishes: u64,
    gaps: BTreeMap<&'static str, u64>,
}

struct World {
    rng: Rng,
    plan: Plan,
    partitions: Partitions,
    channels: Vec<Channel>,
    now: Time,
    steps: BTreeMap<(Time, u64), Step>,
    steps_made: u64,
    /// The faults are over; everything is to arrive now.
    calm: bool,
    primaries: Vec<Primary>,
    links: Vec<Link>,
    edges: Vec<Edge>,
    clients: Vec<Client>,
    conns: Vec<Conn>,
    patches: Vec<client::PatchRequest>,
    messages: Vec<Message>,
    check: Check,
    stats: Stats,
    /// What happened, line by line, where somebody wants to read it.
    story: Option<Vec<String>>,
}

/// How a seed ended.
struct Outcome {
    stats: Stats,
    broken: Option<String>,
    story: Vec<String>,
}

macro_rules! tell {
    ($world:expr, $($arg:tt)*) => {
        if let Some(story) = &mut $world.story {
            story.push(format!("{:>9} {}", $world.now, format_args!($($arg)*)));
        }
    };
}
use tell;

impl World {
    fn new(seed: u64, plan: Plan, mut rng: Rng, told: bool) -> Self {
        let partitions = Partitions::new(plan.partitions).expect("1 to 3");
        let channels = plan.channels();
        let mut world = Self {
            partitions,
            channels,
            now: 0,
            steps: BTreeMap::new(),
            steps_made: 0,
            calm: false,
            primaries: partitions.all().map(|_| Primary::new(&plan, &mut rng)).collect(),
            links: Vec::new(),
            edges: Vec::new(),
            clients: Vec::new(),
            conns: Vec::new(),
            patches: Vec::new(),
            messages: Vec::new(),
            check: Check::new(matches!(plan.shape, Shape::Calm | Shape::Shaky)),
            stats: Stats::default(),
            story: told.then(|| vec![format!("seed {seed}: {plan:?}")]),
            plan,
            rng,
        };
        world.populate();
        world
    }

    fn populate(&mut self) {
        for _ in 0..self.plan.edges {
            self.start_edge();
        }
        for client in 0..self.plan.clients {
            self.add_client();
            let at = self.below(self.plan.chaos / 2);
            self.at(at, Step::Connect(client));
        }
        self.add_messages();
        for partition in self.partitions.all() {
            let at = self.below(20 * MS);
            self.at(at, Step::Replicate(partition));
        }
        self.next_fault();
        self.at(self.plan.chaos, Step::Calm);
    }

    /// Lives until everything has had time to arrive, and answers with what broke the promise.
    fn run(&mut self) -> Option<String> {
        let end = self.plan.chaos + self.plan.settle;
        let mut look = end;
        while let Some(((time, _), step)) = self.steps.pop_first() {
            if time > look {
                // Small pages and slow readers take their time; who stands still never gets there.
                if look > end + PATIENCE || self.check_end().is_none() {
                    break;
                }
                look += 200 * MS;
            }
            self.now = time;
            self.stats.steps += 1;
            self.step(step);
            if let Some(broken) = self.check.broken.take() {
                return Some(broken);
            }
        }
        self.check_end()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Link(link, lane) => self.link_arrival(link, lane),
            Step::LinkBroken(link) => self.link_broken(link),
            Step::OpenLink { edge, life, partition } => self.open_link(edge, life, partition),
            Step::TakeWishes { edge, life, shard, partition } => self.take_wishes(edge, life, shard, partition),
            Step::Deliver { edge, life, shard, partition } => self.deliver(edge, life, shard, partition),
            Step::Work { edge, life, shard } => self.work(edge, life, shard),
            Step::FeedTick { edge, life } => self.feed_tick(edge, life),
            Step::MachineTick { edge, life } => self.machine_tick(edge, life),
            Step::Write(conn) => self.write(conn),
            Step::Receive(conn) => self.receive(conn),
            Step::Connect(client) => self.connect(client),
            Step::Die { client, conn } => self.die(client, conn),
            Step::Leave(conn) => self.leave(conn),
            Step::Patch(client) => self.patch(client),
            Step::PatchArrives { conn, patch } => self.patch_arrives(conn, patch),
            Step::Heartbeat(conn) => self.heartbeat(conn),
            Step::PollEnds(conn) => self.poll_ends(conn),
            Step::Answer(conn) => self.answer_arrives(conn),
            Step::Publish { message, attempt } => self.publish(message, attempt),
            Step::PublishArrives { message, attempt, partition, server } => {
                self.publish_arrives(message, attempt, partition, server);
            }
            Step::Reply { message, entry } => self.reply(message, entry),
            Step::Replicate(partition) => self.replicate(partition),
            Step::ServerDies { partition, server } => self.server_dies(partition, server),
            Step::Fault => self.fault(),
            Step::LastFault => self.last_fault(),
            Step::Calm => self.calm_down(),
        }
    }

    fn at(&mut self, time: Time, step: Step) {
        self.steps_made += 1;
        self.steps.insert((time, self.steps_made), step);
    }

    fn after(&mut self, pause: Time, step: Step) {
        self.at(self.now + pause, step);
    }

    fn below(&mut self, end: Time) -> Time {
        self.rng.u64(..end.max(1))
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.rng.f64() < probability
    }

    /// How long something small takes: usually little, now and then much longer.
    fn delay(&mut self) -> Time {
        let most = if self.chance(0.04) { 60 * MS } else { self.plan.delay };
        self.below(most)
    }
}
