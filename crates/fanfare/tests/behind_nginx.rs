//! Two edges and a publish API behind nginx, as `deploy/nginx.conf` has it: one address for subscribers and backends.

mod support;

use std::time::Duration;

use fanfare_auth::Secrets;
use fanfare_loadtest::{Endpoint, Job};
use support::proxy::Proxy;
use support::redis::Redis;
use support::role::{KEY, Role, SECRET};

#[test]
fn behind_nginx_everybody_hears_everything_and_who_is_cut_off_misses_nothing() {
    let Some(redis) = Redis::start(&[]) else { return };
    let start = |role| Role::start(role, &redis.url());
    let (edges, publisher) = ([start("edge"), start("edge")], start("publish"));
    let Some(nginx) = Proxy::nginx(edges.each_ref().map(|edge| edge.address), publisher.address) else { return };
    let url: Endpoint = nginx.url().parse().expect("a URL");
    for job in [Job::mixed(url.clone()), Job::cuts(url, 100)] {
        let job = Job {
            clients: 200,
            channels: 20,
            rate: 100.0,
            duration: Duration::from_secs(3),
            key: Some(KEY.to_owned()),
            secret: Some(Secrets::parse(SECRET).expect("a secret")),
            ..job
        };
        let report = job.run().expect("the machine allows it");
        println!("{report}");
        assert!(report.passed() && report.deliveries > 0 && report.lost_connections == 0, "{report}");
    }
    for edge in &edges {
        assert!(edge.metric("fanfare_connections_opened_total") > 50.0, "both have their share");
    }
}
