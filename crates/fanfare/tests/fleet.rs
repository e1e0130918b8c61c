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
use support::role::{KEY, Role, SECRET, token};
use support::{run_with_input, stderr};

/// Between two blows at the subscriptions: long enough to subscribe again, most of the time.
const BLOW_INTERVAL: Duration = Duration::from_millis(300);

/// Events flow for so long before there is trouble.
const LEAD: Duration = Duration::from_secs(2);

/// A publish is answered within 5 s, if only with "outcome unknown" (`docs/redis.md`); the rest is for a busy machine.
const SLOWEST_ANSWER_SECONDS: f64 = 15.0;

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
        Some(Self::over(Redis::start(&[])?, partitions, &[]))
    }

    /// One whose edges have these variables besides.
    fn over(redis: Redis, partitions: u16, edges: &[(&str, &str)]) -> Self {
        let turn = is_full().then(turn);
        let count = partitions.to_string();
        let start = |role, more: &[(&str, &str)]| {
            Role::start_with(role, &redis.url(), &[more, &[("FANFARE_REDIS_PARTITIONS", &*count)]].concat())
        };
        let (edges, publisher) = ([start("edge", edges), start("edge", edges)], start("publish", &[]));
        Self { redis, edges, publisher, partitions, _turn: turn }
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

/// A job with publishers that repeat until they are answered with 200, over so many seconds of trouble and then some.
fn troubled(fleet: &Fleet, trouble_seconds: u64) -> Job {
    let job = fleet.job(Job::mixed);
    let duration = LEAD + Duration::from_secs(trouble_seconds + 3);
    let job = Job { repeat: true, publishers: 8, clients: 2_000, channels: 200, rate: 400.0, duration, ..job };
    if is_full() { job } else { Job { clients: 300, channels: 30, rate: 100.0, ..job } }
}

/// What must hold in any trouble, besides every event once and in order.
fn check_troubled(fleet: &Fleet, report: &Report) {
    fleet.check(report);
    assert!(report.refusals.is_empty(), "{report}");
    assert!(report.publish_unanswered == 0 && report.slowest_answer_seconds < SLOWEST_ANSWER_SECONDS, "{report}");
    assert!(report.publish_refusals.keys().all(|status| *status == 503), "{report}");
    assert!(report.recovery.is_some_and(|recovery| recovery.caught_up_seconds.is_some()), "{report}");
}

/// Settings of a Redis that has what it answered, whatever happens to it.
const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

#[test]
fn redis_dies_and_comes_back_with_its_data_and_all_is_delivered_and_everybody_told() {
    let Some(redis) = Redis::start(&DURABLE) else { return };
    let mut fleet = Fleet::over(redis, 1, &[]);
    let job = Job { allow_gaps: true, ..troubled(&fleet, 3) };
    let redis = &mut fleet.redis;
    let report = job.run_through(move || {
        pause(LEAD);
        redis.kill();
        pause(Duration::from_secs(3));
        redis.restart();
        Ok(())
    });
    let report = report.expect("the machine allows it");
    check_troubled(&fleet, &report);
    // Nobody can know that nothing was lost, so everybody is told once; but nothing was.
    assert_eq!((report.gaps, report.excused), (u64::from(job.clients), 0), "{report}");
    assert!(report.publish_repeated > 0, "{report}");
}

#[test]
fn redis_dies_and_comes_back_without_its_data_and_what_is_gone_is_told() {
    let Some(mut fleet) = Fleet::start(1) else { return };
    let job = Job { allow_gaps: true, ..troubled(&fleet, 3) };
    let redis = &mut fleet.redis;
    let report = job.run_through(move || {
        pause(LEAD);
        redis.kill();
        redis.forget();
        pause(Duration::from_secs(3));
        redis.restart();
        Ok(())
    });
    let report = report.expect("the machine allows it");
    check_troubled(&fleet, &report);
    assert_eq!(report.gaps, u64::from(job.clients), "{report}");
    assert!(report.publish_repeated > 0, "{report}");
}

#[test]
fn redis_hangs_and_nobody_misses_anything() {
    let Some(mut fleet) = Fleet::start(1) else { return };
    let job = troubled(&fleet, 8);
    let redis = &mut fleet.redis;
    let report = job.run_through(move || {
        pause(LEAD);
        redis.signal("STOP");
        pause(Duration::from_secs(8)); // Longer than all deadlines, so that connections are given up and made anew.
        redis.signal("CONT");
        Ok(())
    });
    let report = report.expect("the machine allows it");
    check_troubled(&fleet, &report);
    assert!(report.publish_refusals.contains_key(&503), "{report}");
    assert!(fleet.edges.iter().all(|edge| edge.metric("fanfare_backbone_resyncs_total") >= 1.0), "{report}");
}

#[test]
fn subscriptions_die_again_and_again_and_nobody_misses_anything() {
    let Some(mut fleet) = Fleet::start(1) else { return };
    let job = troubled(&fleet, 4);
    let redis = &mut fleet.redis;
    let report = job.run_through(move || {
        pause(LEAD);
        for _ in 0..12 {
            redis.kill_subscriptions();
            pause(BLOW_INTERVAL);
        }
        redis.kill_subscriptions();
        Ok(())
    });
    let report = report.expect("the machine allows it");
    check_troubled(&fleet, &report);
    assert!(report.publish_refusals.is_empty(), "publishers need no subscription: {report}");
    assert!(fleet.edges.iter().all(|edge| edge.metric("fanfare_backbone_resyncs_total") >= 2.0), "{report}");
}

#[tokio::test]
async fn redis_cuts_off_an_edge_that_reads_too_slowly_and_nobody_misses_anything() {
    let Some(mut fleet) = Fleet::start(1) else { return };
    let job = troubled(&fleet, 4);
    let token = token(&["--user", "flooded", "--channel", "flood"]);
    let _flooded = fleet.edges[0].subscribe("/events/flood", &token).connected().await;
    // 24 MB: more than the sockets between the two take, and the limit.
    let (flood, url) = (format!("{}\n", "x".repeat(60_000)).repeat(400), fleet.publisher.url());
    let (redis, stalled) = (&mut fleet.redis, &mut fleet.edges[0].process);
    let report = job.run_through(move || {
        pause(LEAD);
        redis.command(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 0 0"]);
        stalled.signal("STOP");
        let sent = run_with_input(&["send", "--url", &url, "--key", KEY, "flood", "-"], &flood);
        assert!(sent.status.success(), "{}", stderr(&sent));
        let line = redis.out.find("output buffer limits");
        assert!(line.contains("cmd=subscribe") || line.contains("cmd=ping"), "it is a subscription: {line}");
        stalled.signal("CONT");
        stalled.err.find("the link to the backbone broke");
        Ok(())
    });
    let report = report.expect("the machine allows it");
    check_troubled(&fleet, &report);
    assert!(report.publish_refusals.is_empty(), "publishers need no subscription: {report}");
}

#[test]
fn edges_lose_their_rights_for_a_while_and_nobody_misses_anything() {
    let Some(redis) = Redis::start(&[]) else { return };
    let all = ["ACL", "SETUSER", "edges", "on", ">secret", "~*", "&*", "+@all"];
    redis.command(&all);
    let user = [("FANFARE_REDIS_USERNAME", "edges"), ("FANFARE_REDIS_PASSWORD", "secret")];
    let mut fleet = Fleet::over(redis, 1, &user);
    let job = troubled(&fleet, 6);
    let (redis, edges) = (&mut fleet.redis, &mut fleet.edges);
    let report = job.run_through(move || {
        pause(LEAD);
        for (lost, again) in [("resetchannels", "&*"), ("-evalsha", "+evalsha")] {
            redis.command(&["ACL", "SETUSER", "edges", lost]);
            redis.command(&["CLIENT", "KILL", "USER", "edges"]);
            for edge in &mut *edges {
                edge.process.err.find("the link to the backbone broke");
            }
            pause(Duration::from_secs(3));
            redis.command(&["ACL", "SETUSER", "edges", again]);
        }
        Ok(())
    });
    let report = report.expect("the machine allows it");
    check_troubled(&fleet, &report);
    assert!(report.publish_refusals.is_empty(), "publishers have rights of their own: {report}");
}
