//! A fleet keeps the promise: two edges and a publish API over one Redis, with tokens and keys, and every single
//! delivery checked.
//!
//! The usual run is scaled down; with `FANFARE_FULL=1` it has the full size, one test at a time.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use fanfare_auth::Secrets;
use fanfare_loadtest::{Job, Report};
use support::redis::Redis;
use support::role::{KEY, Role, SECRET};

/// Between two blows at the subscriptions: long enough to subscribe again, most of the time.
const BLOW_INTERVAL: Duration = Duration::from_millis(300);

struct Fleet {
    redis: Redis,
    edges: [Role; 2],
    publisher: Role,
    partitions: u16,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Fleet {
    /// None: there is no Redis here, as was said.
    fn start(partitions: u16) -> Option<Self> {
        let turn = is_full().then(turn);
        let redis = Redis::start(&[])?;
        let start =
            |role| Role::start_with(role, &redis.url(), &[("FANFARE_REDIS_PARTITIONS", &partitions.to_string())]);
        let (edges, publisher) = ([start("edge"), start("edge")], start("publish"));
        Some(Self { redis, edges, publisher, partitions, _turn: turn })
    }

    /// A job over all edges, with everything that opens them.
    fn job(&self, job: impl FnOnce(fanfare_loadtest::Endpoint) -> Job) -> Job {
        let [first, second] = self.edges.each_ref().map(|edge| edge.url().parse().expect("a URL"));
        let roles = self.edges.iter().chain([&self.publisher]);
        let job = job(first);
        Job {
            edges: [job.edges.clone(), vec![second]].concat(),
            publish: self.publisher.url().parse().expect("a URL"),
            key: Some(KEY.to_owned()),
            secret: Some(Secrets::parse(SECRET).expect("a secret")),
            server_pids: roles.map(|role| role.process.id()).collect(),
            ..job
        }
    }

    /// Everything checked out, and no connection ended but by our hand.
    fn check(&self, report: &Report) {
        println!("{report}");
        assert!(report.passed(), "{report}");
        assert!(report.deliveries > 0 && report.partitions == self.partitions, "{report}");
        assert!(report.lost_connections == 0 && report.closings.is_empty(), "{report}");
    }
}

fn is_full() -> bool {
    std::env::var_os("FANFARE_FULL").is_some()
}

/// At full size two would need more descriptors than a process may have, and take each other's processor.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::disallowed_methods, reason = "how long a fault lasts is no event that could be waited for")]
fn pause(duration: Duration) {
    thread::sleep(duration);
}

fn everybody_hears_everything(partitions: u16) {
    let Some(fleet) = Fleet::start(partitions) else { return };
    let job = fleet.job(Job::mixed);
    let duration = Duration::from_secs(if is_full() { 15 } else { 5 });
    let job = if is_full() { job } else { Job { clients: 1_000, channels: 100, rate: 200.0, ..job } };
    fleet.check(&Job { duration, ..job }.run().expect("the machine allows it"));
}

#[test]
fn everybody_on_both_edges_hears_everything_once_and_in_order() {
    everybody_hears_everything(1);
}

#[test]
fn everybody_on_both_edges_hears_everything_once_and_in_order_with_8_partitions() {
    everybody_hears_everything(8);
}

fn cut_off_clients_come_back_on_any_edge(partitions: u16, seed: u64) {
    let Some(mut fleet) = Fleet::start(partitions) else { return };
    let job = fleet.job(|edge| Job { seed, ..Job::cuts(edge, if is_full() { 2_000 } else { 200 }) });
    let scaled = Job { clients: 100, channels: 10, rate: 150.0, duration: Duration::from_secs(5), ..job.clone() };
    let job = if is_full() { job } else { scaled };
    let (over, redis) = (&AtomicBool::new(false), &mut fleet.redis);
    let report = thread::scope(|scope| {
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                redis.kill_subscriptions();
                pause(BLOW_INTERVAL);
            }
        });
        let report = job.run();
        over.store(true, Ordering::Relaxed);
        report.expect("the machine allows it")
    });
    fleet.check(&report);
    let asked = job.cuts.expect("a job with cuts").cuts;
    assert!(report.cuts >= u64::from(asked) && report.replayed > 0, "{report}");
    for edge in &fleet.edges {
        let resyncs = edge.metric("fanfare_backbone_resyncs_total");
        assert!(resyncs >= f64::from(partitions) * 2.0, "only {resyncs} times was a subscription lost");
    }
}

#[test]
fn who_is_cut_off_misses_nothing_on_any_edge_while_subscriptions_die_again_and_again() {
    cut_off_clients_come_back_on_any_edge(1, 5);
}

#[test]
fn who_is_cut_off_misses_nothing_on_any_edge_while_subscriptions_die_again_and_again_with_8_partitions() {
    cut_off_clients_come_back_on_any_edge(8, 6);
}
