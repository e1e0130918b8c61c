//! The main job, on the real process: everybody hears everything once and in order, and whoever is cut off comes back
//! to exactly what was missed. Each delivery is checked.
//!
//! The usual run is scaled down; `FANFARE_FULL=1` adds the full size.

use std::time::Duration;

use fanfare_loadtest::Job;
use fanfare_testkit::Fanfare;

/// Runs a job against a `fanfare dev` with so many partitions.
fn check(partitions: u16, job: impl FnOnce(&str) -> Job) {
    let fanfare = Fanfare::dev().env("FANFARE_REDIS_PARTITIONS", partitions.to_string()).start();
    let job = Job { server_pids: vec![fanfare.pid()], ..job(&fanfare.url()) };
    let report = job.run().expect("the machine allows it");
    println!("{report}");
    assert!(report.passed(), "{report}");
    assert!(report.deliveries > 0 && report.lost_connections == 0 && report.partitions == partitions, "{report}");
}

fn mixed(url: &str) -> Job {
    let job = Job::mixed(url.parse().expect("a URL"));
    Job { clients: 1_500, channels: 150, rate: 300.0, duration: Duration::from_secs(5), ..job }
}

fn cuts(url: &str, seed: u64) -> Job {
    let job = Job::cuts(url.parse().expect("a URL"), 300);
    Job { seed, clients: 150, channels: 15, rate: 200.0, duration: Duration::from_secs(5), ..job }
}

#[test]
fn everybody_hears_everything_once_and_in_order() {
    check(1, mixed);
}

#[test]
fn everybody_hears_everything_once_and_in_order_with_8_partitions() {
    check(8, mixed);
}

#[test]
fn whoever_is_cut_off_comes_back_to_exactly_what_was_missed() {
    check(1, |url| cuts(url, 1));
}

#[test]
fn whoever_is_cut_off_comes_back_to_exactly_what_was_missed_with_8_partitions() {
    check(8, |url| cuts(url, 2));
}

#[test]
fn the_same_at_full_size() {
    if std::env::var_os("FANFARE_FULL").is_none() {
        eprintln!("left out: set FANFARE_FULL=1");
        return;
    }
    // One after the other: two would need more descriptors than a process may have.
    for (partitions, seed) in [(1, 3), (8, 4)] {
        let endpoint = |url: &str| url.parse().expect("a URL");
        check(partitions, |url| Job { seed, ..Job::mixed(endpoint(url)) });
        check(partitions, |url| Job { seed, ..Job::cuts(endpoint(url), 2_000) });
    }
}
